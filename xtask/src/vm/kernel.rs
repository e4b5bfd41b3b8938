//! Fetches Debian kernels for virtual machines as packages and unpacks them below target/vm; nothing is installed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tool;

/// Kernel versions and the Debian releases that have them.
const SUITES: &[(&str, &str)] = &[("6.1", "bookworm"), ("6.12", "trixie")];

/// Modules that must be loaded before the root file system is mounted. Others are loaded on demand.
const FIRST_MODULES: &[&str] = &["virtio_pci", "9p", "9pnet_virtio", "overlay", "virtio_rng"];

/// The `init` program of the initramfs.
const INIT: &str = include_str!("first.sh");

/// The first program on the mounted root file system.
const SECOND: &str = include_str!("second.sh");

/// A kernel that is ready to boot.
pub(crate) struct Kernel {
    /// The compressed kernel image.
    pub(crate) image: PathBuf,
    /// The folder with its modules.
    pub(crate) modules: PathBuf,
    /// The initramfs as a cpio archive.
    pub(crate) initramfs: PathBuf,
}

impl Kernel {
    /// Returns the kernel of this version and fetches it if it is missing.
    pub(crate) fn fetch(version: &str) -> Result<Self> {
        let Some((_, suite)) = SUITES.iter().find(|(known, _)| *known == version) else {
            let known: Vec<_> = SUITES.iter().map(|(known, _)| *known).collect();
            bail!("kernel {version:?} is not known; there are {}", known.join(", "));
        };
        let directory = tool::target().join("vm").join(version);
        let root = directory.join("root");
        if find(&root.join("boot"), "vmlinuz-").is_err() {
            eprintln!("==> fetching Debian's kernel {version}");
            unpack(&directory, suite, &root)?;
        }
        let image = find(&root.join("boot"), "vmlinuz-")?;
        let modules = find(&root.join("lib/modules"), "")?;
        let kernel = Self { image, modules, initramfs: directory.join("initramfs") };
        // Packed again each time: it is quick, and follows changes of the programs.
        kernel.pack_initramfs(&root, &directory.join("first"))?;
        Ok(kernel)
    }

    fn pack_initramfs(&self, root: &Path, directory: &Path) -> Result<()> {
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("cannot empty {}", directory.display()))?;
        }
        for name in ["bin", "proc", "sys", "dev", "lower", "upper", "new", "modules"] {
            fs::create_dir_all(directory.join(name)).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let busybox = tool::find("busybox").context("busybox is not installed")?;
        fs::copy(busybox, directory.join("bin/busybox")).context("cannot copy busybox")?;
        for (name, text) in [("init", INIT), ("second", SECOND)] {
            let file = directory.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        let release = self.modules.file_name().context("the kernel's modules have no directory")?;
        let order = load_order(root, &release.to_string_lossy())?;
        for (place, module) in order.iter().enumerate() {
            let name = module.file_name().context("a module has no name")?.to_string_lossy().into_owned();
            let name = name.trim_end_matches(".xz").trim_end_matches(".zst");
            let bytes = match module.extension().and_then(|extension| extension.to_str()) {
                Some("xz") => bytes_of(Command::new("xz").arg("-dc").arg(module))?,
                Some("zst") => bytes_of(Command::new("zstd").arg("-qdc").arg(module))?,
                _ => fs::read(module).with_context(|| format!("cannot read {}", module.display()))?,
            };
            fs::write(directory.join(format!("modules/{place:02}-{name}")), bytes)?;
        }
        archive(directory, &self.initramfs)
    }
}

/// Downloads and unpacks the kernel package with separate package lists, independent of this machine's release.
fn unpack(directory: &Path, suite: &str, root: &Path) -> Result<()> {
    let apt = directory.join("apt");
    for name in ["lists/partial", "cache/archives/partial", "sources", "debs"] {
        fs::create_dir_all(apt.join(name)).with_context(|| format!("cannot make {}", apt.display()))?;
    }
    let mirrors = tool::output(Command::new("apt-get").args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"]))?;
    let mirror = mirrors.lines().find_map(|line| line.strip_prefix("Debian "));
    let mirror = mirror.context("this machine has no Debian package source")?;
    let source = format!(
        "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    );
    fs::write(apt.join("sources/kernel.sources"), source)?;
    let with_lists = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-qq", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::State::status=/dev/null"]);
        command.args(["-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"]);
        for (name, place) in
            [("Dir::Etc::sourceparts", "sources"), ("Dir::State::lists", "lists"), ("Dir::Cache", "cache")]
        {
            command.arg("-o").arg(format!("{name}={}", apt.join(place).display()));
        }
        command.args(arguments).current_dir(apt.join("debs")).stdin(Stdio::null());
        command
    };
    tool::run(&mut with_lists("apt-get", &["update"]))?;
    let depends = tool::output(&mut with_lists("apt-cache", &["depends", "--important", "linux-image-amd64"]))?;
    let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let image = image.context("the package linux-image-amd64 names no kernel")?;
    tool::run(with_lists("apt-get", &["download", image]).stdout(std::io::stderr()))?;
    let package = find(&apt.join("debs"), "linux-image-")?;
    tool::run(Command::new("dpkg").arg("-x").arg(package).arg(root))?;
    // Newer releases unpack to usr/lib/modules only; everything else looks below lib.
    let (modules, usr) = (root.join("lib/modules"), root.join("usr/lib/modules"));
    if !modules.exists() && usr.exists() {
        fs::create_dir_all(root.join("lib"))?;
        symlink(&usr, &modules)?;
    }
    let release = find(&modules, "")?;
    let release = release.file_name().context("the kernel's modules have no directory")?;
    tool::run(Command::new(tool::find("depmod").context("depmod is not installed")?).arg("-b").arg(root).arg(release))?;
    fs::remove_dir_all(&apt).with_context(|| format!("cannot remove {}", apt.display()))
}

/// The entry of a directory whose name begins with `start`.
fn find(directory: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let wanted = entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    wanted.with_context(|| format!("{} holds no {start}…", directory.display()))
}

/// The files of the first modules in load order, from depmod's list of dependencies.
fn load_order(root: &Path, release: &str) -> Result<Vec<PathBuf>> {
    let directory = root.join("lib/modules").join(release);
    let list = fs::read_to_string(directory.join("modules.dep")).context("cannot read depmod's list")?;
    let builtin = fs::read_to_string(directory.join("modules.builtin")).context("cannot read the kernel's own list")?;
    let mut order: Vec<PathBuf> = Vec::new();
    for wanted in FIRST_MODULES {
        let is_wanted = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file.split('.').next().is_some_and(|name| name.replace('-', "_") == *wanted)
        };
        if builtin.lines().any(is_wanted) {
            continue;
        }
        let line = list.lines().filter_map(|line| line.split_once(':')).find(|(module, _)| is_wanted(module));
        let (module, needs) = line.with_context(|| format!("the kernel has no module {wanted}"))?;
        // depmod lists what a module needs with the deepest last.
        for file in needs.split_whitespace().rev().chain([module]) {
            let file = directory.join(file);
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

fn bytes_of(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot run {}", tool::line(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", tool::line(command), output.status);
    }
    Ok(output.stdout)
}

/// Packs a directory as a cpio archive in the format of an initramfs.
fn archive(directory: &Path, archive: &Path) -> Result<()> {
    let names = tool::output(Command::new("find").arg(".").current_dir(directory))?;
    let output = fs::File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    let mut command = Command::new("cpio");
    command.args(["-o", "-H", "newc", "--quiet"]).current_dir(directory).stdin(Stdio::piped()).stdout(output);
    let mut child = command.spawn().context("cannot run cpio")?;
    child.stdin.take().context("cpio takes no names")?.write_all(names.as_bytes())?;
    let status = child.wait()?;
    if !status.success() {
        bail!("cpio failed ({status})");
    }
    Ok(())
}
