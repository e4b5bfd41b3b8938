//! What a node costs the API server: connections, requests while it is away, and the form of what it sends (contract
//! OWN-16).

use std::path::Path;
use std::time::{Duration, Instant};

use portway::sources::kubernetes::{ContentType, KubernetesConfig, Tuning};
use portway_apiserver::{
    ApiServer, Authority, Cut, Faults, Protobuf, RequestRecord, Store, StreamingLists, Synthetic, Terminator,
};

use super::{PATIENCE, Source, kubeconfig, put, server};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf,application/json";

/// A server behind TLS, and a kubeconfig for it.
struct Secure {
    server: ApiServer,
    terminator: Terminator,
    config: KubernetesConfig,
    _folder: tempfile::TempDir,
}

fn secure() -> Secure {
    let folder = tempfile::tempdir().unwrap();
    let (server, authority) = (server(None), Authority::new(folder.path(), "servers").unwrap());
    let terminator = Terminator::start(server.address(), &authority, None).unwrap();
    let path = kubeconfig(folder.path(), &cluster(&terminator, &authority.path()), "");
    let config = KubernetesConfig { kubeconfig: Some(path), ..KubernetesConfig::default() };
    Secure { server, terminator, config, _folder: folder }
}

fn cluster(terminator: &Terminator, authority: &Path) -> String {
    format!("server: '{}', certificate-authority: '{}'", terminator.url(), authority.display())
}

/// The requests that list all objects.
fn lists(server: &ApiServer) -> usize {
    let is_list = |request: &&RequestRecord| {
        request.query.contains("sendInitialEvents=true") || !request.query.contains("watch=true")
    };
    server.requests().iter().filter(is_list).count()
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn own_16_all_watches_share_one_http_2_connection_and_come_in_protobuf() {
    let Secure { server, config, .. } = &secure();
    let source = Source::tuned(config.clone());
    source.lists();
    put(server, "late");
    source.learns("late");
    let requests = server.requests();
    assert_eq!(requests.len(), 4, "{requests:?}");
    assert!(requests.iter().all(|request| request.version == "HTTP/2.0"), "{requests:?}");
    assert!(requests.iter().all(|request| request.accept == PROTOBUF), "{requests:?}");
    assert_eq!((server.carried().connections, server.carried().open), (1, 1));
}

#[test]
fn own_16_a_server_without_http_2_is_asked_over_http_1_1() {
    let Secure { server, terminator, config, .. } = &secure();
    terminator.offer_http2(false).unwrap();
    let source = Source::tuned(config.clone());
    source.lists();
    put(server, "late");
    source.learns("late");
    assert!(server.requests().iter().all(|request| request.version == "HTTP/1.1"));
}

#[test]
fn own_16_json_is_asked_for_where_it_is_configured_or_a_server_has_no_protobuf() {
    for streaming_lists in [StreamingLists::Honoured, StreamingLists::Refused] {
        for (protobuf, content_type, accepted) in [
            (Protobuf::Offered, ContentType::Json, "application/json"),
            (Protobuf::Missing, ContentType::Protobuf, PROTOBUF),
            (Protobuf::Refused, ContentType::Protobuf, "application/json"),
        ] {
            let server = server(None);
            server.set_faults(Faults { protobuf, streaming_lists, ..Faults::default() });
            let config = KubernetesConfig { content_type, master: Some(server.url()), ..KubernetesConfig::default() };
            let source = Source::start(config);
            source.learns("web");
            put(&server, "late");
            source.learns("late");
            let last = server.requests().pop().unwrap();
            assert_eq!(last.accept, accepted, "{protobuf:?}, {streaming_lists:?}");
        }
    }
}

#[test]
fn own_16_long_lists_come_compressed_where_there_are_no_streaming_lists() {
    let bytes = |services: usize, content_type| {
        let store = Store::new();
        Synthetic::new(services, 4).fill(&store).unwrap();
        let server = ApiServer::local(store).unwrap();
        server.set_faults(Faults { streaming_lists: StreamingLists::Refused, ..Faults::default() });
        let config =
            KubernetesConfig { content_type, master: Some(server.url()), qps: -1.0, ..KubernetesConfig::default() };
        let source = Source::tuned(config);
        source.lists();
        put(&server, "late");
        source.learns("late");
        server.carried().bytes
    };
    for (content_type, plain) in [(ContentType::Protobuf, 1000), (ContentType::Json, 1800)] {
        let received = bytes(600, content_type);
        assert!(received < 600 * plain / 3, "{content_type:?}: {received} bytes");
    }
}

#[test]
fn own_16_accepted_content_types_are_sent_as_configured() {
    let server = server(None);
    let accept = Some(http::HeaderValue::from_static("application/json;q=0.1, application/vnd.kubernetes.protobuf"));
    let source = Source::start(KubernetesConfig { accept, master: Some(server.url()), ..KubernetesConfig::default() });
    source.learns("web");
    assert_eq!(server.requests()[0].accept, "application/json;q=0.1, application/vnd.kubernetes.protobuf");
}

#[test]
fn own_16_a_connection_that_answers_no_ping_is_replaced_and_watches_resume() {
    let Secure { server, config, .. } = &secure();
    let (ping_interval, ping_timeout) = (Duration::from_millis(400), Duration::from_millis(400));
    let tuning = Tuning { ping_interval, ping_timeout, ..Tuning::default() };
    let source = Source::tuned(KubernetesConfig { tuning, ..config.clone() });
    source.lists();
    // Pings that are answered change nothing.
    std::thread::sleep(4 * ping_interval);
    assert_eq!(server.carried().connections, 1);
    let listed = lists(server);

    server.set_faults(Faults { freeze_connections: true, ..Faults::default() });
    let frozen = Instant::now();
    put(server, "late");
    until("the dead connection is replaced", || server.carried().connections > 1);
    assert!(frozen.elapsed() < Duration::from_secs(4), "{:?}", frozen.elapsed());
    server.set_faults(Faults::default());
    source.learns("late");
    assert_eq!(lists(server), listed, "watches resume without a list");
}

#[test]
fn own_16_a_connection_that_takes_no_more_requests_keeps_its_watches() {
    let Secure { server, config, .. } = &secure();
    let tuning = Tuning { watch_timeout: Duration::from_secs(2), ..Tuning::default() };
    let source = Source::tuned(KubernetesConfig { tuning, ..config.clone() });
    source.lists();
    server.cut(Cut::GoAway);
    put(server, "on-the-old-one");
    source.learns("on-the-old-one");
    assert_eq!(server.carried().connections, 1, "no watch was broken");
    until("the watches end by themselves and go on over one new connection", || {
        server.requests().len() >= 8 && server.carried().open == 1
    });
    put(server, "on-the-new-one");
    source.learns("on-the-new-one");
    assert_eq!((server.carried().connections, lists(server)), (2, 4));
}

#[test]
fn own_16_one_probe_at_a_time_while_the_server_is_away_and_no_list_after_its_return() {
    let Secure { server, config, .. } = &secure();
    let source = Source::tuned(config.clone());
    source.lists();
    let before = server.carried();
    let away = Duration::from_secs(6);
    server.refuse_for(away);
    let begun = Instant::now();
    server.cut(Cut::Now);
    put(server, "late");
    let mut probes = Vec::new();
    while begun.elapsed() < away {
        let seen = usize::try_from(server.carried().refused).unwrap();
        if seen > probes.len() {
            assert_eq!(seen, probes.len() + 1, "two probes at once");
            probes.push(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // Four watches that each tried again after 0.2 to 3 s would have sent some 25.
    assert!((4..=16).contains(&probes.len()), "{probes:?}");
    source.learns("late");
    until("all four watches are back", || server.requests().len() >= 8);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.requests().len(), 8, "each watch resumes with one request");
    assert_eq!(lists(server), 4, "and without a list");
    assert_eq!(server.carried().connections - before.connections, 1);
}

#[test]
fn watch_7_requests_a_second_are_limited_as_configured() {
    for (qps, burst, expected) in [(10.0, 1, 700..1500), (-1.0, 1, 0..600)] {
        let server = server(None);
        server.set_faults(Faults { streaming_lists: StreamingLists::Refused, ..Faults::default() });
        let begun = Instant::now();
        let config = KubernetesConfig { qps, burst, master: Some(server.url()), ..KubernetesConfig::default() };
        let source = Source::tuned(config);
        source.lists();
        // Four lists that are refused and four pages: seven waits.
        let took = begun.elapsed().as_millis();
        assert!(took >= expected.start, "{qps}: {took} ms");
    }
}
