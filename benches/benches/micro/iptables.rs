//! `iptables`: which chains differ, and the text that says so to iptables-restore; no tool takes part.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use portway_dataplane::iptables::bench::Renderer;
use portway_dataplane::iptables::{Config, render};
use portway_model::Family;

use super::{cluster, replaced};

/// Measures one endpoint replaced and the whole cluster: the difference, and the text.
pub(crate) fn measure(criterion: &mut Criterion, services: usize) {
    let (mut cluster, mut turn) = (cluster(services), 0);
    let empty = || Renderer::new(Family::V4);
    let mut loaded = empty();
    loaded.load(cluster.plan());

    let mut diff = criterion.benchmark_group("diff");
    diff.bench_function(BenchmarkId::new("iptables-one-endpoint", services), |bencher| {
        let change = || cluster.set_endpoints(services / 2, &replaced(&mut turn)).expect("one Change");
        bencher.iter_batched(change, |change| (loaded.apply(&change), change), BatchSize::SmallInput);
    });
    diff.throughput(Throughput::Elements(services as u64));
    diff.bench_function(BenchmarkId::new("iptables-all", services), |bencher| {
        let load = |mut renderer: Renderer| {
            renderer.load(cluster.plan());
            renderer
        };
        bencher.iter_batched(empty, load, BatchSize::PerIteration);
    });
    diff.finish();

    let one = loaded.apply(&cluster.set_endpoints(services / 2, &[0, 1, 2, 5]).expect("one Change"));
    let mut group = criterion.benchmark_group("render");
    group.bench_function(BenchmarkId::new("iptables-one-endpoint", services), |bencher| {
        bencher.iter(|| one.restore_input());
    });
    group.throughput(Throughput::Elements(services as u64));
    group.bench_function(BenchmarkId::new("iptables-text", services), |bencher| {
        bencher.iter(|| render(cluster.plan(), &Config::default()));
    });
    group.finish();
}
