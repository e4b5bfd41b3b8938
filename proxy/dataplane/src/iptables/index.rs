//! The chains that all Services share: their rules, and how they are rendered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portway_model::{Family, FamilySettings, NodePortAddresses, ServiceName, ServicePortName};

use super::dispatch::Dispatch;
use super::fixed;
use super::names::EXTERNAL_IPS;
use super::options::Options;
use super::port::IndexRules;
use super::rule::{self, Rule};
use super::tables::{Chains, Table, Tables};

/// The order of a rule in an index chain: the Service port's name, then the rule's position among that port's rules.
type Key = (ServicePortName, usize);

/// The rules of the index chains. KUBE-SERVICES of the nat table can become a tree; the others are lists.
#[derive(Clone, Debug)]
pub(super) struct IndexChains {
    /// Number of rules in KUBE-SERVICES above which they become a tree; `None` for never.
    tree_above: Option<usize>,
    services: Dispatch<Key>,
    node_ports: BTreeMap<Key, Rule>,
    filter_services: BTreeMap<Key, Rule>,
    filter_external: BTreeMap<Key, Rule>,
    filter_firewall: BTreeMap<Key, Rule>,
    /// The Service ports that use each load balancer and external IP whose unknown ports are rejected.
    refused_ips: BTreeMap<IpAddr, BTreeSet<Key>>,
    health_checks: BTreeMap<ServiceName, Rule>,
}

impl IndexChains {
    /// Starts with empty chains.
    pub(super) fn new(tree_above: Option<usize>) -> Self {
        Self {
            tree_above,
            services: Dispatch::default(),
            node_ports: BTreeMap::new(),
            filter_services: BTreeMap::new(),
            filter_external: BTreeMap::new(),
            filter_firewall: BTreeMap::new(),
            refused_ips: BTreeMap::new(),
            health_checks: BTreeMap::new(),
        }
    }

    /// Adds the rules of a Service port, or removes them.
    pub(super) fn set_port(&mut self, port: &ServicePortName, rules: IndexRules, add: bool) {
        for (position, (address, rule)) in rules.services.into_iter().enumerate() {
            self.services.set(address, (port.clone(), position), add.then_some(rule));
        }
        for (position, address) in rules.refused_ips.into_iter().enumerate() {
            let users = self.refused_ips.entry(address).or_default();
            let key = (port.clone(), position);
            if add {
                users.insert(key)
            } else {
                users.remove(&key)
            };
            if users.is_empty() {
                self.refused_ips.remove(&address);
            }
        }
        let set = |list: &mut BTreeMap<Key, Rule>, rules: Vec<Rule>| {
            for (position, rule) in rules.into_iter().enumerate() {
                let key = (port.clone(), position);
                if add {
                    list.insert(key, rule)
                } else {
                    list.remove(&key)
                };
            }
        };
        set(&mut self.node_ports, rules.node_ports);
        set(&mut self.filter_services, rules.filter_services);
        set(&mut self.filter_external, rules.filter_external);
        set(&mut self.filter_firewall, rules.filter_firewall);
    }

    /// Adds the rule that opens a Service's health check port, or removes it.
    pub(super) fn set_health_check(&mut self, service: &ServiceName, rule: Option<Rule>) {
        match rule {
            Some(rule) => self.health_checks.insert(service.clone(), rule),
            None => self.health_checks.remove(service),
        };
    }

    /// Whether the rules of KUBE-SERVICES are a tree.
    pub(super) fn is_tree(&self) -> bool {
        self.tree_above.is_some_and(|above| self.services.len() > above)
    }

    /// Whether adding or removing this many rules can turn the list into a tree or back.
    pub(super) fn is_near_threshold(&self, rules: usize) -> bool {
        self.tree_above.is_some_and(|above| self.services.len().abs_diff(above) <= rules)
    }

    /// Renders all chains of the tree below KUBE-SERVICES.
    pub(super) fn tree(&self) -> Chains {
        self.services.tree()
    }

    /// Renders the part of the tree that adding or removing a rule for `address` can change.
    pub(super) fn tree_around(&self, address: IpAddr) -> Chains {
        self.services.around(address)
    }

    /// Renders KUBE-SERVICES of the nat table: the list or the jump into the tree, then NodePorts, which must be last
    /// (contract NP-4).
    pub(super) fn services_chain(&self, family: Family, settings: &FamilySettings, options: &Options) -> Vec<String> {
        const NAME: &str = "KUBE-SERVICES";
        let mut rules =
            if self.is_tree() { self.services.root(NAME).into_iter().collect() } else { self.services.list(NAME) };
        let comment = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
        let node_ports = Rule::new().comment(comment).jump("KUBE-NODEPORTS");
        match &settings.node_port_addresses {
            NodePortAddresses::AllLocal => {
                let local = node_ports.matching("-m addrtype --dst-type LOCAL");
                rules.push(match family {
                    Family::V4 if options.localhost_node_ports => local.line(NAME),
                    Family::V4 => local.destination_range(true, "127.0.0.0/8").line(NAME),
                    Family::V6 => local.destination_range(true, "::1/128").line(NAME),
                });
            }
            NodePortAddresses::Listed(addresses) => {
                let localhost = options.answers_at_localhost(settings, family);
                let served =
                    |address: &&IpAddr| Family::of(**address) == family && (localhost || !address.is_loopback());
                let own = addresses.iter().filter(served);
                rules.extend(own.map(|address| node_ports.clone().destination(*address).line(NAME)));
            }
        }
        rules
    }

    /// Renders the index chains that are lists.
    pub(super) fn render_lists(&self, options: &Options, tables: &mut Tables) {
        let lines = |rules: &BTreeMap<Key, Rule>, chain: &str| rules.values().map(|rule| rule.line(chain)).collect();
        let filter = tables.entry(Table::Filter).or_default();
        for (chain, rules) in [
            ("KUBE-SERVICES", &self.filter_services),
            ("KUBE-EXTERNAL-SERVICES", &self.filter_external),
            ("KUBE-PROXY-FIREWALL", &self.filter_firewall),
        ] {
            filter.insert(chain.into(), lines(rules, chain));
        }
        self.render_refused_ips(filter);
        let checks = self.health_checks.values().map(|rule| rule.line("KUBE-NODEPORTS"));
        let checks = fixed::invalid_segments(options).into_iter().chain(checks).collect();
        filter.insert("KUBE-NODEPORTS".into(), checks);
        let nat = tables.entry(Table::Nat).or_default();
        nat.insert("KUBE-NODEPORTS".into(), lines(&self.node_ports, "KUBE-NODEPORTS"));
    }

    /// Renders KUBE-EXTERNAL-IPS, and the jump to it: after the ports that are served, for what is neither translated nor
    /// for the node itself, so that its own addresses and listeners are not touched (contract OWN-8, OWN-9).
    fn render_refused_ips(&self, filter: &mut Chains) {
        let Some(family) = self.refused_ips.keys().next().map(|address| Family::of(*address)) else { return };
        let jump = Rule::new().comment("unknown ports of load balancer and external IPs").jump(EXTERNAL_IPS);
        let jump = jump.matching("-m addrtype ! --dst-type LOCAL").matching("-m conntrack ! --ctstate DNAT");
        let external = "KUBE-EXTERNAL-SERVICES";
        filter.entry(external.into()).or_default().push(jump.line(external));
        let reject = |address: &IpAddr| Rule::new().destination(*address).jump(rule::reject(family)).line(EXTERNAL_IPS);
        filter.insert(EXTERNAL_IPS.into(), self.refused_ips.keys().map(reject).collect());
    }
}
