//! Failed writes: backoff, a full sync as the next write, and no change lost.

use std::time::{Duration, UNIX_EPOCH};

use portway_model::Family;

use super::rig::{Answer, Call, Rig, applied, noted, service, service_v6, slice, triggered_slice, triggered_slice_v6};

fn both() -> Call {
    Call::Sync(vec!["a".to_owned(), "b".to_owned()])
}

#[test]
fn nft_15_a_full_sync_follows_a_failure() {
    let mut rig = Rig::running();
    rig.world.lock().answers.push_back(Answer::Fails(vec![Family::V4]));
    let start = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(5));
    let calls = rig.timed_calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(calls[0], (start, applied("a")));
    assert_eq!(calls[1].1, both());
    assert_eq!(rig.metric("kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"}"), 1.0);
    assert_eq!(rig.metric("kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"}"), 0.0);

    // After a success the next change is a partial sync again.
    rig.event(slice("b", &["10.1.0.8"]));
    rig.step().unwrap();
    assert_eq!(rig.calls(), [applied("b")]);
}

#[test]
fn retry_waits_grow_up_to_the_sync_period() {
    let mut rig = Rig::running();
    for _ in 0..20 {
        rig.world.lock().answers.push_back(Answer::Fails(vec![Family::V4, Family::V6]));
    }
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(600));
    let times: Vec<Duration> = rig.timed_calls().into_iter().map(|(at, _)| at).collect();
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).take(19).collect();
    // minSyncPeriod holds for retries too.
    assert!(waits.iter().all(|wait| *wait >= Duration::from_secs(1) && *wait <= Duration::from_secs(30)), "{waits:?}");
    assert!(waits[18] >= Duration::from_millis(22_500), "{waits:?}");
}

#[test]
fn a_change_does_not_wait_for_a_long_backoff() {
    let mut rig = Rig::running();
    rig.world.lock().broken = vec![Family::V4, Family::V6];
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    // Ten failures later the wait between retries is long.
    rig.pass(Duration::from_secs(120));
    rig.calls();
    rig.world.lock().broken.clear();
    let now = rig.elapsed();
    rig.event(slice("b", &["10.1.0.8"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    let calls = rig.timed_calls();
    assert_eq!(calls.first().map(|(_, call)| call), Some(&both()));
    assert!(calls[0].0 <= now + Duration::from_secs(1), "{calls:?} after {now:?}");
}

#[test]
fn own_3_a_family_that_goes_on_failing_makes_no_change_of_the_other_wait() {
    let mut rig = Rig::running();
    rig.world.lock().broken.push(Family::V6);
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(120));
    rig.calls();
    rig.world.lock().written.clear();
    for pod in 0..50 {
        let now = rig.elapsed();
        rig.event(slice("b", &[&format!("10.1.0.{}", 100 + pod)]));
        rig.step().unwrap();
        let first = rig.timed_calls().into_iter().next();
        assert_eq!(first, Some((now, applied("b"))), "change {pod} is applied at once, as a change");
        rig.pass(Duration::from_millis(1100));
        rig.calls();
    }
    let written = std::mem::take(&mut rig.world.lock().written);
    let of = |family| written.iter().filter(|(_, written)| *written == family).count();
    assert_eq!(of(Family::V4), 50, "no full sync of it");
    assert!((1..=4).contains(&of(Family::V6)), "retried with backoff: {}", of(Family::V6));
}

#[test]
fn own_3_what_a_failed_family_missed_is_made_up_for_by_its_next_success() {
    let mut rig = Rig::running_with(true);
    rig.world.lock().broken.push(Family::V6);
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    rig.event(slice("b", &["10.1.0.8"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(2));
    rig.calls();
    rig.world.lock().broken.clear();
    rig.pass(Duration::from_secs(40));
    let names = vec!["a".to_owned(), "b".to_owned()];
    let calls: Vec<Call> = rig.calls().into_iter().filter(|call| *call != Call::Audit).collect();
    assert_eq!(calls, [both(), Call::Note(vec![Family::V6], names), Call::Clean, Call::Clean]);
    rig.event(slice("a", &["10.1.0.7"]));
    rig.step().unwrap();
    assert_eq!(rig.calls().first(), Some(&applied("a")), "both families in one call again");
}

#[test]
fn own_2_a_failure_after_which_the_kernel_is_known_is_followed_by_the_change_alone() {
    let mut rig = Rig::running();
    rig.world.lock().keeps_what_is_known = true;
    rig.world.lock().answers.push_back(Answer::Fails(vec![Family::V4, Family::V6]));
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.calls(), [applied("a"), applied("a")]);
}

#[test]
fn ct_3_conntrack_is_cleaned_once_failed_and_later_changes_are_applied() {
    let mut rig = Rig::running_with(true);
    rig.world.lock().answers.extend([
        Answer::Fails(vec![Family::V4, Family::V6]),
        Answer::Fails(vec![Family::V4, Family::V6]),
        Answer::Succeeds,
    ]);
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.event(slice("b", &["10.1.0.8"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(4));
    // The full sync found other rules than it should, so all flows are looked at.
    let cleaned = [noted(&["a", "b"]), Call::NoteAll(vec![Family::V4]), Call::Clean, Call::Clean];
    assert_eq!(rig.calls(), [&[applied("a"), both(), both()][..], &cleaned].concat());
}

#[test]
fn met_2_trigger_times_survive_a_failure_separately_for_each_family() {
    let mut rig = Rig::running();
    rig.world.lock().answers.push_back(Answer::Fails(vec![Family::V6]));
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000) + rig.elapsed();
    rig.event(triggered_slice("a", &["10.1.0.9"], Some(now)));
    rig.event(service_v6("six", 6));
    rig.event(triggered_slice_v6("six", &["fd00::9"], Some(now)));
    rig.step().unwrap();
    let count = |rig: &Rig, family: &str| {
        rig.metric(&format!("kubeproxy_network_programming_duration_seconds_count{{ip_family=\"{family}\"}}"))
    };
    assert_eq!((count(&rig, "IPv4"), count(&rig, "IPv6")), (1.0, 0.0));
    rig.pass(Duration::from_secs(5));
    assert_eq!((count(&rig, "IPv4"), count(&rig, "IPv6")), (1.0, 1.0));
}

#[test]
fn a_failed_write_is_retried_with_all_services() {
    let mut rig = Rig::running();
    rig.world.lock().answers.push_back(Answer::Fails(vec![Family::V4]));
    rig.event(service("c", 3));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3));
    let all = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(rig.calls(), [applied("c"), Call::Sync(all)]);
}

#[test]
fn ct_3_only_the_families_that_follow_a_change_are_cleaned() {
    let mut rig = Rig::running_with(true);
    rig.world.lock().answers.push_back(Answer::Fails(vec![Family::V4]));
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    let of_a = vec!["a".to_owned()];
    assert_eq!(
        rig.calls(),
        [applied("a"), Call::Note(vec![Family::V6], of_a), Call::Clean],
        "IPv4 waits for its rules"
    );
    rig.pass(Duration::from_secs(3));
    let calls = rig.calls();
    let of_ipv4 = Call::Note(vec![Family::V4], vec!["a".to_owned()]);
    let position = |call: &Call| calls.iter().position(|made| made == call);
    assert!(position(&both()) < position(&of_ipv4) && position(&both()).is_some(), "{calls:?}");
}
