//! The nftables [`Dataplane`].

use std::time::Instant;

use portway_kernel::nftables::Monitor;
use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{CommitError, Connection, OwnPorts};
use portway_kernel::nftables::{Name, Op, Transaction};
use portway_model::{Change, Family, Plan};

use super::apply::refusal::{not_done, table_name};
use super::apply::table::Table;
use super::layout::TABLE;
use super::render::Paper;
use super::requirement;
use crate::dataplane::{Dataplane, DataplaneError, Drift, KernelWatch, Mode, Report};

/// Keeps the tables `ip portway` and `ip6 portway` of one network namespace; touches nothing else.
pub struct Nftables {
    kernel: Box<dyn NfTables>,
    tables: [Table; 2],
    own: OwnPorts,
}

impl Nftables {
    /// Opens the kernel's nf_tables in the network namespace of the calling thread. Reads and writes nothing yet.
    ///
    /// # Errors
    /// If the kernel is too old, or there is no netfilter netlink socket to be had.
    pub fn open() -> Result<Self, DataplaneError> {
        requirement::check()?;
        let own = OwnPorts::default();
        let connection = Connection::open(&own).map_err(|error| DataplaneError::Unusable {
            what: "the kernel's nf_tables".to_owned(),
            source: error.into(),
        })?;
        Ok(Self { own, ..Self::with(Box::new(connection)) })
    }

    /// The same without a kernel, beginning with none of portway's tables: every transaction goes to `told` and counts as
    /// committed. For measuring what portway itself costs; audits and repairs make no sense there.
    pub fn on_paper(told: impl FnMut(&Transaction) + Send + 'static) -> Self {
        Self::with(Box::new(Paper { told }))
    }

    /// The same over another kernel.
    pub(crate) fn with(kernel: Box<dyn NfTables>) -> Self {
        Self { kernel, tables: Family::ALL.map(Table::new), own: OwnPorts::default() }
    }
}

impl Dataplane for Nftables {
    fn mode(&self) -> Mode {
        Mode::Nftables
    }

    fn sync(&mut self, plan: &Plan) -> Report {
        let now = Instant::now();
        let reports = self.tables.iter_mut().map(|table| table.sync(&mut *self.kernel, plan, now));
        Report { families: reports.collect() }
    }

    fn apply(&mut self, change: &Change) -> Report {
        let now = Instant::now();
        let reports = self.tables.iter_mut().filter_map(|table| table.apply(&mut *self.kernel, change, now));
        Report { families: reports.collect() }
    }

    fn garbage_due(&self) -> Option<Instant> {
        self.tables.iter().filter_map(Table::garbage_due).min()
    }

    fn collect_garbage(&mut self) -> Report {
        let now = Instant::now();
        let reports = self.tables.iter_mut().filter_map(|table| table.collect_garbage(&mut *self.kernel, now));
        Report { families: reports.collect() }
    }

    fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError> {
        let mut drift = Vec::new();
        for table in &mut self.tables {
            drift.extend(table.audit(&mut *self.kernel)?);
        }
        Ok(drift)
    }

    fn repair(&mut self, drift: &[Drift]) -> Report {
        let now = Instant::now();
        let concerned = |table: &&mut Table| drift.iter().any(|drift| drift.family == table.family());
        let reports = self.tables.iter_mut().filter(concerned).map(|table| table.repair(&mut *self.kernel, now));
        Report { families: reports.collect() }
    }

    fn cleanup(&mut self) -> Result<Vec<String>, DataplaneError> {
        let mut removed = Vec::new();
        for family in Family::ALL {
            self.tables[family as usize] = Table::new(family);
            let mut transaction = Transaction::new(family, TABLE);
            transaction.push(Op::DeleteTable);
            match self.kernel.commit_at(&transaction, None) {
                Ok(_) => removed.push(table_name(family)),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(not_done(family, error)),
            }
        }
        Ok(removed)
    }

    fn watch(&self) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError> {
        let tables = Family::ALL.map(|family| (family, Name::from(TABLE)));
        let watch = Monitor::open(tables, &self.own).map_err(|error| DataplaneError::Unusable {
            what: "the kernel's notifications of nf_tables".to_owned(),
            source: error.into(),
        })?;
        Ok(Some(Box::new(watch)))
    }
}

impl KernelWatch for Monitor {
    fn wait(&mut self) -> Result<String, DataplaneError> {
        self.wait_for_others().map_err(|error| DataplaneError::Unusable {
            what: "the kernel's notifications of nf_tables".to_owned(),
            source: error.into(),
        })
    }
}

fn is_missing(error: &CommitError) -> bool {
    let missing = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
    matches!(error, CommitError::Refused(refusals) if refusals.iter().all(|refusal| missing(&refusal.source)))
}
