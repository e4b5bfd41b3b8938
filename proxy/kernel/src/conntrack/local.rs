//! The node's own addresses, asked of the kernel when NodePorts answer at all of them.

use std::net::IpAddr;

use portway_model::Family;

use super::flow::address;
use crate::netlink::{Attributes, NetlinkError, Protocol, Socket};

/// `RTM_GETADDR`.
const GET_ADDRESS: u16 = 22;
/// Length of `struct ifaddrmsg`.
const HEADER: usize = 8;
/// `IFA_ADDRESS` and `IFA_LOCAL`: with a peer, the first is the peer's.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// All addresses of the node in a family but loopback's, in the calling thread's network namespace.
pub(super) fn addresses(family: Family) -> Result<Vec<IpAddr>, NetlinkError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let header = [u8::try_from(number).unwrap_or_default(), 0, 0, 0];
    // `ifaddrmsg` is four bytes longer than what every message begins with.
    let rest = |w: &mut crate::netlink::Writer<'_>| w.raw(&[0; 4]);
    let found = socket.dump(GET_ADDRESS, header, rest, |message| {
        let attributes = Attributes::new(message.payload.get(HEADER..)?);
        address(attributes.find(LOCAL).or_else(|| attributes.find(ADDRESS))?.payload)
    })?;
    Ok(found.into_iter().filter(|address| !address.is_loopback()).collect())
}
