//! What every Service address must do on this node: pure data and policy.
//!
//! The agent feeds [`api`] objects into a [`Cluster`] as [`Event`]s; the cluster resolves the Services that an event
//! touched and hands out a [`Change`] on top of its [`Plan`]. A Plan says everything a dataplane needs, so no dataplane
//! reads a Service's spec or repeats a policy decision.
//!
//! This crate knows no I/O, no clock, no async runtime, no Kubernetes client and no kernel.

pub mod api;
mod claims;
mod cluster;
mod config;
mod endpoints;
mod event;
mod family;
mod intern;
mod name;
mod node;
mod object;
mod parse;
mod pending;
mod plan;
mod problem;
mod resolve;
mod service;
mod slice;
mod stats;
#[cfg(feature = "testing")]
pub mod testing;
mod topology;

pub use cluster::Cluster;
pub use config::{Config, DetectLocal, NodePortSelection, Pending, Stats};
pub use event::{Event, Kind};
pub use family::{Family, Protocol};
pub use name::{ServiceName, ServicePortName};
pub use plan::{
    Affinity, Backend, Change, FamilySettings, Frontend, FrontendKind, HealthCheck, LocalDetector, NodePortAddresses,
    NodeSettings, Origin, Plan, PortPlan, Route, ServiceChange, ServicePlan, SettingsChange, Verdict,
};
pub use problem::Problem;
