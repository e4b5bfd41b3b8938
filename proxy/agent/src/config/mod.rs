//! The configuration: kube-proxy's file and flags, and portway's own settings beside them (contract section 17).
//!
//! Flags and file fill the same two documents ([`v1alpha1`], [`portway`]). [`Settings::resolve`] validates them and makes
//! of them the one struct that the rest of the program reads. Nothing here starts anything, and nothing outside asks
//! whether a value came from a flag or from the file.

mod addresses;
mod check;
mod defaults;
pub(crate) mod duration;
mod file;
pub(crate) mod flags;
mod gates;
mod load;
pub(crate) mod portway;
mod problem;
mod settings;
mod shown;
#[cfg(test)]
mod tests;
mod traffic;
pub(crate) mod v1alpha1;
mod warnings;
mod write;

pub(crate) use file::{ConfigFile, changed};
pub(crate) use load::{Loaded, load};
pub(crate) use problem::{Invalid, Problems};
pub(crate) use settings::{ClientSettings, ConntrackSettings, Documents, Settings, Source, default_node_name, driver};
pub(crate) use shown::pages;
