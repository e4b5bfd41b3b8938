//! Typed access to the Linux kernel's networking: netlink, nf_tables, conntrack and nfacct.
//!
//! The crate is a library of its own. It knows addresses, ports and kernel objects; it does not know Kubernetes
//! Services, and no policy of portway's lives here. Names of tables and counters are parameters.
//!
//! | module | what it is for | kernel headers |
//! |---|---|---|
//! | [`netlink`] | attributes, batches of messages, sockets, dumps, notifications, generic netlink's families | `linux/netlink.h`, `linux/genetlink.h` |
//! | [`nftables`] | nf_tables objects, transactions, snapshots, a monitor, nft text, a fake for tests | `linux/netfilter/nf_tables.h` |
//! | [`conntrack`] | listing, deleting and capturing UDP entries of the connection tracking table | `linux/netfilter/nfnetlink_conntrack.h` |
//! | [`nfacct`] | named packet counters | `linux/netfilter/nfnetlink_acct.h` |
//!
//! IPVS will stand beside them as `ipvs`, on [`netlink::generic`]; socket diagnosis (`NETLINK_SOCK_DIAG`, which
//! destroys sockets of backends that are gone) as `inet_diag`, on [`netlink::Socket`]. BPF maps and links follow as
//! `bpf`.
//!
//! All calls block. A socket belongs to the network namespace of the thread that opened it, and stays there.
//!
//! # Example
//!
//! A transaction, committed to the fake (a [`nftables::Connection`] takes the same call), read back and printed:
//!
//! ```
//! use std::sync::Arc;
//!
//! use portway_kernel::nftables::{Bytes, DynamicSets, Element, Fake, Field, NfTables, Op, Set, Transaction, text};
//! use portway_model::Family;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let blocked = Arc::new(Set::new("blocked", [Field::SourceAddress]));
//! let mut transaction = Transaction::new(Family::V4, "example");
//! transaction.push(Op::AddTable);
//! transaction.push(Op::AddSet(Arc::clone(&blocked)));
//! let elements = vec![Element::new(Bytes::from([192, 0, 2, 1]))];
//! transaction.push(Op::AddElements { set: blocked, elements });
//!
//! let mut kernel = Fake::default();
//! kernel.commit(&transaction)?;
//!
//! let snapshot = kernel.snapshot(Family::V4, "example", DynamicSets::List)?;
//! let printed = text::table(&snapshot.to_transaction(Family::V4, "example"));
//! assert_eq!(
//!     printed,
//!     "table ip example {\n\
//!      \tset blocked {\n\
//!      \t\ttypeof ip saddr\n\
//!      \t\telements = {\n\
//!      \t\t\t192.0.2.1\n\
//!      \t\t}\n\
//!      \t}\n\
//!      }\n"
//! );
//! # Ok(())
//! # }
//! ```

pub mod conntrack;
pub mod netlink;
pub mod nfacct;
pub mod nftables;
