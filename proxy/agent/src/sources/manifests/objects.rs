//! The objects of all files together: each once, with warnings about those that are hardly what their author wants.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portway_model::{Event, Kind, ServiceName};

use super::content::Content;
use crate::logging::one_line;

/// All kinds in the order in which they are sent: first those that others are resolved against.
pub(super) const KINDS: [Kind; 4] = [Kind::Node, Kind::ServiceCidr, Kind::Service, Kind::EndpointSlice];

/// A warning about an object that is valid but is hardly what its author wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestWarning {
    /// The file that holds the object.
    pub file: PathBuf,
    /// The object, as `Service namespace/name`; empty if the file or folder is meant.
    pub object: String,
    /// What is unusual, and what portway does about it.
    pub message: String,
}

impl fmt::Display for ManifestWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.object.is_empty() { "" } else { ": " };
        let text = format!("{}: {}{separator}{}", self.file.display(), self.object, self.message);
        f.write_str(&one_line(&text))
    }
}

/// Identifies an object: two objects with the same key are the same object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    /// The key of an object; in the namespace `default` if it names none.
    pub(super) fn new(kind: Kind, namespace: Option<String>, name: String) -> Self {
        let namespace = match kind {
            Kind::Service | Kind::EndpointSlice => namespace.unwrap_or_else(|| "default".to_owned()),
            Kind::Node | Kind::ServiceCidr => String::new(),
        };
        Self { kind, namespace, name }
    }

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

/// The objects of all files by key.
pub(super) type Objects = BTreeMap<Key, Arc<Event>>;

/// One file for [`merge`].
pub(super) struct Part<'a> {
    pub(super) file: &'a Path,
    pub(super) content: &'a Content,
    /// Objects that the file holds in an invalid form: their last valid form counts like an object of the file.
    pub(super) kept: &'a Objects,
}

/// Merges the files. Of an object that several files hold, the first counts, in the order of `files`.
pub(super) fn merge(files: &[Part<'_>]) -> (Objects, Vec<ManifestWarning>) {
    let mut objects = Objects::new();
    let mut owners = BTreeMap::new();
    let mut warnings = Vec::new();
    for Part { file, content, kept } in files {
        warnings.extend_from_slice(&content.warnings);
        for (key, event) in content.objects.iter().map(|(key, event)| (key, event)).chain(*kept) {
            match objects.entry(key.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Arc::clone(event));
                    owners.insert(key, *file);
                }
                Entry::Occupied(_) => {
                    let owner = owners.get(key).map_or_else(String::new, |owner| owner.display().to_string());
                    warnings.push(ManifestWarning {
                        file: file.to_path_buf(),
                        object: key.to_string(),
                        message: format!("it is also in {owner}, which comes first; this one is ignored"),
                    });
                }
            }
        }
    }
    (objects, warnings)
}

/// Warnings about Endpoints of which no EndpointSlice takes the place.
pub(super) fn unread_endpoints(files: &[Part<'_>], objects: &Objects) -> Vec<ManifestWarning> {
    if files.iter().all(|part| part.content.endpoints.is_empty()) {
        return Vec::new();
    }
    let slices = objects.values().filter_map(|event| match &**event {
        Event::EndpointSlice(slice) => {
            Some((slice.namespace.as_str(), slice.labels.get("kubernetes.io/service-name")?.as_str()))
        }
        _ => None,
    });
    let served: BTreeSet<_> = slices.collect();
    let endpoints = files.iter().flat_map(|part| part.content.endpoints.iter().map(|name| (part.file, name)));
    endpoints
        .filter(|(_, (namespace, name))| !served.contains(&(namespace.as_str(), name.as_str())))
        .map(|(file, (namespace, name))| ManifestWarning {
            file: file.to_owned(),
            object: format!("Endpoints {namespace}/{name}"),
            message: "Endpoints are not read and no EndpointSlice has the label kubernetes.io/service-name with this \
                      name; write an EndpointSlice"
                .to_owned(),
        })
        .collect()
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
    let same = |old: &Arc<Event>, new: &Arc<Event>| Arc::ptr_eq(old, new) || old == new;
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(Key::gone);
    let come = new.iter().filter(|(key, event)| !old.get(key).is_some_and(|old| same(old, event)));
    gone.chain(come.map(|(_, event)| Event::clone(event))).collect()
}
