//! A PATH in which `iptables`, `iptables-restore` and the other plain names are the tools of one flavour, whichever the
//! machine's own are: a proxy that does not choose among flavours uses what the plain names stand for.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A folder of links from the plain names to the tools of `flavour`, `iptables-legacy` or `iptables-nft`. Tools of IPv6
/// that are not installed are left out.
pub(super) fn folder(flavour: &str) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("portway-bench-").tempdir().context("a folder of links")?;
    for family in ["iptables", "ip6tables"] {
        for kind in ["", "-save", "-restore"] {
            let program = format!("{}{kind}", flavour.replacen("iptables", family, 1));
            let found = find(&program);
            if family == "iptables" && found.is_none() {
                anyhow::bail!("{program} is not in PATH");
            }
            if let Some(found) = found {
                symlink(found, folder.path().join(format!("{family}{kind}"))).context("a link")?;
            }
        }
    }
    Ok(folder)
}

/// This process's PATH with a folder before all others.
pub(super) fn path_with(folder: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths([folder.to_path_buf()].into_iter().chain(env::split_paths(&path))).context("PATH")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use portway_bench_report::Setting;
    use portway_testbed::apiserver::Synthetic;

    use super::super::TestNode;
    use super::super::proxy_command::{Mode, Template};

    /// What a proxy finds that calls the tools by their plain names.
    fn versions(mode: &str) -> String {
        let script = "iptables --version; iptables-save --version; iptables-restore --version; ip6tables-restore --version; \
                      echo done; exec sleep 60";
        let words = ["sh", "-c", script, "{mode}"].map(str::to_owned).to_vec();
        let template = Template::new("peer", words).expect("a command");
        let command = template.commands(&[Mode { label: mode.to_owned() }]).remove(0);
        let node = TestNode::new(Synthetic::new(20, 1), |_| Ok(()), &command).expect("a test node");
        let process = node.start(&command, Setting::Default).expect("it starts");
        let start = Instant::now();
        loop {
            let output = process.output().expect("its output");
            if output.ends_with("done\n") {
                return output;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{output}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn every_proxy_finds_the_flavour_of_its_mode_under_the_plain_names() {
        if let Some(lacking) = portway_testbed::missing() {
            println!("SKIPPED every_proxy_finds_the_flavour_of_its_mode_under_the_plain_names: needs {lacking}");
            return;
        }
        for (mode, flavour) in [("iptables-legacy", "(legacy)"), ("iptables-nft", "(nf_tables)")] {
            let versions = versions(mode);
            assert_eq!(versions.matches(flavour).count(), 4, "{mode}: {versions}");
        }
    }
}
