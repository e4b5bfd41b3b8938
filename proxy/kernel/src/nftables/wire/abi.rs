//! Numbers of `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`, under the names they have there.

use portway_model::Family;

/// The family number of a table (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
pub(super) fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// The family number of tables that see packets of both families (`NFPROTO_INET`).
pub(super) const INET: u8 = 1;

/// The types of nf_tables messages.
pub(super) mod msg {
    /// The kernel's number `NFNL_MSG_BATCH_BEGIN`.
    pub(in super::super) const BATCH_BEGIN: u16 = 16;
    /// The kernel's number `NFNL_MSG_BATCH_END`.
    pub(in super::super) const BATCH_END: u16 = 17;
    /// `NFNL_SUBSYS_NFTABLES`, which the batch's frame carries as its resource id.
    pub(in super::super) const SUBSYSTEM: u16 = 10;

    const fn nft(number: u16) -> u16 {
        SUBSYSTEM << 8 | number
    }

    pub(in super::super) const NEWTABLE: u16 = nft(0);
    pub(in super::super) const GETTABLE: u16 = nft(1);
    pub(in super::super) const DELTABLE: u16 = nft(2);
    pub(in super::super) const NEWCHAIN: u16 = nft(3);
    pub(in super::super) const GETCHAIN: u16 = nft(4);
    pub(in super::super) const DELCHAIN: u16 = nft(5);
    pub(in super::super) const NEWRULE: u16 = nft(6);
    pub(in super::super) const GETRULE: u16 = nft(7);
    pub(in super::super) const DELRULE: u16 = nft(8);
    pub(in super::super) const NEWSET: u16 = nft(9);
    pub(in super::super) const GETSET: u16 = nft(10);
    pub(in super::super) const DELSET: u16 = nft(11);
    pub(in super::super) const NEWSETELEM: u16 = nft(12);
    pub(in super::super) const GETSETELEM: u16 = nft(13);
    pub(in super::super) const DELSETELEM: u16 = nft(14);
    pub(in super::super) const NEWGEN: u16 = nft(15);
    pub(in super::super) const GETGEN: u16 = nft(16);
}

/// The kernel's number `NFNL_BATCH_GENID`.
pub(super) const BATCH_GENID: u16 = 1;
/// The kernel's number `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEM: u16 = 1;

/// The kernel's numbers `NFTA_GEN_*`.
pub(super) mod generation {
    pub(in super::super) const ID: u16 = 1;
    pub(in super::super) const PROC_PID: u16 = 2;
    pub(in super::super) const PROC_NAME: u16 = 3;
}

/// The kernel's numbers `NFTA_TABLE_*`.
pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const FLAGS: u16 = 2;
    pub(in super::super) const USE: u16 = 3;
    /// `NFT_TABLE_F_DORMANT`: the table's base chains are not registered, so no packet meets them.
    pub(in super::super) const FLAG_DORMANT: u32 = 0x1;
    /// `NFT_TABLE_F_OWNER` and `NFT_TABLE_F_PERSIST`: one socket's own table, and one that outlives its owner.
    pub(in super::super) const FLAGS_OF_OWNERS: u32 = 0x2 | 0x4;
}

/// The kernel's numbers `NFTA_CHAIN_*` and `NFTA_HOOK_*`.
pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const HANDLE: u16 = 2;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
}

/// The kernel's numbers `NFTA_RULE_*`.
pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const HANDLE: u16 = 3;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const USERDATA: u16 = 7;
}

/// `NFTA_SET_*`, `NFTA_SET_DESC_*`, `NFTA_SET_FIELD_*` and set flags.
pub(super) mod set {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LEN: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const DATA_LEN: u16 = 7;
    pub(in super::super) const DESC: u16 = 9;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const TIMEOUT: u16 = 11;
    pub(in super::super) const USERDATA: u16 = 13;
    pub(in super::super) const HANDLE: u16 = 16;
    pub(in super::super) const DESC_SIZE: u16 = 1;
    pub(in super::super) const DESC_CONCAT: u16 = 2;
    pub(in super::super) const FIELD_LEN: u16 = 1;
    pub(in super::super) const FLAG_INTERVAL: u32 = 0x4;
    pub(in super::super) const FLAG_MAP: u32 = 0x8;
    pub(in super::super) const FLAG_TIMEOUT: u32 = 0x10;
    pub(in super::super) const FLAG_EVAL: u32 = 0x20;
    pub(in super::super) const FLAG_CONCAT: u32 = 0x80;
    /// `NFT_DATA_VERDICT`, the data type of verdict maps.
    pub(in super::super) const DATA_VERDICT: u32 = 0xffff_ff00;
}

/// `NFTA_SET_ELEM_LIST_*`, `NFTA_SET_ELEM_*` and element flags.
pub(super) mod elem {
    pub(in super::super) const LIST_TABLE: u16 = 1;
    pub(in super::super) const LIST_SET: u16 = 2;
    pub(in super::super) const LIST_ELEMENTS: u16 = 3;
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const TIMEOUT: u16 = 4;
    pub(in super::super) const EXPIRATION: u16 = 5;
    pub(in super::super) const KEY_END: u16 = 10;
    pub(in super::super) const FLAG_INTERVAL_END: u32 = 1;
    /// `NFT_SET_ELEM_CATCHALL`: the element that stands for every key that has none.
    pub(in super::super) const FLAG_CATCHALL: u32 = 2;
}

/// `NFTA_DATA_*`, `NFTA_VERDICT_*` and verdict codes.
pub(super) mod data {
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
    pub(in super::super) const DROP: i32 = 0;
    pub(in super::super) const ACCEPT: i32 = 1;
    pub(in super::super) const CONTINUE: i32 = -1;
    pub(in super::super) const JUMP: i32 = -3;
    pub(in super::super) const GOTO: i32 = -4;
    pub(in super::super) const RETURN: i32 = -5;
}
