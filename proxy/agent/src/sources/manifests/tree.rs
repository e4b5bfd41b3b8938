//! A document as a tree of values, and a List's items one after another.
//!
//! YAML becomes what it would be as JSON, as kubectl reads it. So an object whose fields have wrong types can be refused
//! by itself, and the items after it are still read.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::documents::{FieldPath, Step};

/// A value, and the first key in it that is there twice.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) value: Value,
    pub(super) duplicate: Option<FieldPath>,
}

/// A document: its fields, and what became of its items.
pub(super) struct Fields<T> {
    /// All fields but `items`. Null for an empty document.
    pub(super) tree: Tree,
    /// The items of a List, if `items` is a list or null.
    pub(super) items: Option<Vec<T>>,
    /// Whether `items` is there and cannot be the items of a List.
    pub(super) bad_items: bool,
}

/// Reads a document. Calls `item` for each of its items, so that their trees are not all kept.
pub(super) struct ReadFields<F>(pub(super) F);

impl<'de, T, F: FnMut(Tree) -> T> DeserializeSeed<'de> for ReadFields<F> {
    type Value = Fields<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, F: FnMut(Tree) -> T> Visitor<'de> for ReadFields<F> {
    type Value = Fields<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Fields { tree: Tree::default(), items: None, bad_items: false })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tree = MapBuilder::default();
        let mut items = None;
        let mut bad_items = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                items = map.next_value_seed(ReadItems(&mut self.0))?;
                bad_items = items.is_none();
            } else {
                let value = map.next_value_seed(ReadTree)?;
                tree.insert(key, value);
            }
        }
        Ok(Fields { tree: tree.finish(), items, bad_items })
    }
}

/// Reads the value of `items`: nothing if it is no list.
struct ReadItems<'f, F>(&'f mut F);

impl<'de, T, F: FnMut(Tree) -> T> DeserializeSeed<'de> for ReadItems<'_, F> {
    type Value = Option<Vec<T>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, F: FnMut(Tree) -> T> Visitor<'de> for ReadItems<'_, F> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(tree) = seq.next_element_seed(ReadTree)? {
            items.push((self.0)(tree));
        }
        Ok(Some(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        ReadTree.visit_map(map).map(|_| None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Builds an object, of whose keys the last counts.
#[derive(Default)]
struct MapBuilder {
    map: Map<String, Value>,
    duplicate: Option<FieldPath>,
}

impl MapBuilder {
    fn insert(&mut self, key: String, tree: Tree) {
        if self.duplicate.is_none() {
            if self.map.contains_key(&key) {
                self.duplicate = Some(FieldPath(vec![Step::Key(key.clone())]));
            } else if let Some(below) = tree.duplicate {
                self.duplicate = Some(FieldPath(vec![Step::Key(key.clone())]).join(below));
            }
        }
        self.map.insert(key, tree.value);
    }

    fn finish(self) -> Tree {
        Tree { value: Value::Object(self.map), duplicate: self.duplicate }
    }
}

/// Reads any value as a tree.
struct ReadTree;

impl<'de> DeserializeSeed<'de> for ReadTree {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        Self { value, duplicate: None }
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
        let mut duplicate = None;
        while let Some(tree) = seq.next_element_seed(Self)? {
            if duplicate.is_none() {
                duplicate = tree.duplicate.map(|below| FieldPath(vec![Step::Index(values.len())]).join(below));
            }
            values.push(tree.value);
        }
        Ok(Tree { value: Value::Array(values), duplicate })
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
