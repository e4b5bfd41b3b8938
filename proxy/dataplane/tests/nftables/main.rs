//! The nftables dataplane against a real kernel, in network namespaces of its own.

mod cluster;
mod damage;
#[expect(unreachable_pub, reason = "the testbed exports what is in it")]
#[path = "../../../../testbed/src/foreign.rs"]
mod foreign;
mod golden;
#[path = "../common/ip.rs"]
mod ip;
mod kernel;
#[path = "../../../kernel/tests/nftables/namespace.rs"]
mod namespace;
#[path = "../../../kernel/tests/nftables/nft.rs"]
mod nft;
mod others;
mod packets;
#[expect(unreachable_pub, reason = "the testbed exports what is in it")]
#[path = "../../../../testbed/src/table_owner.rs"]
mod table_owner;
