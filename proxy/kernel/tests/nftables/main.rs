//! nf_tables objects, commits, listings and notifications against a real kernel, in network namespaces of the tests' own.

mod fake;
#[expect(unreachable_pub, reason = "the testbed exports what is in it")]
#[path = "../../../../testbed/src/foreign.rs"]
mod foreign;
mod monitor;
mod namespace;
mod nft;
mod sample;
mod text;
mod watch;
mod wire;
