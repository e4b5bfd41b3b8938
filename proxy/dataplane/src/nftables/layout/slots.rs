//! Slots: which backend has which number. A change of backends moves as few of them as it can.

use std::collections::HashMap;
use std::net::IpAddr;

use portway_model::Backend;

/// A backend in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The backend's address.
    pub(crate) address: IpAddr,
    /// The backend's port.
    pub(crate) port: u16,
    /// With affinity: the token of this backend's stay in this list; it is never given out again, so a client that
    /// stuck to the backend before it went away does not stick to it after it is back (contract AFF-9). Otherwise 0.
    pub(crate) token: u32,
}

/// Numbers for affinity: ids of Service ports and tokens of backends, one sequence for both. 0 is no number.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    next: u32,
}

impl Numbers {
    /// The sequence after `highest`.
    pub(crate) fn after(highest: u32) -> Self {
        Self { next: highest.wrapping_add(1).max(1) }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1).max(1);
        number
    }
}

/// Gives every backend of `wanted` a slot from 0 on, given what is in the slots now (`None`: nothing that can be kept).
///
/// A backend that has a slot keeps it, as long as the slot is still in use. Those beyond the end move into the holes
/// first, then new backends in their order. So one backend less changes at most one slot, one replaced changes one, one
/// more changes one, and from nothing all stand in their order (contract EP-6).
pub(crate) fn assign(now: &[Option<Slot>], wanted: &[Backend]) -> Vec<Slot> {
    let new = |backend: &Backend| Slot { address: backend.address, port: backend.port, token: 0 };
    if now.is_empty() {
        return wanted.iter().map(new).collect();
    }
    let mut homeless: HashMap<(IpAddr, u16), Option<Slot>> =
        wanted.iter().map(|backend| ((backend.address, backend.port), None)).collect();
    let (inside, beyond) = now.split_at(now.len().min(wanted.len()));
    let mut slots: Vec<Option<Slot>> = inside
        .iter()
        .map(|slot| slot.filter(|slot| homeless.remove(&(slot.address, slot.port)).is_some()))
        .chain(std::iter::repeat(None))
        .take(wanted.len())
        .collect();
    // What is beyond the end keeps its token when it moves.
    let mut movers = Vec::new();
    for slot in beyond.iter().flatten() {
        if let Some(known) = homeless.get_mut(&(slot.address, slot.port))
            && known.replace(*slot).is_none()
        {
            movers.push(*slot);
        }
    }
    let fresh = wanted.iter().filter(|backend| homeless.get(&(backend.address, backend.port)) == Some(&None)).map(new);
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

    fn assigned(now: &str, wanted: &str) -> String {
        names(&assign(&slots(now), &backends(wanted)))
    }

    #[test]
    fn ep_6_from_nothing_backends_stand_in_their_order() {
        assert_eq!(assigned("", "bca"), "bca");
    }

    #[test]
    fn removal_moves_only_the_last_one_into_the_hole() {
        assert_eq!(assigned("abcd", "acd"), "adc");
        assert_eq!(assigned("abcd", "abc"), "abc");
    }

    #[test]
    fn replacement_changes_one_slot_and_growth_adds_one() {
        assert_eq!(assigned("abcd", "aXcd"), "aXcd");
        assert_eq!(assigned("dcba", "abcdE"), "dcbaE");
    }

    #[test]
    fn left_over_slots_and_holes_in_the_kernel_are_understood() {
        // b went away before and slot 2 still holds c for packets in flight.
        assert_eq!(assigned("acc", "ac"), "ac");
        assert_eq!(assigned("acb", "abc"), "acb");
        assert_eq!(assigned("a-c", "abc"), "abc");
        assert_eq!(assigned("aac", "abc"), "abc");
    }

    #[test]
    fn aff_9_a_move_keeps_the_token_and_a_newcomer_has_none() {
        let after = assign(&slots("abc"), &backends("cX"));
        assert_eq!(names(&after), "cX");
        assert_eq!((after[0].token, after[1].token), (u32::from(b'c'), 0));
    }

    proptest! {
        #[test]
        fn every_backend_has_exactly_one_slot_and_few_move(now in "[a-h-]{0,8}", wanted in "[a-l]{0,10}") {
            let mut wanted: Vec<u8> = wanted.bytes().collect();
            wanted.sort_unstable();
            wanted.dedup();
            let wanted = String::from_utf8_lossy(&wanted).into_owned();
            let after = assigned(&now, &wanted);
            let mut sorted: Vec<char> = after.chars().collect();
            sorted.sort_unstable();
            prop_assert_eq!(sorted.into_iter().collect::<String>(), wanted.clone());
            // Whoever could stay did: the first slot inside that holds a wanted backend is never given to another.
            let mut seen = Vec::new();
            for (at, name) in now.chars().enumerate().take(wanted.len()) {
                if wanted.contains(name) && !seen.contains(&name) {
                    prop_assert_eq!(after.chars().nth(at), Some(name));
                    seen.push(name);
                }
            }
        }
    }
}
