//! What the configuration asks of connection tracking, as values of files.

use std::time::Duration;

use super::Setting;
use crate::config::ConntrackSettings;

/// The most entries that the number of processors asks for, as in kube-proxy 1.36. A greater minimum counts all the same.
const MAX_SCALED: u64 = 1_048_576;

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const HASH_SIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const TCP_ESTABLISHED: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const TCP_BE_LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
const UDP: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// The settings on a node with so many processors. What the configuration leaves alone has none. Sizes are never lowered:
/// an operator who has raised them meant it.
pub(super) fn settings(wanted: &ConntrackSettings, processors: u32) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(max) = max(wanted, processors) {
        settings.push(Setting { path: MAX, value: max, raise_only: true });
        // Four entries for each list of the hash table, as the kernel itself would have it.
        settings.push(Setting { path: HASH_SIZE, value: max / 4, raise_only: true });
    }
    let seconds = |timeout: Duration| i64::try_from(timeout.as_secs().max(1)).unwrap_or(i64::MAX);
    let timeouts = [
        (TCP_ESTABLISHED, wanted.tcp_established_timeout),
        (TCP_CLOSE_WAIT, wanted.tcp_close_wait_timeout),
        (UDP, wanted.udp_timeout),
        (UDP_STREAM, wanted.udp_stream_timeout),
    ];
    for (path, timeout) in timeouts {
        settings.extend(timeout.map(|timeout| Setting { path, value: seconds(timeout), raise_only: false }));
    }
    if wanted.tcp_be_liberal {
        settings.push(Setting { path: TCP_BE_LIBERAL, value: 1, raise_only: false });
    }
    settings
}

/// The number of entries that the table may hold (contract CT-1).
fn max(wanted: &ConntrackSettings, processors: u32) -> Option<i64> {
    let scaled = u64::from(wanted.max_per_core?) * u64::from(processors);
    i64::try_from(scaled.min(MAX_SCALED).max(wanted.min.into())).ok()
}
