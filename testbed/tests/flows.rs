//! The flow table with real packets: every scenario in `flows/` through the model and a dataplane, and a few of them
//! through the program itself.

mod common;

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{self, Iptables};
use portway_dataplane::nftables::Nftables;
use portway_testbed::cluster::Cluster;
use portway_testbed::flows::{self, FlowResult, Scenario, Summary, Verdict};
use portway_testbed::proxy::{InProcess, ObjectSource, Program, Proxy};

/// Number of scenarios that run in parallel: each has a cluster of its own, and waits for timeouts most of the time.
const PARALLEL_SCENARIOS: usize = 4;

#[test]
fn every_scenario_can_be_read_and_every_kind_of_flow_is_there() {
    let mut flows = 0;
    for scenario in scenarios() {
        flows += scenario.steps.iter().map(|step| step.flows.len()).sum::<usize>();
    }
    assert!(flows >= 150, "the table has {flows} flows");
}

#[test]
fn nftables_does_what_the_flow_table_says() {
    table(&[], |cluster, scenario| {
        let proxy = InProcess::new(cluster, &scenario.options, Nftables::open)?;
        Ok(Box::new(proxy))
    });
}

#[test]
fn iptables_legacy_does_it_with_a_list() {
    iptables(Flavour::Legacy, None);
}

#[test]
fn iptables_legacy_does_it_with_a_tree() {
    iptables(Flavour::Legacy, Some(0));
}

#[test]
fn iptables_nft_does_it_with_a_list() {
    iptables(Flavour::Nft, None);
}

#[test]
fn iptables_nft_does_it_with_a_tree() {
    iptables(Flavour::Nft, Some(0));
}

fn iptables(flavour: Flavour, tree_above: Option<usize>) {
    table(&[], |cluster, scenario| {
        let config = iptables::Config { tree_above, flavour: Some(flavour), ..iptables::Config::default() };
        let proxy = InProcess::new(cluster, &scenario.options, move || Iptables::open(&config))?;
        Ok(Box::new(proxy))
    });
}

#[test]
fn the_program_does_it_from_manifests() {
    table(&["load-balancer", "policy-external", "changes", "node-port-ranges"], |cluster, scenario| {
        Ok(Box::new(Program::new(cluster, &scenario.options, "nftables", ObjectSource::Manifests)?))
    });
}

#[test]
fn the_program_does_it_from_an_api_server() {
    table(&["cluster-ip", "affinity", "claims", "topology"], |cluster, scenario| {
        Ok(Box::new(Program::new(cluster, &scenario.options, "nftables", ObjectSource::ApiServer)?))
    });
}

#[test]
fn own_1_udp_clients_follow_pods_that_terminate_in_nftables_mode() {
    table(&["termination"], |cluster, scenario| {
        Ok(Box::new(Program::new(cluster, &scenario.options, "nftables", ObjectSource::Manifests)?))
    });
}

#[test]
fn own_1_udp_clients_follow_pods_that_terminate_in_iptables_mode_legacy() {
    terminating_behind_iptables("legacy");
}

#[test]
fn own_1_udp_clients_follow_pods_that_terminate_in_iptables_mode_nft() {
    terminating_behind_iptables("nft");
}

fn terminating_behind_iptables(flavour: &str) {
    table(&["termination"], |cluster, scenario| {
        common::prefer_iptables(cluster, flavour);
        Ok(Box::new(Program::new(cluster, &scenario.options, "iptables", ObjectSource::Manifests)?))
    });
}

/// All scenarios, or those that `FLOWS` names.
fn scenarios() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("flows");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("the folder is there").flatten().map(|e| e.path()).collect();
    paths.sort();
    let chosen = std::env::var("FLOWS").unwrap_or_default();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(path).expect("the scenario can be read");
            flows::parse(&name, &text).unwrap_or_else(|error| panic!("{error}"))
        })
        .filter(|scenario| chosen.is_empty() || chosen.split(',').any(|name| name == scenario.name))
        .collect()
}

/// Runs the scenarios of these names, or all, each with a cluster and a proxy of its own.
fn table(names: &[&str], make: impl for<'a> Fn(&'a Cluster, &Scenario) -> anyhow::Result<Box<dyn Proxy + 'a>> + Sync) {
    if common::cannot_run() {
        return;
    }
    let begin = Instant::now();
    let chosen: Vec<Scenario> =
        scenarios().into_iter().filter(|one| names.is_empty() || names.contains(&one.name.as_str())).collect();
    let queue = Mutex::new(chosen.into_iter());
    let results: Mutex<Vec<FlowResult>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_SCENARIOS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("nobody panics while holding it").next();
                    let Some(scenario) = next else { break };
                    let cluster = Cluster::new().expect("a cluster comes up");
                    let mut proxy = make(&cluster, &scenario).expect("the proxy can be made");
                    let seen = flows::run(&scenario, &cluster, proxy.as_mut());
                    if seen.iter().any(|result| matches!(result.verdict, Verdict::Failed(_))) {
                        println!("{}: the rules at its end are in {}", scenario.name, dump(&cluster, &scenario.name));
                    }
                    results.lock().expect("nobody panics while holding it").extend(seen);
                }
            });
        }
    });
    let results = results.into_inner().expect("nobody panics while holding it");
    let summary = Summary::of(&results);
    println!("{summary}");
    println!("took {:.1} s", begin.elapsed().as_secs_f64());
    let wrong = flows::print_failures(&results);
    assert_eq!(wrong, 0, "{wrong} flows failed");
    assert!(summary.passed() > 0, "no flow was sent");
}

/// Writes node-1's rules to a file, and returns its path.
fn dump(cluster: &Cluster, name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.rules"));
    let output = |program, arguments: &[&str]| {
        cluster.node().output(program, arguments, "").unwrap_or_else(|error| error.to_string())
    };
    let rules = output("nft", &["list", "ruleset"]) + &output("iptables-legacy-save", &[]);
    match std::fs::write(&path, rules) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("no file: {error}"),
    }
}
