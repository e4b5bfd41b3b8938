//! Results files of earlier runs, cut down, go on being read, compared and drawn.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use portway_bench_report::{Results, Writer, compare, plot, summary};

#[derive(Parser)]
struct Compare {
    #[command(flatten)]
    options: compare::Options,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Compares two files as the command line does.
fn compared(before: &Path, after: &Path) -> ExitCode {
    let words = [Path::new("compare"), Path::new("--fail-on-regression"), before, after];
    compare::run(&Compare::parse_from(words).options).expect("both are read")
}

/// A copy of a results file in which everything that portway was measured to take is multiplied.
fn multiplied(name: &str, folder: &Path, factor: f64) -> PathBuf {
    let results = Results::read(&data(name)).expect("it is read");
    let path = folder.join(format!("{factor}.jsonl"));
    let mut writer = Writer::create(Some(&path), results.run).expect("a file");
    for mut cell in results.cells {
        if cell.proxy.starts_with("portway") {
            cell.samples.iter_mut().for_each(|sample| *sample *= factor);
        }
        writer.cell(cell).expect("a cell");
    }
    path
}

#[test]
fn files_without_bars_are_read_and_summarised() {
    for (name, proxy) in [("sync-nftables.jsonl", "nftables"), ("sync-iptables-legacy.jsonl", "iptables-legacy")] {
        let results = Results::read(&data(name)).expect("it is read");
        assert_eq!((results.cells.len(), results.bars.len()), (20, 0));
        assert_eq!((results.run.bench.as_str(), results.run.processors), ("sync", 2));
        let text = summary::summary(&results, 140);
        for wanted in [format!("portway-{proxy}"), format!("kube-proxy-{proxy}"), "10,000 × 4, default".to_owned()] {
            assert!(text.contains(&wanted), "no {wanted}:\n{text}");
        }
    }
}

#[test]
fn a_file_compared_with_itself_has_not_regressed_and_with_twice_the_time_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["sync-nftables.jsonl", "sync-iptables-legacy.jsonl"] {
        assert_eq!(compared(&data(name), &data(name)), ExitCode::SUCCESS);
        let slower = multiplied(name, folder.path(), 2.0);
        assert_eq!(compared(&data(name), &slower), ExitCode::FAILURE);
        assert_eq!(compared(&slower, &data(name)), ExitCode::SUCCESS);
    }
}

#[test]
fn a_file_is_drawn_as_svg_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut results = Results::read(&data("sync-nftables.jsonl")).expect("it is read");
    results.path = folder.path().join("sync.jsonl");
    let drawn = plot::draw(&results, false).expect("plots");
    let names: Vec<_> = drawn.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    for wanted in ["sync-distribution-replace-churn-default.svg", "sync-latency-by-services-default.svg"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
    for file in &drawn {
        let svg = std::fs::read_to_string(file).expect("a file");
        assert!(svg.contains("kube-proxy-nftables") && svg.contains("AMD EPYC"), "{}", file.display());
    }
}
