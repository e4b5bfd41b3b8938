//! Snapshots of the help pages, so that changes of them are reviewed.

use crate::program::portway;

#[test]
fn help_of_the_program() {
    let done = portway(&["--help"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out);
}

#[test]
fn help_of_run() {
    let done = portway(&["run", "--help"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out);
}

#[test]
fn help_of_render() {
    let done = portway(&["render", "--help"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out);
}

#[test]
fn help_of_record() {
    let done = portway(&["record", "--help"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out);
}

#[test]
fn help_of_cleanup() {
    let done = portway(&["cleanup", "--help"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out);
}

#[test]
fn without_a_command_the_help_is_shown_as_an_error() {
    let done = portway(&[]);
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    assert!(done.err.contains("Usage: portway <COMMAND>"), "{}", done.err);
}

#[test]
fn command_and_flags_print_the_version() {
    let expected = format!("portway {}\n", env!("CARGO_PKG_VERSION"));
    for arguments in [["version"], ["--version"], ["-V"]] {
        let done = portway(&arguments);
        assert_eq!((done.status, done.out.as_str(), done.err.as_str()), (0, expected.as_str(), ""), "{arguments:?}");
    }
}
