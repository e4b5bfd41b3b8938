//! Tests of the configuration as a whole.

mod decode;
mod documentation;
mod flags;
mod properties;
mod resolve;
mod stock;
mod together;
mod watching;

use std::path::Path;

use super::flags::{Commands, Given, add, given};
use super::{ConfigFile, Loaded};

/// The flags of a command line.
fn flags(arguments: &[&str]) -> Given {
    let command = add(clap::Command::new("kube-proxy"), Commands::Run);
    let matches = command.try_get_matches_from(["kube-proxy"].iter().chain(arguments)).unwrap();
    given(&matches, Commands::Run)
}

/// A file with this text.
fn file(text: &str) -> Result<ConfigFile, Vec<String>> {
    ConfigFile::parse(Path::new("config.conf"), text.as_bytes().to_vec())
}

/// kube-proxy's document with these fields.
fn document(fields: &str) -> String {
    format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}")
}

/// A folder with a file of this text, and what comes of it together with flags.
fn load_with(text: &str, arguments: &[&str]) -> Result<Loaded, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.conf");
    std::fs::write(&path, text).unwrap();
    let config = format!("--config={}", path.display());
    let arguments: Vec<&str> = std::iter::once(config.as_str()).chain(arguments.iter().copied()).collect();
    let shorter = |sentences: Vec<String>| -> Vec<String> {
        sentences.iter().map(|sentence| sentence.replace(&format!("{}/", folder.path().display()), "")).collect()
    };
    super::load(&flags(&arguments)).map_err(shorter)
}

/// What comes of flags alone.
fn load(arguments: &[&str]) -> Result<Loaded, Vec<String>> {
    super::load(&flags(arguments))
}
