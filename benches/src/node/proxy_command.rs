//! Proxies to measure: command lines with placeholders for what differs from start to start.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use portway_bench_report::Setting;
use portway_testbed::apiserver::Faults;
use portway_testbed::proxy;

/// The least that proxies take for their minSyncPeriod.
const MIN_PERIOD: &str = "0s";

/// What a command may hold in braces.
const PLACEHOLDERS: [&str; 5] = ["kubeconfig", "node", "mode", "cluster-cidr", "min-sync-period"];

/// A kernel mechanism by which proxies program Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// As results name it: `iptables-legacy`.
    pub(crate) label: String,
}

impl Mode {
    /// As a command line takes it: `iptables` for both flavours.
    pub(crate) fn word(&self) -> &str {
        if self.flavour().is_some() { "iptables" } else { &self.label }
    }

    /// The iptables tools whose rules a node has that is made for this mode; proxies then choose the same tools.
    pub(crate) fn flavour(&self) -> Option<&'static str> {
        ["iptables-legacy", "iptables-nft"].into_iter().find(|name| *name == self.label)
    }
}

/// A proxy and how it is started.
#[derive(Clone, Debug)]
pub(crate) struct ProxyCommand {
    /// Its name in the results, with its mode.
    pub(crate) name: String,
    /// Its mode, if its command has a placeholder for one.
    pub(crate) mode: Option<Mode>,
    /// What is wrong with the API server while it runs: for tests of this program.
    pub(crate) faults: Faults,
    words: Vec<String>,
}

/// What stands for the placeholders of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceholderValues<'a> {
    pub(crate) kubeconfig: &'a Path,
    pub(crate) node: &'a str,
    pub(crate) cluster_cidr: &'a str,
}

/// `NAME=COMMAND` as the command line gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    name: String,
    words: Vec<String>,
}

impl std::str::FromStr for Template {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, command) = text.split_once('=').context("a proxy is NAME=COMMAND")?;
        let words = shlex::split(command).context("its quotes do not close")?;
        Self::new(name.trim(), words)
    }
}

impl Template {
    /// A command, as words. Every brace must be one of the placeholders'.
    pub(crate) fn new(name: &str, words: Vec<String>) -> Result<Self> {
        ensure!(!name.is_empty(), "a proxy needs a name: NAME=COMMAND");
        ensure!(!words.is_empty(), "{name} has no command");
        for word in &words {
            let mut rest = word.as_str();
            while let Some((_, after)) = rest.split_once('{') {
                let (placeholder, after) =
                    after.split_once('}').with_context(|| format!("{word}: a brace does not close"))?;
                ensure!(
                    PLACEHOLDERS.contains(&placeholder),
                    "{word}: {{{placeholder}}} is none of {}",
                    PLACEHOLDERS.join(", ")
                );
                rest = after;
            }
        }
        Ok(Self { name: name.to_owned(), words })
    }

    /// portway's own command, with every placeholder.
    pub(crate) fn portway(program: &Path) -> Result<Self> {
        let words = [
            &program.to_string_lossy(),
            "run",
            "--kubeconfig={kubeconfig}",
            "--hostname-override={node}",
            "--mode={mode}",
            "--cluster-cidr={cluster-cidr}",
            "--min-sync-period={min-sync-period}",
        ];
        Self::new("portway", words.map(str::to_owned).to_vec())
    }

    fn has(&self, placeholder: &str) -> bool {
        self.words.iter().any(|word| word.contains(&format!("{{{placeholder}}}")))
    }

    /// The proxy in each mode, or once if its command has no placeholder for a mode.
    pub(crate) fn commands(&self, modes: &[Mode]) -> Vec<ProxyCommand> {
        let command = |name, mode| ProxyCommand { name, mode, faults: Faults::default(), words: self.words.clone() };
        if self.has("mode") {
            modes.iter().map(|mode| command(format!("{}-{}", self.name, mode.label), Some(mode.clone()))).collect()
        } else {
            vec![command(self.name.clone(), None)]
        }
    }
}

impl ProxyCommand {
    /// portway in one mode. `program` is where the binary is.
    pub(crate) fn portway(program: &Path, mode: &str) -> Result<Self> {
        let modes = [Mode { label: mode.to_owned() }];
        Template::portway(program)?.commands(&modes).pop().context("portway's command has a placeholder for a mode")
    }

    /// Whether it can run at this setting: the minimum needs a placeholder for it.
    pub(crate) fn has_setting(&self, setting: Setting) -> bool {
        setting == Setting::Default || self.words.iter().any(|word| word.contains("{min-sync-period}"))
    }

    /// The program, for its version.
    pub(crate) fn program(&self) -> &str {
        &self.words[0]
    }

    /// The command with values for its placeholders. At the default setting, words with a placeholder for the period are left out.
    pub(crate) fn filled(&self, values: PlaceholderValues<'_>, setting: Setting) -> proxy::ProxyCommand {
        let kubeconfig = values.kubeconfig.to_string_lossy();
        let fill = |word: &String| {
            word.replace("{kubeconfig}", &kubeconfig)
                .replace("{node}", values.node)
                .replace("{mode}", self.mode.as_ref().map_or("", Mode::word))
                .replace("{cluster-cidr}", values.cluster_cidr)
                .replace("{min-sync-period}", MIN_PERIOD)
        };
        let is_taken = |word: &&String| setting == Setting::Minimum || !word.contains("{min-sync-period}");
        proxy::ProxyCommand::new(&self.name, self.words.iter().filter(is_taken).map(fill))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(labels: &[&str]) -> Vec<Mode> {
        labels.iter().map(|label| Mode { label: (*label).to_owned() }).collect()
    }

    fn filled(template: &str, setting: Setting) -> Vec<(String, Vec<String>)> {
        let template: Template = template.parse().expect("a template");
        let values = PlaceholderValues { kubeconfig: Path::new("/k 1"), node: "node-1", cluster_cidr: "10.1.0.0/16" };
        let all = template.commands(&modes(&["nftables", "iptables-nft"]));
        all.into_iter().map(|one| (one.name.clone(), one.filled(values, setting).words)).collect()
    }

    #[test]
    fn placeholders_are_filled_after_the_words_are_split() {
        let got = filled("peer=proxy --k {kubeconfig} '--n=a {node}'", Setting::Default);
        assert_eq!(got, [("peer".to_owned(), ["proxy", "--k", "/k 1", "--n=a node-1"].map(str::to_owned).to_vec())]);
    }

    #[test]
    fn a_mode_makes_a_command_each_and_the_period_stands_at_the_minimum_alone() {
        let text = "p=x -m {mode} --period={min-sync-period}";
        let commands =
            |setting| filled(text, setting).into_iter().map(|(_, words)| words.join(" ")).collect::<Vec<_>>();
        assert_eq!(commands(Setting::Default), ["x -m nftables", "x -m iptables"]);
        assert_eq!(commands(Setting::Minimum), ["x -m nftables --period=0s", "x -m iptables --period=0s"]);
        let names: Vec<_> = filled(text, Setting::Default).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["p-nftables", "p-iptables-nft"]);
    }

    #[test]
    fn what_cannot_be_filled_is_refused() {
        for bad in ["nothing", "=x", "a=", "a=x {nod}", "a=x {node", "a='x"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_without_a_place_for_the_period_has_no_minimum() {
        let template: Template = "p=x {node}".parse().expect("a template");
        let only = &template.commands(&[])[0];
        assert!(only.has_setting(Setting::Default) && !only.has_setting(Setting::Minimum));
    }
}
