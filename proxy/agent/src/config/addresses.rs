//! Addresses as the configuration has them: IP with or without a port, ranges (contract CFG-2, CFG-8).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use portway_model::Family;

/// The default port of the health server.
pub(super) const HEALTH_PORT: u16 = 10256;

/// The default port of the metrics server.
pub(super) const METRICS_PORT: u16 = 10249;

/// Parses IP and port. Without a port, the default port counts.
pub(super) fn host_port(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, default_port));
    }
    // As in Go, a port alone means every address.
    if let Some(Ok(port)) = text.strip_prefix(':').map(str::parse) {
        return Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
    }
    text.parse().map_err(|_| format!("not an address like 127.0.0.1:{default_port}"))
}

/// Parses an IP address.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "not an IP address".to_owned())
}

/// Parses an address range.
pub(super) fn range(text: &str) -> Result<IpNet, String> {
    match text.trim().parse::<IpNet>() {
        Ok(range) => Ok(range.trunc()),
        Err(_) => Err("not an address range like 10.244.0.0/16 or fd00:244::/48".to_owned()),
    }
}

/// Parses one range, or one of each family separated by a comma.
pub(super) fn one_of_each_family(text: &str) -> Result<Vec<IpNet>, String> {
    let parse =
        |part: &str| range(part).map_err(|reason| if part == text { reason } else { format!("{part:?}: {reason}") });
    let ranges = text.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
    let family = |range: &IpNet| Family::of(range.addr());
    match ranges.as_slice() {
        [_] => Ok(ranges),
        [one, other] if family(one) != family(other) => Ok(ranges),
        [one, _] => Err(format!("both ranges are {}; give one range, or one of each", family(one))),
        _ => Err("more than two ranges; give one, or one of each family".to_owned()),
    }
}
