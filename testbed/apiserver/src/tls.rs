//! TLS in front of the API server, with certificates that openssl makes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, ensure};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// A certificate authority, in a folder.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
    name: String,
}

impl Authority {
    /// Makes an authority of this name; its certificate and key are files of `folder`.
    ///
    /// # Errors
    /// If openssl is missing or fails.
    pub fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let authority = Self { folder: folder.to_owned(), name: name.to_owned() };
        authority.openssl(name, &["basicConstraints=critical,CA:TRUE"], &[])?;
        Ok(authority)
    }

    /// The file with the authority's certificate.
    pub fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.crt", self.name))
    }

    /// Issues a new certificate for 127.0.0.1, and returns it and its key as PEM.
    ///
    /// # Errors
    /// If openssl fails.
    pub fn issue(&self, name: &str) -> anyhow::Result<(String, String)> {
        let (certificate, key) = (format!("{}.crt", self.name), format!("{}.key", self.name));
        let name = format!("{name}-of-{}", self.name);
        let extensions = ["basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1"];
        self.openssl(&name, &extensions, &["-CA", &certificate, "-CAkey", &key])?;
        let read = |end: &str| std::fs::read_to_string(self.folder.join(format!("{name}.{end}")));
        Ok((read("crt")?, read("key")?))
    }

    fn openssl(&self, name: &str, extensions: &[&str], signer: &[&str]) -> anyhow::Result<()> {
        let extensions = extensions.iter().flat_map(|extension| ["-addext", extension]);
        let made = Command::new("openssl")
            .current_dir(&self.folder)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .args(extensions)
            .args(signer)
            .output()
            .context("openssl cannot be run")?;
        ensure!(made.status.success(), "openssl failed: {}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }
}

/// A server that speaks TLS and passes on what it receives, byte by byte. Clients that offer HTTP/2 get it, as from a real
/// API server, unless it is switched off.
#[derive(Debug)]
pub struct Terminator {
    _runtime: Runtime,
    address: SocketAddr,
    settings: Arc<Mutex<Settings>>,
}

#[derive(Debug)]
struct Settings {
    certificate: (String, String),
    clients: Option<PathBuf>,
    http2: bool,
    config: Arc<ServerConfig>,
}

impl Terminator {
    /// Serves `to` on a free port of 127.0.0.1 with a certificate of `servers`. Clients must have one of `clients`, if that
    /// is given.
    ///
    /// # Errors
    /// If there is no free port, or a certificate cannot be made or read.
    pub fn start(to: SocketAddr, servers: &Authority, clients: Option<&Authority>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (certificate, clients) = (servers.issue("server")?, clients.map(Authority::path));
        let config = config(&certificate, clients.as_deref(), true)?;
        let settings = Arc::new(Mutex::new(Settings { certificate, clients, http2: true, config }));
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let current = Arc::clone(&settings);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&lock(&current).config));
                tokio::spawn(async move {
                    if let Err(error) = pass_on(&acceptor, client, to).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
        });
        Ok(Self { _runtime: runtime, address, settings })
    }

    /// The URL that clients connect to.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From the next connection on, clients must have a certificate of this authority.
    ///
    /// # Errors
    /// If its certificate cannot be read.
    pub fn accept_only(&self, clients: &Authority) -> anyhow::Result<()> {
        self.change(|settings| settings.clients = Some(clients.path()))
    }

    /// From the next connection on, HTTP/2 is offered or not.
    ///
    /// # Errors
    /// None that [`Terminator::start`] did not have.
    pub fn offer_http2(&self, http2: bool) -> anyhow::Result<()> {
        self.change(|settings| settings.http2 = http2)
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) -> anyhow::Result<()> {
        let mut settings = lock(&self.settings);
        change(&mut settings);
        settings.config = config(&settings.certificate, settings.clients.as_deref(), settings.http2)?;
        Ok(())
    }
}

fn lock(settings: &Mutex<Settings>) -> MutexGuard<'_, Settings> {
    settings.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pass_on(acceptor: &TlsAcceptor, client: TcpStream, to: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    // A client that is refused is told so by an alert.
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

fn config(
    (certificate, key): &(String, String),
    clients: Option<&Path>,
    http2: bool,
) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(clients)?)?;
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?,
            )
        }
        None => builder.with_no_client_auth(),
    };
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let mut config = builder.with_single_cert(vec![certificate], key)?;
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
