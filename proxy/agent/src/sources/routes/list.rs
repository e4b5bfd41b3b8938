//! Lists routes, addresses and names of interfaces over rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use futures::TryStreamExt;
use ipnet::IpNet;
use portway_model::{Family, RouteSource};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteType,
};
use rtnetlink::{Handle, new_connection_with_strict_check};

use super::RoutesError;
use super::select::{Address, Route, Selected, select};
use crate::sources::addresses::AbortOnDrop;

/// The most routes of one family that are read. A table with more, such as all of the internet's, would cost a noticeable
/// part of a processor whenever it changes: a route takes 15 to 25 µs, most of it to decode.
pub const MAX_ROUTES: usize = 16_384;

/// The most entries that one family gets. Each is a rule that a masqueraded connection may be compared with.
pub const MAX_SOURCES: usize = 1024;

/// The kernel's number for "no such table".
const ENOENT: i32 = 2;

/// Why the routes of a family are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// The main table has more than [`MAX_ROUTES`] routes.
    Routes,
    /// More than [`MAX_SOURCES`] entries would be needed.
    Sources,
}

/// What one family's routes name.
pub(super) type Found = Result<Vec<RouteSource>, TooMany>;

/// Reads the node's addresses and the main table of each family. The socket is closed at the end, which also ends a list of
/// routes that is not read to its end.
pub(super) async fn list() -> Result<[Found; 2], RoutesError> {
    // Only a strict check makes the kernel filter by table.
    let (connection, handle, _) = new_connection_with_strict_check()?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    let addresses = addresses(&handle).await?;
    let mut found = [Ok(Vec::new()), Ok(Vec::new())];
    for family in Family::ALL {
        let own: Vec<Address> =
            addresses.iter().filter(|address| Family::of(address.address) == family).copied().collect();
        found[family as usize] = match routes(&handle, family).await? {
            None => Err(TooMany::Routes),
            Some(routes) => match select(&routes, &own) {
                selected if selected.len() > MAX_SOURCES => Err(TooMany::Sources),
                selected => Ok(name_interfaces(&handle, &selected).await?),
            },
        };
    }
    Ok(found)
}

async fn addresses(handle: &Handle) -> Result<Vec<Address>, RoutesError> {
    let mut messages = handle.address().get().execute();
    let mut addresses = Vec::new();
    while let Some(message) = messages.try_next().await? {
        addresses.extend(address_of(&message));
    }
    Ok(addresses)
}

/// The address of a message, unless it may turn out to be another host's.
fn address_of(message: &AddressMessage) -> Option<Address> {
    let (mut address, mut local) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if tentative || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    let own = local.or(address)?;
    let eligible = match own {
        IpAddr::V4(_) => !flags.contains(AddressFlags::Secondary) && message.header.scope == AddressScope::Universe,
        IpAddr::V6(own) => !flags.contains(AddressFlags::Deprecated) && !own.is_unicast_link_local(),
    };
    let range = IpNet::new(address.unwrap_or(own), message.header.prefix_len).ok()?.trunc();
    Some(Address { interface: message.header.index, address: own, range, eligible })
}

/// The unicast routes of a family's main table; `None` if there are more than [`MAX_ROUTES`].
async fn routes(handle: &Handle, family: Family) -> Result<Option<Vec<Route>>, RoutesError> {
    let mut wanted = RouteMessage::default();
    wanted.header.address_family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    wanted.header.table = RouteHeader::RT_TABLE_MAIN;
    wanted.header.kind = RouteType::Unicast;
    let mut messages = std::pin::pin!(handle.route().get(wanted).execute());
    let mut routes = Vec::new();
    loop {
        match messages.try_next().await {
            Ok(Some(message)) => routes.extend(routes_of(&message)),
            Ok(None) => return Ok(Some(routes)),
            // A namespace without any route of the family may not even have the table.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -ENOENT => return Ok(Some(routes)),
            Err(error) => return Err(error.into()),
        }
        if routes.len() > MAX_ROUTES {
            return Ok(None);
        }
    }
}

/// The routes of a message, one for each next hop. Routes for some packets alone (by type of service or source address) are
/// left out, and those of IPv6 that lead to the link alone, where no endpoint is.
fn routes_of(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let (mut destination, mut source, mut metric) = (None, None, 0);
    let (mut interface, mut gateway, mut hops) = (None, None, &[][..]);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::MultiPath(all) => hops = all.as_slice(),
            _ => {}
        }
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Vec::new(),
    };
    let special = header.tos != 0 || header.source_prefix_length != 0 || header.flags.contains(RouteFlags::Cloned);
    let in_main = header.kind == RouteType::Unicast && header.table == RouteHeader::RT_TABLE_MAIN;
    let Ok(destination) = IpNet::new(destination.unwrap_or(any), header.destination_prefix_length) else {
        return Vec::new();
    };
    let on_link = |address| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast());
    if special || !in_main || on_link(destination.addr()) {
        return Vec::new();
    }
    let hop = |hop: &RouteNextHop| {
        let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            _ => None,
        });
        (hop.interface_index, gateway)
    };
    let hops = hops.iter().map(hop).chain(interface.map(|interface| (interface, gateway)));
    hops.map(|(interface, gateway)| Route { destination, interface, metric, source, gateway }).collect()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Replaces indexes by names. Interfaces that are gone meanwhile are left out: a notification follows.
async fn name_interfaces(handle: &Handle, selected: &[Selected]) -> Result<Vec<RouteSource>, RoutesError> {
    let mut names: Vec<(u32, Option<Arc<str>>)> = Vec::new();
    let mut sources = Vec::with_capacity(selected.len());
    // They are sorted by interface.
    for route in selected {
        if names.last().is_none_or(|(index, _)| *index != route.interface) {
            names.push((route.interface, name_of(handle, route.interface).await?));
        }
        if let Some((_, Some(name))) = names.last() {
            let interface = Arc::clone(name);
            sources.push(RouteSource { destination: route.destination, interface, source: route.source });
        }
    }
    Ok(sources)
}

async fn name_of(handle: &Handle, index: u32) -> Result<Option<Arc<str>>, RoutesError> {
    let mut messages = handle.link().get().match_index(index).execute();
    let link = match messages.try_next().await {
        Ok(Some(link)) => link,
        // ENODEV.
        Ok(None) | Err(rtnetlink::Error::NetlinkError(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let name = link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    // In iptables a `+` at the end stands for any name that begins so, and quotes would end a word.
    let plain = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    Ok(name.filter(plain).map(Arc::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(destination: &str, length: u8, more: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        let address: IpAddr = destination.parse().unwrap();
        message.header.address_family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = length;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = more;
        if length > 0 {
            message.attributes.push(RouteAttribute::Destination(address.into()));
        }
        message
    }

    fn gateway(text: &str) -> RouteAttribute {
        RouteAttribute::Gateway(text.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn own_11_a_route_is_read_with_its_source_and_each_next_hop() {
        let source: IpAddr = "198.51.100.7".parse().unwrap();
        let named = vec![RouteAttribute::PrefSource(source.into()), RouteAttribute::Priority(100)];
        let single = [named.clone(), vec![RouteAttribute::Oif(2), gateway("192.0.2.1")]].concat();
        let expected = Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            interface: 2,
            metric: 100,
            source: Some(source),
            gateway: "192.0.2.1".parse().ok(),
        };
        assert_eq!(routes_of(&message("0.0.0.0", 0, single)), [expected]);
        let hop = |interface, router| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface;
            hop.attributes = vec![gateway(router)];
            hop
        };
        let hops = vec![hop(2, "192.0.2.1"), hop(3, "203.0.113.1")];
        let several = [named, vec![RouteAttribute::MultiPath(hops)]].concat();
        let second = Route { interface: 3, gateway: "203.0.113.1".parse().ok(), ..expected };
        assert_eq!(routes_of(&message("0.0.0.0", 0, several)), [expected, second]);
    }

    #[test]
    fn own_11_routes_for_some_packets_alone_are_left_out() {
        let oif = || vec![RouteAttribute::Oif(2)];
        assert_eq!(routes_of(&message("fd00:1::", 64, oif())).len(), 1);
        assert_eq!(routes_of(&message("fe80::", 64, oif())), []);
        let mut by_tos = message("10.0.0.0", 8, oif());
        by_tos.header.tos = 8;
        assert_eq!(routes_of(&by_tos), []);
        let mut by_source = message("fd00:1::", 64, oif());
        by_source.header.source_prefix_length = 64;
        assert_eq!(routes_of(&by_source), []);
        let mut other_table = message("10.0.0.0", 8, oif());
        other_table.header.table = 100;
        assert_eq!(routes_of(&other_table), []);
        let mut local = message("10.0.0.1", 32, oif());
        local.header.kind = RouteType::Local;
        assert_eq!(routes_of(&local), []);
    }

    #[test]
    fn own_11_secondary_and_deprecated_addresses_are_not_what_masquerade_takes() {
        let address = |text: &str, flags: AddressFlags| {
            let mut message = AddressMessage::default();
            message.header.prefix_len = 24;
            message.header.index = 2;
            message.attributes = vec![AddressAttribute::Address(text.parse().unwrap()), AddressAttribute::Flags(flags)];
            address_of(&message)
        };
        let none = AddressFlags::empty();
        assert!(address("192.0.2.11", none).unwrap().eligible);
        assert!(!address("192.0.2.21", AddressFlags::Secondary).unwrap().eligible);
        assert!(address("2001:db8::11", none).unwrap().eligible);
        assert!(!address("2001:db8::21", AddressFlags::Deprecated).unwrap().eligible);
        assert!(!address("fe80::1", none).unwrap().eligible);
        assert_eq!(address("2001:db8::11", AddressFlags::Tentative), None);
        assert_eq!(address("2001:db8::11", AddressFlags::Dadfailed), None);
    }
}
