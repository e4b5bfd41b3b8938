//! Which flows Changes make stale, and which queries find them, on a conntrack table in memory.

use portway_dataplane::conntrack::Query;
use portway_model::testing::{config, node, service, slice};
use portway_model::{Config, Event, Family, NodePortSelection, ServiceName};

use crate::memory::Memory;
use crate::world::{World, dns, endpoints};

/// A flow, and whether it is stale.
type Row = (&'static str, bool);

/// Asserts that one pass over a cluster with these objects deletes exactly the flows marked stale.
fn assert_stale(memory: &Memory, events: impl IntoIterator<Item = Event>, rows: &[Row]) {
    for (flow, _) in rows {
        memory.add(flow);
    }
    World::new(memory.clone(), events).run();
    let left: Vec<_> = rows.iter().filter(|(_, stale)| !stale).map(|(flow, _)| (*flow).to_owned()).collect();
    assert_eq!(memory.flows(), left);
}

#[test]
fn ct_3_stale_flows_to_every_kind_of_address_are_deleted() {
    let everywhere = dns().external_ip("203.0.113.5").ingress("203.0.113.6");
    assert_stale(
        &Memory::default(),
        [everywhere.event(), endpoints(["10.0.0.1", "10.0.0.2"]).event()],
        &[
            ("10.96.0.10:53 < 10.0.0.1:5353", false),
            ("10.96.0.10:53 < 10.0.0.2:5353", false),
            ("10.96.0.10:53 < 10.0.0.3:5353", true),
            ("10.96.0.10:53 < 10.0.0.1:5354", true),
            ("10.96.0.10:53", true),
            ("10.96.0.10:54 < 10.0.0.3:5353", false),
            ("10.96.0.11:53 < 10.0.0.3:5353", false),
            ("203.0.113.5:53 < 10.0.0.1:5353", false),
            ("203.0.113.5:53 < 10.0.0.3:5353", true),
            ("203.0.113.6:53 < 10.0.0.3:5353", true),
            ("203.0.113.6:53", true),
            ("203.0.113.7:53", false),
            ("192.0.2.1:30053 < 10.0.0.1:5353", false),
            ("192.0.2.1:30053 < 10.0.0.3:5353", true),
            ("192.0.2.1:30053", true),
            ("8.8.8.8:30053", false),
            ("8.8.8.8:30053 < 10.0.0.3:5353", false),
            ("10.0.0.3:5353", false),
        ],
    );
}

#[test]
fn ct_3_both_families_are_cleaned() {
    let six = service("ns/six").cluster_ip("fd00:96::10").port("dns", 53).protocol("UDP");
    let slice = slice("ns/six-1", "six").port("dns", 5353).protocol("UDP").endpoint("fd00::1");
    assert_stale(
        &Memory::default(),
        [six.event(), slice.event(), dns().event(), endpoints(["10.0.0.1"]).event()],
        &[
            ("[fd00:96::10]:53 < [fd00::1]:5353", false),
            ("[fd00:96::10]:53 < [fd00::2]:5353", true),
            ("[fd00:96::10]:53", true),
            ("10.96.0.10:53 < 10.0.0.2:5353", true),
        ],
    );
}

#[test]
fn ct_3_a_draining_endpoint_keeps_its_flows_until_it_serves_no_more() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1", "10.0.0.2"]).event()]);
    world.run_both_passes();
    memory.add("10.96.0.10:53 < 10.0.0.2:5353");
    world.apply([endpoints(["10.0.0.1", "10.0.0.2"]).terminating().event()]);
    assert_eq!(world.run(), 0);
    world.apply([endpoints(["10.0.0.1", "10.0.0.2"]).conditions(false, false, true).event()]);
    assert_eq!(world.run(), 1);
}

#[test]
fn ct_3_a_policy_change_deletes_no_flow() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    memory.add("192.0.2.1:30053 < 10.0.0.1:5353");
    memory.queries();
    world.apply([dns().internal_local().external_local().affinity(600).event()]);
    assert_eq!(world.run(), 0);
    assert_eq!(memory.queries(), [], "the kernel was not even asked");
}

#[test]
fn ct_3_an_added_endpoint_makes_no_flow_stale() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.queries();
    world.apply([endpoints(["10.0.0.1", "10.0.0.2"]).event()]);
    assert_eq!(world.run(), 0);
    assert_eq!(memory.queries(), []);
    assert_eq!(world.conntrack.second_pass_at(), None);
}

#[test]
fn ct_3_a_change_queries_only_the_addresses_that_it_touches() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.queries();
    world.apply([endpoints(["10.0.0.2"]).event()]);
    world.run();
    let endpoint = Query::ReplySource("10.0.0.1:5353".parse().expect("an address"));
    assert_eq!(memory.queries(), [endpoint], "one query for cluster IP and NodePort");
    world.apply([endpoints([]).event()]);
    world.run_both_passes();
    memory.queries();
    world.apply([endpoints(["10.0.0.3"]).event()]);
    world.run();
    let cluster_ip = Query::Destination("10.96.0.10:53".parse().expect("an address"));
    assert_eq!(memory.queries(), [cluster_ip, Query::Port(Family::V4, 30053)]);

    let many = |address: &str| {
        let service =
            |i: u32| service(&format!("ns/s{i}")).cluster_ip(&format!("10.96.1.{i}")).port("p", 53).protocol("UDP");
        let slice = |i| slice(&format!("ns/s{i}-1"), &format!("s{i}")).port("p", 53).protocol("UDP").endpoint(address);
        (1..100).flat_map(|i| [service(i).event(), slice(i).event()]).collect::<Vec<_>>()
    };
    world.apply(many("10.0.0.1"));
    world.run_both_passes();
    memory.queries();
    memory.add("10.96.1.7:53 < 10.0.0.1:53");
    memory.add("10.96.1.7:53 < 10.0.0.2:53");
    world.apply(many("10.0.0.2"));
    assert_eq!(world.run(), 1);
    let endpoint = Query::ReplySource("10.0.0.1:53".parse().expect("an address"));
    assert_eq!(memory.queries(), [endpoint], "one query for 99 Services");
    assert_eq!(memory.flows(), ["10.96.1.7:53 < 10.0.0.2:53"]);
    world.apply(many("10.0.0.3").into_iter().map(|event| match event {
        Event::EndpointSlice(slice) => Event::EndpointSliceGone { namespace: slice.namespace, name: slice.name },
        other => other,
    }));
    world.run_both_passes();
    memory.queries();
    world.apply(many("10.0.0.4"));
    world.run();
    assert_eq!(memory.queries(), [Query::Family(Family::V4)], "99 queries are too many: one dump of all UDP flows");
}

#[test]
fn ct_4_a_service_without_endpoints_keeps_no_flows() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    memory.add("192.0.2.1:30053 < 10.0.0.1:5353");
    world.apply([endpoints([]).event()]);
    assert_eq!(world.run(), 2);
}

#[test]
fn ct_4_the_first_endpoint_deletes_untranslated_flows() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints([]).event()]);
    world.run_both_passes();
    memory.add("10.96.0.10:53");
    world.apply([endpoints(["10.0.0.1"]).event()]);
    assert_eq!(world.run(), 1);

    memory.add("10.96.0.20:53");
    let later = service("ns/later").cluster_ip("10.96.0.20").port("dns", 53).protocol("UDP");
    let its = slice("ns/later-1", "later").port("dns", 53).protocol("UDP").endpoint("10.0.0.1");
    world.apply([later.event(), its.event()]);
    assert_eq!(world.run(), 1, "or before the Service was known at all");
}

#[test]
fn ct_5_tcp_and_sctp_services_delete_no_flow() {
    let memory = Memory::default();
    let of = |protocol: &str| {
        let name = protocol.to_ascii_lowercase();
        let service = service(&format!("ns/{name}")).cluster_ip("10.96.0.10").port("p", 53).protocol(protocol);
        [
            service.event(),
            slice(&format!("ns/{name}-1"), &name).port("p", 53).protocol(protocol).endpoint("10.0.0.1").event(),
        ]
    };
    memory.add("10.96.0.10:53");
    memory.add("10.96.0.10:53 < 10.0.0.3:53");
    let mut world = World::new(memory.clone(), of("TCP").into_iter().chain(of("SCTP")));
    assert_eq!(world.run(), 0, "UDP to the same address and port is none of theirs");
    assert_eq!(memory.queries(), []);
}

#[test]
fn ct_3_a_removed_address_loses_its_translated_flows() {
    let memory = Memory::default();
    let mut world =
        World::new(memory.clone(), [dns().external_ip("203.0.113.5").event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.add("203.0.113.5:53 < 10.0.0.1:5353");
    memory.add("203.0.113.5:53");
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    world.apply([dns().event()]);
    assert_eq!(world.run(), 1);
    assert_eq!(memory.flows(), ["203.0.113.5:53", "10.96.0.10:53 < 10.0.0.1:5353"]);
}

#[test]
fn ct_3_an_address_that_moves_to_another_service_keeps_the_new_owners_flows() {
    let memory = Memory::default();
    let external =
        |name: &str, ip: &str| service(name).cluster_ip(ip).port("p", 53).protocol("UDP").external_ip("203.0.113.5");
    let its = |slice_name: &str, service: &str, address: &str| {
        slice(slice_name, service).port("p", 53).protocol("UDP").endpoint(address).event()
    };
    let first = external("ns/a", "10.96.0.1");
    let second = external("ns/b", "10.96.0.2");
    let mut world = {
        let events = [first.event(), its("ns/a-1", "a", "10.0.0.1"), its("ns/b-1", "b", "10.0.0.2")];
        World::new(memory.clone(), events)
    };
    world.apply([second.event()]);
    world.run_both_passes();
    memory.add("203.0.113.5:53 < 10.0.0.1:53");
    memory.add("203.0.113.5:53 < 10.0.0.2:53");
    world.apply([Event::ServiceGone(ServiceName::new("ns", "a"))]);
    world.run();
    assert_eq!(memory.flows(), ["203.0.113.5:53 < 10.0.0.2:53"]);
}

#[test]
fn ct_3_new_node_port_addresses_are_cleaned() {
    let memory = Memory::on_node(&["192.0.2.1", "198.51.100.1"]);
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.add("192.0.2.9:30053");
    memory.add("198.51.100.1:30053");
    world.apply([node("node-a").internal_ip("192.0.2.9").event()]);
    world.run();
    assert_eq!(memory.flows(), ["198.51.100.1:30053"], "it became a NodePort address, the other never was one");

    let everywhere = Config { node_port_addresses: NodePortSelection::All, ..config("node-a") };
    World::configured(memory.clone(), everywhere, [dns().event(), endpoints(["10.0.0.1"]).event()]).run();
    assert_eq!(memory.flows(), [""; 0], "all of the node's addresses");
}

#[test]
fn ct_3_a_second_pass_deletes_what_a_packet_in_flight_added() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    world.apply([endpoints(["10.0.0.2"]).event()]);
    assert_eq!(world.run(), 1);
    // It had read the old rules before they changed, and its entry came after the first pass.
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    assert_eq!(world.run(), 0, "not before its time");
    let at = world.conntrack.second_pass_at().expect("a second pass");
    std::thread::sleep(at.saturating_duration_since(std::time::Instant::now()));
    assert_eq!(world.run(), 1);
    assert_eq!(world.conntrack.second_pass_at(), None, "and not for ever");
}

#[test]
fn ct_3_a_second_pass_spares_endpoints_that_are_active_again() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    world.apply([endpoints(["10.0.0.2"]).event()]);
    world.run();
    world.apply([endpoints(["10.0.0.2", "10.0.0.1"]).event()]);
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    world.run_both_passes();
    assert_eq!(memory.flows(), ["10.96.0.10:53 < 10.0.0.1:5353"], "it serves again");
}

#[test]
fn ct_3_a_failed_pass_stays_pending() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run_both_passes();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    memory.fail(true);
    world.apply([endpoints(["10.0.0.2"]).event()]);
    let cleaned = world.conntrack.run();
    let error = cleaned[0].error.as_ref().expect("a failure").to_string();
    assert!(error.starts_with("delete conntrack entries"), "{error}");
    memory.fail(false);
    assert_eq!(world.run(), 1);
    assert!(world.conntrack.second_pass_at().is_some());
}

#[test]
fn ct_3_a_first_pass_runs_no_queries_of_second_passes() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run();
    memory.queries();
    world.apply([endpoints(["10.0.0.2"]).event()]);
    world.run();
    let lost = |address: &str| Query::ReplySource(format!("{address}:5353").parse().expect("an address"));
    assert_eq!(memory.queries(), [lost("10.0.0.1")], "the start's second pass asks for more, in its time");
    world.apply([endpoints(["10.0.0.1"]).event()]);
    world.run();
    assert_eq!(memory.queries(), [lost("10.0.0.2")], "the first serves again");
    world.run_both_passes();
}
