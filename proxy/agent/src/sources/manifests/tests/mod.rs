//! Tests of manifests: how they are parsed, how bad ones are reported, and how a folder is followed.

mod follow;
mod formats;
mod parse;
