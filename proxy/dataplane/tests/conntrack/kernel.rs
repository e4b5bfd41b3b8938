//! Conntrack clean-up on the kernel's table.

use std::time::Instant;

use portway_dataplane::conntrack::{ConntrackSocket, ConntrackTable, Query};
use portway_model::Family;

use crate::entries::{crowd, insert, udp};
use crate::namespace::in_namespace;
use crate::world::{World, dns, endpoints};

const CLIENT: &str = "10.0.9.9:40000";

/// What a query finds, as "destination < reply source".
fn found(table: &mut ConntrackSocket, query: Query) -> Vec<String> {
    let (flows, _) = table.list(&query).expect("listed");
    let mut text: Vec<_> = flows.iter().map(|flow| format!("{} < {}", flow.destination, flow.reply_source)).collect();
    text.sort();
    text
}

#[test]
fn ct_3_thousands_of_stale_flows_are_deleted_and_other_flows_stay() {
    in_namespace(|| {
        let table = ConntrackSocket::open().expect("conntrack");
        let mut world = World::new(table, [dns().event(), endpoints(["10.0.0.1", "10.0.0.2"]).event()]);
        world.run_both_passes();
        // All together below the smallest table that a small machine has.
        insert(crowd(3_000));
        let client = |i: u32| format!("10.0.{}.{}:40000", 8 + i / 250, 1 + i % 250);
        insert((0..2_000).map(|i| udp(&client(i), &format!("10.96.0.10:53 < 10.0.0.{}:5353", 1 + i % 2))));
        insert((0..10).map(|i| udp(&client(i), "10.96.0.10:53 < 10.0.0.2:5353").tcp()));
        world.apply([endpoints(["10.0.0.1"]).event()]);
        assert_eq!(world.run(), 1_000);
        let mut table = ConntrackSocket::open().expect("conntrack");
        assert_eq!(found(&mut table, Query::Family(Family::V4)).len(), 3_000 + 1_000);
    });
}

#[test]
fn ct_3_a_second_pass_deletes_what_came_after_the_first() {
    in_namespace(|| {
        let table = ConntrackSocket::open().expect("conntrack");
        let mut world = World::new(table, [dns().event(), endpoints(["10.0.0.1"]).event()]);
        world.run_both_passes();
        insert([udp(CLIENT, "10.96.0.10:53 < 10.0.0.1:5353")]);
        world.apply([endpoints(["10.0.0.2"]).event()]);
        assert_eq!(world.run(), 1);
        insert([udp(CLIENT, "10.96.0.10:53 < 10.0.0.1:5353"), udp("10.0.9.8:1", "10.96.0.10:53 < 10.0.0.2:5353")]);
        let at = world.conntrack.second_pass_at().expect("a second pass");
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        assert_eq!(world.run(), 1);
        let mut table = ConntrackSocket::open().expect("conntrack");
        assert_eq!(found(&mut table, Query::Family(Family::V4)), ["10.96.0.10:53 < 10.0.0.2:5353"]);
    });
}

#[test]
fn ct_3_node_ports_of_all_addresses_ask_the_kernel_which_those_are() {
    in_namespace(|| {
        crate::ip::add_address("203.0.113.77/32");
        let mut table = ConntrackSocket::open().expect("conntrack");
        let local = table.local_addresses(Family::V4).expect("addresses");
        assert_eq!(local, ["203.0.113.77".parse::<std::net::IpAddr>().expect("an address")]);
    });
}
