//! `portway cleanup`: removes what portway put into the kernel.

use portway_dataplane::conntrack;

use super::args::CleanupArgs;
use super::failure::Failure;
use super::run::require_net_admin;
use super::settings;
use crate::drivers::{DRIVERS, Driver};

/// Cleans up after one mode or all (contract CFG-9). What cannot be removed keeps nothing else from being removed.
pub(super) fn cleanup(args: &CleanupArgs) -> Result<(), Failure> {
    let drivers: Vec<&Driver> = match &args.mode {
        Some(mode) => vec![settings::driver(mode)?],
        None => DRIVERS.iter().collect(),
    };
    require_net_admin()?;
    let (mut removed, mut unread, mut left) = (0, 0, Vec::new());
    for driver in drivers {
        let done = (driver.cleanup)();
        done.removed.iter().for_each(|line| println!("removed {line}"));
        for place in &done.unread {
            eprintln!("portway: warning: cannot look for what {} mode may have left: {place}", driver.mode);
        }
        removed += done.removed.len();
        unread += done.unread.len();
        left.extend(done.left.iter().map(|left| format!("cannot clean up after {}: {left}", driver.mode)));
    }
    // Opening it removes the table that a process which was killed while it caught stale flows has left.
    drop(conntrack::ConntrackSocket::open().map(|socket| socket.with_capture(conntrack::CAPTURE_TABLE)));
    if !left.is_empty() {
        return Err(Failure::Runtime(left.join("; ")));
    }
    if removed == 0 && unread == 0 {
        println!("there was nothing to remove");
    }
    Ok(())
}
