//! Stores strings that many objects repeat (namespaces, port names, zones) once.

use std::collections::HashSet;
use std::sync::Arc;

/// Interned strings: those in use, and unused ones until the next sweep.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    strings: HashSet<Arc<str>>,
    lists: HashSet<Arc<[Arc<str>]>>,
    /// The number of entries at which the next insertion removes unused ones first.
    limit: usize,
}

impl Interner {
    /// Returns the shared copy of this string.
    pub(crate) fn string(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        self.sweep();
        let new: Arc<str> = text.into();
        self.strings.insert(new.clone());
        new
    }

    /// Returns the shared, sorted copy of this set of strings.
    pub(crate) fn set(&mut self, texts: &[String]) -> Arc<[Arc<str>]> {
        let mut list: Vec<Arc<str>> = texts.iter().map(|text| self.string(text)).collect();
        list.sort_unstable();
        list.dedup();
        if let Some(known) = self.lists.get(list.as_slice()) {
            return known.clone();
        }
        self.sweep();
        let new: Arc<[Arc<str>]> = list.into();
        self.lists.insert(new.clone());
        new
    }

    /// Removes entries that nobody holds any more. Runs when the number of entries has doubled since the last time, so that
    /// the cost per insertion is constant.
    fn sweep(&mut self) {
        if self.strings.len() + self.lists.len() < self.limit {
            return;
        }
        self.lists.retain(|list| Arc::strong_count(list) > 1);
        self.strings.retain(|string| Arc::strong_count(string) > 1);
        self.limit = 2 * (self.strings.len() + self.lists.len()) + 1024;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_and_sets_share_one_copy() {
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.string("a"), &interner.string("a")));
        let one = interner.set(&["b".to_owned(), "a".to_owned(), "b".to_owned()]);
        let other = interner.set(&["a".to_owned(), "b".to_owned()]);
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(one.iter().map(|s| &**s).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn unused_strings_do_not_pile_up() {
        let mut interner = Interner::default();
        let kept = interner.string("kept");
        for n in 0..100_000 {
            interner.string(&n.to_string());
        }
        assert!(interner.strings.len() < 5000, "{}", interner.strings.len());
        assert!(Arc::ptr_eq(&kept, &interner.string("kept")));
    }
}
