//! The node's own addresses, asked of the kernel through rtnetlink.

use std::net::IpAddr;

use portway_model::Family;

use super::flow::address;
use crate::netlink::{Attributes, NetlinkError, NetlinkFamily, Socket, Writer};

/// The kernel's number `RTM_GETADDR`.
const GET_ADDRESS: u16 = 22;
/// The kernel's number `sizeof(struct ifaddrmsg)`.
const HEADER: usize = 8;
/// `IFA_ADDRESS`: on an interface with a peer, the peer's address.
const ADDRESS: u16 = 1;
/// `IFA_LOCAL`: the interface's own address, where it differs from `IFA_ADDRESS`.
const LOCAL: u16 = 2;

/// Lists all addresses of one family except loopback's, in the calling thread's network namespace.
pub(super) fn addresses(family: Family) -> Result<Vec<IpAddr>, NetlinkError> {
    let mut socket = Socket::open(NetlinkFamily::Route)?;
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let header = [u8::try_from(number).unwrap_or_default(), 0, 0, 0];
    // `ifaddrmsg` is four bytes longer than the header that every message has.
    let rest = |w: &mut Writer<'_>| w.raw(&[0; 4]);
    let found = socket.dump(GET_ADDRESS, header, rest, |message| {
        let attributes = Attributes::new(message.payload.get(HEADER..)?);
        address(attributes.find(LOCAL).or_else(|| attributes.find(ADDRESS))?.payload)
    })?;
    Ok(found.into_iter().filter(|address| !address.is_loopback()).collect())
}
