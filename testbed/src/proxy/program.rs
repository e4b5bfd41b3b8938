//! The program portway on node-1, with a folder of manifests or an API server as its source.

use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use portway_dataplane::Mode;
use portway_model::Protocol;
use tempfile::TempDir;

use super::{Proxy, ProxyCommand, ProxyOptions, ProxyProcess};
use crate::cluster::{Cluster, Host};
use crate::objects::{NAMESPACE, Objects, Service};
use crate::probe::Probe;
use portway_apiserver::{ApiServer, Resource, Store};

/// The longest that an update may take until it is in force.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(15);

/// The time between the objects of an update and its marker, which the program must not join to one change.
const MARKER_DELAY: Duration = Duration::from_millis(300);

/// The names of folders begin with this; the id of the process follows.
const PREFIX: &str = "portway-testbed-";

/// The source of objects that the program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectSource {
    /// A folder of manifests that the program watches.
    Manifests,
    /// An API server on node-1's loopback interface.
    ApiServer,
}

/// The program portway on node-1.
///
/// Every update is followed by a [`Marker`]: one Service more at a new cluster IP. When it answers, the update is in force.
/// It comes by itself, because a change of rules in both families would hide what an update without any does not do.
pub struct Program<'a> {
    cluster: &'a Cluster,
    mode: Mode,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    folder: TempDir,
    server: Option<ApiServer>,
    process: Option<ProxyProcess>,
    submitted: Option<Objects>,
    updates: u8,
}

impl<'a> Program<'a> {
    /// Prepares to run the program in `mode`.
    pub fn new(cluster: &'a Cluster, options: &ProxyOptions, mode: &str, source: ObjectSource) -> anyhow::Result<Self> {
        sweep()?;
        let folder = TempDir::with_prefix(format!("{PREFIX}{}-", std::process::id()))?;
        fs::create_dir(folder.path().join("manifests"))?;
        let mode = mode_of(mode)?;
        let mut arguments = Vec::new();
        let server = match source {
            ObjectSource::Manifests => {
                arguments.push(format!("--manifests={}", folder.path().join("manifests").display()));
                None
            }
            ObjectSource::ApiServer => {
                let listener = cluster.node().run(|| TcpListener::bind("127.0.0.1:0"))?;
                let server = ApiServer::spawn(Store::new(), listener)?;
                arguments.push(format!("--master={}", server.url()));
                Some(server)
            }
        };
        arguments.extend(options.to_arguments());
        Ok(Self {
            cluster,
            mode,
            wrapper: Vec::new(),
            arguments,
            folder,
            server,
            process: None,
            submitted: None,
            updates: 0,
        })
    }

    /// Sets the mode of the next start.
    pub fn switch_to(&mut self, mode: &str) -> anyhow::Result<()> {
        self.mode = mode_of(mode)?;
        Ok(())
    }

    /// Adds an argument of the command line for the next start.
    pub fn add_argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    /// Starts the program from now on as this user, with these capabilities (`net_admin`) and no way to more. The program and its
    /// manifests are where that user can read them.
    ///
    /// # Errors
    /// If the program cannot be copied.
    pub fn run_as(&mut self, user: u32, capabilities: &[&str]) -> anyhow::Result<()> {
        let own = self.folder.path().join("portway");
        fs::copy(program_path()?, &own)?;
        for path in [self.folder.path(), &self.manifests(), &own] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        let sets = capabilities.iter().fold("-all".to_owned(), |sets, one| format!("{sets},+{one}"));
        let words =
            ["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--no-new-privs"];
        self.wrapper = words.map(str::to_owned).to_vec();
        self.wrapper.extend(["bounding-set", "inh-caps", "ambient-caps"].map(|set| format!("--{set}={sets}")));
        self.wrapper.push(own.display().to_string());
        Ok(())
    }

    /// The folder of manifests, for tests that write their own.
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// The API server that is the source of the program, if one is.
    pub fn server(&self) -> Option<&ApiServer> {
        self.server.as_ref()
    }

    /// The output of the program since its last start.
    pub fn log(&self) -> String {
        let Some(process) = &self.process else { return "the program does not run".to_owned() };
        process.output().unwrap_or_else(|error| error.to_string())
    }

    /// Starts the program, without waiting for anything.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let mut arguments = vec![format!("--mode={}", self.mode)];
        arguments.extend(self.arguments.iter().cloned());
        let command = if self.wrapper.is_empty() {
            ProxyCommand::portway(&program_path()?, arguments)
        } else {
            let words = self.wrapper.iter().cloned().chain(["run".to_owned()]).chain(arguments);
            ProxyCommand::new("portway", words)
        };
        self.process = Some(command.start(self.cluster.node())?);
        Ok(())
    }

    /// Kills the program with SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.process.take().context("the program does not run")?.kill()?)
    }

    /// Replaces the objects of the source without a wait. Returns the marker for [`Program::wait_for`].
    pub fn submit(&mut self, objects: &Objects) -> anyhow::Result<Marker> {
        self.updates += 1;
        self.resubmit(objects)
    }

    /// The same without a new marker: nothing changes but what the test changes.
    pub fn resubmit(&mut self, objects: &Objects) -> anyhow::Result<Marker> {
        let marker = Marker::new(self.updates);
        let mut after = objects.clone();
        after.services.insert(marker.service.name.clone(), marker.service.clone());
        match &self.server {
            None => write_whole(&self.manifests().join("cluster.json"), &after.to_manifest())?,
            Some(server) => put(server.store(), self.submitted.as_ref(), &after)?,
        }
        self.submitted = Some(after);
        Ok(marker)
    }

    /// Waits until the update with this marker is in force in both families.
    pub fn wait_for(&mut self, marker: &Marker) -> anyhow::Result<()> {
        let deadline = Instant::now() + UPDATE_TIMEOUT;
        while !marker.answers(self.cluster.host("pod-1-b")) {
            self.process.as_mut().context("the program does not run")?.check()?;
            if Instant::now() > deadline {
                bail!("the update is not in force after {UPDATE_TIMEOUT:?}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Proxy for Program<'_> {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn start(&mut self, objects: &Objects) -> anyhow::Result<()> {
        let marker = self.submit(objects)?;
        self.launch()?;
        self.wait_for(&marker)
    }

    fn update(&mut self, objects: &Objects) -> anyhow::Result<()> {
        self.resubmit(objects)?;
        std::thread::sleep(MARKER_DELAY);
        let marker = self.submit(objects)?;
        self.wait_for(&marker)
    }
}

fn mode_of(word: &str) -> anyhow::Result<Mode> {
    let modes = [Mode::Nftables, Mode::Iptables, Mode::Ipvs, Mode::Ebpf];
    modes.into_iter().find(|mode| mode.as_str() == word).with_context(|| format!("there is no mode {word}"))
}

/// A Service that answers once the update that it is part of is in force.
#[derive(Debug)]
pub struct Marker {
    service: Service,
}

impl Marker {
    fn new(number: u8) -> Self {
        let ips = [format!("10.96.255.{number}"), format!("fd00:96::ff{number:02x}")];
        // The name sorts last, so that the Service comes last in a list.
        let name = format!("zz-marker-{number}");
        Self { service: Service::plain(&name, &[&ips[0], &ips[1]], Protocol::Udp, 1, &["pod-1-a"]) }
    }

    /// Whether the marker answers in both families.
    pub fn answers(&self, from: &Host) -> bool {
        let probe =
            |ip: &IpAddr| Probe { timeout: Duration::from_millis(100), ..Probe::new(Protocol::Udp, (*ip, 1).into()) };
        from.run(|| self.service.cluster_ips.iter().all(|ip| probe(ip).send().backend().is_some()))
    }
}

/// Removes the folders that killed processes have left.
fn sweep() -> io::Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            // Another process may remove it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Writes a file so that a reader sees either the old or the new one.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}

/// Makes the changes from `before` to `after` in the API server. Within a kind the marker comes last.
fn put(store: &Store, before: Option<&Objects>, after: &Objects) -> anyhow::Result<()> {
    let old = before.map(Objects::to_json).unwrap_or_default();
    for (name, service) in before.iter().flat_map(|before| &before.services) {
        let kept = after.services.get(name).map(Service::slices).unwrap_or_default();
        for slice in service.slices().iter().filter(|slice| kept.iter().all(|new| new.name != slice.name)) {
            store.delete(Resource::EndpointSlice, NAMESPACE, &slice.name)?;
        }
        if !after.services.contains_key(name) {
            store.delete(Resource::Service, NAMESPACE, name)?;
        }
    }
    for object in after.to_json().into_iter().filter(|object| !old.contains(object)) {
        store.put(object)?;
    }
    Ok(())
}

/// The path of the program: `PORTWAY_BIN`, or the binary that cargo built beside this executable.
pub fn program_path() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("PORTWAY_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot find the path of this executable")?;
    let paths = own.ancestors().skip(1).take(2).map(|folder| folder.join("portway"));
    paths
        .into_iter()
        .find(|path| path.is_file())
        .context("portway is not built; run `cargo build -p portway`, or set PORTWAY_BIN to its path")
}
