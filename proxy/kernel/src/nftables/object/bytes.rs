//! Keys and values: short byte strings that need no allocation.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Bytes of a key or value. Up to [`Bytes::INLINE`] they need no allocation, which covers most keys but those of two IPv6
/// addresses. The kernel's limit is 64 (`NFT_DATA_VALUE_MAXLEN`), so longer ones go to the heap.
#[derive(Clone)]
pub struct Bytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; Bytes::INLINE] },
    Heap(Box<[u8]>),
}

impl Bytes {
    /// The number of bytes that fit without an allocation; the whole struct takes 32.
    pub const INLINE: usize = 30;

    /// Makes an empty byte string.
    pub const fn new() -> Self {
        Bytes(Repr::Inline { len: 0, bytes: [0; Self::INLINE] })
    }

    /// The bytes as a slice.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }

    /// Appends bytes without padding.
    pub fn extend(&mut self, more: &[u8]) {
        let old = self.len();
        let new = old + more.len();
        if let Repr::Inline { len, bytes } = &mut self.0
            && new <= Self::INLINE
        {
            bytes[old..new].copy_from_slice(more);
            *len = u8::try_from(new).unwrap_or(u8::MAX);
            return;
        }
        let mut long = Vec::with_capacity(new);
        long.extend_from_slice(self);
        long.extend_from_slice(more);
        self.0 = Repr::Heap(long.into_boxed_slice());
    }

    /// Appends one field of a concatenation: the bytes, and zeros up to a multiple of four.
    pub fn field(mut self, field: &[u8]) -> Self {
        self.extend(field);
        let padding = field.len().next_multiple_of(4) - field.len();
        self.extend(&[0; 3][..padding]);
        self
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        let mut new = Self::new();
        new.extend(bytes);
        new
    }
}

impl<const N: usize> From<[u8; N]> for Bytes {
    fn from(bytes: [u8; N]) -> Self {
        Self::from(&bytes[..])
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_slice() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_small_and_grow_past_the_inline_part() {
        assert_eq!(size_of::<Bytes>(), 32);
        let mut bytes = Bytes::from([1; 30]);
        assert!(matches!(bytes.0, Repr::Inline { .. }));
        bytes.extend(&[2; 34]);
        assert_eq!(bytes.len(), 64);
        assert_eq!(&bytes[28..32], [1, 1, 2, 2]);
    }

    #[test]
    fn fields_are_padded_to_whole_registers() {
        let key = Bytes::new().field(&[10, 96, 0, 1]).field(&[6]).field(&80u16.to_be_bytes());
        assert_eq!(&*key, [10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
    }
}
