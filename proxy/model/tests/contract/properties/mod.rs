//! Properties that hold for all objects, in any order of events.

mod hostile;
mod small;

use std::collections::HashMap;

use portway_model::{Change, Cluster, Event, Family, Kind, Plan, api};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::inspect::assert_sound;

/// Applies a Change to a Plan, as a dataplane that has only the old Plan would.
fn apply(plan: &mut Plan, change: &Change) {
    if let Some(settings) = &change.settings {
        assert_eq!(plan.settings, settings.before);
        assert_ne!(settings.before, settings.after);
        plan.settings = settings.after.clone();
    }
    assert!(change.services.is_sorted_by(|a, b| a.name < b.name));
    for service in &change.services {
        assert_ne!(service.before, service.after);
        let before = match &service.after {
            Some(after) => plan.services.insert(service.name.clone(), after.clone()),
            None => plan.services.remove(&service.name),
        };
        assert_eq!(before, service.before);
    }
}

fn ingest_all(cluster: &mut Cluster, events: impl IntoIterator<Item = Event>) {
    for event in events {
        cluster.ingest(event);
    }
}

proptest! {
    #[test]
    fn no_object_that_the_api_can_hold_panics_the_model(
        config in small::configuration(),
        events in vec((hostile::event(), any::<bool>()), 0..25),
    ) {
        let mut cluster = Cluster::new(config);
        for (event, drain) in events {
            cluster.ingest(event);
            if drain {
                cluster.drain();
                assert_sound(&cluster);
            }
        }
        cluster.drain();
        assert_sound(&cluster);
        prop_assert!(!cluster.is_dirty());
        prop_assert!(cluster.drain().0.is_empty());
    }

    #[test]
    fn changes_one_by_one_give_the_same_plan_as_all_at_once(
        config in small::configuration(),
        events in vec(small::event(), 0..40),
    ) {
        let mut at_once = Cluster::new(config.clone());
        ingest_all(&mut at_once, events.clone());
        at_once.drain();
        let mut one_by_one = Cluster::new(config);
        for event in events {
            one_by_one.ingest(event);
            one_by_one.drain();
        }
        prop_assert_eq!(one_by_one.plan(), at_once.plan());
        prop_assert_eq!(one_by_one.stats(), at_once.stats());
        for family in Family::ALL {
            prop_assert_eq!(one_by_one.family_stats(family), at_once.family_stats(family));
        }
        assert_sound(&one_by_one);
    }

    #[test]
    fn changes_lead_from_each_plan_to_the_next_and_merged_from_the_first_to_the_last(
        config in small::configuration(),
        events in vec((small::event(), any::<bool>()), 0..40),
    ) {
        let mut cluster = Cluster::new(config);
        let first = cluster.plan().clone();
        let mut plan = first.clone();
        let mut merged = Change::default();
        for (event, drain) in events {
            let dirty_before = cluster.is_dirty();
            cluster.ingest(event);
            if !drain {
                continue;
            }
            let dirty = cluster.is_dirty();
            let (change, _) = cluster.drain();
            prop_assert!(dirty || change.is_empty(), "a Change from a cluster that was clean ({dirty_before})");
            apply(&mut plan, &change);
            prop_assert_eq!(&plan, cluster.plan());
            merged = merged.then(change);
        }
        let mut jumped = first;
        apply(&mut jumped, &merged);
        prop_assert_eq!(&jumped, &plan);
    }

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(
        config in small::configuration(),
        services in vec(small::service(), 0..12),
        slices in vec(small::slice(), 0..16),
        rest in (small::node(), small::service_cidr(), small::interface_addresses(), small::route_sources()),
        seed in any::<prop::sample::Index>(),
        drains in any::<u64>(),
    ) {
        let services: HashMap<_, _> = services.into_iter().map(|s| ((s.namespace.clone(), s.name.clone()), s)).collect();
        let slices: HashMap<_, _> = slices.into_iter().map(|s| ((s.namespace.clone(), s.name.clone()), s)).collect();
        let (node, cidr, addresses, routes) = rest;
        let mut events = vec![Event::Node(node), Event::ServiceCidr(cidr), Event::InterfaceAddresses(addresses)];
        events.push(Event::RouteSources(routes));
        events.extend(services.into_values().map(Event::Service));
        events.extend(slices.into_values().map(Event::EndpointSlice));
        let mut one = Cluster::new(config.clone());
        ingest_all(&mut one, events.clone());
        one.drain();

        // Another order, with drains in between.
        let turn = seed.index(events.len());
        events.rotate_left(turn);
        events.reverse();
        let mut other = Cluster::new(config);
        for (index, event) in events.into_iter().enumerate() {
            other.ingest(event);
            if drains >> (index % 64) & 1 == 1 {
                other.drain();
            }
        }
        other.drain();
        prop_assert_eq!(one.plan(), other.plan());
        prop_assert_eq!(one.stats(), other.stats());
    }

    #[test]
    fn the_same_objects_again_cause_no_change_and_no_problem(
        config in small::configuration(),
        services in vec(hostile::event(), 0..25),
    ) {
        let object = |event: &Event| matches!(event, Event::Service(_) | Event::EndpointSlice(_) | Event::Node(_));
        let events: Vec<Event> = services.into_iter().filter(object).collect();
        let mut cluster = Cluster::new(config);
        for event in events {
            cluster.ingest(event.clone());
            cluster.drain();
            prop_assert_eq!(cluster.ingest(event), []);
            prop_assert!(!cluster.is_dirty());
        }
    }

    #[test]
    fn only_objects_named_by_a_new_list_are_left(
        config in small::configuration(),
        events in vec(small::event(), 0..30),
        services in vec(small::service(), 0..6),
        slices in vec(small::slice(), 0..6),
    ) {
        let mut cluster = Cluster::new(config.clone());
        ingest_all(&mut cluster, events);
        let mut fresh = Cluster::new(config);
        let node = Event::Node(api::Node { name: "node-a".to_owned(), ..api::Node::default() });
        for cluster in [&mut cluster, &mut fresh] {
            ingest_all(cluster, [node.clone(), Event::InterfaceAddresses(Vec::new())]);
            for kind in [Kind::Service, Kind::EndpointSlice, Kind::ServiceCidr] {
                cluster.ingest(Event::ListBegins(kind));
            }
            ingest_all(cluster, services.iter().cloned().map(Event::Service));
            ingest_all(cluster, slices.iter().cloned().map(Event::EndpointSlice));
            for kind in [Kind::Service, Kind::EndpointSlice, Kind::ServiceCidr] {
                cluster.ingest(Event::ListDone(kind));
            }
            cluster.drain();
        }
        prop_assert_eq!(cluster.plan(), fresh.plan());
        prop_assert_eq!(cluster.stats(), fresh.stats());
    }
}
