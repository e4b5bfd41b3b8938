//! Posts events to the API server (contract CFG-15).

use std::time::Duration;

use super::connection::Connection;
use super::end::End;
use crate::events::{Event, EventQueue};

/// How often an event is posted to a server that does not take it, and how long between two attempts.
const ATTEMPTS: (u32, Duration) = (12, Duration::from_secs(10));

/// Posts each event of the queue, one after the other, for ever. An event that the server does not take is no failure:
/// what it says is in the log too.
pub(super) async fn post_all(queue: &EventQueue, connection: &Connection) {
    let Some(mut events) = queue.take() else { return std::future::pending().await };
    let mut refusal = None;
    while let Some(event) = events.recv().await {
        let reason = event.reason.as_str();
        match post(&event, connection).await {
            Ok(()) => refusal = None,
            // The object is there already, from an attempt whose answer was lost.
            Err(End::Api(status)) if status.code == 409 => {}
            Err(error) => {
                let error = error.to_string();
                if refusal.as_ref() != Some(&error) {
                    tracing::warn!(reason, %error, "cannot post events; they are only in the log");
                    refusal = Some(error);
                }
            }
        }
    }
    std::future::pending::<()>().await;
}

async fn post(event: &Event, connection: &Connection) -> Result<(), End> {
    let (attempts, wait) = ATTEMPTS;
    let mut attempt = 1;
    loop {
        let error = match post_once(event, connection).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let is_final = matches!(&error, End::Api(status) if (400..500).contains(&status.code) && status.code != 429);
        if is_final || attempt == attempts {
            return Err(error);
        }
        attempt += 1;
        tokio::time::sleep(wait).await;
    }
}

async fn post_once(event: &Event, connection: &Connection) -> Result<(), End> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", event.namespace());
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(event.object().to_string().into_bytes())
        .map_err(|error| End::Request(kube::Error::HttpError(error)))?;
    let mut attempt = connection.attempt().await;
    let answered = attempt.ask(request).await.map(drop);
    if let Err(end) = &answered {
        attempt.ended(end).await;
    }
    answered
}
