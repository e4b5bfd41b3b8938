//! Replays traces of real clusters into a [`Store`], so that any proxy can follow them through the test API server.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portway_trace::{Change, Event, Header, Reader};

use portway_apiserver::{Resource, Sent, Store};

/// The longest that a replay sleeps before it checks whether it must stop.
const MAX_SLEEP: Duration = Duration::from_millis(50);

/// An open trace file.
pub struct Trace {
    reader: Reader,
    name: String,
}

/// The speed of a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A multiple of the speed at which the trace was recorded; 1 is the same speed.
    Times(f64),
    /// Events follow each other without a pause.
    Unpaced,
}

impl Pace {
    /// The time since the start of the replay at which an event is due that was recorded at `at`.
    fn due(self, at: Duration) -> Duration {
        match self {
            Pace::Times(times) => Duration::try_from_secs_f64(at.as_secs_f64() / times).unwrap_or(Duration::MAX),
            Pace::Unpaced => Duration::ZERO,
        }
    }
}

/// The result of a replay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// Number of changes that the replay made in the store.
    pub events: usize,
    /// Whether the replay was stopped before the end of the trace.
    pub stopped: bool,
    /// The longest delay of a change behind its due time, because this process was busy.
    pub late: Duration,
    /// A sentence that says where the trace is cut off, if it is.
    pub cut_off: Option<String>,
}

impl Trace {
    /// Opens a trace file and reads its header.
    ///
    /// # Errors
    /// If the file is not a trace. All errors of this type name the file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let reader = Reader::open(path).with_context(|| name.clone())?;
        Ok(Self { reader, name })
    }

    /// The header of the trace. It names the node that a proxy must run as to follow the trace.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// Puts the initial objects into `store` and returns their number. Compacts the store, so that no watch can start
    /// before them.
    pub fn fill(&mut self, store: &Store) -> Result<usize> {
        let mut count = 0;
        while let Some(object) = self.reader.next_object().with_context(|| self.name.clone())? {
            store.put(object).with_context(|| self.name.clone())?;
            count += 1;
        }
        store.compact();
        Ok(count)
    }

    /// Reads the next change; `None` at the end of the trace.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        self.reader.next_event().with_context(|| self.name.clone())
    }

    /// Makes all changes in `store` at `pace`, until the end of the trace or until `stop` is set. Call [`Trace::fill`]
    /// first.
    pub fn replay(&mut self, store: &Store, pace: Pace, stop: &AtomicBool) -> Result<Replayed> {
        self.replay_with(store, pace, stop, |_, _| {})
    }

    /// Does the same, and calls `sent` with each change and the time at which the store sent it to the watches.
    pub fn replay_with(
        &mut self,
        store: &Store,
        pace: Pace,
        stop: &AtomicBool,
        mut sent: impl FnMut(&Event, Sent),
    ) -> Result<Replayed> {
        let start = Instant::now();
        let mut done = Replayed::default();
        while let Some(event) = self.next_event()? {
            let due = pace.due(event.at);
            if !sleep_until(start, due, stop) {
                done.stopped = true;
                return Ok(done);
            }
            if pace != Pace::Unpaced {
                done.late = done.late.max(start.elapsed().saturating_sub(due));
            }
            let when = make(&event.change, store).with_context(|| self.name.clone())?;
            done.events += 1;
            sent(&event, when);
        }
        done.cut_off = self.reader.cut_off();
        Ok(done)
    }
}

/// Makes one change in a store.
///
/// # Errors
/// If the store does not keep objects of that kind, or the object to delete does not exist.
pub fn make(change: &Change, store: &Store) -> Result<Sent> {
    match change {
        Change::Put(object) => Ok(store.put(object)?),
        Change::Delete(object) => {
            let resource = Resource::of(&object.api_version, &object.kind).with_context(|| {
                format!("{} {} is of a kind that the server does not serve", object.kind, object.name)
            })?;
            Ok(store.delete(resource, &object.namespace, &object.name)?)
        }
    }
}

/// Sleeps until `due` after `start`; returns `false` if `stop` is set before.
fn sleep_until(start: Instant, due: Duration, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        match due.checked_sub(start.elapsed()) {
            None | Some(Duration::ZERO) => return true,
            Some(left) => thread::sleep(left.min(MAX_SLEEP)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    /// A trace of one Service that changes at these times.
    fn trace(milliseconds: &[u64]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let service = |port: usize| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": port}]}});
        let header = Header { format: portway_trace::FORMAT, ..Header::default() };
        let mut writer = portway_trace::Writer::new(Vec::new(), false, &header).unwrap();
        writer.object(&service(1)).unwrap();
        for (number, at) in milliseconds.iter().enumerate() {
            writer.put(Duration::from_millis(*at), &service(2 + number)).unwrap();
        }
        file.write_all(&writer.finish(Duration::from_secs(60)).unwrap()).unwrap();
        file
    }

    fn replayed(milliseconds: &[u64], pace: Pace) -> (Vec<Duration>, Replayed) {
        let file = trace(milliseconds);
        let store = Store::new();
        let mut trace = Trace::open(file.path()).unwrap();
        assert_eq!(trace.fill(&store).unwrap(), 1);
        let start = Instant::now();
        let mut times = Vec::new();
        let done = trace.replay_with(&store, pace, &AtomicBool::new(false), |_, sent| times.push(sent.at - start));
        let port = store.get(Resource::Service, "default", "web").unwrap()["spec"]["ports"][0]["port"].as_u64();
        assert_eq!(port, Some(1 + milliseconds.len() as u64));
        (times, done.unwrap())
    }

    #[test]
    fn changes_come_at_the_traces_pace_or_a_multiple_of_it() {
        for (pace, wanted) in
            [(Pace::Times(1.0), [50, 200]), (Pace::Times(0.5), [100, 400]), (Pace::Times(10.0), [5, 20])]
        {
            let (times, done) = replayed(&[50, 200], pace);
            for (time, wanted) in times.iter().zip(wanted.map(Duration::from_millis)) {
                assert!(*time >= wanted, "{pace:?}: {time:?} is before {wanted:?}");
                assert!(*time <= wanted + done.late + Duration::from_millis(5), "{pace:?}: {time:?}, {done:?}");
            }
            assert_eq!(done.events, 2);
        }
        let (times, _) = replayed(&[0, 3_600_000], Pace::Unpaced);
        assert!(times[1] < Duration::from_secs(10), "{times:?}");
    }

    #[test]
    fn a_replay_that_is_stopped_ends_soon() {
        let file = trace(&[0, 3_600_000]);
        let mut trace = Trace::open(file.path()).unwrap();
        let (store, stop) = (Store::new(), AtomicBool::new(false));
        trace.fill(&store).unwrap();
        let done =
            trace.replay_with(&store, Pace::Times(1.0), &stop, |_, _| stop.store(true, Ordering::Relaxed)).unwrap();
        assert_eq!((done.events, done.stopped), (1, true));
    }

    #[test]
    fn errors_name_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"kind: Service\n").unwrap();
        let error = Trace::open(file.path()).err().unwrap();
        let name = file.path().display();
        assert_eq!(format!("{error:#}"), format!("{name}: this is not a trace: its first line is not a header"));
    }
}
