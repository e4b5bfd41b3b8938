//! The complete rule set of the example cluster, as an administrator sees it.

use portway_dataplane::nftables::render;

use crate::cluster::{by_cidr, cluster};

#[test]
fn the_example_clusters_rule_set() {
    insta::assert_snapshot!(render(cluster(by_cidr()).plan()).expect("text"));
}
