//! Which flows are stale.

use portway_dataplane::conntrack::Query;
use portway_model::testing::{config, node, service, slice};
use portway_model::{Config, Event, Family, NodePortSelection, ServiceName};

use crate::memory::Memory;
use crate::world::{World, dns, endpoints};

/// A flow, and whether it is stale.
type Row = (&'static str, bool);

/// What is deleted of these flows in one pass over a cluster with these objects.
fn check(memory: &Memory, events: impl IntoIterator<Item = Event>, rows: &[Row]) {
    for (flow, _) in rows {
        memory.add(flow);
    }
    World::new(memory.clone(), events).run();
    let left: Vec<_> = rows.iter().filter(|(_, stale)| !stale).map(|(flow, _)| (*flow).to_owned()).collect();
    assert_eq!(memory.flows(), left);
}

#[test]
fn ct_3_flows_to_every_kind_of_address_go_unless_what_answers_serves() {
    let everywhere = dns().external_ip("203.0.113.5").ingress("203.0.113.6");
    check(
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
fn ct_3_both_families() {
    let six = service("ns/six").cluster_ip("fd00:96::10").port("dns", 53).protocol("UDP");
    let slice = slice("ns/six-1", "six").port("dns", 5353).protocol("UDP").endpoint("fd00::1");
    check(
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
    world.collect_garbage();
    memory.add("10.96.0.10:53 < 10.0.0.2:5353");
    world.tell([endpoints(["10.0.0.1", "10.0.0.2"]).terminating().event()]);
    assert_eq!(world.run(), 0);
    world.tell([endpoints(["10.0.0.1", "10.0.0.2"]).conditions(false, false, true).event()]);
    assert_eq!(world.run(), 1);
}

#[test]
fn ct_3_policies_of_the_service_leave_flows_where_they_are() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    memory.add("192.0.2.1:30053 < 10.0.0.1:5353");
    memory.queries();
    world.tell([dns().internal_local().external_local().affinity(600).event()]);
    assert_eq!(world.run(), 0);
    assert_eq!(memory.queries(), [], "the kernel was not even asked");
}

#[test]
fn ct_3_more_endpoints_make_nothing_stale() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.queries();
    world.tell([endpoints(["10.0.0.1", "10.0.0.2"]).event()]);
    assert_eq!(world.run(), 0);
    assert_eq!(memory.queries(), []);
    assert_eq!(world.conntrack.second_pass_at(), None);
}

#[test]
fn ct_3_the_kernel_is_asked_for_the_addresses_concerned_alone() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.queries();
    world.tell([endpoints(["10.0.0.2"]).event()]);
    world.run();
    let endpoint = Query::ReplySource("10.0.0.1:5353".parse().expect("an address"));
    assert_eq!(memory.queries(), [endpoint], "one question for cluster IP and NodePort");
    world.tell([endpoints([]).event()]);
    world.collect_garbage();
    memory.queries();
    world.tell([endpoints(["10.0.0.3"]).event()]);
    world.run();
    let cluster_ip = Query::Destination("10.96.0.10:53".parse().expect("an address"));
    assert_eq!(memory.queries(), [cluster_ip, Query::Port(Family::V4, 30053)]);

    let many = |address: &str| {
        let service =
            |i: u32| service(&format!("ns/s{i}")).cluster_ip(&format!("10.96.1.{i}")).port("p", 53).protocol("UDP");
        let slice = |i| slice(&format!("ns/s{i}-1"), &format!("s{i}")).port("p", 53).protocol("UDP").endpoint(address);
        (1..100).flat_map(|i| [service(i).event(), slice(i).event()]).collect::<Vec<_>>()
    };
    world.tell(many("10.0.0.1"));
    world.collect_garbage();
    memory.queries();
    memory.add("10.96.1.7:53 < 10.0.0.1:53");
    memory.add("10.96.1.7:53 < 10.0.0.2:53");
    world.tell(many("10.0.0.2"));
    assert_eq!(world.run(), 1);
    let endpoint = Query::ReplySource("10.0.0.1:53".parse().expect("an address"));
    assert_eq!(memory.queries(), [endpoint], "one question for 99 Services");
    assert_eq!(memory.flows(), ["10.96.1.7:53 < 10.0.0.2:53"]);
    world.tell(many("10.0.0.3").into_iter().map(|event| match event {
        Event::EndpointSlice(slice) => Event::EndpointSliceGone { namespace: slice.namespace, name: slice.name },
        other => other,
    }));
    world.collect_garbage();
    memory.queries();
    world.tell(many("10.0.0.4"));
    world.run();
    assert_eq!(memory.queries(), [Query::Family(Family::V4)], "99 questions are too many: one list of all");
}

#[test]
fn ct_4_services_without_endpoints_are_cleaned_too() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    memory.add("192.0.2.1:30053 < 10.0.0.1:5353");
    world.tell([endpoints([]).event()]);
    assert_eq!(world.run(), 2);
}

#[test]
fn ct_4_flows_that_began_before_there_were_endpoints_go_when_they_come() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints([]).event()]);
    world.collect_garbage();
    memory.add("10.96.0.10:53");
    world.tell([endpoints(["10.0.0.1"]).event()]);
    assert_eq!(world.run(), 1);

    memory.add("10.96.0.20:53");
    let later = service("ns/later").cluster_ip("10.96.0.20").port("dns", 53).protocol("UDP");
    let its = slice("ns/later-1", "later").port("dns", 53).protocol("UDP").endpoint("10.0.0.1");
    world.tell([later.event(), its.event()]);
    assert_eq!(world.run(), 1, "or before the Service was known at all");
}

#[test]
fn ct_5_tcp_and_sctp_are_left_alone() {
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
fn ct_3_an_address_that_is_no_services_any_more_loses_what_was_translated() {
    let memory = Memory::default();
    let mut world =
        World::new(memory.clone(), [dns().external_ip("203.0.113.5").event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.add("203.0.113.5:53 < 10.0.0.1:5353");
    memory.add("203.0.113.5:53");
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    world.tell([dns().event()]);
    assert_eq!(world.run(), 1);
    assert_eq!(memory.flows(), ["203.0.113.5:53", "10.96.0.10:53 < 10.0.0.1:5353"]);
}

#[test]
fn ct_3_an_address_that_passes_to_another_service_goes_by_its_new_owner() {
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
    world.tell([second.event()]);
    world.collect_garbage();
    memory.add("203.0.113.5:53 < 10.0.0.1:53");
    memory.add("203.0.113.5:53 < 10.0.0.2:53");
    world.tell([Event::ServiceGone(ServiceName::new("ns", "a"))]);
    world.run();
    assert_eq!(memory.flows(), ["203.0.113.5:53 < 10.0.0.2:53"]);
}

#[test]
fn ct_3_node_ports_follow_the_addresses_at_which_they_answer() {
    let memory = Memory::on_node(&["192.0.2.1", "198.51.100.1"]);
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.add("192.0.2.9:30053");
    memory.add("198.51.100.1:30053");
    world.tell([node("node-a").internal_ip("192.0.2.9").event()]);
    world.run();
    assert_eq!(memory.flows(), ["198.51.100.1:30053"], "it became a NodePort address, the other never was one");

    let everywhere = Config { node_port_addresses: NodePortSelection::All, ..config("node-a") };
    World::configured(memory.clone(), everywhere, [dns().event(), endpoints(["10.0.0.1"]).event()]).run();
    assert_eq!(memory.flows(), [""; 0], "all of the node's addresses");
}

#[test]
fn ct_3_a_second_pass_catches_what_a_packet_in_flight_added() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    world.tell([endpoints(["10.0.0.2"]).event()]);
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
fn ct_3_a_second_pass_goes_by_who_serves_then() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    world.tell([endpoints(["10.0.0.2"]).event()]);
    world.run();
    world.tell([endpoints(["10.0.0.2", "10.0.0.1"]).event()]);
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    world.collect_garbage();
    assert_eq!(memory.flows(), ["10.96.0.10:53 < 10.0.0.1:5353"], "it serves again");
}

#[test]
fn ct_3_what_fails_stays_to_be_done() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.collect_garbage();
    memory.add("10.96.0.10:53 < 10.0.0.1:5353");
    memory.fail(true);
    world.tell([endpoints(["10.0.0.2"]).event()]);
    let cleaned = world.conntrack.run();
    let error = cleaned[0].error.as_ref().expect("a failure").to_string();
    assert!(error.starts_with("delete conntrack entries"), "{error}");
    memory.fail(false);
    assert_eq!(world.run(), 1);
    assert!(world.conntrack.second_pass_at().is_some());
}

#[test]
fn ct_3_what_is_new_does_not_wait_for_the_questions_of_second_passes() {
    let memory = Memory::default();
    let mut world = World::new(memory.clone(), [dns().event(), endpoints(["10.0.0.1"]).event()]);
    world.run();
    memory.queries();
    world.tell([endpoints(["10.0.0.2"]).event()]);
    world.run();
    let lost = |address: &str| Query::ReplySource(format!("{address}:5353").parse().expect("an address"));
    assert_eq!(memory.queries(), [lost("10.0.0.1")], "the start's second pass asks for more, in its time");
    world.tell([endpoints(["10.0.0.1"]).event()]);
    world.run();
    assert_eq!(memory.queries(), [lost("10.0.0.2")], "the first serves again");
    world.collect_garbage();
}
