//! The URLs of databases, and what one of Postgres says about TLS, in the words of libpq.
//!
//! Must not know: how TLS is spoken.
//!
//! `sslmode`, `sslrootcert`, `sslcert` and `sslkey` are taken out of the query; the rest of the URL is the driver's.

use std::path::PathBuf;

use super::kind::Text;

/// How much a connection is protected (libpq's `sslmode`, without `allow`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server has it; the certificate is not checked.
    Prefer,
    /// TLS; the certificate is not checked.
    Require,
    /// TLS; the certificate must come from a known authority.
    VerifyCa,
    /// As `VerifyCa`, and it must be for the host of the URL.
    VerifyFull,
}

/// The TLS of a Postgres URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTls {
    /// How much is protected and checked.
    pub mode: SslMode,
    /// PEM file of authorities; `None` = those of the system.
    pub root_cert: Option<PathBuf>,
    /// PEM file of the client's certificate, and of its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Splits `url` into what the driver understands and the TLS that is asked for; `None` when a value is not known, or a
/// certificate has no key.
pub fn split(url: &str) -> Option<(String, PostgresTls)> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut root, mut cert, mut key) = (None, None, None, None);
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let path = || decoded(value).filter(|path| !path.is_empty()).map(PathBuf::from);
        match name {
            "sslmode" => mode = Some(parse_mode(value)?),
            "sslrootcert" => root = Some(path()?),
            "sslcert" => cert = Some(path()?),
            "sslkey" => key = Some(path()?),
            _ => rest.push(pair),
        }
    }
    let client = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => return None,
    };
    // As libpq: `system` names the system's authorities; a named file is checked against even where only TLS is required.
    let root_cert = root.filter(|path| path != "system");
    let mode = match mode.unwrap_or(SslMode::Prefer) {
        SslMode::Require if root_cert.is_some() => SslMode::VerifyCa,
        mode => mode,
    };
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Some((url, PostgresTls { mode, root_cert, client }))
}

fn parse_mode(text: &str) -> Option<SslMode> {
    Some(match text {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return None,
    })
}

/// Percent-decoded text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).map(|digit| digit as u8);
        bytes.push(match byte {
            b'%' => digit(rest.next())? << 4 | digit(rest.next())?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A read replica.
pub(super) const REPLICA_URL: Text = Text {
    expects: "postgres://user:password@host:port/database",
    example: "postgres://postgres@127.0.0.1:5433/postgres",
    check: |text| {
        (text.starts_with("postgres://") || text.starts_with("postgresql://")) && split(text).is_some()
    },
};

/// A database.
pub(super) const DATABASE_URL: Text = Text {
    expects: "postgres://user:password@host:port/database (special characters of user and password percent-encoded), or sqlite:path/to/file.db",
    example: "postgres://postgres@127.0.0.1:5432/postgres",
    check: |text| {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return !path.trim_start_matches('/').is_empty() && !path.contains([':', '\0']);
        }
        (text.starts_with("postgres://") || text.starts_with("postgresql://"))
            && split(text).is_some_and(|(url, _)| {
                url.parse::<tokio_postgres::Config>().is_ok_and(|config| !config.get_hosts().is_empty())
            })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_taken_out_of_the_query() {
        let (url, tls) =
            split("postgres://u@h/d?sslmode=verify-full&application_name=x&sslrootcert=%2Fa%20b").unwrap();
        assert_eq!(url, "postgres://u@h/d?application_name=x");
        assert_eq!((tls.mode, tls.root_cert), (SslMode::VerifyFull, Some("/a b".into())));
        assert_eq!(split("postgres://h/d").unwrap().1.mode, SslMode::Prefer);
        assert_eq!(split("postgres://h/d?sslmode=require&sslrootcert=ca").unwrap().1.mode, SslMode::VerifyCa);
        assert_eq!(
            split("postgres://h/d?sslmode=require&sslrootcert=system").unwrap().1.mode,
            SslMode::Require
        );
        for bad in ["sslmode=allow", "sslcert=a", "sslkey=a", "sslrootcert=", "sslrootcert=%zz"] {
            assert_eq!(split(&format!("postgres://h/d?{bad}")), None, "{bad}");
        }
    }
}
