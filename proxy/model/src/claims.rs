//! Decides which Service owns an address and port that several Services claim.
//!
//! Every address and port of every Service is a claim. If several Services claim the same one, the first by kind, then by
//! namespace, name and port name owns it; when the owner releases it, the next one is resolved again. Only Services have
//! claims, so changes of endpoints never move an address.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::service::{AddressClaim, Service};
use crate::{Family, FrontendKind, Problem, Protocol, ServiceName};

/// The subject of a claim: an address and port, or a port on the node's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    family: Family,
    address: Option<IpAddr>,
    protocol: Protocol,
    port: u16,
}

/// One claim. The least claim in the derived order wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    kind: FrontendKind,
    service: ServiceName,
    port_name: Arc<str>,
    /// The index in the API's list, to name the field.
    index: u16,
}

impl Claim {
    /// Whether both are the same Service port with two kinds of address: this is no conflict, the first kind counts.
    fn same_port(&self, other: &Claim) -> bool {
        self.service == other.service && self.port_name == other.port_name
    }

    fn field(&self) -> String {
        let index = self.index;
        match self.kind {
            FrontendKind::ClusterIp => format!("spec.clusterIPs[{index}]"),
            FrontendKind::LoadBalancerIp => format!("status.loadBalancer.ingress[{index}].ip"),
            FrontendKind::ExternalIp => format!("spec.externalIPs[{index}]"),
            FrontendKind::NodePort => format!("spec.ports[{index}].nodePort"),
        }
    }
}

#[derive(Debug)]
struct Claimants {
    owner: Claim,
    /// Claims of those that come after the owner, sorted. Nearly always empty.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    /// Whether the conflict was reported.
    reported: bool,
}

/// The claims of all Services.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    claimants: HashMap<Key, Claimants>,
    /// Keys whose conflicts may have to be reported.
    contested: BTreeSet<Key>,
}

fn key(claimed: &AddressClaim<'_>) -> Key {
    Key { family: claimed.family, address: claimed.address, protocol: claimed.port.protocol, port: claimed.number }
}

fn claims_of(name: &ServiceName, service: Option<&Service>) -> Vec<(Key, Claim)> {
    let claim = |claimed: AddressClaim<'_>| {
        let port_name = claimed.port.name.clone();
        (key(&claimed), Claim { kind: claimed.kind, service: name.clone(), port_name, index: claimed.index })
    };
    let mut claims: Vec<_> = service.into_iter().flat_map(Service::all_claims).map(claim).collect();
    claims.sort_unstable();
    claims
}

impl Claims {
    /// Replaces the claims of a Service. Returns the other Services whose addresses change because of it.
    pub(crate) fn replace(
        &mut self,
        name: &ServiceName,
        before: Option<&Service>,
        after: Option<&Service>,
    ) -> Vec<ServiceName> {
        let (before, after) = (claims_of(name, before), claims_of(name, after));
        let mut touched = Vec::new();
        // New claims first: an address whose port is only renamed is then never owned by another Service in between.
        for (key, claim) in after.iter().filter(|claim| before.binary_search(claim).is_err()) {
            touched.extend(self.claim(*key, claim));
        }
        for (key, claim) in before.iter().filter(|claim| after.binary_search(claim).is_err()) {
            touched.extend(self.release(*key, claim));
        }
        touched.retain(|other| other != name);
        touched
    }

    /// Whether this Service owns the address and port that it claims.
    pub(crate) fn owns(&self, service: &ServiceName, claimed: &AddressClaim<'_>) -> bool {
        self.claimants.get(&key(claimed)).is_some_and(|claimants| {
            let owner = &claimants.owner;
            owner.kind == claimed.kind && owner.port_name == claimed.port.name && owner.service == *service
        })
    }

    /// Returns the conflicts that were not yet reported.
    pub(crate) fn conflicts(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in std::mem::take(&mut self.contested) {
            let Some(Claimants { owner, waiting }) = self.claimants.get_mut(&key) else { continue };
            for other in waiting.iter_mut().filter(|other| !other.reported && !other.claim.same_port(owner)) {
                other.reported = true;
                problems.push(problem(&key, &other.claim, owner));
            }
        }
        problems
    }

    /// Whether [`Claims::conflicts`] may have something to report.
    pub(crate) fn contested(&self) -> bool {
        !self.contested.is_empty()
    }

    /// Adds a claim. Returns the Service that lost the key.
    fn claim(&mut self, key: Key, claim: &Claim) -> Option<ServiceName> {
        let claimants = match self.claimants.entry(key) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Claimants { owner: claim.clone(), waiting: Vec::new() });
                return None;
            }
            std::collections::hash_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        self.contested.insert(key);
        let (loser, displaced) = if *claim < claimants.owner {
            let loser = std::mem::replace(&mut claimants.owner, claim.clone());
            let displaced = loser.service.clone();
            (loser, Some(displaced))
        } else {
            (claim.clone(), None)
        };
        let waiting = &mut claimants.waiting;
        let reported = waiting.iter().any(|o| o.reported && o.claim.kind == loser.kind && o.claim.same_port(&loser));
        let index = waiting.partition_point(|other| other.claim < loser);
        waiting.insert(index, Waiting { claim: loser, reported });
        displaced
    }

    /// Removes a claim. Returns the Service that gained the key.
    fn release(&mut self, key: Key, claim: &Claim) -> Option<ServiceName> {
        let claimants = self.claimants.get_mut(&key)?;
        if claimants.owner != *claim {
            claimants.waiting.retain(|other| other.claim != *claim);
            return None;
        }
        if claimants.waiting.is_empty() {
            self.claimants.remove(&key);
            return None;
        }
        // A conflict with the old owner that was reported is not reported again for the new one. One that was not, because
        // it was the same port as the owner, may have to be now.
        self.contested.insert(key);
        claimants.owner = claimants.waiting.remove(0).claim;
        Some(claimants.owner.service.clone())
    }
}

fn problem(key: &Key, claim: &Claim, owner: &Claim) -> Problem {
    let what = match key.address {
        Some(address) => format!("{address}, {} port {}", key.protocol, key.port),
        None => format!("{} {} node port {}", key.family, key.protocol, key.port),
    };
    let owner_is = match owner.kind {
        FrontendKind::ClusterIp => "cluster IP",
        FrontendKind::LoadBalancerIp => "load balancer IP",
        FrontendKind::ExternalIp => "external IP",
        FrontendKind::NodePort => "node port",
    };
    Problem {
        object: format!("Service {}", claim.service),
        field: claim.field(),
        message: format!(
            "{what} is already the {owner_is} of Service {}; it is served there until that Service releases it",
            owner.service
        ),
    }
}
