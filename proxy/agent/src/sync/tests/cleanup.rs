//! Conntrack clean-up beside the loop: what waits is merged, walks are paced, nothing is forgotten.

use std::time::Duration;

use super::rig::{Call, Rig, applied, noted, slice};

const WALK: Duration = Duration::from_millis(100);

/// A loop whose walks of the conntrack table are expensive, and whose writes are not.
fn large_table() -> Rig {
    let mut rig = Rig::running_with(true);
    rig.pass(Duration::from_secs(5));
    rig.calls();
    rig.world.lock().walk_cost = WALK;
    rig
}

#[test]
fn ct_3_the_first_walk_after_a_quiet_time_is_at_once() {
    let mut rig = large_table();
    let start = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(start, applied("a")), (start, noted(&["a"])), (start, Call::Clean)]);
}

#[test]
fn ct_3_walks_take_at_most_a_fifth_of_a_processor_and_what_waits_is_merged() {
    let mut rig = large_table();
    let start = rig.elapsed();
    for round in 0..60_u32 {
        let address = if round % 2 == 0 { "10.1.0.8" } else { "10.1.0.9" };
        rig.event(slice("a", &[address]));
        rig.step().unwrap();
        rig.pass(Duration::from_secs(1));
    }
    let calls = rig.timed_calls();
    let count = |wanted: &Call| calls.iter().filter(|(_, call)| call == wanted).count();
    let walks = u32::try_from(count(&Call::Clean)).unwrap();
    let share = (WALK * walks).as_secs_f64() / (rig.elapsed() - start).as_secs_f64();
    assert!((0.1..0.21).contains(&share), "{share}: {calls:?}");
    assert_eq!(count(&noted(&["a"])), 60, "every change is noted when the kernel follows it");
}

#[test]
fn ct_3_clients_that_go_on_sending_do_not_wait_for_the_walk() {
    let mut rig = large_table();
    rig.event(slice("a", &["10.1.0.8"]));
    rig.step().unwrap();
    rig.world.lock().walk_cost = Duration::from_secs(1);
    // The second pass, which is followed by a long pause.
    rig.pass(Duration::from_millis(700));
    rig.pass(Duration::from_secs(1));
    rig.calls();
    let start = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(start, applied("a")), (start, noted(&["a"])), (start, Call::Catch)]);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.calls().first(), Some(&Call::Clean));
}

#[test]
fn ct_3_a_change_does_not_wait_for_the_retry_of_an_earlier_clean_up() {
    let mut rig = Rig::running_with(true);
    rig.world.lock().clean_failures = 12;
    rig.event(slice("a", &["10.1.0.8"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(60));
    rig.calls();
    let start = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(start, applied("a")), (start, noted(&["a"])), (start, Call::Clean)]);
}

#[test]
fn ct_3_what_is_noted_is_cleaned_before_the_end() {
    let mut rig = large_table();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.syncer.step().unwrap();
    assert_eq!(rig.calls(), [applied("a"), noted(&["a"])]);
    rig.cleanup.finish();
    assert_eq!(rig.calls(), [Call::Clean]);
    rig.cleanup.finish();
    assert_eq!(rig.calls(), [], "nothing is left to clean");
}
