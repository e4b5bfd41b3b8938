//! The text of one manifest file, taken apart into objects: YAML with several documents, JSON, and Lists in both.
//!
//! Each document is read twice: once for what it says it is, once as that. So an error names the exact line and field.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use k8s_openapi::{Metadata, Resource};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Track;

use super::locate::{Locate, steps};

/// What is wrong with a manifest: file, line, field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct ManifestError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, counted from 1, as far as they are known.
    pub at: Option<(u64, u64)>,
    /// The field's path in the document, such as `spec.ports[0].port`; empty if the document as a whole is meant.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl ManifestError {
    /// An error about a file as a whole.
    pub(super) fn of_file(file: &Path, message: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), at: None, field: String::new(), message: message.to_string() }
    }

    fn text(&self) -> String {
        let mut text = self.file.display().to_string();
        if let Some((line, column)) = self.at {
            text.push_str(&format!(":{line}:{column}"));
        }
        if !self.field.is_empty() {
            text.push_str(&format!(": {}", self.field));
        }
        text + ": " + &self.message
    }
}

/// An object of a kind that portway reads.
#[derive(Debug)]
pub(super) enum Object {
    Service(Box<core::Service>),
    EndpointSlice(Box<discovery::EndpointSlice>),
    Node(Box<core::Node>),
    ServiceCidr(Box<networking::ServiceCIDR>),
}

/// A field and what is wrong with it.
pub(super) type Refusal = (String, &'static str);

/// Gives all objects of a file to `take`, in their order, and passes over those of other kinds. What `take` refuses is
/// an error at the place of the field.
pub(super) fn parse(
    file: &Path,
    text: &str,
    mut take: impl FnMut(Object) -> Result<(), Refusal>,
) -> Result<(), ManifestError> {
    let json = file.extension().is_some_and(|extension| extension == "json");
    for document in if json { vec![Document { line: 1, text, json }] } else { documents(text) } {
        let header = match document.read(Seed::<Header<'_>>::default()) {
            Ok(Some(header)) => header,
            Ok(None) => continue,
            Err(problem) => return Err(problem.of(file)),
        };
        let locate = |(field, message)| document.refuse(field, message).of(file);
        let shape = header.shape().map_err(locate)?;
        for (prefix, object) in document.read(shape).map_err(|problem| problem.of(file))? {
            take(object).map_err(|(field, message)| locate((prefix + &field, message.to_owned())))?;
        }
    }
    Ok(())
}

/// One document of a file.
struct Document<'a> {
    /// The line on which it begins, counted from 1.
    line: u64,
    text: &'a str,
    json: bool,
}

/// Takes a YAML stream apart at its `---` lines. Documents without content are left out.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut all = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    let mut end_document = |start: usize, end: usize, line: u64| {
        let text = &text[start..end];
        let says_something = |line: &str| !matches!(line.trim_start().chars().next(), None | Some('#'));
        if text.lines().any(says_something) {
            all.push(Document { line, text, json: false });
        }
    };
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t'])) {
            end_document(start, offset, start_line);
            // What follows the dashes on their own line belongs to the document that they begin.
            (start, start_line) = (offset + 3, number);
        }
        offset += line.len();
    }
    end_document(start, text.len(), start_line);
    all
}

impl<'a> Document<'a> {
    fn read<S: DeserializeSeed<'a>>(&self, seed: S) -> Result<S::Value, Problem> {
        let mut track = Track::new();
        if self.json {
            let mut deserializer = serde_json::Deserializer::from_str(self.text);
            let value = seed
                .deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track))
                .and_then(|value| deserializer.end().map(|()| value));
            return value.map_err(|error| Problem {
                at: Some((error.line() as u64, error.column() as u64)),
                field: path(track),
                message: in_plain_words(&error.to_string()),
            });
        }
        let options = serde_saphyr::options! {
            with_snippet: false,
            // These are the administrator's own files, and a cluster's objects may all be in one.
            budget: serde_saphyr::budget! {
                max_events: 1_000_000_000,
                max_nodes: 500_000_000,
                max_total_scalar_bytes: 1 << 32,
            },
        };
        serde_saphyr::with_deserializer_from_str_with_options(self.text, options, |deserializer| {
            seed.deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
        })
        .map_err(|error| Problem {
            at: error.location().map(|at| (at.line() + self.line - 1, at.column())),
            field: path(track),
            message: in_plain_words(&error.render_with_formatter(&serde_saphyr::UserMessageFormatter)),
        })
    }

    /// A problem with a field of this document: at its place, or where what should hold it stands.
    fn refuse(&self, field: String, message: String) -> Problem {
        let steps = steps(&field);
        let place = (0..=steps.len()).rev().find_map(|depth| self.read(Locate(&steps[..depth])).err()?.at);
        Problem { at: place, field, message }
    }
}

/// The path to a field, as far as it was read; nothing for the document itself.
fn path(track: Track) -> String {
    let path = track.path().to_string();
    path.trim_end_matches(['.', '?']).to_owned()
}

/// A parser's message in the words of those who write manifests, and without the place that it ends with: ours counts
/// lines from the file's beginning.
fn in_plain_words(message: &str) -> String {
    let message = message.rsplit_once(" at line ").map_or(message, |(before, _)| before);
    match message {
        "expected sequence start" => "must be a list",
        "expected mapping start" => "must be an object",
        "invalid boolean" => "must be true or false",
        "invalid i32" => "must be a whole number",
        other => other,
    }
    .to_owned()
}

/// An error before its file is known.
struct Problem {
    at: Option<(u64, u64)>,
    field: String,
    message: String,
}

impl Problem {
    fn of(self, file: &Path) -> ManifestError {
        ManifestError { file: file.to_owned(), at: self.at, field: self.field, message: self.message }
    }
}

/// Reads a `T`, or nothing from an empty document.
struct Seed<T>(std::marker::PhantomData<T>);

impl<T> Default for Seed<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Seed<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Option::<T>::deserialize(deserializer)
    }
}

/// What a document says it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    items: Option<Vec<ItemHeader<'a>>>,
}

/// What an item of a List says it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemHeader<'a> {
    #[serde(borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
}

impl Header<'_> {
    fn shape(&self) -> Result<Shape, (String, String)> {
        let missing = |field: String| (field, "is missing".to_owned());
        let kind = self.kind.as_deref().ok_or_else(|| missing("kind".to_owned()))?;
        let version = self.api_version.as_deref().ok_or_else(|| missing("apiVersion".to_owned()))?;
        let Some(of) = kind.strip_suffix("List") else { return Ok(Shape::One(Kind::of(version, kind, "")?)) };
        let items = self.items.as_deref().unwrap_or_default();
        let kinds = items.iter().enumerate().map(|(i, item)| {
            // The items of a typed list need not repeat what the list says.
            let kind = item.kind.as_deref().or((!of.is_empty()).then_some(of));
            let version = item.api_version.as_deref().or((!of.is_empty()).then_some(version));
            let kind = kind.ok_or_else(|| missing(format!("items[{i}].kind")))?;
            let version = version.ok_or_else(|| missing(format!("items[{i}].apiVersion")))?;
            Kind::of(version, kind, &format!("items[{i}]."))
        });
        Ok(Shape::List(kinds.collect::<Result<_, _>>()?))
    }
}

/// How a document is to be read.
enum Shape {
    One(Kind),
    List(Vec<Kind>),
}

/// What an object is to be read as.
#[derive(Clone, Copy)]
enum Kind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
    /// Not portway's concern.
    Other,
}

impl Kind {
    /// By API version and kind; `prefix` is the way to the object.
    fn of(version: &str, kind: &str, prefix: &str) -> Result<Self, (String, String)> {
        let (known, wanted) = match kind {
            core::Service::KIND => (Self::Service, core::Service::API_VERSION),
            discovery::EndpointSlice::KIND => (Self::EndpointSlice, discovery::EndpointSlice::API_VERSION),
            core::Node::KIND => (Self::Node, core::Node::API_VERSION),
            networking::ServiceCIDR::KIND => (Self::ServiceCidr, networking::ServiceCIDR::API_VERSION),
            _ => return Ok(Self::Other),
        };
        let group = |version: &str| version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        if version == wanted {
            Ok(known)
        } else if group(version) == group(wanted) {
            let message = format!("{version:?} of {kind} is not supported, only {wanted:?} is");
            Err((format!("{prefix}apiVersion"), message))
        } else {
            // A kind of the same name from another API group.
            Ok(Self::Other)
        }
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Vec<(String, Object)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self {
            Self::One(kind) => {
                let object = kind.deserialize(deserializer)?;
                Ok(object.into_iter().map(|object| (String::new(), object)).collect())
            }
            Self::List(kinds) => deserializer.deserialize_map(ListVisitor(kinds)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = Option<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Ok(Some(match self {
            Self::Service => Object::Service(Deserialize::deserialize(deserializer)?),
            Self::EndpointSlice => Object::EndpointSlice(Deserialize::deserialize(deserializer)?),
            Self::Node => Object::Node(Deserialize::deserialize(deserializer)?),
            Self::ServiceCidr => Object::ServiceCidr(Deserialize::deserialize(deserializer)?),
            Self::Other => {
                IgnoredAny::deserialize(deserializer)?;
                return Ok(None);
            }
        }))
    }
}

/// Reads a List's `items`, each as its kind.
struct ListVisitor(Vec<Kind>);

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<(String, Object)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                found = map.next_value_seed(ItemsSeed(&self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads the items themselves.
struct ItemsSeed<'a>(&'a [Kind]);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<(String, Object)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // A list without items may be written as null.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<(String, Object)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        for (i, kind) in self.0.iter().enumerate() {
            match items.next_element_seed(*kind)? {
                Some(Some(object)) => found.push((format!("items[{i}]."), object)),
                Some(None) => {}
                None => break,
            }
        }
        // The sequence ends here in truth too: the kinds were counted in it. Some formats want to hear it.
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

impl Object {
    /// Its kind.
    pub(super) fn kind(&self) -> portway_model::Kind {
        match self {
            Self::Service(_) => portway_model::Kind::Service,
            Self::EndpointSlice(_) => portway_model::Kind::EndpointSlice,
            Self::Node(_) => portway_model::Kind::Node,
            Self::ServiceCidr(_) => portway_model::Kind::ServiceCidr,
        }
    }

    /// Its metadata.
    pub(super) fn metadata(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        match self {
            Self::Service(object) => object.metadata_mut(),
            Self::EndpointSlice(object) => object.metadata_mut(),
            Self::Node(object) => object.metadata_mut(),
            Self::ServiceCidr(object) => object.metadata_mut(),
        }
    }
}
