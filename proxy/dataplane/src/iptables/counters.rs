//! The nfacct counters that rules of the iptables dataplane count into and metrics read.

/// Packets that conntrack calls invalid and KUBE-FORWARD drops (contract IPT-6).
pub const INVALID_DROPPED: &str = "ct_state_invalid_dropped_pkts";

/// Packets to NodePorts at 127.0.0.0/8 (contract NP-2).
pub const LOCALHOST_ACCEPTED: &str = "localhost_nps_accepted_pkts";

/// The names of both counters, for cleanup and the metrics page.
pub const COUNTERS: [&str; 2] = [INVALID_DROPPED, LOCALHOST_ACCEPTED];
