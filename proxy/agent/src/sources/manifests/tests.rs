//! What manifests become, and how bad ones are reported.

use std::path::Path;

use super::objects::KINDS;
use super::*;

fn content(name: &str, text: &str) -> Result<Content, ManifestError> {
    Content::of(Path::new(name), text)
}

/// Every way in which a file can be bad, and the exact words for it.
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
        .map(|(name, text)| match content(name, text) {
            Ok(content) => format!("accepted: {:?}", content.objects()),
            Err(error) => error.to_string(),
        })
        .collect();
    insta::assert_snapshot!(report.join("\n"));
}

fn only(text: &str) -> Event {
    let content = content("a.yaml", text).unwrap();
    let [event] = content.objects()[..] else { panic!("one object expected: {content:?}") };
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
    let content = content("a.yaml", text).unwrap();
    assert!(content.objects().is_empty(), "{content:?}");
    assert!(content.warnings().is_empty(), "{content:?}");
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
    let yaml = content("a.yaml", yaml).unwrap();
    let [Event::Service(service), Event::Node(node)] = yaml.objects()[..] else { panic!("{yaml:?}") };
    assert_eq!(service.name, "web");
    assert_eq!(node.pod_cidrs, ["10.244.0.0/24"]);
    let json = content("a.json", json).unwrap();
    let [Event::ServiceCidr(cidr)] = json.objects()[..] else { panic!("{json:?}") };
    assert_eq!(cidr.cidrs, ["10.96.0.0/12"]);
    assert!(content("empty.yaml", "# nothing\n---\n---\n").unwrap().objects().is_empty());
}

#[test]
fn odd_manifests_are_warned_of_by_name() {
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

/// A running source over a folder.
struct Running {
    folder: tempfile::TempDir,
    inbox: crate::inbox::Inbox,
    source: tokio::task::JoinHandle<Result<(), ManifestError>>,
}

impl Running {
    fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let (sink, inbox) = crate::inbox::channel(1024, crate::metrics::SourceMetrics::default());
        let source = tokio::spawn(run(ManifestsConfig::new(folder.path()), sink));
        Self { folder, inbox, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The next event, which must come soon.
    fn next(&self) -> Event {
        match self.inbox.next(Some(Duration::from_secs(10))) {
            Ok(Some(crate::inbox::Message::Event(event))) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    /// All events up to the end of the first lists.
    fn lists(&self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.last() != Some(&Event::ListDone(KINDS[KINDS.len() - 1])) {
            events.push(self.next());
        }
        events
    }

    fn silent(&self) {
        let next = self.inbox.next(Some(Duration::from_millis(400)));
        assert!(matches!(next, Ok(None)), "{next:?}");
    }
}

fn web(ip: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{clusterIP: {ip}}}\n")
}

fn ip_of(event: &Event) -> &str {
    match event {
        Event::Service(service) => service.cluster_ip.as_deref().unwrap(),
        other => panic!("no Service: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn watch_5_lists_come_whole_and_then_only_what_changes() {
    let running = Running::start(&[("a.yaml", &web("10.96.0.1")), ("b.yaml", "# empty\n")]);
    let lists = running.lists();
    assert_eq!(lists.len(), 9, "{lists:?}");
    for kind in KINDS {
        let begins = lists.iter().position(|event| *event == Event::ListBegins(kind)).unwrap();
        let done = lists.iter().position(|event| *event == Event::ListDone(kind)).unwrap();
        assert!(begins < done);
    }

    // Written in place.
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.2");
    // As editors do: a new file takes the name.
    std::fs::write(running.path(".a.yaml.swp"), web("10.96.0.3")).unwrap();
    std::fs::rename(running.path(".a.yaml.swp"), running.path("a.yaml")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.3");
    // Written again, but nothing is new.
    std::fs::write(running.path("a.yaml"), web("10.96.0.3")).unwrap();
    running.silent();
    // A second file with the same Service changes nothing until the first goes.
    std::fs::write(running.path("b.yaml"), web("10.96.0.4")).unwrap();
    running.silent();
    std::fs::remove_file(running.path("a.yaml")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.4");
    std::fs::remove_file(running.path("b.yaml")).unwrap();
    assert_eq!(running.next(), Event::ServiceGone(portway_model::ServiceName::new("default", "web")));
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bad_file_leaves_its_last_good_state_in_force_and_others_go_on() {
    let other = web("10.96.0.9").replace("name: web", "name: other");
    let running = Running::start(&[("a.yaml", &web("10.96.0.1")), ("b.yaml", &other), ("c.yaml", "kind: {")]);
    assert_eq!(running.lists().iter().filter(|event| matches!(event, Event::Service(_))).count(), 2);
    std::fs::write(running.path("a.yaml"), web("10.96.0.2").replace("spec: {", "spec: {ports: 7, ")).unwrap();
    running.silent();
    std::fs::write(running.path("b.yaml"), other.replace("10.96.0.9", "10.96.0.8")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.8");
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.2");
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_config_map_is_swapped_by_its_symlink() {
    let running = Running::start(&[]);
    running.lists();
    let publish = |generation: &str, ip: &str| {
        std::fs::create_dir(running.path(generation)).unwrap();
        std::fs::write(running.path(generation).join("a.yaml"), web(ip)).unwrap();
        std::os::unix::fs::symlink(generation, running.path("..data_tmp")).unwrap();
        std::fs::rename(running.path("..data_tmp"), running.path("..data")).unwrap();
    };
    publish("..1", "10.96.0.1");
    std::os::unix::fs::symlink("..data/a.yaml", running.path("a.yaml")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.1");
    publish("..2", "10.96.0.2");
    assert_eq!(ip_of(&running.next()), "10.96.0.2");
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_that_goes_away_leaves_everything_in_force_and_is_found_again() {
    let running = Running::start(&[("a.yaml", &web("10.96.0.1"))]);
    running.lists();
    let away = running.folder.path().with_extension("away");
    std::fs::rename(running.folder.path(), &away).unwrap();
    running.silent();
    std::fs::create_dir(running.folder.path()).unwrap();
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.2");
    std::fs::remove_dir_all(away).unwrap();
    running.source.abort();
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error() {
    let (sink, _inbox) = crate::inbox::channel(16, crate::metrics::SourceMetrics::default());
    let error = run(ManifestsConfig::new("/nonexistent/manifests"), sink).await.unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/manifests: "), "{error}");
}
