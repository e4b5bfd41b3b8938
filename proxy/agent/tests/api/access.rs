//! Credentials for the API server that change while portway runs, and the ways to the server: TLS, service accounts,
//! proxies, and what answers in its place.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portway::sources::kubernetes::KubernetesConfig;
use portway_apiserver::{Authority, Terminator};

use super::{PATIENCE, Source, cut, kubeconfig, put, replace, require, server};

#[test]
fn a_token_that_is_rotated_in_the_kubeconfig_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(Some("first"));
    let cluster = format!("server: '{}'", server.url());
    let source = Source::of_kubeconfig(&kubeconfig(folder.path(), &cluster, "token: first"));
    source.learns("web");
    require(&server, Some("second"));
    put(&server, "late");
    assert!(!source.learns_within("late", Duration::from_millis(500)), "the old token is refused");
    kubeconfig(folder.path(), &cluster, "token: second");
    source.learns("late");
    // A file that is incomplete for a moment costs nothing.
    require(&server, Some("third"));
    put(&server, "later");
    replace(&folder.path().join("kubeconfig"), "clusters: [");
    assert!(!source.learns_within("later", Duration::from_millis(500)));
    kubeconfig(folder.path(), &cluster, "token: third");
    source.learns("later");
}

#[test]
fn what_a_program_issues_is_renewed_when_it_is_refused_and_before_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(Some("first"));
    let (program, answer, runs) =
        (folder.path().join("issue"), folder.path().join("answer"), folder.path().join("runs"));
    std::fs::write(
        &program,
        format!("#!/bin/sh\necho \"$KUBERNETES_EXEC_INFO\" >> {}\ncat {}\n", runs.display(), answer.display()),
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let issues = |token: &str, expires: &str| {
        let status = format!("{{\"token\":\"{token}\"{expires}}}");
        replace(
            &answer,
            &format!(
                "{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{status}}}"
            ),
        );
    };
    let count = || std::fs::read_to_string(&runs).unwrap().lines().count();
    issues("first", "");
    let user = format!(
        "exec: {{apiVersion: client.authentication.k8s.io/v1, command: '{}', interactiveMode: Never}}",
        program.display()
    );
    let source = Source::of_kubeconfig(&kubeconfig(folder.path(), &format!("server: '{}'", server.url()), &user));
    source.learns("web");
    assert_eq!(count(), 1);
    assert!(std::fs::read_to_string(&runs).unwrap().contains("\"kind\":\"ExecCredential\""));

    issues("second", "");
    require(&server, Some("second"));
    put(&server, "late");
    source.learns("late");

    // This one says when it ends: it is renewed a minute before, although no request fails.
    let soon = Command::new("date").args(["--utc", "--date=+63 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    issues("third", &format!(",\"expirationTimestamp\":\"{}\"", String::from_utf8(soon.stdout).unwrap().trim()));
    require(&server, Some("third"));
    put(&server, "later");
    source.learns("later");
    let before = count();
    let limit = Instant::now() + PATIENCE;
    while count() == before {
        assert!(Instant::now() < limit, "what expires soon was not renewed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_certificate_that_is_rotated_on_disk_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let servers = Authority::new(folder.path(), "servers").unwrap();
    let (old, new) = (Authority::new(folder.path(), "old").unwrap(), Authority::new(folder.path(), "new").unwrap());
    let server = server(None);
    let terminator = Terminator::start(server.address(), &servers, Some(&old)).unwrap();
    let issue = |authority: &Authority| {
        let (certificate, key) = authority.issue("client").unwrap();
        replace(&file("client.crt"), &certificate);
        replace(&file("client.key"), &key);
    };
    issue(&old);
    let cluster = format!("server: '{}', certificate-authority: '{}'", terminator.url(), servers.path().display());
    let user = "client-certificate: client.crt, client-key: client.key";
    let source = Source::of_kubeconfig(&kubeconfig(folder.path(), &cluster, user));
    source.learns("web");

    // The old authority's certificates are no longer accepted, as if they had expired.
    terminator.accept_only(&new).unwrap();
    cut(&server);
    put(&server, "late");
    assert!(!source.learns_within("late", Duration::from_millis(500)), "the old certificate is refused");
    issue(&new);
    source.learns("late");

    // One that is rotated while the old one is good leads to a new connection too, and the old one ends with its watches.
    let before = server.carried().connections;
    issue(&new);
    let limit = Instant::now() + PATIENCE;
    // Certificate and key are replaced one after the other, and each of the two may be read.
    while server.carried().connections == before || server.carried().open != 1 {
        assert!(Instant::now() < limit, "{before} {:?}", server.carried());
        std::thread::sleep(Duration::from_millis(20));
    }
    put(&server, "later");
    source.learns("later");
}

#[test]
fn a_named_master_gets_the_service_account_over_tls_and_follows_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Authority::new(folder.path(), "servers").unwrap();
    let server = server(Some("first"));
    let terminator = Terminator::start(server.address(), &servers, None).unwrap();
    std::fs::copy(servers.path(), folder.path().join("ca.crt")).unwrap();
    std::fs::write(folder.path().join("token"), "first").unwrap();
    let with = |master: String| KubernetesConfig {
        master: Some(master),
        service_account: Some(folder.path().to_owned()),
        ..KubernetesConfig::default()
    };
    let source = Source::start(with(terminator.url()));
    source.learns("web");
    replace(&folder.path().join("token"), "second");
    require(&server, Some("second"));
    put(&server, "late");
    source.learns("late");
    // Nobody may read the token on the way.
    assert!(!Source::start(with(server.url())).learns_within("web", Duration::from_secs(1)));
}

/// An HTTP proxy that knows CONNECT alone. Returns its address and the count of tunnels.
fn proxy() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let (mut first, mut line) = (String::new(), String::new());
                reader.read_line(&mut first).unwrap();
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                }
                let server = first.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
                let mut server = TcpStream::connect(server).unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back, &mut to));
                let _ = std::io::copy(&mut reader, &mut server);
            });
        }
    });
    (address, count)
}

#[test]
fn a_proxy_of_the_kubeconfig_is_used_and_one_that_cannot_be_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(None);
    let (address, tunnels) = proxy();
    for (proxy, used) in [(format!("http://{address}"), true), ("socks5://10.0.0.2:1080".to_owned(), false)] {
        let before = tunnels.load(Ordering::SeqCst);
        let cluster = format!("server: '{}', proxy-url: '{proxy}'", server.url());
        Source::of_kubeconfig(&kubeconfig(folder.path(), &cluster, "")).learns("web");
        assert_eq!(tunnels.load(Ordering::SeqCst) > before, used, "{proxy}");
    }
}

/// The program, recording in the background with only these variables in its environment.
fn record(arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_portway"))
        .args(["record", "--hostname-override=node-0", "--out=/dev/null"])
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads the log of a program up to a line with this text, and ends the program.
fn logs(mut child: Child, text: &str) -> String {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut read = String::new();
    while !read.lines().last().is_some_and(|line| line.contains(text)) {
        assert!(log.read_line(&mut read).unwrap() > 0, "{text:?} is not in the log:\n{read}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    read
}

#[test]
fn a_proxy_in_the_environment_is_no_end_where_the_server_is_reached_without() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(None);
    let path = kubeconfig(folder.path(), &format!("server: '{}'", server.url()), "");
    let path = path.display().to_string();
    for proxy in ["http://10.0.0.2:3128", "socks5://10.0.0.2:1080", "nonsense://"] {
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY"] {
            let environment = [(name, proxy), ("NO_PROXY", "127.0.0.0/8")];
            let mut child = record(&["--kubeconfig", &path, "--duration=1ms"], &environment);
            let mut log = String::new();
            child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{name}={proxy}: {log}");
        }
    }
}

#[test]
fn a_page_from_something_in_between_is_called_one() {
    for status in ["200 OK", "502 Bad Gateway", "401 Unauthorized"] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let _ = client.read(&mut [0; 4096]);
                let page = "<html><head><title>Sign in\nplease</title></head></html>";
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n", page.len());
                let _ = client.write_all(format!("{head}Connection: close\r\n\r\n{page}").as_bytes());
            }
        });
        let log = logs(record(&["--master", &url], &[]), "watching Services failed");
        assert!(log.contains("the answer is an HTML page") && log.contains("a proxy or gateway"), "{status}: {log}");
        assert!(!log.contains("broke off"), "{status}: {log}");
    }
}

#[test]
fn a_start_that_needs_its_own_work_to_reach_the_server_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca").unwrap();
    // A port that nobody listens on stands for the cluster IP.
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
    let script = r#"mount -t tmpfs none /run && account=/var/run/secrets/kubernetes.io/serviceaccount && mkdir -p $account &&
        cp "$CA" $account/ca.crt && echo token > $account/token && echo default > $account/namespace &&
        exec "$PORTWAY" record --hostname-override=node-0 --out=/dev/null"#;
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .env("CA", authority.path())
        .env("PORTWAY", env!("CARGO_BIN_EXE_portway"))
        .envs([("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", &port)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = logs(child, "KUBERNETES_SERVICE_HOST");
    assert!(log.contains("with --master https://HOST:PORT"), "{log}");
}
