//! A document as a tree of values: YAML becomes what it would be as JSON, as kubectl reads it.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::path::{FieldPath, Step};

/// A value, and the keys in it that are there twice, of which the last counts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<FieldPath>,
}

/// Builds an object, of whose keys the last counts.
#[derive(Default)]
pub(crate) struct MapBuilder {
    map: Map<String, Value>,
    duplicates: Vec<FieldPath>,
}

impl MapBuilder {
    pub(crate) fn insert(&mut self, key: String, tree: Tree) {
        let path = || FieldPath(vec![Step::Key(key.clone())]);
        if self.map.contains_key(&key) {
            self.duplicates.push(path());
        }
        self.duplicates.extend(tree.duplicates.into_iter().map(|below| path().join(below)));
        self.map.insert(key, tree.value);
    }

    pub(crate) fn finish(self) -> Tree {
        Tree { value: Value::Object(self.map), duplicates: self.duplicates }
    }
}

/// Reads any value as a tree.
pub(crate) struct ReadTree;

impl<'de> DeserializeSeed<'de> for ReadTree {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

impl<'de> Visitor<'de> for ReadTree {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Value::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value).map(|number| Value::Number(number).into()).ok_or_else(|| E::custom("must be a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Value::String(value.to_owned()).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Value::String(value).into())
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Value::Null.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        let mut duplicates = Vec::new();
        while let Some(tree) = seq.next_element_seed(Self)? {
            let path = || FieldPath(vec![Step::Index(values.len())]);
            duplicates.extend(tree.duplicates.into_iter().map(|below| path().join(below)));
            values.push(tree.value);
        }
        Ok(Tree { value: Value::Array(values), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut tree = MapBuilder::default();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Self)?;
            tree.insert(key, value);
        }
        Ok(tree.finish())
    }
}
