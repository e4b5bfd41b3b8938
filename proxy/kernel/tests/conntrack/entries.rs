//! Conntrack entries put into the kernel's table by netlink, and read back by the conntrack program's own words.

use std::net::{IpAddr, SocketAddr};

use portway_kernel::netlink::{Batch, NetlinkFamily, Socket, Writer, flags, nfgenmsg};

const NEW: u16 = 1 << 8;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// One entry to be made.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    protocol: u8,
    client: SocketAddr,
    destination: SocketAddr,
    reply_source: SocketAddr,
    pub(crate) zone: u16,
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

/// A UDP flow: "destination < reply source", or "destination" alone, from this client.
pub(crate) fn udp(client: &str, text: &str) -> Entry {
    let (destination, reply_source) = text.split_once(" < ").unwrap_or((text, text));
    let (destination, reply_source) = (socket(destination), socket(reply_source));
    Entry { protocol: UDP, client: socket(client), destination, reply_source, zone: 0 }
}

impl Entry {
    /// The same of TCP.
    pub(crate) fn tcp(self) -> Self {
        Self { protocol: TCP, ..self }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.nest(1, |w| tuple(w, self.protocol, self.client, self.destination));
        w.nest(2, |w| tuple(w, self.protocol, self.reply_source, self.client));
        w.be32(7, 600);
        if self.zone != 0 {
            w.be16(18, self.zone);
        }
        if self.protocol == TCP {
            // Established: CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE.
            w.nest(4, |w| w.nest(1, |w| w.u8(1, 3)));
        }
    }
}

fn tuple(w: &mut Writer<'_>, protocol: u8, source: SocketAddr, destination: SocketAddr) {
    w.nest(1, |w| {
        for (address, v4, v6) in [(source.ip(), 1, 3), (destination.ip(), 2, 4)] {
            match address {
                IpAddr::V4(address) => w.bytes(v4, &address.octets()),
                IpAddr::V6(address) => w.bytes(v6, &address.octets()),
            }
        }
    });
    w.nest(2, |w| {
        w.u8(1, protocol);
        w.be16(2, source.port());
        w.be16(3, destination.port());
    });
}

/// Puts entries into the table of the calling thread's network namespace.
pub(crate) fn insert(entries: impl IntoIterator<Item = Entry>) {
    let mut netlink = Socket::open(NetlinkFamily::Netfilter).expect("netfilter's netlink");
    let entries: Vec<Entry> = entries.into_iter().collect();
    for some in entries.chunks(500) {
        let mut batch = Batch::new(netlink.next_sequence());
        for entry in some {
            let family = if entry.client.is_ipv4() { 2 } else { 10 };
            let wanted = flags::CREATE | flags::EXCLUSIVE;
            batch.message(NEW, wanted, nfgenmsg(family, 0), |w| entry.write(w)).expect("a short message");
        }
        batch.acknowledge_last();
        let refused = netlink.exchange(&batch, false).expect("answers");
        assert!(refused.is_empty(), "{} of {}: {}", refused.len(), some.len(), refused[0]);
    }
}

/// UDP flows that are none of portway's, so many, all different: what else a busy node's table holds.
pub(crate) fn crowd(count: u32) -> impl Iterator<Item = Entry> {
    (0..count).map(|i| {
        let [_, a, b, c] = i.to_be_bytes();
        udp(&format!("172.16.{b}.{c}:{}", 1024 + u32::from(a)), &format!("198.18.{}.{}:53", b % 4, c % 8))
    })
}
