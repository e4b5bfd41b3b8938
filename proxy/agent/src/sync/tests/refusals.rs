//! Objects that the kernel refuses while the rest of the sync is applied.

use std::time::Duration;

use super::rig::{Answer, Call, Rig, applied, service, slice};

fn all() -> Call {
    Call::Sync(["a", "b", "c"].map(str::to_owned).to_vec())
}

fn refusing() -> Rig {
    let mut rig = Rig::running();
    rig.world.lock().answers.push_back(Answer::Refuses("c"));
    rig.event(service("c", 3));
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    assert_eq!(rig.calls(), [Call::Apply(vec!["a".to_owned(), "c".to_owned()])]);
    rig
}

#[test]
fn a_refused_object_is_counted_and_retried_by_full_syncs_with_backoff() {
    let mut rig = refusing();
    assert_eq!(rig.metric("portway_refused_services"), 1.0);
    assert_eq!(rig.metric("portway_refused_objects_total{ip_family=\"IPv4\"}"), 1.0);
    assert_eq!(rig.metric("kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"}"), 0.0);

    for _ in 0..3 {
        rig.world.lock().answers.push_back(Answer::Refuses("c"));
    }
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.calls(), [all(), all(), all(), all()]);
    assert_eq!(rig.metric("portway_refused_services"), 0.0);
    assert_eq!(rig.metric("portway_refused_objects_total{ip_family=\"IPv4\"}"), 4.0);
}

#[test]
fn a_refused_object_does_not_hold_up_later_changes() {
    let mut rig = refusing();
    rig.world.lock().answers.push_back(Answer::Refuses("c"));
    rig.pass(Duration::from_millis(1100));
    assert_eq!(rig.calls(), [all()]);
    // Another refusal, and the next retry is far: a change is a partial sync as soon as the pace allows.
    for _ in 0..20 {
        rig.world.lock().answers.push_back(Answer::Refuses("c"));
    }
    rig.pass(Duration::from_secs(8));
    rig.calls();
    rig.event(slice("b", &["10.1.0.8"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.calls().first(), Some(&applied("b")));
    assert_eq!(rig.metric("portway_refused_services"), 1.0);
}

#[test]
fn a_change_that_the_kernel_accepts_ends_the_refusal() {
    let mut rig = refusing();
    rig.event(service("c", 4));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.metric("portway_refused_services"), 0.0);
    rig.calls();
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.calls(), []);
}
