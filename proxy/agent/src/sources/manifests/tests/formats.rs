//! Tests of what is read: every form of file that kubectl reads, and each object of a file by itself.

use std::path::Path;

use portway_model::Event;

use crate::sources::manifests::content::Content;
use crate::sources::manifests::load;

fn content(name: &str, bytes: impl AsRef<[u8]>) -> Content {
    Content::parse(Path::new(name), bytes.as_ref()).unwrap()
}

fn errors(content: &Content) -> Vec<String> {
    content.refused.iter().map(|refused| refused.error.to_string()).collect()
}

fn names(content: &Content) -> Vec<String> {
    content.objects.iter().map(|(key, _)| key.to_string()).collect()
}

/// Checks that exactly these objects are read and nothing is refused.
#[track_caller]
fn reads(name: &str, bytes: impl AsRef<[u8]>, expected: &[&str]) {
    let content = content(name, bytes);
    assert_eq!(errors(&content), Vec::<String>::new());
    assert_eq!(names(&content), expected);
}

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n  - port: {port}\n"
    )
}

fn json_service(name: &str, port: &str) -> String {
    format!(
        "{{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Service\",\n  \"metadata\": {{\"name\": \"{name}\"}},\n  \"spec\": \
         {{\"clusterIP\": \"10.96.0.1\", \"ports\": [{{\"port\": {port}}}]}}\n}}\n"
    )
}

const A_B: [&str; 2] = ["Service default/a", "Service default/b"];
const A_C: [&str; 2] = ["Service default/a", "Service default/c"];

#[test]
fn own_12_a_bad_object_is_named_and_the_other_documents_are_served() {
    let text = [service("a", "80"), service("b", "0"), service("c", "80")].join("---\n");
    let content = content("a.yaml", text);
    assert_eq!(names(&content), A_C);
    assert_eq!(
        errors(&content),
        ["a.yaml:17:11: Service default/b: spec.ports[0].port: must be a number from 1 to 65535"]
    );
}

#[test]
fn own_12_a_value_of_a_wrong_type_costs_only_its_object() {
    let text = [service("a", "80"), service("b", "http"), service("c", "80")].join("---\n");
    let content = content("a.yaml", text);
    assert_eq!(names(&content), A_C);
    assert_eq!(errors(&content), ["a.yaml:17:11: Service default/b: spec.ports[0].port: must be a whole number"]);
}

#[test]
fn own_12_a_document_that_does_not_parse_costs_only_itself() {
    let broken = service("b", "80").replace("spec:", "spec: {");
    let content = content("a.yaml", [service("a", "80"), broken, service("c", "80")].join("---\n"));
    assert_eq!(names(&content), A_C);
    let [error] = &errors(&content)[..] else { panic!("{:?}", errors(&content)) };
    // What does not parse is named all the same where its lines show what it is.
    assert!(error.starts_with("a.yaml:1") && error.contains(": Service default/b: "), "{error}");
}

#[test]
fn own_12_a_bad_item_costs_only_itself_in_lists_of_yaml_and_json() {
    let item = |name: &str, port: &str| {
        let text = service(name, port);
        let lines: Vec<String> = text.lines().map(|line| format!("  {line}\n")).collect();
        format!("- {}", lines.concat().trim_start())
    };
    let list = format!(
        "apiVersion: v1\nitems:\n{}{}{}kind: List\nmetadata: {{resourceVersion: ''}}\n",
        item("a", "80"),
        item("b", "http"),
        item("c", "80")
    );
    let yaml = content("a.yaml", list);
    assert_eq!(names(&yaml), A_C);
    assert_eq!(errors(&yaml), ["a.yaml:18:13: Service default/b: spec.ports[0].port: must be a whole number"]);

    let items = [json_service("a", "80"), json_service("b", "0"), json_service("c", "80")].join(",");
    let list = format!("{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[\n{items}]}}");
    let json = content("a.json", list);
    assert_eq!(names(&json), A_C);
    assert_eq!(
        errors(&json),
        ["a.json:12:57: Service default/b: spec.ports[0].port: must be a number from 1 to 65535"]
    );
}

#[test]
fn own_12_many_bad_items_are_each_named_with_their_line() {
    let mut list = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for i in 0..2000 {
        list.push_str(&format!(
            "- {{apiVersion: v1, kind: Service, metadata: {{name: s{i}}}, spec: {{ports: [{{port: 0}}]}}}}\n"
        ));
    }
    let content = content("a.yaml", list);
    assert!(content.objects.is_empty());
    let errors = errors(&content);
    assert_eq!(errors.len(), 2000);
    for (i, error) in errors.iter().enumerate() {
        assert!(
            error.starts_with(&format!("a.yaml:{}:", i + 4)) && error.contains(&format!("default/s{i}:")),
            "{error}"
        );
    }
}

#[test]
fn a_stream_of_json_objects_is_read_whatever_the_name_of_the_file() {
    let stream = [json_service("a", "80"), json_service("b", "80")].concat();
    reads("a.json", &stream, &A_B);
    reads("-", &stream, &A_B);
    reads("a.yaml", stream.replace('\n', ""), &A_B);
    reads("a.json", [json_service("a", "80"), json_service("b", "80")].join("---\n"), &A_B);
    reads("a.json", service("a", "80") + "---\n" + &service("b", "80"), &A_B);
    reads("a.yaml", "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.1}}", &A_B[..1]);
}

#[test]
fn own_12_a_broken_object_of_a_json_stream_costs_only_itself() {
    let broken = json_service("b", "80").replace("\"kind\":", "\"kind\"");
    let content = content("a.json", [json_service("a", "80"), broken, json_service("c", "80")].concat());
    assert_eq!(names(&content), A_C);
    assert_eq!(errors(&content), ["a.json:9:10: expected `:`"]);
}

#[test]
fn byte_order_marks_and_utf_16_are_read() {
    let text = service("a", "80") + "---\n" + &service("b", "80");
    let json = json_service("a", "80") + &json_service("b", "80");
    for (name, text) in [("a.yaml", text), ("a.json", json)] {
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        reads(name, format!("\u{feff}{text}"), &A_B);
        reads(name, [&[0xff, 0xfe], &little[..]].concat(), &A_B);
        reads(name, [&[0xfe, 0xff], &big[..]].concat(), &A_B);
        reads(name, little, &A_B);
        reads(name, big, &A_B);
        reads(name, text.replace('\n', "\r\n"), &A_B);
    }
}

#[test]
fn own_12_bytes_that_are_not_utf_8_cost_only_their_document() {
    let mut bytes = (service("a", "80") + "---\n").into_bytes();
    bytes.extend(b"apiVersion: v1\nkind: Service\nmetadata:\n  name: b\n  annotations: {note: M\xfcnchen}\n---\n");
    bytes.extend(service("c", "80").bytes());
    let content = content("a.yaml", bytes);
    assert_eq!(names(&content), A_C);
    assert_eq!(errors(&content), ["a.yaml:14:24: Service default/b: is not UTF-8 text; save the file as UTF-8"]);
    // The character that stands for such bytes may be written, too.
    reads("a.yaml", service("a", "80").replace("spec:", "  annotations: {note: \u{fffd}}\nspec:"), &A_C[..1]);
}

#[test]
fn any_number_of_comments_may_stand_before_a_value() {
    for (key, value) in [("  ports:\n", "  - port: 80\n"), ("  selector:\n", "    a: b\n"), ("  externalName:\n", "")] {
        let comments = "  # a remark\n".repeat(1000);
        let text = service("a", "80").replace("  ports:\n  - port: 80\n", &format!("{key}{comments}{value}"));
        reads("a.yaml", text, &A_B[..1]);
    }
}

#[test]
fn octal_numbers_are_read_as_kubectl_reads_them() {
    let content = content("a.yaml", service("a", "0120"));
    let (_, event) = &content.objects[0];
    let Event::Service(service) = &**event else { panic!("{event:?}") };
    assert_eq!(service.ports[0].port, 80);
}

/// Objects that do not concern portway, and the objects beside them.
#[test]
fn own_12_objects_of_other_kinds_hold_up_nothing_whatever_is_in_them() {
    let nested: String = (0..400).map(|depth| format!("{}a:\n", " ".repeat(depth + 1))).collect();
    for other in [
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: 1\n  replicas: 2\n".to_owned(),
        "apiVersion: example.com/v1\nkind: Menu\nmetadata: {name: a}\nitems:\n- soup\n- bread\n".to_owned(),
        "apiVersion: example.com/v1\nkind: AllowList\nmetadata: {name: a}\nitems:\n- 10.0.0.0/8\n".to_owned(),
        "apiVersion: example.com/v1\nkind: Odd\nmetadata: {name: a}\nitems: 7\nvalue: .inf\n".to_owned(),
        format!("apiVersion: example.com/v1\nkind: Deep\nspec:\n{nested}"),
        "apiVersion: example.com/v1\nkind: Odd\nmetadata: {name: a}\nspec: *nowhere\n".to_owned(),
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: none}\n".to_owned(),
        "%YAML 1.2\n".to_owned(),
    ] {
        reads("a.yaml", [service("a", "80"), other, service("b", "80")].join("---\n"), &A_B);
    }
}

#[test]
fn own_12_nesting_costs_only_the_object_that_is_too_deep() {
    let deep = |levels: usize| {
        let nested: String = (0..levels).map(|depth| format!("{}a:\n", " ".repeat(depth + 3))).collect();
        service("b", "80").replace("spec:\n", &format!("spec:\n  selector:\n{nested}"))
    };
    reads("a.yaml", deep(70).replace("Service", "Deployment").replace("v1", "apps/v1"), &[]);
    let json = |levels: usize| {
        let (open, close) = ("{\"a\":".repeat(levels), "}".repeat(levels));
        json_service("b", "80").replace("\"spec\":", &format!("\"x\": {open}1{close}, \"spec\":"))
    };
    reads("a.json", json_service("a", "80") + &json(100), &A_B);
    let content = content("a.yaml", [service("a", "80"), deep(400), service("c", "80")].join("---\n"));
    assert_eq!(names(&content), A_C);
    let [error] = &errors(&content)[..] else { panic!("{:?}", errors(&content)) };
    assert!(error.contains("Service default/b") && error.contains("is nested too deeply"), "{error}");
    let content = self::content("a.json", [json_service("a", "80"), json(200), json_service("c", "80")].concat());
    assert_eq!(names(&content), A_C);
    let [error] = &errors(&content)[..] else { panic!("{:?}", errors(&content)) };
    assert!(error.starts_with("a.json:11:") && error.contains("is nested too deeply"), "{error}");
}

#[test]
fn own_12_a_key_that_is_there_twice_costs_only_its_object() {
    let twice = service("b", "80") + "  clusterIP: 10.96.0.2\n";
    let content = content("a.yaml", [service("a", "80"), twice, service("c", "80")].join("---\n"));
    assert_eq!(names(&content), A_C);
    assert_eq!(
        errors(&content),
        ["a.yaml:18:14: Service default/b: spec.clusterIP: is there twice; remove one of them"]
    );
}

#[test]
fn a_stream_may_hold_end_markers_and_directives() {
    reads("a.yaml", format!("%YAML 1.1\n---\n{}...\n---\n{}...\n", service("a", "80"), service("b", "80")), &A_B);
    reads("a.yaml", format!("{}...\n{}", service("a", "80"), service("b", "80")), &A_B);
}

#[test]
fn a_name_with_a_line_break_is_refused_on_one_line() {
    let text = service("\"web\\n2026-01-01 ERROR forged\"", "80") + "---\n" + &service("a", "80");
    let content = content("a.yaml", text);
    assert_eq!(names(&content), A_B[..1]);
    assert_eq!(
        errors(&content),
        [
            "a.yaml:4:9: Service default/web\\n2026-01-01 ERROR forged: metadata.name: must not hold spaces, line breaks or \
          slashes"
        ]
    );
}

#[test]
fn what_is_written_and_yet_not_served_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("more")).unwrap();
    std::fs::create_dir(path(".git")).unwrap();
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\n---\n".to_owned()
        + "apiVersion: v1\nkind: Endpoints\nmetadata: {name: served}\n---\n"
        + "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {name: served-1, labels: \
           {kubernetes.io/service-name: served}}\n";
    std::fs::write(path("a.yaml"), endpoints).unwrap();
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {name: lost}\n";
    std::fs::write(path("b.yaml"), slice).unwrap();
    std::fs::write(path("c.yaml"), service("a", "80") + "  type: Balancer\n").unwrap();
    std::fs::write(path("d.yaml"), service("b", "80").replace("kind: Service", "kind: service")).unwrap();
    let loaded = load(&[folder.path()]).unwrap();
    let root = folder.path().display().to_string();
    let warnings: Vec<String> = loaded.warnings.iter().map(|warning| warning.to_string().replace(&root, "")).collect();
    insta::assert_snapshot!(warnings.join("\n"));
}

#[test]
fn a_file_above_the_limit_is_refused_by_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let large = std::fs::File::create(folder.path().join("large.yaml")).unwrap();
    large.set_len(1 << 30).unwrap();
    std::fs::write(folder.path().join("small.yaml"), service("a", "80")).unwrap();
    let loaded = load(&[folder.path()]).unwrap();
    let [error] = &loaded.errors[..] else { panic!("{:?}", loaded.errors) };
    assert_eq!(error.file, folder.path().join("large.yaml"));
    assert_eq!(error.message, "is larger than 256 MiB and is not read; split it into several files");
    assert_eq!(loaded.events.iter().filter(|event| matches!(event, Event::Service(_))).count(), 1);
}
