//! `resolve`: what a drain costs after one endpoint was replaced, and for a whole cluster.

use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use portway_bench::world::World;
use portway_model::Event;

use super::{ENDPOINTS, replaced, world};

/// Measures both.
pub(crate) fn measure(criterion: &mut Criterion, services: usize) {
    let mut group = criterion.benchmark_group("resolve");
    // Criterion calls the closure anew for each sample; what is measured goes on.
    let (mut world, mut turn) = (world(services), 0);
    group.bench_function(BenchmarkId::new("one-endpoint", services), |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let slice = world.slice(services / 2, &replaced(&mut turn));
                world.cluster().ingest(Event::EndpointSlice(slice));
                let start = Instant::now();
                let (change, _) = world.cluster().drain();
                spent += start.elapsed();
                assert_eq!(change.services.len(), 1);
            }
            spent
        });
    });

    group.throughput(Throughput::Elements(services as u64));
    group.bench_function(BenchmarkId::new("all", services), |bencher| {
        let unresolved = || World::unresolved(services, ENDPOINTS).expect("a made-up cluster");
        let drain = |mut world: World| {
            let (change, _) = world.cluster().drain();
            (world, change)
        };
        bencher.iter_batched(unresolved, drain, BatchSize::PerIteration);
    });
    group.finish();
}
