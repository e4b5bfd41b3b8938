//! `plot FILE…`: draws what a results file shows, as SVG files beside it, and as PNG where a person asks for it.
//!
//! Distributions of latencies, growth with the cluster's size, memory, and the timeline of what was measured one event at a
//! time. Which figures there are follows from the cells alone: units, sizes and labels, not from the names of
//! measurements.

mod axis;
mod figure;
mod png;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use axis::{Axis, Scale};
use figure::{Figure, Panel, Series, Style};

use super::group::{DIRECT, Key, ROUTE, Row, proxies, rows};
use super::number;
use super::statistics::{percentile_of_sorted, spread};
use super::summary::samples;
use super::{Results, Setting, Unit};

/// Samples that make a distribution.
const DISTRIBUTION: usize = 20;

/// Panels of a figure; what is beyond is left out, the smallest clusters first.
const PANELS: usize = 9;

/// The label of the number of backends of the Service that is probed.
const BACKENDS: &str = "backends";

/// Options of `portway-bench plot`.
#[derive(clap::Args)]
pub struct Options {
    /// Results files; their plots go beside them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Draws a PNG beside each SVG too (needs the font DejaVu Sans, Debian package fonts-dejavu-core).
    #[arg(long)]
    png: bool,
}

/// Draws the figures of each file and prints their names.
///
/// # Errors
/// Fails if a results file cannot be read, or a plot cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    for file in &options.files {
        for drawn in draw(&Results::read(file)?, options.png)? {
            println!("{}", drawn.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Draws all figures beside the results file, as SVG and if `png` is set as PNG too. Returns the files.
///
/// # Errors
/// Fails if a plot cannot be written, or the font that PNG files need is not installed.
pub fn draw(results: &Results, png: bool) -> Result<Vec<PathBuf>> {
    let stem = results.path.file_stem().context("the results file has no name")?.to_string_lossy().into_owned();
    let mut files = Vec::new();
    for figure in figures(results) {
        let svg = figure.svg()?;
        let path = results.path.with_file_name(format!("{stem}-{}.svg", figure.name));
        std::fs::write(&path, &svg).with_context(|| format!("cannot write {}", path.display()))?;
        if png {
            let picture = path.with_extension("png");
            png::write(&svg, &picture)?;
            files.push(picture);
        }
        files.push(path);
    }
    Ok(files)
}

/// What all figures of a file need.
struct Context<'a> {
    rows: Vec<Row<'a>>,
    proxies: Vec<&'a str>,
    subtitle: String,
}

fn figures(results: &Results) -> Vec<Figure> {
    let context =
        Context { rows: rows(&results.cells), proxies: proxies(&results.cells), subtitle: results.run.headline() };
    let mut all = context.distributions();
    let kinds: [(&str, &str, IsOfKind); 4] = [
        ("latency", "Times", Unit::is_time),
        ("memory", "Memory", |unit| unit == Unit::Mebibytes),
        ("rates", "Rates", Unit::is_rate),
        ("traffic", "Bytes", |unit| unit == Unit::Bytes),
    ];
    for (name, what, is_of_kind) in kinds {
        all.extend(context.growth(name, what, is_of_kind, Across::Services));
        all.extend(context.growth(name, what, is_of_kind, Across::Backends));
    }
    all.extend(context.timelines());
    all
}

/// What plain lines and dashed ones stand for.
type Dashes = (&'static str, &'static str);

/// The two ways to an endpoint.
const ROUTES: Dashes = ("through a Service's address", "direct");

/// The sizes at which something was measured, in ascending order.
fn sizes(rows: &[&Row<'_>], across: Across) -> Vec<f64> {
    let sizes: BTreeSet<usize> = rows.iter().filter_map(|row| across.of(&row.key)).collect();
    sizes.into_iter().map(|size| size as f64).collect()
}

/// Whether samples of a unit belong into a figure.
type IsOfKind = fn(Unit) -> bool;

/// Along what something grows.
#[derive(Clone, Copy, PartialEq)]
enum Across {
    Services,
    Backends,
}

impl Across {
    fn of(self, key: &Key) -> Option<usize> {
        match self {
            Across::Services => Some(key.services),
            Across::Backends => key.labels.get(BACKENDS)?.parse().ok(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Across::Services => "Services",
            Across::Backends => "Backends",
        }
    }

    /// The key with nothing of this left in it.
    fn without(self, key: &Key) -> Key {
        let mut key = key.clone();
        match self {
            Across::Services => key.services = 0,
            Across::Backends => drop(key.labels.remove(BACKENDS)),
        }
        key
    }
}

impl Context<'_> {
    fn figure(&self, name: String, title: String, panels: Vec<Panel>) -> Figure {
        Figure { name, title, subtitle: self.subtitle.clone(), panels, stacked: false, dashes: None }
    }

    fn index(&self, proxy: &str) -> usize {
        self.proxies.iter().position(|other| *other == proxy).unwrap_or_default()
    }

    /// For each measurement and pacing, which share of the events took how long.
    fn distributions(&self) -> Vec<Figure> {
        let has_many = |row: &&Row<'_>| {
            let count = |cells: &Vec<_>| samples(cells).iter().map(|samples| samples.len()).sum::<usize>();
            row.unit.is_time() && row.cells.values().any(|cells| count(cells) >= DISTRIBUTION)
        };
        let mut groups: BTreeMap<_, Vec<&Row<'_>>> = BTreeMap::new();
        for row in self.rows.iter().filter(has_many) {
            groups.entry((&row.key.measurement, row.key.setting)).or_default().push(row);
        }
        let figure = |((measurement, setting), rows): ((&String, _), Vec<&Row<'_>>)| {
            let mut panels: BTreeMap<Key, Vec<&Row<'_>>> = BTreeMap::new();
            let mut has_routes = false;
            for row in rows {
                let mut key = row.key.clone();
                has_routes |= key.labels.remove(ROUTE).is_some();
                panels.entry(key).or_default().push(row);
            }
            let panels = last(panels);
            let all = panels.iter().flat_map(|(_, rows)| rows.iter().copied());
            let values = all.flat_map(|row| row.cells.values().flatten().flat_map(|cell| cell.samples.iter().copied()));
            let unit = panels.first().and_then(|(_, rows)| rows.first()).map_or("", |row| row.unit.symbol());
            let x = Axis::over(Scale::Log, &format!("time, {unit} (logarithmic)"), values);
            let y = Axis::over(Scale::Nines, "share of events within this time", std::iter::empty());
            let panel = |(key, rows): (Key, Vec<&Row<'_>>)| {
                let series = rows.iter().flat_map(|row| self.shares(row)).collect();
                Panel { title: place(&key), x: x.clone(), y: y.clone(), series }
            };
            let panels = panels.into_iter().map(panel).collect();
            let name = format!("distribution-{measurement}-{setting}");
            let title = format!("{measurement}: distribution, {setting} pacing");
            let mut figure = self.figure(name, title, panels);
            figure.dashes = has_routes.then_some(ROUTES);
            figure
        };
        groups.into_iter().map(figure).collect()
    }

    /// The samples of each proxy in ascending order, with the share that each ends.
    fn shares(&self, row: &Row<'_>) -> Vec<Series> {
        /// Points that are drawn of the bulk; all of the slowest are.
        const POINTS: usize = 500;
        let is_direct = row.key.labels.get(ROUTE).is_some_and(|route| route == DIRECT);
        let series = |(proxy, cells): (&&str, &Vec<_>)| {
            let mut sorted = samples(cells).concat();
            sorted.sort_by(f64::total_cmp);
            let count = sorted.len();
            let step = (count / POINTS).max(1);
            let is_drawn = |index: &usize| index.is_multiple_of(step) || *index + 100 > count;
            let point = |index: usize| (sorted[index], (index + 1) as f64 / count as f64);
            let points = (0..count).filter(is_drawn).map(point).collect();
            let style = if is_direct { Style::Dashes } else { Style::Line };
            Series { name: (*proxy).to_owned(), index: self.index(proxy), style, points }
        };
        row.cells.iter().map(series).collect()
    }

    /// How what is of one kind grows: a figure for each pacing, in it a panel for each measurement and its labels.
    fn growth(&self, name: &str, what: &str, is_of_kind: IsOfKind, across: Across) -> Vec<Figure> {
        let mut groups: Vec<(Key, Vec<&Row<'_>>)> = Vec::new();
        for row in self.rows.iter().filter(|row| is_of_kind(row.unit) && across.of(&row.key).is_some()) {
            let mut key = across.without(&row.key);
            key.labels.remove(ROUTE);
            match groups.iter_mut().find(|(other, _)| *other == key) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((key, vec![row])),
            }
        }
        // One size shows no growth. Memory is worth a look all the same.
        groups.retain(|(_, rows)| sizes(rows, across).len() > 1 || (name == "memory" && across == Across::Services));
        let settings: BTreeSet<Setting> = groups.iter().map(|(key, _)| key.setting).collect();
        let figure = |setting: Setting| {
            let mut dashes = None;
            let chosen = groups.iter().filter(|(key, _)| key.setting == setting);
            let panels = chosen.map(|(key, rows)| self.grown(key, rows, across, &mut dashes)).collect();
            let along = across.name();
            let title = format!("{what} by number of {along}, {setting} pacing: medians of the repeats");
            let mut figure = self.figure(format!("{name}-by-{}-{setting}", along.to_lowercase()), title, panels);
            figure.dashes = dashes;
            figure
        };
        settings.into_iter().map(figure).collect()
    }

    /// One panel of growth.
    fn grown(&self, key: &Key, rows: &[&Row<'_>], across: Across, dashes: &mut Option<Dashes>) -> Panel {
        let unit = rows[0].unit;
        let mut series = self.sizes(rows, across, 0.5, Style::Marked);
        let has_tail =
            rows.iter().any(|row| row.cells.values().flatten().any(|cell| cell.samples.len() >= DISTRIBUTION));
        if rows.iter().any(|row| row.key.labels.contains_key(ROUTE)) {
            *dashes = Some(ROUTES);
        } else if has_tail && unit.is_time() {
            *dashes = Some(("p50", "p99"));
            series.extend(self.sizes(rows, across, 0.99, Style::Dashed));
        }
        let scale = if unit.is_time() { Scale::Log } else { Scale::Linear };
        let all = series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
        let y = Axis::over(scale, &axis_name(unit, scale), all);
        let x = Axis::at(&format!("{} (logarithmic)", across.name()), &sizes(rows, across));
        Panel { title: title(key, across), x, y, series }
    }

    /// A percentile at each size, for each proxy; what goes straight to an endpoint by dashes.
    fn sizes(&self, rows: &[&Row<'_>], across: Across, share: f64, style: Style) -> Vec<Series> {
        let mut all: BTreeMap<(&str, bool), Vec<(f64, f64)>> = BTreeMap::new();
        for row in rows {
            let is_direct = row.key.labels.get(ROUTE).is_some_and(|route| route == DIRECT);
            let Some(size) = across.of(&row.key) else { continue };
            for (proxy, cells) in &row.cells {
                if let Some(spread) = spread(cells, share) {
                    all.entry((proxy, is_direct)).or_default().push((size as f64, spread.middle));
                }
            }
        }
        let series = |((proxy, is_direct), mut points): ((&str, bool), Vec<(f64, f64)>)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let style = if is_direct { Style::Dashed } else { style };
            Series { name: proxy.to_owned(), index: self.index(proxy), style, points }
        };
        all.into_iter().map(series).collect()
    }

    /// What was measured one event after the other, at the greatest size, a panel for each proxy.
    fn timelines(&self) -> Vec<Figure> {
        let has_times =
            |row: &&Row<'_>| row.unit.is_time() && row.cells.values().flatten().any(|cell| !cell.at.is_empty());
        let mut greatest: BTreeMap<_, &Row<'_>> = BTreeMap::new();
        for row in self.rows.iter().filter(has_times) {
            // Rows come in ascending order of size.
            greatest.insert((&row.key.measurement, row.key.setting, &row.key.labels), row);
        }
        greatest.into_values().map(|row| self.timeline(row)).collect()
    }

    fn timeline(&self, row: &Row<'_>) -> Figure {
        let points = |cells: &Vec<&super::Cell>| -> Vec<(f64, f64)> {
            cells.iter().flat_map(|cell| cell.at.iter().copied().zip(cell.samples.iter().copied())).collect()
        };
        let all: Vec<(f64, f64)> = row.cells.values().flat_map(points).collect();
        let x = Axis::over(Scale::Linear, "time since the measurement began, s", all.iter().map(|point| point.0));
        let y = Axis::over(Scale::Log, &axis_name(row.unit, Scale::Log), all.iter().map(|point| point.1));
        let mut order: Vec<_> = row.cells.iter().collect();
        order.sort_by_key(|(proxy, _)| self.index(proxy));
        let panel = |(proxy, cells): (&&str, &Vec<_>)| {
            let (name, index) = ((*proxy).to_owned(), self.index(proxy));
            let middle = {
                let mut sorted = samples(cells).concat();
                sorted.sort_by(f64::total_cmp);
                let at = |share| percentile_of_sorted(&sorted, share).map_or_else(String::new, number);
                format!("{name}: p50 {}, p99 {} {}", at(0.5), at(0.99), row.unit.symbol())
            };
            let series = vec![Series { name, index, style: Style::Dots, points: points(cells) }];
            Panel { title: middle, x: x.clone(), y: y.clone(), series }
        };
        let panels = order.into_iter().map(panel).collect();
        let labels: String = row.key.labels.values().map(|value| format!("-{value}")).collect();
        let name = format!("timeline-{}-{}{labels}", row.key.measurement, row.key.setting);
        let mut figure =
            self.figure(name, format!("{}: each event when it came; {}", row.key.measurement, place(&row.key)), panels);
        figure.stacked = true;
        figure
    }
}

/// The greatest keys, as many as panels are drawn of distributions.
fn last<T>(groups: BTreeMap<Key, T>) -> Vec<(Key, T)> {
    let skipped = groups.len().saturating_sub(PANELS);
    groups.into_iter().skip(skipped).collect()
}

fn axis_name(unit: Unit, scale: Scale) -> String {
    let what = match unit {
        _ if unit.is_time() => "time",
        Unit::Mebibytes => "memory",
        Unit::Bytes => "bytes",
        Unit::Count => return "count".to_owned(),
        Unit::PerSecond => return "per second".to_owned(),
        _ => "throughput",
    };
    let log = if scale == Scale::Log { " (logarithmic)" } else { "" };
    format!("{what}, {}{log}", unit.symbol())
}

/// The size and the labels of a panel.
fn place(key: &Key) -> String {
    let labels = key.labels.iter().map(|(name, value)| format!(", {name} {value}"));
    format!("{} Services × {} endpoints{}", number(key.services as f64), key.endpoints, labels.collect::<String>())
}

/// The title of a panel of growth: without what grows.
fn title(key: &Key, across: Across) -> String {
    let labels: String = key.labels.iter().map(|(name, value)| format!(", {name} {value}")).collect();
    let services = match across {
        Across::Services => String::new(),
        Across::Backends => format!(", {} Services", number(key.services as f64)),
    };
    format!("{}{services} × {}{labels}", key.measurement, key.endpoints)
}

#[cfg(test)]
mod tests {
    use super::super::{Cell, Run};
    use super::*;

    /// What a run of `sync` with two proxies and of `path` with one leaves.
    fn results(folder: &std::path::Path) -> Results {
        let mut random = fastrand::Rng::with_seed(5);
        let mut cells = Vec::new();
        for (proxy, base) in [("portway-nftables", 1.0), ("a<b>&c", 12.0)] {
            for services in [1000, 10_000] {
                for repeat in 0..2 {
                    let mut sample = || base * (services as f64).powf(0.2) * (random.f64() * 3.0).exp();
                    let cell = Cell { proxy: proxy.to_owned(), services, endpoints: 4, repeat, ..Cell::default() };
                    let samples: Vec<f64> = (0..100).map(|_| sample()).collect();
                    let at = (0..100).map(|i| f64::from(i) / 10.0).collect();
                    let measurement = "replace-churn".to_owned();
                    cells.push(Cell { measurement, setting: Setting::Minimum, samples, at, ..cell.clone() });
                    let samples = vec![60.0 * base];
                    cells.push(Cell {
                        measurement: "memory".to_owned(),
                        unit: Unit::Mebibytes,
                        samples,
                        ..cell.clone()
                    });
                    for route in ["vip", DIRECT] {
                        let labels =
                            [(ROUTE.to_owned(), route.to_owned()), ("from".to_owned(), "pod".to_owned())].into();
                        let (measurement, unit) = ("connection-rate".to_owned(), Unit::PerSecond);
                        cells.push(Cell { measurement, unit, labels, samples: vec![9000.0], ..cell.clone() });
                    }
                }
            }
        }
        let run =
            Run { bench: "sync".to_owned(), machine: "Some machine".to_owned(), time: 1_795_305_600, ..Run::default() };
        Results { path: folder.join("run.jsonl"), run, cells, bars: Vec::new() }
    }

    #[test]
    fn figures_are_drawn_and_name_proxies_and_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = results(folder.path());
        for figure in figures(&results) {
            let svg = figure.svg().expect("a figure");
            for wanted in ["portway-nftables", "a&lt;b&gt;&amp;c", "Some machine", "2026-11-22"] {
                assert!(svg.contains(wanted), "{}: no {wanted}", figure.name);
            }
        }
        let svg_alone = draw(&results, false).expect("plots");
        assert!(svg_alone.len() == 5 && svg_alone.iter().all(|file| file.extension().is_some_and(|end| end == "svg")));
        if !std::path::Path::new("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf").exists() {
            println!(
                "SKIPPED the PNG files of figures_are_drawn_and_name_proxies_and_machine: needs fonts-dejavu-core"
            );
            return;
        }
        let mut drawn = draw(&results, true).expect("plots");
        drawn.sort();
        let names: Vec<_> = drawn.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        let stems = [
            "distribution-replace-churn-minimum",
            "latency-by-services-minimum",
            "memory-by-services-default",
            "rates-by-services-default",
            "timeline-replace-churn-minimum",
        ];
        let wanted: Vec<_> =
            stems.iter().flat_map(|stem| [format!("run-{stem}.png"), format!("run-{stem}.svg")]).collect();
        assert_eq!(names, wanted);
        for file in drawn.iter().filter(|file| file.extension().is_some_and(|end| end == "png")) {
            let bytes = std::fs::read(file).expect("a file");
            assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{}", file.display());
        }
    }

    #[test]
    fn nothing_measured_draws_nothing() {
        let none = Results { path: "none.jsonl".into(), run: Run::default(), cells: Vec::new(), bars: Vec::new() };
        assert_eq!(draw(&none, true).expect("no plots"), Vec::<PathBuf>::new());
    }
}
