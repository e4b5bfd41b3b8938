//! What the loop says of its health, and of health check node ports.

use std::time::Duration;

use portway_model::{Event, Family, HealthCheck, Kind, ServiceName, api};

use super::rig::{Answer, NODE, Rig, SYNC_PERIOD, service, slice, slice_with};
use crate::health::Update;

const BOTH: [Family; 2] = Family::ALL;

#[test]
fn hz_3_a_proxy_that_cannot_sync_is_unhealthy_after_twice_the_sync_period() {
    let mut rig = Rig::running();
    assert!(rig.health.is_healthy());
    rig.pass(Duration::from_secs(3600));
    assert!(rig.health.is_healthy(), "nothing waits");
    rig.world.lock().broken = BOTH.to_vec();
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(SYNC_PERIOD * 2 - Duration::from_secs(1));
    // News in between do not start the wait anew.
    rig.event(slice("b", &["10.1.0.8"]));
    assert!(rig.health.is_healthy());
    rig.pass(Duration::from_secs(1));
    assert!(!rig.health.is_healthy());
    rig.world.lock().broken.clear();
    rig.pass(SYNC_PERIOD * 2);
    assert!(rig.health.is_healthy());
}

#[test]
fn hz_3_one_family_that_fails_is_enough() {
    let mut rig = Rig::running();
    rig.world.lock().broken = vec![Family::V6];
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.pass(SYNC_PERIOD * 3);
    assert!(!rig.health.is_healthy());
    let (healthy, body) = (rig.health.is_healthy(), format!("{:?}", rig.health));
    assert!(!healthy && body.contains("queued: None") && body.contains("queued: Some"), "{body}");
}

#[test]
fn hz_3_a_first_sync_that_fails_is_unhealthy_and_waiting_for_the_lists_is_not() {
    let mut rig = Rig::known(false);
    rig.pass(SYNC_PERIOD * 3);
    rig.world.lock().broken = BOTH.to_vec();
    rig.step().unwrap();
    assert!(rig.health.is_healthy());
    rig.pass(SYNC_PERIOD * 2);
    assert!(!rig.health.is_healthy());
}

#[test]
fn hz_3_a_change_that_is_taken_back_waits_for_nothing() {
    let mut rig = Rig::running();
    rig.event(service("a", 9));
    rig.event(service("a", 1));
    rig.step().unwrap();
    rig.pass(SYNC_PERIOD * 3);
    assert!(rig.health.is_healthy());
    // What the kernel refuses of one Service does not make the proxy unhealthy: all others are served.
    rig.world.lock().answers.push_back(Answer::Refuses("a"));
    rig.event(slice("a", &["10.1.0.9"]));
    rig.step().unwrap();
    rig.world.lock().answers.extend((0..100).map(|_| Answer::Refuses("a")));
    rig.pass(SYNC_PERIOD * 3);
    assert!(rig.health.is_healthy());
}

#[test]
fn hz_4_the_loop_tells_whether_the_node_is_eligible() {
    let mut rig = Rig::running();
    let eligible = |rig: &Rig| rig.health.healthz().0;
    assert!(eligible(&rig));
    let node = |taints: Vec<String>| Event::Node(api::Node { name: NODE.to_owned(), taints, ..api::Node::default() });
    rig.event(node(vec!["ToBeDeletedByClusterAutoscaler".to_owned()]));
    assert!(!eligible(&rig));
    rig.event(node(Vec::new()));
    assert!(eligible(&rig));
    rig.event(Event::ListBegins(Kind::Node));
    rig.event(Event::ListDone(Kind::Node));
    assert!(!eligible(&rig));
}

/// A load balancer Service with a health check node port.
fn edge() -> Event {
    let Event::Service(service) = service("a", 1) else { panic!("a Service") };
    Event::Service(api::Service {
        service_type: Some("LoadBalancer".to_owned()),
        external_traffic_policy: Some("Local".to_owned()),
        health_check_node_port: Some(32000),
        ..service
    })
}

/// The updates of Services since the last look.
fn updates(rig: &mut Rig) -> Vec<(String, Option<(u16, u32)>)> {
    let all = std::iter::from_fn(|| rig.updates.updates.try_recv().ok());
    let services = all.filter_map(|update| match update {
        Update::Service(ServiceName { name, .. }, check) => {
            let shown = |HealthCheck { port, local_endpoints }| (port, local_endpoints);
            Some((name.to_string(), check.map(shown)))
        }
        _ => None,
    });
    services.collect()
}

/// The slice of "a" with its endpoints on this node.
fn here(event: Event) -> Event {
    let Event::EndpointSlice(mut slice) = event else { panic!("a slice") };
    slice.endpoints.iter_mut().for_each(|endpoint| endpoint.node_name = Some(NODE.to_owned()));
    Event::EndpointSlice(slice)
}

#[test]
fn hc_5_a_count_that_falls_is_told_at_once_and_one_that_rises_after_a_write() {
    let mut rig = Rig::running();
    let told = |check| vec![("a".to_owned(), check)];
    rig.event(edge());
    rig.event(here(slice("a", &["10.1.0.1", "10.1.0.2"])));
    rig.step().unwrap();
    assert_eq!(updates(&mut rig), told(Some((32000, 2))));
    rig.world.lock().broken = BOTH.to_vec();
    rig.event(here(slice("a", &["10.1.0.1", "10.1.0.2", "10.1.0.3"])));
    rig.pass(Duration::from_secs(10));
    assert_eq!(updates(&mut rig), []);
    rig.event(here(slice_with("a", &[], &["10.1.0.1", "10.1.0.2"], None)));
    rig.pass(Duration::from_secs(10));
    assert_eq!(updates(&mut rig), told(Some((32000, 0))));
    rig.event(here(slice("a", &["10.1.0.4"])));
    rig.pass(Duration::from_secs(10));
    assert_eq!(updates(&mut rig), []);
    // One family that follows is enough to serve.
    rig.world.lock().broken = vec![Family::V6];
    rig.pass(SYNC_PERIOD);
    assert_eq!(updates(&mut rig), told(Some((32000, 1))));
    // HC-7: the port closes although nothing can be written.
    rig.world.lock().broken = BOTH.to_vec();
    rig.event(service("a", 1));
    rig.pass(Duration::from_secs(10));
    assert_eq!(updates(&mut rig), told(None));
}
