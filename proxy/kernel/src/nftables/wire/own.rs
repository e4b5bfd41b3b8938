//! The netlink ports that this process commits through, and how a large commit is kept from the monitors.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use crate::netlink::{Membership, NetlinkError};

/// The netlink ports of all sockets that a process commits through: a [`crate::nftables::Monitor`] does not report their
/// commits. Clones share one list.
#[derive(Clone, Default)]
pub struct OwnPorts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ports: RwLock<Vec<u32>>,
    listeners: Mutex<Vec<Weak<Listener>>>,
}

/// A monitor's membership in the multicast group of nf_tables, which connections end and start.
pub(in crate::nftables) struct Listener {
    membership: Membership,
    /// An event counter that wakes the monitor.
    missed: OwnedFd,
}

impl OwnPorts {
    /// Whether this process commits through this netlink port.
    pub fn contains(&self, port: u32) -> bool {
        self.ports().contains(&port)
    }

    /// Locks the list for reading.
    pub(in crate::nftables) fn ports(&self) -> RwLockReadGuard<'_, Vec<u32>> {
        self.0.ports.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, port: u32) {
        self.0.ports.write().unwrap_or_else(PoisonError::into_inner).push(port);
    }

    /// Adds a monitor, which joins the multicast group.
    pub(in crate::nftables) fn listen(&self, listener: &Arc<Listener>) -> Result<(), NetlinkError> {
        // Under the lock, so that no quiet time ends in between.
        let mut all = self.listeners();
        listener.membership.join()?;
        all.retain(|listener| listener.strong_count() > 0);
        all.push(Arc::downgrade(listener));
        Ok(())
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Weak<Listener>>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all monitors out of the multicast group until the returned value is dropped; `None` if there are none.
    pub(super) fn quiet(&self) -> Option<Quiet> {
        let listeners: Vec<_> = self.listeners().iter().filter_map(Weak::upgrade).collect();
        if listeners.is_empty() {
            return None;
        }
        for listener in &listeners {
            listener.membership.leave();
        }
        Some(Quiet { listeners })
    }
}

impl Listener {
    pub(in crate::nftables) fn new(membership: Membership) -> Result<Self, NetlinkError> {
        use rustix::event::{EventfdFlags, eventfd};
        let missed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| NetlinkError::System { call: "eventfd", source: errno.into() })?;
        Ok(Self { membership, missed })
    }

    /// The descriptor that becomes readable when notifications may have been missed.
    pub(in crate::nftables) fn missed(&self) -> &OwnedFd {
        &self.missed
    }

    /// Whether notifications may have been missed since the last call.
    pub(in crate::nftables) fn take_missed(&self) -> bool {
        rustix::io::read(&self.missed, &mut [0; 8]).is_ok()
    }

    fn miss(&self) {
        // It only fails if the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.missed, &1u64.to_ne_bytes());
    }
}

/// A time in which no monitor receives notifications. Ends when dropped.
pub(super) struct Quiet {
    listeners: Vec<Arc<Listener>>,
}

impl Quiet {
    /// Lets the monitors receive notifications again, and wakes them if another program has committed meanwhile: `others`
    /// finds that out once they have joined.
    pub(super) fn end(self, others: impl FnOnce() -> bool) {
        let listeners = self.listeners.clone();
        drop(self);
        if others() {
            listeners.iter().for_each(|listener| listener.miss());
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        for listener in &self.listeners {
            if listener.membership.join().is_err() {
                listener.miss();
            }
        }
    }
}
