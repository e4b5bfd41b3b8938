//! The path of a field in a document.

use std::fmt;

use serde_path_to_error::Segment;

/// One step of a field's path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// The path of a field, from the document or from an object in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FieldPath(pub(crate) Vec<Step>);

impl FieldPath {
    /// Parses a path like `spec.ports[0].port`.
    pub(crate) fn parse(path: &str) -> Self {
        let mut steps = Vec::new();
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let mut pieces = part.split('[');
            steps.extend(pieces.next().filter(|key| !key.is_empty()).map(|key| Step::Key(key.to_owned())));
            steps.extend(pieces.filter_map(|piece| piece.strip_suffix(']')?.parse().ok()).map(Step::Index));
        }
        Self(steps)
    }

    /// The path of the list's item with this index.
    pub(crate) fn item(index: usize) -> Self {
        Self(vec![Step::Key("items".to_owned()), Step::Index(index)])
    }

    /// The path as far as a deserializer came.
    pub(crate) fn reached(path: &serde_path_to_error::Path) -> Self {
        Self(
            path.iter()
                .map_while(|segment| match segment {
                    Segment::Seq { index } => Some(Step::Index(*index)),
                    Segment::Map { key } => Some(Step::Key(key.clone())),
                    Segment::Enum { .. } | Segment::Unknown => None,
                })
                .collect(),
        )
    }

    /// This path, continued by another.
    pub(crate) fn join(mut self, rest: Self) -> Self {
        self.0.extend(rest.0);
        self
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
