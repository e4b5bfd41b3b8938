//! Tests of following a folder: what is sent after each kind of change.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use portway_model::Event;

use crate::sources::manifests::folder::{Folder, Unreadable};
use crate::sources::manifests::objects::KINDS;
use crate::sources::manifests::survey::Survey;
use crate::sources::manifests::writers::Writers;
use crate::sources::manifests::{ManifestError, ManifestsConfig, run};

/// A running source over a folder.
struct Running {
    folder: tempfile::TempDir,
    inbox: crate::inbox::Inbox,
    source: tokio::task::JoinHandle<Result<(), ManifestError>>,
}

impl Running {
    /// Starts with these files in a folder of manifests.
    fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        for (name, text) in files {
            std::fs::write(manifests.join(name), text).unwrap();
        }
        Self::start_in(folder)
    }

    /// Starts with `manifests` in this folder, whatever it is.
    fn start_in(folder: tempfile::TempDir) -> Self {
        let (sink, inbox) = crate::inbox::channel(1024, crate::metrics::SourceMetrics::default());
        let source = tokio::spawn(run(ManifestsConfig::new(folder.path().join("manifests")), sink));
        Self { folder, inbox, source }
    }

    /// A file of the folder of manifests.
    fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The folder of manifests.
    fn directory(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// A file or folder beside the folder of manifests.
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The next event, which must be the Service with this address, within two seconds.
    #[track_caller]
    fn expect_soon(&self, ip: &str) {
        let begun = Instant::now();
        assert_eq!(ip_of(&self.next()), ip);
        // A second is what is promised; the rest is for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
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

fn other(ip: &str) -> String {
    web(ip).replace("name: web", "name: other")
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
    std::fs::rename(running.directory(), running.beside("away")).unwrap();
    running.expect_no_event();
    std::fs::create_dir(running.directory()).unwrap();
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    assert_eq!(ip_of(&running.next()), "10.96.0.2");
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_that_is_removed_and_made_anew_is_followed() {
    let running = Running::start(&[("a.yaml", &web("10.96.0.1"))]);
    running.first_lists();
    for round in 1..=3 {
        std::fs::remove_dir_all(running.directory()).unwrap();
        std::fs::create_dir(running.directory()).unwrap();
        std::fs::write(running.path("a.yaml"), web(&format!("10.96.{round}.2"))).unwrap();
        running.expect_soon(&format!("10.96.{round}.2"));
        std::fs::write(running.path("a.yaml"), web(&format!("10.96.{round}.3"))).unwrap();
        running.expect_soon(&format!("10.96.{round}.3"));
    }
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_that_another_takes_the_place_of_is_followed() {
    let running = Running::start(&[("a.yaml", &web("10.96.0.1"))]);
    running.first_lists();
    std::fs::create_dir(running.beside("new")).unwrap();
    std::fs::write(running.beside("new").join("a.yaml"), web("10.96.0.2")).unwrap();
    std::fs::rename(running.directory(), running.beside("old")).unwrap();
    std::fs::rename(running.beside("new"), running.directory()).unwrap();
    running.expect_soon("10.96.0.2");
    std::fs::write(running.path("a.yaml"), web("10.96.0.3")).unwrap();
    running.expect_soon("10.96.0.3");
    // The old folder is no source any more.
    std::fs::write(running.beside("old").join("a.yaml"), web("10.96.0.4")).unwrap();
    running.expect_no_event();
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_behind_a_symbolic_link_is_followed_when_the_link_is_flipped() {
    let folder = tempfile::tempdir().unwrap();
    for (name, ip) in [("one", "10.96.0.1"), ("two", "10.96.0.2")] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("a.yaml"), web(ip)).unwrap();
    }
    std::os::unix::fs::symlink("one", folder.path().join("manifests")).unwrap();
    let running = Running::start_in(folder);
    running.first_lists();
    // As git-sync does: a new link takes the name.
    std::os::unix::fs::symlink("two", running.beside("next")).unwrap();
    std::fs::rename(running.beside("next"), running.directory()).unwrap();
    running.expect_soon("10.96.0.2");
    std::fs::write(running.beside("two").join("a.yaml"), web("10.96.0.3")).unwrap();
    running.expect_soon("10.96.0.3");
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_that_links_out_of_the_folder_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["manifests", "other"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("other/a.yaml"), web("10.96.0.1")).unwrap();
    std::os::unix::fs::symlink("../other/a.yaml", folder.path().join("manifests/a.yaml")).unwrap();
    let running = Running::start_in(folder);
    running.first_lists();
    std::fs::write(running.beside("other/a.yaml"), web("10.96.0.2")).unwrap();
    running.expect_soon("10.96.0.2");
    running.source.abort();
}

/// What `kubectl get … > a.yaml` does: the shell truncates the file long before something is written to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn own_12_a_file_that_is_being_written_keeps_its_objects_until_it_is_closed() {
    let running = Running::start(&[("a.yaml", &(web("10.96.0.1") + "---\n" + &other("10.96.0.9")))]);
    running.first_lists();
    let mut file = std::fs::File::create(running.path("a.yaml")).unwrap();
    running.expect_no_event();
    file.write_all(web("10.96.0.2").as_bytes()).unwrap();
    running.expect_no_event();
    file.write_all(("---\n".to_owned() + &other("10.96.0.9")).as_bytes()).unwrap();
    running.expect_no_event();
    drop(file);
    running.expect_soon("10.96.0.2");
    running.expect_no_event();
    // What a closed file no longer holds is gone.
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    assert_eq!(running.next(), Event::ServiceGone(portway_model::ServiceName::new("default", "other")));
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn own_12_a_bad_object_keeps_its_last_valid_form_and_a_restart_serves_the_others() {
    let (good, last) = (web("10.96.0.1"), other("10.96.0.9"));
    let new = |port: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: new}}\nspec: {{clusterIP: 10.96.0.99, ports: [{{port: \
             {port}}}]}}\n"
        )
    };
    let running = Running::start(&[("a.yaml", &(good.clone() + &new("80"))), ("b.yaml", &last)]);
    assert_eq!(running.first_lists().iter().filter(|event| matches!(event, Event::Service(_))).count(), 3);
    std::fs::write(running.path("a.yaml"), good.clone() + &new("0")).unwrap();
    running.expect_no_event();
    // Later edits of the file are not held up.
    std::fs::write(running.path("a.yaml"), web("10.96.0.2") + &new("0")).unwrap();
    running.expect_soon("10.96.0.2");
    running.expect_no_event();
    running.source.abort();
    let Running { folder, .. } = running;
    let running = Running::start_in(folder);
    let lists = running.first_lists();
    let served: Vec<&str> = lists.iter().filter(|event| matches!(event, Event::Service(_))).map(ip_of).collect();
    assert_eq!(served, ["10.96.0.9", "10.96.0.2"]);
    running.source.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_change_reads_only_the_file_that_changed() {
    use notify::Watcher as _;
    let running = Running::start(&[("a.yaml", &web("10.96.0.1")), ("b.yaml", &other("10.96.0.9"))]);
    running.first_lists();
    let (sender, opened) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let event = event.unwrap();
        if matches!(event.kind, notify::EventKind::Access(notify::event::AccessKind::Open(_))) {
            sender.send(event.paths).unwrap();
        }
    })
    .unwrap();
    watcher.watch(&running.directory(), notify::RecursiveMode::NonRecursive).unwrap();
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    running.expect_soon("10.96.0.2");
    running.expect_no_event();
    let opened: Vec<PathBuf> = opened.try_iter().flatten().collect();
    assert!(opened.contains(&running.path("a.yaml")), "{opened:?}");
    assert!(!opened.contains(&running.path("b.yaml")), "{opened:?}");
    running.source.abort();
}

/// What all tests have logged. A subscriber for each would hide the events of the others.
static LOGGED: LazyLock<Logged> = LazyLock::new(|| {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    logged
});

#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How many lines of the log name this folder and hold this text.
fn logged(folder: &Path, text: &str) -> usize {
    let log = String::from_utf8(LOGGED.0.lock().unwrap().clone()).unwrap();
    let folder = folder.display().to_string();
    log.lines().filter(|line| line.contains(&folder) && line.contains(text)).count()
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_is_named_once() {
    LazyLock::force(&LOGGED);
    let running = Running::start(&[("a.yaml", &web("10.96.0.1"))]);
    let wait = || tokio::time::sleep(Duration::from_millis(1500));
    wait().await;
    running.first_lists();
    std::fs::remove_dir_all(running.directory()).unwrap();
    // A file in place of the folder.
    std::fs::write(running.directory(), "").unwrap();
    wait().await;
    assert_eq!(logged(running.folder.path(), "the objects read before stay in force"), 1);
    std::fs::remove_file(running.directory()).unwrap();
    std::fs::create_dir(running.directory()).unwrap();
    std::fs::write(running.path("a.yaml"), web("10.96.0.2")).unwrap();
    wait().await;
    assert_eq!(ip_of(&running.next()), "10.96.0.2");
    assert_eq!(logged(running.folder.path(), "can be read again"), 1);
    running.source.abort();
}

/// The folder under a clock of its own: what happens when, without waiting for it.
struct Clocked {
    directory: tempfile::TempDir,
    folder: Folder,
    writers: Writers,
    now: Instant,
}

impl Clocked {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut clocked =
            Self { directory, folder: Folder::default(), writers: Writers::default(), now: Instant::now() };
        clocked.write(text);
        clocked.update();
        clocked
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("a.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn update(&mut self) -> Vec<Event> {
        let survey = Survey::of(self.directory.path()).unwrap();
        let events = self.folder.update(&survey, &self.writers, self.now);
        self.writers.forget_closed();
        events
    }

    fn after(&mut self, time: Duration) -> Vec<Event> {
        self.now += time;
        self.update()
    }

    fn note(&mut self, kind: notify::EventKind) {
        self.writers.note(&notify::Event::new(kind).add_path(self.path()), self.now);
    }

    fn written(&mut self) {
        self.note(notify::EventKind::Modify(notify::event::ModifyKind::Data(notify::event::DataChange::Any)));
    }

    fn closed(&mut self) {
        let write = notify::event::AccessMode::Write;
        self.note(notify::EventKind::Access(notify::event::AccessKind::Close(write)));
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn web_is_gone() -> Vec<Event> {
    vec![Event::ServiceGone(portway_model::ServiceName::new("default", "web"))]
}

#[test]
fn own_12_an_empty_file_keeps_its_objects_for_a_while_and_is_named() {
    LazyLock::force(&LOGGED);
    let mut clocked = Clocked::new(&web("10.96.0.1"));
    clocked.written();
    clocked.closed();
    clocked.write("\n");
    assert_eq!(clocked.update(), []);
    assert_eq!(logged(clocked.directory.path(), "is empty where 1 objects were"), 1);
    assert_eq!(clocked.after(29 * SECOND), []);
    assert_eq!(clocked.after(SECOND), web_is_gone());
    assert_eq!(logged(clocked.directory.path(), "is empty where"), 1);
}

#[test]
fn a_file_of_comments_is_empty_on_purpose() {
    let mut clocked = Clocked::new(&web("10.96.0.1"));
    clocked.closed();
    clocked.write("# nothing\n");
    assert_eq!(clocked.update(), web_is_gone());
}

#[test]
fn own_12_a_file_that_stays_open_is_read_but_loses_nothing() {
    let mut clocked = Clocked::new(&(web("10.96.0.1") + "---\n" + &other("10.96.0.9")));
    clocked.write(&other("10.96.0.8"));
    clocked.written();
    assert_eq!(clocked.after(9 * SECOND), []);
    let events = clocked.after(SECOND);
    assert_eq!(events.iter().map(ip_of).collect::<Vec<_>>(), ["10.96.0.8"]);
    assert_eq!(clocked.after(3600 * SECOND), []);
    clocked.closed();
    assert_eq!(clocked.update(), web_is_gone());
}

#[test]
fn own_12_a_file_written_where_no_watch_sees_it_loses_objects_when_it_is_stable() {
    let mut clocked = Clocked::new(&(web("10.96.0.1") + "---\n" + &other("10.96.0.9")));
    clocked.write(&other("10.96.0.9"));
    assert_eq!(clocked.update(), []);
    assert_eq!(clocked.after(SECOND), []);
    assert_eq!(clocked.after(SECOND), web_is_gone());
}

#[test]
fn own_12_what_no_longer_parses_keeps_every_object_until_it_is_mended() {
    let mut clocked = Clocked::new(&(web("10.96.0.1") + "---\n" + &other("10.96.0.9")));
    clocked.closed();
    clocked.write(&("kind: [\n---\n".to_owned() + &other("10.96.0.8")));
    assert_eq!(clocked.update().iter().map(ip_of).collect::<Vec<_>>(), ["10.96.0.8"]);
    assert_eq!(clocked.folder.unreadable(), Unreadable { files: 0, objects: 1 });
    assert_eq!(clocked.after(3600 * SECOND), []);
    clocked.closed();
    clocked.write(&other("10.96.0.8"));
    assert_eq!(clocked.update(), web_is_gone());
    assert_eq!(clocked.folder.unreadable(), Unreadable::default());
}

#[test]
fn own_12_a_file_that_becomes_unreadable_keeps_its_objects_and_is_counted() {
    LazyLock::force(&LOGGED);
    let mut clocked = Clocked::new(&web("10.96.0.1"));
    let file = std::fs::OpenOptions::new().write(true).open(clocked.path()).unwrap();
    for size in 30..33 {
        file.set_len(1 << size).unwrap();
        assert_eq!(clocked.update(), []);
        assert_eq!(clocked.folder.unreadable(), Unreadable { files: 1, objects: 0 });
    }
    assert_eq!(logged(clocked.directory.path(), "is larger than 256 MiB"), 1);
    clocked.write(&web("10.96.0.2"));
    assert_eq!(clocked.update().iter().map(ip_of).collect::<Vec<_>>(), ["10.96.0.2"]);
    assert_eq!(clocked.folder.unreadable(), Unreadable::default());
}

#[test]
fn a_file_that_is_removed_and_written_anew_keeps_its_objects_meanwhile() {
    let mut clocked = Clocked::new(&web("10.96.0.1"));
    std::fs::remove_file(clocked.path()).unwrap();
    assert_eq!(clocked.update(), []);
    clocked.write(&web("10.96.0.2"));
    assert_eq!(clocked.update().iter().map(ip_of).collect::<Vec<_>>(), ["10.96.0.2"]);
    std::fs::remove_file(clocked.path()).unwrap();
    assert_eq!(clocked.update(), []);
    assert_eq!(clocked.after(SECOND), web_is_gone());
}

#[test]
fn a_file_of_another_name_takes_over_at_once_and_without_a_warning() {
    LazyLock::force(&LOGGED);
    let mut clocked = Clocked::new(&web("10.96.0.1"));
    std::fs::rename(clocked.path(), clocked.directory.path().join("b.yaml")).unwrap();
    assert_eq!(clocked.update(), []);
    assert_eq!(clocked.after(SECOND), []);
    assert_eq!(logged(clocked.directory.path(), ""), 0);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error() {
    let (sink, _inbox) = crate::inbox::channel(16, crate::metrics::SourceMetrics::default());
    let error = run(ManifestsConfig::new("/nonexistent/manifests"), sink).await.unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/manifests: "), "{error}");
}
