//! `portway record`: writes what happens to a cluster's Services into a file.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use portway_trace::{Masked, Masker};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::args::RecordArgs;
use super::failure::Failure;
use super::{duration, settings};
use crate::logging::{self, Format};
use crate::recorder::{Output, Progress, Recording};
use crate::sources::kubernetes::{self, KubernetesConfig, Tuning};

/// How often the progress line is written anew, and whether it is time to end is looked at.
const GLANCE: Duration = Duration::from_millis(100);

/// How often what was recorded is handed to the file: a recorder that is killed loses no more than this.
const FLUSH: Duration = Duration::from_secs(1);

/// Records until a signal comes, the time is over, or it cannot go on.
pub(super) fn record(args: &RecordArgs) -> Result<(), Failure> {
    let (kubeconfig, master) = settings::api(&args.api)?;
    let node_name = match settings::given_node_name(&args.name)? {
        Some(name) => name,
        None => settings::default_node_name()?,
    };
    let longest = longest(args.duration.as_deref())?;
    let masker = Masker::new(&masked(args)).map_err(|error| Failure::runtime("no random key", &error))?;
    let config = KubernetesConfig { kubeconfig, master, node_name, relist_period: None, tuning: Tuning::default() };
    logging::start(Format::Text, 0).map_err(|error| Failure::runtime("cannot start logging", &error))?;

    let (output, gzip) = open(&args.out)?;
    let name = if args.out == Path::new("-") { "standard output".to_owned() } else { args.out.display().to_string() };
    let cannot_write = |error: &io::Error| Failure::runtime(&format!("cannot write {name}"), error);
    let recording = Recording::new(output, gzip, &config.node_name, masker).map_err(|error| cannot_write(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("cannot start the runtime", &error))?;
    let mut line = ProgressLine::new();
    let followed = runtime.block_on(follow(config, &recording, longest, &mut line));
    line.end();
    let done = recording.finish().map_err(|error| cannot_write(&error))?;
    followed?;
    match done.time {
        Some(_) => {
            eprintln!("recorded {} to {name}", describe(&done));
            Ok(())
        }
        None => Err(Failure::Runtime(format!(
            "the recording ended before the cluster's objects were all listed; {name} holds nothing to play back"
        ))),
    }
}

fn longest(text: Option<&str>) -> Result<Option<Duration>, Failure> {
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

/// Opens the file, and says whether it is to be compressed.
fn open(out: &Path) -> Result<(Output, bool), Failure> {
    if out == Path::new("-") {
        return Ok((Box::new(io::stdout()), false));
    }
    let gzip = out.extension().is_some_and(|extension| extension == "gz");
    match File::create(out) {
        Ok(file) => Ok((Box::new(file), gzip)),
        Err(error) => Err(Failure::BadInput(format!("--out {}: {error}", out.display()))),
    }
}

/// Records until the end, whatever brings it.
async fn follow(
    config: KubernetesConfig,
    recording: &Recording,
    longest: Option<Duration>,
    line: &mut ProgressLine,
) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::runtime("cannot listen for signals", &error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut glance = interval(GLANCE);
    glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flush = interval(FLUSH);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = kubernetes::record(config, recording.clone());
    tokio::pin!(watching);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            // It ends well only when the file could not be written, which `finish` tells.
            ended = &mut watching => return ended.map_err(|error| Failure::bad_input(&error)),
            _ = flush.tick() => {
                if recording.flush().is_err() {
                    return Ok(());
                }
            }
            _ = glance.tick() => {
                let progress = recording.progress();
                line.show(&progress);
                if longest.is_some_and(|longest| progress.time >= Some(longest)) {
                    return Ok(());
                }
            }
        }
    }
}

fn describe(progress: &Progress) -> String {
    let Progress { objects, events, bytes, interruptions, time } = progress;
    let seconds = time.map_or(0.0, |time| time.as_secs_f64());
    let again = match interruptions {
        0 => String::new(),
        count => format!("; {count} interruptions, changes during which count as one"),
    };
    let mebibytes = *bytes as f64 / f64::from(1 << 20);
    format!("{objects} objects and {events} events in {seconds:.1} s, {mebibytes:.1} MiB{again}")
}

/// One line that is written over and over, if a person looks.
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
            Some(_) => format!("recording: {}; Ctrl-C ends it", describe(progress)),
        };
        // Back to the line's start, and what was there is erased.
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
        self.shown = true;
    }

    fn end(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
