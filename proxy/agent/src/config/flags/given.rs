//! The flags that were given, and the documents that they fill.

use std::collections::BTreeMap;

use super::{BesideConfig, FLAGS, Flag};
use crate::config::addresses::host_port;
use crate::config::settings::Documents;
use crate::config::{Invalid, Problems};

/// What `--version` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The version number alone, in one line.
    Line,
    /// The version with every detail of the build.
    Raw,
}

/// The flags that were given.
#[derive(Clone, Default)]
pub(crate) struct Given {
    /// The documents as the flags fill them.
    pub(crate) documents: Documents,
    /// The path of the configuration file (`--config`).
    pub(crate) config: Option<String>,
    /// The file that the configuration is written to.
    pub(crate) write_config_to: Option<String>,
    /// Whether to clean up and end.
    pub(crate) cleanup: bool,
    /// Whether to make the node settings and end.
    pub(crate) init_only: bool,
    /// Whether to print the version and end.
    pub(crate) version: Option<Version>,
    /// The port of `--healthz-port`.
    pub(super) healthz_port: Option<i32>,
    /// The port of `--metrics-port`.
    pub(super) metrics_port: Option<i32>,
    /// Each occurrence, in the order of the command line.
    occurrences: Vec<(&'static Flag, String)>,
    /// The flag that has set a field.
    origins: BTreeMap<&'static str, &'static Flag>,
    /// The values that are not of the form that their flags take.
    malformed: Vec<String>,
}

impl Given {
    /// Takes one occurrence of a flag.
    pub(super) fn take(&mut self, flag: &'static Flag, value: &str) {
        match (flag.set)(self, value) {
            Ok(()) => self.origins.extend(flag.fields.iter().map(|field| (*field, flag))),
            Err(reason) => self.malformed.push(format!("{} {value:?}: {reason}", flag.dashed())),
        }
        self.occurrences.push((flag, value.to_owned()));
    }

    /// What is wrong with the flags themselves, one sentence each.
    pub(crate) fn malformed(&self) -> &[String] {
        &self.malformed
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.occurrences.iter().any(|(flag, _)| flag.name == name)
    }

    /// The documents of a run without a configuration file.
    pub(crate) fn alone(&self) -> Documents {
        let mut documents = self.documents.clone();
        // As in kube-proxy, where these flags are as old as the addresses: 0 disables the server, and another port counts
        // only for an address without one.
        if self.write_config_to.is_none() {
            let config = &mut documents.kube_proxy;
            for (address, port) in [
                (&mut config.healthz_bind_address, self.healthz_port),
                (&mut config.metrics_bind_address, self.metrics_port),
            ] {
                match (port, address.as_deref()) {
                    (Some(0), _) => *address = Some(String::new()),
                    (Some(port), Some(text)) => {
                        let ip = text.trim_matches(['[', ']']).parse();
                        if let (Ok(ip), Ok(port)) = (ip, u16::try_from(port)) {
                            *address = Some(std::net::SocketAddr::new(ip, port).to_string());
                        } else if host_port(text, 1).is_ok_and(|_| u16::try_from(port).is_err()) {
                            *address = Some(format!("{text}:{port}"));
                        }
                    }
                    _ => {}
                }
            }
        }
        documents
    }

    /// The documents of a file, with the flags that count beside `--config` (contract CFG-5).
    pub(crate) fn beside(&self, file: &Documents) -> Self {
        let mut beside = Self { documents: file.clone(), ..Self::default() };
        for (flag, value) in self.occurrences.iter().filter(|(flag, _)| flag.beside_config == BesideConfig::Counts) {
            beside.take(flag, value);
        }
        beside
    }

    /// The flags that `--config` overrides, each once.
    pub(crate) fn overridden(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (flag, _) in self.occurrences.iter().filter(|(flag, _)| flag.beside_config == BesideConfig::Overridden) {
            if !names.contains(&flag.dashed()) {
                names.push(flag.dashed());
            }
        }
        names
    }

    /// A sentence for each deprecated flag that was given.
    pub(crate) fn deprecated(&self) -> Vec<String> {
        let given = FLAGS.iter().filter(|flag| self.has(flag.name));
        given.filter_map(|flag| Some(format!("{} is deprecated: {}", flag.dashed(), flag.deprecated?))).collect()
    }

    /// Whether a field was set by a flag.
    pub(crate) fn set(&self, invalid: &Invalid) -> bool {
        self.origins.contains_key(field(&invalid.path))
    }

    /// What is wrong, with the name of the flag that was given, or could have been.
    pub(crate) fn describe(&self, invalid: &Invalid) -> String {
        let Invalid { path, value, reason } = invalid;
        let field = field(path);
        let known = || FLAGS.iter().find(|flag| flag.deprecated.is_none() && flag.fields.contains(&field));
        let name = match self.origins.get(field).copied().or_else(known) {
            Some(flag) => flag.dashed(),
            None => path.clone(),
        };
        if value.is_empty() { format!("{name}: {reason}") } else { format!("{name} {value:?}: {reason}") }
    }

    /// All that is wrong, with the names of flags.
    pub(crate) fn describe_all(&self, problems: &Problems) -> Vec<String> {
        let mut sentences = self.malformed.clone();
        for invalid in &problems.0 {
            let sentence = self.describe(invalid);
            // A flag that sets several fields is wrong once.
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        sentences
    }
}

/// The path of a field without the index of an item.
fn field(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}
