//! The ways in beside the plain port, and the way to the nodes over TLS: listeners, certificates, networks.
//!
//! Must not know: who comes in.

use super::{StartError, StartErrors};
use crate::config::{Config, TlsVersion};
use crate::metrics::SecurityMetrics;
use crate::tls::{ClientFiles, ClientTls, Dialer, ServerFiles, ServerTls, TlsError};
use crate::worker::{Networks, bind, bind_unix};
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Where TLS clients come.
type TlsDoor = (tokio::net::TcpListener, Arc<ServerTls>);
/// Where clients of this machine come, and its path.
type UnixDoor = (tokio::net::UnixListener, String);

/// Listeners beside the plain one.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// TLS.
    pub tls: Option<(TcpListener, Arc<ServerTls>)>,
    /// The Unix socket and its path.
    pub unix: Option<(UnixListener, String)>,
    /// Certificates of the HTTP port, if it speaks TLS.
    pub http: Option<Arc<ServerTls>>,
    /// How nodes are reached over TLS, if they are.
    pub dialer: Option<Dialer>,
}

/// Has the proxy of this configuration take no clients.
pub(super) fn close(config: &mut Config) {
    config.server.plain = false;
    config.server.unix_socket = None;
    config.tls.listen = None;
    config.http.enabled = false;
}

impl Doors {
    /// Reads certificates and opens the listeners.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn open(config: &Config) -> Result<Self, StartErrors> {
        let tls = match config.tls.listen {
            None => None,
            Some(addr) => {
                let tls = Arc::new(server_tls(config)?);
                Some((bind(addr, "[tls] listen, or DSPROXY_TLS_LISTEN")?, tls))
            }
        };
        let unix = match &config.server.unix_socket {
            None => None,
            Some(path) => {
                // The configuration has checked the digits.
                let mode = u32::from_str_radix(&config.server.unix_socket_mode, 8).unwrap_or(0o700);
                Some((bind_unix(Path::new(path), mode)?, path.clone()))
            }
        };
        Ok(Self { tls, unix, http: http_tls(config)?, dialer: dialer(config)? })
    }

    /// The listeners, under the event loop.
    ///
    /// # Errors
    /// The system's.
    pub fn listeners(self) -> std::io::Result<(Option<TlsDoor>, Option<UnixDoor>)> {
        let tls = self.tls.map(|(listener, tls)| {
            listener.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((tokio::net::TcpListener::from_std(listener)?, tls))
        });
        let unix = self.unix.map(|(listener, path)| {
            Ok::<_, std::io::Error>((tokio::net::UnixListener::from_std(listener)?, path))
        });
        Ok((tls.transpose()?, unix.transpose()?))
    }

    /// Reads certificates again on SIGHUP, and when one of their files has changed. Cancel-safe.
    pub fn keep_fresh(
        &self,
        config: &Config,
        metrics: Arc<SecurityMetrics>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let clients = self.tls.as_ref().map(|(_, tls)| ("clients", tls.clone()));
        let servers: Vec<_> = clients.into_iter().chain(self.http.clone().map(|tls| ("http", tls))).collect();
        let client = self.dialer.as_ref().map(|dialer| dialer.tls.clone());
        let interval = config.tls.reload_interval;
        async move {
            use tokio::signal::unix::{SignalKind, signal};
            // Without certificates SIGHUP is taken, too: whoever sends it to all proxies ends none of them.
            let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
            loop {
                let asked = tokio::select! {
                    () = stop.cancelled() => return,
                    _ = hangup.recv() => true,
                    () = tokio::time::sleep(interval), if !interval.is_zero() => false,
                };
                let report = |side: &str, outcome: Result<(), TlsError>| {
                    metrics.reloaded(outcome.is_ok());
                    match outcome {
                        Ok(()) => tracing::info!(side, "certificates were read again"),
                        Err(error) => {
                            tracing::error!(side, %error, "cannot read certificates again; those read before stay");
                        }
                    }
                };
                for (side, server) in servers.iter().filter(|(_, server)| server.has_changed() || asked) {
                    report(side, server.reload());
                }
                if let Some(client) = client.as_ref().filter(|client| client.has_changed() || asked) {
                    report("nodes", client.reload());
                }
            }
        }
    }
}

fn server_tls(config: &Config) -> Result<ServerTls, StartErrors> {
    let tls = &config.tls;
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        let text = "tls.listen is set without tls.certificate and tls.key: name both files";
        return Err(StartError::Access(text.to_owned()).into());
    };
    let files = ServerFiles {
        certificate: certificate.into(),
        key: key.into(),
        client_ca: tls.client_ca.as_ref().map(Into::into),
        client_optional: tls.client_optional,
        only_tls13: tls.min_version == TlsVersion::V13,
    };
    ServerTls::new(files).map_err(|error| StartError::Access(format!("[tls]: {error}")).into())
}

/// Certificates of the HTTP port; the configuration has checked that both files are named.
fn http_tls(config: &Config) -> Result<Option<Arc<ServerTls>>, StartErrors> {
    let http = &config.http;
    let (Some(certificate), Some(key)) = (&http.tls_certificate, &http.tls_key) else { return Ok(None) };
    let files = ServerFiles {
        certificate: certificate.into(),
        key: key.into(),
        client_ca: http.tls_client_ca.as_ref().map(Into::into),
        client_optional: false,
        only_tls13: config.tls.min_version == TlsVersion::V13,
    };
    let tls = ServerTls::new(files).map_err(|error| StartError::Access(format!("[http] tls: {error}")))?;
    Ok(Some(Arc::new(tls)))
}

/// How nodes are reached over TLS, if they are.
///
/// # Errors
/// Certificates that are not right.
pub(super) fn dialer(config: &Config) -> Result<Option<Dialer>, StartErrors> {
    let upstream = &config.upstream;
    if !upstream.tls {
        return Ok(None);
    }
    let identity = match (&upstream.tls_certificate, &upstream.tls_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        _ => {
            let text = "upstream.tls_certificate and upstream.tls_key go together: name both files";
            return Err(StartError::Access(text.to_owned()).into());
        }
    };
    let files = ClientFiles {
        ca: upstream.tls_ca.as_ref().map(Into::into),
        identity,
        verifies_names: upstream.tls_verify_names,
    };
    let tls =
        ClientTls::new(files).map_err(|error| StartError::Access(format!("[upstream] tls: {error}")))?;
    Ok(Some(Dialer { tls: Arc::new(tls), server_name: upstream.tls_server_name.clone() }))
}

/// From where clients may come.
pub(super) fn networks(config: &Config) -> Networks {
    // The configuration has checked each.
    let parse = |list: &[String]| {
        let parse = |text: &String| text.parse().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()));
        list.iter().filter_map(parse).collect()
    };
    Networks { allow: parse(&config.server.allow), proxy_protocol: parse(&config.server.proxy_protocol) }
}
