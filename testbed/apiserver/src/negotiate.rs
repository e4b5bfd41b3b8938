//! Content types: which one a response has, and which one a request's body has.

use http::{HeaderMap, header};
use serde_json::Value;

use crate::error::ApiError;
use crate::fault::Protobuf;
use crate::protobuf::{self, schema};
use crate::resource::Resource;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How objects are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

impl Format {
    /// The content type of a response that is no watch.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The content type of a watch.
    pub(crate) fn stream_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    /// Chooses the format that a request prefers among those that the server has: by weight, then by order.
    pub(crate) fn accepted(headers: &HeaderMap, protobuf: Protobuf) -> Result<Self, ApiError> {
        let Some(accept) = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()) else {
            return Ok(Self::Json);
        };
        let mut clauses: Vec<(f32, &str)> = accept.split(',').filter_map(clause).collect();
        clauses.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        for (_, kind) in clauses {
            match (kind, protobuf) {
                (PROTOBUF, Protobuf::Offered) => return Ok(Self::Protobuf),
                (PROTOBUF, Protobuf::Refused) => break,
                (JSON | "application/*" | "*/*", _) => return Ok(Self::Json),
                _ => {}
            }
        }
        let known = match protobuf {
            Protobuf::Offered => format!("{JSON}, {PROTOBUF}"),
            Protobuf::Refused | Protobuf::Missing => JSON.to_owned(),
        };
        Err(ApiError::not_acceptable(&known))
    }

    /// Decodes the body of a request as its `Content-Type` says; JSON if it says nothing.
    pub(crate) fn read(
        headers: &HeaderMap,
        resource: Resource,
        protobuf: Protobuf,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or(JSON);
        match kind.split(';').next().unwrap_or_default().trim() {
            PROTOBUF if protobuf != Protobuf::Offered => Err(ApiError::unsupported_media_type(kind)),
            PROTOBUF => protobuf::opened(body)
                .and_then(|(api_version, kind, raw)| {
                    let mut value = protobuf::decode(schema::of(resource), raw)?;
                    value["apiVersion"] = api_version.into();
                    value["kind"] = kind.into();
                    Some(value)
                })
                .ok_or_else(|| ApiError::bad_request("the body is no object in protobuf")),
            _ => serde_json::from_slice(body)
                .map_err(|error| ApiError::bad_request(format!("the body is no JSON: {error}"))),
        }
    }
}

/// The weight and media type of one clause; `None` for an object in another form, such as a table.
fn clause(text: &str) -> Option<(f32, &str)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?;
    let mut weight = 1.0;
    for part in parts {
        match part.split_once('=')? {
            ("q", number) => weight = number.parse().ok()?,
            ("as", _) => return None,
            _ => {}
        }
    }
    Some((weight, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &'static str, protobuf: Protobuf) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(accept));
        Format::accepted(&headers, protobuf).map_err(|error| error.code)
    }

    #[test]
    fn the_first_format_of_the_greatest_weight_is_chosen() {
        for (accept, offered, missing, refused) in [
            ("*/*", Ok(Format::Json), Ok(Format::Json), Ok(Format::Json)),
            ("application/vnd.kubernetes.protobuf", Ok(Format::Protobuf), Err(406), Err(406)),
            ("application/vnd.kubernetes.protobuf,application/json", Ok(Format::Protobuf), Ok(Format::Json), Err(406)),
            ("application/vnd.kubernetes.protobuf, */*", Ok(Format::Protobuf), Ok(Format::Json), Err(406)),
            (
                "application/json,application/vnd.kubernetes.protobuf",
                Ok(Format::Json),
                Ok(Format::Json),
                Ok(Format::Json),
            ),
            (
                "application/json;q=0.5,application/vnd.kubernetes.protobuf;q=0.9",
                Ok(Format::Protobuf),
                Ok(Format::Json),
                Err(406),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Ok(Format::Json),
                Ok(Format::Json),
                Ok(Format::Json),
            ),
            ("text/html", Err(406), Err(406), Err(406)),
        ] {
            assert_eq!(accepted(accept, Protobuf::Offered), offered, "{accept}");
            assert_eq!(accepted(accept, Protobuf::Missing), missing, "{accept}");
            assert_eq!(accepted(accept, Protobuf::Refused), refused, "{accept}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new(), Protobuf::Offered), Ok(Format::Json));
    }
}
