//! `portway render` of the example manifests: rules that nft and iptables-restore accept.

use std::process::Command;

use crate::program::{portway, portway_reading, project};

const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "demo"},
   "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"port": 80, "protocol": "TCP"}]}},
  {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
   "metadata": {"name": "web-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "web"}},
   "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
   "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "node-1"}, {"addresses": ["10.1.0.2"]}]}]}"#;

#[test]
fn manifests_on_standard_input_become_rules_on_standard_output() {
    let done = portway_reading(&["render", "--mode", "nftables", "--node", "node-1", "-f", "-"], SERVICE);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    for line in [
        "table ip portway {",
        "table ip6 portway {",
        "10.96.0.10 . tcp . 80 : goto c2",
        "10.96.0.10 . tcp . 80 . 0 : 10.1.0.1 . 8080",
        "10.96.0.10 . tcp . 80 . 1 : 10.1.0.2 . 8080",
        "10.1.0.1 . 10.1.0.1 . tcp . 8080",
        // Hairpin is decided by address, whatever node the endpoint names (OWN-10).
        "10.1.0.2 . 10.1.0.2 . tcp . 8080",
    ] {
        assert!(done.out.contains(line), "{line:?} is not in:\n{}", done.out);
    }
}

#[test]
fn the_only_node_is_this_node_unless_another_is_named() {
    let render = |args: &[&str]| portway(&[&["render", "-f", &project("examples/demo")], args].concat());
    let chosen = render(&[]);
    assert_eq!(chosen.status, 0, "{}", chosen.err);
    assert_eq!(chosen.out, render(&["--node", "node-1"]).out);
    assert_ne!(chosen.out, render(&["--node", "NODE-2"]).out);
    assert_eq!(render(&["--hostname-override", " NODE-1 "]).out, chosen.out);
}

#[test]
fn what_cannot_be_used_is_named_and_the_rest_is_rendered() {
    let broken = SERVICE.replace(r#""ports": [{"port": 80"#, r#""externalIPs": ["nowhere"], "ports": [{"port": 80"#);
    let done = portway_reading(&["render", "--node", "node-1", "-f", "-"], &broken);
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.starts_with("portway: warning: Service demo/web: spec.externalIPs[0]: "), "{}", done.err);
    assert_eq!(done.out, portway_reading(&["render", "--node", "node-1", "-f", "-"], SERVICE).out);
}

#[test]
fn flags_change_what_is_rendered() {
    let render = |args: &[&str]| {
        let done = portway(&[&["render", "-f", &project("examples/demo")], args].concat());
        assert_eq!(done.status, 0, "{args:?}: {}", done.err);
        done.out
    };
    let plain = render(&[]);
    for args in [
        &["--cluster-cidr", "10.1.0.0/16"][..],
        &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"],
        &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"],
        &["--detect-local-mode=NodeCIDR"],
        &["--masquerade-all"],
        &["--iptables-masquerade-bit=20"],
        &["--nodeport-addresses=all"],
        &["--nodeport-addresses=203.0.113.0/24"],
        &["--bind-address=192.0.2.77"],
    ] {
        assert_ne!(render(args), plain, "{args:?} changes nothing");
    }
    for args in [
        &["--masquerade-all=false"][..],
        &["--proxy-mode="],
        &["--nodeport-addresses=primary"],
        &["--bind-address=::"],
        &["--cluster-cidr="],
        &["--detect-local-mode=ClusterCIDR"],
    ] {
        assert_eq!(render(args), plain, "{args:?} changes something");
    }
}

/// Every example with its folder's Node: its name, and the arguments that render it.
fn examples() -> Vec<(String, Vec<String>)> {
    let mut examples = Vec::new();
    for folder in ["examples/services", "examples/demo"] {
        let node = project(&format!("{folder}/node.yaml"));
        for entry in std::fs::read_dir(project(folder)).expect("the examples are there") {
            let name = entry.expect("they can be listed").file_name().into_string().expect("names are text");
            let file = project(&format!("{folder}/{name}"));
            let mut args = vec!["-f".to_owned(), node.clone()];
            args.extend((file != node).then_some(file));
            examples.push((format!("{folder}/{name}"), args));
        }
    }
    assert!(examples.len() > 15, "{examples:?}");
    examples
}

/// The cluster IPs that a file names.
fn cluster_ips(text: &str) -> Vec<String> {
    let values = text.lines().filter_map(|line| line.trim().strip_prefix("clusterIP: "));
    values.filter(|value| *value != "None").map(|value| value.trim_matches('"').to_owned()).collect()
}

/// What the help says must work also on a node where portway runs.
#[test]
fn rendered_rules_are_accepted_where_the_same_tables_stand() {
    let rendered = portway_reading(&["render", "--node", "node-1", "-f", "-"], SERVICE);
    assert_eq!(rendered.status, 0, "{}", rendered.err);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("rules");
    std::fs::write(&file, &rendered.out).expect("it can be written");
    let script = "set -e; nft -f $0; nft add chain ip portway left-over; nft -c -f $0; nft -f $0; nft list table ip \
                  portway > $0.listed";
    let run =
        Command::new("unshare").args(["--net", "sh", "-c", script]).arg(&file).output().expect("unshare is there");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let listed = std::fs::read_to_string(file.with_extension("listed")).expect("it was listed");
    assert!(listed.contains("10.96.0.10 . tcp . 80") && !listed.contains("left-over"), "{listed}");
}

/// A folder with a good Service, a bad one, and a file that does not parse.
#[test]
fn own_12_render_names_what_is_bad_renders_the_rest_and_ends_with_status_1() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let service = |name: &str, ip: &str, port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}, ports: [{{port: {port}}}]}}\n"
        )
    };
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("it can be written");
    write("a.yaml", service("good", "10.96.0.1", "80") + "---\n" + &service("bad", "10.96.0.2", "0"));
    write("b.yaml", "kind: [\n".to_owned());
    write("c.yaml", service("last", "10.96.0.3", "80"));
    let root = folder.path().display().to_string();
    for mode in ["nftables", "iptables"] {
        let done = portway(&["render", "--mode", mode, "--node", "node-1", "-f", &root]);
        assert_eq!(done.status, 1, "{}", done.err);
        assert!(done.out.contains("10.96.0.1") && done.out.contains("10.96.0.3"), "{}", done.out);
        let errors: Vec<&str> = done.err.lines().collect();
        assert_eq!(errors.len(), 3, "{}", done.err);
        let place = format!("portway: {root}/a.yaml:9:45: Service default/bad: spec.ports[0].port: must be a number");
        assert!(errors[0].starts_with(&place), "{}", done.err);
        assert!(errors[1].starts_with(&format!("portway: {root}/b.yaml:")), "{}", done.err);
        assert!(errors[2].contains("2 of the files and objects cannot be used"), "{}", done.err);
    }
}

#[test]
fn a_repeated_flag_takes_its_last_value_as_with_kube_proxy() {
    let render = |args: &[&str]| {
        let done = portway(&[&["render", "-f", &project("examples/demo")], args].concat());
        assert_eq!(done.status, 0, "{args:?}: {}", done.err);
        done.out
    };
    for (twice, last) in [
        (&["--masquerade-bit=3", "--iptables-masquerade-bit", "20"][..], &["--masquerade-bit=20"][..]),
        (&["--masquerade-all", "--masquerade-all=false"], &[]),
        (&["--cluster-cidr=10.9.0.0/16", "--cluster-cidr=10.1.0.0/16"], &["--cluster-cidr=10.1.0.0/16"]),
        (&["--mode=iptables", "--proxy-mode=nftables"], &[]),
    ] {
        assert_eq!(render(twice), render(last), "{twice:?}");
    }
    // Files and NodePort addresses add up.
    let files = ["-f", &project("examples/demo/node.yaml"), "-f", &project("examples/demo")];
    assert_eq!(portway(&[&["render"], &files[..]].concat()).status, 0);
    assert_eq!(
        render(&["--nodeport-addresses=203.0.113.0/24", "--nodeport-addresses=primary"]),
        render(&["--nodeport-addresses=203.0.113.0/24,primary"])
    );
}

#[test]
fn a_name_with_a_line_break_begins_no_line_of_the_errors() {
    let forged = SERVICE.replace(
        r#""name": "web", "namespace""#,
        r#""name": "web
portway: all is well", "namespace""#,
    );
    let done = portway_reading(&["render", "--node", "node-1", "-f", "-"], &forged);
    assert_eq!(done.status, 1, "{}", done.err);
    assert!(done.err.lines().all(|line| !line.starts_with("portway: all is well")), "{}", done.err);
}

/// Feeds the text to a tool in a network namespace of its own, so that the tool sees no rules of this machine.
fn assert_accepted_by(tool: &[&str], input: &str, example: &str) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("input");
    std::fs::write(&file, input).expect("it can be written");
    let run = Command::new("unshare").arg("--net").args(tool).arg(&file).output().expect("unshare is there");
    assert!(run.status.success(), "{example}: {tool:?}: {}\n{input}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn every_example_is_rendered_in_each_mode_as_its_tool_accepts_it() {
    for (example, files) in examples() {
        let yaml = std::fs::read_to_string(files.last().unwrap()).unwrap();
        let addresses = cluster_ips(&yaml);
        for mode in ["nftables", "iptables"] {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let args = [&["render", "--mode", mode, "--cluster-cidr", "10.1.0.0/16,fd00:1::/48"], &files[..]].concat();
            let done = portway(&args);
            assert_eq!((done.status, done.err.as_str()), (0, ""), "{example}, {mode}");
            for address in &addresses {
                assert!(done.out.contains(address), "{example}, {mode}: {address} is not in:\n{}", done.out);
            }
            if mode == "nftables" {
                // nft cannot read session affinity rules (docs/nftables.md).
                if !yaml.contains("ClientIP") {
                    assert_accepted_by(&["nft", "--file"], &done.out, &example);
                }
                continue;
            }
            let (v4, v6) = done.out.split_once("# IPv6: ip6tables-restore --noflush\n").expect("both families");
            assert_accepted_by(&["iptables-restore", "--noflush"], v4, &example);
            assert_accepted_by(&["ip6tables-restore", "--noflush"], v6, &example);
        }
    }
}
