//! Renders one Service port: the chains of its own, and its rules in the chains that all Services share. Pure.
//!
//! Names, order and comments of rules are kube-proxy's. Policy is in the plan; this module only writes it down.

mod chains;
mod index;

use portway_model::{Family, FamilySettings, Frontend, NodeSettings, Origin, PortPlan, Verdict};

use super::names::PortChains;
use super::options::Options;
use super::tables::Chain;
pub(super) use index::IndexRules;

/// Renders the rules of a Service port that lead to its chains, or that refuse its traffic.
pub(super) fn index_rules(plan: &PortPlan, settings: &NodeSettings, options: &Options) -> IndexRules {
    let renderer = Renderer::new(plan, settings, options);
    let mut rules = IndexRules::default();
    for frontend in &plan.frontends {
        renderer.index_rules(frontend, &mut rules);
    }
    rules
}

/// Renders the chains of the nat table that belong to a Service port alone.
pub(super) fn chains(plan: &PortPlan, settings: &NodeSettings, options: &Options) -> Vec<Chain> {
    Renderer::new(plan, settings, options).chains()
}

/// A Service port with everything that its rules depend on.
struct Renderer<'a> {
    plan: &'a PortPlan,
    settings: &'a FamilySettings,
    options: &'a Options,
    chains: PortChains,
}

impl<'a> Renderer<'a> {
    fn new(plan: &'a PortPlan, settings: &'a NodeSettings, options: &'a Options) -> Self {
        Self { plan, settings: settings.family(plan.family), options, chains: PortChains::new(&plan.name) }
    }

    fn comment(&self, text: String) -> String {
        if self.options.comments { text } else { String::new() }
    }

    fn full_mask(&self) -> &'static str {
        match self.plan.family {
            Family::V4 => "255.255.255.255",
            Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        }
    }

    /// Whether traffic of any origin reaches backends through this frontend.
    fn is_served(frontend: &Frontend) -> bool {
        Origin::ALL.iter().any(|origin| matches!(frontend.route(*origin).verdict, Verdict::Cluster | Verdict::Local))
    }
}
