//! Transactions that are committed, listed back and refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portway_kernel::nftables::{Bytes, Data, Element, Op, Rule, Set, Transaction, Verdict};
use portway_kernel::nftables::{CommitError, Connection, DynamicSets, HookPoint, NfTables, OwnPorts};
use portway_model::Family;

use crate::namespace::in_namespace;
use crate::nft::{nft, nft_list};
use crate::sample::{FRONTEND, Sample};

fn connection() -> Connection {
    Connection::open(&OwnPorts::default()).expect("a netlink socket")
}

/// A table with one verdict map.
fn with_services() -> (Transaction, Arc<Set>) {
    let services = Arc::new(Set::verdict_map("services", FRONTEND));
    (table([Op::AddTable, Op::AddSet(Arc::clone(&services))]), services)
}

fn table(ops: impl IntoIterator<Item = Op>) -> Transaction {
    let mut transaction = Transaction::new(Family::V4, "portway");
    for op in ops {
        transaction.push(op);
    }
    transaction
}

#[test]
fn nft_19_committed_objects_are_listed_back_equal() {
    in_namespace(|| {
        let mut connection = connection();
        for family in Family::ALL {
            let sample = Sample { family };
            let mut transaction = sample.transaction();
            transaction.push(Op::AddRule(sample.learning()));
            connection.commit(&transaction).expect("the kernel takes it");
            let snapshot = connection.snapshot(family, "portway", DynamicSets::List).expect("listed");
            assert!(snapshot.exists);

            let chains: Vec<_> = snapshot.chains.iter().map(|listed| listed.object.clone().expect("ours")).collect();
            assert_eq!(chains, sample.chains());

            let sets: Vec<_> = snapshot.sets.iter().map(|listed| listed.object.clone()).collect();
            let wanted: Vec<_> = sample.sets().iter().map(|set| Some(Set::clone(set))).collect();
            assert_eq!(sets, wanted);

            let by_chain = |rules: Vec<Rule>| {
                let mut chains = BTreeMap::<_, Vec<_>>::new();
                for rule in rules {
                    chains.entry(rule.chain.clone()).or_default().push(rule);
                }
                chains
            };
            let listed = by_chain(snapshot.rules.iter().map(|listed| listed.rule.clone()).collect());
            let wanted = by_chain(sample.rules().into_iter().chain([sample.learning()]).collect());
            for (chain, wanted) in wanted {
                assert_eq!(listed.get(&chain), Some(&wanted), "{family} {chain}");
            }

            for (name, mut elements) in snapshot.elements {
                let mut wanted = sample.elements(&name);
                elements.sort();
                wanted.sort();
                assert_eq!(elements, wanted, "{family} {name}");
            }
        }
    });
}

#[test]
fn nft_prints_the_table_and_takes_its_print_back_unchanged() {
    in_namespace(|| {
        let mut connection = connection();
        for family in Family::ALL {
            connection.commit(&Sample { family }.transaction()).expect("the kernel takes it");
        }
        let raw = nft(&["list", "ruleset"], "");
        assert!(
            raw.contains("typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport"),
            "{raw}"
        );
        let first = nft_list();
        nft(&["flush", "ruleset"], "");
        nft(&["-f", "-"], &raw);
        assert_eq!(nft_list(), first);
    });
}

/// Elements for that many frontends; `verdict` for all of them.
fn frontends(numbers: impl Iterator<Item = u32>, verdict: &Verdict) -> Vec<Element> {
    let key =
        |number: u32| Bytes::new().field(&(0x0a60_0000 + number).to_be_bytes()).field(&[6]).field(&80u16.to_be_bytes());
    numbers.map(|number| Element::new(key(number)).with(Data::Verdict(verdict.clone()))).collect()
}

#[test]
fn every_refused_element_is_named_with_its_operation_and_owner() {
    in_namespace(|| {
        let mut connection = connection();
        let (mut transaction, services) = with_services();
        let drop = Verdict::Drop;
        transaction.push(Op::AddElements { set: Arc::clone(&services), elements: frontends(0..5000, &drop) });
        connection.commit(&transaction).expect("all is well");

        // Three operations in one message: new elements, with two in them that have other data by now, and none to spare.
        let accept = Verdict::Accept;
        let clash = |numbers: [u32; 2]| {
            let mut elements = frontends(6000..6300, &accept);
            elements[20] = frontends(numbers[0]..=numbers[0], &accept).remove(0);
            elements[299] = frontends(numbers[1]..=numbers[1], &accept).remove(0);
            elements
        };
        let mut transaction = Transaction::new(Family::V4, "portway");
        let add = |elements| Op::AddElements { set: Arc::clone(&services), elements };
        transaction.push_for(70, add(frontends(7000..7010, &accept)));
        transaction.push_for(71, add(clash([1, 2])));
        transaction.push_for(72, add(frontends(3..4, &accept)));
        transaction.push_for(73, Op::FlushChain("nowhere".into()));
        transaction
            .push_for(74, Op::DeleteElements { set: Arc::clone(&services), elements: frontends(9000..9001, &drop) });
        let error = connection.commit(&transaction).expect_err("four are in the way");
        let CommitError::Refused(refused) = error else { panic!("{error}") };
        let named: Vec<_> =
            refused.iter().map(|r| (r.op, r.element, r.owner, r.source.raw_os_error().unwrap_or(0))).collect();
        let expected = [
            (1, Some(20), Some(71), libc::EEXIST),
            (1, Some(299), Some(71), libc::EEXIST),
            (2, Some(0), Some(72), libc::EEXIST),
            (3, None, Some(73), libc::ENOENT),
            (4, Some(0), Some(74), libc::ENOENT),
        ];
        assert_eq!(named, expected);
        let left = connection.elements(Family::V4, "portway", &services).expect("listed");
        assert_eq!(left.len(), 5000, "nothing of it was done");
    });
}

#[test]
fn a_transaction_made_for_an_earlier_generation_is_refused() {
    in_namespace(|| {
        let mut connection = connection();
        let generation = connection.generation().expect("a number");
        let (transaction, _) = with_services();
        connection.commit_at(&transaction, Some(generation)).expect("nothing happened meanwhile");
        assert!(matches!(connection.commit_at(&transaction, Some(generation)), Err(CommitError::Stale)));
        connection.commit(&transaction).expect("without a generation it is taken");
        let snapshot = connection.snapshot(Family::V4, "portway", DynamicSets::List).expect("listed");
        assert_eq!(snapshot.generation, generation + 2);
    });
}

#[test]
fn a_table_that_does_not_exist_has_an_empty_snapshot() {
    in_namespace(|| {
        let snapshot = connection().snapshot(Family::V6, "portway", DynamicSets::List).expect("listed");
        assert!(!snapshot.exists && snapshot.chains.is_empty() && snapshot.sets.is_empty());
    });
}

#[test]
fn destroying_works_with_and_without_a_table_and_leaves_others_alone() {
    in_namespace(|| {
        let mut connection = connection();
        nft(&["-f", "-"], "table ip other { set s { type ipv4_addr; elements = { 1.2.3.4 } }; }");
        let destroy = table([Op::DestroyTable]);
        connection.commit(&destroy).expect("there is none");
        let (transaction, _) = with_services();
        connection.commit(&transaction).expect("all is well");
        connection.commit(&destroy).expect("there is one");
        let names = connection.tables(Family::V4).expect("listed");
        assert_eq!(names, ["other".into()]);
        assert!(nft_list().contains("1.2.3.4"));
    });
}

#[test]
fn chains_rules_and_elements_are_replaced_and_deleted() {
    in_namespace(|| {
        let mut connection = connection();
        let sample = Sample { family: Family::V4 };
        connection.commit(&sample.transaction()).expect("all is well");
        let rules = connection.rules(Family::V4, "portway").expect("listed");
        let (old, new) = (&rules[0], Rule { comment: Some("new".into()), ..rules[0].rule.clone() });
        let of_c2 = rules.iter().find(|listed| *listed.rule.chain == *"c2").expect("there is one");
        let sets = sample.sets();
        let set = |name: &str| Arc::clone(sets.iter().find(|set| *set.name == *name).expect("there is one"));
        let ranges = sample.elements("ranges");
        let change = table([
            Op::ReplaceRule { handle: old.handle, rule: new.clone() },
            Op::DeleteRule { chain: "c2".into(), handle: of_c2.handle },
            Op::FlushChain("learn".into()),
            Op::DeleteChain("learn".into()),
            Op::DeleteElements { set: set("ranges"), elements: vec![ranges[1].clone()] },
            Op::DeleteElements { set: set("allowed"), elements: sample.elements("allowed") },
            Op::FlushSet("hairpin".into()),
            Op::DeleteSet("slots".into()),
        ]);
        connection.commit(&change).expect("all of it is there");
        let after = connection.snapshot(Family::V4, "portway", DynamicSets::List).expect("listed");
        assert_eq!(after.rules[0].rule, new);
        assert_eq!(after.rules.len(), rules.len() - 2);
        assert!(after.rules.iter().all(|listed| listed.handle != of_c2.handle));
        assert!(after.chains.iter().all(|listed| *listed.name != *"learn"));
        assert!(after.sets.iter().all(|listed| *listed.name != *"slots"));
        let elements = |name: &str| &after.elements.iter().find(|(set, _)| **set == *name).expect("there is one").1;
        assert_eq!(elements("ranges"), &[ranges[0].clone(), ranges[2].clone()]);
        assert!(elements("allowed").is_empty() && elements("hairpin").is_empty());
    });
}

#[test]
fn objects_that_other_programs_changed_never_compare_equal() {
    in_namespace(|| {
        let mut connection = connection();
        let sample = Sample { family: Family::V4 };
        connection.commit(&sample.transaction()).expect("all is well");
        nft(
            &["-f", "-"],
            "add chain ip portway forward { policy drop; }; add set ip portway mine { type ether_addr; }; \
            add rule ip portway learn ip dscp cs1 log accept",
        );
        let after = connection.snapshot(Family::V4, "portway", DynamicSets::List).expect("listed");
        let chain = after.chains.iter().find(|listed| *listed.name == *"forward").expect("there is one");
        assert_eq!(chain.object, None, "its policy is another");
        let set = after.sets.iter().find(|listed| *listed.name == *"mine").expect("there is one");
        assert_eq!(set.object, None, "its fields are none of portway's");
        let foreign = after.rules.iter().filter(|listed| !sample.rules().contains(&listed.rule)).count();
        assert_eq!(foreign, 1);
        // Writing the chain again puts its policy right.
        connection.commit(&table(sample.chains().into_iter().map(Op::AddChain))).expect("all of them are there");
        let chains = connection.chains(Family::V4, "portway").expect("listed");
        assert!(chains.iter().all(|listed| listed.object.is_some()));
    });
}

#[test]
fn chains_that_drop_by_default_are_listed_of_all_tables_at_a_hook() {
    in_namespace(|| {
        let mut connection = connection();
        let nobody = Family::ALL.map(|family| connection.dropping_chains(family, HookPoint::Forward).expect("listed"));
        assert_eq!(nobody, [vec![], vec![]]);
        nft(
            &["-f", "-"],
            "add table ip filter; add table ip6 filter; add table inet fw; add table bridge br
            add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
            add chain ip filter INPUT { type filter hook input priority 0; policy drop; }
            add chain ip6 filter FORWARD { type filter hook forward priority 0; policy accept; }
            add chain inet fw through { type filter hook forward priority 10; policy drop; }
            add chain inet fw plain
            add chain bridge br through { type filter hook forward priority 0; policy drop; }",
        );
        let mut seen = |family| -> Vec<String> {
            let chains = connection.dropping_chains(family, HookPoint::Forward).expect("listed");
            chains.iter().map(|chain| format!("{} {} {}", chain.family, chain.table, chain.chain)).collect()
        };
        assert_eq!(seen(Family::V4), ["inet fw through", "ip filter FORWARD"]);
        assert_eq!(seen(Family::V6), ["inet fw through"]);
    });
}

#[test]
fn nft_lists_the_learning_rules_and_elements_that_time_out() {
    in_namespace(|| {
        let mut connection = connection();
        for family in Family::ALL {
            let sample = Sample { family };
            let mut transaction = sample.transaction();
            transaction.push(Op::AddRule(sample.learning()));
            let affinity = sample.sets().into_iter().find(|set| *set.name == *"affinity").expect("there is one");
            let key = Bytes::new().field(&sample.address(1, 9));
            let key = sample.frontend(1, 6, 80).chunks(4).fold(key, Bytes::field);
            let element =
                Element { timeout: Some(Duration::from_secs(600)), ..Element::new(key).with(sample.backend(1, 8080)) };
            transaction.push(Op::AddElements { set: Arc::clone(&affinity), elements: vec![element.clone()] });
            connection.commit(&transaction).expect("all is well");
            let mut listed = connection.elements(family, "portway", &affinity).expect("listed");
            let expires = listed[0].expires.take().expect("it runs");
            assert!(expires <= Duration::from_secs(600) && expires > Duration::from_secs(590), "{expires:?}");
            assert_eq!(listed, [element]);
        }
        let print = nft(&["list", "ruleset"], "");
        assert!(
            print.contains("update @affinity { ct original ip saddr . ct original ip daddr . meta l4proto"),
            "{print}"
        );
        assert!(print.contains("10.1.0.9 . 10.96.0.1 . tcp . 80 timeout 10m expires"), "{print}");
        assert!(
            print.contains("update @affinity { ct original ip6 saddr . ct original ip6 daddr . meta l4proto"),
            "{print}"
        );
    });
}
