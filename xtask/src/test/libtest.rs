//! Parses the output of Rust's test harness: which tests passed, failed, were ignored or cannot run here.
//!
//! A test that cannot run here passes and prints a line `SKIPPED name: reason` (the name may be left out).

use std::collections::BTreeSet;
use std::fmt;

/// The outcomes of tests and checks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tests and checks that passed.
    pub(crate) passed: usize,
    /// Names of the tests and checks that failed.
    pub(crate) failed: Vec<String>,
    /// Names of tests that did not run, with the reason.
    pub(crate) skipped: BTreeSet<(String, String)>,
}

impl Tally {
    /// Counts the outcome of one check.
    pub(crate) fn count(&mut self, name: &str, passed: bool) {
        if passed { self.passed += 1 } else { self.failed.push(name.to_owned()) }
    }
}

impl fmt::Display for Tally {
    /// Skipped tests with reasons, failed tests, and the line with the counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, reason) in &self.skipped {
            writeln!(f, "skipped  {name}: {reason}")?;
        }
        for name in &self.failed {
            writeln!(f, "FAILED   {name}")?;
        }
        writeln!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Parses the output line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    passed: usize,
    failed: Vec<String>,
    skipped: BTreeSet<(String, String)>,
    /// The test whose captured output is being read.
    printing_test: Option<String>,
    /// Whether the captured output of tests that passed is being read.
    quiet: bool,
    /// Passed tests of this binary that printed that they cannot run.
    skipped_by_itself: BTreeSet<String>,
}

impl Reader {
    /// Parses one line and returns whether it should be printed.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.printing_test = None;
            self.quiet = false;
            let passed = rest.split(" passed").next().and_then(|words| words.rsplit(' ').next());
            let passed: usize = passed.and_then(|number| number.parse().ok()).unwrap_or(0);
            self.passed += passed.saturating_sub(self.skipped_by_itself.len());
            self.skipped_by_itself.clear();
            return true;
        }
        match line {
            "successes:" => {
                self.quiet = true;
                return false;
            }
            "failures:" => {
                self.quiet = false;
                return true;
            }
            _ => {}
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.printing_test = Some(name.to_owned());
            return !self.quiet;
        }
        if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            return self.outcome(name, outcome);
        }
        match skip(line) {
            Some((name, reason)) => {
                self.skip(name, reason);
                true
            }
            None => !self.quiet,
        }
    }

    /// Adds the outcomes to a tally. A run that failed without a failed test, because it did not compile or because a
    /// test program died, counts as one failure.
    pub(crate) fn finish(mut self, success: bool, tally: &mut Tally) {
        if !success && self.failed.is_empty() {
            self.failed.push("cargo test failed without a failed test: see its last lines".to_owned());
        }
        tally.passed += self.passed;
        tally.failed.append(&mut self.failed);
        tally.skipped.append(&mut self.skipped);
    }

    fn outcome(&mut self, name: &str, outcome: &str) -> bool {
        if outcome == "FAILED" {
            self.failed.push(name.to_owned());
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "marked as ignored" } else { reason };
            self.skipped.insert((name.to_owned(), reason.to_owned()));
        }
        true
    }

    fn skip(&mut self, name: &str, reason: &str) {
        let printing_test = self.printing_test.clone().unwrap_or_default();
        let whole = name.is_empty() || printing_test == name || printing_test.ends_with(&format!("::{name}"));
        let name = if whole && !printing_test.is_empty() { printing_test.as_str() } else { name };
        let name = if name.is_empty() { "a test" } else { name };
        if whole && self.quiet && !printing_test.is_empty() {
            self.skipped_by_itself.insert(printing_test.clone());
        }
        self.skipped.insert((name.to_owned(), reason.to_owned()));
    }
}

/// The name (may be empty) and the reason, if the line reports a skipped test.
fn skip(line: &str) -> Option<(&str, &str)> {
    const WORD: &str = "skipped";
    let line = line.trim();
    if !line.get(..WORD.len())?.eq_ignore_ascii_case(WORD) {
        return None;
    }
    let rest = &line[WORD.len()..];
    match rest.strip_prefix(':') {
        Some(reason) => Some(("", reason.trim())),
        None => rest.strip_prefix(' ')?.split_once(": ").map(|(name, reason)| (name.trim(), reason.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> (Tally, Vec<&str>) {
        let mut reader = Reader::default();
        let shown = text.lines().filter(|line| reader.read(line)).collect();
        let mut tally = Tally::default();
        reader.finish(success, &mut tally);
        (tally, shown)
    }

    #[test]
    fn passed_failed_and_ignored_tests_are_told_apart() {
        let text = "running 4 tests\n\
            test a::one ... ok\n\
            test a::two ... FAILED\n\
            test a::three ... ignored, needs a moon\n\
            test a::four - should panic ... ok\n\
            failures:\n\
            ---- a::two stdout ----\n\
            what it said\n\
            failures:\n    a::two\n\
            test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let (tally, shown) = read(text, false);
        assert_eq!(
            tally.to_string(),
            "skipped  a::three: needs a moon\nFAILED   a::two\n2 passed, 1 failed, 1 skipped\n"
        );
        assert!(shown.contains(&"what it said"), "output of failed tests is shown");
    }

    #[test]
    fn a_test_that_cannot_run_here_counts_as_skipped() {
        let text = "test a::one ... ok\ntest a::two ... ok\n\
            successes:\n\
            ---- a::one stdout ----\n\
            skipped: needs root\n\
            ---- a::two stdout ----\n\
            noise\n\
            SKIPPED flow 12, SCTP: this kernel has none\n\
            successes:\n    a::one\n    a::two\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let (tally, shown) = read(text, true);
        assert_eq!(
            tally.to_string(),
            "skipped  a::one: needs root\nskipped  flow 12, SCTP: this kernel has none\n1 passed, 0 failed, 2 skipped\n"
        );
        assert!(!shown.contains(&"noise"), "output of passed tests is not shown");
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let (tally, _) = read("running 1 test\n", false);
        assert_eq!(tally.failed.len(), 1);
    }
}
