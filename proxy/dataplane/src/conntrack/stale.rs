//! Which flows are stale: a pure decision from Changes and flows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portway_model::{Backend, Change, Family, NodePortAddresses, NodeSettings, PortPlan, Protocol, ServicePlan};

use portway_kernel::conntrack::Flow;
use portway_kernel::conntrack::Query;

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
            Answering::Endpoints(_) => !self.serves(&flow.reply_source),
            Answering::Nobody => flow.is_translated(),
        }
    }

    fn serves(&self, endpoint: &SocketAddr) -> bool {
        matches!(self, Answering::Endpoints(endpoints) if endpoints.iter().any(|backend| at(backend) == *endpoint))
    }
}

/// Which flows to a place can have become stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Any: those too that were never translated.
    All,
    /// Those that one of these endpoints answers, which did until now.
    AnsweredBy(BTreeSet<SocketAddr>),
}

impl Doubt {
    /// Both.
    pub(super) fn and(self, other: Doubt) -> Doubt {
        match (self, other) {
            (Doubt::AnsweredBy(mut these), Doubt::AnsweredBy(those)) => {
                these.extend(those);
                Doubt::AnsweredBy(these)
            }
            _ => Doubt::All,
        }
    }

    /// What is left of it where these answer: what answers is not in doubt.
    pub(super) fn unless(self, answering: &Answering) -> Option<Doubt> {
        match self {
            Doubt::All => Some(Doubt::All),
            Doubt::AnsweredBy(mut endpoints) => {
                endpoints.retain(|endpoint| !answering.serves(endpoint));
                (!endpoints.is_empty()).then_some(Doubt::AnsweredBy(endpoints))
            }
        }
    }
}

/// What one Change means to flows: each place that it concerns, who answers there now, and which flows can have become
/// stale, if any.
pub(super) type News = BTreeMap<Place, (Answering, Option<Doubt>)>;

/// The UDP NodePorts of the node and who answers there: kept, because new NodePort addresses concern them all.
#[derive(Debug)]
pub(super) struct NodePorts {
    ports: HashMap<Place, Answering>,
    v4: NodePortAddresses,
    v6: NodePortAddresses,
}

impl NodePorts {
    /// None yet.
    pub(super) fn new(settings: &NodeSettings) -> Self {
        let at = |family| settings.family(family).node_port_addresses.clone();
        Self { ports: HashMap::new(), v4: at(Family::V4), v6: at(Family::V6) }
    }

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
        let gone = before.keys().filter(|place| !after.contains_key(place)).copied().collect::<Vec<_>>();
        after.extend(gone.into_iter().map(|place| (place, Answering::Nobody)));
        let mut news = News::new();
        for (place, now) in after {
            if let Place::NodePort(..) = place {
                match &now {
                    Answering::Endpoints(_) => self.ports.insert(place, now.clone()),
                    Answering::Nobody => self.ports.remove(&place),
                };
            }
            let doubt = doubt(before.get(&place), &now);
            news.insert(place, (now, doubt));
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
                news.insert(*place, (answering.clone(), Some(Doubt::All)));
            }
        }
    }
}

/// Which flows to a place can be stale that were not before: those of an endpoint that answers no more, or all where
/// nobody was there to translate them.
fn doubt(before: Option<&Answering>, now: &Answering) -> Option<Doubt> {
    match before {
        Some(Answering::Endpoints(before)) if !before.is_empty() => {
            let lost: BTreeSet<_> = before.iter().map(at).filter(|endpoint| !now.serves(endpoint)).collect();
            (!lost.is_empty()).then_some(Doubt::AnsweredBy(lost))
        }
        Some(_) if *now == Answering::Nobody => None,
        _ => Some(Doubt::All),
    }
}

/// Where a Service's UDP flows go, and who answers them.
fn places(share: Option<&ServicePlan>) -> impl Iterator<Item = (Place, Answering)> + '_ {
    let udp = |port: &&PortPlan| port.protocol() == Protocol::Udp;
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
