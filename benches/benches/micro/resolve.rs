//! `resolve`: what a drain costs after one endpoint was replaced, and for a whole cluster.

use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use portway_bench::model_cluster::ModelCluster;
use portway_model::Event;

use super::{ENDPOINTS, cluster, replaced};

/// Measures a drain after one replaced endpoint, and one of the whole cluster.
pub(crate) fn measure(criterion: &mut Criterion, services: usize) {
    let mut group = criterion.benchmark_group("resolve");
    // Criterion calls the closure anew for each sample; what is measured goes on.
    let (mut cluster, mut turn) = (cluster(services), 0);
    group.bench_function(BenchmarkId::new("one-endpoint", services), |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let slice = cluster.slice(services / 2, &replaced(&mut turn));
                cluster.model().ingest(Event::EndpointSlice(slice));
                let start = Instant::now();
                let (change, _) = cluster.model().drain();
                spent += start.elapsed();
                assert_eq!(change.services.len(), 1);
            }
            spent
        });
    });

    group.throughput(Throughput::Elements(services as u64));
    group.bench_function(BenchmarkId::new("all", services), |bencher| {
        let unresolved = || ModelCluster::unresolved(services, ENDPOINTS).expect("a made-up cluster");
        let drain = |mut cluster: ModelCluster| {
            let (change, _) = cluster.model().drain();
            (cluster, change)
        };
        bencher.iter_batched(unresolved, drain, BatchSize::PerIteration);
    });
    group.finish();
}
