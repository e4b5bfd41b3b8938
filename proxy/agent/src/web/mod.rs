//! The agent's small HTTP servers: health, health check node ports, metrics. They know nothing of what they serve.
//!
//! Answers look as those of Go's server, which probes and load balancers have met so far: the same header names in the
//! same spelling, any method where Go's handlers look at none, and its page for what is not there.

mod bind;
mod reply;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) use bind::{BindRetry, bind, both_families};
pub(crate) use reply::Reply;

/// How long a client may take to send the head of a request, and keep a connection without one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The most connections of one listener that are served at a time; others wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

/// The largest body of a request that is read.
const MAX_BODY: usize = 4096;

/// What a handler sees of a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The method, such as GET.
    pub(crate) method: http::Method,
    /// The path, with a slash at its beginning.
    pub(crate) path: String,
    /// What follows the question mark; empty without one.
    pub(crate) query: String,
    /// The header Accept; empty without one.
    pub(crate) accept: String,
    /// The body of a PUT; other bodies are not read.
    pub(crate) body: Bytes,
}

/// An answer that may take a while.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A function that answers each request of a server.
pub(crate) type Handler = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// Makes a handler of a function that answers at once.
pub(crate) fn at_once(answer: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Handler {
    Arc::new(move |request| Box::pin(std::future::ready(answer(request))))
}

/// Serves a listener until the future is dropped, which closes its connections too.
pub(crate) async fn serve(listener: TcpListener, handler: Handler) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, for example: others are closed sooner or later.
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&handler), request));
            let mut server = hyper::server::conn::http1::Builder::new();
            server.title_case_headers(true).timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
            // A client that breaks off is no concern of anybody.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(handler: Handler, request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = if parts.method == http::Method::PUT {
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                return Ok(Reply::text(http::StatusCode::BAD_REQUEST, "error reading request body\n").into_response());
            }
        }
    } else {
        Bytes::new()
    };
    let accept = parts.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let request = Request {
        accept: accept.to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        method: parts.method,
        body,
    };
    Ok(handler(request).await.into_response())
}

/// Binds an address, again and again until it works, and serves it until the future is dropped.
///
/// # Errors
/// If the address cannot be bound and `retry` says that this is fatal.
pub(crate) async fn serve_address(address: SocketAddr, retry: BindRetry, handler: Handler) -> io::Result<()> {
    let listener = retry.until_bound(address).await?;
    serve(listener, handler).await;
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    //! A client that shows answers byte by byte.

    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// The answer to a request without a body, without its Date header.
    pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        send(address, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    /// The answer to the bytes of a request, without its Date header.
    pub(crate) async fn send(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let lines = answer.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with("Date: ") && !line.starts_with("Connection: ")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{ask, send};
    use super::*;

    #[tokio::test]
    async fn an_answer_looks_as_that_of_gos_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler = at_once(|request| match &*request.path {
            "/" => Reply::text(http::StatusCode::OK, format!("{} {:?}", request.method, request.body)),
            _ => Reply::not_found(),
        });
        tokio::spawn(serve(listener, handler));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";
        assert_eq!(ask(address, "GET", "/?a=b").await, format!("{head}Content-Length: 7\r\n\r\nGET b\"\""));
        assert_eq!(ask(address, "HEAD", "/").await, format!("{head}Content-Length: 8\r\n\r\n"));
        let put = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n5";
        assert_eq!(send(address, put).await, format!("{head}Content-Length: 8\r\n\r\nPUT b\"5\""));
        assert_eq!(
            ask(address, "GET", "/other").await,
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: 19\r\n\r\n404 page not found\n"
        );
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, at_once(|_| Reply::text(http::StatusCode::OK, "read"))));
        let body = "x".repeat(MAX_BODY + 1);
        let length = body.len();
        let put = format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        assert!(send(address, &put).await.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    }
}
