//! All chains of one family, and which of them a Change alters. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use portway_model::{
    Change, Family, FamilySettings, NodeSettings, Plan, PortPlan, Protocol, ServiceChange, ServiceName, ServicePlan,
};

use super::fixed::fixed_chains;
use super::index::IndexChains;
use super::options::Options;
use super::port::{self, IndexRules};
use super::rule::Rule;
use super::tables::{Chain, Chains, Delta, Table, Tables, difference};

/// Above this number of endpoints a cluster is large, and its rules carry no comments (contract IPT-11).
const LARGE_CLUSTER: usize = 1000;

/// A large cluster is small again only below this number of endpoints, because each step over the line rewrites every
/// rule.
const SMALL_AGAIN: usize = 900;

/// The smallest number of Services for which a thread renders chains: fewer are done sooner than a thread starts.
const MIN_SERVICES_PER_THREAD: usize = 250;

/// The desired chains of one family.
#[derive(Clone, Debug)]
pub(super) struct Ruleset {
    family: Family,
    options: Options,
    /// Number of rules in KUBE-SERVICES above which they become a tree; `None` for never.
    tree_above: Option<usize>,
    settings: Arc<NodeSettings>,
    services: BTreeMap<ServiceName, Arc<ServicePlan>>,
    endpoints: usize,
    large: bool,
    index: IndexChains,
}

impl Ruleset {
    /// Starts without any Service.
    pub(super) fn new(family: Family, options: Options, tree_above: Option<usize>) -> Self {
        Self {
            family,
            options,
            tree_above,
            settings: Arc::default(),
            services: BTreeMap::new(),
            endpoints: 0,
            large: false,
            index: IndexChains::new(tree_above),
        }
    }

    /// Replaces everything by a whole Plan, and returns the Services' plans from before.
    pub(super) fn load(&mut self, plan: &Plan) -> BTreeMap<ServiceName, Arc<ServicePlan>> {
        let fresh = Self::new(self.family, self.options.clone(), self.tree_above);
        let before = std::mem::replace(self, fresh);
        self.settings = plan.settings.clone();
        self.services = plan.services.iter().map(|(name, plan)| (name.clone(), plan.clone())).collect();
        self.endpoints = self.services.values().map(|plan| self.endpoints_of(plan)).sum();
        self.large = is_large(before.large, self.endpoints);
        self.index_all();
        before.services
    }

    /// Applies a Change and returns the chains that it alters. The state before is this ruleset's own, which differs from
    /// the Change's where a Service was restored to an earlier plan.
    pub(super) fn apply(&mut self, change: &Change) -> Delta {
        let own = |service: &ServiceChange| ServiceChange {
            before: self.services.get(&service.name).cloned(),
            ..service.clone()
        };
        let change = &Change { services: change.services.iter().map(own).collect(), ..change.clone() };
        let endpoints = |plan: &Option<Arc<ServicePlan>>| plan.as_ref().map_or(0, |plan| self.endpoints_of(plan));
        let (removed, added) = change.services.iter().fold((0, 0), |(removed, added), service| {
            (removed + endpoints(&service.before), added + endpoints(&service.after))
        });
        let endpoints = (self.endpoints + added).saturating_sub(removed);
        let rewrites_all = change.settings.as_ref().is_some_and(|settings| {
            let own = |settings: &NodeSettings| {
                let own = settings.family(self.family).clone();
                // These are in fixed chains alone, and may change with each pod.
                (settings.masquerade_mark, FamilySettings { route_sources: Vec::new(), ..own })
            };
            own(&settings.before) != own(&settings.after)
        }) || is_large(self.large, endpoints) != self.large;
        if rewrites_all {
            let before = self.tables();
            self.update_services(change, endpoints);
            self.index = IndexChains::new(self.tree_above);
            self.index_all();
            return difference(&before, &self.tables());
        }
        let scope = self.scope(change);
        let before = self.render_scope(&scope, change, |service| service.before.as_ref());
        self.update_services(change, endpoints);
        for service in &change.services {
            for plan in service.before.iter() {
                self.index_service(plan, false);
            }
            for plan in service.after.iter() {
                self.index_service(plan, true);
            }
        }
        difference(&before, &self.render_scope(&scope, change, |service| service.after.as_ref()))
    }

    /// Renders all chains of all tables.
    pub(super) fn tables(&self) -> Tables {
        let mut tables = fixed_chains(self.family, &self.settings, &self.options);
        self.index.render_lists(&self.options, &mut tables);
        let nat = tables.entry(Table::Nat).or_default();
        nat.insert("KUBE-SERVICES".into(), self.services_chain());
        if self.index.is_tree() {
            nat.extend(self.index.tree());
        }
        // All at once: a map is made faster from many entries than it takes them one after the other.
        let own = self.all_service_chains();
        *nat = std::mem::take(nat).into_iter().chain(own).collect();
        tables
    }

    /// Renders the chains of all Services, on all processors where there are many.
    fn all_service_chains(&self) -> Vec<Chain> {
        let plans: Vec<&ServicePlan> = self.services.values().map(|plan| &**plan).collect();
        let render =
            |plans: &[&ServicePlan]| -> Vec<_> { plans.iter().flat_map(|plan| self.service_chains(plan)).collect() };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let part = plans.len().div_ceil(workers).max(MIN_SERVICES_PER_THREAD);
        let (first, rest) = plans.split_at(part.min(plans.len()));
        std::thread::scope(|scope| {
            let spawn = |part| (part, std::thread::Builder::new().spawn_scoped(scope, move || render(part)));
            let others: Vec<_> = rest.chunks(part).map(spawn).collect();
            let mut all = render(first);
            for (part, other) in others {
                all.extend(match other {
                    Ok(other) => other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    // There are no more threads to be had.
                    Err(_) => render(part),
                });
            }
            all
        })
    }

    /// Whether NodePorts answer at 127.0.0.0/8, for which the kernel needs `route_localnet` (contract NP-2, NP-3).
    pub(super) fn needs_route_localnet(&self) -> bool {
        self.options.answers_at_localhost(self.settings.family(self.family), self.family)
    }

    /// Finds the Service that a chain, or a rule in an index chain, belongs to. It renders all Services, so it is for
    /// failures only.
    pub(super) fn owner(&self, chain: &str, rule: &str) -> Option<&ServiceName> {
        let target = rule.rsplit_once(" -j ").map_or("", |(_, target)| target);
        self.services.iter().find_map(|(name, plan)| {
            let chains: Chains = self.service_chains(plan).into_iter().collect();
            let commented = rule.contains(&format!("\"{name}:")) || rule.contains(&format!("\"{name} "));
            (chains.contains_key(chain) || chains.contains_key(target) || commented).then_some(name)
        })
    }

    /// Maps every chain of a Service to that Service.
    pub(super) fn owners(&self) -> HashMap<String, ServiceName> {
        let mut owners = HashMap::new();
        for (name, plan) in &self.services {
            owners.extend(self.service_chains(plan).into_iter().map(|(chain, _)| (chain, name.clone())));
        }
        owners
    }

    /// The plan of one Service that this ruleset holds.
    pub(super) fn service_plan(&self, name: &ServiceName) -> Option<&Arc<ServicePlan>> {
        self.services.get(name)
    }

    /// Restores one Service to an earlier plan, or removes it.
    pub(super) fn restore_service(&mut self, name: &ServiceName, plan: Option<Arc<ServicePlan>>) {
        let service = ServiceChange { name: name.clone(), before: self.services.get(name).cloned(), after: plan };
        self.apply(&Change { services: vec![service], ..Change::default() });
    }

    fn endpoints_of(&self, plan: &ServicePlan) -> usize {
        self.ports(plan).map(|port| port.cluster.len().max(port.local.len())).sum()
    }

    /// A Service's ports of this family.
    fn ports<'a>(&self, plan: &'a ServicePlan) -> impl Iterator<Item = &'a PortPlan> {
        let family = self.family;
        plan.ports.iter().filter(move |port| port.family == family)
    }

    /// The options for rules of Services: a large cluster's carry no comments.
    fn service_options(&self) -> Options {
        Options { comments: self.options.comments && !self.large, ..self.options.clone() }
    }

    fn update_services(&mut self, change: &Change, endpoints: usize) {
        if let Some(settings) = &change.settings {
            self.settings = settings.after.clone();
        }
        for service in &change.services {
            match &service.after {
                Some(plan) => self.services.insert(service.name.clone(), plan.clone()),
                None => self.services.remove(&service.name),
            };
        }
        self.endpoints = endpoints;
        self.large = is_large(self.large, endpoints);
    }

    fn index_all(&mut self) {
        let plans: Vec<_> = self.services.values().cloned().collect();
        for plan in plans {
            self.index_service(&plan, true);
        }
    }

    /// Adds a Service's rules to the index chains, or removes them.
    fn index_service(&mut self, plan: &ServicePlan, add: bool) {
        let options = self.service_options();
        for port in plan.ports.iter().filter(|port| port.family == self.family) {
            let rules = port::index_rules(port, &self.settings, &options);
            self.index.set_port(&port.name, rules, add);
        }
        if let Some(check) = plan.health_check {
            let comment =
                if options.comments { format!("{} health check node port", plan.name) } else { String::new() };
            let rule =
                Rule::new().protocol(Protocol::Tcp).destination_port(check.port).comment(&comment).jump("ACCEPT");
            self.index.set_health_check(&plan.name, add.then_some(rule));
        }
    }

    /// Works out which index chains a Change can alter.
    fn scope(&self, change: &Change) -> Scope {
        let options = self.service_options();
        let sources = |settings: &NodeSettings| settings.family(self.family).route_sources.clone();
        let fixed = change.settings.as_ref().is_some_and(|change| sources(&change.before) != sources(&change.after));
        let mut scope = Scope { fixed, ..Scope::default() };
        let render = |plan: &Option<Arc<ServicePlan>>| -> (Vec<IndexRules>, Option<u16>) {
            let Some(plan) = plan else { return (Vec::new(), None) };
            let rules = self.ports(plan).map(|port| port::index_rules(port, &self.settings, &options)).collect();
            (rules, plan.health_check.map(|check| check.port))
        };
        for service in &change.services {
            let (before, after) = (render(&service.before), render(&service.after));
            if before == after {
                continue;
            }
            scope.index = true;
            for (address, _) in before.0.iter().chain(&after.0).flat_map(|rules| &rules.services) {
                scope.addresses.push(*address);
            }
        }
        scope.near_threshold = self.index.is_near_threshold(scope.addresses.len());
        scope.addresses.sort_unstable();
        scope.addresses.dedup();
        scope
    }

    /// Renders the chains in the scope of a Change, with the Services on one side of it.
    fn render_scope<'a>(
        &self,
        scope: &Scope,
        change: &'a Change,
        side: impl Fn(&'a ServiceChange) -> Option<&'a Arc<ServicePlan>>,
    ) -> Tables {
        let mut tables =
            if scope.fixed { fixed_chains(self.family, &self.settings, &self.options) } else { Tables::new() };
        if scope.index {
            self.index.render_lists(&self.options, &mut tables);
        }
        let nat = tables.entry(Table::Nat).or_default();
        if !scope.addresses.is_empty() {
            nat.insert("KUBE-SERVICES".into(), self.services_chain());
            if self.index.is_tree() && scope.near_threshold {
                nat.extend(self.index.tree());
            } else if self.index.is_tree() {
                scope.addresses.iter().for_each(|address| nat.extend(self.index.tree_around(*address)));
            }
        }
        for plan in change.services.iter().filter_map(side) {
            nat.extend(self.service_chains(plan));
        }
        tables
    }

    fn service_chains(&self, plan: &ServicePlan) -> Vec<Chain> {
        let options = self.service_options();
        self.ports(plan).flat_map(|port| port::chains(port, &self.settings, &options)).collect()
    }

    fn services_chain(&self) -> Vec<String> {
        self.index.services_chain(self.family, self.settings.family(self.family), &self.options)
    }
}

fn is_large(was_large: bool, endpoints: usize) -> bool {
    endpoints > if was_large { SMALL_AGAIN } else { LARGE_CLUSTER }
}

/// What a Change can alter besides the Services' own chains.
#[derive(Debug, Default)]
struct Scope {
    /// Whether the chains that no Service changes can change.
    fixed: bool,
    /// Whether any index chain can change.
    index: bool,
    /// The addresses whose rules in KUBE-SERVICES are added, removed or changed.
    addresses: Vec<IpAddr>,
    /// Whether the list may become a tree or the tree a list. The tree is small then, and compared whole.
    near_threshold: bool,
}
