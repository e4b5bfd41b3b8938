//! Sets, maps and their elements.

use std::time::Duration;

use super::{Bytes, Data, Field, Name};

/// A set or a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// Unique in its table.
    pub name: Name,
    /// The key: a concatenation if there is more than one field. Never empty.
    pub key: Vec<Field>,
    /// What its elements hold.
    pub data: SetData,
    /// How it may be used.
    pub flags: SetFlags,
    /// For how long an element stays that does not say; needs [`SetFlags::timeout`]. Whole milliseconds.
    pub timeout: Option<Duration>,
    /// How many elements it may hold; `None` for no limit. A dynamic set must have one.
    pub size: Option<u32>,
    /// nft's `comment "…"`: at most 127 bytes.
    pub comment: Option<Name>,
}

/// What a set's elements hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetData {
    /// Nothing: a set.
    #[default]
    None,
    /// A verdict: a verdict map.
    Verdict,
    /// A value, a concatenation if there is more than one field. Never empty.
    Fields(Vec<Field>),
}

/// How a set may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetFlags {
    /// Elements are ranges.
    pub interval: bool,
    /// Rules may add, update and delete elements.
    pub dynamic: bool,
    /// Elements may go by themselves.
    pub timeout: bool,
}

impl Set {
    /// A set of these fields without any flag.
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

    /// A verdict map of these fields.
    pub fn verdict_map(name: impl Into<Name>, key: impl Into<Vec<Field>>) -> Self {
        Self { data: SetData::Verdict, ..Self::new(name, key) }
    }

    /// A map from these fields to those.
    pub fn map(name: impl Into<Name>, key: impl Into<Vec<Field>>, value: impl Into<Vec<Field>>) -> Self {
        Self { data: SetData::Fields(value.into()), ..Self::new(name, key) }
    }

    /// Whether it is a map of any kind.
    pub fn is_map(&self) -> bool {
        self.data != SetData::None
    }
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The key's bytes as the set's fields say; the first key of a range in an interval set.
    pub key: Bytes,
    /// The last key of the range, itself in it; in an interval set always there, elsewhere never. In a concatenation
    /// each field is a range of its own.
    pub end: Option<Box<Bytes>>,
    /// What it holds.
    pub data: Data,
    /// For how long it stays, if not for as long as its set says. Whole milliseconds.
    pub timeout: Option<Duration>,
    /// How long it will still stay; only listing fills this, and writing ignores it.
    pub expires: Option<Duration>,
}

impl Element {
    /// An element of a set.
    pub fn new(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: None, data: Data::None, timeout: None, expires: None }
    }

    /// A range of an interval set, both ends in it.
    pub fn range(first: impl Into<Bytes>, last: impl Into<Bytes>) -> Self {
        Self { end: Some(Box::new(last.into())), ..Self::new(first) }
    }

    /// The same element holding `data`.
    pub fn with(self, data: Data) -> Self {
        Self { data, ..self }
    }
}
