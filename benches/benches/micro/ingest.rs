//! `ingest`: from the API's protobuf and JSON to the model's objects, and from those into the Cluster.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use portway::sources::kubernetes::{read, read_message};
use portway_model::{Cluster, Config, Kind};
use portway_testbed::apiserver::{Synthetic, encoded};
use serde_json::value::{RawValue, to_raw_value};

use super::{ENDPOINTS, cluster};

/// Measures one EndpointSlice, and all objects of the cluster.
pub(crate) fn measure(criterion: &mut Criterion, services: usize) {
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(services as u64));

    let objects = objects(services);
    group.bench_with_input(BenchmarkId::new("json", services), &objects, |bencher, objects| {
        bencher.iter(|| {
            for (kind, text) in objects {
                black_box(read(*kind, text).expect("a sound object"));
            }
        });
    });

    let messages: Vec<_> = objects.iter().map(|(kind, text)| (*kind, message(text))).collect();
    group.bench_with_input(BenchmarkId::new("protobuf", services), &messages, |bencher, messages| {
        bencher.iter(|| {
            for (kind, message) in messages {
                black_box(read_message(*kind, message).expect("a sound object"));
            }
        });
    });

    let events = cluster(services).events();
    group.bench_with_input(BenchmarkId::new("cluster", services), &events, |bencher, events| {
        let empty = || (Cluster::new(Config::default()), events.clone());
        let ingest = |(mut cluster, events): (Cluster, Vec<_>)| {
            for event in events {
                cluster.ingest(event);
            }
            cluster
        };
        bencher.iter_batched(empty, ingest, BatchSize::PerIteration);
    });
    group.finish();
}

fn message(object: &RawValue) -> Vec<u8> {
    encoded(&serde_json::from_str(object.get()).expect("JSON")).expect("an object of the API")
}

/// Each Service and its slices, as a server sends them.
fn objects(services: usize) -> Vec<(Kind, Box<RawValue>)> {
    let shape = Synthetic::new(services, ENDPOINTS);
    let mut objects = Vec::new();
    for number in 0..services {
        objects.push((Kind::Service, shape.service(number)));
        objects.extend(shape.slices(number).into_iter().map(|slice| (Kind::EndpointSlice, slice)));
    }
    objects.into_iter().map(|(kind, object)| (kind, to_raw_value(&object).expect("JSON"))).collect()
}
