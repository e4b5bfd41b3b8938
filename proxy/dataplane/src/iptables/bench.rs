//! The renderer without the kernel and its tools, for portway-bench alone.

use std::collections::BTreeSet;

use portway_model::{Change, Family, Plan};

use super::options::Options;
use super::ruleset::Ruleset;
use super::tables::Delta;
use super::{TREE_ABOVE, restore};

/// Renders one family's chains with the default options.
pub struct Renderer(Ruleset);

/// The chains that a Change alters, before they are written as text.
pub struct Difference(Delta);

impl Renderer {
    /// Starts without any Service.
    pub fn new(family: Family) -> Self {
        Self(Ruleset::new(family, Options::default(), Some(TREE_ABOVE)))
    }

    /// Replaces everything by a whole Plan.
    pub fn load(&mut self, plan: &Plan) {
        self.0.load(plan);
    }

    /// Applies a Change and returns the chains that it alters.
    pub fn apply(&mut self, change: &Change) -> Difference {
        Difference(self.0.apply(change))
    }
}

impl Difference {
    /// Writes the input of `iptables-restore`.
    pub fn restore_input(&self) -> String {
        restore::script(&self.0, &[], &BTreeSet::new()).text
    }
}
