//! `portway-bench dataplane` measures each mode, writes cells and bars, and finds nothing that fails.

use std::process::{Command, Stdio};

use portway_bench_report::{Outcome, Results, Unit};

/// Runs the small measurements of both modes, which take no other program.
fn measured(arguments: &[&str]) -> Option<(Results, String)> {
    if let Some(missing) = portway_testbed::missing() {
        println!("skipped: needs {missing}");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("results.jsonl");
    let output = Command::new(env!("CARGO_BIN_EXE_portway-bench"))
        .args(["dataplane", "--no-plots", "--out"])
        .arg(&file)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Some((Results::read(&file).unwrap_or_else(|error| panic!("{error:#}: {text}")), text))
}

#[test]
fn costs_and_connections_are_cells_of_both_modes() {
    let arguments = "full-sync one-change audit torn connect --sizes=40x2 --changes=4 --baseline=40 --services=40 \
                     --connections=2000 --connect=10,40";
    let Some((results, text)) = measured(&arguments.split_whitespace().collect::<Vec<_>>()) else { return };
    for cell in &results.cells {
        assert!(cell.failures.is_empty() && !cell.samples.is_empty(), "{cell:?}: {text}");
    }
    let of = |measurement: &str, proxy: &str| {
        let is_it = |cell: &&_| {
            let cell: &portway_bench_report::Cell = cell;
            cell.measurement == measurement && cell.proxy == proxy
        };
        results.cells.iter().filter(is_it).collect::<Vec<_>>()
    };
    for proxy in ["portway-nftables", "portway-iptables-legacy"] {
        assert_eq!(of("full-sync", proxy)[0].unit, Unit::Milliseconds);
        let changes = of("one-change", proxy);
        let kinds: Vec<&str> = changes.iter().map(|cell| cell.labels["change"].as_str()).collect();
        assert_eq!(kinds, ["add-endpoint", "add-service", "remove-endpoint", "remove-service", "replace-endpoint"]);
        assert!(changes.iter().all(|cell| cell.samples.len() == 4), "{changes:?}");
        assert_eq!(of("audit", proxy)[0].samples.len(), 20);
        assert_eq!(of("torn-failures", proxy)[0].samples, [0.0], "{text}");
        assert!(of("torn-changes", proxy)[0].samples[0] > 0.0);
    }
    // What stands beside them.
    assert_eq!(of("full-sync", "nft-chain-per-service").len(), 1);
    assert_eq!(of("full-sync", "iptables-legacy-restore").len(), 1);
    assert_eq!(of("one-change", "iptables-legacy-restore").len(), 1);
    assert_eq!(of("connect", "portway-nftables").len(), 2 * 40);
    assert_eq!(of("connect", "portway-iptables-legacy").len(), 2 * 2 * 20);
    // Too few connections to say that none is torn: a limit that is missed shows in the file.
    let torn = |bar: &&_| {
        let bar: &portway_bench_report::Bar = bar;
        bar.name == "nftables: torn reads, new connections"
    };
    assert_eq!(results.bars.iter().find(torn).expect("a bar").verdict, Outcome::Miss);
}

#[test]
fn what_cannot_be_measured_is_a_failure_with_its_reason() {
    let arguments = ["udp", "--mode=nftables", "--portway=/nowhere/portway"];
    let Some((results, text)) = measured(&arguments) else { return };
    let [cell] = results.cells.as_slice() else { panic!("{text}") };
    assert_eq!((cell.measurement.as_str(), cell.proxy.as_str()), ("udp", "portway-nftables"));
    assert!(cell.failures[0].contains("there is no program /nowhere/portway"), "{:?}", cell.failures);
}
