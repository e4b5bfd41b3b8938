//! All chains of one family: the Services' own and the index chains that lead to them, and what a Change does to them.
//! Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use portway_model::{
    Change, Family, NodePortAddresses, NodeSettings, Plan, PortPlan, Protocol, ServiceChange, ServiceName, ServicePlan,
    ServicePortName,
};

use super::dispatch::{Chains, Dispatch};
use super::render::{self, IndexRules, Options};
use super::rule::Rule;
use portway_kernel::nfacct::INVALID_DROPPED;

/// The tables that portway writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Holds nothing but the canary.
    Mangle,
    /// Reject and drop, source ranges, forwarding.
    Filter,
    /// Destinations and masquerade.
    Nat,
}

impl Table {
    /// All tables, in the order in which they are first written.
    pub const ALL: [Table; 3] = [Table::Mangle, Table::Filter, Table::Nat];

    /// As the tools name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Filter => "filter",
            Table::Nat => "nat",
        }
    }
}

/// The chains of each table that are wanted.
pub type Tables = BTreeMap<Table, Chains>;

/// The chains that differ, by table and name.
pub type Delta = BTreeMap<Table, BTreeMap<String, ChainChange>>;

/// One chain's rules before and after; `None` where it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainChange {
    /// What the kernel has.
    pub before: Option<Vec<String>>,
    /// What it shall have.
    pub after: Option<Vec<String>>,
}

/// A rule in a chain that belongs to the kernel and leads to one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The table.
    pub table: Table,
    /// The built-in chain.
    pub from: &'static str,
    /// Our chain.
    pub to: &'static str,
    /// Whether only the first packet of a connection takes it.
    pub new_only: bool,
    /// What iptables-save shows it for.
    pub comment: &'static str,
}

/// All jumps (contract IPT-2), in the order in which kube-proxy names them. Each goes to the top of its chain.
pub const JUMPS: [Jump; 12] = {
    const fn jump(table: Table, from: &'static str, to: &'static str, new_only: bool, comment: &'static str) -> Jump {
        Jump { table, from, to, new_only, comment }
    }
    use Table::{Filter, Nat};
    [
        jump(Filter, "INPUT", "KUBE-EXTERNAL-SERVICES", true, "kubernetes externally-visible service portals"),
        jump(Filter, "FORWARD", "KUBE-EXTERNAL-SERVICES", true, "kubernetes externally-visible service portals"),
        jump(Filter, "INPUT", "KUBE-NODEPORTS", false, "kubernetes health check service ports"),
        jump(Filter, "FORWARD", "KUBE-SERVICES", true, "kubernetes service portals"),
        jump(Filter, "OUTPUT", "KUBE-SERVICES", true, "kubernetes service portals"),
        jump(Filter, "FORWARD", "KUBE-FORWARD", false, "kubernetes forwarding rules"),
        jump(Filter, "INPUT", "KUBE-PROXY-FIREWALL", true, "kubernetes load balancer firewall"),
        jump(Filter, "OUTPUT", "KUBE-PROXY-FIREWALL", true, "kubernetes load balancer firewall"),
        jump(Filter, "FORWARD", "KUBE-PROXY-FIREWALL", true, "kubernetes load balancer firewall"),
        jump(Nat, "OUTPUT", "KUBE-SERVICES", false, "kubernetes service portals"),
        jump(Nat, "PREROUTING", "KUBE-SERVICES", false, "kubernetes service portals"),
        jump(Nat, "POSTROUTING", "KUBE-POSTROUTING", false, "kubernetes postrouting rules"),
    ]
};

impl Jump {
    /// The jump as `iptables-save` prints it.
    pub fn line(&self) -> String {
        let state = if self.new_only { "-m conntrack --ctstate NEW " } else { "" };
        format!("-A {} {state}-m comment --comment \"{}\" -j {}", self.from, self.comment, self.to)
    }
}

/// The jumps to KUBE-FIREWALL, which kubelet writes too: without comment, and left at clean-up (contract IPT-15).
pub const SHARED_JUMPS: [(&str, &str); 2] = [("INPUT", "KUBE-FIREWALL"), ("OUTPUT", "KUBE-FIREWALL")];

/// A chain that nobody jumps to. If it goes, somebody has flushed the tables (contract IPT-13).
pub const CANARY: &str = "KUBE-PROXY-CANARY";

/// The chains through which packets come to the Services' own.
pub const INDEX: [&str; 6] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
    "KUBE-FORWARD",
    "KUBE-POSTROUTING",
];

/// More endpoints than this make a large cluster, whose rules carry no comments (contract IPT-11) …
pub const LARGE_CLUSTER: usize = 1000;

/// … until no more than this are left: each step over the line rewrites every rule.
const SMALL_AGAIN: usize = 900;

/// Services of which the chains are rendered by one thread at least: fewer are done sooner than a thread begins.
const PART: usize = 250;

/// The order of a rule in an index chain: the Service port's name, then the rule's place among its rules.
type Key = (ServicePortName, usize);

/// One family's chains, as last planned.
#[derive(Clone, Debug)]
pub struct Ruleset {
    family: Family,
    options: Options,
    /// Rules of KUBE-SERVICES above which they become a tree; `None` for never.
    tree_above: Option<usize>,
    settings: Arc<NodeSettings>,
    services: BTreeMap<ServiceName, Arc<ServicePlan>>,
    endpoints: usize,
    large: bool,
    dispatch: Dispatch<Key>,
    lists: Lists,
}

/// The index chains that are plain lists.
#[derive(Clone, Debug, Default)]
struct Lists {
    node_ports: BTreeMap<Key, Rule>,
    filter_services: BTreeMap<Key, Rule>,
    filter_external: BTreeMap<Key, Rule>,
    filter_firewall: BTreeMap<Key, Rule>,
    health_checks: BTreeMap<ServiceName, Rule>,
}

impl Ruleset {
    /// No Services yet.
    pub fn new(family: Family, options: Options, tree_above: Option<usize>) -> Self {
        Self {
            family,
            options,
            tree_above,
            settings: Arc::default(),
            services: BTreeMap::new(),
            endpoints: 0,
            large: false,
            dispatch: Dispatch::default(),
            lists: Lists::default(),
        }
    }

    /// Takes over a whole Plan, whatever was there before. Returns the shares that it replaces.
    pub fn load(&mut self, plan: &Plan) -> BTreeMap<ServiceName, Arc<ServicePlan>> {
        let fresh = Self::new(self.family, self.options.clone(), self.tree_above);
        let before = std::mem::replace(self, fresh);
        self.settings = plan.settings.clone();
        self.services = plan.services.iter().map(|(name, share)| (name.clone(), share.clone())).collect();
        self.endpoints = self.services.values().map(|share| self.endpoints_of(share)).sum();
        self.large = is_large(before.large, self.endpoints);
        self.index();
        before.services
    }

    /// Applies a Change and says which chains it changes. What counts as before is what was last taken over, which is
    /// not the Plan's where a Service was put back.
    pub fn apply(&mut self, change: &Change) -> Delta {
        let own = |service: &ServiceChange| ServiceChange {
            before: self.services.get(&service.name).cloned(),
            ..service.clone()
        };
        let change = &Change { services: change.services.iter().map(own).collect(), ..change.clone() };
        let endpoints = |share: &Option<Arc<ServicePlan>>| share.as_ref().map_or(0, |share| self.endpoints_of(share));
        let (gone, come) = change.services.iter().fold((0, 0), |(gone, come), service| {
            (gone + endpoints(&service.before), come + endpoints(&service.after))
        });
        let endpoints = (self.endpoints + come).saturating_sub(gone);
        let rewrites_all = change.settings.as_ref().is_some_and(|settings| {
            settings.before.masquerade_mark != settings.after.masquerade_mark
                || settings.before.family(self.family) != settings.after.family(self.family)
        }) || is_large(self.large, endpoints) != self.large;
        if rewrites_all {
            let before = self.tables();
            self.take(change, endpoints);
            self.dispatch = Dispatch::default();
            self.lists = Lists::default();
            self.index();
            return difference(&before, &self.tables());
        }
        let touched = self.touched(change);
        let before = self.part(&touched, change, |service| service.before.as_ref());
        self.take(change, endpoints);
        for service in &change.services {
            for share in service.before.iter() {
                self.index_service(share, false);
            }
            for share in service.after.iter() {
                self.index_service(share, true);
            }
        }
        difference(&before, &self.part(&touched, change, |service| service.after.as_ref()))
    }

    /// All chains, whole.
    pub fn tables(&self) -> Tables {
        let mut tables = self.fixed();
        self.lists_into(&mut tables);
        let nat = tables.entry(Table::Nat).or_default();
        nat.insert("KUBE-SERVICES".into(), self.services_chain());
        if self.is_tree() {
            nat.extend(self.dispatch.tree());
        }
        // All at once: a map is made faster from many than it takes one after the other.
        let own = self.all_service_chains();
        *nat = std::mem::take(nat).into_iter().chain(own).collect();
        tables
    }

    /// The chains of all Services, rendered on all processors where there are many.
    fn all_service_chains(&self) -> Vec<(String, Vec<String>)> {
        let shares: Vec<&ServicePlan> = self.services.values().map(|share| &**share).collect();
        let render = |shares: &[&ServicePlan]| -> Vec<_> {
            shares.iter().flat_map(|share| self.service_chains(share)).collect()
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let part = shares.len().div_ceil(workers).max(PART);
        let (first, rest) = shares.split_at(part.min(shares.len()));
        std::thread::scope(|scope| {
            let others: Vec<_> = rest.chunks(part).map(|part| scope.spawn(move || render(part))).collect();
            let mut all = render(first);
            for other in others {
                all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            all
        })
    }

    /// Whether NodePorts are to answer at 127.0.0.0/8, which the kernel has to be told (contract NP-2, NP-3).
    pub fn needs_route_localnet(&self) -> bool {
        render::answers_at_localhost(self.settings.family(self.family), self.family, &self.options)
    }

    /// The Service that a chain, or a rule in an index chain, belongs to. Looks at all Services: for failures only.
    pub fn owner(&self, chain: &str, rule: &str) -> Option<&ServiceName> {
        let target = rule.rsplit_once(" -j ").map_or("", |(_, target)| target);
        self.services.iter().find_map(|(name, share)| {
            let chains: Chains = self.service_chains(share).into_iter().collect();
            let said = rule.contains(&format!("\"{name}:")) || rule.contains(&format!("\"{name} "));
            (chains.contains_key(chain) || chains.contains_key(target) || said).then_some(name)
        })
    }

    /// The Service of every chain that belongs to one.
    pub fn owners(&self) -> HashMap<String, ServiceName> {
        let mut owners = HashMap::new();
        for (name, share) in &self.services {
            owners.extend(self.service_chains(share).into_iter().map(|(chain, _)| (chain, name.clone())));
        }
        owners
    }

    /// A Service's share as last taken over.
    pub fn share(&self, name: &ServiceName) -> Option<&Arc<ServicePlan>> {
        self.services.get(name)
    }

    /// Takes one Service back to what it was, or out.
    pub fn put_back(&mut self, name: &ServiceName, share: Option<Arc<ServicePlan>>) {
        let service = ServiceChange { name: name.clone(), before: self.services.get(name).cloned(), after: share };
        self.apply(&Change { services: vec![service], ..Change::default() });
    }

    fn endpoints_of(&self, share: &ServicePlan) -> usize {
        self.ports(share).map(|port| port.cluster.len().max(port.local.len())).sum()
    }

    fn ports<'a>(&self, share: &'a ServicePlan) -> impl Iterator<Item = &'a PortPlan> {
        let family = self.family;
        share.ports.iter().filter(move |port| port.family == family)
    }

    fn options(&self) -> Options {
        Options { comments: self.options.comments && !self.large, ..self.options.clone() }
    }

    fn is_tree(&self) -> bool {
        self.tree_above.is_some_and(|above| self.dispatch.len() > above)
    }

    fn take(&mut self, change: &Change, endpoints: usize) {
        if let Some(settings) = &change.settings {
            self.settings = settings.after.clone();
        }
        for service in &change.services {
            match &service.after {
                Some(share) => self.services.insert(service.name.clone(), share.clone()),
                None => self.services.remove(&service.name),
            };
        }
        self.endpoints = endpoints;
        self.large = is_large(self.large, endpoints);
    }

    fn index(&mut self) {
        let shares: Vec<_> = self.services.values().cloned().collect();
        for share in shares {
            self.index_service(&share, true);
        }
    }

    /// Puts a Service's rules into the index chains, or takes them out.
    fn index_service(&mut self, share: &ServicePlan, put: bool) {
        let options = self.options();
        for port in share.ports.iter().filter(|port| port.family == self.family) {
            let rules = render::index(port, &self.settings, &options);
            for (place, (address, rule)) in rules.services.into_iter().enumerate() {
                self.dispatch.set(address, (port.name.clone(), place), put.then_some(rule));
            }
            let list = |list: &mut BTreeMap<Key, Rule>, rules: Vec<Rule>| {
                for (place, rule) in rules.into_iter().enumerate() {
                    let key = (port.name.clone(), place);
                    if put {
                        list.insert(key, rule)
                    } else {
                        list.remove(&key)
                    };
                }
            };
            list(&mut self.lists.node_ports, rules.node_ports);
            list(&mut self.lists.filter_services, rules.filter_services);
            list(&mut self.lists.filter_external, rules.filter_external);
            list(&mut self.lists.filter_firewall, rules.filter_firewall);
        }
        if let Some(check) = share.health_check {
            let comment =
                if options.comments { format!("{} health check node port", share.name) } else { String::new() };
            let rule =
                Rule::new().protocol(Protocol::Tcp).destination_port(check.port).comment(&comment).jump("ACCEPT");
            if put {
                self.lists.health_checks.insert(share.name.clone(), rule);
            } else {
                self.lists.health_checks.remove(&share.name);
            }
        }
    }

    /// The addresses at which a Change touches KUBE-SERVICES, and whether it touches any index chain at all.
    fn touched(&self, change: &Change) -> Touched {
        let options = self.options();
        let mut touched = Touched::default();
        let render = |share: &Option<Arc<ServicePlan>>| -> (Vec<IndexRules>, Option<u16>) {
            let Some(share) = share else { return (Vec::new(), None) };
            let rules = self.ports(share).map(|port| render::index(port, &self.settings, &options)).collect();
            (rules, share.health_check.map(|check| check.port))
        };
        for service in &change.services {
            let (before, after) = (render(&service.before), render(&service.after));
            if before == after {
                continue;
            }
            touched.index = true;
            for (address, _) in before.0.iter().chain(&after.0).flat_map(|rules| &rules.services) {
                touched.addresses.push(*address);
            }
        }
        let rules = touched.addresses.len();
        touched.near_threshold = self.tree_above.is_some_and(|above| self.dispatch.len().abs_diff(above) <= rules);
        touched.addresses.sort_unstable();
        touched.addresses.dedup();
        touched
    }

    /// The chains that a Change can touch, as they are now.
    fn part<'a>(
        &self,
        touched: &Touched,
        change: &'a Change,
        side: impl Fn(&'a ServiceChange) -> Option<&'a Arc<ServicePlan>>,
    ) -> Tables {
        let mut tables = Tables::new();
        if touched.index {
            self.lists_into(&mut tables);
        }
        let nat = tables.entry(Table::Nat).or_default();
        if !touched.addresses.is_empty() {
            nat.insert("KUBE-SERVICES".into(), self.services_chain());
            if self.is_tree() && touched.near_threshold {
                nat.extend(self.dispatch.tree());
            } else if self.is_tree() {
                touched.addresses.iter().for_each(|address| nat.extend(self.dispatch.around(*address)));
            }
        }
        for share in change.services.iter().filter_map(side) {
            nat.extend(self.service_chains(share));
        }
        tables
    }

    fn service_chains(&self, share: &ServicePlan) -> Vec<(String, Vec<String>)> {
        let options = self.options();
        let chains = self.ports(share).flat_map(|port| render::chains(port, &self.settings, &options));
        chains.map(|chain| (chain.name, chain.rules)).collect()
    }

    /// KUBE-SERVICES of the nat table: the list or the way into the tree, then NodePorts, which must be last (NP-4).
    fn services_chain(&self) -> Vec<String> {
        const NAME: &str = "KUBE-SERVICES";
        let mut rules =
            if self.is_tree() { self.dispatch.root(NAME).into_iter().collect() } else { self.dispatch.list(NAME) };
        let comment = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
        let node_ports = Rule::new().comment(comment).jump("KUBE-NODEPORTS");
        match &self.settings.family(self.family).node_port_addresses {
            NodePortAddresses::AllLocal => {
                let local = node_ports.matching("-m addrtype --dst-type LOCAL");
                rules.push(match self.family {
                    Family::V4 if self.options.localhost_node_ports => local.line(NAME),
                    Family::V4 => local.destination_range(true, "127.0.0.0/8").line(NAME),
                    Family::V6 => local.destination_range(true, "::1/128").line(NAME),
                });
            }
            NodePortAddresses::Listed(addresses) => {
                let settings = self.settings.family(self.family);
                let localhost = render::answers_at_localhost(settings, self.family, &self.options);
                let served =
                    |address: &&IpAddr| Family::of(**address) == self.family && (localhost || !address.is_loopback());
                let mine = addresses.iter().filter(served);
                rules.extend(mine.map(|address| node_ports.clone().destination(*address).line(NAME)));
            }
        }
        rules
    }

    fn lists_into(&self, tables: &mut Tables) {
        let lines = |rules: &BTreeMap<Key, Rule>, chain: &str| rules.values().map(|rule| rule.line(chain)).collect();
        let filter = tables.entry(Table::Filter).or_default();
        for (chain, rules) in [
            ("KUBE-SERVICES", &self.lists.filter_services),
            ("KUBE-EXTERNAL-SERVICES", &self.lists.filter_external),
            ("KUBE-PROXY-FIREWALL", &self.lists.filter_firewall),
        ] {
            filter.insert(chain.into(), lines(rules, chain));
        }
        let checks = self.lists.health_checks.values().map(|rule| rule.line("KUBE-NODEPORTS")).collect();
        filter.insert("KUBE-NODEPORTS".into(), checks);
        let nat = tables.entry(Table::Nat).or_default();
        nat.insert("KUBE-NODEPORTS".into(), lines(&self.lists.node_ports, "KUBE-NODEPORTS"));
    }

    /// Chains that no Service changes.
    fn fixed(&self) -> Tables {
        let mut tables = Tables::new();
        for table in Table::ALL {
            tables.entry(table).or_default().insert(CANARY.into(), Vec::new());
        }
        let nat = tables.entry(Table::Nat).or_default();
        for chain in render::masquerade_chains(self.family, &self.settings, &self.options) {
            nat.insert(chain.name, chain.rules);
        }
        let filter = tables.entry(Table::Filter).or_default();
        filter.insert("KUBE-FORWARD".into(), self.forward_chain());
        let mut firewall = Vec::new();
        if self.family == Family::V4 && self.options.localhost_node_ports {
            // Localhost NodePorts need route_localnet, which would let the network reach 127.0.0.0/8 (contract IPT-16).
            firewall.push(
                Rule::new()
                    .source_not("127.0.0.0/8")
                    .destination_range(false, "127.0.0.0/8")
                    .comment("block incoming localnet connections")
                    .matching("-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT")
                    .jump("DROP")
                    .line("KUBE-FIREWALL"),
            );
        }
        filter.insert("KUBE-FIREWALL".into(), firewall);
        tables
    }

    /// Contract IPT-6.
    fn forward_chain(&self) -> Vec<String> {
        const NAME: &str = "KUBE-FORWARD";
        let mark = self.settings.masquerade_mark;
        let mut rules = Vec::new();
        if !self.options.conntrack_liberal {
            let mut invalid = Rule::new().matching("-m conntrack --ctstate INVALID");
            if self.options.accounting {
                invalid = invalid.matching(format!("-m nfacct --nfacct-name {INVALID_DROPPED}"));
            }
            rules.push(invalid.jump("DROP").line(NAME));
        }
        rules.push(
            Rule::new()
                .comment("kubernetes forwarding rules")
                .matching(format!("-m mark --mark {mark:#x}/{mark:#x}"))
                .jump("ACCEPT")
                .line(NAME),
        );
        rules.push(
            Rule::new()
                .comment("kubernetes forwarding conntrack rule")
                .matching("-m conntrack --ctstate RELATED,ESTABLISHED")
                .jump("ACCEPT")
                .line(NAME),
        );
        rules
    }
}

fn is_large(was: bool, endpoints: usize) -> bool {
    endpoints > if was { SMALL_AGAIN } else { LARGE_CLUSTER }
}

/// What a Change touches besides the Services' own chains.
#[derive(Debug, Default)]
struct Touched {
    /// Whether any index chain can change.
    index: bool,
    /// The addresses whose rules in KUBE-SERVICES come, go or change.
    addresses: Vec<IpAddr>,
    /// Whether the list may become a tree or the tree a list. The tree is small then, and compared whole.
    near_threshold: bool,
}

/// The chains that differ, and those that are gone.
pub fn difference(before: &Tables, after: &Tables) -> Delta {
    let mut delta = Delta::new();
    for table in Table::ALL {
        let (none_before, none_after) = (Chains::new(), Chains::new());
        let before = before.get(&table).unwrap_or(&none_before);
        let after = after.get(&table).unwrap_or(&none_after);
        let mut chains = BTreeMap::new();
        for (name, rules) in after {
            if before.get(name) != Some(rules) {
                let change = ChainChange { before: before.get(name).cloned(), after: Some(rules.clone()) };
                chains.insert(name.clone(), change);
            }
        }
        for (name, rules) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
            chains.insert(name.clone(), ChainChange { before: Some(rules.clone()), after: None });
        }
        if !chains.is_empty() {
            delta.insert(table, chains);
        }
    }
    delta
}
