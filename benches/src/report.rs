//! Where figures go: JSON lines for programs, a table of promises for people.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// All figures of one run.
pub(crate) struct Report {
    file: File,
    path: PathBuf,
    facts: Map<String, Value>,
    bars: Vec<Bar>,
}

/// A promise, and what was measured.
struct Bar {
    name: String,
    measured: f64,
    limit: Limit,
    unit: &'static str,
}

/// What a figure must keep to.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bar {
    fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.measured <= limit,
            Limit::AtLeast(limit) => self.measured >= limit,
        }
    }

    fn limit(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Limit::AtLeast(limit) => format!("≥ {limit} {}", self.unit),
        }
    }
}

impl Report {
    /// A report into `file`, or into a new one in `target/bench`. `commit` says what is measured.
    pub(crate) fn new(file: Option<&Path>, commit: &str) -> Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs();
        let path = file.map_or_else(|| format!("target/bench/nftables-{seconds}.jsonl").into(), Path::to_path_buf);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let facts = [
            ("time", json!(seconds)),
            ("commit", json!(commit)),
            ("kernel", json!(rustix::system::uname().release().to_string_lossy())),
            ("machine", json!(processor())),
            ("processors", json!(std::thread::available_parallelism().map_or(1, usize::from))),
        ];
        let facts = facts.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        Ok(Self { file, path, facts, bars: Vec::new() })
    }

    /// Writes one figure, with what is known of the machine.
    pub(crate) fn record(&mut self, measurement: &str, figures: impl Serialize) -> Result<Value> {
        let figures = serde_json::to_value(figures).context("figures")?;
        let mut line = Map::from_iter([("measurement".to_owned(), json!(measurement))]);
        line.extend(figures.as_object().cloned().unwrap_or_default());
        line.extend(self.facts.clone());
        let text = serde_json::to_string(&line).context("figures")?;
        println!("{text}");
        writeln!(self.file, "{text}").with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(figures)
    }

    /// Holds a figure against a promise.
    pub(crate) fn bar(&mut self, name: &str, measured: f64, limit: Limit, unit: &'static str) -> Result<()> {
        let bar = Bar { name: name.to_owned(), measured, limit, unit };
        let verdict = if bar.is_met() { "PASS" } else { "MISS" };
        let figures =
            json!({ "bar": name, "measured": measured, "limit": bar.limit(), "unit": unit, "verdict": verdict });
        self.record("bar", figures)?;
        self.bars.push(bar);
        Ok(())
    }

    /// Prints the table of promises, and says whether all are kept.
    pub(crate) fn finish(&self) -> bool {
        if !self.bars.is_empty() {
            let mut table = Table::new();
            table.load_style(UTF8_BORDERS_ONLY).set_header(["promise", "measured", "bar", ""]);
            for bar in &self.bars {
                let verdict = if bar.is_met() { "PASS" } else { "MISS" };
                table.add_row([&bar.name, &format!("{:.3} {}", bar.measured, bar.unit), &bar.limit(), verdict]);
            }
            eprintln!("{table}");
        }
        eprintln!("figures: {}", self.path.display());
        self.bars.iter().all(Bar::is_met)
    }
}

/// What the processor calls itself.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}
