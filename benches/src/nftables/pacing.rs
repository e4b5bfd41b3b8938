//! `pacing`: what minSyncPeriod costs and brings, under a steady stream of events. Its default was chosen by these figures.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use portway_model::Protocol;
use serde_json::json;

use crate::progress::Progress;
use crate::report::Report;
use crate::stage::{Asker, Stage};
use crate::statistics::{Durations, percent};

const PERIODS: &[&str] = &["0s", "10ms", "50ms", "100ms", "250ms", "1s"];
const EVENTS_PER_SECOND: u32 = 100;
const SECONDS: u32 = 10;

/// Runs an agent with each period under the same stream.
pub(crate) fn measure(portway: &Path, services: usize, report: &mut Report, progress: &Progress) -> Result<()> {
    for period in PERIODS {
        progress.step(format!("pacing: minSyncPeriod {period}, {EVENTS_PER_SECOND} events/s, {services} Services"));
        let stage = Stage::with_arguments(portway, services, 2, &["pod-2-a"], &["--min-sync-period", period])?;
        let agent = stage.start_synced_agent()?;
        std::thread::sleep(Duration::from_secs(1));
        let asker = Asker::new(Protocol::Tcp);
        let (latencies, used, over) = stage.with_asker(&asker, || {
            asker.wait_for("pod-2-a")?;
            let (start, used) = (Instant::now(), agent.cpu_time()?);
            let latencies = stream(&stage, &asker)?;
            Ok((latencies, agent.cpu_time()? - used, start.elapsed()))
        })?;
        report.record(
            "pacing",
            json!({
                "services": services, "min_sync_period": period, "events_per_second": EVENTS_PER_SECOND,
                "seconds": over.as_secs_f64(), "latency": latencies.summary(),
                "percent_of_a_processor": percent(used, over),
            }),
        )?;
    }
    Ok(())
}

/// Replaces endpoints of made-up Services at a steady rate, and now and then the watched Service's, whose answers tell
/// the latency.
fn stream(stage: &Stage, asker: &Asker) -> Result<Durations> {
    let mut latencies = Durations::new()?;
    let mut awaited = None;
    let start = Instant::now();
    let endpoints = stage.shape.endpoints;
    let mut turns = 0;
    for number in 0..EVENTS_PER_SECOND * SECONDS {
        let due = start + Duration::from_secs(1) * number / EVENTS_PER_SECOND;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if let Some((pod, sent)) = awaited
            && let Ok(at) = asker.wait(Duration::from_millis(1), |outcome| outcome.backend() == Some(pod))
        {
            latencies.add(at.saturating_duration_since(sent));
            awaited = None;
        }
        // Not in step with the period.
        if awaited.is_none() && number % 7 == 0 {
            let pod = if turns % 2 == 0 { "pod-2-b" } else { "pod-2-a" };
            turns += 1;
            awaited = Some((pod, stage.set_pods(&[pod])?.at));
            continue;
        }
        let service = usize::try_from(number)? * 7919 % stage.shape.services;
        let round = usize::try_from(number)? / stage.shape.services % 2;
        let first = if round == 0 { endpoints } else { 0 };
        let chosen: Vec<usize> = std::iter::once(first).chain(1..endpoints).collect();
        for slice in stage.shape.slices_with(service, &chosen) {
            stage.store.put(slice)?;
        }
    }
    Ok(latencies)
}
