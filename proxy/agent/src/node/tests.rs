//! The node's settings, in a folder that stands for /proc and /sys.

use std::path::Path;

use super::files::Files;
use super::{Refused, Setting, conntrack, make};
use crate::config::{Documents, Settings};

const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
const HASH_SIZE: &str = "sys/module/nf_conntrack/parameters/hashsize";
const TCP_ESTABLISHED: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const TCP_BE_LIBERAL: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
const UDP: &str = "proc/sys/net/netfilter/nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";
const OOM: &str = "proc/self/oom_score_adj";

/// A folder with the kernel's own defaults, on a machine with these processors.
fn node(processors: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, value) in [
        ("sys/devices/system/cpu/online", processors),
        (MAX, "65536"),
        (HASH_SIZE, "16384"),
        (TCP_ESTABLISHED, "432000"),
        (TCP_CLOSE_WAIT, "60"),
        (TCP_BE_LIBERAL, "0"),
        (UDP, "30"),
        (UDP_STREAM, "120"),
        (OOM, "0"),
    ] {
        write(folder.path(), path, value);
    }
    folder
}

fn write(root: &Path, path: &str, value: &str) {
    let file = root.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, format!("{value}\n")).unwrap();
}

fn read(root: &Path, path: &str) -> i64 {
    std::fs::read_to_string(root.join(path)).unwrap().trim().parse().unwrap()
}

fn defaults() -> Settings {
    Settings::resolve(&Documents::default()).unwrap()
}

fn made(folder: &tempfile::TempDir, settings: &Settings) -> Vec<Refused> {
    make(&Files::below(folder.path()), settings)
}

/// The limit that the default configuration asks for on a machine with so many processors.
fn max(processors: u32) -> i64 {
    conntrack::settings(&defaults().conntrack, processors)[0].value
}

#[test]
fn ct_1_the_limit_follows_the_processors_between_a_minimum_and_a_maximum() {
    assert_eq!([1, 4, 5, 32, 33, 1024].map(max), [131_072, 131_072, 163_840, 1_048_576, 1_048_576, 1_048_576]);
    let mut wanted = defaults().conntrack;
    wanted.min = 3_000_000;
    assert_eq!(conntrack::settings(&wanted, 64)[0].value, 3_000_000, "a minimum that is asked for counts");
}

#[test]
fn ct_1_limit_and_hash_size_are_raised() {
    let folder = node("0-7");
    assert!(made(&folder, &defaults()).is_empty());
    assert_eq!((read(folder.path(), MAX), read(folder.path(), HASH_SIZE)), (262_144, 65_536));
}

#[test]
fn ct_1_greater_sizes_stay_and_0_leaves_them_alone() {
    let folder = node("0-7");
    write(folder.path(), MAX, "2000000");
    write(folder.path(), HASH_SIZE, "500000");
    assert!(made(&folder, &defaults()).is_empty());
    assert_eq!((read(folder.path(), MAX), read(folder.path(), HASH_SIZE)), (2_000_000, 500_000));

    let folder = node("0-7");
    let mut settings = defaults();
    settings.conntrack.max_per_core = None;
    assert!(made(&folder, &settings).is_empty());
    assert_eq!((read(folder.path(), MAX), read(folder.path(), HASH_SIZE)), (65_536, 16_384));
}

#[test]
fn ct_2_timeouts_are_those_of_the_configuration() {
    let folder = node("0");
    let mut settings = defaults();
    assert!(made(&folder, &settings).is_empty());
    let timeouts = |folder: &tempfile::TempDir| {
        [TCP_ESTABLISHED, TCP_CLOSE_WAIT, UDP, UDP_STREAM, TCP_BE_LIBERAL].map(|path| read(folder.path(), path))
    };
    assert_eq!(timeouts(&folder), [86_400, 3_600, 30, 120, 0], "kube-proxy's defaults");

    settings.conntrack.tcp_established_timeout = None;
    settings.conntrack.tcp_close_wait_timeout = None;
    settings.conntrack.udp_timeout = Some(std::time::Duration::from_secs(10));
    settings.conntrack.udp_stream_timeout = Some(std::time::Duration::from_millis(500));
    settings.conntrack.tcp_be_liberal = true;
    let folder = node("0");
    assert!(made(&folder, &settings).is_empty());
    assert_eq!(timeouts(&folder), [432_000, 60, 10, 1, 1], "0 leaves the kernel's");
}

#[test]
fn ct_1_a_file_that_is_not_there_is_named_and_holds_up_no_other() {
    let folder = node("0-3");
    std::fs::remove_file(folder.path().join(MAX)).unwrap();
    let refused = made(&folder, &defaults());
    let [Refused { setting: Setting { path, value, .. }, .. }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((*path, *value), ("/proc/sys/net/netfilter/nf_conntrack_max", 131_072));
    assert_eq!((read(folder.path(), TCP_CLOSE_WAIT), read(folder.path(), OOM)), (3_600, -999));
}

#[test]
fn ct_1_a_value_that_is_right_already_is_not_written() {
    let folder = node("0-3");
    write(folder.path(), MAX, "131072");
    let before = std::fs::metadata(folder.path().join(MAX)).unwrap().modified().unwrap();
    assert!(made(&folder, &defaults()).is_empty());
    assert_eq!(std::fs::metadata(folder.path().join(MAX)).unwrap().modified().unwrap(), before);
}

#[test]
fn cfg_19_oom_score_adj_is_written() {
    let folder = node("0");
    let mut settings = defaults();
    settings.oom_score_adj = 500;
    assert!(made(&folder, &settings).is_empty());
    assert_eq!(read(folder.path(), OOM), 500);
}

#[test]
fn ct_1_processors_are_counted_as_the_kernel_lists_them() {
    for (list, processors) in [("0", 1), ("0-3", 4), ("0-3,8,10-11", 7)] {
        assert_eq!(Files::below(node(list).path()).processors(), processors, "{list}");
    }
    assert!(Files::below(node("none").path()).processors() > 0);
}
