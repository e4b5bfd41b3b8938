//! Metrics of requests to the API server, under client-go's names.

use std::task::{Context, Poll};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Body;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tower::{Layer, Service};

use super::register::Registrar;

/// Counts requests to the API server. Clones share the counters; the default is registered in no registry.
#[derive(Clone, Debug)]
pub struct RestMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    request_size: HistogramVec,
}

impl Default for RestMetrics {
    fn default() -> Self {
        const NAMES: &str = "the names and labels of these metrics are constants that prometheus accepts";
        let seconds = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
        let bytes = [64., 256., 512., 1024., 4096., 16384., 65536., 262_144., 1_048_576., 4_194_304., 16_777_216.];
        let requests =
            Opts::new("rest_client_requests_total", "Requests to the API server by status, method and host.");
        let duration = HistogramOpts::new(
            "rest_client_request_duration_seconds",
            "Time from a request to the API server to the head of its answer, by verb and host.",
        );
        let size = HistogramOpts::new(
            "rest_client_request_size_bytes",
            "Size of requests to the API server by verb and host.",
        );
        Self {
            requests: IntCounterVec::new(requests, &["code", "method", "host"]).expect(NAMES),
            duration: HistogramVec::new(duration.buckets(seconds.into()), &["verb", "host"]).expect(NAMES),
            request_size: HistogramVec::new(size.buckets(bytes.into()), &["verb", "host"]).expect(NAMES),
        }
    }
}

impl RestMetrics {
    pub(super) fn register(&self, to: &Registrar<'_>) -> prometheus::Result<()> {
        to.collector(self.requests.clone())?;
        to.collector(self.duration.clone())?;
        to.collector(self.request_size.clone())
    }
}

/// Wraps a client's service so that its requests are counted.
impl<S> Layer<S> for RestMetrics {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    metrics: RestMetrics,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    B: Body,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (metrics, start) = (self.metrics.clone(), Instant::now());
        let method = request.method().as_str().to_owned();
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        if let Some(bytes) = request.body().size_hint().exact() {
            #[expect(clippy::cast_precision_loss, reason = "requests are far smaller than 2^52 bytes")]
            metrics.request_size.with_label_values(&[&method, &host]).observe(bytes as f64);
        }
        let answering = self.inner.call(request);
        async move {
            let answered = answering.await;
            let code = answered.as_ref().map_or("<error>".to_owned(), |response| response.status().as_str().to_owned());
            metrics.duration.with_label_values(&[&method, &host]).observe(start.elapsed().as_secs_f64());
            metrics.requests.with_label_values(&[&code, &method, &host]).inc();
            answered
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;
    use prometheus::Registry;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn requests_are_counted_under_client_gos_names() {
        let (registry, metrics) = (Registry::new(), RestMetrics::default());
        metrics.register(&Registrar::new(&registry)).unwrap();
        let server = service_fn(async |request: Request<http_body_util::Full<Bytes>>| match request.uri().path() {
            "/missing" => Err(std::io::Error::other("nobody is there")),
            _ => Ok(Response::builder().status(201).body(()).unwrap()),
        });
        for path in ["/a", "/b", "/missing"] {
            let request = Request::post(format!("https://192.0.2.1:6443{path}"));
            let request = request.body(http_body_util::Full::from("hello")).unwrap();
            let _ = metrics.layer(server).oneshot(request).await;
        }
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "rest_client_requests_total{code=\"201\",host=\"192.0.2.1:6443\",method=\"POST\"} 2",
            "rest_client_requests_total{code=\"<error>\",host=\"192.0.2.1:6443\",method=\"POST\"} 1",
            "rest_client_request_duration_seconds_count{host=\"192.0.2.1:6443\",verb=\"POST\"} 3",
            "rest_client_request_size_bytes_sum{host=\"192.0.2.1:6443\",verb=\"POST\"} 15",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in:\n{text}");
        }
    }
}
