//! The bars of `dataplane`: limits that figures must keep to, as far as what they are about was measured.

use portway_bench_report::statistics::{median, paired_ratio, percentile};
use portway_bench_report::{Bar, Cell, Limit};

use super::connect::FORM;
use super::full_sync::{NFT, restore};
use super::mode::Mode;
use super::one_change::CHANGE;
use super::udp::ENTRIES;

const NFTABLES: &str = "portway-nftables";

/// The cells, with ways to find figures among them.
struct Figures<'a>(&'a [Cell]);

/// Holds the cells against the limits.
pub(super) fn bars(cells: &[Cell]) -> Vec<Bar> {
    let figures = Figures(cells);
    let mut bars = figures.of_nftables();
    for mode in [Mode::IptablesLegacy, Mode::IptablesNft] {
        bars.extend(figures.of_iptables(mode));
    }
    bars.extend(figures.of_connections());
    bars
}

impl<'a> Figures<'a> {
    fn cells(&self, measurement: &str, proxy: &str, label: Option<(&str, &str)>) -> impl Iterator<Item = &'a Cell> {
        self.0.iter().filter(move |cell| {
            cell.measurement == measurement
                && cell.proxy == proxy
                && label.is_none_or(|(name, value)| cell.labels.get(name).is_some_and(|found| found == value))
        })
    }

    /// The median, over the repeats, of a percentile of each.
    fn percentile(
        &self,
        measurement: &str,
        proxy: &str,
        (services, endpoints): (usize, usize),
        change: Option<&str>,
        share: f64,
    ) -> Option<f64> {
        let cells = self.cells(measurement, proxy, change.map(|change| (CHANGE, change)));
        let of_size = cells.filter(|cell| (cell.services, cell.endpoints) == (services, endpoints));
        median(&mut of_size.filter_map(|cell| percentile(&cell.samples, share)).collect::<Vec<_>>())
    }

    fn of_nftables(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        let full = |proxy, services| self.percentile("full-sync", proxy, (services, 2), None, 0.5);
        if let (Some(nft), Some(own)) = (full(NFT, 10_000), full(NFTABLES, 10_000)) {
            let name = "full sync at 10,000 × 2: times faster than nft -f with a map and a chain for each Service";
            bars.push(Bar::new(name, nft / own, Limit::AtLeast(50.0), "times"));
        }
        if let (Some(large), Some(small)) = (full(NFTABLES, 30_000), full(NFTABLES, 1_000)) {
            let name = "full sync, time per Service: 30,000 beside 1,000";
            bars.push(Bar::new(name, large / small / 30.0, Limit::AtMost(1.5), "times"));
        }
        // On a slow machine, a small size beside a smaller one shows the same.
        for (large, small) in [(10_000, 1_000), (1_000, 100)] {
            let growth = large as f64 / small as f64;
            let p50 = |services, change| self.percentile("one-change", NFTABLES, (services, 2), Some(change), 0.5);
            if let (Some(at_large), Some(at_small)) = (p50(large, "replace-endpoint"), p50(small, "replace-endpoint")) {
                let name = format!("one endpoint replaced, p50: {large} Services beside {small}");
                bars.push(Bar::new(name, at_large / at_small, Limit::AtMost(1.5), "times"));
            }
            for change in ["add-endpoint", "remove-endpoint", "add-service", "remove-service"] {
                if let (Some(at_large), Some(at_small)) = (p50(large, change), p50(small, change)) {
                    let change = change.replace('-', " ");
                    let name = format!("{change}, p50: {large} Services beside {small}, at most linear");
                    bars.push(Bar::new(name, at_large / at_small, Limit::AtMost(growth), "times"));
                }
            }
        }
        for change in ["add-endpoint", "remove-endpoint"] {
            if let Some(p99) = self.percentile("one-change", NFTABLES, (10_000, 2), Some(change), 0.99) {
                let name = format!("{} at 10,000, p99", change.replace('-', " "));
                bars.push(Bar::new(name, p99, Limit::AtMost(5.0), "ms"));
            }
        }
        bars
    }

    /// What the iptables modes may cost beside the tools that they write with.
    fn of_iptables(&self, mode: Mode) -> Vec<Bar> {
        let mut bars = Vec::new();
        let (own, tool) = (mode.proxy(), restore(mode));
        let mut sizes: Vec<_> =
            self.cells("full-sync", &tool, None).map(|cell| (cell.services, cell.endpoints)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for size in sizes {
            let p50 = |proxy: &str| self.percentile("full-sync", proxy, size, None, 0.5);
            if let (Some(own), Some(tool)) = (p50(&own), p50(&tool)) {
                let name =
                    format!("{}: full sync over a restore of the same rules, {} × {}", mode.name(), size.0, size.1);
                bars.push(Bar::new(name, own / tool, Limit::AtMost(1.3), "times"));
            }
        }
        let mut endpoints: Vec<_> = self.cells("one-change", &tool, None).map(|cell| cell.endpoints).collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        for endpoints in endpoints {
            let size = (5_000, endpoints);
            let p50 = |proxy: &str| self.percentile("one-change", proxy, size, Some("replace-endpoint"), 0.5);
            if let (Some(own), Some(tool)) = (p50(&own), p50(&tool)) {
                let name = format!("{}: one change over a restore of one chain, p50, 5,000 × {endpoints}", mode.name());
                bars.push(Bar::new(name, own / tool, Limit::AtMost(1.2), "times"));
            }
        }
        bars
    }

    /// What connections must not notice, in every mode.
    fn of_connections(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for mode in [Mode::Nftables, Mode::IptablesLegacy, Mode::IptablesNft] {
            let (proxy, name) = (mode.proxy(), mode.name());
            let sum = |measurement| {
                let samples: Vec<f64> =
                    self.cells(measurement, &proxy, None).flat_map(|cell| cell.samples.clone()).collect();
                (!samples.is_empty()).then(|| samples.iter().sum::<f64>())
            };
            if let Some(failures) = sum("torn-failures") {
                let connections = sum("torn-connections").unwrap_or_default();
                let bar = format!("{name}: torn reads, new connections");
                bars.push(Bar::new(bar, connections, Limit::AtLeast(500_000.0), "connections"));
                let bar = format!("{name}: torn reads, connections refused or lost");
                bars.push(Bar::new(bar, failures, Limit::AtMost(0.0), "connections"));
            }
            let rates = self.cells("torn-changes", &proxy, None).flat_map(|cell| cell.samples.clone());
            // A change takes an iptables tool longer than that.
            if mode == Mode::Nftables
                && let Some(rate) = rates.min_by(f64::total_cmp)
            {
                let bar = format!("{name}: torn reads, changes of endpoints");
                bars.push(Bar::new(bar, rate, Limit::AtLeast(200.0), "a second"));
            }
            for entries in ["1000", "100000"] {
                if let Some(slowest) = self.slowest("udp", &proxy, Some((ENTRIES, entries))) {
                    let bar =
                        format!("{name}: UDP client that keeps its socket follows, {entries} other entries, slowest");
                    bars.push(Bar::new(bar, slowest, Limit::AtMost(20.0), "ms"));
                }
            }
            if let Some(slowest) = self.slowest("flush", &proxy, None) {
                let bar = format!("{name}: nft flush ruleset, traffic is back, slowest");
                bars.push(Bar::new(bar, slowest, Limit::AtMost(1000.0), "ms"));
            }
            bars.extend(self.of_connect(mode));
        }
        bars
    }

    fn slowest(&self, measurement: &str, proxy: &str, label: Option<(&str, &str)>) -> Option<f64> {
        self.cells(measurement, proxy, label).flat_map(|cell| cell.samples.clone()).max_by(f64::total_cmp)
    }

    /// Connect time beside the most Services over that beside the fewest.
    fn of_connect(&self, mode: Mode) -> Option<Bar> {
        let proxy = mode.proxy();
        let form = (mode != Mode::Nftables).then_some((FORM, "tree"));
        let of = |services: usize| {
            let cells = self.cells("connect", &proxy, form).filter(|cell| cell.services == services);
            cells.map(|cell| cell.samples.as_slice()).collect::<Vec<_>>()
        };
        let few = self.cells("connect", &proxy, form).map(|cell| cell.services).min()?;
        let many = self.cells("connect", &proxy, form).map(|cell| cell.services).max()?;
        if few == many {
            return None;
        }
        let ratio = paired_ratio(&of(few), &of(many))?;
        Some(match mode {
            Mode::Nftables => {
                let name = format!(
                    "nftables: connect time beside {many} Services over beside {few}, upper end of the 95 % interval"
                );
                Bar::new(name, ratio.high, Limit::AtMost(1.05), "times")
            }
            _ => {
                let name = format!("{}: connect time in a tree, {many} Services over {few}", mode.name());
                Bar::new(name, ratio.ratio, Limit::AtMost(1.5), "times")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(measurement: &str, proxy: &str, services: usize, samples: &[f64]) -> Cell {
        Cell {
            measurement: measurement.to_owned(),
            proxy: proxy.to_owned(),
            services,
            endpoints: 2,
            samples: samples.to_vec(),
            ..Cell::default()
        }
    }

    fn labelled(cell: Cell, name: &str, value: &str) -> Cell {
        Cell { labels: [(name.to_owned(), value.to_owned())].into(), ..cell }
    }

    /// Figures that keep to every limit.
    fn kept() -> Vec<Cell> {
        let replace = |proxy: &str, services, ms| {
            labelled(cell("one-change", proxy, services, &[ms]), CHANGE, "replace-endpoint")
        };
        let mut cells = vec![
            cell("full-sync", NFTABLES, 10_000, &[20.0, 21.0, 90.0]),
            cell("full-sync", NFT, 10_000, &[5000.0]),
            replace(NFTABLES, 10_000, 0.2),
            replace(NFTABLES, 1_000, 0.2),
            cell("full-sync", "portway-iptables-legacy", 1_000, &[12.0]),
            cell("full-sync", "iptables-legacy-restore", 1_000, &[10.0]),
            replace("portway-iptables-legacy", 5_000, 11.0),
            replace("iptables-legacy-restore", 5_000, 10.0),
            cell("torn-connections", NFTABLES, 8, &[600_000.0]),
            cell("torn-failures", NFTABLES, 8, &[0.0]),
            cell("torn-changes", NFTABLES, 8, &[900.0]),
            labelled(cell("udp", NFTABLES, 100, &[1.0, 19.0]), ENTRIES, "1000"),
            cell("flush", NFTABLES, 10_000, &[100.0, 999.0]),
        ];
        for repeat in 0..20 {
            cells.push(Cell { repeat, ..cell("connect", NFTABLES, 10, &[40.0, 41.0, 42.0]) });
            cells.push(Cell { repeat, ..cell("connect", NFTABLES, 10_000, &[40.0, 41.0, 42.0]) });
        }
        cells
    }

    #[test]
    fn each_limit_is_held_against_its_own_figure() {
        let cells = kept();
        let all = bars(&cells);
        assert!(all.len() == 10 && all.iter().all(Bar::is_met), "{all:#?}");
        // Of each cell, a figure that misses exactly one limit.
        for (index, bad) in [
            (0, 200.0),
            (2, 0.4),
            (4, 14.0),
            (6, 13.0),
            (8, 400_000.0),
            (9, 1.0),
            (10, 100.0),
            (11, 21.0),
            (12, 1001.0),
        ] {
            let mut missed = cells.clone();
            missed[index].samples = vec![bad];
            let missed: Vec<_> = bars(&missed).into_iter().filter(|bar| !bar.is_met()).collect();
            assert_eq!(missed.len(), 1, "{index}: {missed:#?}");
        }
        let mut slow = cells;
        for cell in slow.iter_mut().filter(|cell| cell.measurement == "connect" && cell.services == 10_000) {
            cell.samples = vec![44.0, 45.0, 46.0];
        }
        assert_eq!(bars(&slow).iter().filter(|bar| !bar.is_met()).count(), 1);
    }
}
