//! `dsproxy health`: asks a running proxy how it is, for containers and service managers that have no HTTP client.
//!
//! Must not know: how the answer comes about.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

use crate::config::HttpConfig;
use crate::tls::unverified;

/// Bytes of an answer that are looked at.
const ANSWER_BYTES: u64 = 64 << 10;

/// Why a proxy is not called healthy.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Nobody answers.
    #[error("no answer from http://{0}: {1}")]
    Away(SocketAddr, std::io::Error),
    /// It answers that it is not.
    #[error("http://{address}{path} answers: {answer}")]
    Unhealthy {
        /// Where it was asked.
        address: SocketAddr,
        /// What it was asked.
        path: &'static str,
        /// Its answer, without the headers.
        answer: String,
    },
}

/// Asks the proxy with this HTTP side whether it lives (`ready`: whether it can serve, too), for at most `timeout` per step.
/// Whoever answers is believed: nothing is told to it. Where clients must show a certificate, the proxy's own is shown.
///
/// # Errors
/// When it does not, or does not say so in time.
pub fn probe(http: &HttpConfig, ready: bool, timeout: Duration) -> Result<(), ProbeError> {
    let address = reachable(http.listen);
    let path = if ready { "/health/ready" } else { "/health/live" };
    let answer = ask(http, address, path, timeout).map_err(|error| ProbeError::Away(address, error))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or(&*answer, |(_, body)| body).trim().to_owned();
    Err(ProbeError::Unhealthy { address, path, answer: body })
}

/// "All addresses" is one to listen on, not one to connect to.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(http: &HttpConfig, address: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    match (&http.tls_certificate, &http.tls_key) {
        (Some(certificate), Some(key)) => {
            let shown = http.tls_client_ca.is_some().then(|| (Path::new(certificate), Path::new(key)));
            exchange(unverified(address, shown, stream)?, address, path)
        }
        _ => exchange(stream, address, path),
    }
}

fn exchange(mut stream: impl Read + Write, address: SocketAddr, path: &str) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
