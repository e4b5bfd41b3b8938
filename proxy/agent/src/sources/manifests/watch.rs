//! Follows a folder of manifests: sends its objects as complete lists, then change by change.
//!
//! The kernel's watch only says when to look. What is true is looked at also at intervals: the name of the folder may
//! lead to another folder meanwhile, a file may be a link to one elsewhere, and some file systems tell nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout_at};

use super::error::ManifestError;
use super::folder::Folder;
use super::survey::{Identity, Survey};
use super::writers::Writers;
use crate::inbox::{EventSink, InboxClosed};

/// The folder to follow, and how long to wait for those who write to it.
#[derive(Clone, Debug)]
pub struct ManifestsConfig {
    /// The folder that holds the manifests. Folders inside it are not read.
    pub directory: PathBuf,
    /// A change is read once nothing has been written for this long, so that no half-written file is read.
    pub quiet: Duration,
    /// A change is read after this long even if the writing goes on, but for the files that are being written.
    pub max_wait: Duration,
    /// The folder is looked at this often whatever the watch says. A large folder is looked at less often, so that
    /// this costs no more than a hundredth of a processor.
    pub interval: Duration,
}

impl ManifestsConfig {
    /// The folder with the usual waiting times: 25 ms of quiet, 250 ms at most, a look each 500 ms.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            quiet: Duration::from_millis(25),
            max_wait: Duration::from_millis(250),
            interval: Duration::from_millis(500),
        }
    }
}

/// What goes on being wrong is logged again after this long.
const REMINDER: Duration = Duration::from_secs(600);

/// Sends the objects of the folder as complete lists, then change by change. Returns when the sync loop has ended.
///
/// # Errors
/// If the folder cannot be read at the start. Bad files are no error: they are logged, and the others are served.
pub async fn run(config: ManifestsConfig, sink: EventSink) -> Result<(), ManifestError> {
    let (hints, received) = mpsc::unbounded_channel();
    let follower = Follower {
        folder: Folder::default(),
        writers: Writers::default(),
        watch: None,
        hints,
        received,
        survey_cost: Duration::ZERO,
        failure: Failure::default(),
        watch_failure: Failure::default(),
        config,
        sink,
    };
    follower.run().await
}

/// The watch of one folder.
struct Watch {
    identity: Identity,
    /// Nothing if the folder cannot be watched and is only looked at.
    watcher: Option<RecommendedWatcher>,
}

/// What is known while the folder is followed.
struct Follower {
    config: ManifestsConfig,
    sink: EventSink,
    folder: Folder,
    writers: Writers,
    watch: Option<Watch>,
    hints: UnboundedSender<notify::Event>,
    received: UnboundedReceiver<notify::Event>,
    /// How long the last survey took.
    survey_cost: Duration,
    failure: Failure,
    watch_failure: Failure,
}

impl Follower {
    async fn run(mut self) -> Result<(), ManifestError> {
        let mut started = false;
        loop {
            let survey = match self.survey().await {
                Ok(survey) => survey,
                Err(error) if !started => return Err(ManifestError::of_file(&self.config.directory, error)),
                Err(error) => {
                    let consequence = "the objects read before stay in force";
                    self.failure.report(&error.to_string(), &self.config.directory, consequence);
                    self.unwatch();
                    sleep(self.config.interval).await;
                    continue;
                }
            };
            self.failure.over(&self.config.directory, "can be read again");
            let survey = if self.watch.as_ref().is_some_and(|watch| watch.identity == survey.identity) {
                survey
            } else {
                self.watch(survey.identity);
                // Looked at once more, so that no change falls between look and watch.
                let Ok(survey) = self.survey().await else { continue };
                survey
            };
            if !started || self.may_be_news(&survey) {
                let events = self.update(survey).await;
                let events = events.map_err(|error| ManifestError::of_file(&self.config.directory, error))?;
                for event in events {
                    if let Err(InboxClosed) = self.sink.send(event).await {
                        return Ok(());
                    }
                }
            }
            started = true;
            if let Err(InboxClosed) = self.wait().await {
                return Ok(());
            }
        }
    }

    async fn survey(&mut self) -> io::Result<Survey> {
        let directory = self.config.directory.clone();
        let begun = Instant::now();
        let survey = spawn_blocking(move || Survey::of(&directory)).await.map_err(io::Error::other)?;
        self.survey_cost = begun.elapsed();
        survey
    }

    /// Whether a survey, what the watch has told or the time can change what is in force.
    fn may_be_news(&self, survey: &Survey) -> bool {
        let now = Instant::now();
        self.folder.differs(survey)
            || self.writers.has_closed()
            || self.folder.next_review().is_some_and(|review| now >= review)
    }

    /// Reads what has changed, on a thread where this may take its time.
    async fn update(&mut self, survey: Survey) -> io::Result<Vec<portway_model::Event>> {
        let mut folder = std::mem::take(&mut self.folder);
        let writers = self.writers.clone();
        self.writers.forget_closed();
        let (folder, events) = spawn_blocking(move || {
            let events = folder.update(&survey, &writers, Instant::now());
            (folder, events)
        })
        .await
        .map_err(io::Error::other)?;
        self.folder = folder;
        let unreadable = self.folder.unreadable();
        self.sink.unreadable(unreadable.files, unreadable.objects);
        Ok(events)
    }

    /// Waits until there may be something new.
    async fn wait(&mut self) -> Result<(), InboxClosed> {
        loop {
            let now = Instant::now();
            let look = now + self.config.interval.max(self.survey_cost * 100);
            let review = self.folder.next_review().map(|review| review.max(now + self.config.quiet));
            let until = review.map_or(look, |review| review.min(look));
            if let Ok(Some(hint)) = timeout_at(until.into(), self.received.recv()).await {
                self.note(&hint);
                self.wait_for_quiet().await;
                return Ok(());
            }
            if self.sink.is_closed() {
                return Err(InboxClosed);
            }
            if review.is_some_and(|review| Instant::now() >= review) {
                return Ok(());
            }
            let Ok(survey) = self.survey().await else { return Ok(()) };
            let watched = self.watch.as_ref().is_some_and(|watch| watch.identity == survey.identity);
            if !watched || self.folder.differs(&survey) {
                self.wait_for_stability(survey).await;
                return Ok(());
            }
        }
    }

    /// Takes hints until none has come for a while.
    async fn wait_for_quiet(&mut self) {
        let limit = Instant::now() + self.config.max_wait;
        loop {
            let until = limit.min(Instant::now() + self.config.quiet);
            match timeout_at(until.into(), self.received.recv()).await {
                Ok(Some(hint)) => self.note(&hint),
                _ => return,
            }
        }
    }

    /// Looks until two surveys are the same: what the watch does not tell of may be half written.
    async fn wait_for_stability(&mut self, mut survey: Survey) {
        let limit = Instant::now() + self.config.max_wait;
        while Instant::now() < limit {
            sleep(self.config.quiet).await;
            match self.survey().await {
                Ok(next) if next != survey => survey = next,
                _ => return,
            }
        }
    }

    fn note(&mut self, hint: &notify::Event) {
        self.writers.note(hint, Instant::now());
        let of_folder = hint.paths.contains(&self.config.directory);
        if of_folder
            && matches!(hint.kind, EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_)))
        {
            // The folder is gone from its name, and the watch with it.
            self.unwatch();
        }
    }

    fn watch(&mut self, identity: Identity) {
        self.unwatch();
        let hints = self.hints.clone();
        let watcher = notify::recommended_watcher(move |change: notify::Result<notify::Event>| {
            // An error may stand for lost events.
            let change =
                change.unwrap_or_else(|_| notify::Event::new(EventKind::Any).set_flag(notify::event::Flag::Rescan));
            if may_change_content(&change) {
                // It fails only when the receiver is gone, and the watcher with it.
                let _ = hints.send(change);
            }
        });
        let watched = watcher.and_then(|mut watcher| {
            watcher.watch(&self.config.directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = match watched {
            Ok(watcher) => {
                self.watch_failure.over(&self.config.directory, "is watched again");
                Some(watcher)
            }
            Err(error) => {
                let consequence = format!("changes are found by looking each {:?}", self.config.interval);
                self.watch_failure.report(&format!("cannot be watched: {error}"), &self.config.directory, &consequence);
                None
            }
        };
        self.watch = Some(Watch { identity, watcher });
    }

    fn unwatch(&mut self) {
        if let Some(watch) = self.watch.take() {
            drop(watch.watcher);
        }
        self.writers.clear();
    }
}

/// Something that goes on being wrong: logged when it begins and changes, and then rarely.
#[derive(Default)]
struct Failure {
    reported: Option<(String, Instant)>,
}

impl Failure {
    fn report(&mut self, reason: &str, directory: &Path, consequence: &str) {
        let now = Instant::now();
        let said = self.reported.as_ref().is_some_and(|(said, at)| said == reason && now < *at + REMINDER);
        if !said {
            tracing::warn!("{}: {reason}; {consequence}", directory.display());
            self.reported = Some((reason.to_owned(), now));
        }
    }

    fn over(&mut self, directory: &Path, news: &str) {
        if self.reported.take().is_some() {
            tracing::info!("{} {news}", directory.display());
        }
    }
}

/// Whether a change can mean other content. Reading cannot, and this source itself reads the folder.
fn may_change_content(change: &notify::Event) -> bool {
    match change.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
