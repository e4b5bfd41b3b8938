//! nf_tables objects, commits, listings and notifications against a real kernel, in network namespaces of the tests' own.

mod fake;
mod foreign;
mod monitor;
mod namespace;
mod nft;
mod sample;
mod text;
mod watch;
mod wire;
