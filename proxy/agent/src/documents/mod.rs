//! Reads YAML and JSON documents so that every error names line, column and field. Manifests and the configuration file
//! use it.

mod document;
mod locate;
mod path;
mod text;

pub(crate) use document::{Document, MAX_DEPTH, SyntaxError};
pub(crate) use path::{FieldPath, Step};
pub(crate) use text::{Text, decode, documents};
