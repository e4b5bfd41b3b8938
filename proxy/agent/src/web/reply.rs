//! Answers, with the headers that Go's handlers set.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

/// An answer to one request.
#[derive(Clone, Debug)]
pub(crate) struct Reply(Response<Full<Bytes>>);

impl Reply {
    /// An answer with this status, type of content and body.
    pub(crate) fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self(response)
    }

    /// Plain text that no browser takes for anything else.
    pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text).no_sniffing()
    }

    /// JSON that no browser takes for anything else.
    pub(crate) fn json(status: StatusCode, json: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json", json).no_sniffing()
    }

    /// The answer of Go's server to a path that it does not have.
    pub(crate) fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "404 page not found\n")
    }

    /// Sends a client to another path.
    pub(crate) fn moved(path: &'static str) -> Self {
        Self::new(StatusCode::MOVED_PERMANENTLY, "text/html; charset=utf-8", "")
            .with(LOCATION, HeaderValue::from_static(path))
    }

    /// The same answer with one more header.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    fn no_sniffing(self) -> Self {
        self.with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        self.0
    }
}
