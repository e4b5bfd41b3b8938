//! Where the objects of lists and watches go: to the sync loop, or into a trace.

use std::future::Future;

use portway_model::Event;
use serde_json::value::RawValue;

use super::wire::decode;
use crate::inbox::{EventSink, InboxClosed};
use crate::recorder::Recording;
use crate::sources::convert::Object;

/// Takes what is seen of one kind of object. An error means that nobody listens any more.
pub(super) trait Sink: Clone + Send + Sync + 'static {
    /// A list begins.
    fn begins<K: Object>(&self) -> impl Future<Output = Result<(), InboxClosed>> + Send;

    /// The object as it now is. Returns its version, empty if it has none, or `None` if the object cannot be read: that
    /// was said then, and it is left out.
    fn object<K: Object>(&self, object: &RawValue) -> impl Future<Output = Result<Option<String>, InboxClosed>> + Send;

    /// The object of this name is gone.
    fn gone<K: Object>(&self, namespace: String, name: String) -> impl Future<Output = Result<(), InboxClosed>> + Send;

    /// The list that began is whole: what it did not name is gone.
    fn done<K: Object>(&self) -> impl Future<Output = Result<(), InboxClosed>> + Send;

    /// A list or watch broke off and is begun anew.
    fn interrupted<K: Object>(&self);

    /// The server does not have this kind, or does not allow it.
    fn missing<K: Object>(&self);
}

impl Sink for EventSink {
    async fn begins<K: Object>(&self) -> Result<(), InboxClosed> {
        self.send(Event::ListBegins(K::MODEL)).await
    }

    async fn object<K: Object>(&self, object: &RawValue) -> Result<Option<String>, InboxClosed> {
        let (event, version) = match decode::<K>(object) {
            Ok(mut object) => {
                let version = object.metadata_mut().resource_version.take();
                (object.into_event(), version.unwrap_or_default())
            }
            Err(bad) => {
                tracing::error!("{bad}; this object is left out, all others go on being served");
                return Ok(None);
            }
        };
        self.send(event).await?;
        Ok(Some(version))
    }

    async fn gone<K: Object>(&self, namespace: String, name: String) -> Result<(), InboxClosed> {
        self.send(K::gone(namespace, name)).await
    }

    async fn done<K: Object>(&self) -> Result<(), InboxClosed> {
        self.send(Event::ListDone(K::MODEL)).await
    }

    fn interrupted<K: Object>(&self) {
        EventSink::interrupted(self, K::MODEL);
    }

    fn missing<K: Object>(&self) {}
}

impl Sink for Recording {
    async fn begins<K: Object>(&self) -> Result<(), InboxClosed> {
        self.with(|recorder| recorder.begins(K::MODEL))
    }

    async fn object<K: Object>(&self, object: &RawValue) -> Result<Option<String>, InboxClosed> {
        let value: serde_json::Value = match serde_json::from_str(object.get()) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!("{}: an object cannot be read: {error}; it is left out", K::KIND);
                return Ok(None);
            }
        };
        self.with(|recorder| recorder.object(K::MODEL, K::API_VERSION, K::KIND, &value))?;
        Ok(Some(value["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()))
    }

    async fn gone<K: Object>(&self, namespace: String, name: String) -> Result<(), InboxClosed> {
        self.with(|recorder| recorder.gone(K::API_VERSION, K::KIND, namespace, name))
    }

    async fn done<K: Object>(&self) -> Result<(), InboxClosed> {
        self.with(|recorder| recorder.done(K::MODEL))
    }

    fn interrupted<K: Object>(&self) {
        // The end of a recording that cannot be written is found by the next object.
        let _ = self.with(|recorder| {
            recorder.interrupted();
            Ok(())
        });
    }

    fn missing<K: Object>(&self) {
        // As above.
        let _ = self.with(|recorder| recorder.missing(K::MODEL));
    }
}
