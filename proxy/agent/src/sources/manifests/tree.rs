//! A document as a tree of values, and a List's items one after another: an object whose fields have wrong types can be
//! refused by itself, and the items after it are still read.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::documents::{MapBuilder, ReadTree, Tree};

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
