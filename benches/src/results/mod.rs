//! Results of a run: what was measured, kept as JSON lines so that tables, plots and comparisons read one form.
//!
//! A file holds one [`Run`] line, which says what was measured where, and a [`Cell`] line for each repeat of each
//! measurement. Raw samples are kept: a percentile can be computed from them, but not the other way round.

mod cell;
pub(crate) mod compare;
mod conclude;
mod figures;
mod file;
mod group;
pub(crate) mod machine;
pub(crate) mod plot;
mod summary;

pub(crate) use cell::{Cell, Line, Run, Setting, Unit};
pub(crate) use conclude::{conclude, conclude_plainly};
pub(crate) use file::{Results, Writer};

/// Columns of text for tables: those of the terminal, as long as tables are readable in them.
fn width() -> usize {
    const PLAIN: usize = 140;
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(PLAIN, |size| size.ws_col.into());
    if terminal < 60 { PLAIN } else { terminal.min(200) }
}
