//! Opens the nftables [`Dataplane`](crate::Dataplane).

use std::sync::{Arc, Mutex, PoisonError};

use portway_kernel::nftables::Transaction;
use portway_kernel::nftables::{Connection, OwnPorts};
use portway_model::Family;

use super::config;
use super::family::NftablesFamily;
use super::render::DryRun;
use crate::per_family::PerFamily;
use crate::report::DataplaneError;
use crate::support::supported;

/// The nftables dataplane. It keeps the tables `ip portway` and `ip6 portway` of one network namespace, each over a
/// netlink socket of its own, and touches nothing else.
pub type Nftables = PerFamily<NftablesFamily>;

impl Nftables {
    /// Opens the kernel's nf_tables in the network namespace of the calling thread, for the families that the kernel has
    /// (contract CFG-14). Reads and writes nothing yet.
    ///
    /// # Errors
    /// If the kernel is too old, or no netfilter netlink socket can be opened.
    pub fn open() -> Result<Self, DataplaneError> {
        config::check_kernel()?;
        let own = OwnPorts::default();
        let open = |family| {
            let connection = Connection::open(&own).map_err(|error| DataplaneError::Unusable {
                what: "the kernel's nf_tables".to_owned(),
                source: error.into(),
            })?;
            Ok::<_, DataplaneError>(NftablesFamily::new(family, Box::new(connection), own.clone()))
        };
        Ok(Self::of(supported().into_iter().map(open).collect::<Result<Vec<_>, _>>()?))
    }

    /// A dataplane without a kernel, which begins with no tables: every transaction goes to `committed` and counts as
    /// taken. It measures what portway itself costs; audits and repairs make no sense on it.
    pub fn dry_run(committed: impl FnMut(&Transaction) + Send + 'static) -> Self {
        let committed = Arc::new(Mutex::new(committed));
        let family = |family| {
            let committed = Arc::clone(&committed);
            let pass = move |transaction: &Transaction| {
                let mut committed = committed.lock().unwrap_or_else(PoisonError::into_inner);
                (*committed)(transaction);
            };
            NftablesFamily::new(family, Box::new(DryRun { committed: pass }), OwnPorts::default())
        };
        Self::of(Family::ALL.map(family))
    }

    /// A dataplane over the fake kernel.
    #[cfg(test)]
    pub(crate) fn with(fake: &portway_kernel::nftables::Fake) -> Self {
        let family = |family| NftablesFamily::new(family, Box::new(fake.clone()), OwnPorts::default());
        Self::of(Family::ALL.map(family))
    }
}
