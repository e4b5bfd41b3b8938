//! Feature gates (contract CFG-17): known by name, because kube-proxy refuses those that it does not know.

mod others;

use std::collections::BTreeMap;

use others::OTHERS;

/// How far a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Off by default; `AllAlpha` switches it.
    Alpha,
    /// The feature is in beta: `AllBeta` switches it.
    Beta,
    /// Done, or on its way out: no group switches it.
    Final,
}

/// A feature gate that kube-proxy asks, or that belongs to a part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    /// The name that `--feature-gates` takes.
    pub(crate) name: &'static str,
    /// How far the feature is in Kubernetes 1.36, or in 1.37 if it came with that.
    pub(crate) stage: Stage,
    /// Its value if nobody sets it.
    pub(crate) default: bool,
    /// What it changes in portway; `None` if it changes nothing.
    pub(crate) effect: Option<&'static str>,
}

const fn gate(name: &'static str, stage: Stage, default: bool, effect: Option<&'static str>) -> Gate {
    Gate { name, stage, default, effect }
}

/// The gates of kube-proxy.
pub(crate) static GATES: &[Gate] = &[
    gate("AllowServiceExternalIPs", Stage::Final, true, Some("`false` serves no `spec.externalIPs`")),
    gate("ClientsAllowCBOR", Stage::Alpha, false, None),
    gate("ClientsPreferCBOR", Stage::Alpha, false, None),
    gate("ComponentFlagz", Stage::Beta, true, Some("`false` serves no `/flagz`")),
    gate("ComponentStatusz", Stage::Beta, true, Some("`false` serves no `/statusz`")),
    gate("ContextualLogging", Stage::Beta, true, None),
    gate("InOrderInformers", Stage::Beta, true, None),
    gate("InformerResourceVersion", Stage::Beta, true, None),
    gate("KubeProxyDrainingTerminatingNodes", Stage::Final, true, None),
    gate("KubeProxyIPVS", Stage::Final, true, None),
    gate("KubeProxyNFTablesLocalhostNodePorts", Stage::Alpha, false, None),
    gate("LoadBalancerIPMode", Stage::Final, true, None),
    gate(
        "LoggingAlphaOptions",
        Stage::Alpha,
        false,
        Some("allows the fields of `logging.options`, which change nothing"),
    ),
    gate("LoggingBetaOptions", Stage::Beta, true, None),
    gate("MultiCIDRServiceAllocator", Stage::Final, true, None),
    gate("NFTablesNetlink", Stage::Alpha, false, None),
    gate("NFTablesProxyMode", Stage::Final, true, None),
    gate("NativeHistograms", Stage::Alpha, false, None),
    gate("PreferSameTrafficDistribution", Stage::Final, true, None),
    gate("ServiceTrafficDistribution", Stage::Final, true, None),
    gate("TopologyAwareHints", Stage::Final, true, None),
    gate("WatchListClient", Stage::Beta, true, None),
    gate("WinDSR", Stage::Final, true, None),
    gate("WinOverlay", Stage::Final, true, None),
];

/// The gates that switch all others of a stage.
const GROUPS: [(&str, Stage); 2] = [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)];

/// The values of all feature gates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeatureGates {
    given: BTreeMap<String, bool>,
}

impl FeatureGates {
    /// The gates that are set by name.
    ///
    /// # Errors
    /// The names that are not known, each with a sentence.
    pub(crate) fn new(given: BTreeMap<String, bool>) -> Result<Self, Vec<(String, String)>> {
        let unknown = given.iter().filter(|(name, _)| !is_known(name));
        let refused: Vec<_> = unknown.map(|(name, _)| (name.clone(), refusal(name))).collect();
        if refused.is_empty() { Ok(Self { given }) } else { Err(refused) }
    }

    /// Whether a gate of [`GATES`] is on: as it is set, else as its stage is set, else as it is by default.
    pub(crate) fn enabled(&self, name: &str) -> bool {
        let Some(gate) = GATES.iter().find(|gate| gate.name == name) else { return false };
        let group = || {
            let (group, _) = GROUPS.iter().find(|(_, stage)| *stage == gate.stage)?;
            self.given.get(*group).copied()
        };
        self.given.get(name).copied().or_else(group).unwrap_or(gate.default)
    }

    /// The gates that are set and change nothing in portway.
    pub(crate) fn without_effect(&self) -> impl Iterator<Item = &str> {
        let has_effect = |name: &str| GATES.iter().any(|gate| gate.name == name && gate.effect.is_some());
        let is_group = |name: &str| GROUPS.iter().any(|(group, _)| *group == name);
        self.given.keys().map(String::as_str).filter(move |name| !has_effect(name) && !is_group(name))
    }
}

fn is_known(name: &str) -> bool {
    GROUPS.iter().any(|(group, _)| *group == name)
        || GATES.iter().any(|gate| gate.name == name)
        || OTHERS.binary_search(&name).is_ok()
}

/// Why a name is refused, with the name that is probably meant.
fn refusal(name: &str) -> String {
    let all =
        GATES.iter().map(|gate| gate.name).chain(GROUPS.iter().map(|(group, _)| *group)).chain(OTHERS.iter().copied());
    match all.into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
        Some(known) => format!("not a feature gate of Kubernetes; {known} is"),
        None => "not a feature gate of Kubernetes 1.36".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(given: &[(&str, bool)]) -> Result<FeatureGates, Vec<(String, String)>> {
        FeatureGates::new(given.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect())
    }

    #[test]
    fn cfg_17_a_gate_is_as_it_is_set_else_as_its_stage_is() {
        let none = gates(&[]).unwrap();
        for gate in GATES {
            assert_eq!(none.enabled(gate.name), gate.default, "{}", gate.name);
        }
        let alpha = gates(&[("AllAlpha", true), ("NativeHistograms", false)]).unwrap();
        assert!(alpha.enabled("NFTablesNetlink") && !alpha.enabled("NativeHistograms"));
        assert!(alpha.enabled("ContextualLogging"));
        let beta = gates(&[("AllBeta", false)]).unwrap();
        assert!(!beta.enabled("ContextualLogging") && !beta.enabled("NFTablesNetlink"));
        assert!(beta.enabled("AllowServiceExternalIPs"));
        assert!(!gates(&[("AllowServiceExternalIPs", false)]).unwrap().enabled("AllowServiceExternalIPs"));
    }

    #[test]
    fn cfg_17_unknown_names_are_refused_all_at_once() {
        let refused =
            gates(&[("nativeHistograms", true), ("SidecarContainers", true), ("Whatever", false)]).unwrap_err();
        let expected = [
            ("Whatever", "not a feature gate of Kubernetes 1.36"),
            ("nativeHistograms", "not a feature gate of Kubernetes; NativeHistograms is"),
        ];
        assert_eq!(refused, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    }

    #[test]
    fn cfg_17_gates_that_change_nothing_are_named() {
        let gates =
            gates(&[("AllAlpha", true), ("AllowServiceExternalIPs", true), ("SidecarContainers", true)]).unwrap();
        assert_eq!(gates.without_effect().collect::<Vec<_>>(), ["SidecarContainers"]);
    }

    #[test]
    fn the_names_are_sorted_and_there_once() {
        assert!(GATES.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(OTHERS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(GATES.iter().all(|gate| OTHERS.binary_search(&gate.name).is_err()));
    }
}
