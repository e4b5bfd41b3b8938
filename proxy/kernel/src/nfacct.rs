//! Named packet counters of the kernel (nfacct), which rules count into and metrics read
//! (`linux/netfilter/nfnetlink_acct.h`).

use crate::netlink::{NetlinkError, Protocol, Socket, flags, nfgenmsg};

/// Packets that conntrack calls invalid and KUBE-FORWARD drops (contract IPT-6).
pub const INVALID_DROPPED: &str = "ct_state_invalid_dropped_pkts";

/// Packets to NodePorts at 127.0.0.0/8 (contract NP-2).
pub const LOCALHOST_ACCEPTED: &str = "localhost_nps_accepted_pkts";

const NFNL_SUBSYS_ACCT: u16 = 7;
const NFNL_MSG_ACCT_NEW: u16 = 0;
const NFNL_MSG_ACCT_GET: u16 = 1;
const NFACCT_NAME: u16 = 1;
const NFACCT_PKTS: u16 = 2;

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_ACCT << 8 | message
}

/// Makes both counters, or finds them made. An error where the kernel has no nfacct.
pub fn create() -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    for name in [INVALID_DROPPED, LOCALHOST_ACCEPTED] {
        let header = nfgenmsg(0, 0);
        let fill = |writer: &mut crate::netlink::Writer<'_>| writer.string(NFACCT_NAME, name);
        let new = flags::CREATE | flags::EXCLUSIVE;
        match socket.request(kind(NFNL_MSG_ACCT_NEW), new, header, fill, |_| None::<()>) {
            Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Packets counted so far under `name`.
pub fn packets(name: &str) -> Result<u64, NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let read = socket.request(
        kind(NFNL_MSG_ACCT_GET),
        0,
        nfgenmsg(0, 0),
        |writer| writer.string(NFACCT_NAME, name),
        |message| message.attributes().find(NFACCT_PKTS).and_then(|packets| packets.be64()),
    )?;
    read.first().copied().ok_or(NetlinkError::Malformed)
}
