//! Whether anybody changes one table, while it is listed and until what was staged on the listing is committed.
//!
//! The kernel counts commits for all tables together, and a node has programs that commit tens of times a second to
//! tables of their own. So the count alone says only that nothing at all has happened; what has happened to the table
//! itself is in the notifications of the commits. Having them made costs the kernel time, so a watch lasts no longer than
//! it is needed, and is kept from this process's large commits as every listener is.

use std::sync::Arc;

use portway_model::Family;

use super::abi::msg;
use super::notification::{Notification, read_notification};
use super::own::{Listener, OwnPorts};
use crate::netlink::{Batch, NetlinkError, NetlinkFamily, Socket, nfgenmsg};
use crate::nftables::object::Name;

/// The kernel's number `NFNLGRP_NFTABLES`.
pub(in crate::nftables) const GROUP: u32 = 7;

/// A watch of one table. It ends when dropped.
pub(super) struct TableWatch {
    socket: Socket,
    own: OwnPorts,
    listener: Arc<Listener>,
    family: Family,
    table: Name,
    touched: bool,
}

impl TableWatch {
    /// Starts to watch a table for the commits of sockets that are not in `own`.
    pub(super) fn open(own: &OwnPorts, family: Family, table: &str) -> Result<Self, NetlinkError> {
        let socket = Socket::open(NetlinkFamily::Netfilter)?;
        let listener = Arc::new(Listener::new(socket.membership(GROUP))?);
        own.listen(&listener)?;
        let mut watch = Self { socket, own: own.clone(), listener, family, table: table.into(), touched: false };
        // The notifications of a commit under way may be lost in part.
        watch.wait_for_commits()?;
        watch.forget();
        Ok(watch)
    }

    /// Whether it is this table that is watched.
    pub(super) fn is_of(&self, family: Family, table: &str) -> bool {
        self.family == family && *self.table == *table
    }

    /// Begins anew: what has been notified so far no longer counts.
    pub(super) fn forget(&mut self) {
        self.read();
        self.touched = false;
    }

    /// Whether the table may have changed since [`TableWatch::forget`], by any commit that the kernel has counted so far.
    pub(super) fn is_touched(&mut self) -> bool {
        self.touched |= self.wait_for_commits().is_err();
        self.read();
        self.touched
    }

    /// Waits until the kernel has notified of all commits that it has counted. It counts a commit before it notifies of
    /// it, and does both under the lock that also a batch without messages takes.
    fn wait_for_commits(&mut self) -> Result<(), NetlinkError> {
        let mut batch = Batch::new(self.socket.next_sequence());
        batch.message(msg::BATCH_BEGIN, 0, nfgenmsg(0, msg::SUBSYSTEM), |_| ())?;
        batch.message(msg::BATCH_END, 0, nfgenmsg(0, msg::SUBSYSTEM), |_| ())?;
        self.socket.post(&batch)
    }

    fn read(&mut self) {
        loop {
            match self.socket.arrived() {
                Ok(None) => break,
                Ok(Some(messages)) => {
                    for message in messages.filter(|message| !self.own.contains(message.port)) {
                        if let Some(Notification::Changed(event)) = read_notification(&message) {
                            self.touched |= event.family == self.family && *event.table == *self.table;
                        }
                    }
                }
                // Some were lost, and with them what they said.
                Err(NetlinkError::Overrun) => self.touched = true,
                Err(_) => {
                    self.touched = true;
                    break;
                }
            }
        }
        self.touched |= self.listener.take_missed();
    }
}
