//! The cluster as this node sees it: takes objects, and returns a Plan and its Changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::changes::Changes;
use crate::claims::Claims;
use crate::counts::Counts;
use crate::intern::Interner;
use crate::node::{NodeFacts, ThisNode};
use crate::problems::{ObjectName, ObjectProblems, ReportedProblems};
use crate::service::Service;
use crate::slice::{self, Slice};
use crate::{
    Change, Config, Event, Family, FrontendKind, Kind, NodeSettings, Pending, Plan, Problem, ServiceChange,
    ServiceName, ServicePlan, SettingsChange, Stats, api, resolve,
};

/// The cluster as this node sees it.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    strings: Interner,
    entries: HashMap<ServiceName, ServiceEntry>,
    /// The Service to which each slice belongs.
    slices: HashMap<ObjectName, ServiceName>,
    node: ThisNode,
    claims: Claims,
    reported: ReportedProblems,
    /// Lists that have begun, with the objects that they have named so far.
    listings: HashMap<Kind, HashSet<ObjectName>>,
    services_listed: bool,
    slices_listed: bool,
    changes: Changes,
    /// Services to resolve again because another Service released or took an address.
    reassigned: BTreeSet<ServiceName>,
    /// The facts of the node with which the Plan was resolved.
    resolved_with: NodeFacts,
    /// Facts that differ from `resolved_with`: all Services have to be resolved again.
    new_facts: Option<NodeFacts>,
    /// Settings that differ from those of the Plan.
    new_settings: Option<Arc<NodeSettings>>,
    plan: Plan,
    counts: Counts,
    /// Whether it was reported that no address answers NodePorts.
    node_ports_reported: bool,
}

/// A Service and its slices; at least one of them is known.
#[derive(Debug, Default)]
struct ServiceEntry {
    service: Option<Arc<Service>>,
    /// The slices by name, in no particular order.
    slices: Vec<(Arc<str>, Arc<Slice>)>,
}

impl Cluster {
    /// Creates a cluster without any objects.
    pub fn new(config: Config) -> Self {
        let node = ThisNode::default();
        let plan = Plan { settings: Arc::new(node.settings(&config)), services: HashMap::new() };
        Self {
            resolved_with: node.facts(&config),
            config,
            strings: Interner::default(),
            entries: HashMap::new(),
            slices: HashMap::new(),
            node,
            claims: Claims::default(),
            reported: ReportedProblems::default(),
            listings: HashMap::new(),
            services_listed: false,
            slices_listed: false,
            changes: Changes::default(),
            reassigned: BTreeSet::new(),
            new_facts: None,
            new_settings: None,
            plan,
            counts: Counts::default(),
            node_ports_reported: false,
        }
    }

    /// Handles one event. The cost depends on the objects that it changes and not on the size of the cluster; only the end
    /// of a list visits all objects of its kind. Returns the problems of the object that were not returned before.
    pub fn ingest(&mut self, event: Event) -> Vec<Problem> {
        match event {
            Event::Service(api) => return self.service(&api),
            Event::EndpointSlice(api) => return self.slice(&api),
            Event::Node(api) => return self.node(&api),
            Event::ServiceCidr(api) => return self.service_cidr(&api),
            Event::ServiceGone(name) => {
                let name = self.object_name(&name.namespace, &name.name);
                self.gone(Kind::Service, &name);
            }
            Event::EndpointSliceGone { namespace, name } => {
                let name = self.object_name(&namespace, &name);
                self.gone(Kind::EndpointSlice, &name);
            }
            Event::NodeGone(name) => {
                let name = self.object_name("", &name);
                self.gone(Kind::Node, &name);
            }
            Event::ServiceCidrGone(name) => {
                let name = self.object_name("", &name);
                self.gone(Kind::ServiceCidr, &name);
            }
            Event::Unreadable { kind, namespace, name } => {
                self.seen(kind, &namespace, &name);
            }
            Event::InterfaceAddresses(addresses) => {
                self.node.set_interface_addresses(addresses);
                self.refresh_node();
            }
            Event::RouteSources(sources) => {
                self.node.set_route_sources(sources);
                self.refresh_node();
            }
            Event::ListBegins(kind) => {
                self.listings.insert(kind, HashSet::new());
            }
            Event::ListDone(kind) => self.list_done(kind),
        }
        Vec::new()
    }

    /// Whether Services and EndpointSlices have both been listed in full (contract WATCH-5). Until then, nothing may be
    /// written to the kernel.
    pub fn synced(&self) -> bool {
        self.services_listed && self.slices_listed
    }

    /// Whether a change that may affect the Plan is pending for [`Cluster::drain`].
    pub fn is_dirty(&self) -> bool {
        !self.changes.is_empty()
            || !self.reassigned.is_empty()
            || self.claims.contested()
            || self.new_settings.is_some()
            || self.new_facts.is_some()
    }

    /// How many Services are pending for [`Cluster::drain`], by the kind of object that changed.
    pub fn pending(&self) -> Pending {
        let (services, endpoints) = self.changes.counts();
        Pending { services, endpoints }
    }

    /// Resolves the pending changes, updates the Plan and returns the difference to the last Plan. Also returns problems
    /// between objects (two Services that claim one address), each once.
    pub fn drain(&mut self) -> (Change, Vec<Problem>) {
        let changes = std::mem::take(&mut self.changes);
        let mut names = std::mem::take(&mut self.reassigned);
        names.extend(changes.names().cloned());
        if let Some(facts) = self.new_facts.take() {
            self.resolved_with = facts;
            names
                .extend(self.entries.iter().filter(|(_, entry)| entry.service.is_some()).map(|(name, _)| name.clone()));
        }
        let mut change = Change { settings: self.drain_settings(), ..Change::default() };
        for name in names {
            if let Some(service_change) = self.resolve(&name) {
                change.triggers.extend_from_slice(changes.triggers(&name));
                change.services.push(service_change);
            }
        }
        let mut problems = self.claims.conflicts();
        problems.extend(self.unanswered_node_ports(&change));
        (change, problems)
    }

    /// The problem that there are NodePorts and no address of this node answers them, once.
    fn unanswered_node_ports(&mut self, change: &Change) -> Option<Problem> {
        if self.node_ports_reported || !self.node.lacks_node_port_addresses(&self.config) {
            return None;
        }
        let has_node_port = |plan: &Arc<ServicePlan>| {
            plan.ports.iter().flat_map(|port| &port.frontends).any(|frontend| frontend.kind == FrontendKind::NodePort)
        };
        let found = if change.settings.is_some() {
            self.plan.services.values().any(has_node_port)
        } else {
            change.services.iter().filter_map(|change| change.after.as_ref()).any(has_node_port)
        };
        self.node_ports_reported = found;
        found.then(|| Problem {
            object: format!("Node {}", self.config.node_name),
            field: "status.addresses".to_owned(),
            message: "NodePorts answer at the addresses of this Node object and none is known; no NodePort is served \
                      until one is known or other addresses are configured"
                .to_owned(),
        })
    }

    /// The Plan as of the last [`Cluster::drain`].
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of Services, ports and backends in the Plan, both families together.
    pub fn stats(&self) -> Stats {
        self.counts.total()
    }

    /// The number of Services, ports and backends in the Plan for one family.
    pub fn family_stats(&self, family: Family) -> Stats {
        self.counts.family(family)
    }

    /// The node's primary address of a family, once known.
    pub fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.node.ip(&self.config, family)
    }

    /// The pod ranges that the Node object names, once known.
    pub fn pod_cidrs(&self) -> &[IpNet] {
        self.node.pod_cidrs()
    }

    /// Whether load balancers may send this node new traffic: its Node object is neither deleted nor about to be (contract
    /// HZ-4). True until a Node was seen.
    pub fn node_is_eligible(&self) -> bool {
        self.node.is_eligible()
    }

    /// The zone that the Node object names, once known.
    #[cfg(feature = "testing")]
    pub fn zone(&self) -> Option<&str> {
        self.node.zone()
    }

    /// Updates the plan of one Service.
    fn resolve(&mut self, name: &ServiceName) -> Option<ServiceChange> {
        let after = self.entries.get(name).and_then(|entry| {
            let slices: Vec<&Slice> = entry.slices.iter().map(|(_, slice)| &**slice).collect();
            resolve::service_plan(name, entry.service.as_deref()?, &slices, &self.claims, &self.resolved_with)
        });
        let before = self.plan.services.get(name);
        if before.map(|plan| &**plan) == after.as_ref() {
            return None;
        }
        let after = after.map(Arc::new);
        self.counts.replace(before.map(|plan| &**plan), after.as_deref());
        let before = match &after {
            Some(after) => self.plan.services.insert(name.clone(), after.clone()),
            None => self.plan.services.remove(name),
        };
        Some(ServiceChange { name: name.clone(), before, after })
    }

    fn drain_settings(&mut self) -> Option<SettingsChange> {
        let after = self.new_settings.take()?;
        let before = std::mem::replace(&mut self.plan.settings, after.clone());
        Some(SettingsChange { before, after })
    }

    /// Recomputes the facts and settings that follow from the node and compares them with those of the Plan.
    fn refresh_node(&mut self) {
        let facts = self.node.facts(&self.config);
        self.new_facts = (facts != self.resolved_with).then_some(facts);
        let settings = self.node.settings(&self.config);
        self.new_settings = (settings != *self.plan.settings).then(|| Arc::new(settings));
    }

    fn object_name(&mut self, namespace: &str, name: &str) -> ObjectName {
        ObjectName { namespace: self.strings.string(namespace), name: self.strings.string(name) }
    }

    /// The name of an object that exists; notes it for a list in progress.
    fn seen(&mut self, kind: Kind, namespace: &str, name: &str) -> ObjectName {
        let name = self.object_name(namespace, name);
        if let Some(named) = self.listings.get_mut(&kind) {
            named.insert(name.clone());
        }
        name
    }

    fn service(&mut self, api: &api::Service) -> Vec<Problem> {
        let name = self.seen(Kind::Service, &api.namespace, &api.name);
        let mut problems = ObjectProblems::new(Kind::Service, &name);
        let service = Service::parse(api, self.config.external_ips, &mut self.strings, &mut problems);
        let problems = self.reported.update(Kind::Service, &name, problems);
        self.set_service(service_name(name), service);
        problems
    }

    fn set_service(&mut self, name: ServiceName, service: Option<Service>) {
        let entry = self.entries.entry(name.clone()).or_default();
        if entry.service.as_deref() != service.as_ref() {
            let after = service.map(Arc::new);
            let before = std::mem::replace(&mut entry.service, after.clone());
            self.reassigned.extend(self.claims.replace(&name, before.as_deref(), after.as_deref()));
            self.changes.service(&name, before, after.as_ref());
        }
        self.forget_if_empty(&name);
    }

    fn slice(&mut self, api: &api::EndpointSlice) -> Vec<Problem> {
        let name = self.seen(Kind::EndpointSlice, &api.namespace, &api.name);
        let mut problems = ObjectProblems::new(Kind::EndpointSlice, &name);
        let owner = slice::service_name(api).and_then(|service| {
            let slice = Slice::parse(api, &self.config.node_name, &mut self.strings, &mut problems)?;
            Some((
                ServiceName { namespace: name.namespace.clone(), name: self.strings.string(service) },
                Arc::new(slice),
            ))
        });
        let problems = self.reported.update(Kind::EndpointSlice, &name, problems);
        let trigger = api.last_change_trigger.filter(|time| self.config.started.is_none_or(|started| *time >= started));
        self.set_slice(&name, owner, trigger);
        problems
    }

    fn set_slice(&mut self, name: &ObjectName, owner: Option<(ServiceName, Arc<Slice>)>, trigger: Option<SystemTime>) {
        let old_owner = self.slices.get(name).filter(|old| owner.as_ref().is_none_or(|(new, _)| new != *old)).cloned();
        if let Some(old_owner) = old_owner {
            self.slices.remove(name);
            self.put_slice(&old_owner, &name.name, None, None);
        }
        if let Some((owner, slice)) = owner {
            if !self.slices.contains_key(name) {
                self.slices.insert(name.clone(), owner.clone());
            }
            self.put_slice(&owner, &name.name, Some(slice), trigger);
        }
    }

    /// Adds a slice to a Service's entry, replaces it or removes it.
    fn put_slice(
        &mut self,
        service: &ServiceName,
        name: &Arc<str>,
        after: Option<Arc<Slice>>,
        trigger: Option<SystemTime>,
    ) {
        let slices = &mut self.entries.entry(service.clone()).or_default().slices;
        let index = slices.iter().position(|(known, _)| known == name);
        let before = match (index, after.clone()) {
            (Some(index), Some(after)) => Some(std::mem::replace(&mut slices[index].1, after)),
            (Some(index), None) => Some(slices.swap_remove(index).1),
            (None, Some(after)) => {
                slices.reserve_exact(1);
                slices.push((name.clone(), after));
                None
            }
            (None, None) => None,
        };
        if before != after {
            self.changes.slice(service, name, before, after.as_ref(), trigger);
        }
        self.forget_if_empty(service);
    }

    fn forget_if_empty(&mut self, name: &ServiceName) {
        if self.entries.get(name).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
            self.entries.remove(name);
        }
    }

    fn node(&mut self, api: &api::Node) -> Vec<Problem> {
        if api.name != self.config.node_name {
            return Vec::new();
        }
        let name = self.seen(Kind::Node, "", &api.name);
        let mut problems = ObjectProblems::new(Kind::Node, &name);
        self.node.set_node(api, &mut problems);
        self.refresh_node();
        self.reported.update(Kind::Node, &name, problems)
    }

    fn service_cidr(&mut self, api: &api::ServiceCidr) -> Vec<Problem> {
        let name = self.seen(Kind::ServiceCidr, "", &api.name);
        let mut problems = ObjectProblems::new(Kind::ServiceCidr, &name);
        self.node.set_service_cidr(api, &mut problems);
        self.refresh_node();
        self.reported.update(Kind::ServiceCidr, &name, problems)
    }

    fn gone(&mut self, kind: Kind, name: &ObjectName) {
        if let Some(named) = self.listings.get_mut(&kind) {
            named.remove(name);
        }
        self.reported.forget(kind, name);
        match kind {
            Kind::Service => self.set_service(service_name(name.clone()), None),
            Kind::EndpointSlice => self.set_slice(name, None, None),
            Kind::Node if *name.name == *self.config.node_name => self.node.node_gone(),
            Kind::Node => {}
            Kind::ServiceCidr => {
                self.node.remove_service_cidr(&name.name);
                self.refresh_node();
            }
        }
    }

    fn list_done(&mut self, kind: Kind) {
        match kind {
            Kind::Service => self.services_listed = true,
            Kind::EndpointSlice => self.slices_listed = true,
            Kind::Node | Kind::ServiceCidr => {}
        }
        // A list that was never begun removes nothing.
        let Some(named) = self.listings.remove(&kind) else { return };
        let mut unnamed: Vec<ObjectName> =
            self.reported.objects(kind).filter(|name| !named.contains(name)).cloned().collect();
        match kind {
            Kind::Service => {
                let services = self.entries.iter().filter(|(_, entry)| entry.service.is_some());
                let names = services.map(|(name, _)| object_name_of(name));
                unnamed.extend(names.filter(|name| !named.contains(name)));
            }
            Kind::EndpointSlice => unnamed.extend(self.slices.keys().filter(|name| !named.contains(name)).cloned()),
            Kind::Node => {
                let own = self.object_name("", &self.config.node_name.clone());
                unnamed.clear();
                unnamed.extend(Some(own).filter(|own| self.node.is_known() && !named.contains(own)));
            }
            Kind::ServiceCidr => {
                let cidrs: Vec<String> = self.node.service_cidr_names().map(str::to_owned).collect();
                let names = cidrs.iter().map(|name| self.object_name("", name)).collect::<Vec<_>>();
                unnamed.extend(names.into_iter().filter(|name| !named.contains(name)));
            }
        }
        unnamed.sort_unstable();
        unnamed.dedup();
        for name in unnamed {
            self.gone(kind, &name);
        }
    }
}

fn service_name(name: ObjectName) -> ServiceName {
    ServiceName { namespace: name.namespace, name: name.name }
}

fn object_name_of(name: &ServiceName) -> ObjectName {
    ObjectName { namespace: name.namespace.clone(), name: name.name.clone() }
}
