//! Errors in the form of the API: `Status` objects.

use serde_json::json;

/// An error that the server returns as a `Status` object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code}): {message}")]
pub struct ApiError {
    /// HTTP status code of the response.
    pub code: u16,
    /// The machine-readable reason, such as `Expired`.
    pub reason: &'static str,
    /// One sentence for a person.
    pub message: String,
    /// Seconds after which the client should retry.
    pub retry_after: Option<u32>,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), retry_after: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    pub(crate) fn not_found(plural: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{plural} \"{name}\" not found"))
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// No format that the request accepts is among these.
    pub(crate) fn not_acceptable(known: &str) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {known}"))
    }

    pub(crate) fn unsupported_media_type(kind: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, not {kind}"
            ),
        )
    }

    pub(crate) fn already_exists(plural: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{plural} \"{name}\" already exists"))
    }

    pub(crate) fn conflict(plural: &str, name: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {plural} \"{name}\": the object has been modified"),
        )
    }

    /// The requested version was compacted (`410 Gone`).
    pub(crate) fn expired(version: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {version} ({oldest})"))
    }

    /// The requested version lies in the future (`504`, as the real server's cache says).
    pub(crate) fn too_large(version: u64, newest: u64) -> Self {
        let message = format!("Too large resource version: {version}, current: {newest}");
        Self { retry_after: Some(1), ..Self::new(504, "Timeout", message) }
    }

    /// An error made by a fault.
    pub(crate) fn injected(code: u16, retry_after: Option<u32>) -> Self {
        let (reason, message) = match code {
            400 => ("BadRequest", "the request was refused"),
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "the request is forbidden"),
            404 => ("NotFound", "the server could not find the requested resource"),
            410 => ("Expired", "The provided continue parameter is too old"),
            422 => ("Invalid", "the request is invalid"),
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
        };
        Self { retry_after, ..Self::new(code, reason, message) }
    }

    /// The error as a `Status` object.
    pub(crate) fn status(&self) -> serde_json::Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(seconds) = self.retry_after {
            status["details"] = json!({ "retryAfterSeconds": seconds });
        }
        status
    }
}
