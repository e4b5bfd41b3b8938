//! Results files: written cell by cell as it is measured, read whole.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Bar, Cell, Line, Run};

/// A run and what it measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Where they are kept.
    pub path: PathBuf,
    /// What was measured, and on what.
    pub run: Run,
    /// In the order in which they were measured.
    pub cells: Vec<Cell>,
    /// Figures that were held against limits, in the order in which they were.
    pub bars: Vec<Bar>,
}

/// Keeps what is measured: each cell is on the disk before the next one is measured.
pub struct Writer {
    file: File,
    results: Results,
}

impl Writer {
    /// Creates a file: at `out`, or as `target/bench/BENCH-TIME.jsonl`. Folders are made as needed.
    ///
    /// # Errors
    /// Fails if the file or its folder cannot be made.
    pub fn create(out: Option<&Path>, run: Run) -> Result<Self> {
        let named = || PathBuf::from(format!("target/bench/{}-{}.jsonl", run.bench, run.time));
        let path = out.map_or_else(named, Path::to_path_buf);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let line = Line::Run(run.clone());
        let mut writer = Self { file, results: Results { path, run, cells: Vec::new(), bars: Vec::new() } };
        writer.line(&line)?;
        Ok(writer)
    }

    /// Writes one cell.
    ///
    /// # Errors
    /// Fails if a sample is not finite, since JSON has no such number, or the file cannot be written.
    pub fn cell(&mut self, cell: Cell) -> Result<()> {
        if let Some(odd) = cell.samples.iter().chain(&cell.at).find(|number| !number.is_finite()) {
            bail!("{} of {}: {odd} is no measurement", cell.measurement, cell.proxy);
        }
        self.line(&Line::Cell(cell.clone()))?;
        self.results.cells.push(cell);
        Ok(())
    }

    /// Writes a figure that was held against a limit.
    ///
    /// # Errors
    /// Fails if the figure is not finite, or the file cannot be written.
    pub fn bar(&mut self, bar: Bar) -> Result<()> {
        if !bar.measured.is_finite() {
            bail!("{}: {} is no measurement", bar.name, bar.measured);
        }
        self.line(&Line::Bar(bar.clone()))?;
        self.results.bars.push(bar);
        Ok(())
    }

    /// What has been written so far.
    pub fn results(&self) -> &Results {
        &self.results
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).context("a line of results")?;
        text.push('\n');
        // In one write, so that a crash leaves whole lines.
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.results.path.display()))
    }
}

impl Results {
    /// Reads a file. A last line that was cut off by a crash is left out.
    ///
    /// # Errors
    /// Fails if the file cannot be read or a line of it is none of results; the error names the file and the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let name = path.display();
        let mut run = None;
        let (mut cells, mut bars) = (Vec::new(), Vec::new());
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = index + 1;
            let parsed = serde_json::from_str(line);
            let is_cut = parsed.is_err() && text[whole..] == *line && whole > 0;
            if is_cut {
                eprintln!("{name}: line {number} was cut off and is left out");
                break;
            }
            match (parsed.with_context(|| format!("{name}: line {number} is no line of results"))?, &run) {
                (Line::Run(line), None) => run = Some(line),
                (Line::Run(_), Some(_)) => bail!("{name}: line {number}: a second run in the same file"),
                (Line::Cell(_), None) => bail!("{name}: line {number}: a cell before the line that says what ran"),
                (Line::Bar(_), None) => bail!("{name}: line {number}: a bar before the line that says what ran"),
                (Line::Cell(cell), Some(_)) => cells.push(cell),
                (Line::Bar(bar), Some(_)) => bars.push(bar),
            }
        }
        let run = run.with_context(|| format!("{name}: no results are in it"))?;
        Ok(Self { path: path.to_path_buf(), run, cells, bars })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limit, Setting, Unit};
    use super::*;

    fn cell(proxy: &str, samples: &[f64]) -> Cell {
        Cell {
            measurement: "replace-idle".to_owned(),
            proxy: proxy.to_owned(),
            setting: Setting::Minimum,
            services: 1000,
            endpoints: 4,
            repeat: 1,
            labels: [("from".to_owned(), "pod".to_owned())].into(),
            unit: Unit::Milliseconds,
            samples: samples.to_vec(),
            at: samples.iter().map(|sample| sample * 2.0).collect(),
            failures: vec!["event 7 never reached traffic".to_owned()],
        }
    }

    fn run() -> Run {
        Run { bench: "sync".to_owned(), time: 7, machine: "a machine".to_owned(), ..Run::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/folder/results.jsonl");
        let mut writer = Writer::create(Some(&path), run()).expect("a file");
        assert_eq!(Results::read(&path).expect("a run without cells").cells, []);
        writer.cell(cell("a", &[0.1, 1.5])).expect("a cell");
        // Each is there at once, not when the writer ends.
        assert_eq!(Results::read(&path).expect("one cell").cells.len(), 1);
        writer.cell(cell("b", &[])).expect("a cell");
        let bar = Bar::new("replace-idle, p50", 1.5, Limit::AtMost(10.0), "ms");
        writer.bar(bar.clone()).expect("a bar");
        let read = Results::read(&path).expect("two cells");
        assert_eq!(read, *writer.results());
        assert_eq!(read.run, run());
        assert_eq!(read.cells, [cell("a", &[0.1, 1.5]), cell("b", &[])]);
        assert_eq!(read.bars, [bar]);
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.ends_with("\"limit\":{\"at-most\":10.0},\"unit\":\"ms\",\"verdict\":\"PASS\"}\n"), "{text}");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::create(Some(&folder.path().join("results.jsonl")), run()).expect("a file");
        let error = writer.cell(cell("a", &[f64::NAN])).expect_err("no number");
        assert_eq!(error.to_string(), "replace-idle of a: NaN is no measurement");
    }

    #[test]
    fn errors_name_file_and_line() {
        let parse = |text: &str| Results::parse(Path::new("some.jsonl"), text);
        let error = |text: &str| format!("{:#}", parse(text).expect_err("bad"));
        let first = serde_json::to_string(&Line::Run(run())).expect("text");
        let second = serde_json::to_string(&Line::Cell(cell("a", &[1.0]))).expect("text");
        assert_eq!(error(""), "some.jsonl: no results are in it");
        assert_eq!(error(&second), "some.jsonl: line 1: a cell before the line that says what ran");
        assert_eq!(error(&format!("{first}\n\n{first}\n")), "some.jsonl: line 3: a second run in the same file");
        let unknown = error(&format!("{first}\n{{\"line\":\"cake\"}}\n{second}\n"));
        assert!(unknown.starts_with("some.jsonl: line 2 is no line of results: unknown variant `cake`"), "{unknown}");
        // A line that the writer did not finish costs that line alone.
        let cut = format!("{first}\n{second}\n{}", &second[..40]);
        assert_eq!(parse(&cut).expect("what came before").cells.len(), 1);
    }
}
