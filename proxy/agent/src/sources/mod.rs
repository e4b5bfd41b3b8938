//! The sources of events: the API server, a folder of manifests, and the node's own interfaces and routes.
//!
//! Each source is a future that sends [`Event`](portway_model::Event)s into the agent's
//! [`EventSink`](crate::inbox::EventSink) until the sync loop ends. A source keeps no objects: it converts what it
//! reads into the model's compact types and drops the rest. Nothing here knows about policy or about the kernel's
//! rules.

pub mod addresses;
mod convert;
pub mod kubernetes;
pub mod manifests;
pub mod routes;
