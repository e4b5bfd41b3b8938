//! The HTTP server of the metrics address: /metrics and /proxyMode (contract section 16).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;

/// How long to wait before trying again to bind the address, as kube-proxy does.
const BIND_RETRY: Duration = Duration::from_secs(5);

/// Serves the metrics until the future is dropped. Binding the address is retried every 5 s: a busy port must not stop
/// Services from being served.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> io::Result<()> {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::warn!(%address, %error, retry_seconds = BIND_RETRY.as_secs(), "cannot serve metrics; retrying");
                tokio::time::sleep(BIND_RETRY).await;
            }
        }
    };
    serve_on(listener, metrics).await
}

/// Serves the metrics on a bound listener until the future is dropped.
async fn serve_on(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<()> {
    let router = Router::new().route("/metrics", get(page)).route("/proxyMode", get(mode)).with_state(metrics);
    axum::serve(listener, router).await
}

async fn page(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn mode(State(metrics): State<Arc<Metrics>>) -> &'static str {
    metrics.mode().as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portway_dataplane::Mode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_and_proxy_mode_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_on(listener, Arc::new(Metrics::new(Mode::Nftables, None).unwrap())));

        let page = fetch(address, "/metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
        assert!(page.contains("\nportway_queue_length 0\n"), "{page}");

        let mode = fetch(address, "/proxyMode").await;
        assert!(mode.contains("content-type: text/plain"), "{mode}");
        assert!(mode.ends_with("\r\n\r\nnftables"), "{mode}");

        assert!(fetch(address, "/nothing").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }
}
