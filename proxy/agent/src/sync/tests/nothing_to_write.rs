//! Changes that need no write: the kernel follows them, and everything that waits for that goes on.

use std::time::{Duration, UNIX_EPOCH};

use portway_dataplane::Drift;
use portway_model::Family;

use super::rig::{Call, Rig, applied, noted, slice_with};

#[test]
fn own_1_conntrack_is_cleaned_of_a_pod_that_was_terminating_before_it_went() {
    let mut rig = Rig::running_with(true);
    rig.event(slice_with("a", &["10.1.0.1", "10.1.0.9"], &[], None));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    rig.event(slice_with("a", &["10.1.0.9"], &["10.1.0.1"], None));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    rig.calls();
    let held = rig.world.lock().kernel.clone();
    rig.event(slice_with("a", &["10.1.0.9"], &[], None));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.world.lock().kernel, held, "no rule changes");
    assert_eq!(rig.calls(), [applied("a"), noted(&["a"]), Call::Clean, Call::Clean]);
}

#[test]
fn own_1_a_start_that_finds_its_rules_right_cleans_conntrack() {
    let earlier = Rig::running();
    let mut rig = Rig::known(true);
    rig.world.lock().kernel = earlier.world.lock().kernel.clone();
    rig.step().unwrap();
    let names = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(rig.calls(), [Call::Sync(names), noted(&["a", "b"]), Call::Clean]);
}

#[test]
fn own_1_met_2_a_change_that_needs_no_write_has_a_latency() {
    let mut rig = Rig::running();
    rig.event(slice_with("a", &["10.1.0.9"], &["10.1.0.1"], None));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000) + rig.elapsed();
    rig.event(slice_with("a", &["10.1.0.9"], &[], Some(now - Duration::from_secs(3))));
    rig.step().unwrap();
    let count = |family: &str| {
        rig.metric(&format!("kubeproxy_network_programming_duration_seconds_count{{ip_family=\"{family}\"}}"))
    };
    assert_eq!((count("IPv4"), count("IPv6")), (1.0, 0.0), "the slice's family alone");
}

#[test]
fn own_1_a_repair_cleans_flows_that_began_while_the_rules_were_wrong() {
    let mut rig = Rig::running_with(true);
    let drift = Drift { family: Family::V4, object: "chain services".to_owned(), kind: "missing", service: None };
    rig.world.lock().drift.push_back(Ok(vec![drift]));
    rig.kernel_changed();
    rig.step().unwrap();
    let cleaned = [Call::NoteAll(vec![Family::V4]), Call::Clean];
    assert_eq!(rig.calls(), [&[Call::Audit, Call::Repair(1)][..], &cleaned].concat());
}
