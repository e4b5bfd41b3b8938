//! Failures of a command: one sentence for a person, and the exit status.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user's input cannot be used: exit status 2.
    BadInput(String),
    /// Several values cannot be used, one sentence each: exit status 2.
    BadSettings(Vec<String>),
    /// Something failed although the input is good: exit status 1.
    Runtime(String),
}

impl Failure {
    /// Bad input, described by an error and its causes.
    pub(crate) fn bad_input(error: &dyn Error) -> Self {
        Self::BadInput(sentence(error))
    }

    /// A failure of `what`, described by an error and its causes.
    pub(crate) fn runtime(what: &str, error: &dyn Error) -> Self {
        Self::Runtime(format!("{what}: {}", sentence(error)))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::BadInput(_) | Self::BadSettings(_) => ExitCode::from(2),
            Self::Runtime(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadInput(sentence) | Self::Runtime(sentence) => f.write_str(sentence),
            Self::BadSettings(sentences) => f.write_str(&sentences.join("\n")),
        }
    }
}

/// Joins an error and its causes into one line. A cause that the text ends with already is not repeated.
fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.ends_with(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layered {
        #[error("reading the table: {0}")]
        Says(#[source] std::io::Error),
        #[error("reading the table")]
        Hides(#[source] std::io::Error),
    }

    #[test]
    fn every_cause_appears_once() {
        let cause = || std::io::Error::other("no such\n  table");
        assert_eq!(sentence(&Layered::Says(cause())), "reading the table: no such; table");
        assert_eq!(sentence(&Layered::Hides(cause())), "reading the table: no such; table");
    }
}
