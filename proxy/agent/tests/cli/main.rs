//! The built program's command line: help, bad input, and rendering of the example manifests.

mod bad_input;
mod cleanup;
mod config;
mod help;
mod program;
mod render;
mod run;
