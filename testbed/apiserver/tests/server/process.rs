//! The server as a process, changed and broken over HTTP.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client};
use portway_apiserver::SENT_HEADER;
use serde_json::{Value, json};

use super::{client_of, code, next, selected, service, watch};

/// A process that ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(args: &[&str]) -> (Process, Client) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway-apiserver"));
    command.args(["--listen", "127.0.0.1:0"]).args(args).stdout(Stdio::piped());
    let mut child = Process(command.spawn().expect("the server"));
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let client = client_of(line.trim().strip_prefix("listening on ").expect("the address"));
    (child, client)
}

async fn send(client: &Client, method: &str, path: &str, body: Value) -> http::Response<kube::client::Body> {
    let body = kube::client::Body::from(body.to_string().into_bytes());
    client.send(http::Request::builder().method(method).uri(path).body(body).expect("a request")).await.expect("sent")
}

#[tokio::test]
async fn a_process_is_filled_changed_and_broken_from_outside() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [service("from-json")] });
    std::fs::write(folder.path().join("a.json"), list.to_string()).expect("written");
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: from-yaml}\nspec: {clusterIP: 10.96.0.77}\n";
    std::fs::write(folder.path().join("b.yaml"), yaml).expect("written");
    std::fs::write(folder.path().join("notes.txt"), "no object").expect("written");
    let objects = folder.path().to_str().expect("a path");
    let (_process, client) = spawn(&["--objects", objects, "--synthetic", "services=3,endpoints=2"]);
    let api: Api<Service> = Api::all(client.clone());
    assert_eq!(api.list(&ListParams::default()).await.expect("list").items.len(), 5);

    let mut events = watch(&api, &selected().initial_events(), "").await;
    while !next(&mut events).await.starts_with("closing") {}
    let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let answer = send(&client, "PUT", "/api/v1/namespaces/default/services/svc-1", service("svc-1")).await;
    let sent: i64 = answer.headers()[SENT_HEADER].to_str().expect("text").parse().expect("a number");
    let after = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanos = |time: rustix::time::Timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
    assert!(nanos(before) < sent && sent < nanos(after), "the machine's clock, not the process's");
    assert!(next(&mut events).await.starts_with("modified svc-1@"));

    let rule = json!({ "errors": [{ "resource": "services", "verb": "list", "status": 429, "retryAfter": 1 }] });
    assert_eq!(send(&client, "PATCH", "/testbed/faults", rule).await.status(), 200);
    assert_eq!(code(api.list(&ListParams::default()).await), 429);
    assert_eq!(send(&client, "PUT", "/testbed/faults", json!({})).await.status(), 200);
    api.list(&ListParams::default()).await.expect("healthy again");
    assert_eq!(send(&client, "PUT", "/testbed/faults", json!({ "wrong": 1 })).await.status(), 400);

    assert_eq!(send(&client, "POST", "/testbed/cut", json!("midObject")).await.status(), 200);
    send(&client, "DELETE", "/api/v1/namespaces/default/services/svc-1", json!({})).await;
    assert_eq!(next(&mut events).await, "end");
    assert_eq!(send(&client, "POST", "/testbed/compact", json!({})).await.status(), 200);
    assert_eq!(send(&client, "POST", "/testbed/refuse", json!({ "milliseconds": 200 })).await.status(), 200);
    tokio::time::sleep(Duration::from_millis(250)).await;
    let requests =
        client.request::<Value>(http::Request::get("/testbed/requests").body(Vec::new()).expect("a request"));
    assert!(requests.await.expect("requests").as_array().expect("a list").len() > 5);
}

#[test]
fn a_bad_command_line_or_folder_is_one_sentence() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_portway-apiserver")).args(args).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, text) = run(&["--synthetic", "services=many"]);
    assert_eq!(status, Some(2));
    assert!(text.contains("services: `many`"), "{text}");
    let (status, text) = run(&["--objects", "/nonexistent"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("/nonexistent cannot be read"), "{text}");
}
