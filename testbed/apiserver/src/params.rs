//! Query parameters of list and watch requests.

use axum::extract::Query;
use http::Uri;
use serde::{Deserialize, Deserializer};

use crate::error::ApiError;

/// The query parameters of a list or watch request. Unknown parameters are ignored, as the real server does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Params {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    #[serde(deserialize_with = "flag")]
    pub(crate) watch: Option<bool>,
    pub(crate) limit: Option<usize>,
    #[serde(rename = "continue")]
    pub(crate) continue_token: String,
    pub(crate) resource_version: String,
    pub(crate) resource_version_match: String,
    #[serde(deserialize_with = "flag")]
    pub(crate) allow_watch_bookmarks: Option<bool>,
    #[serde(deserialize_with = "flag")]
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout_seconds: Option<u64>,
}

impl Params {
    /// Reads the parameters of a request.
    pub(crate) fn read(uri: &Uri) -> Result<Self, ApiError> {
        let Query(params) =
            Query::<Self>::try_from_uri(uri).map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(params)
    }

    /// Whether the request is a watch.
    pub(crate) fn is_watch(&self) -> bool {
        self.watch == Some(true)
    }

    /// The number in `resourceVersion`; `None` where it is not set.
    pub(crate) fn version(&self) -> Result<Option<u64>, ApiError> {
        if self.resource_version.is_empty() {
            return Ok(None);
        }
        let wrong = |_| ApiError::bad_request(format!("Invalid value: \"{}\": resourceVersion", self.resource_version));
        self.resource_version.parse().map(Some).map_err(wrong)
    }
}

/// Reads a boolean as the query decoding of Go does.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Some(matches!(text.as_str(), "true" | "1" | "")))
}
