//! Sets, maps and their elements.

use std::time::Duration;

use super::{Bytes, Data, Field, Name};

/// A set or map of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// The name, unique in its table.
    pub name: Name,
    /// The key: a concatenation if there is more than one field. Never empty.
    pub key: Vec<Field>,
    /// The data that its elements hold.
    pub data: SetData,
    /// The flags, which say how it may be used.
    pub flags: SetFlags,
    /// The lifetime of elements that have none of their own, in whole milliseconds; needs [`SetFlags::timeout`].
    pub timeout: Option<Duration>,
    /// The maximal number of elements; `None` for no limit. A dynamic set must have one.
    pub size: Option<u32>,
    /// nft's `comment "…"`: at most 127 bytes.
    pub comment: Option<Name>,
}

/// The data that the elements of a set or map hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetData {
    /// No data: it is a set.
    #[default]
    None,
    /// A verdict: it is a verdict map.
    Verdict,
    /// A value of these fields, a concatenation if there is more than one field. Never empty.
    Fields(Vec<Field>),
}

/// The flags of a set (`NFT_SET_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetFlags {
    /// Elements are ranges of keys (`NFT_SET_INTERVAL`).
    pub interval: bool,
    /// Rules may add, update and delete elements (`NFT_SET_EVAL`).
    pub dynamic: bool,
    /// Elements may have a lifetime (`NFT_SET_TIMEOUT`).
    pub timeout: bool,
}

impl Set {
    /// Describes a set of these fields, without flags.
    pub fn new(name: impl Into<Name>, key: impl Into<Vec<Field>>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            data: SetData::None,
            flags: SetFlags::default(),
            timeout: None,
            size: None,
            comment: None,
        }
    }

    /// Describes a verdict map whose key has these fields, without flags.
    pub fn verdict_map(name: impl Into<Name>, key: impl Into<Vec<Field>>) -> Self {
        Self { data: SetData::Verdict, ..Self::new(name, key) }
    }

    /// Describes a map whose key and value have these fields, without flags.
    pub fn map(name: impl Into<Name>, key: impl Into<Vec<Field>>, value: impl Into<Vec<Field>>) -> Self {
        Self { data: SetData::Fields(value.into()), ..Self::new(name, key) }
    }

    /// Whether it is a map, of verdicts or of values.
    pub fn is_map(&self) -> bool {
        self.data != SetData::None
    }
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The key's bytes as the set's fields say; the first key of a range in an interval set. Empty for the catch-all
    /// element, nft's `*`, which stands for every key that has no element.
    pub key: Bytes,
    /// The last key of the range, itself in it; in an interval set always there, elsewhere never. In a concatenation
    /// each field is a range of its own.
    pub end: Option<Box<Bytes>>,
    /// The data that it holds.
    pub data: Data,
    /// Its lifetime in whole milliseconds, if not that of its set.
    pub timeout: Option<Duration>,
    /// Its remaining lifetime; only listing fills this, and writing ignores it.
    pub expires: Option<Duration>,
}

impl Element {
    /// Describes an element of a set, without data.
    pub fn new(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: None, data: Data::None, timeout: None, expires: None }
    }

    /// Describes a range of an interval set, from the first key to the last, both in it.
    pub fn range(first: impl Into<Bytes>, last: impl Into<Bytes>) -> Self {
        Self { end: Some(Box::new(last.into())), ..Self::new(first) }
    }

    /// Describes the catch-all element.
    pub fn catch_all() -> Self {
        Self::new(Bytes::new())
    }

    /// Whether it is the catch-all element.
    #[inline]
    pub fn is_catch_all(&self) -> bool {
        self.key.is_empty()
    }

    /// The same element with this data.
    pub fn with(self, data: Data) -> Self {
        Self { data, ..self }
    }
}
