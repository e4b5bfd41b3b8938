//! Pacing: leading edge, minSyncPeriod, bursts, garbage collection, and the metrics of each.

use std::time::{Duration, UNIX_EPOCH};

use portway_model::Event;

use super::rig::{Call, MIN_SYNC_PERIOD, Rig, applied, noted, service, slice, triggered_slice};

#[test]
fn cfg_18_an_idle_loop_writes_at_once() {
    let mut rig = Rig::running();
    let before = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(before, applied("a"))]);
}

#[test]
fn cfg_18_min_sync_period_runs_from_the_end_of_the_last_write() {
    let mut rig = Rig::running();
    rig.world.lock().cost = Duration::from_millis(300);
    let start = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.event(slice("b", &["10.1.0.8"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(5));
    let second = start + Duration::from_millis(300) + MIN_SYNC_PERIOD;
    assert_eq!(rig.timed_calls(), [(start, applied("a")), (second, applied("b"))]);
}

/// The milliseconds at which writes began, while an event of another Service comes every so often.
fn writes_under_a_stream(rig: &mut Rig, every: Duration, events: u8) -> Vec<Duration> {
    for n in 0..events {
        rig.event(slice("a", &[&format!("10.1.1.{n}")]));
        rig.step().unwrap();
        rig.pass(every);
    }
    rig.timed_calls().into_iter().map(|(at, _)| at).collect()
}

#[test]
fn cfg_18_the_endpoints_of_a_new_service_follow_at_once_where_writes_are_cheap() {
    let mut rig = Rig::running_by_cost();
    let cost = Duration::from_micros(700);
    rig.world.lock().cost = cost;
    let start = rig.elapsed();
    rig.event(service("c", 3));
    rig.step().unwrap();
    rig.event(slice("c", &["10.1.0.3"]));
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(start, applied("c")), (start + cost, applied("c"))]);
}

#[test]
fn cfg_18_a_rolling_update_is_few_writes_also_where_they_are_cheap() {
    let mut rig = Rig::running_by_cost();
    rig.world.lock().cost = Duration::from_micros(700);
    let writes = writes_under_a_stream(&mut rig, Duration::from_millis(1), 250);
    assert!((10..=28).contains(&writes.len()), "{writes:?}");
}

#[test]
fn cfg_18_a_steady_stream_of_cheap_writes_is_paced_by_ten_milliseconds() {
    let mut rig = Rig::running_by_cost();
    rig.world.lock().cost = Duration::from_micros(700);
    let start = rig.elapsed();
    let writes = writes_under_a_stream(&mut rig, Duration::from_millis(5), 200);
    let most = (rig.elapsed() - start).as_secs_f64() / 0.0107 + 3.0;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred writes")]
    let written = writes.len() as f64;
    assert!(written <= most && written > most / 2.0, "{written} of at most {most}");
}

#[test]
fn cfg_18_expensive_writes_take_at_most_two_fifths_of_a_processor() {
    let mut rig = Rig::running_by_cost();
    let cost = Duration::from_millis(400);
    rig.world.lock().cost = cost;
    let start = rig.elapsed();
    let writes = writes_under_a_stream(&mut rig, Duration::from_millis(250), 240);
    let share =
        f64::from(u32::try_from(writes.len()).unwrap()) * cost.as_secs_f64() / (rig.elapsed() - start).as_secs_f64();
    assert!((0.36..0.42).contains(&share), "{share}");
    // No change waits longer than a pause.
    let gap = writes.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(gap <= Duration::from_millis(1010), "{gap:?}");
}

#[test]
fn cfg_18_two_expensive_writes_after_a_quiet_time_need_no_pause() {
    let mut rig = Rig::running_by_cost();
    let cost = Duration::from_millis(300);
    rig.world.lock().cost = cost;
    let start = rig.elapsed();
    for address in ["10.1.0.7", "10.1.0.8", "10.1.0.9"] {
        rig.event(slice("a", &[address]));
        rig.step().unwrap();
    }
    assert_eq!(rig.timed_calls(), [(start, applied("a")), (start + cost, applied("a"))]);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.timed_calls(), [(start + cost * 2 + Duration::from_millis(400), applied("a"))]);
}

#[test]
fn cfg_18_waiting_for_another_program_is_no_cost() {
    let mut rig = Rig::running_by_cost();
    {
        let mut world = rig.world.lock();
        world.cost = Duration::from_secs(5);
        world.waited = world.cost;
    }
    let start = rig.elapsed();
    for address in ["10.1.0.7", "10.1.0.8"] {
        rig.event(slice("a", &[address]));
        rig.step().unwrap();
    }
    assert_eq!(rig.timed_calls(), [(start, applied("a")), (start + Duration::from_secs(5), applied("a"))]);
}

#[test]
fn cfg_18_a_burst_is_one_change_also_while_paced() {
    let mut rig = Rig::running();
    for n in 10..60 {
        rig.event(service(&format!("s{n}"), n));
    }
    rig.step().unwrap();
    let calls = rig.calls();
    assert!(matches!(&calls[..], [Call::Apply(names)] if names.len() == 50), "{calls:?}");

    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_millis(500));
    rig.event(slice("a", &["10.1.0.8"]));
    rig.event(slice("b", &["10.1.0.7"]));
    rig.step().unwrap();
    assert_eq!(rig.calls(), []);
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.calls(), [Call::Apply(vec!["a".to_owned(), "b".to_owned()])]);
}

#[test]
fn an_event_without_effect_on_the_kernel_writes_nothing_and_delays_nothing() {
    let mut rig = Rig::running();
    rig.event(slice("a", &["10.1.0.1"]));
    rig.step().unwrap();
    rig.event(slice("nobody", &["10.1.0.1"]));
    rig.step().unwrap();
    assert_eq!(rig.calls(), []);
    let now = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    assert_eq!(rig.timed_calls(), [(now, applied("a"))]);
}

#[test]
fn garbage_is_collected_when_it_is_due() {
    let mut rig = Rig::running();
    let at = rig.elapsed() + Duration::from_millis(1500);
    rig.world.lock().garbage_due = Some(at);
    rig.pass(Duration::from_secs(4));
    assert_eq!(rig.timed_calls(), [(at, Call::CollectGarbage)]);
}

#[test]
fn nft_14_a_failed_garbage_collection_is_counted_and_retried_with_backoff() {
    let mut rig = Rig::running();
    {
        let mut world = rig.world.lock();
        world.garbage_due = Some(world.elapsed);
        world.garbage_fails = true;
    }
    rig.pass(Duration::from_secs(2));
    let tries = rig.timed_calls();
    assert!((4..=8).contains(&tries.len()), "{tries:?}");
    let name = "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv4\"}";
    assert_eq!(rig.metric(name), f64::from(u32::try_from(tries.len()).unwrap()));

    rig.world.lock().garbage_fails = false;
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.calls(), [Call::CollectGarbage]);
}

#[test]
fn ct_3_ct_7_conntrack_is_cleaned_after_the_write_and_again_a_moment_later() {
    let mut rig = Rig::running_with(true);
    let start = rig.elapsed();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3));
    assert_eq!(
        rig.timed_calls(),
        [
            (start, applied("a")),
            (start, noted(&["a"])),
            (start, Call::Clean),
            (start + Duration::from_millis(500), Call::Clean)
        ]
    );
}

#[test]
fn ct_7_time_and_number_of_deletions_are_measured() {
    let mut rig = Rig::running_with(true);
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3));
    assert!(rig.metric("kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"}") >= 6.0);
    assert!(rig.metric("kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv4\"}") >= 2.0);
}

#[test]
fn ct_3_the_first_sync_cleans_entries_from_before_a_restart() {
    let mut rig = Rig::known(true);
    rig.step().unwrap();
    let names = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(rig.calls(), [Call::Sync(names), noted(&["a", "b"]), Call::Clean]);
}

#[test]
fn ct_3_a_failed_clean_up_is_retried_with_backoff_and_has_a_second_pass() {
    let mut rig = Rig::running_with(true);
    rig.world.lock().clean_failures = 3;
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(Duration::from_secs(3));
    let calls = rig.calls();
    assert_eq!(calls.iter().filter(|call| **call == Call::Clean).count(), 5, "{calls:?}");
}

#[test]
fn met_2_programming_latency_runs_from_the_trigger_to_the_end_of_the_write() {
    let mut rig = Rig::running();
    rig.world.lock().cost = Duration::from_secs(2);
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000) + rig.elapsed();
    rig.event(triggered_slice("a", &["10.1.0.9"], Some(now - Duration::from_secs(3))));
    rig.step().unwrap();
    assert_eq!(rig.calls(), [applied("a")]);
    let count = |le: &str| {
        rig.metric(&format!("kubeproxy_network_programming_duration_seconds_bucket{{ip_family=\"IPv4\",le=\"{le}\"}}"))
    };
    assert_eq!((count("4"), count("5")), (0.0, 1.0));
}

#[test]
fn queued_and_last_sync_times_move() {
    let mut rig = Rig::running();
    rig.pass(Duration::from_secs(7));
    let now = 1_000_000.0 + rig.elapsed().as_secs_f64();
    rig.event(Event::ServiceGone(portway_model::ServiceName::new("default", "a")));
    rig.step().unwrap();
    for name in ["last_queued_timestamp_seconds", "last_timestamp_seconds"] {
        assert_eq!(rig.metric(&format!("kubeproxy_sync_proxy_rules_{name}{{ip_family=\"IPv6\"}}")), now, "{name}");
    }
    assert_eq!(rig.metric("kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}"), 1.0);
    assert_eq!(rig.metric("kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}"), 1.0);
}
