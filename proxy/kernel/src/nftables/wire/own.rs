//! Which commits are our own, and how a large one is kept quiet.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use crate::netlink::{Membership, NetlinkError};

/// The addresses of all sockets that this process commits with: a [`super::super::watch::Watch`] takes their changes
/// for its own. Clones share one list.
#[derive(Clone, Default)]
pub struct OwnPorts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ports: RwLock<Vec<u32>>,
    listeners: Mutex<Vec<Weak<Listener>>>,
}

/// A watch, as the one who commits sees it.
pub(in crate::nftables) struct Listener {
    membership: Membership,
    /// An event counter that wakes the watch.
    missed: OwnedFd,
}

impl OwnPorts {
    /// Whether a change that this address caused is our own.
    pub fn contains(&self, port: u32) -> bool {
        self.ports().contains(&port)
    }

    /// All of them.
    pub(in crate::nftables) fn ports(&self) -> RwLockReadGuard<'_, Vec<u32>> {
        self.0.ports.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, port: u32) {
        self.0.ports.write().unwrap_or_else(PoisonError::into_inner).push(port);
    }

    /// Adds a watch, which begins to listen.
    pub(in crate::nftables) fn listen(&self, listener: &Arc<Listener>) -> Result<(), NetlinkError> {
        // Under the lock, so that nobody's quiet time ends in between.
        let mut all = self.listeners();
        listener.membership.join()?;
        all.retain(|listener| listener.strong_count() > 0);
        all.push(Arc::downgrade(listener));
        Ok(())
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Weak<Listener>>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all watches from listening until what is returned is dropped; `None` if there are none.
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

    /// Becomes readable when changes may have been missed.
    pub(in crate::nftables) fn missed(&self) -> &OwnedFd {
        &self.missed
    }

    /// Whether changes may have been missed since the last call.
    pub(in crate::nftables) fn take_missed(&self) -> bool {
        rustix::io::read(&self.missed, &mut [0; 8]).is_ok()
    }

    fn miss(&self) {
        // It only fails where the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.missed, &1u64.to_ne_bytes());
    }
}

/// A time in which no watch listens. Ends when dropped.
pub(super) struct Quiet {
    listeners: Vec<Arc<Listener>>,
}

impl Quiet {
    /// Lets the watches listen again, and tells them if somebody else has committed meanwhile: `others` finds out once
    /// they do listen.
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
