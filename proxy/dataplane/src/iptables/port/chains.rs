//! The chains of one Service port: KUBE-SVC, KUBE-SVL, KUBE-EXT, KUBE-FW and one KUBE-SEP for each endpoint.

use portway_model::{Backend, Frontend, FrontendKind, LocalDetector, Origin, Route, Verdict};

use super::Renderer;
use crate::iptables::names::{MARK_UNLESS_POD, endpoint_chain, socket_address};
use crate::iptables::rule::{self, Rule};
use crate::iptables::tables::Chain;

/// An endpoint and the name of its chain.
type Endpoint<'a> = (&'a Backend, String);

impl<'a> Renderer<'a> {
    pub(super) fn chains(&self) -> Vec<Chain> {
        let uses = |verdict| {
            let routes = |frontend: &Frontend| Origin::ALL.iter().any(|o| frontend.route(*o).verdict == verdict);
            self.plan.frontends.iter().any(routes)
        };
        let endpoints = self.endpoints();
        let mut chains = Vec::with_capacity(endpoints.len() + 3);
        if uses(Verdict::Cluster) {
            let backends = &self.plan.cluster;
            chains.push(self.class_chain(&self.chains.cluster, backends, Verdict::Cluster, &endpoints));
        }
        if uses(Verdict::Local) {
            chains.push(self.class_chain(&self.chains.local, &self.plan.local, Verdict::Local, &endpoints));
        }
        chains.extend(self.external_chain());
        chains.extend(self.firewall_chain());
        chains.extend(endpoints.into_iter().map(|endpoint| self.endpoint(endpoint)));
        chains
    }

    /// The endpoints that any chain of this port can reach, sorted: the union of the classes in use (contract TOPO-9).
    fn endpoints(&self) -> Vec<Endpoint<'a>> {
        let mut all: Vec<&Backend> = self.plan.cluster.iter().chain(self.plan.local.iter()).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(|backend| (backend, endpoint_chain(&self.plan.name, backend))).collect()
    }

    /// Renders KUBE-SVC or KUBE-SVL: masquerade of cluster IP traffic, then affinity, then a random pick (contract IPT-4).
    fn class_chain(&self, name: &str, backends: &[Backend], class: Verdict, endpoints: &[Endpoint<'_>]) -> Chain {
        let mut rules = Vec::with_capacity(backends.len() + 1);
        let chain_of = |backend: &Backend| {
            let known = endpoints.binary_search_by_key(&backend, |(known, _)| known);
            known.map_or_else(|_| endpoint_chain(&self.plan.name, backend), |at| endpoints[at].1.clone())
        };
        for frontend in self.plan.frontends.iter().filter(|f| f.kind == FrontendKind::ClusterIp) {
            if frontend.route(Origin::Outside).verdict == class {
                self.cluster_ip_masquerade(name, frontend, &mut rules);
            }
        }
        let port = &self.plan.name;
        if let Some(affinity) = self.plan.affinity {
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
        (name.to_owned(), rules)
    }

    /// Marks cluster IP traffic for masquerade: all of it, or all but that from pods (contract MASQ-2).
    fn cluster_ip_masquerade(&self, chain: &str, frontend: &Frontend, rules: &mut Vec<String>) {
        let (Some(address), protocol) = (frontend.address, self.plan.protocol()) else { return };
        let comment = self.comment(format!("{} cluster IP", self.plan.name));
        let matching =
            || Rule::new().destination(address).protocol(protocol).destination_port(frontend.port).comment(&comment);
        let marks = |origin: Origin| frontend.route(origin).masquerade;
        match (&self.settings.local_detector, marks(Origin::Pod), marks(Origin::Outside)) {
            (_, true, true) | (None, _, true) => rules.push(matching().jump("KUBE-MARK-MASQ").line(chain)),
            // One rule cannot match "from none of these ranges", so a shared chain does.
            (Some(LocalDetector::Cidrs(ranges)), false, true) if ranges.len() > 1 => {
                rules.push(matching().jump(MARK_UNLESS_POD).line(chain));
            }
            (Some(detector), false, true) => {
                rules.push(matching().source_pods(detector, 0, true).jump("KUBE-MARK-MASQ").line(chain));
            }
            (_, _, false) => {}
        }
    }

    /// Renders KUBE-EXT, which sends traffic to an external address to a class by its origin.
    fn external_chain(&self) -> Option<Chain> {
        let frontend = self.plan.frontends.iter().find(|f| f.kind != FrontendKind::ClusterIp)?;
        if frontend.route(Origin::Outside).verdict == Verdict::Reject {
            return None;
        }
        let name = &self.chains.external;
        let port = &self.plan.name;
        let mut rules = Vec::new();
        let outside = frontend.route(Origin::Outside);
        let pod = frontend.route(Origin::Pod);
        let node = frontend.route(Origin::Node);
        if let (Some(detector), true) = (&self.settings.local_detector, pod != outside) {
            let comment = self.comment(format!("pod traffic for {port} external destinations"));
            let count = if let LocalDetector::Cidrs(ranges) = detector { ranges.len() } else { 1 };
            for range in 0..count {
                self.send(name, pod, &|| Rule::new().comment(&comment).source_pods(detector, range, false), &mut rules);
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
        Some((name.clone(), rules))
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

    /// Renders KUBE-FW, which admits the source ranges of load balancer addresses (contract IPT-5).
    fn firewall_chain(&self) -> Option<Chain> {
        let restricted =
            || self.plan.frontends.iter().filter(|f| Self::is_served(f)).filter_map(|f| f.sources.as_ref());
        restricted().next()?;
        // Ranges that are set but cannot be parsed leave an empty list, which admits nobody.
        let mut sources: Vec<_> = restricted().flat_map(|ranges| ranges.iter().copied()).collect();
        sources.sort_unstable();
        sources.dedup();
        let (name, port) = (&self.chains.firewall, &self.plan.name);
        let comment = self.comment(format!("{port} loadbalancer IP"));
        let mut rules: Vec<String> = sources
            .iter()
            .map(|range| Rule::new().source(range).comment(&comment).jump(self.chains.external.clone()).line(name))
            .collect();
        let comment = self.comment(format!("other traffic to {port} will be dropped by KUBE-PROXY-FIREWALL"));
        if !comment.is_empty() {
            rules.push(Rule::new().comment(&comment).line(name));
        }
        Some((name.clone(), rules))
    }

    /// Renders KUBE-SEP, the chain of one endpoint (contract MASQ-5, AFF-1).
    fn endpoint(&self, (backend, name): Endpoint<'_>) -> Chain {
        let port = &self.plan.name;
        let comment = self.comment(port.to_string());
        let hairpin = Rule::new().source(rule::single(backend.address)).comment(&comment).jump("KUBE-MARK-MASQ");
        let mut dnat = Rule::new()
            .protocol(self.plan.protocol())
            .comment(&comment)
            .jump(format!("DNAT --to-destination {}", socket_address(backend)));
        if self.plan.affinity.is_some() {
            dnat = dnat.matching(format!("-m recent --set --name {name} --mask {} --rsource", self.full_mask()));
        }
        let rules = vec![hairpin.line(&name), dnat.line(&name)];
        (name, rules)
    }
}
