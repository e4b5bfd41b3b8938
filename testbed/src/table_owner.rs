//! Another program that owns a table of nf_tables.
//!
//! Tests of the crates that this one is built from include this file.

use portway_kernel::netlink::{Batch, NetlinkFamily, Socket, Writer, flags, nfgenmsg};
use portway_model::Family;

/// A program in the namespace of the thread that makes it, which owns a table (`NFT_TABLE_F_OWNER`) until it is dropped: the
/// kernel refuses all commits of others to this table.
pub struct TableOwner {
    /// The kernel ends the ownership with the socket.
    _socket: Socket,
}

impl std::fmt::Debug for TableOwner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TableOwner").finish_non_exhaustive()
    }
}

impl TableOwner {
    /// Takes the table of this family and name, and deletes another program's of the same name.
    ///
    /// # Panics
    /// If there is no netlink socket to be had, or the kernel refuses the table.
    pub fn of(family: Family, table: &str) -> Self {
        /// Of `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`.
        const BATCH_BEGIN: u16 = 16;
        const BATCH_END: u16 = 17;
        const NEW_TABLE: u16 = 0x0a00;
        const DELETE_TABLE: u16 = 0x0a02;
        const OWNER: u32 = 0x2;
        let number = match family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        let mut socket = Socket::open(NetlinkFamily::Netfilter).expect("a netlink socket");
        let mut batch = Batch::new(socket.next_sequence());
        batch.message(BATCH_BEGIN, 0, nfgenmsg(0, 10), |_| ()).expect("short");
        let plain = |out: &mut Writer<'_>| out.string(1, table);
        let owned = |out: &mut Writer<'_>| {
            out.string(1, table);
            out.be32(2, OWNER);
        };
        // A table can be deleted only if there is one, so one is made first.
        batch.message(NEW_TABLE, flags::CREATE, nfgenmsg(number, 0), plain).expect("short");
        batch.message(DELETE_TABLE, 0, nfgenmsg(number, 0), plain).expect("short");
        batch.message(NEW_TABLE, flags::CREATE, nfgenmsg(number, 0), owned).expect("short");
        batch.acknowledge_last();
        batch.message(BATCH_END, 0, nfgenmsg(0, 10), |_| ()).expect("short");
        assert!(socket.exchange(&batch, true).expect("sent").is_empty(), "the kernel takes it");
        Self { _socket: socket }
    }
}
