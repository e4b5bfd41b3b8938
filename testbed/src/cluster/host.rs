//! A host of the cluster: a namespace and the addresses that its name implies.

use std::io;
use std::net::IpAddr;
use std::ops::Deref;

use portway_model::Family;

use super::{HOST_PORT, Namespace, POD_PORTS};

/// A node, a pod or the client. Derefs to its [`Namespace`].
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
}

impl Host {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        if addresses::primary(name, Family::V4).is_none() {
            return Err(io::Error::other(format!("{name} is not the name of a host: try node-1, client or pod-1-d")));
        }
        Ok(Self { namespace: Namespace::new(name)? })
    }

    /// The first address of the host in a family.
    pub fn address(&self, family: Family) -> IpAddr {
        addresses::primary(self.name(), family).expect("checked when the host was made")
    }

    /// All addresses at which the echo servers of the host answer.
    pub fn served(&self) -> Vec<IpAddr> {
        Family::ALL.into_iter().flat_map(|family| addresses::all(self.name(), family)).collect()
    }

    /// The TCP and UDP ports at which the echo servers of the host answer.
    pub fn ports(&self) -> &'static [u16] {
        if self.node().is_some() { &POD_PORTS } else { &[HOST_PORT] }
    }

    /// The name of the node that a pod is on; `None` if the host is not a pod.
    pub fn node(&self) -> Option<String> {
        let (node, _) = addresses::pod(self.name())?;
        Some(format!("node-{node}"))
    }
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// The addresses that each host has by its name.
pub mod addresses {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use portway_model::Family;

    /// Node number and index of a pod from its name: `pod-1-a` is (1, 0).
    pub fn pod(name: &str) -> Option<(u8, u8)> {
        let (node, letter) = name.strip_prefix("pod-")?.split_once('-')?;
        let [letter @ b'a'..=b'z'] = letter.as_bytes() else { return None };
        match node {
            "1" => Some((1, letter - b'a')),
            "2" => Some((2, letter - b'a')),
            _ => None,
        }
    }

    /// The first address of a host in a family; `None` if that is not the name of a host.
    pub fn primary(name: &str, family: Family) -> Option<IpAddr> {
        if let Some((node, index)) = pod(name) {
            return Some(match family {
                Family::V4 => Ipv4Addr::new(10, 1, node, 4 + index).into(),
                Family::V6 => Ipv6Addr::new(0xfd00, 1, node.into(), 0, 0, 0, 0, 4 + u16::from(index)).into(),
            });
        }
        match name {
            "node-1" => Some(wire(family, 11)),
            "node-2" => Some(wire(family, 12)),
            "client" => Some(wire(family, 100)),
            _ => None,
        }
    }

    /// All addresses of a host in a family, the first one first; without those of a node's pod links.
    pub fn all(name: &str, family: Family) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = primary(name, family).into_iter().collect();
        match name {
            "node-1" => all.extend([second("node-1", family), loopback_vip(family)]),
            "node-2" => all.push(second("node-2", family)),
            "client" => all.push(stranger(family)),
            _ => {}
        }
        all
    }

    /// The second address of a node on the wire.
    pub fn second(node: &str, family: Family) -> IpAddr {
        wire(family, if node == "node-1" { 21 } else { 22 })
    }

    /// The address on node-1's loopback interface that no Service owns.
    pub fn loopback_vip(family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(203, 0, 113, 250).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x250).into(),
        }
    }

    /// A node's address towards its pods, which is also what it takes when it masquerades traffic to them.
    pub fn gateway(node: u8, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 1, node, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 1, node.into(), 0, 0, 0, 0, 1).into(),
        }
    }

    /// The address of the client that no source range contains.
    pub fn stranger(family: Family) -> IpAddr {
        wire(family, 101)
    }

    /// One of the many addresses of the client, for behaviour that depends on the client address.
    pub fn crowd(family: Family, index: u8) -> IpAddr {
        wire(family, 128 + index)
    }

    /// Whether the address is one of node-1's own.
    pub fn is_node_1(address: IpAddr) -> bool {
        let family = Family::of(address);
        address == gateway(1, family) || all("node-1", family).contains(&address)
    }

    /// The address on the wire whose last number is `last`, with the same digits in both families.
    fn wire(family: Family, last: u8) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, last).into(),
            Family::V6 => format!("2001:db8::{last}").parse().expect("decimal digits are hexadecimal ones"),
        }
    }
}
