//! Certificates from files, as the TLS settings of servers and clients, which can be read again while they are used.
//!
//! Must not know: who uses them, what is said over them.
//!
//! A set of files is read as a whole: when one of them is wrong, what was read before stays.

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why certificates cannot be used. Names the file, never what is in it.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Not there, or not readable, or no PEM.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not fit, or an authority is none.
    #[error("{}: {error}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

/// Files of a server.
#[derive(Clone, Debug, Default)]
pub struct ServerFiles {
    /// Certificate chain, the server's own first (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Authorities of the certificates that clients show (PEM). `None`: clients are not asked.
    pub client_ca: Option<PathBuf>,
    /// Clients may come without a certificate.
    pub client_optional: bool,
    /// TLS 1.3 only.
    pub only_tls13: bool,
}

/// Files of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    /// Authorities of the servers' certificates (PEM). `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate and key to show, if servers ask for one (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Servers must be who their name says. Otherwise a certificate of an authority is enough.
    pub verifies_names: bool,
}

/// TLS settings of one side, and the files they come from.
#[derive(Debug)]
pub struct Reloadable<F, C> {
    files: F,
    current: ArcSwap<C>,
    seen: Mutex<Vec<Option<(SystemTime, u64)>>>,
}

/// The server side.
pub type ServerTls = Reloadable<ServerFiles, ServerConfig>;
/// The client side.
pub type ClientTls = Reloadable<ClientFiles, ClientConfig>;

/// What can be read as TLS settings.
pub trait Files {
    /// The settings.
    type Config;
    /// Reads all of them.
    ///
    /// # Errors
    /// The first that is wrong.
    fn read(&self) -> Result<Self::Config, TlsError>;
    /// The files.
    fn paths(&self) -> Vec<&Path>;
}

impl<F: Files> Reloadable<F, F::Config> {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn new(files: F) -> Result<Self, TlsError> {
        let seen = Mutex::new(stamps(&files));
        Ok(Self { current: ArcSwap::from_pointee(files.read()?), files, seen })
    }

    /// The settings now, for the next connection.
    pub fn current(&self) -> Arc<F::Config> {
        self.current.load_full()
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// [`TlsError`]; the settings are what they were.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.has_changed();
        self.current.store(Arc::new(self.files.read()?));
        Ok(())
    }

    /// True when a file is not what it was when this was last asked.
    pub fn has_changed(&self) -> bool {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, now.clone()) != now
    }
}

fn stamps(files: &impl Files) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &Path| {
        let about = std::fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    };
    files.paths().into_iter().map(stamp).collect()
}

impl Files for ServerFiles {
    type Config = ServerConfig;

    fn read(&self) -> Result<ServerConfig, TlsError> {
        let unfit = |path: &Path, error: String| TlsError::Unfit { path: path.to_owned(), error };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(self.only_tls13))
            .map_err(|error| unfit(&self.certificate, error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
                if self.client_optional {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(
                    verifier.build().map_err(|error| unfit(ca, error.to_string()))?,
                )
            }
        };
        builder
            .with_single_cert(certificates(&self.certificate)?, key(&self.key)?)
            .map_err(|error| unfit(&self.certificate, error.to_string()))
    }

    fn paths(&self) -> Vec<&Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path).collect()
    }
}

impl Files for ClientFiles {
    type Config = ClientConfig;

    fn read(&self) -> Result<ClientConfig, TlsError> {
        let place = || self.ca.clone().unwrap_or_else(|| "the system's certificates".into());
        let unfit = |error: String| TlsError::Unfit { path: place(), error };
        let roots = match &self.ca {
            Some(ca) => roots(ca)?,
            None => system_roots()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| unfit(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match self.verifies_names {
            true => verifier,
            false => Arc::new(AnyName(verifier)),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(false))
            .map_err(|error| unfit(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((certificate, private)) => builder
                .with_client_auth_cert(certificates(certificate)?, key(private)?)
                .map_err(|error| TlsError::Unfit { path: certificate.clone(), error: error.to_string() }),
        }
    }

    fn paths(&self) -> Vec<&Path> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(identity).map(PathBuf::as_path).collect()
    }
}

/// Opens TLS sessions to servers.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// The settings.
    pub tls: Arc<ClientTls>,
    /// The name that all servers are verified by; otherwise the host of their address.
    pub server_name: Option<String>,
}

impl Dialer {
    /// Shakes hands over a new connection to `addr` (`host:port`). Not cancel-safe: the connection is lost.
    ///
    /// # Errors
    /// When the other side is not who it should be, or speaks no TLS.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        addr: &str,
        stream: S,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>> {
        let name = server_name(addr, self.server_name.as_deref()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{addr} is no name to verify a certificate by"),
            )
        })?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.current());
        connector
            .connect(name, stream)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))
    }
}

/// The name by which a server at `addr` (`host:port`) is verified, unless one is given.
fn server_name(addr: &str, given: Option<&str>) -> Option<ServerName<'static>> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = given.unwrap_or(host).trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned()).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(only_tls13: bool) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    if only_tls13 { &ONLY_TLS13 } else { rustls::ALL_VERSIONS }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?.collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("holds no certificate in PEM".into())) } else { Ok(found) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        path: path.to_owned(),
        reason: format!("no private key in PEM: {error}"),
    })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::Unfit { path: path.to_owned(), error: error.to_string() })?;
    }
    Ok(store)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        let reason = "there are none; name the authority in a file".to_owned();
        return Err(TlsError::File { path: "the system's certificates".into(), reason });
    }
    Ok(store)
}

/// Accepts every certificate of its authorities, whoever it was made for: all else is verified.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is looked at after everything else (webpki's order), so that this error means: right but for the name.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A TLS session to a server that is believed whoever it is: for what may be told to anybody. `identity` are the certificate and
/// the key to show (PEM).
///
/// # Errors
/// When the files cannot be used.
pub fn unverified(
    addr: std::net::SocketAddr,
    identity: Option<(&Path, &Path)>,
    stream: std::net::TcpStream,
) -> io::Result<rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(false))
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider())));
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, private)) => builder
            .with_client_auth_cert(
                certificates(certificate).map_err(io::Error::other)?,
                key(private).map_err(io::Error::other)?,
            )
            .map_err(io::Error::other)?,
    };
    let session = rustls::ClientConnection::new(Arc::new(config), ServerName::IpAddress(addr.ip().into()));
    Ok(rustls::StreamOwned::new(session.map_err(io::Error::other)?, stream))
}

/// Accepts every certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
