//! The rules in built-in chains that lead packets to portway's chains.

use super::tables::Table;

/// A rule in a built-in chain that leads to one of portway's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    /// The table of both chains.
    pub(super) table: Table,
    /// The built-in chain that holds the rule.
    pub(super) from: &'static str,
    /// The chain that the rule leads to.
    pub(super) to: &'static str,
    /// Whether only the first packet of a connection takes it.
    pub(super) new_only: bool,
    /// The comment that `iptables-save` shows.
    pub(super) comment: &'static str,
}

/// All jumps (contract IPT-2), in the order in which kube-proxy names them. Each goes to the top of its chain.
pub(super) const JUMPS: [Jump; 12] = {
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
    pub(super) fn line(&self) -> String {
        let state = if self.new_only { "-m conntrack --ctstate NEW " } else { "" };
        format!("-A {} {state}-m comment --comment \"{}\" -j {}", self.from, self.comment, self.to)
    }
}

/// The jumps to KUBE-FIREWALL, which kubelet writes too: without comment, and left at clean-up (contract IPT-15).
pub(super) const SHARED_JUMPS: [(&str, &str); 2] = [("INPUT", "KUBE-FIREWALL"), ("OUTPUT", "KUBE-FIREWALL")];
