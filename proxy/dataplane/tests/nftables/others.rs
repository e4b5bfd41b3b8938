//! What other programs do to nf_tables at the same time.

use std::time::{Duration, Instant};

use portway_dataplane::Dataplane;
use portway_dataplane::nftables::Nftables;
use portway_model::testing::{cluster, node, service, slice};
use portway_model::{Change, Cluster, Event, Family};

use crate::foreign::ForeignWriter;
use crate::namespace::in_namespace;
use crate::table_owner::TableOwner;

/// Services of the large cluster: listing them takes longer than the pause between two commits of others.
const SERVICES: usize = 3_000;

/// A Service with endpoints in both families, by their last numbers.
fn objects(number: usize, pods: &[usize]) -> Vec<Event> {
    let name = format!("s{number:04}");
    let (high, low) = (number / 250, 1 + number % 250);
    let both = service(&format!("ns/{name}"))
        .cluster_ip(&format!("10.96.{high}.{low}"))
        .cluster_ip(&format!("fd00:96::{high}:{low}"))
        .port("", 80);
    let slice = |family: &str, prefix: &str| {
        let pods: Vec<String> = pods.iter().map(|pod| format!("{prefix}{pod}")).collect();
        let all = pods.iter().map(String::as_str);
        slice(&format!("ns/{name}-{family}"), &name).port("", 8080).endpoints(all).event()
    };
    vec![both.event(), slice("v4", "10.1.0."), slice("v6", "fd00:1::")]
}

fn large() -> Cluster {
    cluster("here", (0..SERVICES).flat_map(|number| objects(number, &[1, 2, 3, 4])).chain([node("here").event()]))
}

fn replaced(cluster: &mut Cluster, number: usize, pods: &[usize]) -> Change {
    objects(number, pods).into_iter().for_each(|event| drop(cluster.ingest(event)));
    cluster.drain().0
}

#[test]
fn own_2_changes_audits_and_full_syncs_get_through_while_others_commit_to_their_tables() {
    in_namespace(|| {
        let writer = ForeignWriter::start(Family::V4, Duration::from_millis(5));
        let mut cluster = large();
        let mut dataplane = Nftables::open().expect("nf_tables");
        let report = dataplane.sync(cluster.plan());
        assert!(!report.failed(), "{report:?}");
        let mut slowest = Duration::ZERO;
        for turn in 0..20 {
            let change = replaced(&mut cluster, turn * 7, &[1, 2, 3, 10 + turn]);
            let start = Instant::now();
            let report = dataplane.apply(&change);
            slowest = slowest.max(start.elapsed());
            assert!(!report.failed() && report.families.iter().all(|family| family.objects <= 4), "{report:?}");
            let drift = dataplane.audit().into_drift().expect("listed, although others commit");
            assert_eq!(drift, [], "nobody has changed the table");
        }
        let commits = writer.commits();
        let mut restarted = Nftables::open().expect("nf_tables");
        let report = restarted.sync(cluster.plan());
        assert!(!report.failed(), "{report:?}");
        assert!(writer.commits() > commits, "they go on meanwhile");
        // Slots that had to outlive the last changes are all that differs.
        assert!(report.families.iter().all(|family| family.objects <= 40), "{report:?}");
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    });
}

#[test]
fn own_3_ipv4_goes_on_with_changes_and_audits_while_the_ipv6_table_belongs_to_another() {
    in_namespace(|| {
        let owner = TableOwner::of(Family::V6, "portway");
        let mut cluster = large();
        let mut dataplane = Nftables::open().expect("nf_tables");
        let start = Instant::now();
        let report = dataplane.sync(cluster.plan());
        let full = start.elapsed();
        let failed = |family| report.families.iter().any(|one| one.family == family && one.error.is_some());
        assert!(!failed(Family::V4) && failed(Family::V6), "{report:?}");
        assert!(!dataplane.needs_sync_of(Family::V4) && dataplane.needs_sync_of(Family::V6));
        let mut times = Vec::new();
        for turn in 0..20 {
            let change = replaced(&mut cluster, turn * 7, &[1, 2, 3, 10 + turn]);
            let start = Instant::now();
            let report = dataplane.apply_families(&[Family::V4], &change);
            times.push(start.elapsed());
            assert!(!report.failed(), "{report:?}");
            assert_eq!(report.families[0].objects, 3, "one backend out, one in, and the new endpoint");
        }
        times.sort();
        assert!(times[10] * 10 < full, "a change takes {:?}, a full sync {full:?}", times[10]);
        println!("IPv4 change with IPv6 refused: p50 {:?}, slowest {:?}; full sync {full:?}", times[10], times[19]);
        let audit = dataplane.audit_families(&[Family::V4]);
        assert_eq!(audit.into_drift().expect("listed"), []);
        // The owner goes, and with it its table: IPv6 gets all that it missed.
        drop(owner);
        let report = dataplane.sync_families(&[Family::V6], cluster.plan());
        assert!(!report.failed() && report.families[0].family == Family::V6, "{report:?}");
        assert_eq!(dataplane.audit().into_drift().expect("listed"), []);
    });
}
