//! What a large cluster costs: memory for all of it, and time for one change in it.
//!
//! Alone in a process of its own, for the sake of the memory figure.

use std::time::{Duration, Instant};

use portway_model::testing::{config, service, slice};
use portway_model::{Cluster, Event, Kind};

fn service_event(n: usize) -> Event {
    let ip = format!("10.{}.{}.{}", 96 + n / 65_536, n / 256 % 256, n % 256);
    service(&format!("namespace-{}/service-{n}", n % 50)).cluster_ip(&ip).port("http", 80).event()
}

/// The slice of a Service, with one endpoint that is another in each round.
fn slice_event(n: usize, endpoints: usize, round: usize) -> Event {
    let name = format!("namespace-{}/service-{n}-abcde", n % 50);
    let start = slice(&name, &format!("service-{n}")).port("http", 8080);
    let endpoints = (0..endpoints).map(|i| match i {
        0 => format!("10.200.{}.{}", round / 256, round % 256),
        _ => format!("10.{i}.{}.{}", n / 256 % 256, n % 256),
    });
    let add = |slice: portway_model::testing::SliceBuilder, ip: String| {
        slice.endpoint(&ip).on("node-b").for_zones(["zone-a"]).conditions(true, true, false)
    };
    endpoints.fold(start, add).event()
}

fn filled(services: usize, endpoints: usize) -> Cluster {
    let mut cluster = Cluster::new(config("node-a"));
    cluster.ingest(Event::ListBegins(Kind::Service));
    cluster.ingest(Event::ListBegins(Kind::EndpointSlice));
    for n in 0..services {
        cluster.ingest(service_event(n));
        cluster.ingest(slice_event(n, endpoints, 0));
    }
    cluster.ingest(Event::ListDone(Kind::Service));
    cluster.ingest(Event::ListDone(Kind::EndpointSlice));
    let (change, problems) = cluster.drain();
    assert_eq!((change.services.len(), problems.len()), (services, 0));
    cluster
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: usize = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024
}

/// The best of many: what the change costs when nobody disturbs it.
fn one_change(cluster: &mut Cluster, endpoints: usize) -> Duration {
    let mut best = Duration::MAX;
    for round in 1..500 {
        let event = slice_event(7, endpoints, round);
        let begin = Instant::now();
        cluster.ingest(event);
        let (change, _) = cluster.drain();
        best = best.min(begin.elapsed());
        assert_eq!(change.services.len(), 1);
    }
    best
}

#[test]
fn a_large_cluster_is_small_and_one_change_in_it_costs_what_it_costs_in_a_small_one() {
    let before = resident_bytes();
    let mut large = filled(10_000, 10);
    let bytes = resident_bytes() - before;
    println!("10,000 Services x 10 endpoints: {} KiB resident", bytes / 1024);
    assert!(bytes < 25 << 20, "{bytes} bytes");

    let mut little = filled(100, 10);
    let (in_little, in_large) = (one_change(&mut little, 10), one_change(&mut large, 10));
    println!("one endpoint replaced: {in_little:?} among 100 Services, {in_large:?} among 10,000");
    assert!(in_large < 4 * in_little + Duration::from_micros(50), "{in_large:?} against {in_little:?}");
}
