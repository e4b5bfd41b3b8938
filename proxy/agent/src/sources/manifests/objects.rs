//! The objects of a set of manifest files: with defaults filled in, without those that no proxy serves, and each object
//! once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portway_model::{Event, Kind, ServiceName};

use super::defaults;
use super::error::ManifestError;
use super::header::Object;
use super::parse::{Refusal, parse};
use crate::sources::convert;

/// All kinds in the order in which they are sent: first those that others are resolved against.
pub(super) const KINDS: [Kind; 4] = [Kind::Node, Kind::ServiceCidr, Kind::Service, Kind::EndpointSlice];

/// A warning about an object that is valid but is hardly what its author wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestWarning {
    /// The file that holds the object.
    pub file: PathBuf,
    /// The object, as `Service namespace/name`.
    pub object: String,
    /// What is unusual, and what portway does about it.
    pub message: String,
}

impl fmt::Display for ManifestWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file.display(), self.object, self.message)
    }
}

/// Identifies an object: two objects with the same key are the same object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    namespace: String,
    name: String,
}

impl Key {
    /// The event for the removal of this object.
    pub(super) fn gone(&self) -> Event {
        match self.kind {
            Kind::Service => Event::ServiceGone(ServiceName::new(self.namespace.as_str(), self.name.as_str())),
            Kind::EndpointSlice => {
                Event::EndpointSliceGone { namespace: self.namespace.clone(), name: self.name.clone() }
            }
            Kind::Node => Event::NodeGone(self.name.clone()),
            Kind::ServiceCidr => Event::ServiceCidrGone(self.name.clone()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Service => write!(f, "Service {}/{}", self.namespace, self.name),
            Kind::EndpointSlice => write!(f, "EndpointSlice {}/{}", self.namespace, self.name),
            Kind::Node => write!(f, "Node {}", self.name),
            Kind::ServiceCidr => write!(f, "ServiceCIDR {}", self.name),
        }
    }
}

/// The objects of one file, and warnings about them.
#[derive(Debug, Default)]
pub(super) struct Content {
    objects: Vec<(Key, Arc<Event>)>,
    warnings: Vec<ManifestWarning>,
}

impl Content {
    /// Parses the text of a file.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, ManifestError> {
        let mut content = Self::default();
        parse(file, text, |object| content.take(file, object))?;
        Ok(content)
    }

    /// The warnings about the objects of this file.
    #[cfg(test)]
    pub(super) fn warnings(&self) -> &[ManifestWarning] {
        &self.warnings
    }

    /// The objects in the order of the file.
    #[cfg(test)]
    pub(super) fn objects(&self) -> Vec<&Event> {
        self.objects.iter().map(|(_, event)| &**event).collect()
    }

    fn take(&mut self, file: &Path, mut object: Object) -> Result<(), Refusal> {
        let kind = object.kind();
        let meta = object.metadata();
        let name = meta.name.clone().filter(|name| !name.is_empty());
        let name = name.ok_or(("metadata.name".to_owned(), "is missing"))?;
        let namespace = match kind {
            Kind::Service | Kind::EndpointSlice => meta.namespace.get_or_insert_with(|| "default".to_owned()).clone(),
            Kind::Node | Kind::ServiceCidr => String::new(),
        };
        let key = Key { kind, namespace, name };
        let event = match object {
            Object::Service(object) => {
                let mut service = convert::service(*object);
                defaults::service(&mut service)?;
                if !defaults::service_is_selected(&service) {
                    tracing::debug!(%key, "not for this proxy, ignored");
                    return Ok(());
                }
                for message in defaults::missing_allocations(&service) {
                    self.warnings.push(ManifestWarning { file: file.to_owned(), object: key.to_string(), message });
                }
                Event::Service(service)
            }
            Object::EndpointSlice(object) => {
                let mut slice = convert::endpoint_slice(*object);
                defaults::endpoint_slice(&mut slice)?;
                if !defaults::slice_is_selected(&slice) {
                    tracing::debug!(%key, "of a headless Service, ignored");
                    return Ok(());
                }
                Event::EndpointSlice(slice)
            }
            Object::Node(object) => Event::Node(convert::node(*object)),
            Object::ServiceCidr(object) => Event::ServiceCidr(convert::service_cidr(*object)),
        };
        self.objects.push((key, Arc::new(event)));
        Ok(())
    }
}

/// The objects of all files by key.
pub(super) type Objects = BTreeMap<Key, Arc<Event>>;

/// Merges the files. Of an object that several files hold, the first counts, in the order of `files`.
pub(super) fn merge<'a>(files: impl IntoIterator<Item = (&'a Path, &'a Content)>) -> (Objects, Vec<ManifestWarning>) {
    let mut objects = Objects::new();
    let mut owners = BTreeMap::new();
    let mut warnings = Vec::new();
    for (file, content) in files {
        warnings.extend_from_slice(&content.warnings);
        for (key, event) in &content.objects {
            match objects.entry(key.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Arc::clone(event));
                    owners.insert(key, file);
                }
                Entry::Occupied(_) => {
                    let owner = owners.get(key).map_or_else(String::new, |owner| owner.display().to_string());
                    warnings.push(ManifestWarning {
                        file: file.to_owned(),
                        object: key.to_string(),
                        message: format!("it is also in {owner}, which comes first; this one is ignored"),
                    });
                }
            }
        }
    }
    (objects, warnings)
}

/// A complete list of the objects of each kind.
pub(super) fn lists(objects: &Objects) -> Vec<Event> {
    let mut events = Vec::with_capacity(objects.len() + 2 * KINDS.len());
    for kind in KINDS {
        events.push(Event::ListBegins(kind));
        events.extend(objects.iter().filter(|(key, _)| key.kind == kind).map(|(_, event)| Event::clone(event)));
        events.push(Event::ListDone(kind));
    }
    events
}

/// The events that turn `old` into `new`.
pub(super) fn diff(old: &Objects, new: &Objects) -> Vec<Event> {
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(Key::gone);
    let come = new.iter().filter(|(key, event)| old.get(key) != Some(event)).map(|(_, event)| Event::clone(event));
    gone.chain(come).collect()
}
