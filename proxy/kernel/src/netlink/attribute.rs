//! Attributes, the type-length-value parts of netlink messages: written into a growing buffer, read in place.

/// The kernel's number `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The kernel's number `NLA_TYPE_MASK`.
const TYPE_MASK: u16 = 0x3fff;
/// Length of an attribute's header: two bytes of length, two of type.
const HEADER: usize = 4;

/// Appends attributes to a message; [`super::Batch::message`] hands one out.
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    too_long: bool,
}

/// A nest that [`Writer::open`] has begun and [`Writer::close`] ends.
#[must_use = "a nest that is not closed has no length"]
pub struct Nest(usize);

impl<'a> Writer<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, too_long: false }
    }

    pub(super) fn too_long(&self) -> bool {
        self.too_long
    }

    /// Writes an attribute of these bytes.
    #[inline]
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) {
        self.parts(kind, payload, &[]);
    }

    /// Writes a string, with a terminating zero.
    #[inline]
    pub fn string(&mut self, kind: u16, text: &str) {
        self.parts(kind, text.as_bytes(), &[0]);
    }

    /// Writes an attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// Writes a number of two bytes in network order.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Writes a number of four bytes in network order.
    #[inline]
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Writes a number of eight bytes in network order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Writes a number of two bytes in the host's order.
    pub fn ne16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Writes a number of four bytes in the host's order.
    pub fn ne32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Writes a nest: an attribute that holds the attributes which `fill` writes.
    #[inline]
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let nest = self.open(kind);
        fill(self);
        self.close(nest);
    }

    /// Starts a nest that [`Writer::close`] ends, for code where a closure does not fit.
    #[inline]
    pub fn open(&mut self, kind: u16) -> Nest {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        Nest(start)
    }

    /// Ends a nest by writing its length.
    #[inline]
    pub fn close(&mut self, nest: Nest) {
        let length = self.length(self.bytes.len() - nest.0);
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length);
    }

    /// Appends attributes that are already encoded, padding included.
    pub fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
    }

    /// Length of the message's buffer so far: the difference of two positions is the number of bytes written between.
    #[inline]
    pub fn position(&self) -> usize {
        self.bytes.len()
    }

    fn parts(&mut self, kind: u16, payload: &[u8], end: &[u8]) {
        let length = self.length(HEADER + payload.len() + end.len());
        let [low, high] = kind.to_ne_bytes();
        self.bytes.extend_from_slice(&[length[0], length[1], low, high]);
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(end);
        let padding = self.bytes.len().next_multiple_of(4) - self.bytes.len();
        self.bytes.extend_from_slice(&[0; 3][..padding]);
    }

    fn length(&mut self, length: usize) -> [u8; 2] {
        u16::try_from(length)
            .unwrap_or_else(|_| {
                self.too_long = true;
                0
            })
            .to_ne_bytes()
    }
}

/// One attribute, read in place. A payload that is too short for a number reads as `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type, without the flags `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    pub kind: u16,
    /// The bytes, without padding.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Reads the first byte.
    pub fn u8(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// Reads a number of two bytes in network order.
    pub fn be16(&self) -> Option<u16> {
        self.payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// Reads a number of four bytes in network order.
    pub fn be32(&self) -> Option<u32> {
        self.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Reads a number of eight bytes in network order.
    pub fn be64(&self) -> Option<u64> {
        self.payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// Reads a number of two bytes in the host's order.
    pub fn ne16(&self) -> Option<u16> {
        self.payload.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    /// Reads a number of four bytes in the host's order.
    pub fn ne32(&self) -> Option<u32> {
        self.payload.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// Reads a string, up to its first zero; `None` if it is not UTF-8.
    pub fn string(&self) -> Option<&'a str> {
        let end = self.payload.iter().position(|byte| *byte == 0).unwrap_or(self.payload.len());
        std::str::from_utf8(&self.payload[..end]).ok()
    }

    /// Reads the payload as attributes.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }
}

/// An iterator over attributes; it ends at the first whose length does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Reads the attributes in these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Finds the first attribute of this type.
    pub fn find(mut self, kind: u16) -> Option<Attribute<'a>> {
        Iterator::find(&mut self, |attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let [l0, l1, k0, k1] = *self.0.first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(payload) = self.0.get(HEADER..length) else {
            self.0 = &[];
            return None;
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Attribute { kind: u16::from_ne_bytes([k0, k1]) & TYPE_MASK, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fill: impl FnOnce(&mut Writer<'_>)) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        fill(&mut writer);
        let too_long = writer.too_long();
        (bytes, too_long)
    }

    #[test]
    fn written_attributes_are_read_back() {
        let (bytes, too_long) = written(|w| {
            w.string(1, "portway");
            w.nest(2, |w| {
                w.u8(1, 7);
                w.be64(3, 1 << 40);
            });
            w.ne32(9, 5);
        });
        assert!(!too_long);
        assert_eq!(bytes.len() % 4, 0);
        let attributes = Attributes::new(&bytes);
        assert_eq!(attributes.find(1).and_then(|a| a.string()), Some("portway"));
        let nest = attributes.find(2).expect("the nest").nested();
        assert_eq!(nest.find(1).and_then(|a| a.u8()), Some(7));
        assert_eq!(nest.find(3).and_then(|a| a.be64()), Some(1 << 40));
        assert_eq!(attributes.find(9).and_then(|a| a.ne32()), Some(5));
        assert_eq!(attributes.count(), 3);
    }

    #[test]
    fn a_nest_longer_than_its_length_field_is_reported() {
        let fill = |n: usize| {
            written(move |w| {
                w.nest(1, |w| {
                    for _ in 0..n {
                        w.bytes(1, &[0; 252]);
                    }
                });
            })
            .1
        };
        assert!(!fill(255));
        assert!(fill(256));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            fn walk(attributes: Attributes<'_>, depth: u32) -> usize {
                attributes
                    .map(|a| {
                        let _ = (a.u8(), a.be16(), a.be32(), a.be64(), a.ne16(), a.ne32(), a.string());
                        1 + if depth > 0 { walk(a.nested(), depth - 1) } else { 0 }
                    })
                    .sum()
            }
            prop_assert!(walk(Attributes::new(&bytes), 4) <= bytes.len() * 5);
        }
    }
}
