//! Which flows are stale: a pure decision from Changes and flows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portway_model::{Backend, Change, Family, NodePortAddresses, NodeSettings, PortShare, Protocol, ServiceShare};

use super::flow::Flow;
use super::table::Query;

/// Where flows of a UDP Service port are sent by its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// A cluster IP, load balancer's address or external IP.
    Address(SocketAddr),
    /// A port of the node's own addresses.
    NodePort(Family, u16),
}

impl Place {
    pub(super) fn family(self) -> Family {
        match self {
            Place::Address(address) => Family::of(address.ip()),
            Place::NodePort(family, _) => family,
        }
    }

    /// What to ask the table for.
    pub(super) fn query(self) -> Query {
        match self {
            Place::Address(address) => Query::Destination(address),
            Place::NodePort(family, port) => Query::Port(family, port),
        }
    }
}

/// Who may go on answering at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answering {
    /// These endpoints. A flow that was never translated began before there were any, and is stale too.
    Endpoints(Arc<[Backend]>),
    /// Nobody: the place is no Service's any more. What was never translated is none of ours.
    Nobody,
}

impl Answering {
    /// Whether a flow to this place is stale.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        match self {
            Answering::Endpoints(endpoints) => !endpoints.iter().any(|backend| at(backend) == flow.reply_source),
            Answering::Nobody => flow.is_translated(),
        }
    }

    fn serves(&self, backend: &Backend) -> bool {
        matches!(self, Answering::Endpoints(endpoints) if endpoints.iter().any(|other| at(other) == at(backend)))
    }
}

/// What one Change means to flows.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Everything that changed, with who answers now.
    pub(super) places: BTreeMap<Place, Answering>,
    /// Those of them where flows may have become stale.
    pub(super) stale: BTreeSet<Place>,
}

/// The UDP NodePorts of the node and who answers there: kept, because new NodePort addresses concern them all.
#[derive(Debug, Default)]
pub(super) struct NodePorts {
    ports: HashMap<Place, Answering>,
    v4: NodePortAddresses,
    v6: NodePortAddresses,
}

impl NodePorts {
    /// Where NodePorts answer in a family.
    pub(super) fn addresses(&self, family: Family) -> &NodePortAddresses {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Reads a Change (contract CT-3, CT-4).
    pub(super) fn read(&mut self, change: &Change) -> News {
        let mut before = HashMap::new();
        let mut after = BTreeMap::new();
        for service in &change.services {
            before.extend(places(service.before.as_deref()));
            after.extend(places(service.after.as_deref()));
        }
        // A place may pass from one Service to another in one Change: it is gone only if nobody has it now.
        let gone = before.keys().filter(|place| !after.contains_key(place)).map(|place| (*place, Answering::Nobody));
        let gone: Vec<_> = gone.collect();
        let mut news = News::default();
        for (place, now) in after.into_iter().chain(gone) {
            if became_stale(before.get(&place), &now) {
                news.stale.insert(place);
            }
            if let Place::NodePort(..) = place {
                match &now {
                    Answering::Endpoints(_) => self.ports.insert(place, now.clone()),
                    Answering::Nobody => self.ports.remove(&place),
                };
            }
            news.places.insert(place, now);
        }
        if let Some(settings) = &change.settings {
            self.take_settings(&settings.after, &mut news);
        }
        news
    }

    /// New addresses at which NodePorts answer: flows to them were not translated until now.
    fn take_settings(&mut self, settings: &NodeSettings, news: &mut News) {
        for family in Family::ALL {
            let now = &settings.family(family).node_port_addresses;
            if self.addresses(family) == now {
                continue;
            }
            match family {
                Family::V4 => self.v4 = now.clone(),
                Family::V6 => self.v6 = now.clone(),
            }
            for (place, answering) in self.ports.iter().filter(|(place, _)| place.family() == family) {
                news.stale.insert(*place);
                news.places.insert(*place, answering.clone());
            }
        }
    }
}

/// Whether flows to a place can be stale that were not before: an endpoint that answered does so no more, or nobody
/// was there to translate them.
fn became_stale(before: Option<&Answering>, now: &Answering) -> bool {
    match before {
        Some(Answering::Endpoints(before)) if !before.is_empty() => before.iter().any(|backend| !now.serves(backend)),
        _ => true,
    }
}

/// Where a Service's UDP flows go, and who answers them.
fn places(share: Option<&ServiceShare>) -> impl Iterator<Item = (Place, Answering)> + '_ {
    let udp = |port: &&PortShare| port.protocol() == Protocol::Udp;
    share.into_iter().flat_map(|share| share.ports.iter()).filter(udp).flat_map(|port| {
        port.frontends.iter().map(|frontend| {
            let place = match frontend.address {
                Some(address) => Place::Address(SocketAddr::new(address, frontend.port)),
                None => Place::NodePort(port.family, frontend.port),
            };
            (place, Answering::Endpoints(Arc::clone(&port.serving)))
        })
    })
}

fn at(backend: &Backend) -> SocketAddr {
    SocketAddr::new(backend.address, backend.port)
}

/// The place that a flow was sent to, of those that are looked at. `is_local` says whether NodePorts answer at an
/// address.
pub(super) fn place(
    flow: &Flow,
    looked_at: &impl Fn(Place) -> bool,
    is_local: impl Fn(IpAddr) -> bool,
) -> Option<Place> {
    let address = Place::Address(flow.destination);
    if looked_at(address) {
        return Some(address);
    }
    let node_port = Place::NodePort(flow.family(), flow.destination.port());
    (looked_at(node_port) && is_local(flow.destination.ip())).then_some(node_port)
}
