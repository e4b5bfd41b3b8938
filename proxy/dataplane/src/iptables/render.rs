//! Renders one Service port as chains and as its rules in the shared index chains. Pure.
//!
//! What is familiar from kube-proxy stays: names, order and comments of rules. Policy is in the share; this only writes
//! it down.

use std::net::IpAddr;

use portway_model::{
    Backend, Family, FamilySettings, Frontend, FrontendKind, LocalDetector, NodePortAddresses, NodeSettings, Origin,
    PortPlan, Route, Verdict,
};

use super::names::{PortChains, endpoint_chain, socket_address};
use super::rule::{self, Rule};
use portway_kernel::nfacct::LOCALHOST_ACCEPTED;

/// What the command line or the node decides for this dataplane alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether NodePorts answer at 127.0.0.0/8 (contract NP-2).
    pub localhost_node_ports: bool,
    /// Whether the kernel has nfacct objects to count by.
    pub accounting: bool,
    /// Whether packets that conntrack calls invalid pass (contract IPT-6).
    pub conntrack_liberal: bool,
    /// Whether MASQUERADE can choose ports at random.
    pub random_fully: bool,
    /// Whether rules carry comments; large clusters leave them out (contract IPT-11).
    pub comments: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            localhost_node_ports: true,
            accounting: false,
            conntrack_liberal: false,
            random_fully: true,
            comments: true,
        }
    }
}

/// A chain of the nat table that belongs to one Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules, in order, as `iptables-save` prints them.
    pub rules: Vec<String>,
}

/// What one Service port puts into the index chains of the two tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexRules {
    /// Rules for KUBE-SERVICES of the nat table, each with the address it looks for.
    pub services: Vec<(IpAddr, Rule)>,
    /// Rules for KUBE-NODEPORTS of the nat table.
    pub node_ports: Vec<Rule>,
    /// Rules for KUBE-SERVICES of the filter table.
    pub filter_services: Vec<Rule>,
    /// Rules for KUBE-EXTERNAL-SERVICES of the filter table.
    pub filter_external: Vec<Rule>,
    /// Rules for KUBE-PROXY-FIREWALL of the filter table.
    pub filter_firewall: Vec<Rule>,
}

/// The rules of one Service port that lead to its chains, or refuse.
pub fn index(share: &PortPlan, settings: &NodeSettings, options: &Options) -> IndexRules {
    let renderer = Renderer::new(share, settings, options);
    let mut rules = IndexRules::default();
    for frontend in &share.frontends {
        renderer.frontend(frontend, &mut rules);
    }
    rules
}

/// The chains of the nat table that are one Service port's own.
pub fn chains(share: &PortPlan, settings: &NodeSettings, options: &Options) -> Vec<Chain> {
    Renderer::new(share, settings, options).chains()
}

/// Whether NodePorts answer at 127.0.0.0/8: for IPv4 alone, where that is asked for and the chosen addresses contain
/// loopback's (contract NP-2, NP-3).
pub fn answers_at_localhost(settings: &FamilySettings, family: Family, options: &Options) -> bool {
    let chosen = match &settings.node_port_addresses {
        NodePortAddresses::AllLocal => true,
        NodePortAddresses::Listed(addresses) => addresses.iter().any(IpAddr::is_loopback),
    };
    family == Family::V4 && options.localhost_node_ports && chosen
}

/// Marks for masquerade what comes from none of several pod ranges. Only there where a detector has several.
pub const MARK_UNLESS_POD: &str = "KUBE-MARK-UNLESS-POD";

/// The rules that every packet with the masquerade mark meets, and the chains that set the mark.
pub fn masquerade_chains(family: Family, settings: &NodeSettings, options: &Options) -> Vec<Chain> {
    let mark = settings.masquerade_mark;
    let comment = |text: &'static str| if options.comments { text } else { "" };
    let masquerade = if options.random_fully { "MASQUERADE --random-fully" } else { "MASQUERADE" };
    let chain = |name: &str, rules: &[Rule]| Chain {
        name: name.to_owned(),
        rules: rules.iter().map(|rule| rule.line(name)).collect(),
    };
    let mut chains = vec![
        chain("KUBE-MARK-MASQ", &[Rule::new().jump(format!("MARK --set-xmark {mark:#x}/{mark:#x}"))]),
        chain(
            "KUBE-POSTROUTING",
            &[
                Rule::new().matching(format!("-m mark ! --mark {mark:#x}/{mark:#x}")).jump("RETURN"),
                Rule::new().jump(format!("MARK --set-xmark {mark:#x}/0x0")),
                Rule::new().comment(comment("kubernetes service traffic requiring SNAT")).jump(masquerade),
            ],
        ),
    ];
    if let Some(LocalDetector::Cidrs(ranges)) = &settings.family(family).local_detector
        && ranges.len() > 1
    {
        let mut rules: Vec<Rule> = ranges.iter().map(|range| Rule::new().source(range).jump("RETURN")).collect();
        rules.push(Rule::new().jump("KUBE-MARK-MASQ"));
        chains.push(chain(MARK_UNLESS_POD, &rules));
    }
    chains
}

struct Renderer<'a> {
    share: &'a PortPlan,
    settings: &'a FamilySettings,
    options: &'a Options,
    chains: PortChains,
}

/// An endpoint and its chain's name.
type Endpoint<'a> = (&'a Backend, String);

impl<'a> Renderer<'a> {
    fn new(share: &'a PortPlan, settings: &'a NodeSettings, options: &'a Options) -> Self {
        Self { share, settings: settings.family(share.family), options, chains: PortChains::new(&share.name) }
    }

    fn chains(&self) -> Vec<Chain> {
        let uses = |verdict| {
            let routes = |frontend: &Frontend| Origin::ALL.iter().any(|o| frontend.route(*o).verdict == verdict);
            self.share.frontends.iter().any(routes)
        };
        let endpoints = self.endpoints();
        let mut chains = Vec::with_capacity(endpoints.len() + 3);
        if uses(Verdict::Cluster) {
            let backends = &self.share.cluster;
            chains.push(self.class_chain(&self.chains.cluster, backends, Verdict::Cluster, &endpoints));
        }
        if uses(Verdict::Local) {
            chains.push(self.class_chain(&self.chains.local, &self.share.local, Verdict::Local, &endpoints));
        }
        chains.extend(self.external_chain());
        chains.extend(self.firewall_chain());
        chains.extend(endpoints.into_iter().map(|endpoint| self.endpoint(endpoint)));
        chains
    }

    /// Everything reachable through a chain of this port, sorted: the union of the classes in use (contract TOPO-9).
    fn endpoints(&self) -> Vec<Endpoint<'a>> {
        let mut all: Vec<&Backend> = self.share.cluster.iter().chain(self.share.local.iter()).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(|backend| (backend, endpoint_chain(&self.share.name, backend))).collect()
    }

    fn comment(&self, text: String) -> String {
        if self.options.comments { text } else { String::new() }
    }

    /// KUBE-SVC or KUBE-SVL: masquerade of cluster IP traffic, then affinity, then chance (contract IPT-4).
    fn class_chain(&self, name: &str, backends: &[Backend], class: Verdict, endpoints: &[Endpoint<'_>]) -> Chain {
        let mut rules = Vec::with_capacity(backends.len() + 1);
        let chain_of = |backend: &Backend| {
            let known = endpoints.binary_search_by_key(&backend, |(known, _)| known);
            known.map_or_else(|_| endpoint_chain(&self.share.name, backend), |at| endpoints[at].1.clone())
        };
        for frontend in self.share.frontends.iter().filter(|f| f.kind == FrontendKind::ClusterIp) {
            if frontend.route(Origin::Outside).verdict == class {
                self.cluster_ip_masquerade(name, frontend, &mut rules);
            }
        }
        let port = &self.share.name;
        if let Some(affinity) = self.share.affinity {
            for backend in backends {
                let chain = chain_of(backend);
                let recent = format!(
                    "-m recent --rcheck --seconds {} --reap --name {chain} --mask {} --rsource",
                    affinity.timeout_seconds,
                    self.full_mask()
                );
                let comment = self.comment(format!("{port} -> {}", socket_address(backend)));
                rules.push(Rule::new().comment(&comment).matching(recent).jump(chain).line(name));
            }
        }
        for (index, backend) in backends.iter().enumerate() {
            let mut rule = Rule::new().comment(&self.comment(format!("{port} -> {}", socket_address(backend))));
            if let Some(probability) = rule::probability(index, backends.len()) {
                rule = rule.matching(probability);
            }
            rules.push(rule.jump(chain_of(backend)).line(name));
        }
        Chain { name: name.to_owned(), rules }
    }

    /// Marks cluster IP traffic for masquerade: all of it, or what does not come from pods (contract MASQ-2).
    fn cluster_ip_masquerade(&self, chain: &str, frontend: &Frontend, rules: &mut Vec<String>) {
        let (Some(address), protocol) = (frontend.address, self.share.protocol()) else { return };
        let comment = self.comment(format!("{} cluster IP", self.share.name));
        let matching =
            || Rule::new().destination(address).protocol(protocol).destination_port(frontend.port).comment(&comment);
        let marks = |origin: Origin| frontend.route(origin).masquerade;
        match (&self.settings.local_detector, marks(Origin::Pod), marks(Origin::Outside)) {
            (_, true, true) | (None, _, true) => rules.push(matching().jump("KUBE-MARK-MASQ").line(chain)),
            // One rule cannot say "from none of these ranges": a shared chain does.
            (Some(LocalDetector::Cidrs(ranges)), false, true) if ranges.len() > 1 => {
                rules.push(matching().jump(MARK_UNLESS_POD).line(chain));
            }
            (Some(detector), false, true) => {
                rules.push(matching().from_pods(detector, 0, true).jump("KUBE-MARK-MASQ").line(chain));
            }
            (_, _, false) => {}
        }
    }

    /// KUBE-EXT: where traffic to an external address goes, by its origin.
    fn external_chain(&self) -> Option<Chain> {
        let frontend = self.share.frontends.iter().find(|f| f.kind != FrontendKind::ClusterIp)?;
        if frontend.route(Origin::Outside).verdict == Verdict::Reject {
            return None;
        }
        let name = &self.chains.external;
        let port = &self.share.name;
        let mut rules = Vec::new();
        let outside = frontend.route(Origin::Outside);
        let pod = frontend.route(Origin::Pod);
        let node = frontend.route(Origin::Node);
        if let (Some(detector), true) = (&self.settings.local_detector, pod != outside) {
            let comment = self.comment(format!("pod traffic for {port} external destinations"));
            let count = if let LocalDetector::Cidrs(ranges) = detector { ranges.len() } else { 1 };
            for range in 0..count {
                self.send(name, pod, &|| Rule::new().comment(&comment).from_pods(detector, range, false), &mut rules);
            }
        }
        if node != outside {
            let local = || Rule::new().matching("-m addrtype --src-type LOCAL");
            if node.masquerade {
                let comment = self.comment(format!("masquerade LOCAL traffic for {port} external destinations"));
                rules.push(local().comment(&comment).jump("KUBE-MARK-MASQ").line(name));
            }
            let comment = self.comment(format!("route LOCAL traffic for {port} external destinations"));
            let silent = Route { masquerade: false, ..node };
            self.send(name, silent, &|| local().comment(&comment), &mut rules);
        }
        if outside.masquerade {
            let comment = self.comment(format!("masquerade traffic for {port} external destinations"));
            rules.push(Rule::new().comment(&comment).jump("KUBE-MARK-MASQ").line(name));
        }
        self.send(name, Route { masquerade: false, ..outside }, &Rule::new, &mut rules);
        Some(Chain { name: name.clone(), rules })
    }

    fn send(&self, chain: &str, route: Route, matching: &dyn Fn() -> Rule, rules: &mut Vec<String>) {
        let target = match route.verdict {
            Verdict::Cluster => &self.chains.cluster,
            Verdict::Local => &self.chains.local,
            Verdict::Reject | Verdict::Drop => return,
        };
        if route.masquerade {
            rules.push(matching().jump("KUBE-MARK-MASQ").line(chain));
        }
        rules.push(matching().jump(target.clone()).line(chain));
    }

    /// KUBE-FW: the source ranges of load balancer addresses (contract IPT-5).
    fn firewall_chain(&self) -> Option<Chain> {
        let restricted = || self.share.frontends.iter().filter(|f| Self::serves(f)).filter_map(|f| f.sources.as_ref());
        restricted().next()?;
        // No range at all, where ranges were asked for and none could be read, lets nobody in.
        let mut sources: Vec<_> = restricted().flat_map(|ranges| ranges.iter().copied()).collect();
        sources.sort_unstable();
        sources.dedup();
        let (name, port) = (&self.chains.firewall, &self.share.name);
        let comment = self.comment(format!("{port} loadbalancer IP"));
        let mut rules: Vec<String> = sources
            .iter()
            .map(|range| Rule::new().source(range).comment(&comment).jump(self.chains.external.clone()).line(name))
            .collect();
        let comment = self.comment(format!("other traffic to {port} will be dropped by KUBE-PROXY-FIREWALL"));
        if !comment.is_empty() {
            rules.push(Rule::new().comment(&comment).line(name));
        }
        Some(Chain { name: name.clone(), rules })
    }

    /// KUBE-SEP: one endpoint (contract MASQ-5, AFF-1).
    fn endpoint(&self, (backend, name): Endpoint<'_>) -> Chain {
        let port = &self.share.name;
        let comment = self.comment(port.to_string());
        let hairpin = Rule::new().source(rule::single(backend.address)).comment(&comment).jump("KUBE-MARK-MASQ");
        let mut dnat = Rule::new()
            .protocol(self.share.protocol())
            .comment(&comment)
            .jump(format!("DNAT --to-destination {}", socket_address(backend)));
        if self.share.affinity.is_some() {
            dnat = dnat.matching(format!("-m recent --set --name {name} --mask {} --rsource", self.full_mask()));
        }
        let rules = vec![hairpin.line(&name), dnat.line(&name)];
        Chain { name, rules }
    }

    fn full_mask(&self) -> &'static str {
        match self.share.family {
            Family::V4 => "255.255.255.255",
            Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        }
    }

    /// Whether anybody is served at this frontend.
    fn serves(frontend: &Frontend) -> bool {
        Origin::ALL.iter().any(|origin| matches!(frontend.route(*origin).verdict, Verdict::Cluster | Verdict::Local))
    }

    /// The rules of one frontend in the index chains.
    fn frontend(&self, frontend: &Frontend, rules: &mut IndexRules) {
        let port = &self.share.name;
        let outside = frontend.route(Origin::Outside);
        let what = match frontend.kind {
            FrontendKind::ClusterIp => "cluster IP",
            FrontendKind::LoadBalancerIp => "loadbalancer IP",
            FrontendKind::ExternalIp => "external IP",
            FrontendKind::NodePort => "",
        };
        let at = |comment: String| {
            let rule = Rule::new()
                .protocol(self.share.protocol())
                .destination_port(frontend.port)
                .comment(&self.comment(comment));
            match frontend.address {
                Some(address) => rule.destination(address),
                None => rule,
            }
        };
        if Self::serves(frontend) {
            let target = match (frontend.kind, outside.verdict, &frontend.sources) {
                (FrontendKind::ClusterIp, Verdict::Local, _) => &self.chains.local,
                (FrontendKind::ClusterIp, ..) => &self.chains.cluster,
                (_, _, Some(_)) => &self.chains.firewall,
                (_, _, None) => &self.chains.external,
            };
            match frontend.address {
                Some(address) => {
                    rules.services.push((address, at(format!("{port} {what}")).jump(target.clone())));
                    if frontend.sources.is_some() {
                        let comment = format!("{port} traffic not accepted by {}", self.chains.firewall);
                        rules.filter_firewall.push(at(comment).jump("DROP"));
                    }
                }
                None => rules.node_ports.extend(self.node_port(frontend, target)),
            }
        }
        let (comment, target) = match outside.verdict {
            Verdict::Reject => (format!("{port} has no endpoints"), rule::reject(self.share.family)),
            Verdict::Drop => (format!("{port} has no local endpoints"), "DROP"),
            Verdict::Cluster | Verdict::Local => return,
        };
        let rule = at(comment).jump(target);
        match frontend.kind {
            FrontendKind::ClusterIp => rules.filter_services.push(rule),
            FrontendKind::NodePort => rules.filter_external.push(rule.matching("-m addrtype --dst-type LOCAL")),
            FrontendKind::LoadBalancerIp | FrontendKind::ExternalIp if outside.verdict == Verdict::Reject => {
                // Who is not let in hears nothing, as if there were endpoints (SVC-6).
                let refusals = match &frontend.sources {
                    None => vec![rule],
                    Some(ranges) => {
                        let others = at(format!("{port} traffic from other sources")).jump("DROP");
                        ranges.iter().map(|range| rule.clone().source(range)).chain([others]).collect()
                    }
                };
                // KUBE-EXTERNAL-SERVICES sees nothing that the node itself sends; this refuses that too (REJ-1).
                rules.filter_services.extend(refusals.iter().cloned());
                rules.filter_external.extend(refusals);
            }
            FrontendKind::LoadBalancerIp | FrontendKind::ExternalIp => rules.filter_external.push(rule),
        }
    }

    /// A NodePort's rules: with counters, traffic to localhost is counted by a rule of its own before the other's.
    fn node_port(&self, frontend: &Frontend, target: &str) -> Vec<Rule> {
        let comment = self.comment(self.share.name.to_string());
        let rule = || {
            Rule::new()
                .protocol(self.share.protocol())
                .destination_port(frontend.port)
                .comment(&comment)
                .jump(target.to_owned())
        };
        let mut rules = Vec::new();
        if self.options.accounting && answers_at_localhost(self.settings, self.share.family, self.options) {
            let counter = format!("-m nfacct --nfacct-name {LOCALHOST_ACCEPTED}");
            rules.push(rule().destination_range(false, "127.0.0.0/8").matching(counter));
        }
        rules.push(rule());
        rules
    }
}
