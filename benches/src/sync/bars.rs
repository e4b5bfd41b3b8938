//! The bars of `sync`: limits of portway's own modes, held against what was measured under the conditions they are for.

use portway_bench_report::statistics::{median, percentile};
use portway_bench_report::{Bar, Cell, Limit, Setting};

/// The number of Services for which the limits hold.
const SERVICES: usize = 10_000;

/// The proxy whose latency and memory have limits.
const PORTWAY: &str = "portway-nftables";

/// Holds the cells against the limits, as far as what they are about was measured.
pub(super) fn bars(cells: &[Cell]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for setting in [Setting::Default, Setting::Minimum] {
        if let Some(p50) = of_repeats(cells, "replace-idle", setting, 0.5) {
            let name = format!("{PORTWAY}, 10,000 Services, idle, {setting} pacing: event to packet, p50");
            bars.push(Bar::new(name, p50, Limit::AtMost(10.0), "ms"));
        }
    }
    if let Some(p99) = of_repeats(cells, "replace-churn", Setting::Minimum, 0.99) {
        let name = format!("{PORTWAY}, 10,000 Services, 100 events a second, minimum pacing: event to packet, p99");
        bars.push(Bar::new(name, p99, Limit::AtMost(100.0), "ms"));
    }
    for setting in [Setting::Default, Setting::Minimum] {
        if let Some(p99) = of_repeats(cells, "replace-foreign", setting, 0.99) {
            let name = format!(
                "{PORTWAY}, 10,000 Services, 100 foreign commits a second, {setting} pacing: event to packet, p99"
            );
            bars.push(Bar::new(name, p99, Limit::AtMost(50.0), "ms"));
        }
    }
    for setting in [Setting::Default, Setting::Minimum] {
        if let Some(p99) = of_repeats(cells, "replace-refused", setting, 0.99) {
            let name = format!("{PORTWAY}, 10,000 Services, IPv6 refused, {setting} pacing: event to packet, p99");
            bars.push(Bar::new(name, p99, Limit::AtMost(50.0), "ms"));
        }
    }
    for (measurement, limit) in [("memory-resident", 80.0), ("memory-peak", 150.0)] {
        let is_it = |cell: &&Cell| {
            cell.measurement == measurement
                && cell.proxy == PORTWAY
                && (cell.services, cell.endpoints) == (SERVICES, 10)
                && cell.labels.get("phase").is_some_and(|phase| phase == "start")
        };
        let mut samples: Vec<f64> = cells.iter().filter(is_it).flat_map(|cell| cell.samples.clone()).collect();
        if let Some(mebibytes) = median(&mut samples) {
            let name = format!("{PORTWAY}, 10,000 × 10: {measurement} after the first sync");
            bars.push(Bar::new(name, mebibytes, Limit::AtMost(limit), "MiB"));
        }
    }
    let of_portway = |cell: &&Cell| cell.measurement == "misdirected" && cell.proxy.starts_with("portway");
    let misdirected: Vec<&Cell> = cells.iter().filter(of_portway).collect();
    if !misdirected.is_empty() {
        let sum = misdirected.iter().flat_map(|cell| &cell.samples).sum();
        let name = "portway in every mode: connections misdirected during all of it";
        bars.push(Bar::new(name, sum, Limit::AtMost(0.0), "connections"));
    }
    bars
}

/// The median of a percentile of each repeat.
fn of_repeats(cells: &[Cell], measurement: &str, setting: Setting, share: f64) -> Option<f64> {
    let is_it = |cell: &&Cell| {
        cell.measurement == measurement && cell.setting == setting && cell.proxy == PORTWAY && cell.services == SERVICES
    };
    median(&mut cells.iter().filter(is_it).filter_map(|cell| percentile(&cell.samples, share)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use portway_bench_report::Unit;

    use super::*;

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
    fn limits_are_held_against_portways_own_figures() {
        let kept = vec![
            cell("replace-idle", "portway-nftables", Setting::Default, &[1.0, 2.0, 30.0]),
            cell("replace-idle", "other", Setting::Default, &[500.0]),
            cell("replace-churn", "portway-nftables", Setting::Minimum, &[99.0; 100]),
            cell("replace-churn", "portway-nftables", Setting::Default, &[900.0]),
            cell("misdirected", "portway-nftables", Setting::Minimum, &[0.0]),
            cell("misdirected", "other", Setting::Minimum, &[7.0]),
            cell("replace-foreign", "portway-nftables", Setting::Minimum, &[49.0; 100]),
        ];
        let all = bars(&kept);
        assert!(all.len() == 4 && all.iter().all(Bar::is_met), "{all:?}");
        for (index, bad) in [(0, [11.0; 3]), (2, [101.0; 3]), (4, [1.0, 0.0, 0.0]), (6, [51.0; 3])] {
            let mut missed = kept.clone();
            missed[index].samples = bad.to_vec();
            assert!(!bars(&missed).iter().all(Bar::is_met), "{:?}", missed[index]);
        }
    }

    #[test]
    fn memory_has_its_limit_at_ten_endpoints_after_the_first_sync() {
        let of = |measurement: &str, endpoints, phase: &str, mebibytes| Cell {
            endpoints,
            labels: [("phase".to_owned(), phase.to_owned())].into(),
            unit: Unit::Mebibytes,
            ..cell(measurement, "portway-nftables", Setting::Default, &[mebibytes])
        };
        let cells = [
            of("memory-resident", 10, "start", 70.0),
            of("memory-resident", 10, "end", 700.0),
            of("memory-resident", 4, "start", 700.0),
            of("memory-peak", 10, "start", 151.0),
        ];
        let verdicts: Vec<_> = bars(&cells).iter().map(Bar::is_met).collect();
        assert_eq!(verdicts, [true, false]);
    }
}
