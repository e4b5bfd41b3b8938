//! What a dataplane reports: writes, refusals, drift, and what a clean-up removed.

use std::fmt;
use std::time::Duration;

pub use crate::error::DataplaneError;
use portway_model::{Family, ServiceName};

/// What one call wrote. A family that had nothing to write may have no entry: the kernel holds what it should, which is as
/// good as a write that succeeded.
#[derive(Debug, Default)]
pub struct Report {
    /// One entry for each family that was written, or that failed.
    pub families: Vec<FamilyReport>,
}

impl Report {
    /// Whether a family as a whole failed, so that the next call must be a [`Dataplane::sync`](crate::Dataplane::sync).
    pub fn failed(&self) -> bool {
        self.families.iter().any(|family| family.error.is_some())
    }

    /// Whether a family holds what the call was to bring about, be it that it was written or that nothing was to write.
    /// Everything that waits for a write (conntrack clean-up, trigger times, metrics) goes by this.
    pub fn succeeded(&self, family: Family) -> bool {
        !self.families.iter().any(|reported| reported.family == family && reported.error.is_some())
    }

    /// How many objects the call wrote in a family.
    pub fn objects(&self, family: Family) -> usize {
        self.families.iter().filter(|reported| reported.family == family).map(|reported| reported.objects).sum()
    }

    /// Every object that the kernel refused, in both families.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.families.iter().flat_map(|family| &family.refused)
    }
}

/// What one call wrote in one family.
#[derive(Debug)]
pub struct FamilyReport {
    /// The address family that this entry is about.
    pub family: Family,
    /// Objects added, changed and removed (elements, chains, rules …).
    pub objects: usize,
    /// Bytes handed to the kernel or to its tool.
    pub bytes: usize,
    /// Time to diff and encode what to write.
    pub render: Duration,
    /// Time the kernel, or its tool, took.
    pub commit: Duration,
    /// Objects that the kernel refused and that were left as they were, while the rest was applied.
    pub refused: Vec<Refused>,
    /// Writes that failed, also where a later one of the same call succeeded.
    pub failures: usize,
    /// Counts that only one mode has; the mode's own metrics read them.
    pub details: Vec<Detail>,
    /// Why the family as a whole failed; nothing of the call was applied then.
    pub error: Option<DataplaneError>,
}

/// A count that one mode reports beside those of [`FamilyReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The quantity, a constant of the mode's module (such as [`crate::iptables::RULES_TOTAL`]).
    pub name: &'static str,
    /// The part of the kernel that it was counted in, such as a table.
    pub part: &'static str,
    /// How many were counted.
    pub count: usize,
}

impl FamilyReport {
    /// A report of a call that has written nothing yet.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            objects: 0,
            bytes: 0,
            render: Duration::ZERO,
            commit: Duration::ZERO,
            refused: Vec::new(),
            failures: 0,
            details: Vec::new(),
            error: None,
        }
    }

    /// The same report with the error of a family that failed as a whole.
    pub fn failed_with(self, error: DataplaneError) -> Self {
        Self { error: Some(error), ..self }
    }
}

/// An object that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// The Service that it belongs to.
    pub service: ServiceName,
    /// The object, as a person would name it (`element 10.0.0.1 . tcp . 80 of map services`).
    pub object: String,
    /// The kernel's error for this object.
    pub error: DataplaneError,
}

/// What an audit found in each family. A family that could not be read does not hide the other's drift.
#[derive(Debug, Default)]
pub struct Audit {
    /// One entry for each family that the dataplane serves.
    pub families: Vec<FamilyAudit>,
}

/// What an audit found in one family.
#[derive(Debug)]
pub struct FamilyAudit {
    /// The address family that was read.
    pub family: Family,
    /// What differs from what was applied; an error if the kernel could not be read.
    pub drift: Result<Vec<Drift>, DataplaneError>,
}

impl Audit {
    /// All drift, or the first error.
    ///
    /// # Errors
    /// The error of the first family that could not be read.
    pub fn into_drift(self) -> Result<Vec<Drift>, DataplaneError> {
        let mut all = Vec::new();
        for family in self.families {
            all.extend(family.drift?);
        }
        Ok(all)
    }
}

/// One difference between the kernel and what was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The address family of the object.
    pub family: Family,
    /// The object, as a person would name it.
    pub object: String,
    /// What is wrong with it: `missing`, `foreign`, `changed`.
    pub kind: &'static str,
    /// The Service that it belongs to; `None` if it belongs to all.
    pub service: Option<ServiceName>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.object, self.kind, self.family)?;
        match &self.service {
            Some(service) => write!(f, " of Service {service}"),
            None => Ok(()),
        }
    }
}

/// What a mode's clean-up did (contract CFG-9).
#[derive(Debug, Default)]
pub struct Cleanup {
    /// One line for each object removed.
    pub removed: Vec<String>,
    /// Objects that are there and could not be removed. Another try may succeed.
    pub left: Vec<Leftover>,
    /// Places that could not be read, so whether anything is left there is not known.
    pub unread: Vec<Leftover>,
}

/// An object, or a place that may hold some, that a clean-up could not deal with.
#[derive(Debug)]
pub struct Leftover {
    /// The object or place, as a person would name it.
    pub object: String,
    /// Why it could not be removed or read.
    pub error: DataplaneError,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.error)
    }
}

impl Cleanup {
    /// Notes an object that could not be removed.
    pub(crate) fn leave(&mut self, object: impl Into<String>, error: DataplaneError) {
        self.left.push(Leftover { object: object.into(), error });
    }

    /// Notes a place that could not be read.
    pub(crate) fn skip(&mut self, object: impl Into<String>, error: DataplaneError) {
        self.unread.push(Leftover { object: object.into(), error });
    }
}
