//! How one speaks to Linux: netlink, nf_tables, conntrack and nfacct. Knows nothing of Services.

pub mod conntrack;
mod error;
pub mod netlink;
pub mod nfacct;
pub mod nftables;

pub use error::Error;
