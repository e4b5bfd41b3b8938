//! The table at the end of a run: what was measured by size and pacing, a column for each proxy.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use super::group::{DIRECT, Key, ROUTE, Row, proxies, rows};
use super::number;
use super::statistics::{median, paired_ratio, spread};
use super::{Cell, Results, Unit};

/// Columns of text that the names of measurements need, with their border.
const NAMES: usize = 30;

/// Columns of text that a proxy needs, with its border.
const PROXY: usize = 34;

/// The summary as text, `width` columns wide at most where there is one proxy or more to a table. Where proxies do not fit
/// side by side, more tables follow.
pub fn summary(results: &Results, width: usize) -> String {
    let proxies = proxies(&results.cells);
    let rows = rows(&results.cells);
    let Some(&first) = proxies.first() else { return "nothing was measured\n".to_owned() };
    let side_by_side = (width.saturating_sub(NAMES) / PROXY).max(1);
    let mut text = String::new();
    for some in proxies.chunks(side_by_side) {
        text.push_str(&table(&rows, first, some, width).to_string());
        text.push('\n');
    }
    text.push_str("(a–b) least and greatest of the repeats; n samples of all repeats together\n");
    text.push_str(&format!("× median over that of {first} in the same row\n"));
    if rows.iter().any(|row| row.key.labels.contains_key(ROUTE)) {
        text.push_str("vip/direct × [95 % interval] through a Service's address over straight to an endpoint\n");
    }
    text
}

fn table(rows: &[Row<'_>], first: &str, proxies: &[&str], width: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_header(std::iter::once("measurement").chain(proxies.iter().copied()));
    let by_key: BTreeMap<&Key, &Row<'_>> = rows.iter().map(|row| (&row.key, row)).collect();
    for row in rows {
        let is_beside = row.key.labels.get(ROUTE).is_some_and(|route| route == DIRECT)
            && rows.iter().any(|other| other.key.direct().as_ref() == Some(&row.key));
        if is_beside {
            // It stands in the row of what goes through a Service's address.
            continue;
        }
        let direct = row.key.direct().and_then(|key| by_key.get(&key).copied());
        let cells = proxies.iter().map(|proxy| cell(row, direct, first, proxy));
        table.add_row(std::iter::once(row.key.lines()).chain(cells));
    }
    table
}

/// What one proxy did.
fn cell(row: &Row<'_>, direct: Option<&Row<'_>>, first: &str, proxy: &str) -> String {
    let Some(repeats) = row.cells.get(proxy) else { return "–".to_owned() };
    let samples = samples(repeats);
    let failures: usize = repeats.iter().map(|cell| cell.failures.len()).sum();
    let count: usize = samples.iter().map(|samples| samples.len()).sum();
    let mut lines = Vec::new();
    if let Some(middle) = spread(repeats, 0.5) {
        let is_one_each = samples.iter().all(|samples| samples.len() <= 1);
        let mut line = if is_one_each { String::new() } else { "p50 ".to_owned() };
        line.push_str(&number(middle.middle));
        if repeats.len() > 1 {
            line.push_str(&format!(" ({}–{})", number(middle.least), number(middle.most)));
        }
        line.push_str(&unit(row.unit));
        if proxy != first
            && let Some(times) = times(row.cells.get(first), middle.middle)
        {
            line.push_str(&format!("  ×{}", number(times)));
        }
        lines.push(line);
        if !is_one_each && direct.is_none() {
            lines.push(tail(row.unit, repeats));
        }
    }
    if let Some(beside) = direct.and_then(|row| row.cells.get(proxy)) {
        lines.extend(over_direct(repeats, beside));
    }
    let mut counts = if count > 1 { format!("n {}", number(count as f64)) } else { String::new() };
    if failures > 0 || count == 0 {
        let comma = if counts.is_empty() { "" } else { ", " };
        counts.push_str(&format!("{comma}{failures} failed"));
    } else if count > repeats.len() && direct.is_none() {
        counts.push_str(", none failed");
    }
    lines.extend((!counts.is_empty()).then_some(counts));
    lines.join("\n")
}

/// The median, as a multiple of the first proxy's.
fn times(first: Option<&Vec<&Cell>>, middle: f64) -> Option<f64> {
    let first = spread(first?, 0.5)?.middle;
    (first != 0.0).then(|| middle / first)
}

/// What lies beyond the median: the high end, or where more is better the low end.
fn tail(unit: Unit, repeats: &[&Cell]) -> String {
    let middle = |share| spread(repeats, share).map_or(f64::NAN, |spread| spread.middle);
    let end = |share: f64| spread(repeats, share);
    if unit.is_rate() {
        let least = end(0.0).map_or(f64::NAN, |spread| spread.least);
        return format!("p10 {}, min {}", number(middle(0.1)), number(least));
    }
    let p99 = end(0.99).map_or_else(String::new, |p99| {
        let range =
            if repeats.len() > 1 { format!(" ({}–{})", number(p99.least), number(p99.most)) } else { String::new() };
        format!("p99 {}{range}", number(p99.middle))
    });
    let max = end(1.0).map_or(f64::NAN, |spread| spread.most);
    format!("{p99}\np90 {}, max {}", number(middle(0.9)), number(max))
}

/// A median beside that of the same without a proxy.
fn over_direct(repeats: &[&Cell], direct: &[&Cell]) -> Option<String> {
    let below = samples(direct);
    let ratio = paired_ratio(&below, &samples(repeats))?;
    let median = median(&mut below.concat())?;
    let [times, low, high] = [ratio.ratio, ratio.low, ratio.high].map(number);
    Some(format!("direct {}\nvip/direct ×{times} [{low}–{high}]", number(median)))
}

/// The first three failures of each measurement in words, a line for each measurement that has any.
pub fn failures(results: &Results) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut lines = Vec::new();
    for cell in results.cells.iter().filter(|cell| !cell.failures.is_empty()) {
        let shown = cell.failures.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more =
            if cell.failures.len() > SHOWN { format!(" … {} in all", cell.failures.len()) } else { String::new() };
        lines.push(format!("failed: {}, repeat {}, {}: {shown}{more}", Key::of(cell), cell.repeat, cell.proxy));
    }
    lines
}

/// The samples of each repeat that has any.
pub(crate) fn samples<'a>(repeats: &[&'a Cell]) -> Vec<&'a [f64]> {
    repeats.iter().map(|cell| cell.samples.as_slice()).filter(|samples| !samples.is_empty()).collect()
}

fn unit(unit: Unit) -> String {
    match unit {
        Unit::Count => String::new(),
        Unit::PerSecond => unit.symbol().to_owned(),
        _ => format!(" {}", unit.symbol()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Run, Setting, Unit};
    use super::*;

    fn results(cells: Vec<Cell>) -> Results {
        Results { path: "some.jsonl".into(), run: Run::default(), cells, bars: Vec::new() }
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
            let text = summary(&results, width);
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
