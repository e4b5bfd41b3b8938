//! Audits: periodic ones, those that a kernel notification triggers, and what follows from their results.

use std::time::Duration;

use portway_dataplane::Drift;
use portway_model::Family;

use super::rig::{Answer, Call, Rig, SYNC_PERIOD, applied, error, slice};

fn drift(count: usize) -> Vec<Drift> {
    let one = |n| Drift { family: Family::V4, object: format!("element {n}"), kind: "missing", service: None };
    (0..count).map(one).collect()
}

#[test]
fn an_audit_runs_each_sync_period_and_repairs_only_drift() {
    let mut rig = Rig::running();
    rig.world.lock().drift.extend([Ok(Vec::new()), Ok(drift(3))]);
    rig.pass(SYNC_PERIOD * 3);
    assert_eq!(rig.calls(), [Call::Audit, Call::Audit, Call::Repair(3), Call::Audit]);
    assert_eq!(rig.metric("portway_drift_total{ip_family=\"IPv4\",kind=\"missing\"}"), 3.0);
    assert_eq!(rig.metric("portway_audit_seconds_count"), 3.0);
}

#[test]
fn a_kernel_notification_triggers_an_audit_at_once() {
    let mut rig = Rig::running();
    let start = rig.elapsed();
    rig.world.lock().drift.push_back(Ok(drift(20_000)));
    rig.kernel_changed();
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(start, Call::Audit), (start, Call::Repair(20_000))]);
}

#[test]
fn a_triggered_audit_runs_before_a_write_that_would_fail() {
    let mut rig = Rig::running();
    rig.world.lock().drift.push_back(Ok(drift(1)));
    rig.event(slice("a", &["10.1.0.9"]));
    rig.kernel_changed();
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.calls(), [Call::Audit, Call::Repair(1), applied("a")]);
}

#[test]
fn a_program_that_keeps_changing_the_table_does_not_make_the_loop_busy() {
    let mut rig = Rig::running();
    let mut audits = 0;
    for _ in 0..1000 {
        rig.kernel_changed();
        rig.step().unwrap();
        rig.pass(Duration::from_millis(1));
        audits += rig.calls().iter().filter(|call| **call == Call::Audit).count();
    }
    assert!((5..=11).contains(&audits), "{audits} audits in a second");
}

#[test]
fn a_full_sync_follows_a_failed_repair() {
    let mut rig = Rig::running();
    rig.world.lock().drift.push_back(Ok(drift(1)));
    rig.world.lock().answers.push_back(Answer::Fails(vec![Family::V4]));
    rig.kernel_changed();
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3));
    let all = ["a", "b"].map(str::to_owned).to_vec();
    assert_eq!(rig.calls(), [Call::Audit, Call::Repair(1), Call::Sync(all)]);
}

#[test]
fn own_2_a_failed_audit_is_counted_and_tried_again_and_forces_no_full_sync() {
    let mut rig = Rig::running();
    rig.world.lock().drift.extend([Err(error()), Err(error()), Ok(drift(1))]);
    rig.kernel_changed();
    rig.step().unwrap();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.calls(), [Call::Audit, applied("a"), Call::Audit, Call::Audit, Call::Repair(1)]);
    assert_eq!(rig.metric("portway_audit_failures_total"), 2.0);
}

#[test]
fn own_2_audits_that_go_on_failing_are_tried_again_more_and_more_rarely() {
    let mut rig = Rig::running();
    rig.world.lock().drift.extend((0..50).map(|_| Err(error())));
    rig.pass(SYNC_PERIOD * 5);
    let audits = rig.calls().len();
    assert!((10..30).contains(&audits), "{audits} audits");
}

/// Undoes every repair for a while. Returns the times of the repairs.
fn fight(rig: &mut Rig, time: Duration, drift: &[Drift]) -> Vec<Duration> {
    let end = rig.elapsed() + time;
    let mut repairs = Vec::new();
    while rig.elapsed() < end {
        rig.world.lock().drift = [Ok(drift.to_vec())].into();
        rig.kernel_changed();
        rig.step().unwrap();
        rig.pass(Duration::from_millis(20));
        let calls = rig.timed_calls();
        repairs.extend(calls.iter().filter(|(_, call)| matches!(call, Call::Repair(_))).map(|(at, _)| *at));
    }
    rig.world.lock().drift.clear();
    repairs
}

#[test]
fn own_13_repairs_that_another_program_undoes_become_rarer_up_to_the_sync_period() {
    let mut rig = Rig::running();
    let start = rig.elapsed();
    let repairs = fight(&mut rig, Duration::from_secs(200), &drift(3));
    assert_eq!(repairs[0], start, "the first repair is not delayed");
    assert!(repairs[1] - start < Duration::from_millis(300), "nor is the second: {repairs:?}");
    assert!((12..=20).contains(&repairs.len()), "{repairs:?}");
    let pauses: Vec<Duration> = repairs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause <= SYNC_PERIOD + Duration::from_millis(100)), "{pauses:?}");
    assert!(*pauses.last().unwrap() > SYNC_PERIOD / 2, "{pauses:?}");
}

#[test]
fn own_13_new_drift_is_repaired_at_once_during_a_fight_and_after_it() {
    let mut rig = Rig::running();
    fight(&mut rig, Duration::from_secs(30), &drift(1));
    // The first of these objects is fought over, the others are not: a program deleted them once.
    rig.world.lock().drift.push_back(Ok(drift(4)));
    rig.kernel_changed();
    rig.pass(Duration::from_millis(200));
    assert_eq!(rig.calls(), [Call::Audit, Call::Repair(3)]);
    // What was put off is looked at again without a notification.
    rig.pass(SYNC_PERIOD);
    assert!(rig.calls().contains(&Call::Audit));

    rig.pass(SYNC_PERIOD * 4);
    rig.calls();
    rig.world.lock().drift.push_back(Ok(drift(1)));
    rig.kernel_changed();
    let now = rig.elapsed();
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(now, Call::Audit), (now, Call::Repair(1))]);
}

/// The times at which audits began, and the families that they read.
fn audited(rig: &Rig) -> Vec<(Duration, Vec<Family>)> {
    std::mem::take(&mut rig.world.lock().audited)
}

#[test]
fn nft_20_a_known_change_does_not_wait_because_the_last_audit_took_long() {
    let mut rig = Rig::running();
    rig.world.lock().audit_cost = Duration::from_secs(2);
    rig.pass(SYNC_PERIOD - Duration::from_secs(3));
    let [(at, _)] = audited(&rig)[..] else { panic!("one periodic audit") };
    // Right after a periodic audit, when one that is triggered by missed notifications waits for five seconds.
    let now = rig.elapsed();
    assert!(now < at + Duration::from_secs(5), "{now:?}");
    rig.world.lock().drift.push_back(Ok(drift(1)));
    rig.kernel_changed_in(&[Family::V4]);
    rig.step().unwrap();
    assert_eq!(audited(&rig), [(now, vec![Family::V4])], "at once, and the other family is not read");
    let end = rig.elapsed();
    rig.pass(Duration::from_secs(1));
    rig.kernel_changed_in(&[]);
    rig.pass(Duration::from_secs(10));
    let next = audited(&rig).into_iter().find(|(_, families)| families.contains(&Family::V4)).expect("an audit");
    assert_eq!(next.0, end + Duration::from_secs(5), "missed notifications wait");
}

#[test]
fn nft_20_known_changes_without_end_do_not_take_more_than_a_fifth_of_the_time() {
    let mut rig = Rig::running();
    rig.world.lock().audit_cost = Duration::from_secs(1);
    let start = rig.elapsed();
    while rig.elapsed() < start + Duration::from_secs(120) {
        rig.kernel_changed_in(&[Family::V4]);
        rig.pass(Duration::from_millis(20));
    }
    let all = audited(&rig);
    let known = all.iter().filter(|(_, families)| families.contains(&Family::V4));
    let begins: Vec<Duration> = known.map(|(at, _)| *at - start).collect();
    assert_eq!(begins[0], Duration::ZERO);
    assert!(begins[1] <= Duration::from_millis(1200), "the second comes soon: {begins:?}");
    let late = begins.iter().filter(|at| **at > Duration::from_secs(20)).count();
    assert!((15..=21).contains(&late), "one in five seconds in the long run: {begins:?}");
    // Half a minute of peace, and the next is as the first.
    rig.pass(Duration::from_secs(45));
    audited(&rig);
    let now = rig.elapsed();
    rig.kernel_changed_in(&[Family::V6]);
    rig.step().unwrap();
    assert_eq!(audited(&rig), [(now, vec![Family::V6])]);
}

#[test]
fn nft_20_what_a_notification_names_is_repaired_without_reading_the_table() {
    let mut rig = Rig::running();
    let start = rig.elapsed();
    rig.objects_changed(Some(drift(3)));
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(start, Call::AuditObjects), (start, Call::Repair(3))]);
    assert_eq!(rig.metric("portway_drift_total{ip_family=\"IPv4\",kind=\"missing\"}"), 3.0);
    // The periodic audit comes when it would have come.
    rig.pass(SYNC_PERIOD);
    assert_eq!(rig.timed_calls(), [(SYNC_PERIOD, Call::Audit)]);
}

#[test]
fn nft_20_what_a_notification_does_not_tell_is_audited_at_once() {
    let mut rig = Rig::running();
    rig.world.lock().drift.push_back(Ok(drift(2)));
    rig.objects_changed(None);
    rig.step().unwrap();
    assert_eq!(rig.calls(), [Call::Audit, Call::Repair(2)]);
    // Nor what comes together with one that names nothing.
    rig.pass(Duration::from_secs(1));
    rig.objects_changed(Some(drift(1)));
    rig.kernel_changed_in(&[]);
    rig.step().unwrap();
    assert_eq!(rig.calls(), [Call::Audit]);
}

#[test]
fn own_13_nft_20_repairs_of_named_objects_that_are_undone_become_rarer_too() {
    let mut rig = Rig::running();
    let end = rig.elapsed() + Duration::from_secs(60);
    let mut repairs = 0;
    while rig.elapsed() < end {
        rig.world.lock().drift = [Ok(drift(1))].into();
        rig.objects_changed(Some(drift(1)));
        rig.step().unwrap();
        rig.pass(Duration::from_millis(20));
        repairs += rig.calls().iter().filter(|call| matches!(call, Call::Repair(_))).count();
    }
    assert!((6..=16).contains(&repairs), "{repairs} repairs in a minute");
}
