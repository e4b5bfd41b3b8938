//! The objects, their versions, and the watches on them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::ApiError;
use crate::object::{Key, Object, key_of, resource_of};
use crate::resource::Resource;

/// Number of changes of one resource that the store keeps for watches that start at an old version.
const MAX_HISTORY: usize = 16_384;

/// All objects of a server. Clones share them, and they outlive the server, so that a test can stop one server and start
/// another in its place.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<State>>);

/// When the store sent a change to the watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The resource version of the change.
    pub version: u64,
    /// The moment just before the store sent the event to the first watch.
    pub at: Instant,
    /// The same instant as nanoseconds of `CLOCK_MONOTONIC`, comparable between processes of one machine.
    pub monotonic_nanos: u64,
}

/// One change of one object: `before` is absent when the object is created, `after` when it is deleted.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) before: Option<Arc<Object>>,
    pub(crate) after: Option<Arc<Object>>,
}

/// The changes that a watch gets: objects and changes so far, and a channel for those that follow.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) version: u64,
    pub(crate) initial: Vec<Arc<Object>>,
    pub(crate) missed: Vec<Arc<Change>>,
    pub(crate) live: mpsc::UnboundedReceiver<Arc<Change>>,
}

/// The version at which a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The current version, after an event for each object.
    Everything,
    /// The current version, without any earlier event.
    Now,
    /// This version: the first event is the change after it.
    After(u64),
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    collections: HashMap<Resource, Collection>,
}

#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Arc<Change>>,
    /// Versions before this one are expired.
    compacted: u64,
    watches: Vec<mpsc::UnboundedSender<Arc<Change>>>,
}

impl Store {
    /// An empty store at version 1.
    pub fn new() -> Self {
        let state = State { version: 1, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Creates or replaces an object, given as JSON or as one of `k8s_openapi`'s types. Its `apiVersion` and `kind`
    /// say where it belongs; a `resourceVersion` in it is ignored.
    pub fn put(&self, object: impl Serialize) -> Result<Sent, ApiError> {
        self.put_value(serde_json::to_value(object).map_err(|error| ApiError::bad_request(error.to_string()))?)
    }

    /// Creates or replaces many objects, and stops at the first that the store refuses.
    pub fn put_all(&self, objects: impl IntoIterator<Item = Value>) -> Result<(), ApiError> {
        objects.into_iter().try_for_each(|object| self.put_value(object).map(|_| ()))
    }

    fn put_value(&self, value: Value) -> Result<Sent, ApiError> {
        let (resource, key) = locate(&value)?;
        self.write(resource, key, |_| Ok(value)).map(|(sent, _)| sent)
    }

    /// Creates or replaces all objects of the `.json`, `.yaml` and `.yml` files in a folder; files may hold several documents, and
    /// Lists. Errors name the file.
    pub fn load(&self, folder: &Path) -> anyhow::Result<usize> {
        use anyhow::Context;
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .with_context(|| format!("{} cannot be read", folder.display()))?;
        files.retain(|file| matches!(file.extension().and_then(|e| e.to_str()), Some("json" | "yaml" | "yml")));
        files.sort();
        let mut count = 0;
        for file in files {
            let in_file = || file.display().to_string();
            let text = std::fs::read_to_string(&file).with_context(in_file)?;
            for document in serde_saphyr::from_multiple::<Value>(&text).with_context(in_file)? {
                let items = match document {
                    Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
                        list["items"].as_array_mut().map(std::mem::take).unwrap_or_default()
                    }
                    one => vec![one],
                };
                count += items.len();
                self.put_all(items).with_context(in_file)?;
            }
        }
        Ok(count)
    }

    /// Creates an object; fails if there is one of that name.
    pub(crate) fn create(&self, value: Value) -> Result<(Sent, Arc<Object>), ApiError> {
        let (resource, key) = locate(&value)?;
        let name = key.1.clone();
        self.write(resource, key, |previous| match previous {
            Some(_) => Err(ApiError::already_exists(resource.plural(), &name)),
            None => Ok(value),
        })
    }

    /// Replaces an object by the result of `change`.
    pub(crate) fn modify(
        &self,
        resource: Resource,
        key: Key,
        change: impl FnOnce(Value) -> Result<Value, ApiError>,
    ) -> Result<(Sent, Arc<Object>), ApiError> {
        let name = key.1.clone();
        self.write(resource, key, |previous| match previous {
            None => Err(ApiError::not_found(resource.plural(), &name)),
            Some(previous) => change(previous.value()),
        })
    }

    /// Creates or replaces the object at `key` by the result of `make`, which gets the present object.
    pub(crate) fn write(
        &self,
        resource: Resource,
        key: Key,
        make: impl FnOnce(Option<&Object>) -> Result<Value, ApiError>,
    ) -> Result<(Sent, Arc<Object>), ApiError> {
        let mut state = self.lock();
        let version = state.version + 1;
        let before = state.collection(resource).objects.get(&key).cloned();
        let value = make(before.as_deref())?;
        if resource_of(&value)? != resource || key_of(resource, &value)? != key {
            return Err(ApiError::bad_request("kind, namespace and name do not fit the request's path"));
        }
        let after = Arc::new(Object::new(value, version, before.as_deref())?);
        state.version = version;
        let collection = state.collection(resource);
        collection.objects.insert(key, Arc::clone(&after));
        let sent = collection.publish(Change { version, before, after: Some(Arc::clone(&after)) });
        Ok((sent, after))
    }

    /// Deletes an object. `namespace` is empty for cluster-wide kinds.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) -> Result<Sent, ApiError> {
        let mut state = self.lock();
        let version = state.version + 1;
        let before = state.collection(resource).objects.remove(&(namespace.to_owned(), name.to_owned()));
        let before = before.ok_or_else(|| ApiError::not_found(resource.plural(), name))?;
        state.version = version;
        Ok(state.collection(resource).publish(Change { version, before: Some(before), after: None }))
    }

    /// The current version of an object.
    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        self.find(resource, &(namespace.to_owned(), name.to_owned())).map(|object| object.value())
    }

    /// The current objects of a resource, ordered by namespace and name.
    pub fn list(&self, resource: Resource) -> Vec<Value> {
        let objects: Vec<_> = self.lock().collection(resource).objects.values().cloned().collect();
        objects.iter().map(|object| object.value()).collect()
    }

    /// The number of objects of a resource.
    pub fn count(&self, resource: Resource) -> usize {
        self.lock().collection(resource).objects.len()
    }

    /// The resource version of the last change.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The number of open watches of a resource.
    pub fn watchers(&self, resource: Resource) -> usize {
        let mut state = self.lock();
        let collection = state.collection(resource);
        collection.watches.retain(|watcher| !watcher.is_closed());
        collection.watches.len()
    }

    /// Drops every version but the current one, as etcd does every few minutes: a watch or a continued list at an older
    /// version then gets `410 Gone`.
    pub fn compact(&self) {
        let mut state = self.lock();
        let version = state.version;
        for resource in Resource::ALL {
            let collection = state.collection(resource);
            collection.history.clear();
            collection.compacted = version;
        }
    }

    pub(crate) fn find(&self, resource: Resource, key: &Key) -> Option<Arc<Object>> {
        self.lock().collection(resource).objects.get(key).cloned()
    }

    /// The objects of a resource at `version` (`None`: the current one), and that version.
    pub(crate) fn snapshot(
        &self,
        resource: Resource,
        version: Option<u64>,
    ) -> Result<(u64, Vec<Arc<Object>>), ApiError> {
        let mut state = self.lock();
        let newest = state.version;
        let collection = state.collection(resource);
        let version = version.unwrap_or(newest);
        if version > newest {
            return Err(ApiError::too_large(version, newest));
        }
        Ok((version, collection.at(version)?))
    }

    /// Opens a watch of a resource from this start on.
    pub(crate) fn watch(&self, resource: Resource, start: Start) -> Result<Feed, ApiError> {
        let mut state = self.lock();
        let newest = state.version;
        let collection = state.collection(resource);
        let (version, initial, missed) = match start {
            Start::Everything => (newest, collection.objects.values().cloned().collect(), Vec::new()),
            Start::Now => (newest, Vec::new(), Vec::new()),
            Start::After(version) if version > newest => return Err(ApiError::too_large(version, newest)),
            Start::After(version) => (version, Vec::new(), collection.since(version)?.cloned().collect()),
        };
        let (sender, live) = mpsc::unbounded_channel();
        collection.watches.push(sender);
        Ok(Feed { version, initial, missed, live })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every writer leaves the state consistent before it can panic, so a poisoned lock is still sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn collection(&mut self, resource: Resource) -> &mut Collection {
        self.collections.entry(resource).or_default()
    }
}

impl Collection {
    /// Adds a change to the history and sends it to the watches.
    fn publish(&mut self, change: Change) -> Sent {
        let version = change.version;
        let change = Arc::new(change);
        if self.history.len() == MAX_HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.compacted = oldest.version;
        }
        self.history.push_back(Arc::clone(&change));
        let sent = Sent::now(version);
        self.watches.retain(|watcher| watcher.send(Arc::clone(&change)).is_ok());
        sent
    }

    /// The changes after `version`.
    fn since(&self, version: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Change>>, ApiError> {
        if version < self.compacted {
            return Err(ApiError::expired(version, self.compacted));
        }
        let first = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(first..))
    }

    /// The objects at `version`: the current ones with the later changes undone.
    fn at(&self, version: u64) -> Result<Vec<Arc<Object>>, ApiError> {
        let mut undone: BTreeMap<&Key, Option<&Arc<Object>>> = BTreeMap::new();
        for change in self.since(version)?.rev() {
            if let Some(object) = change.after.as_ref().or(change.before.as_ref()) {
                undone.insert(&object.key, change.before.as_ref());
            }
        }
        if undone.is_empty() {
            return Ok(self.objects.values().cloned().collect());
        }
        let mut objects: BTreeMap<&Key, &Arc<Object>> = self.objects.iter().collect();
        for (key, before) in undone {
            match before {
                Some(before) => objects.insert(key, before),
                None => objects.remove(key),
            };
        }
        Ok(objects.into_values().cloned().collect())
    }
}

impl Sent {
    fn now(version: u64) -> Self {
        let at = Instant::now();
        let since_boot = clock_gettime(ClockId::Monotonic);
        let nanos = Duration::try_from(since_boot).map_or(0, |since| since.as_nanos());
        Self { version, at, monotonic_nanos: u64::try_from(nanos).unwrap_or(u64::MAX) }
    }
}

fn locate(value: &Value) -> Result<(Resource, Key), ApiError> {
    let resource = resource_of(value)?;
    Ok((resource, key_of(resource, value)?))
}
