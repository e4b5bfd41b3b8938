//! Results of benchmarks: the lines of a results file, and the tables, comparisons and plots that are made from them.
//!
//! A results file is JSON lines: one [`Run`] line that names the machine, the tools and the command, a [`Cell`] line for
//! each repeat of each measurement of each proxy, and a [`Bar`] line for each limit that a figure was held against. Cells
//! keep raw samples, because percentiles can be computed from samples and not the other way round. This crate knows these
//! lines and nothing of how they were measured.
//!
//! ```
//! use portway_bench_report::{Cell, Results, Run, Unit, Writer, summary};
//!
//! # fn main() -> anyhow::Result<()> {
//! let path = std::env::temp_dir().join(format!("portway-bench-report-{}.jsonl", std::process::id()));
//! let mut writer = Writer::create(Some(&path), Run { bench: "sync".to_owned(), ..Run::default() })?;
//! writer.cell(Cell {
//!     measurement: "replace-idle".to_owned(),
//!     proxy: "portway-nftables".to_owned(),
//!     services: 1000,
//!     endpoints: 4,
//!     unit: Unit::Milliseconds,
//!     samples: vec![0.9, 1.1, 1.0],
//!     ..Cell::default()
//! })?;
//! let results = Results::read(&path)?;
//! assert!(summary::summary(&results, 100).contains("1,000 × 4"));
//! # std::fs::remove_file(&path)?;
//! # Ok(())
//! # }
//! ```

mod bar;
pub mod compare;
mod file;
mod group;
mod line;
mod number;
pub mod plot;
pub mod statistics;
pub mod summary;

pub use bar::{Bar, Limit, Outcome, table as bar_table};
pub use file::{Results, Writer};
pub use line::{Cell, Line, Run, Setting, Unit};
pub use number::{date, number};

/// Columns of text for tables: those of the terminal on standard output, between 60 and 200; 140 without a terminal.
pub fn width() -> usize {
    const PLAIN: usize = 140;
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(PLAIN, |size| size.ws_col.into());
    if terminal < 60 { PLAIN } else { terminal.min(200) }
}
