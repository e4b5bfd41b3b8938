//! A small Kubernetes API server: enough of the real one that a service proxy cannot tell the difference. It knows
//! nothing of portway, so that any proxy can be tested against it.
//!
//! The server keeps Services, EndpointSlices, Nodes, ServiceCIDRs and Events in memory, lists them in pages, streams watches
//! with resource versions, bookmarks, initial events and compaction, and fails on demand ([`Faults`], [`Cut`]).
//!
//! Two ways to use it:
//!
//! - in a test: make a [`Store`], pass it with a listener to [`ApiServer::spawn`], change objects through the store.
//!   The listener may belong to any network namespace; its connections stay in that namespace.
//! - as a process: `portway-apiserver --listen 127.0.0.1:8001 --synthetic services=1000,endpoints=2`. Clients change
//!   objects by POST, PUT, PATCH and DELETE on the usual paths; the response header [`SENT_HEADER`] says when the server
//!   sent the event to the watches. `GET` and `PATCH /testbed/faults` read and set [`Faults`], `POST /testbed/cut` takes a
//!   [`Cut`], `POST /testbed/refuse` takes `{"milliseconds":N}`, `POST /testbed/compact` forgets old versions,
//!   `GET /testbed/requests` lists the requests so far.
//!
//! Lists, watches and errors come as JSON or as protobuf, as the request's `Accept` says, over HTTP/1.1 or HTTP/2 (with
//! prior knowledge: [`Terminator`] negotiates it where there is TLS).
//!
//! The server leaves out authentication, defaulting, validation, admission and tables. A `PUT` on an
//! object's own path replaces its status too.

mod error;
mod fault;
mod list;
mod negotiate;
mod object;
mod params;
mod protobuf;
mod resource;
mod routes;
mod selector;
mod server;
mod store;
mod synthetic;
mod tls;
mod traffic;
mod watch;

pub use error::ApiError;
pub use fault::{Cut, ErrorRule, Faults, Protobuf, StreamingLists, Verb};
pub use object::{encoded, frame_bytes};
pub use resource::Resource;
pub use routes::SENT_HEADER;
pub use server::{ApiServer, RequestRecord};
pub use store::{Sent, Store};
pub use synthetic::Synthetic;
pub use tls::{Authority, Terminator};
pub use traffic::Carried;
