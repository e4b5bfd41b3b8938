//! Tests of following a folder: what is sent after each kind of change.

use std::path::PathBuf;
use std::time::Duration;

use portway_model::Event;

use crate::sources::manifests::objects::KINDS;
use crate::sources::manifests::{ManifestError, ManifestsConfig, run};

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
    fn first_lists(&self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.last() != Some(&Event::ListDone(KINDS[KINDS.len() - 1])) {
            events.push(self.next());
        }
        events
    }

    fn expect_no_event(&self) {
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
    let lists = running.first_lists();
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
    running.expect_no_event();
    // A second file with the same Service changes nothing until the first goes.
    std::fs::write(running.path("b.yaml"), web("10.96.0.4")).unwrap();
    running.expect_no_event();
    std::fs::remove_file(running.path("a.yaml")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.4");
    std::fs::remove_file(running.path("b.yaml")).unwrap();
    assert_eq!(running.next(), Event::ServiceGone(portway_model::ServiceName::new("default", "web")));
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bad_file_keeps_its_last_valid_content_and_others_are_served() {
    let other = web("10.96.0.9").replace("name: web", "name: other");
    let running = Running::start(&[("a.yaml", &web("10.96.0.1")), ("b.yaml", &other), ("c.yaml", "kind: {")]);
    assert_eq!(running.first_lists().iter().filter(|event| matches!(event, Event::Service(_))).count(), 2);
    std::fs::write(running.path("a.yaml"), web("10.96.0.2").replace("spec: {", "spec: {ports: 7, ")).unwrap();
    running.expect_no_event();
    std::fs::write(running.path("b.yaml"), other.replace("10.96.0.9", "10.96.0.8")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.8");
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.2");
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_config_map_is_swapped_by_its_symlink() {
    let running = Running::start(&[]);
    running.first_lists();
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
async fn a_folder_that_goes_away_leaves_its_objects_in_force_and_is_found_again() {
    let running = Running::start(&[("a.yaml", &web("10.96.0.1"))]);
    running.first_lists();
    let away = running.folder.path().with_extension("away");
    std::fs::rename(running.folder.path(), &away).unwrap();
    running.expect_no_event();
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
