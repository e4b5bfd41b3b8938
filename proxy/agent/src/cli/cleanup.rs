//! `portway cleanup`: removes what portway put into the kernel.

use portway_dataplane::conntrack;

use super::args::CleanupArgs;
use super::failure::Failure;
use super::run::require_net_admin;
use super::settings;
use crate::dataplanes;

/// Cleans up after one dataplane or all (contract CFG-9). What cannot be removed keeps nothing else from being removed.
pub(super) fn cleanup(args: &CleanupArgs) -> Result<(), Failure> {
    let modes = match &args.mode {
        Some(mode) => vec![settings::mode(mode)?],
        None => dataplanes::BUILT.to_vec(),
    };
    require_net_admin()?;
    let mut removed = 0;
    let mut failed = Ok(());
    for mode in modes {
        match dataplanes::cleanup(mode) {
            Ok(lines) => {
                removed += lines.len();
                lines.iter().for_each(|line| println!("removed {line}"));
            }
            Err(error) => failed = Err(Failure::runtime(&format!("cannot clean up after {mode}"), &error)),
        }
    }
    // Opening it removes the table that a process which was killed while it caught stale flows has left.
    drop(conntrack::ConntrackSocket::open().map(|socket| socket.with_capture(conntrack::CAPTURE_TABLE)));
    if removed == 0 && failed.is_ok() {
        println!("there was nothing to remove");
    }
    failed
}
