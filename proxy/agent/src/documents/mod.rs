//! Reads YAML and JSON documents so that every error names line, column and field. Manifests and the configuration file
//! use it.

mod document;
mod locate;
mod path;
mod text;
mod tree;

pub(crate) use document::{Document, MAX_DEPTH, SyntaxError};
pub(crate) use path::FieldPath;
pub(crate) use text::{Text, decode, documents};
pub(crate) use tree::{MapBuilder, ReadTree, Tree};
