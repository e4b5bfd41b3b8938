//! `compare A B`: what changed between two runs beyond noise.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use super::group::{Key, ROUTE};
use super::number;
use super::statistics::{Ratio, median, ratio};
use super::summary::samples;
use super::{Cell, Results, Run, Unit};

/// Options of `portway-bench compare`.
#[derive(clap::Args)]
pub struct Options {
    /// The results that came first.
    before: PathBuf,
    /// The results that are compared with them.
    after: PathBuf,
    /// The least change of a median that counts, in per cent.
    #[arg(long, default_value_t = 5.0)]
    threshold: f64,
    /// Ends with status 1 if anything got slower or bigger, or fails more.
    #[arg(long)]
    fail_on_regression: bool,
    /// Lists what is the same, too.
    #[arg(long)]
    all: bool,
}

/// What became of one proxy's measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// A time that got longer, a rate that got lower.
    Slower,
    /// Anything else of which there is more: memory, bytes, counts.
    More,
    /// It fails more often.
    FailsMore,
    Faster,
    Less,
    FailsLess,
    /// The interval allows for change as well as for none.
    TooNoisy,
    Same,
    OnlyBefore,
    OnlyAfter,
}

/// One proxy's measurement in both files.
struct Change {
    key: Key,
    proxy: String,
    unit: Unit,
    medians: [Option<f64>; 2],
    failures: [usize; 2],
    ratio: Option<Ratio>,
    verdict: Verdict,
}

/// Reads two results files and prints what changed. The exit status is 1 if that was asked for and something got worse.
///
/// # Errors
/// Fails if a file cannot be read.
pub fn run(options: &Options) -> Result<ExitCode> {
    let (before, after) = (Results::read(&options.before)?, Results::read(&options.after)?);
    for difference in differences(&before.run, &after.run) {
        println!("{difference}");
    }
    let changes = compare(&before.cells, &after.cells, options.threshold / 100.0);
    print!("{}", text(&changes, options.all, super::width()));
    let is_worse = changes.iter().any(|change| change.verdict.is_regression());
    Ok(if is_worse && options.fail_on_regression { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Verdict {
    fn is_regression(self) -> bool {
        matches!(self, Verdict::Slower | Verdict::More | Verdict::FailsMore)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Slower => "SLOWER",
            Verdict::More => "MORE",
            Verdict::FailsMore => "FAILS MORE",
            Verdict::Faster => "faster",
            Verdict::Less => "less",
            Verdict::FailsLess => "fails less",
            Verdict::TooNoisy => "too noisy to tell",
            Verdict::Same => "same",
            Verdict::OnlyBefore => "only in the first",
            Verdict::OnlyAfter => "only in the second",
        })
    }
}

/// What of the two runs' surroundings differs, a sentence each.
fn differences(before: &Run, after: &Run) -> Vec<String> {
    let memory = |run: &Run| format!("{:.1} GiB", run.memory as f64 / f64::from(1 << 30));
    let plain = [
        ("bench", before.bench.clone(), after.bench.clone()),
        ("machine", before.machine.clone(), after.machine.clone()),
        ("processors", before.processors.to_string(), after.processors.to_string()),
        ("memory", memory(before), memory(after)),
        ("kernel", before.kernel.clone(), after.kernel.clone()),
    ];
    let mut all: Vec<String> = plain
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| format!("differs: {what}: {before} → {after}; changes may come from that"))
        .collect();
    let tools: BTreeMap<_, _> = before.tools.iter().chain(&after.tools).collect();
    for tool in tools.into_keys() {
        let version = |run: &Run| run.tools.get(tool).cloned().unwrap_or_else(|| "absent".to_owned());
        if version(before) != version(after) {
            all.push(format!("differs: {tool}: {} → {}", version(before), version(after)));
        }
    }
    if before.commit != after.commit {
        all.push(format!("commit: {} → {}", before.commit, after.commit));
    }
    all
}

type Grouped<'a> = BTreeMap<(Key, &'a str), Vec<&'a Cell>>;

fn grouped(cells: &[Cell]) -> Grouped<'_> {
    let mut all = Grouped::new();
    for cell in cells {
        all.entry((Key::of(cell), &cell.proxy)).or_default().push(cell);
    }
    all
}

/// Every measurement of either run. `threshold` is the least change that counts, as a share.
fn compare(before: &[Cell], after: &[Cell], threshold: f64) -> Vec<Change> {
    let (before, after) = (grouped(before), grouped(after));
    let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let none = Vec::new();
    keys.into_iter()
        .map(|key| {
            let sides = [before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none)];
            let unit = sides.iter().find_map(|side| side.first()).map_or_else(Unit::default, |cell| cell.unit);
            let samples = sides.map(|side| samples(side));
            let medians = [0, 1].map(|side| median(&mut samples[side].concat()));
            let failures = sides.map(|side| side.iter().map(|cell| cell.failures.len()).sum());
            let ratio = ratio(&samples[0], &samples[1]);
            let mut change = Change {
                key: key.0.clone(),
                proxy: key.1.to_owned(),
                unit,
                medians,
                failures,
                ratio,
                verdict: Verdict::Same,
            };
            change.verdict = match (sides[0].is_empty(), sides[1].is_empty()) {
                (true, _) => Verdict::OnlyAfter,
                (_, true) => Verdict::OnlyBefore,
                _ => verdict(&change, samples.each_ref().map(|side| side.concat().len()), threshold),
            };
            change
        })
        .collect()
}

fn verdict(change: &Change, counts: [usize; 2], threshold: f64) -> Verdict {
    match change.failures {
        [before, after] if after > before => return Verdict::FailsMore,
        [before, after] if after < before => return Verdict::FailsLess,
        _ => {}
    }
    let worse = if change.unit.is_time() || change.unit.is_rate() { Verdict::Slower } else { Verdict::More };
    let better = if worse == Verdict::Slower { Verdict::Faster } else { Verdict::Less };
    let (more, less) = if change.unit.is_rate() { (better, worse) } else { (worse, better) };
    let Some(ratio) = change.ratio else {
        // No ratio can be formed with zero: a count that was nothing before.
        return match change.medians {
            [Some(before), Some(after)] if after > before => more,
            [Some(_), Some(_)] | [None, None] => Verdict::Same,
            _ => Verdict::TooNoisy,
        };
    };
    // A single figure tells nothing of its noise.
    if counts.contains(&1) && ratio.ratio != 1.0 {
        return Verdict::TooNoisy;
    }
    let (least, most) = (1.0 / (1.0 + threshold), 1.0 + threshold);
    if ratio.low > 1.0 && ratio.ratio >= most {
        more
    } else if ratio.high < 1.0 && ratio.ratio <= least {
        less
    } else if (least..=most).contains(&ratio.ratio) && ratio.low >= least * least && ratio.high <= most * most {
        Verdict::Same
    } else {
        Verdict::TooNoisy
    }
}

/// A row for each change, the worst kind first; then how many there are of each kind.
fn text(changes: &[Change], all: bool, width: usize) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_header(["measurement", "proxy", "median before → after", "× [95 % interval]", "verdict"]);
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    let mut sorted: Vec<&Change> = changes.iter().collect();
    sorted.sort_by_key(|change| change.verdict);
    for change in sorted {
        *counts.entry(change.verdict).or_default() += 1;
        if change.verdict == Verdict::Same && !all {
            continue;
        }
        let [before, after] = change.medians.map(|median| median.map_or_else(|| "–".to_owned(), number));
        let mut medians = format!("{before} → {after} {}", change.unit.symbol()).trim_end().to_owned();
        if change.failures != [0, 0] {
            medians.push_str(&format!("\nfailures {} → {}", change.failures[0], change.failures[1]));
        }
        let ratio = change.ratio.map_or_else(String::new, |ratio| {
            let [times, low, high] = [ratio.ratio, ratio.low, ratio.high].map(number);
            format!("×{times} [{low}–{high}]")
        });
        let route = change.key.labels.get(ROUTE).map_or_else(String::new, |route| format!(", {ROUTE} {route}"));
        let name = change.key.lines() + &route;
        table.add_row([name, change.proxy.clone(), medians, ratio, change.verdict.to_string()]);
    }
    let mut text = if table.is_empty() { String::new() } else { format!("{table}\n") };
    let counts: Vec<String> = counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    text.push_str(if counts.is_empty() { "nothing was measured in either" } else { "" });
    text.push_str(&counts.join(", "));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three repeats of 100 latencies around `median`, each repeat off by up to 3 %.
    fn cells(seed: u64, median: f64, unit: Unit) -> Vec<Cell> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..3)
            .map(|repeat| {
                let mood = 0.97 + 0.06 * random.f64();
                let samples = (0..100).map(|_| median * mood * (0.8 + 0.4 * random.f64())).collect();
                let (measurement, proxy) = ("replace-idle".to_owned(), "portway-nftables".to_owned());
                Cell { measurement, proxy, services: 1000, endpoints: 4, repeat, unit, samples, ..Cell::default() }
            })
            .collect()
    }

    fn one(before: &[Cell], after: &[Cell]) -> Verdict {
        let changes = compare(before, after, 0.05);
        assert_eq!(changes.len(), 1);
        changes[0].verdict
    }

    #[test]
    fn the_same_data_are_the_same() {
        let data = cells(1, 10.0, Unit::Milliseconds);
        assert_eq!(one(&data, &data), Verdict::Same);
    }

    #[test]
    fn a_third_more_is_slower_or_more_and_the_other_way_round() {
        for seed in 0..20 {
            let of = |median, unit| cells(seed + if median > 10.0 { 100 } else { 0 }, median, unit);
            let both = |unit| (of(10.0, unit), of(13.0, unit));
            let (less, more) = both(Unit::Milliseconds);
            assert_eq!((one(&less, &more), one(&more, &less)), (Verdict::Slower, Verdict::Faster));
            let (less, more) = both(Unit::PerSecond);
            assert_eq!((one(&less, &more), one(&more, &less)), (Verdict::Faster, Verdict::Slower));
            let (less, more) = both(Unit::Mebibytes);
            assert_eq!((one(&less, &more), one(&more, &less)), (Verdict::More, Verdict::Less));
        }
    }

    #[test]
    fn noise_alone_is_no_change() {
        for seed in 0..50 {
            let verdict = one(&cells(seed, 10.0, Unit::Milliseconds), &cells(seed + 1000, 10.0, Unit::Milliseconds));
            assert!(matches!(verdict, Verdict::Same | Verdict::TooNoisy), "seed {seed}: {verdict}");
        }
    }

    #[test]
    fn a_single_figure_tells_nothing_of_its_noise() {
        let single = |value| {
            let mut cell = cells(1, 10.0, Unit::Mebibytes).remove(0);
            cell.samples = vec![value];
            vec![cell]
        };
        assert_eq!(one(&single(60.0), &single(90.0)), Verdict::TooNoisy);
        assert_eq!(one(&single(60.0), &single(60.0)), Verdict::Same);
    }

    #[test]
    fn failures_and_counts_that_appear_are_regressions() {
        let sound = cells(1, 10.0, Unit::Milliseconds);
        let mut failing = sound.clone();
        failing[2].failures.push("event 3 never reached traffic".to_owned());
        assert_eq!((one(&sound, &failing), one(&failing, &sound)), (Verdict::FailsMore, Verdict::FailsLess));
        let count = |count| {
            let mut cell = cells(1, 10.0, Unit::Count).remove(0);
            cell.samples = vec![count];
            vec![cell]
        };
        assert_eq!((one(&count(0.0), &count(0.0)), one(&count(0.0), &count(2.0))), (Verdict::Same, Verdict::More));
    }

    #[test]
    fn what_is_in_one_file_alone_is_named_and_so_are_other_surroundings() {
        let data = cells(1, 10.0, Unit::Milliseconds);
        assert_eq!((one(&data, &[]), one(&[], &data)), (Verdict::OnlyBefore, Verdict::OnlyAfter));
        let run = |kernel: &str| Run { kernel: kernel.to_owned(), machine: "m".to_owned(), ..Run::default() };
        assert_eq!(differences(&run("6.1"), &run("6.1")), Vec::<String>::new());
        assert_eq!(differences(&run("6.1"), &run("6.18")), ["differs: kernel: 6.1 → 6.18; changes may come from that"]);
    }

    #[test]
    fn the_table_names_what_changed() {
        let (before, after) = (cells(1, 10.0, Unit::Milliseconds), cells(2, 20.0, Unit::Milliseconds));
        let text = text(&compare(&before, &after, 0.05), false, 120);
        assert!(
            text.contains("SLOWER") && text.contains("portway-nftables") && text.contains("1,000 × 4, default"),
            "{text}"
        );
        assert!(text.ends_with("1 SLOWER\n"), "{text}");
    }
}
