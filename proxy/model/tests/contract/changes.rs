//! Changes that are joined while a write has to be tried again (contract SVC-14, EP-9).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portway_model::testing::{ServiceBuilder, cluster, service};
use portway_model::{Change, Cluster, Event, Family, NodeSettings, ServiceName, SettingsChange};

fn web() -> ServiceBuilder {
    service("ns/web").cluster_ip("10.96.0.1").port("http", 80)
}

#[test]
fn svc_14_a_pending_change_and_a_later_one_are_merged() {
    let name = ServiceName::new("ns", "web");
    let mut cluster = cluster("node-a", [web().event()]);
    let first_plan = cluster.plan().clone();
    let step = |cluster: &mut Cluster, event| {
        cluster.ingest(event);
        cluster.drain().0
    };
    let grown = step(&mut cluster, web().external_ip("192.0.2.7").event());
    let other = step(&mut cluster, service("a/other").cluster_ip("10.96.0.2").port("http", 80).event());
    let gone = step(&mut cluster, Event::ServiceGone(name.clone()));
    let back = step(&mut cluster, web().event());

    let both = grown.clone().then(other.clone());
    assert_eq!(both.services.iter().map(|change| change.name.to_string()).collect::<Vec<_>>(), ["a/other", "ns/web"]);
    let all = both.then(gone.clone());
    assert_eq!(all.services[1].before.as_ref(), first_plan.services.get(&name));
    assert_eq!(all.services[1].after, None);
    let all = all.then(back.clone());
    assert_eq!(all.services.len(), 1, "what ends as it began vanishes: {all:?}");
    assert_eq!(all, grown.then(other.then(gone.then(back))), "in whatever groups they are joined");
}

#[test]
fn ep_9_merged_changes_keep_all_trigger_times_and_the_outer_settings() {
    let settings = |mark| Arc::new(NodeSettings { masquerade_mark: mark, ..NodeSettings::default() });
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let change = |before, after, time| Change {
        settings: Some(SettingsChange { before: settings(before), after: settings(after) }),
        services: Vec::new(),
        triggers: vec![(Family::V4, at(time))],
    };
    let joined = change(1, 2, 7).then(change(2, 4, 5));
    assert_eq!(joined, Change { triggers: [7, 5].map(|time| (Family::V4, at(time))).to_vec(), ..change(1, 4, 0) });
    assert_eq!(change(1, 2, 7).then(change(2, 1, 5)).settings, None);
    assert_eq!(change(1, 2, 7).then(Change::default()), change(1, 2, 7));
    assert_eq!(Change::default().then(change(1, 2, 7)), change(1, 2, 7));
}
