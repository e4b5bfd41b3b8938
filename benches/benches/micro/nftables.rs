//! `nftables`: what differs in the tables, and the bytes that say so to the kernel; no kernel takes part.

use std::sync::{Arc, Mutex, PoisonError};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use portway_dataplane::Dataplane as _;
use portway_dataplane::nftables::{Nftables, render};
use portway_kernel::nftables::Transaction;
use portway_kernel::nftables::encode;

use super::{cluster, replaced};

/// Measures one endpoint replaced and the whole cluster: the difference, its encoding, and the text for people.
pub(crate) fn measure(criterion: &mut Criterion, services: usize) {
    let (mut cluster, mut turn) = (cluster(services), 0);
    let mut dataplane = Nftables::dry_run(|_| {});
    assert!(!dataplane.sync(cluster.plan()).failed());
    let mut diff = criterion.benchmark_group("diff");
    diff.bench_function(BenchmarkId::new("nftables-one-endpoint", services), |bencher| {
        let change = || cluster.set_endpoints(services / 2, &replaced(&mut turn)).expect("one Change");
        // Changes are made and applied in one order, whatever the size of a batch.
        bencher.iter_batched(
            change,
            |change| {
                let report = dataplane.apply(&change);
                // What is due by now of earlier Changes is part of the cost.
                (report, dataplane.collect_garbage(), change)
            },
            BatchSize::SmallInput,
        );
    });
    diff.throughput(Throughput::Elements(services as u64));
    diff.bench_function(BenchmarkId::new("nftables-all", services), |bencher| {
        let empty = || Nftables::dry_run(|_| {});
        let sync = |mut dataplane: Nftables| {
            assert!(!dataplane.sync(cluster.plan()).failed());
            dataplane
        };
        bencher.iter_batched(empty, sync, BatchSize::PerIteration);
    });
    diff.finish();

    let notes: Arc<Mutex<Vec<Transaction>>> = Arc::default();
    let pen = Arc::clone(&notes);
    let note = move |sent: &Transaction| pen.lock().unwrap_or_else(PoisonError::into_inner).push(sent.clone());
    let noted = || std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
    let mut dataplane = Nftables::dry_run(note);
    dataplane.sync(cluster.plan());
    let all = noted();
    dataplane.apply(&cluster.set_endpoints(services / 2, &[0, 1, 2, 5]).expect("one Change"));
    let one = noted();

    let mut group = criterion.benchmark_group("render");
    let bytes = |transactions: &[Transaction]| -> usize {
        transactions.iter().map(|transaction| encode(transaction).expect("it can be encoded").len()).sum()
    };
    group.bench_function(BenchmarkId::new("nftables-one-endpoint", services), |bencher| bencher.iter(|| bytes(&one)));
    group.throughput(Throughput::Elements(services as u64));
    group.bench_function(BenchmarkId::new("nftables-all", services), |bencher| bencher.iter(|| bytes(&all)));
    group.bench_function(BenchmarkId::new("nftables-text", services), |bencher| {
        bencher.iter(|| render(cluster.plan()).expect("it can be laid out"));
    });
    group.finish();
}
