//! Results of a run: what was measured, kept as JSON lines so that tables, plots and comparisons read one form.
//!
//! A file holds one [`Run`] line, which says what was measured where, and a [`Cell`] line for each repeat of each
//! measurement. Raw samples are kept: a percentile can be computed from them, but not the other way round.

mod cell;
mod file;
pub(crate) mod machine;

#[cfg_attr(not(test), expect(unused_imports, reason = "what measures into these lines comes next"))]
pub(crate) use cell::{Cell, Line, Run, Setting, Unit};
#[expect(unused_imports, reason = "what measures into these lines comes next")]
pub(crate) use file::{Results, Writer};
