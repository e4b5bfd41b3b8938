//! The configuration: kube-proxy's file and flags, and portway's own settings beside them (contract section 17).
//!
//! Flags and file fill the same two documents ([`v1alpha1`], [`portway`]). [`Settings::resolve`] validates them and makes
//! of them the one struct that the rest of the program reads. Nothing here starts anything, and nothing outside asks
//! whether a value came from a flag or from the file.

mod addresses;
mod check;
mod defaults;
pub(crate) mod duration;
mod gates;
pub(crate) mod portway;
mod problem;
mod settings;
mod shown;
mod traffic;
pub(crate) mod v1alpha1;
mod warnings;

pub(crate) use gates::FeatureGates;
pub(crate) use problem::{Invalid, Problems};
pub(crate) use settings::{
    ClientSettings, ConntrackSettings, Documents, LogSettings, Settings, Source, default_node_name,
};
pub(crate) use shown::pages;
