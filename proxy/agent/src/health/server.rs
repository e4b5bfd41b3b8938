//! The pages `/healthz` and `/livez` (contract HZ-1, HZ-2).

use std::sync::Arc;

use http::StatusCode;

use super::ProxyHealth;
use crate::metrics::HealthMetrics;
use crate::web::{Handler, Reply, at_once};

/// Answers on the healthz address, to any method.
pub(crate) fn handler(health: Arc<ProxyHealth>, metrics: HealthMetrics) -> Handler {
    at_once(move |request| {
        let (counter, (healthy, body)) = match &*request.path {
            "/healthz" => (&metrics.healthz, health.healthz()),
            "/livez" => (&metrics.livez, health.livez()),
            _ => return Reply::not_found(),
        };
        let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        counter.with_label_values(&[status.as_str()]).inc();
        Reply::json(status, body)
    })
}
