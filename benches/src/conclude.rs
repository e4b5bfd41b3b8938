//! The end of a run, however it came: the table of what was measured, the bars, the plots.

use std::process::ExitCode;

use anyhow::Result;
use portway_bench_report::{Bar, Writer, bar_table, plot, summary, width};

use crate::stop::{STATUS, Stopped};

/// Prints what was measured, writes and prints the bars, and draws the plots beside the results file if `has_plots` is
/// set. `measured` says how measuring ended: after Ctrl-C or an error, what came before it is shown all the same.
pub(crate) fn conclude(writer: &mut Writer, measured: Result<()>, bars: Vec<Bar>, has_plots: bool) -> ExitCode {
    let is_met = bars.iter().all(Bar::is_met);
    let written = bars.into_iter().try_for_each(|bar| writer.bar(bar));
    let results = writer.results();
    println!("{}", results.run.headline());
    print!("{}", summary::summary(results, width()));
    if let Some(table) = bar_table(&results.bars) {
        println!("{table}");
    }
    for failure in summary::failures(results) {
        println!("{failure}");
    }
    match if has_plots { plot::draw(results, false) } else { Ok(Vec::new()) } {
        Ok(files) if files.is_empty() => {}
        Ok(files) => {
            println!("plots: {}", files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" "));
        }
        Err(error) => eprintln!("the plots could not be drawn: {error:#}"),
    }
    println!("results: {}", results.path.display());
    match measured.and(written) {
        Ok(()) if is_met => ExitCode::SUCCESS,
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
