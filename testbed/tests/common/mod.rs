//! What the tests of this folder share.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of this")]

use std::time::{Duration, Instant};

use portway_testbed::cluster::Cluster;

/// Whether this machine does not allow clusters. Prints the reason then, and `cargo xtask test` counts the test as skipped.
pub(crate) fn cannot_run() -> bool {
    match portway_testbed::missing() {
        Some(missing) => println!("skipped: needs {missing}"),
        None => return false,
    }
    true
}

/// A cluster, or `None` where this machine does not allow one.
pub(crate) fn cluster() -> Option<Cluster> {
    (!cannot_run()).then(|| Cluster::new().expect("a cluster comes up"))
}

/// Makes iptables mode on node-1 choose the tools of this flavour, `legacy` or `nft`, by the chain with which kubelet names
/// its own.
pub(crate) fn prefer_iptables(cluster: &Cluster, flavour: &str) {
    for tool in ["iptables", "ip6tables"] {
        let arguments = ["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"];
        cluster.node().output(&format!("{tool}-{flavour}"), &arguments, "").expect("a chain");
    }
}

/// Whether `condition` becomes true in time; tried every 5 ms.
pub(crate) fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
