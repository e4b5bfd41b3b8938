//! One UDP conntrack entry as netlink encodes it, and the filter that the kernel compares entries with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portway_model::Family;

use crate::netlink::{Attributes, Message, Writer};

/// The kernel's number `IPPROTO_UDP`.
pub(super) const UDP: u8 = 17;

/// Attributes of a conntrack message, `CTA_*` of linux/netfilter/nfnetlink_conntrack.h.
mod cta {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
}

/// Attributes of a tuple, `CTA_TUPLE_*`, `CTA_IP_*` and `CTA_PROTO_*`.
mod tuple {
    pub(super) const IP: u16 = 1;
    pub(super) const PROTO: u16 = 2;
    pub(super) const V4_SRC: u16 = 1;
    pub(super) const V4_DST: u16 = 2;
    pub(super) const V6_SRC: u16 = 3;
    pub(super) const V6_DST: u16 = 4;
    pub(super) const PROTO_NUM: u16 = 1;
    pub(super) const SRC_PORT: u16 = 2;
    pub(super) const DST_PORT: u16 = 3;
}

/// Flags of `CTA_FILTER` that name what it compares, `CTA_FILTER_F_*` of the kernel's nf_internals.h (since 5.8).
mod filter {
    pub(super) const ORIG_FLAGS: u16 = 1;
    pub(super) const REPLY_FLAGS: u16 = 2;
    pub(super) const IP_SRC: u32 = 1;
    pub(super) const IP_DST: u32 = 1 << 1;
    pub(super) const PROTO_NUM: u32 = 1 << 3;
    pub(super) const SRC_PORT: u32 = 1 << 4;
    pub(super) const DST_PORT: u32 = 1 << 5;
}

/// One UDP entry of the conntrack table, in the default zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source of the first packet: the client.
    pub source: SocketAddr,
    /// Destination of the first packet, before translation.
    pub destination: SocketAddr,
    /// Source of the replies: the translated destination, or the destination itself where nothing was translated.
    pub reply_source: SocketAddr,
    /// Destination of the replies: the client, or the address that its source was translated to.
    pub reply_destination: SocketAddr,
    /// Identity of the entry (`CTA_ID`), which differs from that of a later entry between the same addresses.
    pub id: u32,
}

impl Flow {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.destination.ip())
    }

    /// Whether its destination was translated.
    pub fn is_translated(&self) -> bool {
        self.reply_source != self.destination
    }

    /// Reads an entry; `None` for one that is not UDP, or in another zone than the default.
    pub(super) fn read(message: &Message<'_>) -> Option<Self> {
        let (mut original, mut reply, mut id) = (None, None, 0);
        for attribute in message.attributes() {
            match attribute.kind {
                cta::TUPLE_ORIG => original = Some(read_tuple(attribute.nested())?),
                cta::TUPLE_REPLY => reply = Some(read_tuple(attribute.nested())?),
                cta::ID => id = attribute.be32()?,
                cta::ZONE if attribute.be16() != Some(0) => return None,
                _ => {}
            }
        }
        let ((source, destination), (reply_source, reply_destination)) = (original?, reply?);
        Some(Self { source, destination, reply_source, reply_destination, id })
    }

    /// Writes the addresses that name the current entry of a flow.
    pub(super) fn write_addresses(w: &mut Writer<'_>, source: SocketAddr, destination: SocketAddr) {
        w.nest(cta::TUPLE_ORIG, |w| write_tuple(w, source, destination));
    }

    /// Writes the addresses and the identity, which name exactly this entry.
    pub(super) fn write_identity(&self, w: &mut Writer<'_>) {
        w.nest(cta::TUPLE_ORIG, |w| write_tuple(w, self.source, self.destination));
        w.be32(cta::ID, self.id);
    }
}

/// A filter that the kernel applies before it lists an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Filter {
    /// All UDP entries of the family.
    Udp,
    /// UDP entries with this port, at this address if there is one, as the original destination.
    Destination(Option<IpAddr>, u16),
    /// UDP entries with this address and port as the source of replies.
    ReplySource(IpAddr, u16),
}

impl Filter {
    pub(super) fn write(self, w: &mut Writer<'_>) {
        let (address, port, reply) = match self {
            Filter::Udp => (None, None, false),
            Filter::Destination(address, port) => (address, Some(port), false),
            Filter::ReplySource(address, port) => (Some(address), Some(port), true),
        };
        // Of IPv6 the kernel compares ports only: it takes equal addresses for different ones (5.8 to this day).
        let address = address.filter(IpAddr::is_ipv4);
        let mut flags = filter::PROTO_NUM;
        w.nest(if reply { cta::TUPLE_REPLY } else { cta::TUPLE_ORIG }, |w| {
            if let Some(address) = address {
                flags |= if reply { filter::IP_SRC } else { filter::IP_DST };
                let kinds = if reply { (tuple::V4_SRC, tuple::V6_SRC) } else { (tuple::V4_DST, tuple::V6_DST) };
                w.nest(tuple::IP, |w| write_address(w, address, kinds.0, kinds.1));
            }
            w.nest(tuple::PROTO, |w| {
                w.u8(tuple::PROTO_NUM, UDP);
                if let Some(port) = port {
                    flags |= if reply { filter::SRC_PORT } else { filter::DST_PORT };
                    w.be16(if reply { tuple::SRC_PORT } else { tuple::DST_PORT }, port);
                }
            });
        });
        let (original, reply) = if reply { (0, flags) } else { (flags, 0) };
        w.nest(cta::FILTER, |w| {
            w.ne32(filter::ORIG_FLAGS, original);
            w.ne32(filter::REPLY_FLAGS, reply);
        });
    }
}

fn write_tuple(w: &mut Writer<'_>, source: SocketAddr, destination: SocketAddr) {
    w.nest(tuple::IP, |w| {
        write_address(w, source.ip(), tuple::V4_SRC, tuple::V6_SRC);
        write_address(w, destination.ip(), tuple::V4_DST, tuple::V6_DST);
    });
    w.nest(tuple::PROTO, |w| {
        w.u8(tuple::PROTO_NUM, UDP);
        w.be16(tuple::SRC_PORT, source.port());
        w.be16(tuple::DST_PORT, destination.port());
    });
}

fn write_address(w: &mut Writer<'_>, address: IpAddr, v4: u16, v6: u16) {
    match address {
        IpAddr::V4(address) => w.bytes(v4, &address.octets()),
        IpAddr::V6(address) => w.bytes(v6, &address.octets()),
    }
}

/// Reads source and destination of a tuple; `None` for one that is not UDP.
fn read_tuple(attributes: Attributes<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    for attribute in attributes.find(tuple::IP)?.nested() {
        match attribute.kind {
            tuple::V4_SRC | tuple::V6_SRC => source = address(attribute.payload),
            tuple::V4_DST | tuple::V6_DST => destination = address(attribute.payload),
            _ => {}
        }
    }
    let protocol = attributes.find(tuple::PROTO)?.nested();
    if protocol.find(tuple::PROTO_NUM)?.u8()? != UDP {
        return None;
    }
    let port = |kind| protocol.find(kind)?.be16();
    Some((SocketAddr::new(source?, port(tuple::SRC_PORT)?), SocketAddr::new(destination?, port(tuple::DST_PORT)?)))
}

/// Reads an address from its 4 or 16 bytes in network order.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into());
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()))
}
