//! Lists: snapshots of one resource version, in pages.

use std::io::Write as _;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::ApiError;
use crate::negotiate::Format;
use crate::object::{Key, Object};
use crate::params::Params;
use crate::protobuf;
use crate::resource::Resource;
use crate::selector::Selector;
use crate::store::Store;

/// Lists from this length on are compressed where the client allows it, as on the real server.
const GZIP_FROM: usize = 128 << 10;

/// Size of the pieces in which a list is written, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The tag of the items in the protobuf message of every list.
const ITEMS: u32 = 2;

/// A page of a list: an iterator over pieces of it.
pub(crate) struct Page {
    format: Format,
    head: Option<Bytes>,
    items: std::vec::IntoIter<Arc<Object>>,
    tail: Bytes,
    first: bool,
    ended: bool,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Page {
    /// Compresses the page if it is long enough. Returns whether it is.
    pub(crate) fn compress(&mut self) -> bool {
        let length: usize = self.items.as_slice().iter().map(|object| object.item(self.format).len()).sum();
        if length >= GZIP_FROM {
            // The real server's level.
            self.gzip = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        }
        self.gzip.is_some()
    }

    /// The bytes of a piece as they are sent; none yet if the encoder keeps them all.
    fn sent(&mut self, piece: Vec<u8>) -> Bytes {
        let Some(gzip) = &mut self.gzip else { return piece.into() };
        // Writing into memory cannot fail.
        let written = gzip.write_all(&piece);
        debug_assert!(written.is_ok());
        if !self.ended {
            return std::mem::take(gzip.get_mut()).into();
        }
        self.gzip.take().and_then(|gzip| gzip.finish().ok()).unwrap_or_default().into()
    }
}

/// Builds the page that a list request selects.
pub(crate) fn page(
    store: &Store,
    resource: Resource,
    namespace: Option<&str>,
    params: &Params,
    format: Format,
) -> Result<Page, ApiError> {
    let selector = Selector::parse(resource, &params.label_selector, &params.field_selector)?;
    let from = Token::read(params)?;
    let version = match &from {
        Some(token) => Some(token.version),
        None => requested_version(store, params)?,
    };
    let (version, mut objects) = store.snapshot(resource, version)?;
    if let Some(token) = &from {
        let listed = objects.partition_point(|object| object.key <= token.after);
        objects.drain(..listed);
    }
    objects.retain(|object| object.is_selected(namespace, &selector));
    let limit = params.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let rest = objects.len().saturating_sub(limit);
    objects.truncate(limit);
    let mut metadata = serde_json::json!({ "resourceVersion": version.to_string() });
    if let (1.., Some(last)) = (rest, objects.last()) {
        metadata["continue"] = Token { version, after: last.key.clone() }.text().into();
        if selector.is_everything() {
            metadata["remainingItemCount"] = rest.into();
        }
    }
    let (kind, api_version) = (resource.kind(), resource.api_version());
    let (head, tail) = match format {
        Format::Json => {
            let head = format!(r#"{{"kind":"{kind}List","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
            (head.into(), Bytes::from_static(b"]}\n"))
        }
        Format::Protobuf => {
            let length = |object: &Arc<Object>| {
                let (mut key, item) = (Vec::new(), object.item(format).len());
                protobuf::put_length(&mut key, ITEMS, item);
                key.len() + item
            };
            protobuf::list_ends(api_version, kind, &metadata, objects.iter().map(length).sum())
        }
    };
    Ok(Page { format, head: Some(head), items: objects.into_iter(), tail, first: true, ended: false, gzip: None })
}

impl Iterator for Page {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        if let Some(head) = self.head.take() {
            piece.put_slice(&head);
        }
        while piece.len() < PIECE_BYTES {
            let Some(object) = self.items.next() else {
                piece.put_slice(&self.tail);
                self.ended = true;
                break;
            };
            let first = std::mem::take(&mut self.first);
            match self.format {
                Format::Json => {
                    if !first {
                        piece.put_u8(b',');
                    }
                    piece.put_slice(object.item(self.format));
                }
                Format::Protobuf => protobuf::put_message(&mut piece, ITEMS, object.item(self.format)),
            }
        }
        Some(self.sent(piece))
    }
}

/// The version of the first page of a list: `None` for the current one.
fn requested_version(store: &Store, params: &Params) -> Result<Option<u64>, ApiError> {
    let version = params.version()?;
    let limited = params.limit.is_some_and(|limit| limit > 0);
    match (params.resource_version_match.as_str(), version) {
        ("", None | Some(0)) => Ok(None),
        // With a limit and without a match, a version means exactly that version, for compatibility.
        ("", Some(version)) if limited => Ok(Some(version)),
        ("", Some(version)) | ("NotOlderThan", Some(version)) => {
            let newest = store.version();
            if version > newest { Err(ApiError::too_large(version, newest)) } else { Ok(None) }
        }
        ("Exact", Some(version @ 1..)) => Ok(Some(version)),
        ("Exact", Some(0)) => {
            Err(ApiError::invalid("resourceVersionMatch: Forbidden: \"Exact\" is forbidden for resourceVersion \"0\""))
        }
        (_, None) => {
            Err(ApiError::invalid("resourceVersionMatch: Forbidden: forbidden unless resourceVersion is provided"))
        }
        (other, _) => Err(ApiError::invalid(format!(
            "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
        ))),
    }
}

/// The continue token: the version of the first page, and the last object of the previous page.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    version: u64,
    after: Key,
}

impl Token {
    fn read(params: &Params) -> Result<Option<Self>, ApiError> {
        if params.continue_token.is_empty() {
            return Ok(None);
        }
        if params.version()?.is_some_and(|version| version != 0) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let parse = |token: &str| {
            let (version, key) = token.split_once(':')?;
            let (namespace, name) = key.split_once('/')?;
            Some(Self { version: version.parse().ok()?, after: (namespace.to_owned(), name.to_owned()) })
        };
        parse(&params.continue_token).map(Some).ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }

    fn text(&self) -> String {
        format!("{}:{}/{}", self.version, self.after.0, self.after.1)
    }
}
