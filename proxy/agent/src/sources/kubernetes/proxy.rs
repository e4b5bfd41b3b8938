//! The HTTP proxy between portway and the API server: which one applies, and a connector that goes through it.
//!
//! A kubeconfig names one with `proxy-url`. Otherwise the environment does, by Go's rules as in kube-proxy: kubeadm copies
//! `HTTPS_PROXY` and `NO_PROXY` into the DaemonSet.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use kube::Config;
use tokio::net::TcpStream;
use tower::{BoxError, Service};

/// The proxies that the environment's variables name.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    https: String,
    http: String,
    no: String,
}

impl Environment {
    /// Reads this process's environment. As in Go, a name in capitals goes first.
    pub(super) fn read() -> Self {
        let read = |name: &str| {
            let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
            given(name).or_else(|| given(&name.to_lowercase())).unwrap_or_default()
        };
        Self { https: read("HTTPS_PROXY"), http: read("HTTP_PROXY"), no: read("NO_PROXY") }
    }

    /// The proxy for a server, if it is to be reached through one.
    fn proxy_for(&self, server: &Uri) -> Option<&str> {
        let host = server.host()?.trim_matches(['[', ']']);
        if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return None;
        }
        // The matcher knows this word for names alone.
        if self.no.split(',').any(|entry| entry.trim() == "*") {
            return None;
        }
        let https = server.scheme() == Some(&http::uri::Scheme::HTTPS);
        let proxy = if https { &self.https } else { &self.http };
        // Any proxy does for the question whether there is to be none.
        let all = Matcher::builder().all("http://proxy").no(self.no.as_str()).build();
        (!proxy.is_empty() && all.intercept(server).is_some()).then_some(proxy)
    }
}

/// Chooses the way to the server of a configuration: through the proxy that its kubeconfig or the environment names. A
/// proxy that cannot be used is a warning: the server may well be reached without.
pub(super) fn way(config: &Config, explicit: Option<&str>, environment: &Environment, tcp: HttpConnector) -> Connector {
    let server = &config.cluster_url;
    let Some(proxy) = explicit.or_else(|| environment.proxy_for(server)) else { return Connector::Direct(tcp) };
    match usable(proxy) {
        Some(proxy) => {
            tracing::info!(proxy = %proxy.uri(), "the API server is reached through a proxy");
            let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            Connector::Tunnel(match proxy.basic_auth() {
                Some(credentials) => tunnel.with_auth(credentials.clone()),
                None => tunnel,
            })
        }
        None => {
            tracing::warn!(
                "the proxy {:?} for the API server at {server} is not supported, only http:// proxies are; connecting \
                 without it",
                without_password(proxy)
            );
            Connector::Direct(tcp)
        }
    }
}

fn usable(proxy: &str) -> Option<Intercept> {
    let matcher = Matcher::builder().all(proxy).build();
    let proxy = matcher.intercept(&Uri::from_static("http://any"))?;
    (proxy.uri().scheme() == Some(&http::uri::Scheme::HTTP)).then_some(proxy)
}

fn without_password(proxy: &str) -> &str {
    proxy.rsplit_once('@').map_or(proxy, |(_, host)| host)
}

/// Connects to the server, directly or through a proxy's CONNECT.
#[derive(Clone)]
pub(super) enum Connector {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpConnector>),
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(context).map_err(BoxError::from),
            Self::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(BoxError::from),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => {
                let connecting = tcp.call(server);
                Box::pin(async { connecting.await.map_err(BoxError::from) })
            }
            Self::Tunnel(tunnel) => {
                let connecting = tunnel.call(with_port(server));
                Box::pin(async { connecting.await.map_err(BoxError::from) })
            }
        }
    }
}

/// Adds port 80 to plain HTTP, since a tunnel's own default is 443.
fn with_port(server: Uri) -> Uri {
    if server.port().is_some() || server.scheme() != Some(&http::uri::Scheme::HTTP) {
        return server;
    }
    let Some(host) = server.host() else { return server };
    format!("http://{host}:80/").parse().unwrap_or(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_proxy_is_chosen_as_go_does() {
        let environment = Environment {
            https: "http://proxy:3128".to_owned(),
            http: "http://other:3128".to_owned(),
            no: "10.96.0.0/12, .cluster.local,api.example.com,192.0.2.1,fd00::/8".to_owned(),
        };
        for (server, proxy) in [
            ("https://203.0.113.1:6443", Some("http://proxy:3128")),
            ("https://example.com", Some("http://proxy:3128")),
            ("http://203.0.113.1", Some("http://other:3128")),
            ("https://10.96.0.1", None),
            ("https://192.0.2.1:6443", None),
            ("https://[fd00::1]:6443", None),
            ("https://kubernetes.default.svc.cluster.local", None),
            ("https://api.example.com:6443", None),
            ("https://localhost:6443", None),
            ("https://127.0.0.1:6443", None),
            ("https://[::1]:6443", None),
        ] {
            assert_eq!(environment.proxy_for(&server.parse().unwrap()), proxy, "{server}");
        }
        let everything = Environment { no: "*".to_owned(), ..environment };
        assert_eq!(everything.proxy_for(&Uri::from_static("https://203.0.113.1")), None);
    }

    #[test]
    fn only_plain_http_proxies_can_be_used_and_their_passwords_are_not_shown() {
        assert_eq!(usable("http://10.0.0.1:3128").unwrap().uri().to_string(), "http://10.0.0.1:3128/");
        assert_eq!(usable("10.0.0.1:3128").unwrap().uri().host(), Some("10.0.0.1"));
        assert!(usable("http://me:secret@10.0.0.1:3128").unwrap().basic_auth().is_some());
        for proxy in ["https://10.0.0.1", "socks5://10.0.0.1:1080", "ftp://10.0.0.1", "not a proxy", "http://"] {
            assert!(usable(proxy).is_none(), "{proxy}");
        }
        assert_eq!(without_password("socks5://me:secret@host:1080"), "host:1080");
    }
}
