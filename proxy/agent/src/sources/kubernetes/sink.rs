//! Receivers of the objects of lists and watches: the sync loop, or a trace.

use std::future::Future;

use portway_model::Event;

use super::message::Encoded;
use super::wire::{Meta, Raw};
use crate::inbox::{EventSink, InboxClosed};
use crate::recorder::Recording;
use crate::sources::convert::Object;

/// Receives the objects and changes of one kind. An error means that the receiver has ended.
pub(super) trait Sink: Clone + Send + Sync + 'static {
    /// Starts a list of all objects of this kind.
    fn list_started<K: Object>(&self) -> impl Future<Output = Result<(), InboxClosed>> + Send;

    /// Receives an object in its current state. Returns its version, which may be empty, or `None` if the object cannot
    /// be read; that has been logged then, and the object is skipped.
    fn object<K: Encoded>(&self, object: Raw<'_>) -> impl Future<Output = Result<Option<String>, InboxClosed>> + Send;

    /// Receives the deletion of the object of this name.
    fn deleted<K: Object>(
        &self,
        namespace: String,
        name: String,
    ) -> impl Future<Output = Result<(), InboxClosed>> + Send;

    /// Completes the list: objects that it did not contain are deleted.
    fn list_completed<K: Object>(&self) -> impl Future<Output = Result<(), InboxClosed>> + Send;

    /// Counts a list or watch that broke off and is restarted.
    fn interrupted<K: Object>(&self);

    /// Notes that the server does not have this kind, or does not allow access to it.
    fn unavailable<K: Object>(&self);
}

impl Sink for EventSink {
    async fn list_started<K: Object>(&self) -> Result<(), InboxClosed> {
        self.listed(K::MODEL);
        self.send(Event::ListBegins(K::MODEL)).await
    }

    async fn object<K: Encoded>(&self, object: Raw<'_>) -> Result<Option<String>, InboxClosed> {
        let (event, version) = match object.decode::<K>() {
            Ok((event, version)) => (Some(event), Some(version)),
            Err(bad) => {
                tracing::error!("{bad}; what is known of this object stays in force; all others are served");
                let named = |Meta { namespace, name, .. }| Event::Unreadable { kind: K::MODEL, namespace, name };
                (object.meta().ok().map(named), None)
            }
        };
        if let Some(event) = event {
            self.send(event).await?;
        }
        Ok(version)
    }

    async fn deleted<K: Object>(&self, namespace: String, name: String) -> Result<(), InboxClosed> {
        self.send(K::gone(namespace, name)).await
    }

    async fn list_completed<K: Object>(&self) -> Result<(), InboxClosed> {
        self.send(Event::ListDone(K::MODEL)).await
    }

    fn interrupted<K: Object>(&self) {
        EventSink::interrupted(self, K::MODEL);
    }

    fn unavailable<K: Object>(&self) {}
}

impl Sink for Recording {
    async fn list_started<K: Object>(&self) -> Result<(), InboxClosed> {
        self.with(|recorder| recorder.list_started(K::MODEL))
    }

    async fn object<K: Encoded>(&self, object: Raw<'_>) -> Result<Option<String>, InboxClosed> {
        let Raw::Json(object) = object else {
            tracing::error!("cannot record a {} in protobuf, which was not asked for; it is skipped", K::KIND);
            return Ok(None);
        };
        let value: serde_json::Value = match serde_json::from_str(object.get()) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!("cannot read a {}: {error}; it is skipped", K::KIND);
                return Ok(None);
            }
        };
        self.with(|recorder| recorder.object(K::MODEL, K::API_VERSION, K::KIND, &value))?;
        Ok(Some(value["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()))
    }

    async fn deleted<K: Object>(&self, namespace: String, name: String) -> Result<(), InboxClosed> {
        self.with(|recorder| recorder.deleted(K::API_VERSION, K::KIND, namespace, name))
    }

    async fn list_completed<K: Object>(&self) -> Result<(), InboxClosed> {
        self.with(|recorder| recorder.list_completed(K::MODEL))
    }

    fn interrupted<K: Object>(&self) {
        // The next object reports that the recording cannot be written.
        let _ = self.with(|recorder| {
            recorder.interrupted();
            Ok(())
        });
    }

    fn unavailable<K: Object>(&self) {
        // As above.
        let _ = self.with(|recorder| recorder.unavailable(K::MODEL));
    }
}
