//! Traces as files: readers get what was written, and a killed recorder loses nothing but its last line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;
use std::time::Duration;

use portway_trace::{Change, Event, FORMAT, Header, Masked, ObjectName, ReadError, Reader, Writer};
use serde_json::{Value, json};

fn header() -> Header {
    Header {
        format: FORMAT,
        started: 1_767_323_045,
        portway: "0.1.0".to_owned(),
        node: "node-1".to_owned(),
        masked: vec![Masked::Addresses],
    }
}

fn service(port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "cart"},
        "spec": {"ports": [{"port": port}]}})
}

/// A trace of one object and two changes.
fn trace(gzip: bool, end: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, gzip, &header()).unwrap();
    writer.object(&service(1)).unwrap();
    writer.put(Duration::from_micros(1500), &service(2)).unwrap();
    writer.delete(Duration::from_secs(3), ObjectName::of(&service(2))).unwrap();
    match end {
        true => {
            writer.finish(Duration::from_secs(4)).unwrap();
        }
        false => {
            writer.flush().unwrap();
            drop(writer);
        }
    }
    bytes
}

fn read(bytes: Vec<u8>) -> Result<(Reader, Vec<Value>, Vec<Event>), ReadError> {
    let mut reader = Reader::new(Cursor::new(bytes))?;
    let objects = reader.objects().collect::<Result<_, _>>()?;
    let events = reader.events().collect::<Result<_, _>>()?;
    Ok((reader, objects, events))
}

#[test]
fn a_reader_gets_what_was_written() {
    for gzip in [false, true] {
        let (reader, objects, events) = read(trace(gzip, true)).unwrap();
        assert_eq!(*reader.header(), header());
        assert_eq!(objects, [service(1)]);
        let put = Event { at: Duration::from_micros(1500), change: Change::Put(service(2)) };
        let delete = Event { at: Duration::from_secs(3), change: Change::Delete(ObjectName::of(&service(2))) };
        assert_eq!(events, [put, delete]);
        assert_eq!(reader.cut_off(), None);
    }
}

#[test]
fn the_format_matches_its_documentation() {
    let text = String::from_utf8(trace(false, true)).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines[0],
        json!({"line": "header", "format": 1, "started": 1_767_323_045, "portway": "0.1.0",
        "node": "node-1", "masked": ["addresses"]})
    );
    assert_eq!(lines[1], json!({"line": "object", "object": service(1)}));
    assert_eq!(lines[2], json!({"line": "put", "at_micros": 1500, "object": service(2)}));
    assert_eq!(
        lines[3],
        json!({"line": "delete", "at_micros": 3_000_000,
        "object": {"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "cart"}})
    );
    assert_eq!(lines[4], json!({"line": "end", "at_micros": 4_000_000}));
}

#[test]
fn a_trace_cut_off_anywhere_yields_all_complete_lines_and_reports_the_cut() {
    let whole = trace(false, true);
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    for length in ends[0]..whole.len() - 1 {
        // A line whose end alone is missing is whole.
        let lines = ends.iter().filter(|end| **end <= length).count();
        let (reader, objects, events) = read(whole[..length].to_vec()).unwrap();
        assert_eq!(1 + objects.len() + events.len(), lines.min(4), "{length} bytes");
        assert_eq!(reader.cut_off().is_some(), lines < 5, "{length} bytes");
    }
    let (reader, ..) = read(whole[..ends[1] + 20].to_vec()).unwrap();
    assert_eq!(reader.cut_off().unwrap(), "line 3 is cut off: the recorder was killed while it wrote it");
    let (reader, ..) = read(whole[..=ends[1]].to_vec()).unwrap();
    assert_eq!(reader.cut_off().unwrap(), "the trace breaks off after line 2: the recorder was killed");
}

#[test]
fn a_compressed_trace_that_is_cut_off_yields_what_was_flushed() {
    let unfinished = trace(true, false);
    let (reader, objects, events) = read(unfinished.clone()).unwrap();
    assert_eq!((objects.len(), events.len()), (1, 2));
    assert!(reader.cut_off().is_some());
    // Whatever is missing, what is there makes a sound beginning or none at all.
    for length in 2..unfinished.len() {
        match read(unfinished[..length].to_vec()) {
            Ok((reader, objects, events)) => {
                assert!(reader.cut_off().is_some() && objects.len() <= 1 && events.len() <= 2);
            }
            Err(error) => assert!(matches!(error, ReadError::NoHeader), "{error}"),
        }
    }
}

#[test]
fn a_file_that_is_not_a_trace_is_rejected_in_one_sentence() {
    let refused = |text: &str| read(text.as_bytes().to_vec()).err().unwrap().to_string();
    let head = serde_json::to_string(&json!({"line": "header", "format": 1, "started": 0, "portway": "", "node": ""}));
    let head = head.unwrap();
    equal([
        (refused(""), "this is not a trace: its first line is not a header"),
        (refused("apiVersion: v1\n"), "this is not a trace: its first line is not a header"),
        (
            refused(&head.replace("\"format\":1", "\"format\":9")),
            "the trace has format 9, and this portway reads formats up to 1: use a newer one",
        ),
        (refused(&format!("{head}\n{{\"line\":\"put\"}}\n{head}\n")), "line 2 of the trace: missing field `at_micros`"),
        (
            refused(&format!("{head}\n{{\"line\":\"put\",\"at_micros\":1,\"object\":{{}}}}\n{head}\n")),
            "line 3 of the trace: a header or an initial object after the first change",
        ),
    ]);
}

fn equal<const N: usize>(sentences: [(String, &str); N]) {
    for (sentence, expected) in sentences {
        assert_eq!(sentence, expected);
    }
}
