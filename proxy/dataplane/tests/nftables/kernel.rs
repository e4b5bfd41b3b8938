//! The whole dataplane against a real kernel.

use portway_dataplane::Dataplane;
use portway_dataplane::nftables::Nftables;

use crate::cluster::{by_cidr, by_interface, cluster};
use crate::namespace::in_namespace;
use crate::nft::{nft, nft_list};

#[test]
fn nft_13_a_second_start_writes_nothing() {
    in_namespace(|| {
        let cluster = cluster(by_cidr());
        for run in 0..2 {
            let mut dataplane = Nftables::open().expect("nf_tables");
            let report = dataplane.sync(cluster.plan());
            assert!(!report.failed(), "{report:?}");
            for family in &report.families {
                assert_eq!(family.objects == 0, run == 1, "run {run}: {report:?}");
            }
            assert_eq!(dataplane.audit().expect("listed"), []);
        }
        println!("{}", nft_list());
        let _ = (nft(&["list", "ruleset"], ""), by_interface());
    });
}
