//! Metrics that only one mode has (contract MET-1). A driver makes its own.

use std::fmt::Debug;

use portway_dataplane::FamilyReport;

use super::register::Registrar;
use crate::sync::SyncKind;

/// Makes and registers the metrics of one mode.
pub(crate) type NewModeMetrics = fn(&Registrar<'_>) -> prometheus::Result<Box<dyn ModeMetrics>>;

/// The metrics of one mode, fed with each report of its dataplane.
pub(crate) trait ModeMetrics: Debug + Send + Sync {
    /// Shows every counter of a family as zero, so that a first failure is a step from 0 to 1.
    fn show_zeros(&self, family: &str);

    /// Counts what a call of the dataplane did in one family.
    fn reported(&self, kind: SyncKind, report: &FamilyReport);
}
