//! Settings of the node that are made once, at the start or by an init container: connection tracking's sizes and
//! timeouts, and how reluctant the kernel is to end this process (contract CT-1, CT-2, CFG-10, CFG-19).
//!
//! A setting that cannot be made, as in a container whose /proc/sys is read-only or in a network namespace of its own, ends
//! nothing: one warning names all of them.

mod conntrack;
mod files;
#[cfg(test)]
mod tests;

use crate::config::Settings;
use files::Files;

/// One value to be written to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    /// The file's absolute path.
    path: &'static str,
    value: i64,
    /// Whether a greater value that is there already stays.
    raise_only: bool,
}

/// Makes the settings that every mode has in common, and logs those that cannot be made.
pub(crate) fn prepare(settings: &Settings) {
    log(&make(&Files::of_this_node(), settings));
}

/// A setting that could not be made.
#[derive(Debug)]
struct Refused {
    setting: Setting,
    error: std::io::Error,
}

/// Makes the settings in these files.
fn make(files: &Files, settings: &Settings) -> Vec<Refused> {
    let oom = Setting { path: "/proc/self/oom_score_adj", value: settings.oom_score_adj.into(), raise_only: false };
    let conntrack = conntrack::settings(&settings.conntrack, files.processors());
    let refused = conntrack.into_iter().chain([oom]).filter_map(|setting| {
        let error = files.make(&setting).err()?;
        Some(Refused { setting, error })
    });
    refused.collect()
}

fn log(refused: &[Refused]) {
    if refused.is_empty() {
        return;
    }
    let named = |Refused { setting, error }: &Refused| format!("{} = {} ({error})", setting.path, setting.value);
    let settings = refused.iter().map(named).collect::<Vec<_>>().join("; ");
    tracing::warn!(settings, "these settings of the node cannot be made, and stay as they are");
}
