//! Where figures of a dataplane go: JSON lines for programs, a table of promises for people.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::machine::{kernel, processor};
use crate::progress::Progress;
pub(crate) use portway_bench_report::Limit;
use portway_bench_report::{Bar, bar_table};

/// All figures of one run.
pub(crate) struct Report {
    file: File,
    path: PathBuf,
    facts: Map<String, Value>,
    bars: Vec<Bar>,
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
            ("kernel", json!(kernel())),
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
        let bar = Bar::new(name, measured, limit, unit);
        self.record("bar", &bar)?;
        self.bars.push(bar);
        Ok(())
    }

    /// Makes the chosen measurements, or all if none is, one after the other. Success means that none failed and every
    /// promise was kept.
    pub(crate) fn measure<M: ValueEnum + fmt::Debug>(
        mut self,
        chosen: &[M],
        mut measure: impl FnMut(&M, &mut Self, &Progress) -> Result<()>,
    ) -> ExitCode {
        let progress = Progress::new();
        let chosen = if chosen.is_empty() { M::value_variants() } else { chosen };
        let mut failed = 0;
        for measurement in chosen {
            if let Err(error) = measure(measurement, &mut self, &progress) {
                failed += 1;
                eprintln!("{measurement:?} could not be measured: {error:#}");
            }
        }
        drop(progress);
        let kept = self.finish();
        if kept && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Prints the table of promises, and says whether all are kept.
    fn finish(&self) -> bool {
        if let Some(table) = bar_table(&self.bars) {
            eprintln!("{table}");
        }
        eprintln!("figures: {}", self.path.display());
        self.bars.iter().all(Bar::is_met)
    }
}
