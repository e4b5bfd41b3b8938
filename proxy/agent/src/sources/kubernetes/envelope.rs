//! What is around objects in protobuf: the envelope, lists and the frames of watches.
//!
//! Every answer begins with four bytes and holds a `runtime.Unknown`, whose field 2 is the object. A list's objects are
//! read one by one as they arrive, so that no list is ever held whole. A watch sends frames, each with its length in front;
//! the object of an event has an envelope of its own.

use futures::{AsyncBufRead, AsyncReadExt as _};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message as _};

use super::end::End;
use super::message::ListMeta;
use super::wire::Problem;

/// The first bytes of every answer and every object of an event.
const MAGIC: &[u8; 4] = b"k8s\0";

/// The field of `runtime.Unknown` that holds the object.
const RAW: u32 = 2;

/// The most bytes that one object may have. A real server takes requests of some 3 MiB.
const MAX_OBJECT: u64 = 64 << 20;

/// A field's value within a message.
enum Field<'a> {
    Bytes(&'a [u8]),
    Other,
}

/// Takes the next field of a message.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Field<'a>), Problem> {
    let (tag, wire) = decode_key(bytes)?;
    match wire {
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(bytes)?).unwrap_or(usize::MAX);
            let (field, rest) = bytes.split_at_checked(length).ok_or(Problem::Form("it ends within a field"))?;
            *bytes = rest;
            Ok((tag, Field::Bytes(field)))
        }
        wire => {
            skip_field(wire, tag, bytes, DecodeContext::default())?;
            Ok((tag, Field::Other))
        }
    }
}

/// The object in an envelope.
pub(super) fn opened(bytes: &[u8]) -> Result<&[u8], Problem> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(Problem::Form("it has no envelope of the API's protobuf"))?;
    while !rest.is_empty() {
        if let (RAW, Field::Bytes(raw)) = next_field(&mut rest)? {
            return Ok(raw);
        }
    }
    // An empty message needs no bytes.
    Ok(&[])
}

/// The type of a watch event, and its object without the envelope.
pub(super) fn watch_event(frame: &[u8]) -> Result<(&str, &[u8]), Problem> {
    let (mut kind, mut object, mut rest) = ("", None, frame);
    while !rest.is_empty() {
        match next_field(&mut rest)? {
            (1, Field::Bytes(text)) => {
                kind = std::str::from_utf8(text).map_err(|_| Problem::Form("its type is not UTF-8"))?;
            }
            (2, Field::Bytes(mut extension)) => {
                while !extension.is_empty() {
                    if let (1, Field::Bytes(raw)) = next_field(&mut extension)? {
                        object = Some(raw);
                    }
                }
            }
            _ => {}
        }
    }
    Ok((kind, opened(object.ok_or(Problem::Form("it has no object"))?)?))
}

/// Reads the next frame of a watch, without its length. Returns whether there was none: the watch has ended.
pub(super) async fn next_frame<R: AsyncBufRead + Unpin>(body: &mut R, frame: &mut Vec<u8>) -> Result<bool, End> {
    let mut length = [0; 4];
    match body.read(&mut length).await.map_err(End::Read)? {
        0 => return Ok(true),
        got => exactly(body, &mut length[got..]).await?,
    }
    bytes(body, u64::from(u32::from_be_bytes(length)), "watch event", frame).await?;
    Ok(false)
}

/// A piece of a list.
#[derive(Debug)]
pub(super) enum Piece {
    Meta(ListMeta),
    /// An object; its bytes are in the buffer.
    Item,
}

/// A list that is read as it arrives.
pub(super) struct List<R> {
    body: R,
    /// The bytes that are left of the list; `None` outside of it.
    left: Option<u64>,
}

impl<R: AsyncBufRead + Unpin> List<R> {
    /// Reads the first bytes of an answer.
    pub(super) async fn open(mut body: R) -> Result<Self, End> {
        let mut magic = [0; 4];
        exactly(&mut body, &mut magic).await?;
        if magic != *MAGIC {
            return Err(End::Malformed {
                what: "list",
                problem: Problem::Form("it has no envelope of the API's protobuf"),
            });
        }
        Ok(Self { body, left: None })
    }

    /// Reads the next piece, an object into `item`. `None` after the last, once the whole answer was read.
    pub(super) async fn next(&mut self, item: &mut Vec<u8>) -> Result<Option<Piece>, End> {
        loop {
            if self.left == Some(0) {
                self.left = None;
            }
            let inside = self.left.is_some();
            let Some(key) = self.varint().await? else {
                return if inside { Err(End::Torn) } else { Ok(None) };
            };
            let (tag, wire) = (key >> 3, key & 7);
            match (wire, tag, inside) {
                (0, ..) => {
                    self.varint().await?.ok_or(End::Torn)?;
                }
                (2, tag, false) if tag == u64::from(RAW) => self.left = Some(self.varint().await?.ok_or(End::Torn)?),
                (2, ..) => {
                    let length = self.varint().await?.ok_or(End::Torn)?;
                    if let Some(left) = &mut self.left {
                        *left = left.checked_sub(length).ok_or_else(torn_list)?;
                    }
                    bytes(&mut self.body, length, "list", item).await?;
                    match (tag, inside) {
                        (1, true) => {
                            let meta = ListMeta::decode(&**item);
                            let problem = |error: DecodeError| End::Malformed { what: "list", problem: error.into() };
                            return Ok(Some(Piece::Meta(meta.map_err(problem)?)));
                        }
                        (2, true) => return Ok(Some(Piece::Item)),
                        _ => {}
                    }
                }
                _ => return Err(torn_list()),
            }
        }
    }

    /// Reads a number; `None` at the end of the answer.
    async fn varint(&mut self) -> Result<Option<u64>, End> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            if self.body.read(&mut byte).await.map_err(End::Read)? == 0 {
                return if shift == 0 { Ok(None) } else { Err(End::Torn) };
            }
            if let Some(left) = &mut self.left {
                *left = left.checked_sub(1).ok_or_else(torn_list)?;
            }
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(Some(number));
            }
        }
        Err(torn_list())
    }
}

fn torn_list() -> End {
    End::Malformed { what: "list", problem: Problem::Form("its lengths contradict each other") }
}

async fn exactly<R: AsyncBufRead + Unpin>(body: &mut R, into: &mut [u8]) -> Result<(), End> {
    body.read_exact(into).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => End::Torn,
        _ => End::Read(error),
    })
}

/// Reads that many bytes into an empty buffer, which grows only as they arrive.
async fn bytes<R: AsyncBufRead + Unpin>(
    body: &mut R,
    length: u64,
    what: &'static str,
    into: &mut Vec<u8>,
) -> Result<(), End> {
    if length > MAX_OBJECT {
        return Err(End::Malformed { what, problem: Problem::Size(length) });
    }
    into.clear();
    body.take(length)
        .read_to_end(into)
        .await
        .map_err(|error| if into.is_empty() { End::Read(error) } else { End::Torn })?;
    if into.len() as u64 == length { Ok(()) } else { Err(End::Torn) }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![tag << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        [field, bytes.to_vec()].concat()
    }

    fn enveloped(raw: &[u8]) -> Vec<u8> {
        [MAGIC.to_vec(), field(1, &field(2, b"ServiceList")), field(2, raw), vec![0x1a, 0, 0x22, 0]].concat()
    }

    fn event(kind: &str, object: &[u8]) -> Vec<u8> {
        [field(1, kind.as_bytes()), field(2, &field(1, &enveloped(object)))].concat()
    }

    /// The objects of a list and its version, or how reading it ends.
    fn list(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, String), End> {
        block_on(async {
            let mut list = List::open(Cursor::new(bytes)).await?;
            let (mut items, mut version, mut item) = (Vec::new(), String::new(), Vec::new());
            while let Some(piece) = list.next(&mut item).await? {
                match piece {
                    Piece::Item => items.push(item.clone()),
                    Piece::Meta(meta) => version = meta.resource_version,
                }
            }
            Ok((items, version))
        })
    }

    #[test]
    fn own_16_a_list_is_read_object_by_object() {
        let long = vec![b'x'; 300];
        let raw =
            [field(1, &field(2, b"77")), field(2, b"first"), field(9, b"unknown"), field(2, &long), field(2, b"")];
        let (items, version) = list(&enveloped(&raw.concat())).unwrap();
        assert_eq!((items, &*version), (vec![b"first".to_vec(), long, Vec::new()], "77"));
        assert_eq!(list(&enveloped(b"")).unwrap(), (Vec::new(), String::new()));
    }

    #[test]
    fn own_12_a_list_that_breaks_off_or_contradicts_itself_is_never_taken_for_a_whole_one() {
        let whole = enveloped(&[field(1, &field(2, b"77")), field(2, b"first"), field(2, b"second")].concat());
        let end = whole.len() - 4;
        for cut in 0..end {
            let ended = list(&whole[..cut]);
            // The envelope may end after any of its fields; before the list nothing has been sent.
            let before = cut <= 4 + 15 && matches!(&ended, Ok((items, _)) if items.is_empty());
            assert!(before || matches!(ended, Err(End::Torn)), "{cut}: {ended:?}");
        }
        let mut contradictory = enveloped(&field(2, b"first"));
        let at = contradictory.len() - 4 - 6;
        contradictory[at] = 100;
        assert!(matches!(list(&contradictory), Err(End::Malformed { .. })));
        assert!(matches!(list(b"{\"kind\":\"ServiceList\"}"), Err(End::Malformed { .. })));
        let huge =
            [MAGIC.to_vec(), vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x12, 0xf0, 0xff, 0xff, 0xff, 0x0f]].concat();
        assert!(list(&huge).unwrap_err().to_string().contains("4294967280 bytes"));
    }

    /// The frames of a watch, or how reading it ends.
    fn frames(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<(), End>) {
        let (mut body, mut frames, mut frame) = (Cursor::new(bytes), Vec::new(), Vec::new());
        loop {
            match block_on(next_frame(&mut body, &mut frame)) {
                Ok(false) => frames.push(frame.clone()),
                Ok(true) => return (frames, Ok(())),
                Err(end) => return (frames, Err(end)),
            }
        }
    }

    #[test]
    fn own_12_frames_that_are_torn_end_the_watch_and_those_before_count() {
        let framed = |event: &[u8]| {
            let length = u32::try_from(event.len()).unwrap();
            [length.to_be_bytes().to_vec(), event.to_vec()].concat()
        };
        let (first, second) = (framed(&event("ADDED", b"a")), framed(&event("DELETED", b"b")));
        let whole = [first.clone(), second].concat();
        let (all, ended) = frames(&whole);
        assert!(all.len() == 2 && ended.is_ok());
        assert_eq!(watch_event(&all[1]).unwrap(), ("DELETED", &b"b"[..]));
        for cut in first.len() + 1..whole.len() {
            let (all, ended) = frames(&whole[..cut]);
            assert!(all.len() == 1 && matches!(ended, Err(End::Torn)), "{cut}: {ended:?}");
        }
        let (none, ended) = frames(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert!(none.is_empty() && matches!(ended, Err(End::Malformed { .. })), "{ended:?}");
    }

    #[test]
    fn own_12_events_that_cannot_be_read_say_why() {
        let problem = |bytes: &[u8]| watch_event(bytes).unwrap_err().to_string();
        assert_eq!(problem(&field(1, b"ADDED")), "it has no object");
        assert_eq!(problem(&field(2, &field(1, b"{}"))), "it has no envelope of the API's protobuf");
        assert_eq!(problem(&event("ADDED", b"a")[..9]), "it ends within a field");
        assert_eq!(problem(&field(1, b"\xff")), "its type is not UTF-8");
        let whole = event("MODIFIED", b"object");
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = byte;
                // Whatever it is, it is no panic.
                let _ = watch_event(&changed);
            }
        }
    }
}
