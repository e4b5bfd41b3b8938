//! The sysctl that NodePorts at 127.0.0.0/8 need (contract NP-2), and how a clean-up knows that portway set it.
//!
//! kube-proxy sets it too and leaves it set, and so may other programs. portway therefore marks that it changed the value,
//! with an empty chain in the mangle table: the mark lives and dies with the network namespace, as the sysctl does, and
//! survives restarts of the program.

use super::tool::Tool;
use crate::report::DataplaneError;

/// The chain that says that portway set the sysctl. No rule leads to it.
pub(super) const MARK: &str = "KUBE-PORTWAY-LOCALNET";

/// The sysctl as people name it.
pub(super) const SYSCTL: &str = "sysctl net.ipv4.conf.all.route_localnet";

/// Lets packets to 127.0.0.0/8 be routed.
const FILE: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// Sets the sysctl. If it was not set before, the mark is written first, so that it is never set without it.
pub(super) fn enable(tool: &Tool) -> Result<(), DataplaneError> {
    if is_set()? {
        return Ok(());
    }
    tool.restore(&format!("*mangle\n:{MARK} - [0:0]\nCOMMIT\n"))?;
    std::fs::write(FILE, "1").map_err(|source| failed("set", source))
}

/// Sets the sysctl back to 0. Returns whether it was set.
pub(super) fn disable() -> Result<bool, DataplaneError> {
    if !is_set()? {
        return Ok(false);
    }
    std::fs::write(FILE, "0").map_err(|source| failed("set back", source))?;
    Ok(true)
}

fn is_set() -> Result<bool, DataplaneError> {
    let value = std::fs::read_to_string(FILE).map_err(|source| failed("read", source))?;
    Ok(value.trim() != "0")
}

fn failed(operation: &str, source: std::io::Error) -> DataplaneError {
    DataplaneError::Kernel { operation: format!("{operation} {FILE}"), source }
}
