//! A client for the API server from a kubeconfig, the pod's service account or a bare address.
//!
//! kube's own client stack has no TCP keepalive: a connection whose other end vanished silently would be noticed only
//! when its watch should have ended. This is the same stack over a connector with keepalive.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use super::KubernetesConfig;

/// The longest time that one connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is silent before the first keepalive probe.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The time between two keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The number of unanswered probes after which the connection is closed.
const KEEPALIVE_RETRIES: u32 = 3;

/// Why no client could be created. Retrying does not help with any of these.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig could not be read, or its parts contradict each other.
    #[error("kubeconfig {}: {}", path.display(), kubeconfig_text(error))]
    Kubeconfig {
        /// The kubeconfig file as given.
        path: PathBuf,
        /// Why it cannot be used.
        error: KubeconfigError,
    },
    /// `--master` is not an address of an API server.
    #[error("--master={master:?} is not an address like http://host:port")]
    Master {
        /// The address as given.
        master: String,
    },
    /// Neither a kubeconfig nor a master is given, and the process does not run in a pod.
    #[error("no API server is named (--kubeconfig, --master) and this is not a pod with a service account: {0}")]
    InCluster(#[from] InClusterError),
    /// The kubeconfig names an HTTP proxy.
    #[error("the API server is to be reached through the proxy {0}, which portway does not support")]
    Proxy(http::Uri),
    /// The credentials or certificates cannot be used.
    #[error("cannot set up the connection to the API server: {0}")]
    Setup(#[from] kube::Error),
}

/// Shortens the error to one line: kube's own text repeats the path and quotes the file.
fn kubeconfig_text(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        KubeconfigError::Parse(error) => error.without_snippet().to_string(),
        other => other.to_string(),
    }
}

/// Creates a client; it connects with the first request.
pub(super) async fn connect(config: &KubernetesConfig) -> Result<Client, ConnectError> {
    let config = cluster(config).await?;
    if let Some(proxy) = &config.proxy_url {
        return Err(ConnectError::Proxy(proxy.clone()));
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // What was sent and is not acknowledged counts as well.
    tcp.set_tcp_user_timeout(Some(KEEPALIVE + KEEPALIVE_INTERVAL * KEEPALIVE_RETRIES));
    let layers = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from);
    let executor = TokioExecutor::new();
    if config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTPS) {
        let tls = config.rustls_https_connector_with_connector(tcp)?;
        let http: HttpClient<_, Body> = HttpClient::builder(executor).build(tls);
        Ok(Client::new(layers.service(http), config.default_namespace))
    } else {
        let http: HttpClient<_, Body> = HttpClient::builder(executor).build(tcp);
        Ok(Client::new(layers.service(http), config.default_namespace))
    }
}

async fn cluster(config: &KubernetesConfig) -> Result<Config, ConnectError> {
    let master = config.master.as_deref().map(address).transpose()?;
    let Some(path) = &config.kubeconfig else {
        return match master {
            Some(master) => Ok(Config::new(master)),
            None => Ok(Config::incluster()?),
        };
    };
    let of_file = |error| ConnectError::Kubeconfig { path: path.clone(), error };
    let kubeconfig = Kubeconfig::read_from(path).map_err(of_file)?;
    let mut read = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(of_file)?;
    if let Some(master) = master {
        read.cluster_url = master;
    }
    Ok(read)
}

/// Parses an address with a scheme and a host; without a scheme it is plain HTTP, as in kube-proxy.
fn address(master: &str) -> Result<http::Uri, ConnectError> {
    let full = if master.contains("://") { master.to_owned() } else { format!("http://{master}") };
    match full.parse::<http::Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty()) => {
            Ok(uri)
        }
        _ => Err(ConnectError::Master { master: master.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Whether the kernel has a keepalive timer for a connection to `port` (`tr` is 2 in /proc/net/tcp).
    fn is_probed(port: u16) -> bool {
        let connections = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        connections.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[2].ends_with(&format!(":{port:04X}")) && fields[3] == "01" && fields[5].starts_with("02:")
        })
    }

    #[tokio::test]
    async fn a_silent_connection_is_probed() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = server.local_addr().unwrap();
        let config = KubernetesConfig { master: Some(address.to_string()), ..KubernetesConfig::default() };
        let client = connect(&config).await.unwrap();
        let request = tokio::spawn(async move {
            client.request_text(http::Request::get("/").body(Vec::new()).unwrap()).await.map(|_| ()).unwrap_err()
        });
        let (connection, _) = tokio::task::spawn_blocking(move || server.accept()).await.unwrap().unwrap();
        // The timer is set once the request has been acknowledged.
        let probed = async {
            while !is_probed(address.port()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), probed).await.expect("the connection has a keepalive timer");
        drop(connection);
        request.await.unwrap();
    }
}
