//! Leads a packet from KUBE-SERVICES to its Service: down a list of rules, or above a number of rules down a tree of
//! chains.
//!
//! The tree branches over four bits of the address at a time, and no chain is longer than about [`LEAF`] rules, so that
//! a packet meets tens of rules where the list has thousands, and a Service that comes or goes rewrites one short chain.
//! Its form depends on the addresses in it alone. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use data_encoding::BASE32;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::rule::Rule;
use super::tables::Chains;

/// A chain with more rules than this is split, unless they all match one address.
pub(super) const LEAF: usize = 16;

/// Address bits that one level of the tree tells apart.
const STRIDE: u8 = 4;

/// The rules of KUBE-SERVICES, by the address that they match and then by `K`, their order.
#[derive(Clone, Debug)]
pub(super) struct Dispatch<K> {
    rules: BTreeMap<IpAddr, BTreeMap<K, Rule>>,
    count: usize,
}

impl<K> Default for Dispatch<K> {
    fn default() -> Self {
        Self { rules: BTreeMap::new(), count: 0 }
    }
}

impl<K: Ord + Clone> Dispatch<K> {
    /// The number of rules in KUBE-SERVICES.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds, replaces or (with `None`) removes one rule.
    pub(super) fn set(&mut self, address: IpAddr, key: K, rule: Option<Rule>) {
        let here = self.rules.entry(address).or_default();
        self.count -= here.len();
        match rule {
            Some(rule) => here.insert(key, rule),
            None => here.remove(&key),
        };
        self.count += here.len();
        if here.is_empty() {
            self.rules.remove(&address);
        }
    }

    /// Renders all rules as one list in `chain`, in the order of their keys.
    pub(super) fn list(&self, chain: &str) -> Vec<String> {
        let mut rules: Vec<(&K, &IpAddr, &Rule)> = Vec::with_capacity(self.count);
        for (address, here) in &self.rules {
            rules.extend(here.iter().map(|(key, rule)| (key, address, rule)));
        }
        rules.sort_by_key(|(key, address, _)| (*key, *address));
        rules.into_iter().map(|(_, _, rule)| rule.line(chain)).collect()
    }

    /// Renders the rule in `chain` that enters the tree; `None` if the tree is empty.
    pub(super) fn root(&self, chain: &str) -> Option<String> {
        let prefix = self.common_prefix(None)?;
        let rule = Rule::new().jump(chain_name(prefix));
        // Everything matches a prefix of no bits, and the tools do not print it.
        let narrowed = prefix.prefix_len() > 0;
        Some(if narrowed { rule.destination_range(false, &prefix.to_string()) } else { rule }.line(chain))
    }

    /// Renders all chains of the tree.
    pub(super) fn tree(&self) -> Chains {
        let mut chains = Chains::new();
        if let Some(prefix) = self.common_prefix(None) {
            self.subtree(prefix, &mut chains);
        }
        chains
    }

    /// Renders the part of the tree that adding or removing a rule for `address` can change: the chains on the way to
    /// it, their children, and all of a chain that such a step can split or join. The difference between this part
    /// before and after is exactly what to write; its size does not grow with the tree.
    pub(super) fn around(&self, address: IpAddr) -> Chains {
        let mut chains = Chains::new();
        let mut next = self.common_prefix(None);
        while let Some(prefix) = next.take() {
            self.neighbour(prefix, &mut chains);
            if !prefix.contains(&address) {
                break;
            }
            for child in self.children(prefix) {
                self.neighbour(child, &mut chains);
                if digit(child.network(), prefix.prefix_len()) == digit(address, prefix.prefix_len()) {
                    next = Some(child);
                }
            }
        }
        chains
    }

    /// Adds a chain, with all below it if one step could split or join it.
    fn neighbour(&self, prefix: IpNet, chains: &mut Chains) {
        if self.holds_at_most(prefix, LEAF + 1) {
            self.subtree(prefix, chains);
        } else {
            self.chain(prefix, chains);
        }
    }

    fn subtree(&self, prefix: IpNet, chains: &mut Chains) {
        self.chain(prefix, chains);
        for child in self.children(prefix) {
            self.subtree(child, chains);
        }
    }

    /// Adds one chain of the tree: its rules, or a jump to each child.
    fn chain(&self, prefix: IpNet, chains: &mut Chains) {
        let name = chain_name(prefix);
        let children = self.children(prefix);
        let rules = if children.is_empty() {
            self.range(prefix).map(|rule| rule.line(&name)).collect()
        } else {
            // What does not match below goes back to KUBE-SERVICES, not to here: only one child can match.
            children.iter().map(|child| goto(&name, *child, &chain_name(*child))).collect()
        };
        chains.insert(name, rules);
    }

    /// The children of a chain; none if it holds its rules itself.
    fn children(&self, prefix: IpNet) -> Vec<IpNet> {
        let length = prefix.prefix_len();
        if length == prefix.max_prefix_len() || self.holds_at_most(prefix, LEAF) {
            return Vec::new();
        }
        let Ok(slots) = prefix.subnets(length + STRIDE) else { return Vec::new() };
        slots.filter_map(|slot| self.common_prefix(Some(slot))).collect()
    }

    fn holds_at_most(&self, prefix: IpNet, count: usize) -> bool {
        self.range(prefix).take(count + 1).count() <= count
    }

    fn range(&self, prefix: IpNet) -> impl Iterator<Item = &Rule> {
        self.rules.range(prefix.network()..=prefix.broadcast()).flat_map(|(_, here)| here.values())
    }

    /// The longest prefix of whole strides that all rules within `range` share.
    fn common_prefix(&self, range: Option<IpNet>) -> Option<IpNet> {
        let (first, last) = match range {
            Some(range) => {
                let mut within = self.rules.range(range.network()..=range.broadcast());
                let first = *within.next()?.0;
                (first, within.next_back().map_or(first, |(address, _)| *address))
            }
            None => (*self.rules.keys().next()?, *self.rules.keys().next_back()?),
        };
        let ((low, length), (high, _)) = (bits(first), bits(last));
        let same = u8::try_from((low ^ high).leading_zeros()).unwrap_or(length).min(length);
        // Whole strides only: a wider prefix then never regroups what a narrower one told apart.
        IpNet::new(first, same - same % STRIDE).ok().map(|net| net.trunc())
    }
}

fn goto(chain: &str, prefix: IpNet, target: &str) -> String {
    format!("-A {chain} -d {prefix} -g {target}")
}

/// Names a chain `KUBE-NET-10.96.16.0-20`. IPv6 prefixes are hashed, since a chain's name has at most 28 characters.
fn chain_name(prefix: IpNet) -> String {
    match prefix {
        IpNet::V4(v4) => format!("KUBE-NET-{}-{}", v4.network(), v4.prefix_len()),
        IpNet::V6(v6) => {
            let digest = Sha256::digest(v6.to_string().as_bytes());
            format!("KUBE-NET-{}", &BASE32.encode(&digest[..10]))
        }
    }
}

/// Whether a chain's name is one that the tree uses.
pub(super) fn is_tree_chain(chain: &str) -> bool {
    chain.starts_with("KUBE-NET-")
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// The [`STRIDE`] bits of an address that follow its first `from` bits.
fn digit(address: IpAddr, from: u8) -> u128 {
    (bits(address).0 << from) >> (128 - STRIDE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Follows an address through the tree; returns the targets met and the number of rules evaluated.
    fn walk(dispatch: &Dispatch<usize>, tree: &Chains, address: IpAddr) -> (Vec<String>, usize) {
        let mut met = Vec::new();
        let mut looked = 0;
        let root = dispatch.root("KUBE-SERVICES");
        let mut lines: Vec<&String> = root.iter().collect();
        'chain: loop {
            for line in lines {
                looked += 1;
                let words: Vec<&str> = line.split(' ').collect();
                let range =
                    words.iter().position(|word| *word == "-d").map(|at| words[at + 1].parse::<IpNet>().unwrap());
                if range.is_some_and(|range| !range.contains(&address)) {
                    continue;
                }
                let target = words[words.len() - 1];
                match tree.get(target) {
                    Some(rules) => {
                        lines = rules.iter().collect();
                        continue 'chain;
                    }
                    None => met.push(target.to_owned()),
                }
            }
            return (met, looked);
        }
    }

    fn rule(address: IpAddr) -> Rule {
        Rule::new().destination(address).jump(format!("for-{address}"))
    }

    fn dispatch(addresses: &[IpAddr]) -> Dispatch<usize> {
        let mut dispatch = Dispatch::default();
        for (order, address) in addresses.iter().enumerate() {
            dispatch.set(*address, order, Some(rule(*address)));
        }
        dispatch
    }

    fn services(count: u32) -> Vec<IpAddr> {
        (0..count).map(|i| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a60_0001 + i * 7))).collect()
    }

    #[test]
    fn a_packet_meets_tens_of_rules_among_ten_thousand_services() {
        let addresses = services(10_000);
        let dispatch = dispatch(&addresses);
        let tree = dispatch.tree();
        for address in &addresses {
            let (met, looked) = walk(&dispatch, &tree, *address);
            assert_eq!(met, [format!("for-{address}")]);
            assert!(looked <= 80, "{address} met {looked} rules");
        }
        assert!(tree.values().all(|rules| rules.len() <= LEAF));
        assert!(tree.keys().all(|name| name.len() <= 28));
    }

    #[test]
    fn the_part_around_an_address_does_not_grow_with_the_tree() {
        let sizes = [1_000, 10_000, 100_000].map(|count| dispatch(&services(count)).around(services(501)[500]).len());
        assert!(sizes.iter().all(|size| *size <= 17 * 6), "{sizes:?} chains looked at");
    }

    proptest! {
        #[test]
        fn every_address_meets_exactly_its_own_rules_in_order(
            v4 in prop::collection::vec(any::<u32>(), 0..200),
            near in prop::collection::vec(0_u32..512, 0..200),
            v6 in prop::collection::vec(any::<u128>(), 0..100),
            stranger in any::<u32>(),
        ) {
            let mut fours: Vec<IpAddr> = v4.into_iter().map(|a| IpAddr::from(std::net::Ipv4Addr::from_bits(a))).collect();
            fours.extend(near.into_iter().map(|a| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a60_0000 + a))));
            let sixes: Vec<IpAddr> = v6.into_iter().map(|a| IpAddr::from(std::net::Ipv6Addr::from_bits(a))).collect();
            for addresses in [fours, sixes] {
                let dispatch = dispatch(&addresses);
                let tree = dispatch.tree();
                for address in &addresses {
                    let times = addresses.iter().filter(|a| *a == address).count();
                    prop_assert_eq!(walk(&dispatch, &tree, *address).0, vec![format!("for-{address}"); times]);
                }
                let other = IpAddr::from(std::net::Ipv4Addr::from_bits(stranger));
                if !addresses.contains(&other) {
                    prop_assert!(walk(&dispatch, &tree, other).0.is_empty());
                }
            }
        }

        #[test]
        fn a_step_at_an_address_changes_only_the_part_around_it(
            steps in prop::collection::vec((prop_oneof![0_u32..64, 0_u32..4096, any::<u32>()], any::<bool>()), 1..150),
        ) {
            let mut dispatch = Dispatch::<u8>::default();
            for (address, put) in steps {
                let address = IpAddr::from(std::net::Ipv4Addr::from_bits(address));
                let (whole, part) = (dispatch.tree(), dispatch.around(address));
                dispatch.set(address, 0, put.then(|| rule(address)));
                let (new_whole, new_part) = (dispatch.tree(), dispatch.around(address));
                let mut patched = whole;
                patched.retain(|name, _| !part.contains_key(name) || new_part.contains_key(name));
                patched.extend(new_part);
                prop_assert_eq!(patched, new_whole);
            }
        }
    }
}
