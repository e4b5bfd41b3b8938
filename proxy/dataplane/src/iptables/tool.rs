//! Finds and runs the programs `iptables-save` and `iptables-restore`.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portway_model::Family;
use rustix::fs::{MemfdFlags, memfd_create};

use super::names::CANARY;
use super::restore::parse_save;
use super::tables::Table;
use crate::report::DataplaneError;

/// The kernel interface that a set of tools writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// The old interface (`iptables-legacy`).
    Legacy,
    /// The kernel's nf_tables, behind iptables' syntax (`iptables-nft`).
    Nft,
}

impl Flavour {
    /// The part of the tools' names that tells the flavours apart.
    pub fn as_str(self) -> &'static str {
        match self {
            Flavour::Legacy => "legacy",
            Flavour::Nft => "nft",
        }
    }
}

/// The oldest tools that know what is asked of them: `iptables-restore --wait` (contract IPT-8).
const MIN_VERSION: (u32, u32, u32) = (1, 6, 2);

/// Seconds that a restore waits for the lock of another program.
const LOCK_SECONDS: &str = "5";

/// The tools of one family.
#[derive(Clone, Debug)]
pub struct Tool {
    family: Family,
    prefix: String,
    /// The folder of the programs; `None` for `PATH`.
    folder: Option<PathBuf>,
}

impl Tool {
    /// Finds the tools that the node's other programs use: those whose rules hold kubelet's hint or canary, else those
    /// with which an earlier start, or kube-proxy, has left its own canary, else those that hold most rules, else what
    /// the plain name stands for (contract IPT-15).
    pub fn find(family: Family) -> Result<Self, DataplaneError> {
        let (mut installed, mut denied) = (Vec::new(), None);
        for tool in [Flavour::Nft, Flavour::Legacy].map(|flavour| Self::of(family, flavour)) {
            if tool.version().is_err() {
                continue;
            }
            match tool.mangle_chains() {
                Ok(chains) => installed.push((tool, chains)),
                Err(error) if is_denial(&error) => denied = Some(error),
                // The kernel lacks what these tools write to.
                Err(_) => {}
            }
        }
        for marks in [&["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"][..], &[CANARY]] {
            let is_marked = |chains: &[String]| chains.iter().any(|chain| marks.contains(&chain.as_str()));
            if let Some((tool, _)) = installed.iter().find(|(_, chains)| is_marked(chains)) {
                return tool.clone().checked();
            }
        }
        // Whose rules the node's other programs write cannot be told, and the wrong tools would write all rules twice.
        if let Some(DataplaneError::Kernel { operation, source }) = denied {
            let detail = format!(
                "{source}; without its rules nothing tells which flavour of iptables this node uses: run as root with the \
                 capabilities CAP_NET_ADMIN and CAP_NET_RAW"
            );
            return Err(DataplaneError::Unusable { what: operation, source: io::Error::other(detail) });
        }
        let mut most: Option<(usize, Tool)> = None;
        for (tool, _) in installed {
            let Ok(saved) = tool.save() else { continue };
            let rules = saved.lines().filter(|line| line.starts_with("-A ")).count();
            if rules > 0 && most.as_ref().is_none_or(|(count, _)| rules > *count) {
                most = Some((rules, tool));
            }
        }
        match most {
            Some((_, tool)) => tool,
            None => Self { family, prefix: base(family).to_owned(), folder: None }.tried()?,
        }
        .checked()
    }

    /// The same tools, once they have listed what there is.
    pub fn tried(self) -> Result<Self, DataplaneError> {
        self.mangle_chains()?;
        Ok(self)
    }

    /// The chains of the mangle table, which tell that the tools work, and who has used them. With nf_tables underneath,
    /// a list of all tables can take many seconds.
    fn mangle_chains(&self) -> Result<Vec<String>, DataplaneError> {
        if self.prefix.ends_with(Flavour::Nft.as_str()) {
            let listed = self.run(&self.prefix, &["-t", "mangle", "-S"], None)?;
            return Ok(listed.lines().filter_map(|line| line.strip_prefix("-N ")).map(str::to_owned).collect());
        }
        // Naming a table would make the old interface load it.
        let mut tables = parse_save(&self.save()?);
        Ok(tables.remove(&Table::Mangle).unwrap_or_default().into_keys().collect())
    }

    /// The tools of one flavour, whatever others use.
    pub fn of(family: Family, flavour: Flavour) -> Self {
        Self { family, prefix: format!("{}-{}", base(family), flavour.as_str()), folder: None }
    }

    /// Takes the tools from this folder, not from `PATH`.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// The address family whose tables these tools write.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The tools' common name, without `-save` and `-restore`.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    fn checked(self) -> Result<Self, DataplaneError> {
        let version = self.version()?;
        if version < MIN_VERSION {
            let detail = format!(
                "version {}.{}.{} is too old: portway needs {}.{}.{} or later",
                version.0, version.1, version.2, MIN_VERSION.0, MIN_VERSION.1, MIN_VERSION.2
            );
            return Err(DataplaneError::Unusable { what: self.prefix, source: io::Error::other(detail) });
        }
        Ok(self)
    }

    /// The tools of this flavour that are installed: those that carry its name, or the plain ones if they are of this
    /// flavour. For clean-up, which takes tools of any version.
    ///
    /// # Errors
    /// If neither can be run.
    pub fn available(family: Family, flavour: Flavour) -> Result<Self, DataplaneError> {
        let named = Self::of(family, flavour);
        let Err(error) = named.version() else { return Ok(named) };
        let plain = Self { family, prefix: base(family).to_owned(), folder: None };
        match plain.version_text() {
            Ok(text) if flavour_of(&text) == flavour => Ok(plain),
            _ => Err(error),
        }
    }

    /// The tools' version: major, minor and patch level.
    ///
    /// # Errors
    /// If the tools cannot be run, or print no version.
    pub fn version(&self) -> Result<(u32, u32, u32), DataplaneError> {
        let text = self.version_text()?;
        parse_version(&text)
            .ok_or_else(|| DataplaneError::Answer { what: format!("{} --version", self.prefix), detail: text.clone() })
    }

    fn version_text(&self) -> Result<String, DataplaneError> {
        self.run(&self.prefix, &["--version"], None)
    }

    /// All tables as `iptables-save` prints them.
    pub fn save(&self) -> Result<String, DataplaneError> {
        self.run(&format!("{}-save", self.prefix), &[], None)
    }

    /// Hands `script` to `iptables-restore`. An error's text holds what the tool printed.
    pub fn restore(&self, script: &str) -> Result<(), DataplaneError> {
        let arguments = ["--noflush", "--counters", "-w", LOCK_SECONDS];
        self.run(&format!("{}-restore", self.prefix), &arguments, Some(script)).map(drop)
    }

    fn run(&self, program: &str, arguments: &[&str], input: Option<&str>) -> Result<String, DataplaneError> {
        let unusable = |source| DataplaneError::Unusable { what: program.to_owned(), source };
        let path = self.folder.as_ref().map_or_else(|| program.into(), |folder| folder.join(program));
        let stdin = match input {
            // A file rather than a pipe: the tool reads it without a thread of ours that has to be woken for each piece.
            Some(input) => input_file(input).map(Stdio::from).map_err(unusable)?,
            None => Stdio::null(),
        };
        let output = Command::new(path).args(arguments).stdin(stdin).output().map_err(unusable)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        let message = if message.trim().is_empty() { output.status.to_string() } else { message.trim().to_owned() };
        Err(DataplaneError::Kernel { operation: program.to_owned(), source: io::Error::other(message) })
    }
}

/// Whether the kernel or the file system denied the tools what they asked for.
fn is_denial(error: &DataplaneError) -> bool {
    matches!(error, DataplaneError::Kernel { source, .. } if source.to_string().contains("Permission denied"))
}

/// A file in memory that holds this text, to be read from its beginning.
fn input_file(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("iptables-restore", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn base(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// The flavour that a version's text names; tools before 1.8 name none and are legacy ones.
fn flavour_of(version: &str) -> Flavour {
    if version.contains("(nf_tables)") { Flavour::Nft } else { Flavour::Legacy }
}

/// `iptables v1.8.9 (nf_tables)` → (1, 8, 9).
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>());
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipt_8_versions_are_read_and_compared() {
        assert_eq!(parse_version("iptables v1.8.9 (nf_tables)\n"), Some((1, 8, 9)));
        assert_eq!(parse_version("iptables v1.4.21"), Some((1, 4, 21)));
        assert_eq!(parse_version("ip6tables v1.8 (legacy)"), Some((1, 8, 0)));
        assert_eq!(parse_version("no such thing"), None);
        assert!((1, 4, 21) < MIN_VERSION && (1, 6, 2) >= MIN_VERSION);
    }
}
