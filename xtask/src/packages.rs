//! Debian packages that a command needs: found, or installed, or named.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::tool;

/// A Debian package, and how to find out whether it is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// The package's name in Debian.
    pub(crate) name: &'static str,
    /// A program of the package, or the path of a file if the name of a program is ambiguous.
    pub(crate) brings: &'static str,
    /// The purpose, as the end of the sentence "it …".
    pub(crate) reason: &'static str,
}

const NFTABLES: Package = Package { name: "nftables", brings: "nft", reason: "reads rule sets as people read them" };
const IPTABLES: Package =
    Package { name: "iptables", brings: "iptables-save", reason: "is what the iptables dataplane writes with" };
const IPROUTE2: Package = Package { name: "iproute2", brings: "ip", reason: "makes and inspects network namespaces" };
const CONNTRACK: Package = Package { name: "conntrack", brings: "conntrack", reason: "lists tracked connections" };
const PROCPS: Package = Package { name: "procps", brings: "sysctl", reason: "sets kernel parameters in namespaces" };
const FONT: Package = Package {
    name: "fonts-dejavu-core",
    brings: "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    reason: "letters the plots of measurements",
};
const KMOD: Package = Package { name: "kmod", brings: "depmod", reason: "loads kernel modules, and orders a VM's" };

/// Packages for tests that send packets.
pub(crate) const TEST: &[Package] = &[NFTABLES, IPTABLES, IPROUTE2, CONNTRACK, PROCPS];

/// Packages for the demo cluster.
pub(crate) const DEMO: &[Package] = &[NFTABLES, IPROUTE2, CONNTRACK, PROCPS];

/// Packages for measurements and their plots.
pub(crate) const BENCH: &[Package] = &[NFTABLES, IPTABLES, IPROUTE2, CONNTRACK, PROCPS, FONT];

/// Packages for a virtual machine with another kernel.
pub(crate) const VM: &[Package] = &[
    Package { name: "qemu-system-x86", brings: "qemu-system-x86_64", reason: "runs the virtual machine" },
    Package {
        name: "busybox-static",
        brings: "/var/lib/dpkg/info/busybox-static.list",
        reason: "is the virtual machine's first program",
    },
    Package { name: "cpio", brings: "cpio", reason: "packs the virtual machine's first file system" },
    Package { name: "xz-utils", brings: "xz", reason: "unpacks kernel modules" },
    Package { name: "zstd", brings: "zstd", reason: "unpacks kernel modules" },
    KMOD,
];

/// Packages that are missing and cannot be installed here.
#[derive(Debug)]
pub(crate) struct Missing {
    packages: Vec<Package>,
    obstacle: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "packages that are needed are missing, and {}:", self.obstacle)?;
        for package in &self.packages {
            writeln!(f, "  {} {}", package.name, package.reason)?;
        }
        let names: Vec<_> = self.packages.iter().map(|package| package.name).collect();
        write!(f, "On Debian, as root: apt-get update && apt-get install {}", names.join(" "))
    }
}

impl std::error::Error for Missing {}

/// Makes sure that these packages are installed. Installs missing ones if it can, and says so; otherwise returns
/// [`Missing`].
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("xtask: Debian package {} is missing: it {}", package.name, package.reason);
    }
    let give_up = |packages, obstacle: &str| Err(anyhow!(Missing { packages, obstacle: obstacle.to_owned() }));
    if !rustix::process::geteuid().is_root() {
        return give_up(missing, "only root can install them");
    }
    if tool::find("apt-get").is_none() {
        return give_up(missing, "this system has no apt-get");
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    eprintln!("xtask: installing {}", names.join(", "));
    if let Err(error) = tool::run(&mut apt_get(&["update", "-qq"])) {
        return give_up(missing, &format!("the package lists cannot be fetched ({error:#})"));
    }
    // Installed packages must stay: if a new one conflicts with them, the owner of the machine decides.
    let mut install = apt_get(&["install", "-y", "-qq", "--no-install-recommends", "--no-remove"]);
    if let Err(error) = tool::run(install.args(&names)) {
        return give_up(missing, &format!("they cannot be installed beside what is here ({error:#})"));
    }
    let still = self::missing(packages);
    if still.is_empty() { Ok(()) } else { give_up(still, "installing them did not bring what is needed") }
}

/// The packages whose program or file does not exist.
fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().copied().filter(|package| !is_there(package.brings)).collect()
}

fn is_there(brings: &str) -> bool {
    if brings.starts_with('/') { Path::new(brings).exists() } else { tool::find(brings).is_some() }
}

/// An apt-get command that asks nothing and waits for its lock. Its output goes to standard error.
fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null()).stdout(std::io::stderr());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_not_missing() {
        let here = Package { name: "coreutils", brings: "ls", reason: "lists files" };
        let file = Package { name: "base-files", brings: "/etc", reason: "holds files" };
        let nowhere = Package { name: "no-such", brings: "no-such-program", reason: "does nothing" };
        assert_eq!(missing(&[here, file, nowhere]), [nowhere]);
    }

    #[test]
    fn a_missing_package_is_named_with_its_reason_and_the_remedy() {
        let missing = Missing { packages: vec![NFTABLES, IPROUTE2], obstacle: "only root can install them".into() };
        assert_eq!(
            missing.to_string(),
            "packages that are needed are missing, and only root can install them:\n\
             \x20 nftables reads rule sets as people read them\n\
             \x20 iproute2 makes and inspects network namespaces\n\
             On Debian, as root: apt-get update && apt-get install nftables iproute2"
        );
    }
}
