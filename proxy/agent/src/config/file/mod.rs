//! The configuration file: decoded strictly, then leniently with a warning for each field that is not known (contract
//! CFG-3).
//!
//! It is YAML or JSON. The first document is kube-proxy's; kube-proxy reads no further. So portway's own settings stand in a
//! second YAML document, and the same file starts both programs.

pub(super) mod schema;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::portway::{self, PortwayConfiguration};
use super::problem::Invalid;
use super::settings::Documents;
use super::v1alpha1::{self, KubeProxyConfiguration};
use crate::documents::{Document, FieldPath, ReadTree, SyntaxError, Tree, decode, documents};
use crate::logging::one_line;

pub(crate) use watch::changed;

/// The prefix of paths in portway's document, in [`Invalid`].
const PORTWAY: &str = "portway.";

/// The longest file that is read: a ConfigMap holds at most 1 MiB.
const MAX_SIZE: u64 = 4 << 20;

/// A configuration file that could be decoded.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    /// The path of the file, as the command line gives it.
    pub(crate) path: PathBuf,
    /// The documents that the file holds, decoded.
    pub(crate) documents: Documents,
    /// What is not known in it, one sentence each.
    pub(crate) warnings: Vec<String>,
    bytes: Vec<u8>,
}

/// Which document a place is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    KubeProxy,
    Portway,
}

impl ConfigFile {
    /// Reads and decodes a file.
    ///
    /// # Errors
    /// Sentences that name file, line and field.
    pub(crate) fn read(path: &Path) -> Result<Self, Vec<String>> {
        let name = path.display();
        let bytes = read(path).map_err(|error| vec![format!("--config {name}: {error}")])?;
        Self::parse(path, bytes)
    }

    /// Decodes a file's content.
    pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Vec<String>> {
        let mut file = Self { path: path.to_owned(), documents: Documents::default(), warnings: Vec::new(), bytes };
        let mut decoder = Decoder { path, documents: Documents::default(), warnings: Vec::new(), seen: Vec::new() };
        let text = decode(&file.bytes).map_err(|reason| vec![format!("{}: {reason}", path.display())])?;
        for document in documents(&text.text, is_json(path)) {
            let place = |at, field: &str, message: &str| vec![decoder.sentence(at, field, message)];
            let document = document.map_err(|error| place(error.at, &error.field, &error.message))?;
            if let Some(at) = document.not_utf_8().filter(|_| text.is_lossy) {
                return Err(place(at, "", "is not UTF-8"));
            }
            decoder.decode(&document)?;
        }
        if decoder.seen.is_empty() {
            return Err(vec![format!("{}: the file is empty", path.display())]);
        }
        (file.documents, file.warnings) = (decoder.documents, decoder.warnings);
        Ok(file)
    }

    /// What is wrong with values of the file, with their lines and fields, in their order in the file.
    pub(crate) fn describe(&self, problems: &[Invalid]) -> Vec<String> {
        let Ok(text) = decode(&self.bytes) else { return Vec::new() };
        let all: Vec<(Part, Document<'_>)> = documents(&text.text, is_json(&self.path))
            .into_iter()
            .flatten()
            .filter_map(|document| Some((part(&document.read(ReadTree).ok()?.value)?, document)))
            .collect();
        let placed = |invalid: &Invalid| {
            let (wanted, field) = match invalid.path.strip_prefix(PORTWAY) {
                Some(field) => (Part::Portway, field),
                None => (Part::KubeProxy, invalid.path.as_str()),
            };
            let document = all.iter().find(|(part, _)| *part == wanted).map(|(_, document)| document);
            let at = document.and_then(|document| document.locate(&[FieldPath::parse(field)]).first().copied());
            let message = if invalid.value.is_empty() {
                invalid.reason.clone()
            } else {
                format!("{:?}: {}", invalid.value, invalid.reason)
            };
            (at, sentence(&self.path, at, field, &message))
        };
        let mut sentences: Vec<_> = problems.iter().map(placed).collect();
        sentences.sort_by_key(|(at, _)| *at);
        sentences.into_iter().map(|(_, sentence)| sentence).collect()
    }

    /// Whether the file at the path still has the content that was read.
    fn is_as_read(&self, bytes: &[u8]) -> bool {
        self.bytes == bytes
    }
}

/// Reads a file that is not too long to be a configuration.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SIZE {
        return Err(format!("is longer than {MAX_SIZE} bytes"));
    }
    fs::read(path).map_err(|error| error.to_string())
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// Which document this is, if it is one that is read.
fn part(value: &Value) -> Option<Part> {
    match value.get("kind")?.as_str()? {
        v1alpha1::KIND => Some(Part::KubeProxy),
        portway::KIND => Some(Part::Portway),
        _ => None,
    }
}

/// File, line, column, field and message as one sentence.
fn sentence(path: &Path, at: Option<(u64, u64)>, field: &str, message: &str) -> String {
    let mut text = path.display().to_string();
    if let Some((line, column)) = at {
        text.push_str(&format!(":{line}:{column}"));
    }
    for part in [field, message] {
        if !part.is_empty() {
            text.push_str(if part.starts_with('"') { " " } else { ": " });
            text.push_str(part);
        }
    }
    one_line(&text).into_owned()
}

/// Decodes the documents of a file.
struct Decoder<'a> {
    path: &'a Path,
    documents: Documents,
    warnings: Vec<String>,
    seen: Vec<Part>,
}

impl Decoder<'_> {
    fn sentence(&self, at: (u64, u64), field: &str, message: &str) -> String {
        sentence(self.path, Some(at), field, message)
    }

    /// One sentence for each field, in the order of their places.
    fn sentences(&self, document: &Document<'_>, fields: &[(FieldPath, &str)]) -> Vec<String> {
        let paths: Vec<FieldPath> = fields.iter().map(|(path, _)| path.clone()).collect();
        let mut placed: Vec<_> = document.locate(&paths).into_iter().zip(fields).collect();
        placed.sort_by_key(|(at, _)| *at);
        placed.into_iter().map(|(at, (path, message))| self.sentence(at, &path.to_string(), message)).collect()
    }

    fn decode(&mut self, document: &Document<'_>) -> Result<(), Vec<String>> {
        let syntax = |error: SyntaxError| vec![self.sentence(error.at, &error.field, &error.message)];
        let tree = document.read(ReadTree).map_err(syntax)?;
        if tree.value.is_null() {
            return Ok(());
        }
        let text = |field: &str| tree.value.get(field).and_then(Value::as_str);
        match (text("apiVersion"), text("kind")) {
            (Some(v1alpha1::API_VERSION), Some(v1alpha1::KIND)) if self.seen.is_empty() => {
                self.seen.push(Part::KubeProxy);
                let unknown = schema::unknown(&tree.value, &KubeProxyConfiguration::example());
                let twice = "is there twice; the last one counts";
                let fields =
                    named(&tree.duplicates, twice, &unknown, "is not a field of kube-proxy's configuration; ignored");
                self.warnings.extend(self.sentences(document, &fields));
                let config: KubeProxyConfiguration = self.typed(document, tree.value)?;
                self.documents.kube_proxy = config.without_empty();
                Ok(())
            }
            (Some(portway::API_VERSION), Some(portway::KIND)) if !self.seen.contains(&Part::Portway) => {
                self.seen.push(Part::Portway);
                let unknown = schema::unknown(&tree.value, &PortwayConfiguration::example());
                let fields = named(
                    &tree.duplicates,
                    "is there twice; remove one of them",
                    &unknown,
                    "is not a setting of portway",
                );
                if !fields.is_empty() {
                    return Err(self.sentences(document, &fields));
                }
                self.documents.portway = self.typed(document, tree.value)?;
                Ok(())
            }
            (api_version, kind) => self.other(document, &tree, api_version, kind),
        }
    }

    /// A document that is neither, or comes where kube-proxy would not read it.
    fn other(
        &mut self,
        document: &Document<'_>,
        tree: &Tree,
        api_version: Option<&str>,
        kind: Option<&str>,
    ) -> Result<(), Vec<String>> {
        let refuse = |field: &str, message: &str| Err(self.sentences(document, &[(FieldPath::parse(field), message)]));
        let expected = format!("write apiVersion: {} and kind: {}", v1alpha1::API_VERSION, v1alpha1::KIND);
        if !tree.value.is_object() {
            return refuse("", &format!("is not an object; {expected}"));
        }
        match (api_version, kind) {
            (Some(portway::API_VERSION), Some(portway::KIND)) => {
                refuse("kind", &format!("a second {}; one is read", portway::KIND))
            }
            (_, Some(portway::KIND)) => refuse("apiVersion", &format!("must be {}", portway::API_VERSION)),
            (Some(v1alpha1::API_VERSION), Some(v1alpha1::KIND)) if self.seen.contains(&Part::KubeProxy) => {
                refuse("kind", &format!("a second {}; kube-proxy and portway read one", v1alpha1::KIND))
            }
            (Some(v1alpha1::API_VERSION), Some(v1alpha1::KIND)) => {
                refuse("kind", &format!("{} must be the first document: kube-proxy reads no other", v1alpha1::KIND))
            }
            // kube-proxy does not look at later documents either.
            (_, Some(kind)) if !self.seen.is_empty() && kind != v1alpha1::KIND => {
                let message = format!("a document of kind {kind:?} is ignored");
                self.warnings.extend(self.sentences(document, &[(FieldPath::parse("kind"), &message)]));
                Ok(())
            }
            (_, None) => refuse("kind", &format!("is missing; {expected}")),
            (None, Some(_)) => refuse("apiVersion", &format!("is missing; {expected}")),
            (Some(version), Some(v1alpha1::KIND)) => {
                refuse("apiVersion", &format!("{version:?}: not known; {expected}"))
            }
            (_, Some(kind)) => refuse("kind", &format!("{kind:?}: not known; {expected}")),
        }
    }

    /// The document as its type. Of a key that is there twice the last counts.
    fn typed<T: DeserializeOwned>(&self, document: &Document<'_>, value: Value) -> Result<T, Vec<String>> {
        serde_path_to_error::deserialize(schema::lenient_booleans(value)).map_err(|error| {
            let path = FieldPath::reached(error.path());
            self.sentences(document, &[(path, &error.inner().to_string())])
        })
    }
}

/// Fields that are there twice, and fields that are not known, each with what is wrong.
fn named<'a>(
    duplicates: &[FieldPath],
    twice: &'a str,
    unknown: &[FieldPath],
    not_known: &'a str,
) -> Vec<(FieldPath, &'a str)> {
    let duplicates = duplicates.iter().map(|path| (path.clone(), twice));
    duplicates.chain(unknown.iter().map(|path| (path.clone(), not_known))).collect()
}
