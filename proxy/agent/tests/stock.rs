//! Stock configurations of installers start portway unchanged: under the name kube-proxy, with the files at the places where
//! their DaemonSets have them, against an API server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use portway_apiserver::{ApiServer, Resource, Store};
use portway_testbed::cluster::Namespace;
use portway_testbed::objects::{self, ToJson as _};
use rustix::process::{Pid, Signal, kill_process};

/// Puts the files of a node in place, in a mount namespace of its own, and becomes kube-proxy.
const SCRIPT: &str = r#"set -e
mount -t tmpfs tmpfs /var/lib
mkdir -p "$(dirname "$KUBECONFIG_PATH")" /var/lib/kube-proxy
cp "$KUBECONFIG_FILE" "$KUBECONFIG_PATH"
if [ -e "$CONFIG" ]; then cp "$CONFIG" /var/lib/kube-proxy/config.conf; fi
exec "$LINK" "$@""#;

/// A kube-proxy that runs.
struct KubeProxy {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl KubeProxy {
    /// Reads the log up to the line with this text, and returns what was read.
    fn log_until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.lines().last().is_some_and(|line| line.contains(text)) {
            let more = self.log.read_line(&mut read).unwrap();
            assert!(more > 0, "{text:?} is not in the log:\n{read}");
        }
        read
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn stock(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(stock(name)).unwrap()
}

/// An API server at the loopback address of a network namespace, with one Service.
fn server(namespace: &Namespace) -> ApiServer {
    let path = namespace.path();
    let store = Store::new();
    let web = objects::service("web").of_type("ClusterIP").cluster_ip("10.96.0.77").port("", 80);
    store.put(web.to_json()).unwrap();
    store.put(objects::node("node-1").internal_ip("192.0.2.1").build().to_json()).unwrap();
    // A socket stays in the namespace in which it was made.
    let listener = std::thread::spawn(move || {
        let fd = std::fs::File::open(path).unwrap();
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(fd.as_fd(), network).unwrap();
        std::net::TcpListener::bind("127.0.0.1:0").unwrap()
    });
    ApiServer::spawn(store, listener.join().unwrap()).unwrap()
}

/// Starts portway as an installer starts kube-proxy, until its first sync. Returns its log so far and the rules.
fn started(name: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("kube-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portway"), &link).unwrap();
    let namespace = Namespace::new("stock").unwrap();
    namespace.output("ip", &["link", "set", "lo", "up"], "").unwrap();
    let server = server(&namespace);
    let kubeconfig = folder.path().join("kubeconfig");
    let content = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: default\nclusters: [{{name: default, cluster: {{server: \"{}\"}}}}]\n\
         contexts: [{{name: default, context: {{cluster: default, user: default}}}}]\nusers: [{{name: default, user: {{}}}}]\n",
        server.url()
    );
    std::fs::write(&kubeconfig, content).unwrap();
    let mut child = Command::new("nsenter")
        .arg(format!("--net={}", namespace.path().display()))
        .args(["unshare", "--mount", "sh", "-c", SCRIPT, "sh"])
        .args(text(&format!("{name}.args")).lines())
        .env("KUBECONFIG_PATH", text(&format!("{name}.kubeconfig")).trim())
        .env("KUBECONFIG_FILE", &kubeconfig)
        .env("CONFIG", stock(&format!("{name}.conf")))
        .env("LINK", &link)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut kube_proxy = KubeProxy { child, log };
    let log = kube_proxy.log_until("first sync done");
    assert!(server.store().watchers(Resource::Service) > 0);
    let nft = namespace.output("nft", &["list", "ruleset"], "").unwrap();
    let iptables = namespace.output("iptables-save", &[], "").unwrap();
    (log, format!("{nft}{iptables}"))
}

#[test]
fn cfg_1_cfg_16_kubeadms_files_start_portway_unchanged() {
    let (log, rules) = started("kubeadm");
    assert!(log.contains("mode=nftables") && log.contains("kube-proxy 1.36 would use iptables"), "{log}");
    assert!(!log.contains("not a field") && !log.contains("overrides"), "{log}");
    assert!(rules.contains("10.96.0.77") && rules.contains("table ip portway"), "{log}");
}

#[test]
fn cfg_1_kinds_files_start_portway_unchanged() {
    let (log, rules) = started("kind");
    assert!(log.contains("mode=iptables") && log.contains("min_sync_period=1s"), "{log}");
    assert!(rules.contains("10.96.0.77") && rules.contains("KUBE-SERVICES"), "{log}");
}

#[test]
fn cfg_1_minikubes_files_start_portway_unchanged() {
    let (log, rules) = started("minikube");
    assert!(log.contains("mode=nftables") && log.contains("metrics=\"0.0.0.0:10249\""), "{log}");
    assert!(rules.contains("10.96.0.77"), "{log}");
}

#[test]
fn cfg_4_k3ss_arguments_start_portway_unchanged() {
    let (log, rules) = started("k3s");
    assert!(log.contains("mode=iptables") && log.contains("node=\"node-1\""), "{log}");
    assert!(rules.contains("10.96.0.77") && rules.contains("KUBE-SERVICES"), "{log}");
}
