//! Parses addresses and CIDRs as the API may hold them, legacy forms included (contract SVC-13).
//!
//! Leading zeros are decimal, an IPv4-mapped IPv6 address is IPv4, and host bits beyond a range's mask are cleared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Family;

/// Parses an IP address and returns its canonical form.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    match text.contains(':') {
        true => ipv6(text).map(|ip| IpAddr::V6(ip).to_canonical()),
        false => ipv4(text).map(IpAddr::V4),
    }
}

/// Parses a CIDR and returns its canonical form.
pub(crate) fn cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length = stripped(length).parse::<u8>().ok()?;
    let net = match ip(address)? {
        // A mapped address counts its bits as IPv6 does.
        IpAddr::V4(v4) if address.contains(':') => match length.checked_sub(96) {
            Some(length) => IpNet::V4(Ipv4Net::new(v4, length).ok()?),
            None => IpNet::V6(Ipv6Net::new(v4.to_ipv6_mapped(), length).ok()?),
        },
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new(v4, length).ok()?),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new(v6, length).ok()?),
    };
    Some(net.trunc())
}

/// A valid port number, 1 to 65535.
pub(crate) fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// The family of a range.
pub(crate) fn family_of(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// The CIDRs of one family, sorted and merged so that an interval set accepts them.
pub(crate) fn merged<'a>(nets: impl IntoIterator<Item = &'a IpNet>, family: Family) -> Vec<IpNet> {
    let nets: Vec<IpNet> = nets.into_iter().filter(|net| family_of(net) == family).map(IpNet::trunc).collect();
    match nets.len() {
        0 | 1 => nets,
        _ => IpNet::aggregate(&nets),
    }
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = stripped(part).parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Removes surplus zeros from each group and from a dotted tail, and leaves the rest to the standard parser.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let groups = text.split(':').map(|group| match group {
        "" => Some(String::new()),
        dotted if dotted.contains('.') => ipv4(dotted).map(|ip| ip.to_string()),
        hex => Some(stripped(hex).to_owned()),
    });
    groups.collect::<Option<Vec<String>>>()?.join(":").parse().ok()
}

/// The digits without leading zeros; at least one digit is left.
fn stripped(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svc_13_legacy_addresses_are_parsed() {
        let read = |text| ip(text).map(|ip| ip.to_string());
        for (text, canonical) in [
            ("10.20.30.40", "10.20.30.40"),
            ("010.020.030.040", "10.20.30.40"),
            ("000000001.2.3.000", "1.2.3.0"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("::ffff:001.02.03.04", "1.2.3.4"),
            ("FD00::0001", "fd00::1"),
            ("fd00::00001", "fd00::1"),
            ("fd00:0:00000:0::1", "fd00::1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(canonical), "{text}");
        }
        for text in
            ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.", "1.2.3.-4", " 1.2.3.4", "fe80::1%eth0", ":::", "a"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn svc_13_legacy_ranges_are_parsed() {
        let read = |text| cidr(text).map(|net| net.to_string());
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("010.001.002.003/08", "10.0.0.0/8"),
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("::ffff:10.1.2.3/112", "10.1.0.0/16"),
            ("::ffff:10.1.2.3/8", "::/8"),
            ("fd00:1::1/32", "fd00:1::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(read(text).as_deref(), Some(canonical), "{text}");
        }
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "/8",
            "10.0.0.0/999",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn svc_6_overlapping_ranges_are_merged() {
        let nets = ["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "192.168.1.0/24", "192.168.0.0/24", "fd00::/8"];
        let nets = nets.map(|net| cidr(net).expect(net));
        let text = |family| merged(&nets, family).iter().map(IpNet::to_string).collect::<Vec<_>>();
        assert_eq!(text(Family::V4), ["10.0.0.0/8", "192.168.0.0/23"]);
        assert_eq!(text(Family::V6), ["fd00::/8"]);
    }
}
