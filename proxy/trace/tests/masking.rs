//! Nothing of the original is left in a masked trace, and what belonged together still does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use portway_trace::{Masked, Masker, ObjectName, keep};
use serde_json::{Value, json};

const KINDS: [(&str, &str); 4] = [
    ("v1", "Service"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("v1", "Node"),
    ("networking.k8s.io/v1", "ServiceCIDR"),
];

/// An object of each kind, as a real server holds it: every text of the cluster's own has `secret` in it, every address
/// begins with 10.77 or fd77:77.
fn objects() -> [Value; 4] {
    let metadata = |name: &str| {
        json!({
            "namespace": "secret-shop", "name": name, "generateName": "secret-", "uid": "secret-uid", "resourceVersion": "1",
            "labels": {
                "kubernetes.io/service-name": "secret-web", "secret.example/label": "secret",
                "topology.kubernetes.io/zone": "secret-zone", "kubernetes.io/hostname": "secret-node",
            },
            "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": "secret",
                "service.kubernetes.io/topology-mode": "secret", "kubectl.kubernetes.io/last-applied-configuration": "secret",
                "secret.example/annotation": "10.77.9.9",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "secret-web", "uid": "secret"}],
            "managedFields": [{"manager": "secret", "fieldsV1": {"f:secret": {}}}],
            "finalizers": ["secret.example/finalizer"],
        })
    };
    [
        json!({
            "metadata": metadata("secret-web"),
            "spec": {
                "type": "secret", "clusterIP": "10.77.0.1", "clusterIPs": ["10.77.0.1", "fd77:77::1", "secret"],
                "ipFamilies": ["secret"], "ipFamilyPolicy": "secret", "externalIPs": ["10.77.0.2", "010.077.000.002"],
                "externalName": "secret.example", "selector": {"secret": "secret"}, "loadBalancerIP": "10.77.0.9",
                "loadBalancerClass": "secret.example/class", "trafficDistribution": "secret",
                "ports": [{
                    "name": "secret-http", "protocol": "secret", "port": 80, "nodePort": 30080, "targetPort": "secret",
                    "appProtocol": "secret.example/h2",
                }],
                "sessionAffinity": "secret", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}, "secret": "secret"},
                "internalTrafficPolicy": "secret", "externalTrafficPolicy": "secret",
                "loadBalancerSourceRanges": ["10.77.0.0/16", " 10.77.0.0/24 ", "secret", "10.77.0.3"],
                "healthCheckNodePort": 30081, "secret": {"secret": ["secret"]},
            },
            "status": {
                "loadBalancer": {"ingress": [{
                    "ip": "10.77.0.4", "hostname": "secret.example", "ipMode": "secret", "ports": [{"error": "secret"}],
                }]},
                "conditions": [{"type": "secret", "message": "secret 10.77.0.1"}],
            },
        }),
        json!({
            "metadata": metadata("secret-web-x7k2p"),
            "addressType": "secret",
            "endpoints": [{
                "addresses": ["10.77.1.1", "fd77:77::1:1", "secret.example"],
                "conditions": {"ready": true, "serving": false, "terminating": true, "secret": "secret"},
                "hostname": "secret", "nodeName": "secret-node", "zone": "secret-zone",
                "targetRef": {"kind": "Pod", "namespace": "secret-shop", "name": "secret-pod", "uid": "secret"},
                "hints": {"forZones": [{"name": "secret-zone"}], "forNodes": [{"name": "secret-node"}]},
                "deprecatedTopology": {"secret": "secret"},
            }],
            "ports": [{"name": "secret-http", "protocol": "TCP", "port": 8080, "appProtocol": "secret"}],
        }),
        json!({
            "metadata": metadata("secret-node"),
            "spec": {
                "podCIDR": "10.77.1.0/24", "podCIDRs": ["10.77.1.0/24", "fd77:77::1:0/112"],
                "providerID": "aws:///secret/i-secret", "taints": [{"key": "secret", "effect": "NoSchedule"}],
            },
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "10.77.2.1"}, {"type": "Hostname", "address": "secret-node"},
                    {"type": "secret", "address": "secret.example"},
                ],
                "nodeInfo": {"machineID": "secret"}, "images": [{"names": ["secret.example/image"]}],
                "conditions": [{"type": "Ready", "message": "secret"}],
            },
        }),
        json!({
            "metadata": metadata("secret-cidr"), "spec": {"cidrs": ["10.77.0.0/24", "fd77:77::/112"]},
            "status": {"conditions": [{"message": "secret"}]},
        }),
    ]
}

fn kept(masked: &[Masked]) -> (Masker, Vec<Value>) {
    let masker = Masker::new(masked).unwrap();
    let keep = |((api_version, kind), object): (_, Value)| keep(api_version, kind, &object, &masker).unwrap();
    let kept = KINDS.into_iter().zip(objects()).map(keep).collect();
    (masker, kept)
}

/// The only part of the original that a place may hold.
const MARKS: [&str; 5] = ["secret", "10.77", "010.077", "fd77", "example"];

#[test]
fn a_masked_object_contains_nothing_of_the_original() {
    // Ten keys: a bit that happens to stay would be found.
    for _ in 0..10 {
        let (_, kept) = kept(&[Masked::Names, Masked::Addresses]);
        let text = serde_json::to_string(&kept).unwrap();
        for mark in ["secret", "example"] {
            assert!(!text.contains(mark), "{mark} in {text}");
        }
        for whole in ["10.77.0.", "10.77.1.", "10.77.2.", "010.077", "fd77:77:"] {
            assert!(!text.contains(whole), "{whole} in {text}");
        }
    }
}

#[test]
fn unmasked_fields_are_unchanged_and_fields_that_no_proxy_reads_are_dropped() {
    let (_, kept) = kept(&[]);
    let text = serde_json::to_string(&kept).unwrap();
    assert!(MARKS.iter().all(|mark| text.contains(mark)), "{text}");
    for dropped in [
        "managedFields",
        "ownerReferences",
        "uid",
        "last-applied",
        "secret.example/",
        "selector",
        "targetRef",
        "targetPort",
        "externalName",
        "loadBalancerIP",
        "images",
        "10.77.9.9",
        "10.77.0.9",
        "f:secret",
        "generateName",
        "resourceVersion",
        "finalizers",
        "providerID",
        "message",
        "appProtocol",
        "trafficDistribution",
    ] {
        assert!(!text.contains(dropped), "{dropped} in {text}");
    }
    assert_eq!(
        kept[0]["spec"]["ports"],
        json!([
            {"name": "secret-http", "protocol": "secret", "port": 80, "nodePort": 30080}
        ])
    );
    assert_eq!(kept[1]["endpoints"][0]["addresses"], json!(["10.77.1.1", "fd77:77::1:1", "secret.example"]));
}

#[test]
fn each_mask_leaves_other_values_unchanged() {
    let (_, names) = kept(&[Masked::Names]);
    let text = serde_json::to_string(&names).unwrap();
    assert!(!text.contains("secret") && text.contains("10.77.0.1") && text.contains("fd77:77::/112"), "{text}");
    let (_, addresses) = kept(&[Masked::Addresses]);
    let text = serde_json::to_string(&addresses).unwrap();
    assert!(text.contains("secret-web") && !text.contains("10.77.0.1") && !text.contains("fd77:77:"), "{text}");
}

#[test]
fn references_between_objects_are_preserved() {
    let (masker, kept) = kept(&[Masked::Names, Masked::Addresses]);
    let [service, slice, node, cidr] = &kept[..] else { panic!("four objects") };
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], service["metadata"]["name"]);
    assert_eq!(slice["metadata"]["namespace"], service["metadata"]["namespace"]);
    assert_eq!(slice["ports"][0]["name"], service["spec"]["ports"][0]["name"]);
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["nodeName"], node["metadata"]["name"]);
    assert_eq!(endpoint["nodeName"], masker.name("secret-node"));
    assert_eq!(endpoint["nodeName"], node["status"]["addresses"][1]["address"]);
    assert_eq!(endpoint["hints"]["forNodes"][0]["name"], node["metadata"]["name"]);
    assert_eq!(endpoint["zone"], node["metadata"]["labels"]["topology.kubernetes.io/zone"]);
    assert_eq!(endpoint["hints"]["forZones"][0]["name"], endpoint["zone"]);

    let address = |value: &Value| value.as_str().unwrap().parse::<std::net::IpAddr>().unwrap();
    let range = |value: &Value| value.as_str().unwrap().parse::<ipnet::IpNet>().unwrap();
    assert_eq!(service["spec"]["clusterIP"], service["spec"]["clusterIPs"][0]);
    assert_eq!(service["spec"]["externalIPs"][0], service["spec"]["externalIPs"][1]);
    let cluster_ip = address(&service["spec"]["clusterIP"]);
    assert!(range(&cidr["spec"]["cidrs"][0]).contains(&cluster_ip));
    assert!(range(&cidr["spec"]["cidrs"][1]).contains(&address(&service["spec"]["clusterIPs"][1])));
    let pods = range(&node["spec"]["podCIDR"]);
    assert!(pods.contains(&address(&endpoint["addresses"][0])) && !pods.contains(&cluster_ip));
    let sources = &service["spec"]["loadBalancerSourceRanges"];
    assert!(range(&sources[0]).contains(&address(&node["status"]["addresses"][0]["address"])));
    assert_eq!(sources[1], cidr["spec"]["cidrs"][0]);
}

#[test]
fn masked_names_are_distinct_dns_labels() {
    let masker = Masker::new(&[Masked::Names]).unwrap();
    let names: std::collections::BTreeSet<String> = (0..10_000).map(|i| masker.name(&format!("name-{i}"))).collect();
    assert_eq!(names.len(), 10_000);
    for name in names {
        assert!(name.len() <= 15 && name.starts_with('n'), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{name}");
    }
    assert_eq!(masker.name(""), "");
    let other = Masker::new(&[Masked::Names]).unwrap();
    assert_ne!(masker.name("web"), other.name("web"), "two traces cannot be laid side by side");
}

#[test]
fn constants_of_the_api_and_special_addresses_are_unchanged() {
    let masker = Masker::new(&[Masked::Names, Masked::Addresses]).unwrap();
    let service = json!({
        "metadata": {"name": "a"},
        "spec": {"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4"],
            "externalIPs": ["127.0.0.1", "0.0.0.0", "fe80::1"], "loadBalancerSourceRanges": ["0.0.0.0/0"],
            "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local",
            "ports": [{"name": "", "protocol": "SCTP", "port": 1}]},
    });
    let kept = keep("v1", "Service", &service, &masker).unwrap();
    assert_eq!(kept["spec"], service["spec"]);
    assert_eq!(keep("v1", "Secret", &service, &masker), None);

    let slice = json!({"metadata": {"annotations":
        {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.5+01:00"}}});
    let kept = keep("discovery.k8s.io/v1", "EndpointSlice", &slice, &masker).unwrap();
    assert_eq!(kept["metadata"], slice["metadata"]);
}

#[test]
fn a_node_named_by_its_address_is_masked_if_only_addresses_are() {
    let masker = Masker::new(&[Masked::Addresses]).unwrap();
    let masked = masker.object(ObjectName { name: "10.77.2.1".to_owned(), ..ObjectName::of(&json!({})) }).name;
    assert_eq!(masked, masker.address("10.77.2.1"));
    assert_ne!(masked, "10.77.2.1");
}
