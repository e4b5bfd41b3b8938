//! What the tests of this folder share.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of this")]

use std::time::{Duration, Instant};

use portway_testbed::cluster::Cluster;

/// A cluster, or `None` with a loud word where this machine does not allow one.
pub(crate) fn cluster() -> Option<Cluster> {
    if let Some(missing) = portway_testbed::missing() {
        eprintln!("skipped: needs {missing}");
        return None;
    }
    Some(Cluster::new().expect("a cluster comes up"))
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
