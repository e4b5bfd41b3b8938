//! Finds line and column of fields, for errors that show only after the document has been read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::path::Step;

/// A value as its parser tells its place.
pub(super) trait Place<'de>: Deserialize<'de> {}

impl<'de> Place<'de> for serde_saphyr::Spanned<IgnoredAny> {}
impl<'de> Place<'de> for &'de RawValue {}

/// Fields to find: a tree of their paths, with a number for each field.
#[derive(Debug, Default)]
pub(super) struct Targets<'a> {
    numbers: Vec<usize>,
    children: BTreeMap<&'a Step, Targets<'a>>,
}

impl<'a> Targets<'a> {
    /// Adds the field with this path.
    pub(super) fn add(&mut self, path: &'a [Step], number: usize) {
        match path {
            [] => self.numbers.push(number),
            [first, rest @ ..] => self.children.entry(first).or_default().add(rest, number),
        }
    }
}

/// Collects the places of fields in one pass. Of a key that is there twice, the last place counts.
pub(super) struct Locate<'t, 'f, P> {
    pub(super) targets: &'t Targets<'t>,
    pub(super) found: &'f RefCell<Vec<(&'t [usize], P)>>,
}

impl<'t, P> Locate<'t, '_, P> {
    fn child(&self, targets: &'t Targets<'t>) -> Self {
        Self { targets, found: self.found }
    }
}

impl<'de, P: Place<'de>> DeserializeSeed<'de> for Locate<'_, '_, P> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.targets.numbers.is_empty() {
            // Fields below this one, if there are any, are not found: the next pass looks for their parent.
            let place = P::deserialize(deserializer)?;
            self.found.borrow_mut().push((&self.targets.numbers, place));
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Place<'de>> Visitor<'de> for Locate<'_, '_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path to a field")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match self.targets.children.get(&Step::Key(key)) {
                Some(targets) => map.next_value_seed(self.child(targets))?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.targets.children.get(&Step::Index(index)) {
                Some(targets) => seq.next_element_seed(self.child(targets))?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
