//! Query parameters of list and watch requests.

use axum::extract::Query;
use http::Uri;
use serde::{Deserialize, Deserializer};

use super::answer::ApiError;

/// What a list or watch request says after the `?`. Unknown parameters are ignored, as the real server does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Params {
    pub(super) label_selector: String,
    pub(super) field_selector: String,
    #[serde(deserialize_with = "flag")]
    pub(super) watch: Option<bool>,
    pub(super) limit: Option<usize>,
    #[serde(rename = "continue")]
    pub(super) continue_token: String,
    pub(super) resource_version: String,
    pub(super) resource_version_match: String,
    #[serde(deserialize_with = "flag")]
    pub(super) allow_watch_bookmarks: Option<bool>,
    #[serde(deserialize_with = "flag")]
    pub(super) send_initial_events: Option<bool>,
    pub(super) timeout_seconds: Option<u64>,
}

impl Params {
    /// Reads the parameters of a request.
    pub(super) fn read(uri: &Uri) -> Result<Self, ApiError> {
        let Query(params) =
            Query::<Self>::try_from_uri(uri).map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(params)
    }

    /// Whether a watch is asked for.
    pub(super) fn is_watch(&self) -> bool {
        self.watch == Some(true)
    }

    /// `resourceVersion`; `None` where it is not set.
    pub(super) fn version(&self) -> Result<Option<u64>, ApiError> {
        if self.resource_version.is_empty() {
            return Ok(None);
        }
        let wrong = |_| ApiError::bad_request(format!("Invalid value: \"{}\": resourceVersion", self.resource_version));
        self.resource_version.parse().map(Some).map_err(wrong)
    }
}

/// A boolean as Go's query decoding takes it.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Some(matches!(text.as_str(), "true" | "1" | "")))
}
