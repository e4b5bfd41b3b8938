//! What each step from an API object to the kernel's door costs, and how that grows with the cluster.
//!
//! `cargo xtask bench micro` measures at 100, 1,000 and 10,000 Services of four endpoints; `cargo test` runs each
//! measurement once, at the smallest size, so that none can rot. Names are `step/what/Services`. Where a whole cluster is
//! worked on, throughput counts Services; where one endpoint is replaced, time should not depend on the size.

#![expect(clippy::expect_used, reason = "made-up clusters are sound; a benchmark fails by panicking")]

mod ingest;
mod iptables;
mod nftables;
mod resolve;

use std::time::Duration;

use criterion::Criterion;
use portway_bench::model_cluster::ModelCluster;
use tikv_jemallocator::Jemalloc;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Endpoints of each Service.
const ENDPOINTS: usize = 4;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for &services in sizes() {
        ingest::measure(&mut criterion, services);
        resolve::measure(&mut criterion, services);
        nftables::measure(&mut criterion, services);
        iptables::measure(&mut criterion, services);
    }
    criterion.final_summary();
}

/// Numbers of Services: only the smallest unless cargo asks for measurements.
fn sizes() -> &'static [usize] {
    let asked = |flag: &str| std::env::args().any(|word| word == flag);
    if asked("--bench") && !asked("--test") { &[100, 1_000, 10_000] } else { &[100] }
}

/// A cluster of so many Services.
fn cluster(services: usize) -> ModelCluster {
    ModelCluster::new(services, ENDPOINTS).expect("a made-up cluster")
}

/// The endpoints of a Service, of which one is another at each turn; before the first it has 0 to 3.
fn replaced(turn: &mut usize) -> [usize; ENDPOINTS] {
    *turn += 1;
    [0, 1, 2, 3 + *turn % 2]
}
