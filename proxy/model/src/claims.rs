//! Who owns a contested address and port.
//!
//! Every address and port of every Service is a claim. Of several claims to the same one, the first by kind, then by
//! namespace, name and port name owns it; when an owner goes, the next is resolved anew. Claims come from Services
//! alone, so that endpoints never move an address.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::service::{Claimed, Service};
use crate::{Family, FrontendKind, Problem, Protocol, ServiceName};

/// What can be claimed: an address and port, or a port on the node's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    family: Family,
    address: Option<IpAddr>,
    protocol: Protocol,
    port: u16,
}

/// One claim, in the order in which claims win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    kind: FrontendKind,
    service: ServiceName,
    port_name: Arc<str>,
    /// Where it stands in the API's list, to name the field.
    index: u16,
}

impl Claim {
    /// Whether both are the same port of one Service, under two kinds of address: no conflict, the first kind counts.
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
    /// Sorted. Nearly always empty.
    others: Vec<Other>,
}

#[derive(Debug)]
struct Other {
    claim: Claim,
    /// Its conflict was told.
    told: bool,
}

/// All claims of all Services.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    claimants: HashMap<Key, Claimants>,
    /// Keys with claims that may have to be told to be in vain.
    contested: BTreeSet<Key>,
}

fn key(claimed: &Claimed<'_>) -> Key {
    Key { family: claimed.family, address: claimed.address, protocol: claimed.port.protocol, port: claimed.number }
}

fn claims_of(name: &ServiceName, service: Option<&Service>) -> Vec<(Key, Claim)> {
    let claim = |claimed: Claimed<'_>| {
        let port_name = claimed.port.name.clone();
        (key(&claimed), Claim { kind: claimed.kind, service: name.clone(), port_name, index: claimed.index })
    };
    let mut claims: Vec<_> = service.into_iter().flat_map(Service::all_claims).map(claim).collect();
    claims.sort_unstable();
    claims
}

impl Claims {
    /// Replaces what a Service claims. Returns the other Services whose addresses changed by that.
    pub(crate) fn replace(
        &mut self,
        name: &ServiceName,
        before: Option<&Service>,
        after: Option<&Service>,
    ) -> Vec<ServiceName> {
        let (before, after) = (claims_of(name, before), claims_of(name, after));
        let mut touched = Vec::new();
        // New claims first: what a Service only renames or renumbers then never passes through other hands.
        for (key, claim) in after.iter().filter(|claim| before.binary_search(claim).is_err()) {
            touched.extend(self.claim(*key, claim));
        }
        for (key, claim) in before.iter().filter(|claim| after.binary_search(claim).is_err()) {
            touched.extend(self.release(*key, claim));
        }
        touched.retain(|other| other != name);
        touched
    }

    /// Whether this Service port owns this address, under this kind.
    pub(crate) fn owns(&self, service: &ServiceName, claimed: &Claimed<'_>) -> bool {
        self.claimants.get(&key(claimed)).is_some_and(|claimants| {
            let owner = &claimants.owner;
            owner.kind == claimed.kind && owner.port_name == claimed.port.name && owner.service == *service
        })
    }

    /// Claims in vain that were not yet told.
    pub(crate) fn conflicts(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in std::mem::take(&mut self.contested) {
            let Some(Claimants { owner, others }) = self.claimants.get_mut(&key) else { continue };
            for other in others.iter_mut().filter(|other| !other.told && !other.claim.same_port(owner)) {
                other.told = true;
                problems.push(problem(&key, &other.claim, owner));
            }
        }
        problems
    }

    /// Whether [`Claims::conflicts`] has something to look at.
    pub(crate) fn contested(&self) -> bool {
        !self.contested.is_empty()
    }

    /// Returns who lost the key by it.
    fn claim(&mut self, key: Key, claim: &Claim) -> Option<ServiceName> {
        let claimants = match self.claimants.entry(key) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Claimants { owner: claim.clone(), others: Vec::new() });
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
        let others = &mut claimants.others;
        let told = others.iter().any(|o| o.told && o.claim.kind == loser.kind && o.claim.same_port(&loser));
        let place = others.partition_point(|other| other.claim < loser);
        others.insert(place, Other { claim: loser, told });
        displaced
    }

    /// Returns who won the key by it.
    fn release(&mut self, key: Key, claim: &Claim) -> Option<ServiceName> {
        let claimants = self.claimants.get_mut(&key)?;
        if claimants.owner != *claim {
            claimants.others.retain(|other| other.claim != *claim);
            return None;
        }
        if claimants.others.is_empty() {
            self.claimants.remove(&key);
            return None;
        }
        // Others that were told of the old owner need not be told of the new one; one that was never told, because it
        // was the same port as the owner, now may have to be.
        self.contested.insert(key);
        claimants.owner = claimants.others.remove(0).claim;
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
            "{what} is already the {owner_is} of Service {}; it is served there, and here once that one gives it up",
            owner.service
        ),
    }
}
