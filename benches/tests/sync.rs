//! `portway-bench sync` finds what is put in: a delay, events that are lost, connections that fail; and it leaves nothing
//! behind when a person ends it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portway_testbed::proxy::program_path;
use portway_trace::{Header, Writer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One at a time: each measures time.
static ALONE: Mutex<()> = Mutex::new(());

/// A place for a run, where this machine allows one.
struct Place {
    folder: TempDir,
    portway: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// What a run ended with.
struct Run {
    status: Option<i32>,
    said: String,
    cells: Vec<Value>,
}

fn place() -> Option<Place> {
    if let Some(missing) = portway_testbed::missing() {
        println!("skipped: needs {missing}");
        return None;
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let portway = program_path().expect("the program is built");
    Some(Place { folder: tempfile::tempdir().expect("a folder"), portway, _alone: alone })
}

impl Place {
    fn results(&self) -> PathBuf {
        self.folder.path().join("results.jsonl")
    }

    /// Portway as a peer of this name.
    fn peer(&self, name: &str) -> String {
        format!(
            "--proxy={name}={} run --kubeconfig={{kubeconfig}} --hostname-override={{node}} --mode=nftables \
             --cluster-cidr={{cluster-cidr}} --min-sync-period={{min-sync-period}}",
            self.portway.display()
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portway-bench"));
        command.args(["sync", "--no-plots", "--mode=nftables", "--setting=minimum", "--portway"]).arg(&self.portway);
        command.arg("--out").arg(self.results()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.ended(self.command(arguments).output().expect("it runs"))
    }

    fn ended(&self, output: Output) -> Run {
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let text = std::fs::read_to_string(self.results()).unwrap_or_else(|error| panic!("{error}: {said}"));
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let cells = lines.filter(|line| line["line"] == "cell").collect();
        Run { status: output.status.code(), said, cells }
    }
}

impl Run {
    fn cell(&self, measurement: &str, proxy: &str) -> &Value {
        let is_it = |cell: &&Value| cell["measurement"] == measurement && cell["proxy"] == proxy;
        self.cells.iter().find(is_it).unwrap_or_else(|| panic!("no {measurement} of {proxy}: {}", self.said))
    }

    fn samples(&self, measurement: &str, proxy: &str) -> Vec<f64> {
        let samples = self.cell(measurement, proxy)["samples"].as_array().expect("samples");
        let mut samples: Vec<f64> = samples.iter().map(|sample| sample.as_f64().expect("a number")).collect();
        samples.sort_by(f64::total_cmp);
        samples
    }

    fn median(&self, measurement: &str, proxy: &str) -> f64 {
        let samples = self.samples(measurement, proxy);
        samples[samples.len() / 2]
    }

    fn failures(&self, measurement: &str, proxy: &str) -> Vec<String> {
        let failures = self.cell(measurement, proxy)["failures"].as_array().cloned().unwrap_or_default();
        failures.iter().map(|failure| failure.as_str().expect("a sentence").to_owned()).collect()
    }
}

const SIZE: &str = "--sizes=60x4";

#[test]
fn a_delay_shows_as_what_it_is() {
    const DELAY: f64 = 50.0;
    let Some(place) = place() else { return };
    let arguments = [
        &place.peer("slow"),
        "--fault=slow=hold:50",
        SIZE,
        "--events=12",
        "--measure=replace-idle,replace-churn,services",
    ];
    let run = place.run(&arguments);
    assert_eq!(run.status, Some(0), "{}", run.said);
    for measurement in ["replace-idle", "replace-churn", "service-add", "service-remove"] {
        let (plain, slow) = (run.median(measurement, "portway-nftables"), run.median(measurement, "slow"));
        println!("{measurement}: {plain:.2} ms, held back by {DELAY} ms: {slow:.2} ms");
        // Half of it would be a reading in another unit; a tenth is what a busy machine adds.
        assert!((slow - plain - DELAY).abs() < 12.0, "{measurement}: {plain} ms, slowed {slow} ms");
        // Not one event can have been faster than the delay that it met.
        assert!(
            run.samples(measurement, "slow")[0] >= DELAY - 1.0,
            "{measurement}: {:?}",
            run.samples(measurement, "slow")
        );
    }
}

#[test]
fn events_that_are_lost_are_failures_and_no_samples() {
    let Some(place) = place() else { return };
    let fault = "--fault=portway-nftables=drop:10";
    let run = place.run(&[fault, SIZE, "--events=25", "--limit=0.5", "--measure=replace-idle"]);
    assert_eq!(run.status, Some(1), "{}", run.said);
    let failures = run.failures("replace-idle", "portway-nftables");
    let numbers: Vec<&str> = failures.iter().filter_map(|text| text.split(' ').nth(1)).collect();
    assert_eq!(numbers, ["11", "22"], "{failures:?}");
    assert!(failures[0].contains("was not followed within 500ms"), "{failures:?}");
    assert_eq!(run.samples("replace-idle", "portway-nftables").len(), 23);
    // A lost event is no misdirected connection: the pods of before go on answering.
    assert_eq!(run.samples("misdirected", "portway-nftables"), [0.0]);
}

#[test]
fn connections_that_fail_are_counted_with_their_sentences() {
    let Some(place) = place() else { return };
    // Rules are gone for a moment, in the middle of what is measured.
    let saboteur = format!(
        "--proxy=saboteur=sh -c '(sleep 4; nft delete table ip portway) & exec {} run --kubeconfig={{kubeconfig}} \
         --hostname-override={{node}} --mode=nftables --cluster-cidr={{cluster-cidr}} \"$@\"' sh \
         --min-sync-period={{min-sync-period}}",
        place.portway.display()
    );
    let run = place.run(&[&saboteur, SIZE, "--events=30", "--measure=replace-idle"]);
    assert_eq!(run.status, Some(1), "{}", run.said);
    assert_eq!(run.samples("misdirected", "portway-nftables"), [0.0], "{}", run.said);
    assert!(run.samples("misdirected", "saboteur")[0] >= 1.0, "{}", run.said);
    let failures = run.failures("misdirected", "saboteur");
    let is_said = |text: &String| text.starts_with("replace-idle, ") && text.contains("a connection was not answered");
    assert!(failures.iter().any(is_said), "{failures:?}");
}

#[test]
fn a_proxy_that_cannot_run_is_named_with_what_it_said() {
    let Some(place) = place() else { return };
    let bad = "--proxy=bad=sh -c 'echo no such luck >&2; exit 3' {kubeconfig}";
    let run = place.run(&[bad, SIZE, "--events=3", "--measure=replace-idle"]);
    assert_eq!(run.status, Some(1), "{}", run.said);
    let failures = run.failures("start-complete", "bad");
    assert!(failures[0].contains("exit status: 3") && failures[0].contains("no such luck"), "{failures:?}");
    assert_eq!(run.samples("replace-idle", "portway-nftables").len(), 3, "the others are measured all the same");
}

#[test]
fn a_trace_is_replayed_beside_a_watched_service() {
    let Some(place) = place() else { return };
    let trace = place.folder.path().join("some.trace");
    write_trace(&trace).expect("a trace");
    let argument = format!("--trace={}", trace.display());
    let run = place.run(&[&argument, "--pace=10"]);
    assert_eq!(run.status, Some(0), "{}", run.said);
    // 300 events over 30 s, ten times as fast.
    let rate = run.samples("churn-rate", "portway-nftables")[0];
    assert!((80.0..105.0).contains(&rate), "{rate} events a second");
    let latencies = run.samples("replay-replace", "portway-nftables");
    assert!(latencies.len() >= 20, "{latencies:?}");
    let cell = run.cell("replay-replace", "portway-nftables");
    assert_eq!(cell["services"], 20);
}

/// A cluster of 20 Services whose endpoints change ten times a second for half a minute.
fn write_trace(path: &Path) -> std::io::Result<()> {
    let header = Header {
        format: portway_trace::FORMAT,
        started: 0,
        portway: "test".to_owned(),
        node: "some-node".to_owned(),
        masked: Vec::new(),
    };
    let mut writer = Writer::new(std::fs::File::create(path)?, false, &header)?;
    let slice = |service: usize, endpoint: usize| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("s{service}-x"), "namespace": "some",
                "labels": { "kubernetes.io/service-name": format!("s{service}") }
            },
            "addressType": "IPv4", "ports": [{ "name": "", "protocol": "TCP", "port": 80 }],
            "endpoints": [{ "addresses": [format!("10.9.{service}.{endpoint}")], "conditions": { "ready": true } }]
        })
    };
    for service in 0..20 {
        let ip = format!("10.97.0.{service}");
        writer.object(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("s{service}"), "namespace": "some" },
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
                "ports": [{ "protocol": "TCP", "port": 80 }]
            }
        }))?;
        writer.object(&slice(service, 1))?;
    }
    for event in 0..300 {
        writer.put(Duration::from_millis(100) * event, &slice(event as usize % 20, 2 + event as usize / 20))?;
    }
    writer.finish(Duration::from_secs(30)).map(drop)
}

#[test]
fn what_a_person_ends_keeps_what_was_measured_and_leaves_nothing_behind() {
    let Some(place) = place() else { return };
    let mut child = place.command(&[SIZE, "--events=1000", "--measure=replace-idle"]).spawn().expect("it runs");
    let begin = Instant::now();
    let has_started = || std::fs::read_to_string(place.results()).is_ok_and(|text| text.contains("memory-peak"));
    while !has_started() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not come to its first figures");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    let proxies = children(&child);
    assert!(!proxies.is_empty(), "no proxy runs");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("a signal");
    let asked = Instant::now();
    while child.try_wait().expect("a status").is_none() {
        assert!(asked.elapsed() < Duration::from_secs(10), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let number = child.id();
    let run = place.ended(child.wait_with_output().expect("its output"));
    assert_eq!(run.status, Some(130), "{}", run.said);
    let events = run.samples("replace-idle", "portway-nftables").len();
    assert!((1..1000).contains(&events), "{events} events");
    for proxy in proxies {
        assert!(!Path::new(&format!("/proc/{proxy}")).exists(), "process {proxy} is left");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
        let folder = mount.split(' ').nth(4).expect("a mount point");
        let left = std::fs::read_dir(folder).expect("control groups").flatten();
        let prefix = format!("portway-testbed-{number}-");
        let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The processes that a process has started.
fn children(parent: &Child) -> Vec<u32> {
    let wanted = format!("PPid:\t{}\n", parent.id());
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| std::fs::read_to_string(format!("/proc/{id}/status")).is_ok_and(|text| text.contains(&wanted)))
        .collect()
}
