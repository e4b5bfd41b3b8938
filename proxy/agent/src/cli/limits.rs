//! Limits of the process that would otherwise show themselves as a panic or an obscure failure later.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failure::Failure;

/// Files that may be open at once where the limit can be raised that far. Higher ones would cost programs that are started
/// with them: some close every possible file.
const USUAL_FILES: u64 = 1024;

/// Files, sockets and pipes that a command may need beside those that it was started with: it has about forty open at most.
const MIN_FREE_FILES: usize = 64;

/// Makes sure that enough files can be opened, as far as the limit can be raised.
pub(super) fn require_open_files() -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Some(limit) = current.filter(|limit| *limit < USUAL_FILES) {
        let raised = USUAL_FILES.min(maximum.unwrap_or(USUAL_FILES)).max(limit);
        // What can be opened then is tried below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    }
    let Err(error) = open_files(MIN_FREE_FILES) else { return Ok(()) };
    let limit = match getrlimit(Resource::Nofile).current {
        Some(limit) => limit.to_string(),
        None => "any number of".to_owned(),
    };
    Err(Failure::Runtime(format!(
        "cannot open {MIN_FREE_FILES} files and sockets at once ({error}); this process may have {limit} open in all: raise \
         the limit (ulimit -n, LimitNOFILE= of a systemd unit, the limits of the container runtime) to {USUAL_FILES}"
    )))
}

/// Opens so many files at once, and closes them.
fn open_files(count: usize) -> rustix::io::Result<()> {
    let first = eventfd(0, EventfdFlags::CLOEXEC)?;
    (1..count).map(|_| fcntl_dupfd_cloexec(&first, 0)).collect::<Result<Vec<_>, _>>().map(drop)
}
