//! The ip program, in the network namespace of the thread that calls it.

use std::process::Command;

/// Runs `ip` with these arguments.
///
/// # Panics
/// If it fails.
pub(crate) fn ip(arguments: &[&str]) {
    if let Err(error) = try_ip(arguments) {
        panic!("ip {}: {error}", arguments.join(" "));
    }
}

/// Gives loopback an address that can be used at once, without duplicate address detection. One that is there stays.
pub(crate) fn add_address(address: &str) {
    let arguments = ["address", "add", address, "dev", "lo", "nodad"];
    let arguments = &arguments[..if address.contains(':') { 6 } else { 5 }];
    if let Err(error) = try_ip(arguments) {
        assert!(
            error.contains("File exists") || error.contains("already assigned"),
            "ip address add {address}: {error}"
        );
    }
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().expect("the ip program (Debian package iproute2)");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
