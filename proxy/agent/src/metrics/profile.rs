//! The page `/debug/pprof/profile`: where the processor's time goes, as `go tool pprof` and others read it.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::CONTENT_DISPOSITION;
use http::{HeaderValue, StatusCode};
use pprof::ProfilerGuardBuilder;
use pprof::protos::Message as _;

use crate::web::Reply;

/// Samples a second, as in Go.
const FREQUENCY: i32 = 100;

/// How long a profile runs if the query does not say, as in Go.
const DEFAULT_SECONDS: u64 = 30;

/// The longest profile that may be asked for, in seconds.
const MAX_SECONDS: u64 = 300;

/// Whether a profile runs; the kernel has one profiling timer for a process.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Gives the right to profile back when it is dropped: also when the client breaks off.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!RUNNING.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::Release);
    }
}

/// Profiles for as long as the query says, and answers with the profile.
pub(super) async fn answer(query: String) -> Reply {
    let Some(_turn) = Turn::take() else {
        return failed("Could not enable CPU profiling: cpu profiling already in use");
    };
    // Libraries whose frames cannot be unwound from a signal handler.
    let guard =
        ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&["libc", "libgcc", "pthread", "vdso"]).build();
    let guard = match guard {
        Ok(guard) => guard,
        Err(error) => return failed(&format!("Could not enable CPU profiling: {error}")),
    };
    tokio::time::sleep(Duration::from_secs(seconds(&query))).await;
    let report = match guard.report().build() {
        Ok(report) => report,
        Err(error) => return failed(&format!("Could not read the CPU profile: {error}")),
    };
    drop(guard);
    // Naming functions reads the program's symbols.
    match tokio::task::spawn_blocking(move || encoded(&report)).await {
        Ok(Ok(profile)) => Reply::new(StatusCode::OK, "application/octet-stream", profile)
            .with(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"profile\"")),
        Ok(Err(error)) => failed(&format!("Could not write the CPU profile: {error}")),
        Err(error) => failed(&format!("Could not write the CPU profile: {error}")),
    }
}

fn failed(text: &str) -> Reply {
    Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}\n"))
}

fn seconds(query: &str) -> u64 {
    let given = query.split('&').find_map(|field| field.strip_prefix("seconds=")?.parse().ok());
    given.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_SECONDS).min(MAX_SECONDS)
}

/// The profile in pprof's form: protobuf, in gzip.
fn encoded(report: &pprof::Report) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let profile = report.pprof()?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&profile.encode_to_vec())?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use super::*;
    use crate::web::{bind, serve};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Work that a profile shows.
    #[inline(never)]
    fn busy(until: &AtomicBool) -> u64 {
        let mut sum = 0u64;
        while !until.load(Ordering::Acquire) {
            for number in 0..10_000u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
            }
        }
        sum
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_profile_has_the_form_of_pprof_and_shows_the_work() {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(|request| Box::pin(answer(request.query)))));
        let done = Arc::new(AtomicBool::new(false));
        let worker = std::thread::spawn({
            let done = Arc::clone(&done);
            move || busy(&done)
        });
        let ask = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = "GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
        };
        let (first, second) = tokio::join!(ask(), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ask().await
        });
        done.store(true, Ordering::Release);
        worker.join().unwrap();
        assert!(second.0.starts_with("HTTP/1.1 500 "), "{}", second.0);
        assert_eq!(second.1, b"Could not enable CPU profiling: cpu profiling already in use\n");

        let (head, body) = first;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Disposition: attachment; filename=\"profile\""), "{head}");
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut bytes).unwrap();
        let profile = pprof::protos::Profile::decode(&bytes[..]).unwrap();
        let text = |index: i64| &*profile.string_table[usize::try_from(index).unwrap()];
        let types: Vec<_> = profile.sample_type.iter().map(|kind| (text(kind.ty), text(kind.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert!(profile.sample.len() > 1 && profile.duration_nanos > 0);
        assert!(profile.function.iter().any(|function| text(function.name).contains("busy")), "the work is named");
    }

    #[test]
    fn a_profile_runs_as_long_as_the_query_says() {
        assert_eq!(
            ["", "seconds=5", "debug=1&seconds=7", "seconds=0", "seconds=x", "seconds=99999"].map(seconds),
            [30, 5, 7, 30, 30, 300]
        );
    }
}
