//! The rules of one Service port in the chains that all Services share.

use std::net::IpAddr;

use crate::iptables::counters::LOCALHOST_ACCEPTED;
use portway_model::{Frontend, FrontendKind, Origin, Verdict};

use super::Renderer;
use crate::iptables::rule::{self, Rule};

/// What one Service port puts into the index chains of the two tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::iptables) struct IndexRules {
    /// Rules for KUBE-SERVICES of the nat table, each with the address that it matches.
    pub(in crate::iptables) services: Vec<(IpAddr, Rule)>,
    /// Rules for KUBE-NODEPORTS of the nat table.
    pub(in crate::iptables) node_ports: Vec<Rule>,
    /// Rules for KUBE-SERVICES of the filter table.
    pub(in crate::iptables) filter_services: Vec<Rule>,
    /// Rules for KUBE-EXTERNAL-SERVICES of the filter table.
    pub(in crate::iptables) filter_external: Vec<Rule>,
    /// Load balancer and external IPs whose unknown ports are rejected (contract OWN-8).
    pub(in crate::iptables) refused_ips: Vec<IpAddr>,
    /// Rules for KUBE-PROXY-FIREWALL of the filter table.
    pub(in crate::iptables) filter_firewall: Vec<Rule>,
}

impl Renderer<'_> {
    /// Adds the rules of one frontend.
    pub(super) fn index_rules(&self, frontend: &Frontend, rules: &mut IndexRules) {
        let port = &self.plan.name;
        let outside = frontend.route(Origin::Outside);
        let what = match frontend.kind {
            FrontendKind::ClusterIp => "cluster IP",
            FrontendKind::LoadBalancerIp => "loadbalancer IP",
            FrontendKind::ExternalIp => "external IP",
            FrontendKind::NodePort => "",
        };
        if let (true, FrontendKind::LoadBalancerIp | FrontendKind::ExternalIp, Some(address)) =
            (self.plan.refuses_unknown_ports, frontend.kind, frontend.address)
        {
            rules.refused_ips.push(address);
        }
        let at = |comment: String| {
            let rule = Rule::new()
                .protocol(self.plan.protocol())
                .destination_port(frontend.port)
                .comment(&self.comment(comment));
            match frontend.address {
                Some(address) => rule.destination(address),
                None => rule,
            }
        };
        if Self::is_served(frontend) {
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
            Verdict::Reject => (format!("{port} has no endpoints"), rule::reject(self.plan.family)),
            Verdict::Drop => (format!("{port} has no local endpoints"), "DROP"),
            Verdict::Cluster | Verdict::Local => return,
        };
        let rule = at(comment).jump(target);
        match frontend.kind {
            FrontendKind::ClusterIp => rules.filter_services.push(rule),
            FrontendKind::NodePort => rules.filter_external.push(rule.matching("-m addrtype --dst-type LOCAL")),
            FrontendKind::LoadBalancerIp | FrontendKind::ExternalIp if outside.verdict == Verdict::Reject => {
                // Sources outside the ranges are dropped silently, as if there were endpoints (SVC-6).
                let refusals = match &frontend.sources {
                    None => vec![rule],
                    Some(ranges) => {
                        let others = at(format!("{port} traffic from other sources")).jump("DROP");
                        ranges.iter().map(|range| rule.clone().source(range)).chain([others]).collect()
                    }
                };
                // Traffic from the node itself does not pass KUBE-EXTERNAL-SERVICES, so KUBE-SERVICES rejects it too (REJ-1).
                rules.filter_services.extend(refusals.iter().cloned());
                rules.filter_external.extend(refusals);
            }
            FrontendKind::LoadBalancerIp | FrontendKind::ExternalIp => rules.filter_external.push(rule),
        }
    }

    /// Renders a NodePort's rules. With accounting, a rule of its own counts traffic to localhost before the other rule.
    fn node_port(&self, frontend: &Frontend, target: &str) -> Vec<Rule> {
        let comment = self.comment(self.plan.name.to_string());
        let rule = || {
            Rule::new()
                .protocol(self.plan.protocol())
                .destination_port(frontend.port)
                .comment(&comment)
                .jump(target.to_owned())
        };
        let mut rules = Vec::new();
        if self.options.accounting && self.options.answers_at_localhost(self.settings, self.plan.family) {
            let counter = format!("-m nfacct --nfacct-name {LOCALHOST_ACCEPTED}");
            rules.push(rule().destination_range(false, "127.0.0.0/8").matching(counter));
        }
        rules.push(rule());
        rules
    }
}
