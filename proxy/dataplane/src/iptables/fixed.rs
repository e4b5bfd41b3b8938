//! The chains that do not depend on Services: the canary, masquerade, forwarding, and the protection of loopback. Pure.

use crate::iptables::counters::INVALID_DROPPED;
use portway_model::{Family, LocalDetector, NodeSettings, RouteSource};

use super::names::{CANARY, MARK_UNLESS_POD};
use super::options::Options;
use super::rule::Rule;
use super::tables::{Chain, Table, Tables};

/// Renders every chain that no Service changes.
pub(super) fn fixed_chains(family: Family, settings: &NodeSettings, options: &Options) -> Tables {
    let mut tables = Tables::new();
    for table in Table::ALL {
        tables.entry(table).or_default().insert(CANARY.into(), Vec::new());
    }
    tables.entry(Table::Nat).or_default().extend(masquerade_chains(family, settings, options));
    let filter = tables.entry(Table::Filter).or_default();
    filter.insert("KUBE-FORWARD".into(), forward_chain(settings, options));
    let mut firewall = Vec::new();
    if family == Family::V4 && options.localhost_node_ports {
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

/// The chains that set the masquerade mark, and the rules of KUBE-POSTROUTING that act on it.
fn masquerade_chains(family: Family, settings: &NodeSettings, options: &Options) -> Vec<Chain> {
    let mark = settings.masquerade_mark;
    let comment = |text: &'static str| if options.comments { text } else { "" };
    let random = if options.random_fully { " --random-fully" } else { "" };
    let masquerade = Rule::new().comment(comment("kubernetes service traffic requiring SNAT"));
    let plain = format!("MASQUERADE{random}");
    // The routes' sources, so that what follows is for packets of no such route (contract OWN-11).
    let by_route = |route: &RouteSource| {
        let target = match route.source {
            Some(source) => format!("SNAT --to-source {source}{random}"),
            None => plain.clone(),
        };
        let rule = masquerade.clone().output(&route.interface).jump(target);
        // The tools print no destination that contains every address.
        if route.destination.prefix_len() == 0 {
            rule
        } else {
            rule.destination_range(false, &route.destination.to_string())
        }
    };
    let mut postrouting = vec![
        Rule::new().matching(format!("-m mark ! --mark {mark:#x}/{mark:#x}")).jump("RETURN"),
        Rule::new().jump(format!("MARK --set-xmark {mark:#x}/0x0")),
    ];
    postrouting.extend(settings.family(family).route_sources.iter().map(by_route));
    postrouting.push(masquerade.clone().jump(plain.clone()));
    let chain =
        |name: &str, rules: &[Rule]| -> Chain { (name.to_owned(), rules.iter().map(|rule| rule.line(name)).collect()) };
    let mut chains = vec![
        chain("KUBE-MARK-MASQ", &[Rule::new().jump(format!("MARK --set-xmark {mark:#x}/{mark:#x}"))]),
        chain("KUBE-POSTROUTING", &postrouting),
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

/// The rule at the beginning of KUBE-NODEPORTS of the filter table, to which all packets for the node come: drops segments
/// that conntrack calls invalid, mostly because they are out of their connection's window. NAT leaves them as they are, so
/// the node would answer an endpoint, or a client of a NodePort, with a reset that ends their connection (contract OWN-7).
/// The node sees both directions of its own connections, whatever ways packets take. Segments with SYN pass.
pub(super) fn invalid_segments(options: &Options) -> Option<String> {
    let invalid = Rule::new().matching("-p tcp -m tcp --tcp-flags SYN NONE -m conntrack --ctstate INVALID");
    (!options.conntrack_liberal).then(|| counted(invalid, options).jump("DROP").line("KUBE-NODEPORTS"))
}

/// Lets a rule count dropped packets, where the kernel has counters.
fn counted(rule: Rule, options: &Options) -> Rule {
    if options.accounting { rule.matching(format!("-m nfacct --nfacct-name {INVALID_DROPPED}")) } else { rule }
}

/// KUBE-FORWARD of the filter table (contract IPT-6).
fn forward_chain(settings: &NodeSettings, options: &Options) -> Vec<String> {
    const NAME: &str = "KUBE-FORWARD";
    let mark = settings.masquerade_mark;
    let mut rules = Vec::new();
    if !options.conntrack_liberal {
        let invalid = Rule::new().matching("-m conntrack --ctstate INVALID");
        rules.push(counted(invalid, options).jump("DROP").line(NAME));
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
