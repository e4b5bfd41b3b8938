//! Decides what every Service address must do on this node: pure data and policy.
//!
//! The agent sends [`api`] objects to a [`Cluster`] as [`Event`]s. The cluster resolves the Services that an event affects
//! and returns a [`Change`] to its [`Plan`]. A Plan contains everything that a dataplane needs, so no dataplane reads a
//! Service's spec or repeats a policy decision.
//!
//! This crate has no I/O, no clock, no async runtime, no Kubernetes client and no kernel interface.

pub mod api;
mod changes;
mod claims;
mod cluster;
mod config;
mod counts;
mod endpoints;
mod event;
mod family;
mod intern;
mod name;
mod node;
mod parse;
mod plan;
mod problems;
mod resolve;
mod service;
mod slice;
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
    NodeSettings, Origin, Plan, PortPlan, Route, RouteSource, ServiceChange, ServicePlan, SettingsChange, Verdict,
};
pub use problems::Problem;
