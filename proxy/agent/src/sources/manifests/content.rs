//! The objects of one file, each read by itself: with defaults filled in, without those that no proxy serves.

use std::path::Path;
use std::sync::Arc;

use portway_model::{Event, Kind};
use serde_json::Value;

use super::defaults;
use super::error::ManifestError;
use super::kinds::{Class, Object, classify};
use super::objects::{Key, ManifestWarning};
use super::outline::Outline;
use super::tree::{Fields, ReadFields};
use crate::documents::{Document, FieldPath, MAX_DEPTH, SyntaxError, Text, Tree, decode, documents};
use crate::sources::convert;

/// Room for the parser at [`MAX_DEPTH`], in bytes: a level takes some 30 KiB in a build without optimization.
const STACK: usize = MAX_DEPTH * 128 * 1024;

/// A field of an object, and why its value is refused.
pub(super) type Refusal = (String, &'static str);

/// The objects of one file, those that were refused, and warnings.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// The objects in the order of the file.
    pub(super) objects: Vec<(Key, Arc<Event>)>,
    /// The objects, and documents of which no object can be read, that are not used.
    pub(super) refused: Vec<Refused>,
    pub(super) warnings: Vec<ManifestWarning>,
    /// Namespace and name of Endpoints objects.
    pub(super) endpoints: Vec<(String, String)>,
    /// Whether the file holds nothing but space.
    pub(super) is_blank: bool,
}

/// An object that is not used, or a document of which no object can be read.
#[derive(Debug)]
pub(super) struct Refused {
    /// The object, if it can be told.
    pub(super) key: Option<Key>,
    pub(super) error: ManifestError,
}

/// What an object of a file turned out to be.
enum Item {
    /// An object of a kind that portway reads. Nothing if no proxy serves it.
    Object(Option<(Key, Arc<Event>)>, Vec<String>),
    Endpoints(String, String),
    Foreign(Option<String>),
    /// An object that names no kind: that of its list, if it is in one.
    Kindless(Box<Tree>),
    Refused(Fault),
}

/// Why an object is refused, before its place is known.
struct Fault {
    key: Option<Key>,
    field: FieldPath,
    message: String,
}

impl Content {
    /// Parses the bytes of a file.
    ///
    /// # Errors
    /// If the file as a whole cannot be read. Single objects are in [`Content::refused`].
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, ManifestError> {
        std::thread::scope(|scope| {
            let parse = move || Self::parse_here(file, bytes);
            let thread = std::thread::Builder::new().name("manifests".to_owned()).stack_size(STACK);
            match thread.spawn_scoped(scope, parse).map(|thread| thread.join()) {
                Ok(Ok(content)) => content,
                Ok(Err(_)) => Err(ManifestError::of_file(file, "cannot be parsed: the parser failed")),
                Err(error) => Err(ManifestError::of_file(file, format!("cannot be parsed: {error}"))),
            }
        })
    }

    fn parse_here(file: &Path, bytes: &[u8]) -> Result<Self, ManifestError> {
        let Text { text, is_lossy } = decode(bytes).map_err(|message| ManifestError::of_file(file, message))?;
        let content = Self { is_blank: text.trim().is_empty(), ..Self::default() };
        let mut reader = Reader { file, is_lossy, content };
        let json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        for document in documents(&text, json) {
            match document {
                Ok(document) => reader.document(&document),
                Err(error) => reader.unreadable(None, error),
            }
        }
        Ok(reader.content)
    }
}

/// Reads the documents of a file one by one.
struct Reader<'a> {
    file: &'a Path,
    is_lossy: bool,
    content: Content,
}

impl Reader<'_> {
    fn document(&mut self, document: &Document<'_>) {
        let bad_text = document.not_utf_8().filter(|_| self.is_lossy);
        let fields = match document.read(ReadFields(|tree| item(tree, None))) {
            _ if bad_text.is_some() => {
                let at = bad_text.unwrap_or(document.start);
                let message = "is not UTF-8 text; save the file as UTF-8".to_owned();
                Err(SyntaxError { at, field: String::new(), message })
            }
            fields => fields,
        };
        let fields = match fields {
            Ok(fields) => fields,
            Err(error) => return self.unparsable(document, error),
        };
        let mut faults = Vec::new();
        match class_of(&fields) {
            Err(fault) => faults.extend(fault),
            Ok(Class::List(of)) if !fields.bad_items => {
                for (index, found) in fields.items.into_iter().flatten().enumerate() {
                    let found = match found {
                        Item::Kindless(tree) => item(*tree, Some((of, &fields.tree.value))),
                        found => found,
                    };
                    let fault = self.take(found);
                    faults
                        .extend(fault.map(|fault| Fault { field: FieldPath::item(index).join(fault.field), ..fault }));
                }
            }
            Ok(Class::List(_)) => {
                faults.push(Fault {
                    key: None,
                    field: FieldPath::parse("items"),
                    message: "must be a list".to_owned(),
                });
            }
            Ok(_) => faults.extend(self.take(item(fields.tree, None))),
        }
        if faults.is_empty() {
            return;
        }
        let paths: Vec<_> = faults.iter().map(|fault| fault.field.clone()).collect();
        for (fault, at) in faults.into_iter().zip(document.locate(&paths)) {
            self.refuse(fault, at);
        }
    }

    /// Adds an object to the content, or returns why it is refused.
    fn take(&mut self, item: Item) -> Option<Fault> {
        match item {
            Item::Object(object, messages) => {
                let warnings = object.iter().flat_map(|(key, _)| messages.iter().map(move |message| (key, message)));
                self.content.warnings.extend(warnings.map(|(key, message)| ManifestWarning {
                    file: self.file.to_owned(),
                    object: key.to_string(),
                    message: message.clone(),
                }));
                self.content.objects.extend(object);
            }
            Item::Endpoints(namespace, name) => self.content.endpoints.push((namespace, name)),
            Item::Foreign(Some(message)) => {
                let file = self.file.to_owned();
                self.content.warnings.push(ManifestWarning { file, object: String::new(), message });
            }
            Item::Foreign(None) => {}
            Item::Kindless(_) => {
                let message = "is missing".to_owned();
                return Some(Fault { key: None, field: FieldPath::parse("kind"), message });
            }
            Item::Refused(fault) => return Some(fault),
        }
        None
    }

    fn refuse(&mut self, fault: Fault, at: (u64, u64)) {
        let object = fault.key.as_ref().map(Key::to_string).unwrap_or_default();
        let mut field = fault.field;
        if fault.key.is_some() && field.0.starts_with(&FieldPath::parse("items").0) {
            // The object is named: its fields are counted from it.
            field.0.drain(..2);
        }
        let file = self.file.to_owned();
        let error = ManifestError { file, at: Some(at), object, field: field.to_string(), message: fault.message };
        self.content.refused.push(Refused { key: fault.key, error });
    }

    /// A document that does not parse: of no concern if its lines show a kind that portway does not read.
    fn unparsable(&mut self, document: &Document<'_>, error: SyntaxError) {
        let outline = Outline::of(document.text).unwrap_or_default();
        let named = outline.api_version.as_deref().zip(outline.kind.as_deref());
        let word = |kind: &str| kind.chars().all(|character| character.is_ascii_alphanumeric());
        let class = named.filter(|(_, kind)| word(kind)).map(|(version, kind)| classify(version, kind));
        match class {
            Some(Class::Foreign(_) | Class::Endpoints) => {
                tracing::debug!(file = %self.file.display(), line = error.at.0, "skipped: {}", error.message);
            }
            Some(Class::Known(kind)) => {
                self.unreadable(outline.name.map(|name| Key::new(kind, outline.namespace, name)), error);
            }
            _ => self.unreadable(None, error),
        }
    }

    fn unreadable(&mut self, key: Option<Key>, error: SyntaxError) {
        let object = key.as_ref().map(Key::to_string).unwrap_or_default();
        let SyntaxError { at, field, message } = error;
        let error = ManifestError { file: self.file.to_owned(), at: Some(at), object, field, message };
        self.content.refused.push(Refused { key, error });
    }
}

/// What a document is. An error if it does not say, or nothing if it is empty.
fn class_of(fields: &Fields<Item>) -> Result<Class, Option<Fault>> {
    if fields.tree.value.is_null() {
        return Err(None);
    }
    let missing = |field| Some(Fault { key: None, field: FieldPath::parse(field), message: "is missing".to_owned() });
    let text = |field| fields.tree.value.get(field).and_then(Value::as_str);
    let kind = text("kind").ok_or_else(|| missing("kind"))?;
    let version = text("apiVersion").ok_or_else(|| missing("apiVersion"))?;
    let class = classify(version, kind);
    // Lists of other kinds may hold objects that name their kinds.
    let list = matches!(class, Class::Foreign(_)) && kind.ends_with("List");
    let objects =
        fields.items.as_ref().is_some_and(|items| items.iter().all(|item| !matches!(item, Item::Kindless(_))));
    Ok(if list && objects { Class::List(None) } else { class })
}

/// Reads an object. `list` is the kind that its list gives to items without one, and the list itself.
fn item(tree: Tree, list: Option<(Option<&str>, &Value)>) -> Item {
    let text = |field| tree.value.get(field).and_then(Value::as_str).map(str::to_owned);
    let of = |field| match list {
        Some((Some(kind), _)) if field == "kind" => Some(kind.to_owned()),
        Some((Some(_), list)) => list.get(field).and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let (Some(kind), Some(version)) =
        (text("kind").or_else(|| of("kind")), text("apiVersion").or_else(|| of("apiVersion")))
    else {
        if list.is_none() {
            return Item::Kindless(Box::new(tree));
        }
        let field = FieldPath::parse(if text("kind").is_none() { "kind" } else { "apiVersion" });
        return Item::Refused(Fault { key: None, field, message: "is missing".to_owned() });
    };
    let name = tree.value.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let namespace = tree.value.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
    let key = |kind| name.map(|name| Key::new(kind, namespace.clone(), name.to_owned()));
    match classify(&version, &kind) {
        Class::Known(kind) => {
            let key = key(kind);
            object(kind, tree, key.clone())
                .unwrap_or_else(|(field, message)| Item::Refused(Fault { key, field, message }))
        }
        Class::Unsupported(kind, message) => {
            Item::Refused(Fault { key: key(kind), field: FieldPath::parse("apiVersion"), message })
        }
        Class::Endpoints => {
            Item::Endpoints(namespace.unwrap_or_else(|| "default".to_owned()), name.unwrap_or_default().to_owned())
        }
        Class::Foreign(Some(alike)) => {
            Item::Foreign(Some(format!("kind {kind:?} is not known and ignored; the kind is written {alike:?}")))
        }
        Class::Foreign(None) | Class::List(_) => Item::Foreign(None),
    }
}

/// Converts an object of a known kind, fills in its defaults and checks it.
fn object(kind: Kind, tree: Tree, key: Option<Key>) -> Result<Item, (FieldPath, String)> {
    if let Some(duplicate) = tree.duplicates.into_iter().next() {
        return Err((duplicate, "is there twice; remove one of them".to_owned()));
    }
    let refused = |(field, message): Refusal| (FieldPath::parse(&field), message.to_owned());
    let mut object = Object::read(kind, tree.value)?;
    let key = key.ok_or_else(|| refused(("metadata.name".to_owned(), "is missing")))?;
    for (field, name) in [("metadata.name", &key.name), ("metadata.namespace", &key.namespace)] {
        if name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/') {
            return Err(refused((field.to_owned(), "must not hold spaces, line breaks or slashes")));
        }
    }
    if matches!(kind, Kind::Service | Kind::EndpointSlice) {
        object.metadata().namespace = Some(key.namespace.clone());
    }
    let mut messages = Vec::new();
    let event = match object {
        Object::Service(object) => {
            let mut service = convert::service(*object);
            defaults::service(&mut service).map_err(refused)?;
            messages = defaults::service_warnings(&service);
            defaults::service_is_selected(&service).then_some(Event::Service(service))
        }
        Object::EndpointSlice(object) => {
            let mut slice = convert::endpoint_slice(*object);
            defaults::endpoint_slice(&mut slice).map_err(refused)?;
            messages = defaults::slice_warnings(&slice);
            defaults::slice_is_selected(&slice).then_some(Event::EndpointSlice(slice))
        }
        Object::Node(object) => Some(Event::Node(convert::node(*object))),
        Object::ServiceCidr(object) => Some(Event::ServiceCidr(convert::service_cidr(*object))),
    };
    if event.is_none() {
        tracing::debug!(%key, "not for this proxy, ignored");
    }
    Ok(Item::Object(event.map(|event| (key, Arc::new(event))), messages))
}
