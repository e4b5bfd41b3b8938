//! `portway record`: records a cluster's Services and their changes into a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use portway_trace::{Masked, Masker};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::args::RecordArgs;
use super::failure::Failure;
use super::{limits, node_name, settings};
use crate::config::{Source, duration};
use crate::logging::{self, Format};
use crate::recorder::{OnStart, Output, Progress, Recording};
use crate::sources::kubernetes::{self, KubernetesConfig};

/// How often the progress line is updated and the duration is checked.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// How often the file is flushed: a recorder that is killed loses at most this much time.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);

/// Records until a signal comes, the duration is over, or recording fails.
pub(super) fn record(args: &RecordArgs) -> Result<(), Failure> {
    let settings = settings(&args.configuration.0)?;
    let Source::Api { kubeconfig, master } = settings.source else {
        return Err(Failure::BadInput("only an API server can be recorded".to_owned()));
    };
    let node_name = node_name(settings.node_name)?;
    let max = max_duration(args.duration.as_deref())?;
    let masker = Masker::new(&masked(args)).map_err(|error| Failure::runtime("no random key", &error))?;
    let config = KubernetesConfig { kubeconfig, master, node_name, ..KubernetesConfig::default() };
    logging::start(Format::Text, 0).map_err(|error| Failure::runtime("cannot start logging", &error))?;

    limits::require_open_files()?;
    let Destination { output, on_start, unpublished } = Destination::open(&args.out)?;
    let gzip = args.out.extension().is_some_and(|extension| extension == "gz");
    let name = if args.out == Path::new("-") { "standard output".to_owned() } else { args.out.display().to_string() };
    let cannot_write = |error: &io::Error| Failure::runtime(&format!("cannot write {name}"), error);
    let recording =
        Recording::new(output, gzip, &config.node_name, masker, on_start).map_err(|error| cannot_write(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("cannot start the runtime", &error))?;
    let mut line = ProgressLine::new();
    let followed = runtime.block_on(follow(config, &recording, max, &mut line));
    line.end();
    let done = recording.finish().map_err(|error| cannot_write(&error))?;
    followed?;
    match done.time {
        Some(_) => {
            eprintln!("recorded {} to {name}", describe(&done));
            Ok(())
        }
        None => {
            let outcome = if unpublished.is_some() { "was not touched" } else { "has nothing to replay" };
            let why = "the recording ended before all of the cluster's objects were listed";
            Err(Failure::Runtime(format!("{why}; {name} {outcome}")))
        }
    }
}

fn max_duration(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err(Failure::BadInput(format!("--duration {text:?}: must be longer than 0"))),
        Ok(time) => Ok(Some(time)),
        Err(error) => Err(Failure::BadInput(format!("--duration {text:?}: {error}"))),
    }
}

fn masked(args: &RecordArgs) -> Vec<Masked> {
    let names = args.mask || args.mask_names;
    let addresses = args.mask || args.mask_addresses;
    let all = [(names, Masked::Names), (addresses, Masked::Addresses)];
    all.into_iter().filter_map(|(is, what)| is.then_some(what)).collect()
}

/// Where the trace goes.
struct Destination {
    output: Output,
    on_start: OnStart,
    /// The file in which a trace starts, if it takes the place of another file once there is something to replay.
    unpublished: Option<Unpublished>,
}

impl Destination {
    /// Opens the output. A file is written beside its name and renamed once every object is listed, so that a recording
    /// that comes to nothing leaves an earlier one as it was. Pipes, devices and standard output are written directly.
    fn open(out: &Path) -> Result<Self, Failure> {
        let bad = |error: io::Error| Failure::BadInput(format!("--out {}: {error}", out.display()));
        let direct = |output: Output| Self { output, on_start: Box::new(|| Ok(())), unpublished: None };
        if out == Path::new("-") {
            return Ok(direct(Box::new(io::stdout())));
        }
        // A link stays a link to the file that it names.
        let target = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
        let earlier = match fs::metadata(&target) {
            Ok(earlier) if !earlier.is_file() => return Ok(direct(Box::new(File::create(out).map_err(bad)?))),
            Ok(earlier) => {
                // A rename would not ask whether the file may be written.
                OpenOptions::new().write(true).open(&target).map_err(bad)?;
                Some(earlier)
            }
            Err(_) => None,
        };
        let name = target.file_name().ok_or_else(|| bad(io::ErrorKind::IsADirectory.into()))?.to_string_lossy();
        let beside = target.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&beside).map_err(bad)?;
        let unpublished = Unpublished(beside.clone());
        if let Some(earlier) = earlier {
            file.set_permissions(earlier.permissions()).map_err(bad)?;
        }
        let same = file.try_clone().map_err(bad)?;
        let on_start = move || {
            // Otherwise a power failure could leave neither the old file nor the new one.
            same.sync_data()?;
            fs::rename(&beside, &target)
        };
        Ok(Self { output: Box::new(file), on_start: Box::new(on_start), unpublished: Some(unpublished) })
    }
}

/// A file that is removed at the end, unless it was renamed before.
struct Unpublished(PathBuf);

impl Drop for Unpublished {
    fn drop(&mut self) {
        // It fails where the file was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Records until a signal, the end of the duration, or a failure.
async fn follow(
    config: KubernetesConfig,
    recording: &Recording,
    max: Option<Duration>,
    line: &mut ProgressLine,
) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::runtime("cannot listen for signals", &error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut progress_timer = interval(PROGRESS_PERIOD);
    progress_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flush = interval(FLUSH_PERIOD);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = kubernetes::record(config, recording.clone());
    tokio::pin!(watching);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            // It succeeds only if the file could not be written, which `finish` reports.
            ended = &mut watching => return ended.map_err(|error| Failure::bad_input(&error)),
            _ = flush.tick() => {
                if recording.flush().is_err() {
                    return Ok(());
                }
            }
            _ = progress_timer.tick() => {
                let progress = recording.progress();
                line.show(&progress);
                if max.is_some_and(|max| progress.time >= Some(max)) {
                    return Ok(());
                }
            }
        }
    }
}

fn describe(progress: &Progress) -> String {
    let Progress { objects, events, bytes, interruptions, time } = progress;
    let seconds = time.map_or(0.0, |time| time.as_secs_f64());
    let interrupted = match interruptions {
        0 => String::new(),
        count => format!("; {count} interruptions, during which several changes of an object count as one"),
    };
    let mebibytes = *bytes as f64 / f64::from(1 << 20);
    format!("{objects} objects and {events} events in {seconds:.1} s, {mebibytes:.1} MiB{interrupted}")
}

/// A progress line that overwrites itself, if standard error is a terminal.
struct ProgressLine {
    terminal: bool,
    shown: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, progress: &Progress) {
        if !self.terminal {
            return;
        }
        let text = match progress.time {
            None => format!("listing: {} objects", progress.objects),
            Some(_) => format!("recording: {}; press Ctrl-C to end", describe(progress)),
        };
        // Returns to the start of the line and erases it.
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
        self.shown = true;
    }

    fn end(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
