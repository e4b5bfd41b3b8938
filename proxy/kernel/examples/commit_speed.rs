//! How long transactions of nf_tables elements take to encode, commit and list:
//! `cargo run --release -p portway-kernel --example commit_speed -- 10000 2`, Services and endpoints of each, in a
//! network namespace of its own. A third argument `watched` keeps a monitor open meanwhile.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portway_kernel::nftables::Monitor;
use portway_kernel::nftables::{Bytes, Chain, Data, Element, Field, Op, Set, Transaction, Verdict};
use portway_kernel::nftables::{Connection, DynamicSets, NfTables, OwnPorts, encode};
use portway_model::Family;

use Field::{DestinationAddress, DestinationPort, Numgen, Protocol};

fn main() -> Result<(), Box<dyn Error>> {
    #[expect(deprecated, reason = "safe for network namespaces; nothing else runs yet")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let services: u32 = arguments.first().map_or(Ok(10_000), |text| text.parse())?;
    let endpoints: u32 = arguments.get(1).map_or(Ok(2), |text| text.parse())?;
    let own = OwnPorts::default();
    let mut connection = Connection::open(&own)?;
    let monitor = arguments.get(2).map(|_| Monitor::open([(Family::V4, "portway".into())], &own)).transpose()?;

    let start = Instant::now();
    let transaction = table(services, endpoints);
    let built = start.elapsed();
    // Encoded once for itself, several times, to tell it from the first use of memory.
    let mut encoded = Vec::new();
    let mut bytes = 0;
    for _ in 0..5 {
        let start = Instant::now();
        bytes = encode(&transaction)?.len();
        encoded.push(start.elapsed());
    }
    let done = connection.commit(&transaction)?;
    println!("{services} Services x {endpoints}: {} objects, {bytes} bytes", done.objects);
    println!("  objects made    {built:?}");
    println!("  encoded         {:?} at best, {:?} in the commit", encoded.iter().min().unwrap_or(&built), done.encode);
    println!("  kernel          {:?}", done.kernel);
    let start = Instant::now();
    let snapshot = connection.snapshot(Family::V4, "portway", DynamicSets::List)?;
    let elements: usize = snapshot.elements.iter().map(|(_, elements)| elements.len()).sum();
    println!("  listed          {:?} ({elements} elements)", start.elapsed());
    let mut times = Vec::new();
    for service in 0..200.min(services) {
        let mut change = Transaction::new(Family::V4, "portway");
        let backends = Arc::new(backends());
        let old = Element::new(slot(service, 0));
        let new = Element::new(slot(service, 0)).with(backend(service, 200));
        change.push(Op::DeleteElements { set: Arc::clone(&backends), elements: vec![old] });
        change.push(Op::AddElements { set: backends, elements: vec![new] });
        let start = Instant::now();
        connection.commit(&change)?;
        times.push(start.elapsed());
    }
    times.sort();
    let changed = connection.elements(Family::V4, "portway", &backends())?;
    let is_new = |element: &&Element| matches!(&element.data, Data::Value(value) if value[3] == 200);
    assert_eq!(changed.iter().filter(is_new).count(), times.len(), "every change is in the kernel");
    println!(
        "  one endpoint    {:?} (median of {})",
        times.get(times.len() / 2).unwrap_or(&Duration::ZERO),
        times.len()
    );
    drop(monitor);
    Ok(())
}

fn frontend(service: u32) -> Bytes {
    Bytes::new().field(&(0x0a60_0000 + service).to_be_bytes()).field(&[6]).field(&80u16.to_be_bytes())
}

fn slot(service: u32, slot: u32) -> Bytes {
    frontend(service).field(&slot.to_ne_bytes())
}

fn backend(service: u32, slot: u32) -> Data {
    let address = 0x0b00_0000 + (service << 8) + slot;
    Data::Value(Bytes::new().field(&address.to_be_bytes()).field(&8080u16.to_be_bytes()))
}

fn backends() -> Set {
    Set::map("backends", [DestinationAddress, Protocol, DestinationPort, Numgen], [DestinationAddress, DestinationPort])
}

/// One operation for each Service and map, as a dataplane makes them.
fn table(services: u32, endpoints: u32) -> Transaction {
    let verdicts = Arc::new(Set::verdict_map("services", [DestinationAddress, Protocol, DestinationPort]));
    let backends = Arc::new(backends());
    let mut all = Transaction::new(Family::V4, "portway");
    all.push(Op::AddTable);
    all.push(Op::AddChain(Chain { name: "n2".into(), hook: None }));
    all.push(Op::AddSet(Arc::clone(&verdicts)));
    all.push(Op::AddSet(Arc::clone(&backends)));
    for service in 0..services {
        let elements =
            (0..endpoints).map(|index| Element::new(slot(service, index)).with(backend(service, index))).collect();
        all.push_for(service, Op::AddElements { set: Arc::clone(&backends), elements });
    }
    let goto = Verdict::Goto("n2".into());
    for service in 0..services {
        let elements = vec![Element::new(frontend(service)).with(Data::Verdict(goto.clone()))];
        all.push_for(service, Op::AddElements { set: Arc::clone(&verdicts), elements });
    }
    all
}
