//! How often portway asks for memory when one endpoint of one Service is replaced, step by step. The counts do not depend
//! on the machine, so a regression shows at once; and they must not grow with the cluster.
//!
//! `cargo xtask bench micro` prints them: `cargo test --package portway-bench --test allocations -- --nocapture`.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use allocation_counter::{AllocationInfo, measure};
use portway::sources::kubernetes::{read, read_message};
use portway_bench::model_cluster::ModelCluster;
use portway_dataplane::Dataplane as _;
use portway_dataplane::iptables::bench::Renderer;
use portway_dataplane::nftables::Nftables;
use portway_kernel::nftables::Transaction;
use portway_kernel::nftables::encode;
use portway_model::{Event, Family, Kind};
use portway_testbed::apiserver::encoded;
use serde_json::value::to_raw_value;

/// Events, of which the median counts: a map that happens to grow at one of them is not that one's cost.
const EVENTS: usize = 9;

/// Endpoints of each Service.
const ENDPOINTS: usize = 4;

/// The most allocations that each step may make, with some room above what it made when this was written.
const MOST: [(&str, u64); 6] = [
    ("decode JSON", 110),
    ("decode protobuf", 45),
    ("ingest", 12),
    ("resolve", 30),
    ("nftables: diff and encode", 50),
    ("iptables: diff and text", 1900),
];

/// What one step asks for at each event.
#[derive(Default)]
struct Step(Vec<AllocationInfo>);

impl Step {
    fn count(&mut self, work: impl FnOnce()) {
        self.0.push(measure(work));
    }

    /// Allocations of the median event.
    fn allocations(&self) -> u64 {
        median(self.0.iter().map(|event| event.count_total).collect())
    }

    /// Bytes asked for at the median event.
    fn bytes(&self) -> u64 {
        median(self.0.iter().map(|event| event.bytes_total).collect())
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// One endpoint of one Service replaced, again and again, in a cluster of so many Services: the steps of [`MOST`].
fn steps(services: usize) -> [Step; 6] {
    let mut cluster = ModelCluster::new(services, ENDPOINTS).unwrap();
    let mut nftables = Nftables::dry_run(|transaction: &Transaction| {
        encode(transaction).expect("it can be encoded");
    });
    assert!(!nftables.sync(cluster.plan()).failed());
    let mut iptables = Renderer::new(Family::V4);
    iptables.load(cluster.plan());
    let mut steps: [Step; 6] = Default::default();
    let [decode, decode_message, ingest, resolve, by_nftables, by_iptables] = &mut steps;
    let service = services / 2;
    for turn in 0..EVENTS {
        let endpoints = [0, 1, 2, 4 - turn % 2];
        let json = to_raw_value(&cluster.shape().slices_with(service, &endpoints)[0]).unwrap();
        decode.count(|| drop(read(Kind::EndpointSlice, &json).expect("a sound slice")));
        let message = encoded(&cluster.shape().slices_with(service, &endpoints)[0]).unwrap();
        decode_message.count(|| drop(read_message(Kind::EndpointSlice, &message).expect("a sound slice")));
        let event = Event::EndpointSlice(cluster.slice(service, &endpoints));
        ingest.count(|| assert!(cluster.model().ingest(event).is_empty()));
        let mut change = None;
        resolve.count(|| change = Some(cluster.model().drain().0));
        let change = change.unwrap();
        assert_eq!(change.services.len(), 1);
        by_nftables.count(|| {
            let report = nftables.apply(&change);
            assert!(!report.failed() && report.families.len() == 1);
        });
        by_iptables.count(|| {
            assert!(iptables.apply(&change).restore_input().contains("COMMIT"));
        });
    }
    steps
}

fn print(services: usize, steps: &[Step]) {
    println!("one endpoint replaced, {services} Services of {ENDPOINTS} endpoints, median of {EVENTS}:");
    for (step, (name, _)) in steps.iter().zip(MOST) {
        println!("  {name:28} {:6} allocations {:8} bytes", step.allocations(), step.bytes());
    }
}

#[test]
fn one_event_asks_for_little_memory_and_no_more_in_a_large_cluster() {
    let (small, large) = (steps(100), steps(2_000));
    print(100, &small);
    print(2_000, &large);
    for ((small, large), (name, most)) in small.iter().zip(&large).zip(MOST) {
        let (small, large) = (small.allocations(), large.allocations());
        assert!(small > 0 && small <= most, "{name}: {small} allocations in a small cluster, {most} are allowed");
        // A tree of more levels may cost a node or two more.
        assert!(
            large <= small + 2 + small / 4,
            "{name}: {large} allocations in a large cluster, {small} in a small one"
        );
    }
}
