//! `portway cleanup`: removes what portway put into the kernel.

use portway_dataplane::{Cleanup, conntrack, kube_proxy};

use super::args::CleanupArgs;
use super::failure::Failure;
use super::run::require_net_admin;
use crate::config;
use crate::drivers::{DRIVERS, Driver};
use crate::logging::one_line;
use crate::node_lock::{self, NodeLock};

/// Takes the lock, so that no agent starts meanwhile. While an agent runs, only the rules of other modes can be removed:
/// it would write its own again (contract OWN-13).
fn lock_for(drivers: &[&Driver]) -> Result<Option<NodeLock>, Failure> {
    match node_lock::acquire(None) {
        Ok(lock) => Ok(Some(lock)),
        Err(holder) if holder.mode().is_some_and(|mode| drivers.iter().all(|driver| driver.mode != mode)) => Ok(None),
        Err(holder) => Err(Failure::Runtime(format!(
            "nothing was removed, because portway runs here and would write its rules again: {holder}; end it first"
        ))),
    }
}

/// Cleans up after one mode, or all and kube-proxy (contract CFG-9, OWN-5). What cannot be removed keeps nothing else from
/// being removed; like what cannot even be looked at, it is named, and makes the command fail.
pub(super) fn cleanup(args: &CleanupArgs) -> Result<(), Failure> {
    let drivers: Vec<&Driver> = match &args.mode {
        Some(mode) => {
            let driver = config::driver(Some(mode.as_str()).filter(|mode| !mode.is_empty()));
            vec![driver.map_err(|reason| Failure::BadInput(format!("--mode {mode:?}: {reason}")))?]
        }
        None => DRIVERS.iter().collect(),
    };
    require_net_admin()?;
    let _lock = lock_for(&drivers)?;
    let mut owners: Vec<(String, fn() -> Cleanup)> =
        drivers.into_iter().map(|driver| (format!("{} mode", driver.mode), driver.cleanup)).collect();
    if args.mode.is_none() {
        owners.push(("kube-proxy".to_owned(), kube_proxy::cleanup));
    }
    let (mut removed, mut failures) = (0, Vec::new());
    for (owner, cleanup) in owners {
        let done = cleanup();
        done.removed.iter().for_each(|line| println!("removed {}", one_line(line)));
        removed += done.removed.len();
        failures.extend(done.left.iter().map(|left| format!("cannot clean up after {owner}: {left}")));
        let unread = done.unread.iter();
        failures.extend(unread.map(|place| format!("cannot look for what {owner} may have left: {place}")));
    }
    // Opening it removes the table that a process which was killed while it caught stale flows has left.
    drop(conntrack::ConntrackSocket::open().map(|socket| socket.with_capture(conntrack::CAPTURE_TABLE)));
    if !failures.is_empty() {
        return Err(Failure::Runtime(failures.join("; ")));
    }
    if removed == 0 {
        println!("there was nothing to remove");
    }
    Ok(())
}
