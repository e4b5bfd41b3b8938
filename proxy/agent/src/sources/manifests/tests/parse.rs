//! Tests of parsing: what manifests become, and how bad ones are reported.

use std::path::Path;
use std::time::Duration;

use crate::sources::manifests::content::Content;
use crate::sources::manifests::load;
use portway_model::Event;

fn content(name: &str, text: impl AsRef<[u8]>) -> Content {
    Content::parse(Path::new(name), text.as_ref()).unwrap()
}

fn objects(content: &Content) -> Vec<&Event> {
    content.objects.iter().map(|(_, event)| &**event).collect()
}

fn errors(content: &Content) -> Vec<String> {
    content.refused.iter().map(|refused| refused.error.to_string()).collect()
}

/// Every way in which a file can be bad, and the exact text of the error.
#[test]
fn bad_manifests_are_named_with_file_line_and_field() {
    let service = |rest: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  clusterIP: 10.96.0.1\n{rest}")
    };
    let cases = [
        ("a.yaml", service("  ports:\n  - port: http\n")),
        ("a.yaml", service("  ports:\n  - name: http\n")),
        ("a.yaml", service("  ports:\n  - port: 70000\n")),
        ("a.yaml", service("  ports: 80\n")),
        ("a.yaml", service("  ports:\n  - port: 80\n   nodePort: 30000\n")),
        ("a.yaml", service("  clusterIP: 10.96.0.2\n")),
        ("a.yaml", format!("# one\n---\n{}---\n{}", service(""), service("  externalIPs: {}\n"))),
        ("a.yaml", "kind: Service\nmetadata: {name: web}\n".to_owned()),
        ("a.yaml", "apiVersion: v1\nmetadata: {name: web}\n".to_owned()),
        ("a.yaml", "apiVersion: v1\nkind: Service\nspec: {clusterIP: 10.96.0.1}\n".to_owned()),
        ("a.yaml", "just words\n".to_owned()),
        ("a.yaml", "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\n".to_owned()),
        ("a.yaml", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1}\nendpoints: []\n".to_owned()),
        (
            "a.yaml",
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: web}\n- apiVersion: discovery.k8s.io/v1\n  kind: EndpointSlice\n  metadata: {name: web-1}\n  addressType: IPv4\n  endpoints:\n  - addresses: [10.0.0.1]\n    conditions:\n      ready: perhaps\n"
                .to_owned(),
        ),
        ("a.yaml", "apiVersion: v1\nkind: List\nitems:\n- kind: Service\n  metadata: {name: web}\n".to_owned()),
        ("a.yaml", "apiVersion: v1\nkind: List\nitems: 7\n".to_owned()),
        ("a.json", "{\"apiVersion\": \"v1\",\n \"kind\": \"Service\",\n \"metadata\": {\"name\": 5}}\n".to_owned()),
        ("a.json", "{\"apiVersion\": \"v1\",\n \"kind\": \"Service\",\n".to_owned()),
        ("a.json", "{\"apiVersion\":\"v1\",\"kind\":\"ServiceList\",\"items\":[{\"metadata\":{\"name\":\"a\"},\"spec\":{\"ports\":[{\"port\":80},{\"port\":\"x\"}]}}]}".to_owned()),
    ];
    let report: Vec<String> = cases
        .iter()
        .map(|(name, text)| {
            let content = content(name, text);
            match errors(&content)[..] {
                [ref error] => error.clone(),
                ref errors => format!("{errors:?}, accepted: {:?}", objects(&content)),
            }
        })
        .collect();
    insta::assert_snapshot!(report.join("\n"));
}

fn only(text: &str) -> Event {
    let content = content("a.yaml", text);
    let [event] = objects(&content)[..] else { panic!("one object expected: {content:?}") };
    event.clone()
}

#[test]
fn a_service_gets_the_defaults_of_the_api_server() {
    let event = only(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: fd00::1\n  type: LoadBalancer\n  \
         sessionAffinity: ClientIP\n  ports: [{port: 80, targetPort: http}]\nstatus:\n  loadBalancer:\n    ingress: \
         [{ip: 192.0.2.1}, {hostname: lb.example}]\n",
    );
    insta::assert_debug_snapshot!(event);
}

#[test]
fn a_plain_service_and_an_external_name_get_only_what_is_theirs() {
    let Event::Service(plain) =
        only("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIPs: [10.96.0.1]}\n")
    else {
        panic!("no Service")
    };
    assert_eq!(plain.cluster_ip.as_deref(), Some("10.96.0.1"));
    assert_eq!(plain.ip_families, ["IPv4"]);
    assert_eq!(plain.service_type.as_deref(), Some("ClusterIP"));
    assert_eq!(plain.internal_traffic_policy.as_deref(), Some("Cluster"));
    assert_eq!(plain.external_traffic_policy, None);
    assert_eq!(plain.session_affinity.as_deref(), Some("None"));
    assert_eq!(plain.affinity_timeout_seconds, None);

    let Event::Service(name) = only(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\nspec: {type: ExternalName, externalName: x}\n",
    ) else {
        panic!("no Service")
    };
    assert_eq!(name.namespace, "b");
    assert_eq!((name.cluster_ip, name.internal_traffic_policy), (None, None));
}

#[test]
fn a_slice_gets_the_defaults_of_the_api_server_and_conditions_stay_unset() {
    let Event::EndpointSlice(slice) = only(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: \
         {kubernetes.io/service-name: web}\n  annotations: {endpoints.kubernetes.io/last-change-trigger-time: \
         2026-01-02T03:04:05.5+01:00}\naddressType: IPv4\nports: [{port: 8080}]\nendpoints: [{addresses: [10.0.0.1]}]\n",
    ) else {
        panic!("no slice")
    };
    assert_eq!(slice.namespace, "default");
    assert_eq!(slice.ports[0].name.as_deref(), Some(""));
    assert_eq!(slice.ports[0].protocol.as_deref(), Some("TCP"));
    assert_eq!(
        (slice.endpoints[0].ready, slice.endpoints[0].serving, slice.endpoints[0].terminating),
        (None, None, None)
    );
    let trigger = slice.last_change_trigger.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(trigger, Duration::from_millis(1_767_319_445_500));
}

#[test]
fn watch_1_and_2_what_the_selectors_leave_out_is_left_out_of_manifests() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: other, labels: {service.kubernetes.io/service-proxy-name: \
                x}}\nspec: {clusterIP: 10.96.0.1}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: \
                headless}\nspec: {clusterIP: None}\n---\napiVersion: discovery.k8s.io/v1\nkind: \
                EndpointSlice\nmetadata: {name: h-1, labels: {service.kubernetes.io/headless: ''}}\naddressType: \
                IPv4\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: many}\n";
    let content = content("a.yaml", text);
    assert!(content.objects.is_empty(), "{content:?}");
    assert!(content.warnings.is_empty(), "{content:?}");
}

#[test]
fn lists_as_kubectl_prints_them_are_read_in_yaml_and_json() {
    let yaml = "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    name: web\n    \
                managedFields: [{manager: kubectl, time: \"2026-01-01T00:00:00Z\", fieldsV1: {\"f:spec\": {}}}]\n  \
                spec: {clusterIP: 10.96.0.1}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n- apiVersion: v1\n  \
                kind: Node\n  metadata: {name: n1}\n  spec: {podCIDR: 10.244.0.0/24}\nkind: List\nmetadata: \
                {resourceVersion: \"\"}\n";
    let json = r#"{"kind":"ServiceCIDRList","apiVersion":"networking.k8s.io/v1","metadata":{},
        "items":[{"metadata":{"name":"kubernetes"},"spec":{"cidrs":["10.96.0.0/12"]}}]}"#;
    let yaml = content("a.yaml", yaml);
    let [Event::Service(service), Event::Node(node)] = objects(&yaml)[..] else { panic!("{yaml:?}") };
    assert_eq!(service.name, "web");
    assert_eq!(node.pod_cidrs, ["10.244.0.0/24"]);
    let json = content("a.json", json);
    let [Event::ServiceCidr(cidr)] = objects(&json)[..] else { panic!("{json:?}") };
    assert_eq!(cidr.cidrs, ["10.96.0.0/12"]);
    assert!(content("empty.yaml", "# nothing\n---\n---\n").objects.is_empty());
}

#[test]
fn unusual_manifests_are_warned_of_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: ";
    std::fs::write(folder.path().join("a.yaml"), format!("{service}{{}}\n")).unwrap();
    let ported = "{clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80, nodePort: 30080}, {port: 81, name: b}]}";
    std::fs::write(folder.path().join("b.yaml"), format!("{service}{ported}\n")).unwrap();
    let loaded = load(&[folder.path()]).unwrap();
    let root = folder.path().display().to_string();
    let warnings: Vec<String> = loaded.warnings.iter().map(|warning| warning.to_string().replace(&root, "")).collect();
    assert_eq!(
        warnings,
        [
            "/a.yaml: Service default/web: it has no spec.clusterIP and nothing here gives it one, so it is not served",
            "/b.yaml: Service default/web: spec.ports[1] has no nodePort and nothing here gives it one, so none is opened",
            "/b.yaml: Service default/web: it is also in /a.yaml, which comes first; this one is ignored",
        ]
    );
    let services: Vec<_> = loaded.events.iter().filter(|event| matches!(event, Event::Service(_))).collect();
    let [Event::Service(first)] = services[..] else { panic!("{services:?}") };
    assert_eq!(first.cluster_ip, None);
}
