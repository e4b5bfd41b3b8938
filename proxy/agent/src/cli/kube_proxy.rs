//! The program under the name kube-proxy: it takes kube-proxy's command line as it is, so that a DaemonSet or a unit of
//! kube-proxy starts portway unchanged.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;

use super::args::RUN_NOTES;
use crate::config::flags::{self, Commands, Given};

/// The name under which the program takes kube-proxy's command line.
const NAME: &str = "kube-proxy";

/// Whether the program was called by that name, by a link for example.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    let called = arguments.first().and_then(|name| Path::new(name).file_name());
    called == Some(OsStr::new(NAME))
}

/// Parses kube-proxy's command line.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Given, clap::Error> {
    let command = Command::new(NAME)
        .about("Programs Kubernetes Services into this node's kernel: portway, under the name of kube-proxy.")
        .max_term_width(110)
        .after_help(RUN_NOTES);
    let matches = flags::add(command, Commands::Run).try_get_matches_from(arguments.into_iter().filter_map(normal))?;
    let mut given = flags::given(&matches, Commands::Run);
    // kube-proxy takes an empty name for none.
    let name = &mut given.documents.kube_proxy.hostname_override;
    *name = name.take().filter(|name| !name.is_empty());
    Ok(given)
}

/// An argument as kube-proxy reads it: underscores in a flag's name are dashes, and empty arguments are nothing.
fn normal(argument: OsString) -> Option<OsString> {
    let Some(text) = argument.to_str() else { return Some(argument) };
    if text.is_empty() {
        return None;
    }
    let Some(flag) = text.strip_prefix("--") else { return Some(argument) };
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    let name = name.replace('_', "-");
    Some(OsString::from(match value {
        Some(value) => format!("--{name}={value}"),
        None => format!("--{name}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Result<Given, clap::Error> {
        parse(["/usr/local/bin/kube-proxy"].iter().chain(arguments).map(OsString::from).collect())
    }

    #[test]
    fn the_name_is_that_of_the_file_and_not_of_its_folder() {
        for (name, is) in [
            ("kube-proxy", true),
            ("/usr/local/bin/kube-proxy", true),
            ("portway", false),
            ("/usr/share/kube-proxy/portway", false),
            ("", false),
        ] {
            assert_eq!(is_meant(&[OsString::from(name)]), is, "{name}");
        }
        assert!(!is_meant(&[]));
    }

    #[test]
    fn cfg_4_flags_may_have_underscores_and_empty_arguments_are_nothing() {
        let given = given(&["", "--conntrack_max_per_core=0", "--v", "3", "--oom_score_adj", "-5"]).unwrap();
        let config = &given.documents.kube_proxy;
        assert_eq!((config.conntrack.max_per_core, config.logging.verbosity), (Some(0), Some(3)));
        assert_eq!(config.oom_score_adj, Some(-5));
    }

    #[test]
    fn cfg_4_arguments_that_are_no_flags_are_refused() {
        assert!(given(&["run"]).is_err());
        assert!(given(&["--masquerade-all", "false"]).is_err());
    }

    #[test]
    fn cfg_5_an_empty_hostname_override_counts_as_none() {
        assert_eq!(given(&["--hostname-override="]).unwrap().documents.kube_proxy.hostname_override, None);
    }
}
