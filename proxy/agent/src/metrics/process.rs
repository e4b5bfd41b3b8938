//! CPU, memory and file descriptors of this process, under the names that every Prometheus client uses.
//!
//! Not prometheus' own collector: it counts whole CPU seconds, and builds on a procfs that is no longer current.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Result};
use rustix::process::{Resource, getrlimit};

/// Reads /proc/self whenever the page is requested. A figure that cannot be read keeps its last value.
pub(super) struct ProcessMetrics {
    cpu: Counter,
    open_files: Gauge,
    max_files: Gauge,
    virtual_memory: Gauge,
    resident_memory: Gauge,
    peak_memory: Gauge,
    threads: Gauge,
    started: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")?,
            open_files: Gauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_files: Gauge::new("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: Gauge::new("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            resident_memory: Gauge::new("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            peak_memory: Gauge::new(
                "portway_peak_resident_memory_bytes",
                "Largest resident memory size so far in bytes.",
            )?,
            threads: Gauge::new("process_threads", "Number of OS threads in the process.")?,
            started: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
        })
    }

    fn gauges(&self) -> [&Gauge; 7] {
        [
            &self.open_files,
            &self.max_files,
            &self.virtual_memory,
            &self.resident_memory,
            &self.peak_memory,
            &self.threads,
            &self.started,
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
    fn read(&self) {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            let ticks_a_second = rustix::param::clock_ticks_per_second() as f64;
            self.cpu.inc_by((stat.cpu_ticks as f64 / ticks_a_second - self.cpu.get()).max(0.0));
            self.threads.set(stat.threads as f64);
            self.virtual_memory.set(stat.virtual_bytes as f64);
            self.resident_memory.set((stat.resident_pages * rustix::param::page_size() as u64) as f64);
            if let Some(booted) = boot_time() {
                self.started.set(booted + stat.started_ticks as f64 / ticks_a_second);
            }
        }
        if let Some(kibibytes) = peak_kibibytes() {
            self.peak_memory.set(kibibytes * 1024.0);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Reading the directory opens one more.
            self.open_files.set(files.count().saturating_sub(1) as f64);
        }
        self.max_files.set(getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |max| max as f64));
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.cpu.desc().into_iter().chain(self.gauges().into_iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.cpu.collect().into_iter().chain(self.gauges().into_iter().flat_map(Collector::collect)).collect()
    }
}

/// The fields of /proc/self/stat that are shown; see proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name, in parentheses, may hold anything. After it comes field 3.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The largest resident memory size so far, in KiB; see proc_pid_status(5).
fn peak_kibibytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// When the machine was booted, in seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_is_skipped() {
        let line = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 700 30 13 14 15 16 9 0 4200 1000000 250 99";
        let stat =
            Stat { cpu_ticks: 730, threads: 9, started_ticks: 4200, virtual_bytes: 1_000_000, resident_pages: 250 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("12 (a) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn every_figure_of_this_process_is_above_zero() {
        let metrics = ProcessMetrics::new().unwrap();
        metrics.read();
        for gauge in metrics.gauges() {
            assert!(gauge.get() > 0.0, "{} is {}", gauge.desc()[0].fq_name, gauge.get());
        }
        assert!(metrics.started.get() > 1.6e9);
    }
}
