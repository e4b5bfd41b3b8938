//! Requests and their answers: what is asked for, in which form the answer comes, and errors in either form.

use std::io::Write as _;
use std::pin::Pin;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::{AsyncBufRead, TryStreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails};

use super::end::End;
use super::envelope;
use super::wire::Raw;

/// The API's protobuf, as `Accept` and `Content-Type` have it.
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// JSON, as `Accept` and `Content-Type` have it.
pub(super) const JSON: &str = "application/json";

const GZIP: &str = "gzip";

/// The most bytes of an error that are read.
const MAX_ERROR: usize = 1 << 20;

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    /// As the headers of an answer say; what says nothing is taken for JSON, and is reported if it is none.
    fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        match kind.split(';').next().map(str::trim) {
            Some(PROTOBUF) => Self::Protobuf,
            _ => Self::Json,
        }
    }
}

/// An answer that has begun.
pub(super) struct Answer {
    pub(super) encoding: Encoding,
    pub(super) body: Pin<Box<dyn AsyncBufRead + Send>>,
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn ask(client: &Client, mut request: Request<Vec<u8>>, accept: HeaderValue) -> Result<Answer, End> {
    request.headers_mut().insert(header::ACCEPT, accept);
    let response = client.send(request.map(Body::from)).await?;
    let encoding = Encoding::of(response.headers());
    if response.status().is_client_error() || response.status().is_server_error() {
        return Err(failure(response, encoding).await);
    }
    let is_gzip = response.headers().get(header::CONTENT_ENCODING).is_some_and(|name| name == GZIP);
    let body = response.into_body().into_data_stream().map_err(std::io::Error::other);
    let body: Pin<Box<dyn AsyncBufRead + Send>> = if is_gzip {
        let mut decoder = MultiGzDecoder::new(Vec::new());
        let inflate = move |piece: Bytes| {
            let written = decoder.write_all(&piece).and_then(|()| decoder.flush());
            std::future::ready(written.map(|()| std::mem::take(decoder.get_mut())))
        };
        Box::pin(body.and_then(inflate).into_async_read())
    } else {
        Box::pin(body.into_async_read())
    };
    Ok(Answer { encoding, body })
}

/// Lets the server compress its answer, as it does with long lists. A watch is never asked for so: each event would wait for
/// the end of a block.
pub(super) fn accept_gzip(request: &mut Request<Vec<u8>>) {
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(GZIP));
}

/// Reads the error that an answer is.
async fn failure(response: Response<Body>, encoding: Encoding) -> End {
    let (code, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
    let body = match Limited::new(response.into_body(), MAX_ERROR).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return End::Read(std::io::Error::other(error)),
    };
    let decoded = match encoding {
        Encoding::Json => serde_json::from_slice::<Box<Status>>(&body).ok(),
        Encoding::Protobuf => envelope::opened(&body).ok().and_then(|raw| Raw::Protobuf(raw).status().ok()),
    };
    let mut status = decoded.unwrap_or_else(|| {
        // A proxy or a load balancer has words of its own.
        let text = String::from_utf8_lossy(&body);
        Box::new(Status::failure(text.trim(), "Failed to parse error data").with_code(code))
    });
    if status.code == 0 {
        status.code = code;
    }
    if let (None, Some(seconds)) = (&status.details, retry_after) {
        status.details = Some(details(seconds, Vec::new()));
    }
    End::from_status(status)
}

/// The details of a status that portway reads.
pub(super) fn details(retry_after_seconds: u32, causes: Vec<StatusCause>) -> StatusDetails {
    let (name, group, kind, uid) = Default::default();
    StatusDetails { name, group, kind, uid, causes, retry_after_seconds }
}

fn retry_after(headers: &HeaderMap) -> Option<u32> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}
