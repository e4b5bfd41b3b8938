//! Netlink messages: written several to a batch, read several to a datagram.

use std::io;

use super::{Attributes, MessageError, NetlinkError, Writer};

/// Length of the message header, `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;
/// Length of the header that follows it in every message except the kernel's acknowledgements.
const FAMILY_HEADER: usize = 4;

/// Message types that all netlink families share.
pub mod kind {
    /// `NLMSG_ERROR`: an error, or with number 0 an acknowledgement.
    pub const ERROR: u16 = 2;
    /// `NLMSG_DONE`: the end of a dump.
    pub const DONE: u16 = 3;
}

/// The flags of a message, `NLM_F_*`.
pub mod flags {
    /// The message is a request; [`super::super::Batch::message`] always sets it.
    pub const REQUEST: u16 = 0x1;
    /// The sender wants an acknowledgement; [`super::super::Batch::acknowledge_last`] sets it.
    pub const ACK: u16 = 0x4;
    /// The objects changed while the kernel dumped them.
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// List everything (`NLM_F_ROOT | NLM_F_MATCH`); [`super::super::Socket::dump`] sets it.
    pub const DUMP: u16 = 0x300;
    /// Replace the existing object.
    pub const REPLACE: u16 = 0x100;
    /// Fail if the object exists.
    pub const EXCLUSIVE: u16 = 0x200;
    /// Create the object if it does not exist.
    pub const CREATE: u16 = 0x400;
    /// Append the object at the end of its list.
    pub const APPEND: u16 = 0x800;
    /// In an answer: the refused message is not repeated in full (`NLM_F_CAPPED`).
    pub(super) const CAPPED: u16 = 0x100;
    /// In an answer: attributes follow (`NLM_F_ACK_TLVS`).
    pub(super) const ACK_ATTRIBUTES: u16 = 0x200;
}

/// Builds the header of netfilter's messages (`struct nfgenmsg`): address family and resource id.
pub fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Builds the header of generic netlink's messages (`struct genlmsghdr`): command and version.
pub fn genlmsghdr(command: u8, version: u8) -> [u8; 4] {
    [command, version, 0, 0]
}

/// A batch of messages that go to the kernel in one system call.
///
/// Sequence numbers count up from the one given to [`Batch::new`]; [`super::Socket::exchange`] tells with them which
/// message the kernel refused.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    first: u32,
    next: u32,
    last_start: usize,
    acknowledged: Option<u32>,
}

impl Batch {
    /// Starts an empty batch whose first message gets this sequence number; see [`super::Socket::next_sequence`].
    pub fn new(first: u32) -> Self {
        Self { bytes: Vec::new(), first, next: first, last_start: 0, acknowledged: None }
    }

    /// Reserves memory for this many more bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends a message and returns its sequence number.
    ///
    /// # Errors
    /// [`NetlinkError::TooLong`] if an attribute is longer than its 16-bit length field can say; nothing is appended then.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        header: [u8; 4],
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<u32, NetlinkError> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.next.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&header);
        let mut writer = Writer::new(&mut self.bytes);
        fill(&mut writer);
        let too_long = writer.too_long();
        let Ok(length) = u32::try_from(self.bytes.len() - start) else {
            self.bytes.truncate(start);
            return Err(NetlinkError::TooLong);
        };
        if too_long {
            self.bytes.truncate(start);
            return Err(NetlinkError::TooLong);
        }
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.last_start = start;
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        Ok(sequence)
    }

    /// Asks the kernel to acknowledge the message appended last, so that its answers have an end. The kernel answers in
    /// order, and refusals unasked: one acknowledgement is enough for a batch.
    pub fn acknowledge_last(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        self.bytes[self.last_start + 6] |= flags::ACK.to_ne_bytes()[0];
        self.bytes[self.last_start + 7] |= flags::ACK.to_ne_bytes()[1];
        self.acknowledged = Some(self.next.wrapping_sub(1));
    }

    /// Replaces the number that the first message's first attribute holds, if it is of this kind.
    pub(crate) fn set_first_be32(&mut self, kind: u16, number: u32) {
        const ATTRIBUTE: usize = HEADER + FAMILY_HEADER;
        const VALUE: usize = ATTRIBUTE + 4;
        let header = [8u16.to_ne_bytes(), kind.to_ne_bytes()].concat();
        if self.bytes.get(ATTRIBUTE..VALUE) == Some(&*header)
            && let Some(value) = self.bytes.get_mut(VALUE..VALUE + 4)
        {
            value.copy_from_slice(&number.to_be_bytes());
        }
    }

    /// The sequence number of the message that the kernel will acknowledge.
    pub(super) fn acknowledged(&self) -> Option<u32> {
        self.acknowledged
    }

    /// The sequence number of the first message.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The sequence number that the next message will get.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The encoded messages, as they go to the kernel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of messages.
    pub fn count(&self) -> u32 {
        self.next.wrapping_sub(self.first)
    }
}

/// One message of the kernel, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The type of the message, `nlmsg_type`.
    pub kind: u16,
    /// The message flags, `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request that it answers; 0 for a notification in most families.
    pub sequence: u32,
    /// The netlink port of the socket that asked, or in a notification of the one that caused it. 0 is the kernel.
    pub port: u32,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The header of four bytes before the attributes.
    pub fn header(&self) -> Option<[u8; 4]> {
        self.payload.first_chunk().copied()
    }

    /// The attributes after the header of four bytes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.payload.get(FAMILY_HEADER..).unwrap_or(&[]))
    }

    /// Reads it as the end of a request; `None` if it is not one.
    pub fn answer(&self) -> Option<Answer> {
        match self.kind {
            kind::ERROR => Some(self.error()),
            kind::DONE => Some(match self.payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
                Some(code) if code < 0 => Answer::Refused(self.refusal(code, None)),
                _ => Answer::Done,
            }),
            _ => None,
        }
    }

    fn error(&self) -> Answer {
        /// The kernel's number `NLMSGERR_ATTR_MSG`.
        const TEXT: u16 = 1;
        let Some(code) = self.payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) else {
            return Answer::Refused(self.refusal(-libc::EBADMSG, None));
        };
        if code == 0 {
            return Answer::Done;
        }
        // The refused message follows, its header alone if capped, and then the attributes.
        let original = self.payload.get(4..).unwrap_or(&[]);
        let echoed = if self.flags & flags::CAPPED != 0 {
            HEADER
        } else {
            original.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize).next_multiple_of(4)
        };
        let text = (self.flags & flags::ACK_ATTRIBUTES != 0)
            .then(|| Attributes::new(original.get(echoed..).unwrap_or(&[])).find(TEXT))
            .flatten()
            .and_then(|attribute| attribute.string())
            .map(str::to_owned);
        Answer::Refused(self.refusal(code, text))
    }

    fn refusal(&self, code: i32, message: Option<String>) -> MessageError {
        let source = io::Error::from_raw_os_error(code.saturating_abs());
        MessageError { sequence: self.sequence, source, message }
    }
}

/// The end of a request.
#[derive(Debug)]
pub enum Answer {
    /// The request is acknowledged, or its dump complete.
    Done,
    /// The kernel refused the request.
    Refused(MessageError),
}

/// An iterator over the messages of one datagram; it ends at the first whose length does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Reads the messages in these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<HEADER>()?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let Some(payload) = self.0.get(HEADER..length) else {
            self.0 = &[];
            return None;
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message { kind: half(4), flags: half(6), sequence: word(8), port: word(12), payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_batch_counts_its_messages_and_acknowledges_the_last_alone() {
        let mut batch = Batch::new(7);
        batch.message(0x100, 0, nfgenmsg(2, 10), |w| w.be32(1, 5)).expect("short");
        batch.message(0x101, flags::CREATE, nfgenmsg(2, 0), |w| w.string(1, "x")).expect("short");
        batch.acknowledge_last();
        let messages: Vec<_> = Messages::new(batch.as_bytes()).collect();
        assert_eq!(messages.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(0x100, 7), (0x101, 8)]);
        assert_eq!(messages[0].flags, flags::REQUEST);
        assert_eq!(messages[1].flags, flags::REQUEST | flags::CREATE | flags::ACK);
        assert_eq!(messages[0].header(), Some([2, 0, 0, 10]));
        assert_eq!(messages[1].attributes().find(1).and_then(|a| a.string()), Some("x"));
        assert_eq!((batch.count(), batch.acknowledged()), (2, Some(8)));
    }

    #[test]
    fn a_message_that_is_too_long_is_not_appended() {
        let mut batch = Batch::new(1);
        assert!(matches!(batch.message(1, 0, [0; 4], |w| w.bytes(1, &[0; 65_532])), Err(NetlinkError::TooLong)));
        assert_eq!((batch.as_bytes().len(), batch.count()), (0, 0));
        batch.message(1, 0, [0; 4], |w| w.bytes(1, &[0; 65_531])).expect("just short enough");
    }

    #[test]
    fn refusals_carry_the_text_of_the_kernel() {
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        let mut text = Vec::new();
        Writer::new(&mut text).string(1, "it is there");
        payload.extend(text);
        let message = Message { kind: kind::ERROR, flags: 0x300, sequence: 3, port: 0, payload: &payload };
        let Some(Answer::Refused(error)) = message.answer() else { panic!("a refusal") };
        assert_eq!(error.source.raw_os_error(), Some(17));
        assert_eq!(error.message.as_deref(), Some("it is there"));
        assert_eq!(error.sequence, 3);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), kind in 0u16..5) {
            for message in Messages::new(&bytes) {
                let _ = (message.header(), message.answer(), message.attributes().count());
            }
            let message = Message { kind, flags: 0x300, sequence: 0, port: 0, payload: &bytes };
            let _ = message.answer();
        }
    }
}
