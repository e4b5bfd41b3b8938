//! Proxies to measure: command lines with places for what differs from start to start, and their processes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portway_testbed::apiserver::Faults;
use portway_testbed::cluster::{Namespace, Process};

use super::account::{Account, Sampler};
use portway_bench_report::Setting;

/// The least that proxies take for their minSyncPeriod.
const LEAST_PERIOD: &str = "0s";

/// What a command may hold in braces.
const PLACES: [&str; 5] = ["kubeconfig", "node", "mode", "cluster-cidr", "min-sync-period"];

/// A way in which proxies tell the kernel.
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
pub(crate) struct Candidate {
    /// Its name in the results, with its mode.
    pub(crate) name: String,
    /// Its mode, if its command has a place for one.
    pub(crate) mode: Option<Mode>,
    /// What is wrong with the API server while it runs: for tests of this program.
    pub(crate) faults: Faults,
    words: Vec<String>,
}

/// What fills the places of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling<'a> {
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
    /// A command, as words. Every brace must be one of the places' own.
    pub(crate) fn new(name: &str, words: Vec<String>) -> Result<Self> {
        ensure!(!name.is_empty(), "a proxy needs a name: NAME=COMMAND");
        ensure!(!words.is_empty(), "{name} has no command");
        for word in &words {
            let mut rest = word.as_str();
            while let Some((_, after)) = rest.split_once('{') {
                let (place, after) =
                    after.split_once('}').with_context(|| format!("{word}: a brace does not close"))?;
                ensure!(PLACES.contains(&place), "{word}: {{{place}}} is none of {}", PLACES.join(", "));
                rest = after;
            }
        }
        Ok(Self { name: name.to_owned(), words })
    }

    fn has(&self, place: &str) -> bool {
        self.words.iter().any(|word| word.contains(&format!("{{{place}}}")))
    }

    /// The proxy in each mode, or once if its command has no place for a mode.
    pub(crate) fn candidates(&self, modes: &[Mode]) -> Vec<Candidate> {
        let candidate = |name, mode| Candidate { name, mode, faults: Faults::default(), words: self.words.clone() };
        if self.has("mode") {
            modes.iter().map(|mode| candidate(format!("{}-{}", self.name, mode.label), Some(mode.clone()))).collect()
        } else {
            vec![candidate(self.name.clone(), None)]
        }
    }
}

impl Candidate {
    /// Whether it can run at this setting: the minimum needs a place for it.
    pub(crate) fn has_setting(&self, setting: Setting) -> bool {
        setting == Setting::Default || self.words.iter().any(|word| word.contains("{min-sync-period}"))
    }

    /// The program, for its version.
    pub(crate) fn program(&self) -> &str {
        &self.words[0]
    }

    /// The command with its places filled. At the default setting, words with a place for the period are left out.
    pub(crate) fn command(&self, filling: Filling<'_>, setting: Setting) -> Vec<String> {
        let kubeconfig = filling.kubeconfig.to_string_lossy();
        let fill = |word: &String| {
            word.replace("{kubeconfig}", &kubeconfig)
                .replace("{node}", filling.node)
                .replace("{mode}", self.mode.as_ref().map_or("", Mode::word))
                .replace("{cluster-cidr}", filling.cluster_cidr)
                .replace("{min-sync-period}", LEAST_PERIOD)
        };
        let is_taken = |word: &&String| setting == Setting::Minimum || !word.contains("{min-sync-period}");
        self.words.iter().filter(is_taken).map(fill).collect()
    }

    /// Starts it in a namespace.
    pub(crate) fn start(&self, namespace: &Namespace, filling: Filling<'_>, setting: Setting) -> Result<Running> {
        let words = self.command(filling, setting);
        let account = Account::open();
        // Without a name, so that nothing of it stays behind.
        let log = tempfile::tempfile().context("a file for the log")?;
        let mut command = account.command(namespace, &words);
        // Ctrl-C on a terminal is for this program: it ends what it started.
        command.stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0);
        let started = Instant::now();
        let process = namespace.spawn(command).with_context(|| format!("{} cannot be started", words[0]))?;
        let account = account.of(process.id());
        let sampler = Sampler::start(account.clone())?;
        Ok(Running { name: self.name.clone(), started, process, account, log, sampler: Some(sampler) })
    }
}

/// A proxy at work. Killed with all its children when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    /// Just before its process was made.
    pub(crate) started: Instant,
    process: Process,
    account: Account,
    log: File,
    sampler: Option<Sampler>,
}

impl Running {
    /// What it and its children, those that have ended too, have used of the processors.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.account.cpu().with_context(|| format!("the processor time of {}", self.name))
    }

    /// Resident memory of it and its children, in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.account.resident().with_context(|| format!("the memory of {}", self.name))
    }

    /// The most that was resident at a time so far, in MiB: the process's own peak, or more with its children.
    pub(crate) fn peak(&self) -> Result<f64> {
        let sampled = self.sampler.as_ref().map_or(0.0, Sampler::peak);
        Ok(sampled.max(self.account.own_peak().with_context(|| format!("the memory of {}", self.name))?))
    }

    /// An error that says how it ended, if it has.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended with {status}; it said:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended().with_context(|| format!("whether {} still runs", self.name))
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        const BYTES: u64 = 4096;
        let length = self.log.metadata().map_or(0, |data| data.len());
        let mut bytes = vec![0; usize::try_from(length.min(BYTES)).unwrap_or(0)];
        // Reading must not move the descriptor's place in the file, which the proxy shares.
        let read = self.log.read_at(&mut bytes, length.saturating_sub(BYTES)).unwrap_or(0);
        bytes.truncate(read);
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Kills it with SIGKILL, and with it whatever it started.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.end().with_context(|| format!("{} cannot be killed", self.name))
    }

    fn end(&mut self) -> std::io::Result<()> {
        drop(self.sampler.take());
        let killed = self.process.kill();
        self.account.end();
        killed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.end();
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
        let filling = Filling { kubeconfig: Path::new("/k 1"), node: "node-1", cluster_cidr: "10.1.0.0/16" };
        let all = template.candidates(&modes(&["nftables", "iptables-nft"]));
        all.into_iter().map(|one| (one.name.clone(), one.command(filling, setting))).collect()
    }

    #[test]
    fn places_are_filled_after_the_words_are_split() {
        let got = filled("peer=proxy --k {kubeconfig} '--n=a {node}'", Setting::Default);
        assert_eq!(got, [("peer".to_owned(), ["proxy", "--k", "/k 1", "--n=a node-1"].map(str::to_owned).to_vec())]);
    }

    #[test]
    fn a_mode_makes_a_candidate_each_and_the_period_stands_at_the_minimum_alone() {
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
        let only = &template.candidates(&[])[0];
        assert!(only.has_setting(Setting::Default) && !only.has_setting(Setting::Minimum));
    }
}
