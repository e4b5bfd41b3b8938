//! Restores that fail: before a table, in the middle, and for one Service only. Each loses nothing, leaves no packet worse
//! off than before, and recovers without help.
//!
//! The tools are the real ones behind a script that can fail on purpose: spoil a table, die, or refuse input.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use portway_dataplane::Dataplane;
use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{Config, Iptables};
use portway_model::testing::{cluster_with, service, slice};
use portway_model::{Affinity, Cluster, Event, ServiceName};
use tempfile::TempDir;

use crate::cluster::{config, every_kind};
use crate::kernel::{FLAVOURS, each_flavour, open, restore, run, save, synced, web};
use crate::namespace::in_namespace;

/// The watched Service's address; [`web`] sets its endpoints, of which [`SERVED`] answers.
const ADDRESS: &str = "172.30.0.44:80";
const SERVED: &str = "10.180.0.4";

/// A folder of tools that fail on purpose, as [`Tools::fail`] sets.
struct Tools {
    folder: TempDir,
    flavour: Flavour,
}

impl Tools {
    fn new(flavour: Flavour) -> Self {
        let folder = TempDir::with_prefix("portway-iptables-").expect("a folder");
        let real = |name: &str| {
            let path = run("sh", &["-c", &format!("command -v {name}")], "");
            path.trim().to_owned()
        };
        for base in ["iptables", "ip6tables"] {
            let name = format!("{base}-{}", flavour.as_str());
            for tool in [name.clone(), format!("{name}-save")] {
                symlink(real(&tool), folder.path().join(&tool)).expect("a link");
            }
            let script = include_str!("faulty-restore.sh")
                .replace("@REAL@", &real(&format!("{name}-restore")))
                .replace("@FAULT@", &folder.path().join("fault").display().to_string());
            let path = folder.path().join(format!("{name}-restore"));
            fs::write(&path, script).expect("the script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its rights");
        }
        let tools = Self { folder, flavour };
        tools.fail("");
        tools
    }

    /// Makes restores fail from now on, as `faulty-restore.sh` describes; an empty text lets them succeed.
    fn fail(&self, how: &str) {
        fs::write(self.folder.path().join("fault"), how).expect("the fault");
    }

    /// Holds the lock of the legacy tools.
    fn lock(&self) -> File {
        let path = self.folder.path().join("fault.lock");
        let lock = File::options().create(true).append(true).open(path).expect("the lock");
        lock.lock().expect("nobody holds it for ever");
        lock
    }

    fn open(&self) -> Iptables {
        let tools = Some(self.folder.path().to_owned());
        let config = Config { tree_above: Some(4), flavour: Some(self.flavour), tools, ..Config::default() };
        Iptables::open(&config).expect("the tools are there")
    }
}

/// Sets up a namespace in which all pods' addresses are local and [`SERVED`] answers.
fn listen() -> TcpListener {
    // The way to Services needs another device than lo, from which the kernel sends no refusal.
    let script = "link set lo up\nroute add local 10.180.0.0/16 dev lo\nlink add v0 type veth peer name v1\n\
                  link set v0 up\nlink set v1 up\nroute add default dev v0 src 10.180.1.1\n";
    run("ip", &["-batch", "-"], script);
    let listener = TcpListener::bind(format!("{SERVED}:80")).expect("a server");
    let accepting = listener.try_clone().expect("another handle");
    std::thread::spawn(move || accepting.incoming().for_each(drop));
    listener
}

/// What a new client of the watched Service gets. A refusal that arrives while the socket still sends counts only when the
/// second SYN is refused, a second later.
fn probe() -> &'static str {
    let address: SocketAddr = ADDRESS.parse().expect("an address");
    match TcpStream::connect_timeout(&address, Duration::from_millis(2500)) {
        Ok(_) => "served",
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => "refused",
        Err(_) => "lost",
    }
}

fn assert_recovered(dataplane: &mut Iptables, cluster: &Cluster) {
    let report = dataplane.sync(cluster.plan());
    assert!(!report.failed() && !dataplane.needs_sync(), "{report:?}");
    assert_eq!(dataplane.audit().into_drift().expect("the tables can be read"), []);
}

/// Endpoints come and go while one table's section cannot be written, or the tool dies after some tables. New connections
/// get what they got before or what they should get, and the next sync corrects the rest.
#[test]
fn ipt_10_whichever_table_fails_no_packet_is_worse_off_than_before() {
    for fault in ["spoil filter", "spoil nat", "die after 0", "die after 1", "die after 2", "die after 3"] {
        each_flavour(move |flavour| {
            let _server = listen();
            let tools = Tools::new(flavour);
            let mut cluster = cluster_with(config(), every_kind());
            cluster.ingest(web(&[SERVED]));
            cluster.drain();
            let mut dataplane = tools.open();
            assert_recovered(&mut dataplane, &cluster);
            assert_eq!(probe(), "served");
            for (endpoints, before, after) in [
                (&[][..], "served", "refused"),
                (&[SERVED], "refused", "served"),
                (&[SERVED, SERVED], "served", "served"),
            ] {
                cluster.ingest(web(endpoints));
                tools.fail(fault);
                let report = dataplane.apply(&cluster.drain().0);
                let failures: usize = report.families.iter().map(|family| family.failures).sum();
                assert!(failures > 0 || endpoints.len() == 2, "{fault}: {report:?}");
                let now = probe();
                assert!([before, after].contains(&now), "{flavour:?}, {fault}, {before} to {after}: {now}");
                tools.fail("");
                assert_recovered(&mut dataplane, &cluster);
                assert_eq!(probe(), after, "{flavour:?}, {fault}");
            }
        });
    }
}

/// Only the legacy tools have a lock.
#[test]
fn ipt_8_a_lock_held_too_long_loses_nothing() {
    in_namespace(|| {
        let mut cluster = cluster_with(config(), every_kind());
        let tools = Tools::new(Flavour::Legacy);
        let mut dataplane = tools.open();
        assert_recovered(&mut dataplane, &cluster);
        let before = save(Flavour::Legacy);
        let lock = tools.lock();
        cluster.ingest(web(&["10.180.0.77"]));
        let change = cluster.drain().0;
        let began = Instant::now();
        let report = dataplane.apply(&change);
        let waited = began.elapsed();
        assert!(report.failed() && dataplane.needs_sync(), "{report:?}");
        assert!(report.families[0].error.as_ref().expect("it failed").to_string().contains("lock"), "{report:?}");
        assert!(report.families[0].failures >= 1 && report.families[0].refused.is_empty(), "{report:?}");
        assert!(waited >= Duration::from_secs(4), "it waited for {waited:?}");
        assert_eq!(save(Flavour::Legacy), before);
        drop(lock);
        assert_recovered(&mut dataplane, &cluster);
        assert!(save(Flavour::Legacy).contains("10.180.0.77:80"));
    });
}

/// A lock that is released in time only delays the restore.
#[test]
fn ipt_8_a_restore_waits_for_a_lock_held_briefly() {
    in_namespace(|| {
        let mut cluster = cluster_with(config(), every_kind());
        let tools = Tools::new(Flavour::Legacy);
        let mut dataplane = tools.open();
        assert_recovered(&mut dataplane, &cluster);
        let lock = tools.lock();
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            drop(lock);
        });
        cluster.ingest(web(&["10.180.0.77"]));
        let report = dataplane.apply(&cluster.drain().0);
        holder.join().expect("it only sleeps");
        assert!(!report.failed() && report.families[0].failures == 0, "{report:?}");
    });
}

/// The legacy kernel refuses a whole table and names no rule; bisection finds the one Service.
#[test]
fn ipt_10_bisection_finds_the_service_that_the_kernel_refuses() {
    each_flavour(|flavour| {
        let tools = Tools::new(flavour);
        let mut cluster = cluster_with(config(), every_kind());
        let mut dataplane = tools.open();
        tools.fail("refuse 10.180.9.9:80");
        cluster.ingest(service("ns1/bad").cluster_ip("172.30.0.99").port("", 80).event());
        cluster.ingest(slice("ns1/bad-a", "bad").port("", 80).endpoint("10.180.9.9").event());
        cluster.drain();
        let report = dataplane.sync(cluster.plan());
        assert!(!report.failed(), "{report:?}");
        let refused: Vec<String> = report.refused().map(|refused| refused.service.to_string()).collect();
        assert_eq!(refused, ["ns1/bad"], "{report:?}");
        let text = save(flavour);
        assert!(text.contains("10.180.0.7:80") && !text.contains("172.30.0.99"), "{text}");
        // A Service that was good keeps what it had, also when everything is tried again.
        tools.fail("refuse 10.180.0.77:80");
        cluster.ingest(web(&["10.180.0.77"]));
        assert!(!dataplane.apply(&cluster.drain().0).failed());
        let report = dataplane.sync(cluster.plan());
        let refused: Vec<String> = report.refused().map(|refused| refused.service.to_string()).collect();
        assert_eq!(refused, ["ns4/svc4"], "{report:?}");
        assert!(save(flavour).contains("10.180.0.4:80"), "the old endpoints stay");
        tools.fail("");
        assert_recovered(&mut dataplane, &cluster);
        assert!(save(flavour).contains("10.180.0.77:80"));
    });
}

/// The kernel refuses an affinity time-out of zero.
#[test]
fn ipt_10_a_refused_service_holds_up_nothing_but_itself() {
    each_flavour(|flavour| {
        let mut cluster = cluster_with(config(), every_kind());
        let mut dataplane = synced(flavour, &cluster);
        cluster.ingest(service("ns1/bad").cluster_ip("172.30.0.99").port("", 80).affinity(60).event());
        cluster.ingest(slice("ns1/bad-a", "bad").port("", 80).endpoint("10.180.9.9").event());
        cluster.ingest(web(&["10.180.0.77"]));
        let mut change = cluster.drain().0;
        for service in change.services.iter_mut().filter(|service| &*service.name.name == "bad") {
            let mut plan = (**service.after.as_ref().expect("it comes")).clone();
            plan.ports.iter_mut().for_each(|port| port.affinity = Some(Affinity { timeout_seconds: 0 }));
            service.after = Some(plan.into());
        }
        let report = dataplane.apply(&change);
        assert!(!report.failed(), "{report:?}");
        let refused: Vec<String> = report.refused().map(|refused| refused.service.to_string()).collect();
        assert_eq!(refused, ["ns1/bad"], "{report:?}");
        let text = save(flavour);
        assert!(text.contains("10.180.0.77:80") && !text.contains("172.30.0.99"));
        // It is not forgotten: gone from the cluster, nothing is left to do.
        cluster.ingest(Event::ServiceGone(ServiceName::new("ns1", "bad")));
        dataplane.apply(&cluster.drain().0);
        assert_eq!(dataplane.audit().into_drift().expect("the tables can be read"), []);
    });
}

/// The kernel deletes no chain that another program's rule leads to. That must delay nothing else.
#[test]
fn ipt_11_a_stale_chain_that_others_use_is_emptied_and_deleted_later() {
    each_flavour(|flavour| {
        let mut cluster = cluster_with(config(), every_kind());
        let mut dataplane = synced(flavour, &cluster);
        let chain = "KUBE-SEP-UKSFD7AGPMPPLUHC";
        restore(flavour, &format!("*nat\n:OTHER - [0:0]\n-A OTHER -j {chain}\nCOMMIT\n"));
        cluster.ingest(web(&["10.180.0.5"]));
        let report = dataplane.apply(&cluster.drain().0);
        assert!(!report.failed(), "{report:?}");
        assert_eq!(dataplane.audit().into_drift().expect("the tables can be read"), []);
        let text = save(flavour);
        assert!(text.contains(&format!(":{chain} ")) && !text.contains(&format!("-A {chain} ")), "{text}");
        restore(flavour, "*nat\n-F OTHER\n-X OTHER\nCOMMIT\n");
        assert_recovered(&mut dataplane, &cluster);
        assert!(!save(flavour).contains(chain));
    });
}

/// Another program flushes the tables between two writes: the change fails, and the same call recovers.
#[test]
fn ipt_10_a_failed_restore_is_followed_by_a_full_reconcile() {
    for flavour in FLAVOURS {
        in_namespace(move || {
            let mut cluster = cluster_with(config(), every_kind());
            let mut dataplane = open(flavour, Some(4));
            assert!(!dataplane.sync(cluster.plan()).failed());
            // Everything is taken away, KUBE-MARK-MASQ too, to which a new endpoint's chain leads.
            let flush = "*nat\n-F\n-X\nCOMMIT\n*filter\n-F\n-X\nCOMMIT\n*mangle\n-F\n-X\nCOMMIT\n";
            restore(flavour, flush);
            cluster.ingest(web(&["10.180.0.5"]));
            let report = dataplane.apply(&cluster.drain().0);
            assert!(!report.failed() && report.families[0].failures == 1, "{report:?}");
            assert_eq!(dataplane.audit().into_drift().expect("the tables can be read"), []);
        });
    }
}

#[test]
fn an_error_names_the_missing_tools() {
    let folder = TempDir::with_prefix("portway-iptables-").expect("a folder");
    let tools: Option<&Path> = Some(folder.path());
    let config = Config { flavour: Some(Flavour::Nft), tools: tools.map(Into::into), ..Config::default() };
    let error = Iptables::open(&config).err().expect("nothing is there").to_string();
    assert!(error.contains("iptables-nft"), "{error}");
}
