//! A client for the API server from a kubeconfig, the pod's service account or a bare address.
//!
//! kube's own client stack speaks HTTP/1.1, a connection for each watch, and has no TCP keepalive: a connection whose other
//! end vanished silently would be noticed only when its watch should have ended. This is the same stack over a connector
//! with keepalive, and with HTTP/2 where the server offers it under TLS: all requests share one connection, and pings notice
//! a server that no longer answers, even behind a proxy whose own connection is alive.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt, RustlsTlsError};
use kube::config::{
    AuthInfo, Cluster, Context, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo,
    NamedCluster, NamedContext,
};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use super::KubernetesConfig;
use super::exec::{self, ExecError};
use super::proxy::{self, Connector, Environment};

/// Where a pod finds its service account's token and the cluster's certificate authority.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The longest time that one connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is silent before the first keepalive probe.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The time between two keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The number of unanswered probes after which the connection is closed.
const KEEPALIVE_RETRIES: u32 = 3;

/// The bytes of one answer, and of all answers together, that may be under way or wait to be read (HTTP/2).
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

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
    /// The program that the kubeconfig names issued no credentials.
    #[error(transparent)]
    Exec(#[from] ExecError),
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

/// A client, and what it was built from.
pub(super) struct Built {
    pub(super) client: Client,
    /// The API server's address, as the client asks for it.
    pub(super) server: http::Uri,
    /// Whether the address is the cluster IP of the API server's Service, from the pod's environment.
    pub(super) by_cluster_ip: bool,
    /// The files that were read.
    pub(super) files: Vec<PathBuf>,
    /// When the credentials end, if a program issued them and said so.
    pub(super) expires: Option<SystemTime>,
}

/// Builds a client; it connects with its first request.
pub(super) async fn build(config: &KubernetesConfig) -> Result<Built, ConnectError> {
    let tuning = &config.tuning;
    let counted = config.metrics.clone();
    let Access { mut config, proxy, files, by_cluster_ip } = access(config).await?;
    let expires = exec::issue(&mut config.auth_info).await?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // What was sent and is not acknowledged counts as well.
    tcp.set_tcp_user_timeout(Some(KEEPALIVE + KEEPALIVE_INTERVAL * KEEPALIVE_RETRIES));
    let connector = proxy::way(&config, proxy.as_deref(), &Environment::read(), tcp);
    let layers = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .layer(counted);
    let mut builder = HttpClient::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // A connection whose last request is long ago still carries watches.
        .pool_idle_timeout(None)
        .http2_keep_alive_interval(tuning.ping_interval)
        .http2_keep_alive_timeout(tuning.ping_timeout)
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW);
    let server = config.cluster_url.clone();
    let client = if server.scheme() == Some(&http::uri::Scheme::HTTPS) {
        let http: HttpClient<_, Body> = builder.build(under_tls(&config, connector)?);
        Client::new(layers.service(http), config.default_namespace)
    } else {
        let http: HttpClient<_, Body> = builder.build(connector);
        Client::new(layers.service(http), config.default_namespace)
    };
    Ok(Built { client, server, by_cluster_ip, files, expires })
}

/// kube's TLS over a connector, offering HTTP/2 before HTTP/1.1.
fn under_tls(config: &Config, connector: Connector) -> Result<HttpsConnector<Connector>, kube::Error> {
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name
            .clone()
            .try_into()
            .map_err(|error| kube::Error::RustlsTls(RustlsTlsError::InvalidServerName(error)))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(builder.enable_all_versions().wrap_connector(connector))
}

/// How to reach a server, as kubeconfig, service account and flags say.
struct Access {
    config: Config,
    /// The proxy that the kubeconfig names.
    proxy: Option<String>,
    files: Vec<PathBuf>,
    by_cluster_ip: bool,
}

/// The files that are known before any of them is read.
pub(super) fn files(config: &KubernetesConfig) -> Vec<PathBuf> {
    match (&config.kubeconfig, &config.master) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(_)) => Vec::new(),
        (None, None) => ["token", "ca.crt"].map(|name| Path::new(SERVICE_ACCOUNT).join(name)).into(),
    }
}

async fn access(config: &KubernetesConfig) -> Result<Access, ConnectError> {
    let master = config.master.as_deref().map(address).transpose()?;
    let Some(path) = &config.kubeconfig else {
        let Some(master) = master else {
            let (config, files) = (Config::incluster()?, files(config));
            return Ok(Access { config, proxy: None, files, by_cluster_ip: true });
        };
        let folder = config.service_account.as_deref().unwrap_or(Path::new(SERVICE_ACCOUNT));
        // A token must not be sent where anybody can read it.
        if master.scheme() == Some(&http::uri::Scheme::HTTPS) && folder.join("token").exists() {
            let path = folder.to_owned();
            return of_kubeconfig(of_service_account(&master, folder))
                .await
                .map_err(|error| ConnectError::Kubeconfig { path, error });
        }
        return Ok(Access { config: Config::new(master), proxy: None, files: Vec::new(), by_cluster_ip: false });
    };
    let of_file = |error| ConnectError::Kubeconfig { path: path.clone(), error };
    let kubeconfig = Kubeconfig::read_from(path).map_err(of_file)?;
    let mut access = of_kubeconfig(kubeconfig).await.map_err(of_file)?;
    access.files.insert(0, path.clone());
    if let Some(master) = master {
        access.config.cluster_url = master;
    }
    Ok(access)
}

/// A kubeconfig for the pod's service account and a server that is named.
fn of_service_account(master: &http::Uri, folder: &Path) -> Kubeconfig {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists()).map(|path| path.display().to_string());
    let name = "service-account".to_owned();
    let cluster =
        Cluster { server: Some(master.to_string()), certificate_authority: file("ca.crt"), ..Cluster::default() };
    let user = AuthInfo { token_file: file("token"), ..AuthInfo::default() };
    let context = Context { cluster: name.clone(), user: Some(name.clone()), ..Context::default() };
    Kubeconfig {
        current_context: Some(name.clone()),
        clusters: vec![NamedCluster { name: name.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
        auth_infos: vec![NamedAuthInfo { name: name.clone(), auth_info: Some(user), ..NamedAuthInfo::default() }],
        contexts: vec![NamedContext { name, context: Some(context), ..NamedContext::default() }],
        ..Kubeconfig::default()
    }
}

async fn of_kubeconfig(mut kubeconfig: Kubeconfig) -> Result<Access, KubeconfigError> {
    let context = kubeconfig.contexts.iter().find(|named| Some(&named.name) == kubeconfig.current_context.as_ref());
    let name = context.and_then(|named| Some(named.context.as_ref()?.cluster.clone())).unwrap_or_default();
    let (mut proxy, mut files) = (None, Vec::new());
    for named in &mut kubeconfig.clusters {
        let Some(cluster) = &mut named.cluster else { continue };
        // kube reads the environment itself where there is none, without NO_PROXY.
        let own = cluster.proxy_url.replace("http://unused".to_owned()).filter(|url| !url.is_empty());
        if named.name == name {
            proxy = own;
            files.extend(cluster.certificate_authority.as_ref().map(PathBuf::from));
        }
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    let user = &config.auth_info;
    files.extend(
        [&user.client_certificate, &user.client_key, &user.token_file].into_iter().flatten().map(PathBuf::from),
    );
    Ok(Access { config, proxy, files, by_cluster_ip: false })
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
        let client = build(&config).await.unwrap().client;
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
