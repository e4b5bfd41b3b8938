//! The end of a run, however it came: the table of what was measured, the promises, the plots.

use std::process::ExitCode;

use anyhow::Result;

use super::figures::{median, percentile};
use super::{Cell, Results, Setting, Writer, plot, summary};
use crate::bars::{Bar, Bars, Limit};
use crate::stop::{STATUS, Stopped};

/// Prints what was measured, holds it against what is promised, and draws it beside the results file. `measured` says how
/// measuring ended: after Ctrl-C or an error, what came before it is shown all the same. `has_bars` tells whether promises
/// hold for what was measured; with changed conditions they do not.
pub(crate) fn conclude(writer: &Writer, measured: Result<()>, has_bars: bool) -> ExitCode {
    end(writer, measured, has_bars, true)
}

/// The same without plots.
pub(crate) fn conclude_plainly(writer: &Writer, measured: Result<()>, has_bars: bool) -> ExitCode {
    end(writer, measured, has_bars, false)
}

fn end(writer: &Writer, measured: Result<()>, has_bars: bool, has_plots: bool) -> ExitCode {
    let results = writer.results();
    println!("{}", results.run.headline());
    print!("{}", summary::summary(results, super::width()));
    let bars = if has_bars { bars(results) } else { Bars::default() };
    if let Some(table) = bars.table() {
        println!("{table}");
    }
    for failure in failures(results) {
        println!("{failure}");
    }
    match if has_plots { plot::draw(results) } else { Ok(Vec::new()) } {
        Ok(files) if files.is_empty() => {}
        Ok(files) => {
            println!("plots: {}", files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" "));
        }
        Err(error) => eprintln!("the plots could not be drawn: {error:#}"),
    }
    println!("figures: {}", results.path.display());
    match measured {
        Ok(()) if bars.are_kept() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) if error.is::<Stopped>() => {
            eprintln!("{error}; what was measured before is above and in the file");
            ExitCode::from(STATUS)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first failures of each measurement in words.
fn failures(results: &Results) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut lines = Vec::new();
    for cell in results.cells.iter().filter(|cell| !cell.failures.is_empty()) {
        let shown = cell.failures.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more =
            if cell.failures.len() > SHOWN { format!(" … {} in all", cell.failures.len()) } else { String::new() };
        let key = super::group::Key::of(cell);
        lines.push(format!("failed: {key}, repeat {}, {}: {shown}{more}", cell.repeat, cell.proxy));
    }
    lines
}

/// What is promised of portway's own modes, as far as it was measured.
fn bars(results: &Results) -> Bars {
    let mut bars = Bars::default();
    let of = |measurement: &str, setting: Setting, proxy: &str| -> Vec<&Cell> {
        let is_it = |cell: &&Cell| {
            cell.measurement == measurement && cell.setting == setting && cell.proxy == proxy && cell.services == 10_000
        };
        results.cells.iter().filter(is_it).collect()
    };
    let portway = "portway-nftables";
    let middle = |cells: &[&Cell], share| {
        median(&mut cells.iter().filter_map(|cell| percentile(&cell.samples, share)).collect::<Vec<_>>())
    };
    for setting in [Setting::Default, Setting::Minimum] {
        if let Some(p50) = middle(&of("replace-idle", setting, portway), 0.5) {
            bars.push(Bar {
                name: format!("{portway}, 10,000 Services, idle, {setting} pacing: event to packet, p50"),
                measured: p50,
                limit: Limit::AtMost(10.0),
                unit: "ms",
            });
        }
    }
    let minimum = Setting::Minimum;
    if let Some(p99) = middle(&of("replace-churn", minimum, portway), 0.99) {
        bars.push(Bar {
            name: format!("{portway}, 10,000 Services, 100 events a second, {minimum} pacing: event to packet, p99"),
            measured: p99,
            limit: Limit::AtMost(100.0),
            unit: "ms",
        });
    }
    let misdirected: Vec<&Cell> = results
        .cells
        .iter()
        .filter(|cell| cell.measurement == "misdirected" && cell.proxy.starts_with("portway"))
        .collect();
    if !misdirected.is_empty() {
        bars.push(Bar {
            name: "portway in every mode: connections misdirected during all of it".to_owned(),
            measured: misdirected.iter().flat_map(|cell| &cell.samples).sum(),
            limit: Limit::AtMost(0.0),
            unit: "connections",
        });
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::super::{Run, Unit};
    use super::*;

    fn results(cells: Vec<Cell>) -> Results {
        Results { path: "some.jsonl".into(), run: Run::default(), cells }
    }

    fn cell(measurement: &str, proxy: &str, setting: Setting, samples: &[f64]) -> Cell {
        Cell {
            measurement: measurement.to_owned(),
            proxy: proxy.to_owned(),
            setting,
            services: 10_000,
            endpoints: 4,
            samples: samples.to_vec(),
            ..Cell::default()
        }
    }

    #[test]
    fn promises_are_held_against_portways_own_figures() {
        let kept = results(vec![
            cell("replace-idle", "portway-nftables", Setting::Default, &[1.0, 2.0, 30.0]),
            cell("replace-idle", "other", Setting::Default, &[500.0]),
            cell("replace-churn", "portway-nftables", Setting::Minimum, &[99.0; 100]),
            cell("replace-churn", "portway-nftables", Setting::Default, &[900.0]),
            cell("misdirected", "portway-nftables", Setting::Minimum, &[0.0]),
            cell("misdirected", "other", Setting::Minimum, &[7.0]),
        ]);
        let bars = bars(&kept);
        let text = bars.table().expect("promises").to_string();
        assert!(bars.are_kept() && text.matches("PASS").count() == 3, "{text}");
        for (index, bad) in [(0, [11.0; 3]), (2, [101.0; 3]), (4, [1.0, 0.0, 0.0])] {
            let mut missed = kept.clone();
            missed.cells[index].samples = bad.to_vec();
            assert!(!super::bars(&missed).are_kept(), "{:?}", missed.cells[index]);
        }
    }

    #[test]
    fn the_table_names_proxies_sizes_and_ratios() {
        let mut all = Vec::new();
        for repeat in 0..3_u8 {
            for (proxy, base) in [("portway-nftables", 1.0), ("kube-proxy", 10.0)] {
                let samples: Vec<f64> =
                    (0..100).map(|i| base * (1.0 + f64::from(repeat) / 10.0) + f64::from(i) / 1e3).collect();
                all.push(Cell { repeat: repeat.into(), ..cell("replace-idle", proxy, Setting::Default, &samples) });
                let memory = cell("memory", proxy, Setting::Default, &[base * 60.0]);
                all.push(Cell { repeat: repeat.into(), unit: Unit::Mebibytes, ..memory });
            }
        }
        all[0].failures.push("event 3 never reached traffic".to_owned());
        let results = results(all);
        for width in [80, 100, 140] {
            let text = summary::summary(&results, width);
            for wanted in
                ["10,000 × 4, default", "1.15 (1.05–1.25) ms", "×9.", "n 300, 1 failed", "60 (60–60) MiB", "×10"]
            {
                assert!(text.contains(wanted), "{wanted} at {width}:\n{text}");
            }
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        }
        assert_eq!(failures(&results).len(), 1);
    }
}
