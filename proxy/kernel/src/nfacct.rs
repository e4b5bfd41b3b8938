//! Named packet counters of the kernel (nfacct): rules count into them by name, and this module creates, reads and deletes them.
//!
//! It does not know which counters a program has: names are parameters. The numbers are those of
//! `linux/netfilter/nfnetlink_acct.h`.

use crate::netlink::{NetlinkError, NetlinkFamily, Socket, Writer, flags, nfgenmsg};

const NFNL_SUBSYS_ACCT: u16 = 7;
const NFNL_MSG_ACCT_NEW: u16 = NFNL_SUBSYS_ACCT << 8;
const NFNL_MSG_ACCT_GET: u16 = NFNL_SUBSYS_ACCT << 8 | 1;
const NFNL_MSG_ACCT_DEL: u16 = NFNL_SUBSYS_ACCT << 8 | 3;
const NFACCT_NAME: u16 = 1;
const NFACCT_PKTS: u16 = 2;

/// A counter could not be created, read or deleted. `ENOENT` on reading means that there is no such counter.
#[derive(Debug, thiserror::Error)]
#[error("{operation} nfacct counter {counter}: {source}")]
pub struct NfacctError {
    /// What was attempted: "create", "read" or "delete".
    pub operation: &'static str,
    /// The name of the counter.
    pub counter: String,
    /// The answer of the kernel.
    pub source: NetlinkError,
}

/// Creates counters in the calling thread's network namespace, and leaves those that exist as they are.
///
/// # Errors
/// If the kernel has no nfacct, or does not permit it (`CAP_NET_ADMIN`).
pub fn create(names: &[&str]) -> Result<(), NfacctError> {
    for name in names {
        let failed = |source| NfacctError { operation: "create", counter: (*name).to_owned(), source };
        let mut socket = Socket::open(NetlinkFamily::Netfilter).map_err(failed)?;
        let fill = |writer: &mut Writer<'_>| writer.string(NFACCT_NAME, name);
        match socket.request(NFNL_MSG_ACCT_NEW, flags::CREATE | flags::EXCLUSIVE, nfgenmsg(0, 0), fill, |_| None::<()>)
        {
            Err(error) if error.errno() != Some(libc::EEXIST) => return Err(failed(error)),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Reads how many packets the counter `name` has counted since it was created.
///
/// # Errors
/// If there is no such counter, or the kernel has no nfacct.
pub fn packets(name: &str) -> Result<u64, NfacctError> {
    let failed = |source| NfacctError { operation: "read", counter: name.to_owned(), source };
    let mut socket = Socket::open(NetlinkFamily::Netfilter).map_err(failed)?;
    let read = socket
        .request(
            NFNL_MSG_ACCT_GET,
            0,
            nfgenmsg(0, 0),
            |writer| writer.string(NFACCT_NAME, name),
            |message| message.attributes().find(NFACCT_PKTS).and_then(|packets| packets.be64()),
        )
        .map_err(failed)?;
    read.first().copied().ok_or(NetlinkError::Malformed).map_err(failed)
}

/// Deletes the counter `name`. Returns whether there was one.
///
/// # Errors
/// If a rule counts into it (`EBUSY`), or the kernel does not permit it (`CAP_NET_ADMIN`).
pub fn delete(name: &str) -> Result<bool, NfacctError> {
    let failed = |source| NfacctError { operation: "delete", counter: name.to_owned(), source };
    let mut socket = Socket::open(NetlinkFamily::Netfilter).map_err(failed)?;
    let fill = |writer: &mut Writer<'_>| writer.string(NFACCT_NAME, name);
    match socket.request(NFNL_MSG_ACCT_DEL, 0, nfgenmsg(0, 0), fill, |_| None::<()>) {
        Ok(_) => Ok(true),
        // There is no such counter, or the kernel has no nfacct at all.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}
