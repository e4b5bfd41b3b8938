//! The startup barrier: what must be known before the first write.

use std::time::Duration;

use ipnet::IpNet;
use portway_model::{Config, DetectLocal, Event, Kind, api};

use super::rig::{Call, NODE, NODE_WAIT, Rig, node, service, slice};
use crate::sync::{Fatal, NodeWait};

fn both_lists() -> [Event; 2] {
    [Event::ListDone(Kind::Service), Event::ListDone(Kind::EndpointSlice)]
}

fn node_with_pod_cidr(cidr: &str) -> Event {
    let Event::Node(node) = node() else { unreachable!() };
    Event::Node(api::Node { pod_cidrs: vec![cidr.to_owned()], ..node })
}

#[test]
fn watch_5_nothing_is_written_before_services_and_slices_are_both_listed_completely() {
    let mut rig = Rig::empty(Config::default(), NODE_WAIT, false);
    rig.event(Event::InterfaceAddresses(Vec::new()));
    rig.event(node());
    rig.event(service("a", 1));
    rig.step().unwrap();
    rig.event(Event::ListDone(Kind::Service));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.calls(), []);

    rig.event(slice("a", &["10.1.0.1"]));
    rig.event(Event::ListDone(Kind::EndpointSlice));
    rig.step().unwrap();
    assert_eq!(rig.calls(), [Call::Sync(vec!["a".to_owned()])]);
}

#[test]
fn watch_5_an_empty_cluster_is_written_too() {
    let mut rig = Rig::empty(Config::default(), NODE_WAIT, false);
    rig.event(Event::InterfaceAddresses(Vec::new()));
    rig.event(node());
    both_lists().into_iter().for_each(|event| rig.event(event));
    rig.step().unwrap();
    assert_eq!(rig.calls(), [Call::Sync(Vec::new())]);
}

#[test]
fn cfg_11_the_first_write_waits_for_the_node_for_a_limited_time() {
    let mut rig = Rig::empty(Config::default(), NODE_WAIT, false);
    rig.event(Event::InterfaceAddresses(Vec::new()));
    both_lists().into_iter().for_each(|event| rig.event(event));
    // An API server may list the Node later.
    rig.event(Event::ListDone(Kind::Node));
    rig.step().unwrap();
    rig.pass(Duration::from_millis(29_900));
    assert!(rig.is_waiting());
    assert_eq!(rig.calls(), []);
    rig.pass(Duration::from_millis(200));
    assert_eq!(rig.calls(), [Call::Sync(Vec::new())]);
}

#[test]
fn cfg_11_a_complete_list_of_manifests_without_the_node_ends_the_wait() {
    let mut rig = Rig::empty(Config::default(), NodeWait { list_ends_it: true, ..NODE_WAIT }, false);
    rig.event(Event::InterfaceAddresses(Vec::new()));
    both_lists().into_iter().for_each(|event| rig.event(event));
    rig.step().unwrap();
    assert_eq!(rig.calls(), []);
    rig.event(Event::ListDone(Kind::Node));
    rig.step().unwrap();
    assert_eq!(rig.calls(), [Call::Sync(Vec::new())]);
}

fn node_cidr_rig() -> Rig {
    let config = Config { detect_local: DetectLocal::NodeCidr, ..Config::default() };
    let wait = NodeWait { pod_cidrs: Some(Duration::from_secs(300)), ..NODE_WAIT };
    let mut rig = Rig::empty(config, wait, false);
    rig.event(Event::InterfaceAddresses(Vec::new()));
    both_lists().into_iter().for_each(|event| rig.event(event));
    rig
}

#[test]
fn cfg_12_node_cidr_waits_for_pod_cidrs_and_gives_up_after_five_minutes() {
    let mut rig = node_cidr_rig();
    rig.step().unwrap();
    rig.pass(Duration::from_secs(299));
    assert_eq!(rig.calls(), []);
    let given_up = rig.try_pass(Duration::from_secs(2));
    assert_eq!(given_up, Err(Fatal::NoPodCidrs { node: NODE.to_owned(), waited: Duration::from_secs(300) }));
    assert_eq!(rig.calls(), []);
}

#[test]
fn cfg_12_node_cidr_starts_with_the_first_pod_cidrs_and_ends_when_they_change() {
    let mut rig = node_cidr_rig();
    rig.step().unwrap();
    rig.pass(Duration::from_secs(200));
    rig.event(node_with_pod_cidr("10.1.0.0/24"));
    rig.step().unwrap();
    assert_eq!(rig.calls(), [Call::Sync(Vec::new())]);

    rig.event(node_with_pod_cidr("10.1.0.0/24"));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(400));

    rig.event(node_with_pod_cidr("10.2.0.0/24"));
    let range = |text: &str| text.parse::<IpNet>().unwrap().to_string();
    assert_eq!(
        rig.step(),
        Err(Fatal::PodCidrsChanged {
            node: NODE.to_owned(),
            before: range("10.1.0.0/24"),
            after: range("10.2.0.0/24")
        })
    );
}

#[test]
fn cfg_12_a_deleted_node_does_not_end_the_process() {
    let mut rig = node_cidr_rig();
    rig.event(node_with_pod_cidr("10.1.0.0/24"));
    rig.step().unwrap();
    rig.event(Event::NodeGone(NODE.to_owned()));
    assert_eq!(rig.step(), Ok(()));
}
