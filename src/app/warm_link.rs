//! The connection of `dsproxy warm` to the proxy: TCP, TLS, or the Unix socket.
//!
//! Must not know: which rows are loaded, and how far that is.

use super::probe::reachable;
use crate::config::Config;
use crate::resp::{ReplyScanner, Scan, push_command};
use crate::tls::{ClientFiles, ClientTls, Dialer};
use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Where the proxy is, and as whom one comes.
#[derive(Clone, Debug, clap::Args)]
pub struct LinkOptions {
    /// The proxy [default: server.listen of the configuration, or where that is off, its Unix socket or TLS port]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "socket")]
    pub address: Option<SocketAddr>,
    /// The proxy's Unix socket
    #[arg(long, value_name = "PATH", conflicts_with = "tls")]
    pub socket: Option<PathBuf>,
    /// Speak TLS [default address: tls.listen of the configuration]
    #[arg(long)]
    pub tls: bool,
    /// Authorities of the proxy's certificate (PEM) [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Certificate to show (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// User to log in as, with the password in REDISCLI_AUTH [default: the user default, with that or server.password]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// Where the proxy is asked.
#[derive(Clone, Debug)]
pub enum Place {
    /// Without TLS.
    Plain(SocketAddr),
    /// Over TLS.
    Tls(SocketAddr),
    /// Over a Unix socket.
    Unix(PathBuf),
}

impl Place {
    /// As asked for, else the first door of the configuration that is open.
    pub(super) fn of(config: &Config, options: &LinkOptions) -> Self {
        let tls = config.tls.listen.map(reachable);
        let unix = config.server.unix_socket.as_ref().map(PathBuf::from);
        match (&options.socket, options.address, tls, unix) {
            (Some(path), ..) => Self::Unix(path.clone()),
            (None, Some(address), ..) if options.tls => Self::Tls(address),
            (None, Some(address), ..) => Self::Plain(address),
            (None, None, Some(tls), _) if options.tls => Self::Tls(tls),
            (None, None, _, Some(path)) if !config.server.plain => Self::Unix(path),
            (None, None, Some(tls), None) if !config.server.plain => Self::Tls(tls),
            _ => Self::Plain(reachable(config.server.listen)),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "{address} (TLS)"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that has logged in.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    scanner: ReplyScanner,
    received: Vec<u8>,
}

impl Link {
    /// Connects and logs in, within the connect timeout of the upstream each.
    pub(super) async fn connect(place: &Place, config: &Config, options: &LinkOptions) -> io::Result<Self> {
        let limit = config.upstream.connect_timeout;
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        let stream = timeout(limit, dial(place, options)).await.unwrap_or_else(late)?;
        let mut link = Self { stream, scanner: ReplyScanner::default(), received: Vec::new() };
        let given = std::env::var("REDISCLI_AUTH").ok();
        let own = config.server.password.as_ref().map(|password| password.expose().to_owned());
        let mut request = Vec::new();
        match (&options.user, given.or(own)) {
            (Some(user), password) => {
                push_command(
                    &mut request,
                    [&b"AUTH"[..], user.as_bytes(), password.unwrap_or_default().as_bytes()],
                );
            }
            (None, Some(password)) => push_command(&mut request, [&b"AUTH"[..], password.as_bytes()]),
            (None, None) => push_command(&mut request, [&b"PING"[..]]),
        }
        let greeted = timeout(limit, link.ask(&request, 1)).await;
        greeted.unwrap_or_else(|_| Err("it does not answer".to_owned())).map_err(io::Error::other)?;
        Ok(link)
    }

    /// Sends `request`, reads `count` replies; the first that is an error is one.
    pub(super) async fn ask(&mut self, request: &[u8], mut count: usize) -> Result<(), String> {
        let sent = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| error.to_string())?;
        let mut refused = None;
        while count > 0 {
            match self.scanner.scan(&self.received).map_err(|error| error.to_string())? {
                Scan::Complete(length) => {
                    let reply: Vec<u8> = self.received.drain(..length).collect();
                    self.scanner = ReplyScanner::default();
                    if reply.first() == Some(&b'-') {
                        refused.get_or_insert(
                            String::from_utf8_lossy(&reply).trim_matches(['-', '\r', '\n']).to_owned(),
                        );
                    }
                    count -= 1;
                }
                Scan::Incomplete(_) => {
                    let read =
                        self.stream.read_buf(&mut self.received).await.map_err(|error| error.to_string())?;
                    if read == 0 {
                        return Err("the proxy has closed the connection".to_owned());
                    }
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

async fn dial(place: &Place, options: &LinkOptions) -> io::Result<Box<dyn Stream>> {
    Ok(match place {
        Place::Plain(address) => Box::new(TcpStream::connect(address).await?),
        Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Place::Tls(address) => {
            let files = ClientFiles {
                ca: options.cacert.clone(),
                identity: options.cert.clone().zip(options.key.clone()),
                verifies_names: true,
            };
            let tls = Arc::new(ClientTls::new(files).map_err(io::Error::other)?);
            let dialer = Dialer { tls, server_name: None };
            let stream = TcpStream::connect(address).await?;
            Box::new(dialer.connect(&address.to_string(), stream).await?)
        }
    })
}
