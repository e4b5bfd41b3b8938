//! Slots: the number of each backend. A change of backends moves as few of them as possible.

use std::collections::HashMap;
use std::net::IpAddr;

use portway_model::Backend;

/// A backend in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The address that traffic is translated to.
    pub(crate) address: IpAddr,
    /// The port that traffic is translated to.
    pub(crate) port: u16,
    /// With affinity, the token of this backend's stay in this list, otherwise 0. A token is never used again, so a
    /// client's affinity does not survive that its backend goes and comes back (contract AFF-9).
    pub(crate) token: u32,
}

/// A sequence of numbers for affinity: ids of Service ports and tokens of backends. 0 means no number.
#[derive(Clone, Debug)]
pub(crate) struct AffinityNumbers {
    next: u32,
}

impl AffinityNumbers {
    /// Continues the sequence after `highest`.
    pub(crate) fn after(highest: u32) -> Self {
        Self { next: highest.wrapping_add(1).max(1) }
    }

    /// Takes the next number of the sequence.
    pub(crate) fn next(&mut self) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1).max(1);
        number
    }
}

/// Gives every backend of `desired` a slot from 0 on. `current` is what the slots hold now; `None` is a slot without a
/// backend that can be kept.
///
/// A backend keeps its slot as long as the slot is in use. Backends beyond the end move into the holes first, then new
/// backends in their order. So a removed backend changes at most one slot, a replaced one changes one, an added one
/// changes one, and without slots all get theirs in their order (contract EP-6).
pub(crate) fn assign(current: &[Option<Slot>], desired: &[Backend]) -> Vec<Slot> {
    let new = |backend: &Backend| Slot { address: backend.address, port: backend.port, token: 0 };
    if current.is_empty() {
        return desired.iter().map(new).collect();
    }
    let mut unplaced: HashMap<(IpAddr, u16), Option<Slot>> =
        desired.iter().map(|backend| ((backend.address, backend.port), None)).collect();
    let (inside, beyond) = current.split_at(current.len().min(desired.len()));
    let mut slots: Vec<Option<Slot>> = inside
        .iter()
        .map(|slot| slot.filter(|slot| unplaced.remove(&(slot.address, slot.port)).is_some()))
        .chain(std::iter::repeat(None))
        .take(desired.len())
        .collect();
    // A backend beyond the end keeps its token when it moves.
    let mut movers = Vec::new();
    for slot in beyond.iter().flatten() {
        if let Some(known) = unplaced.get_mut(&(slot.address, slot.port))
            && known.replace(*slot).is_none()
        {
            movers.push(*slot);
        }
    }
    let fresh = desired.iter().filter(|backend| unplaced.get(&(backend.address, backend.port)) == Some(&None)).map(new);
    let mut candidates = movers.into_iter().chain(fresh);
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = candidates.next();
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backends(names: &str) -> Vec<Backend> {
        names.bytes().map(|byte| Backend { address: IpAddr::from([10, 0, 0, byte]), port: 80, local: false }).collect()
    }

    fn slots(names: &str) -> Vec<Option<Slot>> {
        let slot = |byte| Slot { address: IpAddr::from([10, 0, 0, byte]), port: 80, token: u32::from(byte) };
        names.bytes().map(|byte| (byte != b'-').then(|| slot(byte))).collect()
    }

    fn names(slots: &[Slot]) -> String {
        slots
            .iter()
            .map(|slot| match slot.address {
                IpAddr::V4(address) => char::from(address.octets()[3]),
                IpAddr::V6(_) => '6',
            })
            .collect()
    }

    fn assigned(current: &str, desired: &str) -> String {
        names(&assign(&slots(current), &backends(desired)))
    }

    #[test]
    fn ep_6_without_slots_backends_get_theirs_in_order() {
        assert_eq!(assigned("", "bca"), "bca");
    }

    #[test]
    fn a_removed_backend_moves_only_the_last_one_into_the_hole() {
        assert_eq!(assigned("abcd", "acd"), "adc");
        assert_eq!(assigned("abcd", "abc"), "abc");
    }

    #[test]
    fn a_replaced_backend_changes_one_slot_and_an_added_one_adds_one() {
        assert_eq!(assigned("abcd", "aXcd"), "aXcd");
        assert_eq!(assigned("dcba", "abcdE"), "dcbaE");
    }

    #[test]
    fn retired_slots_and_holes_in_the_kernel_are_reused() {
        // b was removed before, and retired slot 2 still holds c for packets in flight.
        assert_eq!(assigned("acc", "ac"), "ac");
        assert_eq!(assigned("acb", "abc"), "acb");
        assert_eq!(assigned("a-c", "abc"), "abc");
        assert_eq!(assigned("aac", "abc"), "abc");
    }

    #[test]
    fn aff_9_a_moved_backend_keeps_its_token_and_a_new_one_has_none() {
        let after = assign(&slots("abc"), &backends("cX"));
        assert_eq!(names(&after), "cX");
        assert_eq!((after[0].token, after[1].token), (u32::from(b'c'), 0));
    }

    proptest! {
        #[test]
        fn every_backend_has_exactly_one_slot_and_few_move(current in "[a-h-]{0,8}", desired in "[a-l]{0,10}") {
            let mut desired: Vec<u8> = desired.bytes().collect();
            desired.sort_unstable();
            desired.dedup();
            let desired = String::from_utf8_lossy(&desired).into_owned();
            let after = assigned(&current, &desired);
            let mut sorted: Vec<char> = after.chars().collect();
            sorted.sort_unstable();
            prop_assert_eq!(sorted.into_iter().collect::<String>(), desired.clone());
            // The first slot inside that holds a desired backend is never given to another.
            let mut seen = Vec::new();
            for (at, name) in current.chars().enumerate().take(desired.len()) {
                if desired.contains(name) && !seen.contains(&name) {
                    prop_assert_eq!(after.chars().nth(at), Some(name));
                    seen.push(name);
                }
            }
        }
    }
}
