//! Masks addresses bit by bit with a key, so that common prefixes are preserved.
//!
//! A pseudo-random function of the key and of the bits before it decides whether each bit is flipped: the scheme of Xu,
//! Fan, Ammar and Moon ("Prefix-preserving IP address anonymization", 2002). Libraries of it ignore special addresses:
//! a Service at 10.0.0.1 must not become one at 127.0.0.1, which no API server would accept. So no bit is flipped on
//! the way to a special range and within it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// The leading bits of a range, left-aligned, and how many they are.
type Prefix = (u128, u32);

/// IPv4 ranges that are not changed: unspecified, loopback, link-local, and multicast and everything above it.
const KEPT_V4: [Prefix; 4] = [(v4(0x0000_0000), 8), (v4(0x7f00_0000), 8), (v4(0xa9fe_0000), 16), (v4(0xe000_0000), 3)];

/// IPv6 ranges that are not changed: unspecified and loopback, link-local, multicast. Mapped IPv4 addresses are
/// masked as IPv4, and nothing else becomes one.
const KEPT_V6: [Prefix; 4] = [(0, 127), (0xfe80 << 112, 10), (0xff00 << 112, 8), (0xffff << 32, 96)];

const fn v4(bits: u32) -> u128 {
    (bits as u128) << 96
}

/// An address or a range, as parsed from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text {
    address: IpAddr,
    length: Option<u8>,
}

impl Text {
    /// Parses an address. Leading zeros of a decimal number are ignored, as by older API servers.
    pub(super) fn address(text: &str) -> Option<Self> {
        let without_zeros = || {
            let stripped = |part: &str| match part.trim_start_matches('0') {
                "" if !part.is_empty() => "0".to_owned(),
                rest => rest.to_owned(),
            };
            text.trim().split('.').map(stripped).collect::<Vec<_>>().join(".").parse::<Ipv4Addr>().ok()
        };
        let address = text.trim().parse().ok().or_else(|| without_zeros().map(IpAddr::V4))?;
        Some(Self { address, length: None })
    }

    /// Parses a range in CIDR notation.
    pub(super) fn range(text: &str) -> Option<Self> {
        let (address, length) = text.trim().split_once('/')?;
        let Self { address, .. } = Self::address(address)?;
        let length = length.parse().ok().filter(|length| *length <= if address.is_ipv4() { 32 } else { 128 })?;
        Some(Self { address, length: Some(length) })
    }

    /// Masks the address or range with `key`.
    pub(super) fn masked(self, key: &[u8; 32]) -> Self {
        let masked = |bits: u128, length: Option<u8>, width: u32, kept: &[Prefix]| {
            let image = flipped(key, bits, width, kept);
            // A range without host bits still has none afterwards.
            let length = length.map_or(width, u32::from);
            if bits & first(length) == bits { image & first(length) } else { image }
        };
        let address = match self.address {
            IpAddr::V4(address) => {
                let bits = masked(v4(address.to_bits()), self.length, 32, &KEPT_V4);
                Ipv4Addr::from_bits(high(bits)).into()
            }
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(inner) => {
                    let length = self.length.map(|length| length.saturating_sub(96));
                    let bits = masked(v4(inner.to_bits()), length, 32, &KEPT_V4);
                    Ipv4Addr::from_bits(high(bits)).to_ipv6_mapped().into()
                }
                None => Ipv6Addr::from_bits(masked(address.to_bits(), self.length, 128, &KEPT_V6)).into(),
            },
        };
        Self { address, ..self }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            Some(length) => write!(f, "{}/{length}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Masks the first `width` bits.
fn flipped(key: &[u8; 32], bits: u128, width: u32, kept: &[Prefix]) -> u128 {
    let mut image = bits;
    for length in 0..width {
        let before = bits & first(length);
        // These bits lead to a range that is kept, or lie in one.
        let stays = kept.iter().any(|(range, whole)| (before ^ range) & first(length.min(*whole)) == 0);
        if !stays && coin(key, before, length, width) {
            image ^= 1 << (127 - length);
        }
    }
    image
}

/// Whether to flip the bit after the `length` bits in `before`.
fn coin(key: &[u8; 32], before: u128, length: u32, width: u32) -> bool {
    // Both numbers are at most 128.
    let place = [length.to_be_bytes()[3], width.to_be_bytes()[3]];
    let hash = Sha256::new().chain_update(key).chain_update("bit").chain_update(place);
    hash.chain_update(before.to_be_bytes()).finalize()[0] & 1 == 1
}

/// A bit mask of the first `length` bits.
const fn first(length: u32) -> u128 {
    match length {
        0 => 0,
        length => u128::MAX << (128 - length),
    }
}

/// The first 32 bits, which hold an IPv4 address.
fn high(bits: u128) -> u32 {
    let bytes = bits.to_be_bytes();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;

    fn mask(key: &[u8; 32], address: IpAddr) -> IpAddr {
        Text { address, length: None }.masked(key).address
    }

    fn left_aligned(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => v4(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn common(one: IpAddr, other: IpAddr) -> u32 {
        (left_aligned(one) ^ left_aligned(other)).leading_zeros()
    }

    /// Whether the API rejects this as an address of a Service or an endpoint.
    fn is_special(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => {
                a.octets()[0] == 0 || a.is_loopback() || a.is_link_local() || a.is_multicast() || a.octets()[0] >= 240
            }
            IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.is_unicast_link_local() || a.is_multicast(),
        }
    }

    fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        // The second has some of the first's bits.
        let near = |one: u128, two: u128, shared: u32| (one & first(shared)) | (two & !first(shared));
        prop_oneof![
            (any::<u32>(), any::<u32>(), 0..=32_u32).prop_map(move |(one, two, shared)| {
                let two = high(near(v4(one), v4(two), shared));
                (Ipv4Addr::from_bits(one).into(), Ipv4Addr::from_bits(two).into())
            }),
            (any::<u128>(), any::<u128>(), 0..=128_u32).prop_map(move |(one, two, shared)| {
                (Ipv6Addr::from_bits(one).into(), Ipv6Addr::from_bits(near(one, two, shared)).into())
            }),
        ]
    }

    proptest! {
        #[test]
        fn common_prefixes_keep_their_length((one, two) in addresses(), key: [u8; 32]) {
            prop_assert_eq!(common(mask(&key, one), mask(&key, two)), common(one, two));
        }

        #[test]
        fn special_addresses_are_unchanged_and_no_other_becomes_special((address, _) in addresses(), key: [u8; 32]) {
            let masked = mask(&key, address);
            prop_assert_eq!(is_special(masked), is_special(address));
            prop_assert!(!is_special(address) || masked == address);
            prop_assert_eq!(masked.is_ipv4(), address.is_ipv4());
        }

        #[test]
        fn addresses_stay_inside_their_range((one, two) in addresses(), length in 0..=32_u8, key: [u8; 32]) {
            let range = IpNet::new(one, length).unwrap().trunc();
            let masked: IpNet =
                Text::range(&range.to_string()).unwrap().masked(&key).to_string().parse().unwrap();
            prop_assert_eq!(masked, masked.trunc());
            prop_assert_eq!(masked.contains(&mask(&key, two)), range.contains(&two));
        }
    }

    #[test]
    fn addresses_in_any_notation_are_masked() {
        let key = [7; 32];
        let masked = |text: &str| Text::address(text).map(|text| text.masked(&key).to_string());
        let plain = masked("10.0.0.9").unwrap();
        assert_ne!(plain, "10.0.0.9");
        assert_eq!(masked("010.000.0.09").unwrap(), plain);
        assert_eq!(masked(" 10.0.0.9 ").unwrap(), plain);
        assert_eq!(masked("::ffff:10.0.0.9").unwrap(), format!("::ffff:{plain}"));
        assert_eq!(masked("web.example"), None);
        assert_eq!(masked("10.0..9"), None);
        for kept in ["0.0.0.0", "127.0.0.1", "169.254.1.2", "::", "::1", "fe80::1", "ff02::1"] {
            assert_eq!(masked(kept).as_deref(), Some(kept));
        }
        let range = |text: &str| Text::range(text).map(|text| text.masked(&key).to_string());
        for kept in ["0.0.0.0/0", "::/0", "127.0.0.0/8"] {
            assert_eq!(range(kept).as_deref(), Some(kept));
        }
        // Bits beyond the length are somebody's address.
        let odd = range("10.0.0.9/8").unwrap();
        assert_eq!(odd, format!("{plain}/8"));
        assert_eq!(range("10.0.0.0/33"), None);
    }
}
