//! Why lists and watches end, and what that says about the server.

use std::time::Duration;

use kube::core::Status;

use super::wire::Problem;
use crate::inbox::InboxClosed;

/// Why a list or watch ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Closed(#[from] InboxClosed),
    /// The server closed the watch after the time that it was asked for.
    #[error("the server ended the watch")]
    Finished,
    #[error("a new list is due")]
    RelistDue,
    #[error("the connection broke off in the middle of an object")]
    Torn,
    #[error("the server did not answer within {0:?}")]
    NoAnswer(Duration),
    #[error("the server no longer has the version to resume from")]
    Expired,
    #[error("the server has no streaming lists ({0})")]
    NoStreaming(String),
    #[error("the server has no protobuf ({})", status_text(.0))]
    NoProtobuf(Box<Status>),
    #[error("{}", status_text(.0))]
    Api(Box<Status>),
    #[error("{}", error_chain(.0))]
    Request(kube::Error),
    #[error("the connection broke: {0}")]
    Read(std::io::Error),
    #[error(
        "the answer is {0} and not the API server's: a proxy or gateway on the way to it answers, or the address is that \
         of another server"
    )]
    NotKubernetes(String),
    #[error("the server sent something that is not a {what}: {problem}")]
    Malformed { what: &'static str, problem: Problem },
}

impl From<kube::Error> for End {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(status),
            other => Self::Request(other),
        }
    }
}

impl End {
    pub(super) fn from_status(status: Box<Status>) -> Self {
        // A server that was restored from a backup is behind the version that it is asked for, and says so with this
        // cause; waiting for it to catch up would be in vain.
        let ahead = status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge"));
        if let Some(document) = html(&status.message) {
            return Self::NotKubernetes(format!("{document} with status {}", status.code));
        }
        if status.code == 410 || status.reason == "Expired" || ahead { Self::Expired } else { Self::Api(status) }
    }
}

impl End {
    /// The end for a text that cannot be decoded.
    pub(super) fn malformed(what: &'static str, text: &[u8], problem: impl Into<Problem>) -> Self {
        let text = String::from_utf8_lossy(text);
        match html(&text) {
            Some(document) => Self::NotKubernetes(document),
            None => Self::Malformed { what, problem: problem.into() },
        }
    }

    /// Whether other credentials may help: the server does not know these, or TLS refused a certificate.
    pub(super) fn refuses_credentials(&self) -> bool {
        match self {
            Self::Api(status) => status.code == 401,
            Self::NotKubernetes(text) => text.ends_with(" 401"),
            Self::Request(kube::Error::Auth(_)) => true,
            Self::Request(error) => is_of_tls(&error_chain(error)),
            Self::Read(error) => is_of_tls(&error_chain(error)),
            _ => false,
        }
    }

    /// Whether no API server was heard: nothing answered, the connection broke, or something else answered.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Read(_) | Self::Torn | Self::NotKubernetes(_) => true,
            Self::Request(error) => !matches!(error, kube::Error::Auth(_) | kube::Error::BuildRequest(_)),
            _ => false,
        }
    }

    /// Whether nothing answers at the server's address.
    pub(super) fn found_no_server(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Request(kube::Error::Service(_) | kube::Error::HyperError(_)))
    }
}

/// Whether an error comes from TLS: an alert of the server's, or a certificate that is not accepted here. A handshake that breaks
/// off says nothing of credentials: a server that is ending does that.
fn is_of_tls(error: &str) -> bool {
    let error = error.to_lowercase();
    ["alert", "certificate"].iter().any(|word| error.contains(word))
}

/// The longest title of a document that is shown, in characters.
const MAX_TITLE: usize = 80;

/// Describes an HTML document by its title.
fn html(text: &str) -> Option<String> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if !text.starts_with('<') {
        return None;
    }
    // Bytes of ASCII keep their places.
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").map(|at| at + "<title>".len()).and_then(|start| {
        let end = lower[start..].find("</title>")?;
        Some(text[start..start + end].split_whitespace().collect::<Vec<_>>().join(" "))
    });
    Some(match title.filter(|title| !title.is_empty()) {
        Some(title) => format!("an HTML page (\"{}\")", title.chars().take(MAX_TITLE).collect::<String>()),
        None => "an HTML page".to_owned(),
    })
}

pub(super) fn status_text(status: &Status) -> String {
    format!("the server answers {} {}: {}", status.code, status.reason, status.message)
}

/// An error with its causes: hyper's own texts say little.
fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Recognizes the answer of a server without streaming lists to a request for one. Servers before 1.27 reject
/// `resourceVersionMatch` on a watch, servers with the feature switched off reject `sendInitialEvents`, and others do
/// not know the parameter.
pub(super) fn refused(end: End) -> End {
    match end {
        End::Api(status) if matches!(status.code, 400 | 406 | 415 | 422 | 501) => {
            End::NoStreaming(status_text(&status))
        }
        end => end,
    }
}

/// The wait that the server asks for in `Retry-After`, at most ten seconds.
pub(super) fn server_wish(failure: &End) -> Duration {
    match failure {
        End::Api(status) => {
            let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
            Duration::from_secs(u64::from(seconds.min(10)))
        }
        _ => Duration::ZERO,
    }
}
