//! `portway run` from start to end, in a network namespace of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::project;

/// Starts the program in the background, says its process id, waits for it, says its status, and cleans up.
const SCRIPT: &str = r#""$PORTWAY" run "$@" & echo $!; wait $!; echo status $?; exec "$PORTWAY" cleanup"#;

/// A program that runs. Its namespace goes when it is dropped.
struct Running {
    shell: Child,
    pid: Pid,
    out: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut shell = Command::new("unshare")
            .args(["--net", "sh", "-c", SCRIPT, "sh", "--metrics-bind-address="])
            .args(arguments)
            .env("PORTWAY", env!("CARGO_BIN_EXE_portway"))
            .env_remove("NODE_NAME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut out = BufReader::new(shell.stdout.take().expect("its output is piped"));
        let log = BufReader::new(shell.stderr.take().expect("its log is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("the script writes text");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).expect("the script says the process id");
        Self { shell, pid, out, log }
    }

    /// Reads the log up to the line with this text, and returns what was read.
    fn log_until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.lines().last().is_some_and(|line| line.contains(text)) {
            let more = self.log.read_line(&mut read).expect("the log is text");
            assert!(more > 0, "{text:?} is not in the log:\n{read}");
        }
        read
    }

    fn send(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the program runs");
    }

    /// Waits for the end: what the script wrote, and the rest of the log.
    fn end(mut self) -> (String, String) {
        let (mut out, mut log) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("the script writes text");
        self.log.read_to_string(&mut log).expect("the log is text");
        self.shell.wait().expect("the script ends");
        (out, log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.shell.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = self.shell.wait();
        }
    }
}

fn copy_of_the_demo() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for entry in std::fs::read_dir(project("examples/demo")).expect("the examples are there") {
        let entry = entry.expect("the examples can be listed");
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("an example can be copied");
    }
    folder
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_signal_ends_it_with_success_and_the_rules_stay_in_the_kernel() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start(&["--manifests", &project("examples/demo"), "--hostname-override=node-1"]);
        let log = running.log_until("first sync done");
        assert!(log.contains("portway starts"), "{log}");
        running.send(signal);
        let (out, log) = running.end();
        assert_eq!(out, "status 0\nremoved table ip portway\nremoved table ip6 portway\n", "{log}");
        assert!(log.contains("ending; the rules stay in the kernel"), "{log}");
    }
}

#[test]
fn cfg_12_changed_pod_cidrs_end_it_with_status_1_and_the_rules_stay_in_the_kernel() {
    let folder = copy_of_the_demo();
    let arguments = ["--manifests", &text(folder.path()), "--hostname-override=node-1", "--detect-local-mode=NodeCIDR"];
    let mut running = Running::start(&arguments);
    running.log_until("first sync done");
    let node = folder.path().join("node.yaml");
    let changed = std::fs::read_to_string(&node).unwrap().replace("10.1.1.0/24", "10.1.7.0/24");
    std::fs::write(&node, changed).unwrap();
    let (out, log) = running.end();
    assert_eq!(out, "status 1\nremoved table ip portway\nremoved table ip6 portway\n", "{log}");
    assert!(log.contains("portway: spec.podCIDRs of Node node-1 changed from 10.1.1.0/24"), "{log}");
}

#[test]
fn cfg_20_a_json_log_is_json_with_mode_and_generation() {
    let arguments =
        ["--manifests", &project("examples/demo"), "--hostname-override=node-1", "--logging-format=json", "-v2"];
    let mut running = Running::start(&arguments);
    let log = running.log_until("first sync done");
    running.send(Signal::TERM);
    running.end();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let written = lines.iter().find(|line| line["message"] == "rules written").unwrap();
    assert_eq!(written["span"]["mode"], "nftables", "{written}");
    assert_eq!(written["span"]["generation"], 1, "{written}");
    assert_eq!(written["family"], "IPv4", "{written}");
    assert!(written["objects"].as_u64().unwrap() > 0, "{written}");
}

/// Runs the program with these arguments in the network namespace of a process.
fn portway_beside(pid: Pid, arguments: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new("nsenter")
        .args(["--net", &format!("--target={}", pid.as_raw_nonzero()), env!("CARGO_BIN_EXE_portway")])
        .args(arguments)
        .env_remove("NODE_NAME")
        .output()
        .expect("nsenter is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn own_13_a_second_one_on_a_node_names_the_first_and_ends() {
    let demo = project("examples/demo");
    let arguments = ["--manifests", &demo, "--hostname-override=node-1"];
    let mut first = Running::start(&arguments);
    first.log_until("first sync done");
    let pid = first.pid.as_raw_nonzero();
    for mode in ["nftables", "iptables"] {
        let second = [&["run", "--metrics-bind-address=", "--mode", mode], &arguments[..]].concat();
        let (status, _, log) = portway_beside(first.pid, &second);
        assert_eq!(status, Some(1), "{log}");
        let sentence = format!("portway: another portway already serves this network namespace: process {pid} (");
        assert!(log.contains(&sentence) && log.ends_with(") in nftables mode; end it before starting one\n"), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
    // It would write again what a clean-up removes, but not what another mode has left.
    for arguments in [&["cleanup"][..], &["cleanup", "--mode", "nftables"]] {
        let (status, out, error) = portway_beside(first.pid, arguments);
        assert_eq!((status, out.as_str()), (Some(1), ""), "{error}");
        assert!(error.starts_with("portway: nothing was removed, because portway runs here"), "{error}");
        assert!(error.contains(&format!(": process {pid} (")), "{error}");
    }
    let (status, out, error) = portway_beside(first.pid, &["cleanup", "--mode", "iptables"]);
    assert_eq!((status, out.as_str()), (Some(0), "there was nothing to remove\n"), "{error}");
    first.send(Signal::TERM);
    let (out, log) = first.end();
    assert_eq!(out, "status 0\nremoved table ip portway\nremoved table ip6 portway\n", "{log}");
}

#[test]
fn own_13_agents_of_two_network_namespaces_do_not_meet_and_a_killed_one_leaves_no_lock() {
    let demo = project("examples/demo");
    let arguments = ["--manifests", &demo, "--hostname-override=node-1"];
    let (mut one, mut other) = (Running::start(&arguments), Running::start(&arguments));
    one.log_until("first sync done");
    other.log_until("first sync done");
    one.send(Signal::KILL);
    let (out, log) = one.end();
    assert_eq!(out, "status 137\nremoved table ip portway\nremoved table ip6 portway\n", "{log}");
    other.send(Signal::TERM);
    other.end();
}

#[test]
fn without_cap_net_admin_it_fails_with_one_sentence() {
    for arguments in [&["run", "--manifests", "/tmp"][..], &["cleanup"]] {
        let done = Command::new("setpriv")
            .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", env!("CARGO_BIN_EXE_portway")])
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(
            error,
            "portway: writing the kernel's tables needs the capability CAP_NET_ADMIN: run as root, or in a pod with \
             securityContext.capabilities.add: [NET_ADMIN]\n"
        );
        assert_eq!(done.status.code(), Some(1));
    }
}

/// Runs the program in a network namespace of its own, under a limit that the shell's `ulimit` sets.
fn under(limit: &str, arguments: &[&str]) -> std::process::Output {
    let script = format!("ulimit {limit}; exec timeout -k 5 5 \"$PORTWAY\" \"$@\"");
    Command::new("unshare")
        .args(["--net", "sh", "-c", &script, "sh"])
        .args(arguments)
        .env("PORTWAY", env!("CARGO_BIN_EXE_portway"))
        .env_remove("NODE_NAME")
        .stdin(Stdio::null())
        .output()
        .expect("unshare is there")
}

#[test]
fn too_few_open_files_end_it_with_one_sentence() {
    let demo = project("examples/demo");
    let run = ["run", "--metrics-bind-address=", "--manifests", &demo, "--hostname-override=node-1"];
    let record = ["record", "--out=/dev/null", "--master=http://127.0.0.1:1"];
    for limit in [6, 12, 15, 16, 20, 40] {
        for arguments in [&run[..], &record[..]] {
            let output = under(&format!("-n {limit}"), arguments);
            let log = String::from_utf8_lossy(&output.stderr);
            let sentence = format!("this process may have {limit} open in all: raise the limit (ulimit -n");
            assert_eq!(output.status.code(), Some(1), "{log}");
            let last = log.lines().last().unwrap_or_default();
            assert!(last.starts_with("portway: cannot open 64 files and sockets") && last.contains(&sentence), "{log}");
            assert!(!log.contains("panicked"), "{log}");
        }
    }
    let output = under("-n 6", &["render", "-f", &demo, "--hostname-override=node-1"]);
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_limit_of_open_files_that_may_be_raised_is_raised() {
    let demo = project("examples/demo");
    let arguments = ["run", "--metrics-bind-address=", "--manifests", &demo, "--hostname-override=node-1"];
    // It goes on until `timeout` sends it a signal.
    let output = under("-Sn 12", &arguments);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("first sync done") && !log.contains("panicked"), "{log}");
}

#[test]
fn cfg_7_a_changed_configuration_file_ends_it_with_status_1_and_the_rules_stay_in_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let text = |bit: u8| {
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nhostnameOverride: node-1\n\
             nftables: {{masqueradeBit: {bit}}}\n---\napiVersion: portway.dev/v1alpha1\nkind: PortwayConfiguration\n\
             manifests: {}\ndisableMetrics: true\n",
            project("examples/demo")
        )
    };
    std::fs::write(&file, text(14)).unwrap();
    let mut running = Running::start(&["--config", &file.display().to_string()]);
    let log = running.log_until("first sync done");
    assert!(log.contains("--config overrides these flags: --metrics-bind-address"), "{log}");
    assert!(log.contains("no mode is named"), "{log}");
    std::fs::write(&file, "").unwrap();
    running.log_until("cannot be used; the earlier configuration stays in force");
    std::fs::write(&file, text(15)).unwrap();
    let (out, log) = running.end();
    assert_eq!(out, "status 1\nremoved table ip portway\nremoved table ip6 portway\n", "{log}");
    let sentence = format!(
        "portway: the configuration file {} has changed: ending, to be started again with it; the rules stay in the kernel",
        file.display()
    );
    assert!(log.lines().any(|line| line == sentence), "{log}");
}
