//! TLS in front of the test API server, with certificates that openssl makes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

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
pub(crate) struct Authority {
    folder: PathBuf,
    name: String,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let authority = Self { folder: folder.to_owned(), name: name.to_owned() };
        authority.openssl(name, &["basicConstraints=critical,CA:TRUE"], &[]);
        authority
    }

    /// The file with its certificate.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.crt", self.name))
    }

    /// A new certificate for 127.0.0.1 and its key, as PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let (certificate, key) = (format!("{}.crt", self.name), format!("{}.key", self.name));
        let name = format!("{name}-of-{}", self.name);
        let extensions = ["basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1"];
        self.openssl(&name, &extensions, &["-CA", &certificate, "-CAkey", &key]);
        let read = |end: &str| std::fs::read_to_string(self.folder.join(format!("{name}.{end}"))).unwrap();
        (read("crt"), read("key"))
    }

    fn openssl(&self, name: &str, extensions: &[&str], signer: &[&str]) {
        let extensions = extensions.iter().flat_map(|extension| ["-addext", extension]);
        let made = Command::new("openssl")
            .current_dir(&self.folder)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .args(extensions)
            .args(signer)
            .output()
            .expect("openssl is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

/// A server that speaks TLS and passes on what it hears.
pub(crate) struct Terminator {
    _runtime: Runtime,
    address: SocketAddr,
    certificate: (String, String),
    config: Arc<Mutex<Arc<ServerConfig>>>,
}

impl Terminator {
    /// Serves `to` with a certificate of `servers`. Clients must have one of `clients`, if that is given.
    pub(crate) fn start(to: SocketAddr, servers: &Authority, clients: Option<&Authority>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let certificate = servers.issue("server");
        let config = Arc::new(Mutex::new(config(&certificate, clients)));
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let current = Arc::clone(&config);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&current.lock().unwrap()));
                tokio::spawn(async move {
                    // A client that is refused has been told so by an alert.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { _runtime: runtime, address, certificate, config }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From the next connection on, clients must have a certificate of this authority.
    pub(crate) fn accept_only(&self, clients: &Authority) {
        *self.config.lock().unwrap() = config(&self.certificate, Some(clients));
    }
}

fn config((certificate, key): &(String, String), clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(clients.path()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}
