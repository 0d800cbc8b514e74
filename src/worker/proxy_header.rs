//! The header that a load balancer puts before a connection to tell whom it is for: the PROXY protocol, versions 1 and 2.
//!
//! Must not know: what follows. Source: haproxy.org, "The PROXY protocol" (2020/03/05).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, its end included.
const LINE: usize = 107;
/// Most bytes of addresses and extensions in version 2; the addresses take 36 at most.
const EXTENSIONS: usize = 4096;

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a PROXY protocol header: {what}"))
}

/// Reads the header, and nothing behind it. The client's address; `None` when the load balancer speaks for itself.
///
/// # Errors
/// When there is none, or the connection ends.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return read_v2(stream).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(broken("unknown beginning"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE {
            return Err(broken("the line is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    parse_v1(&line)
}

fn parse_v1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let text = std::str::from_utf8(line).map_err(|_| broken("no text"))?;
    let words: Vec<&str> = text.trim_end_matches("\r\n").split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let ip: IpAddr = source.parse().map_err(|_| broken("no address"))?;
            let port: u16 = port.parse().map_err(|_| broken("no port"))?;
            if ip.is_ipv4() != (*family == "TCP4") {
                return Err(broken("an address of another family"));
            }
            Ok(Some((ip, port).into()))
        }
        _ => Err(broken("unknown words")),
    }
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let (version, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = usize::from(stream.read_u16().await?);
    if version >> 4 != 2 || length > EXTENSIONS {
        return Err(broken("unknown version, or too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    parse_v2(version & 0xf, family, &rest)
}

fn parse_v2(command: u8, family: u8, rest: &[u8]) -> io::Result<Option<SocketAddr>> {
    let port =
        |at: usize| -> Option<u16> { Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?)) };
    let addr = match (command, family) {
        (0, _) => return Ok(None),
        (1, 0x11) => {
            rest.first_chunk::<4>().and_then(|ip| Some(SocketAddr::from((Ipv4Addr::from(*ip), port(8)?))))
        }
        (1, 0x21) => {
            rest.first_chunk::<16>().and_then(|ip| Some(SocketAddr::from((Ipv6Addr::from(*ip), port(32)?))))
        }
        // Unix sockets and unspecified ones: there is no address to take.
        (1, 0x00 | 0x31) => return Ok(None),
        _ => return Err(broken("unknown command or family")),
    };
    addr.map(Some).ok_or_else(|| broken("too short for its addresses"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
mod tests {
    use super::*;

    fn parse(mut bytes: &[u8]) -> io::Result<(Option<SocketAddr>, usize)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let addr = runtime.block_on(read(&mut bytes))?;
        Ok((addr, bytes.len()))
    }

    fn v2(head: [u8; 2], rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &head, &(rest.len() as u16).to_be_bytes(), rest, b"PING"].concat()
    }

    #[test]
    fn headers_are_read_and_nothing_behind_them() {
        let four = [10, 1, 2, 3, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
        let mut six = [0; 36];
        (six[15], six[32]) = (1, 4);
        for (bytes, expected) in [
            (b"PROXY TCP4 10.1.2.3 10.0.0.1 8080 80\r\nPING".to_vec(), Some("10.1.2.3:8080")),
            (b"PROXY TCP6 ::1 ::2 7 80\r\nPING".to_vec(), Some("[::1]:7")),
            (b"PROXY UNKNOWN\r\nPING".to_vec(), None),
            (v2([0x21, 0x11], &four), Some("10.1.2.3:8080")),
            (v2([0x21, 0x11], &[&four[..], &[4, 0, 1, 9]].concat()), Some("10.1.2.3:8080")),
            (v2([0x21, 0x21], &six), Some("[::1]:1024")),
            (v2([0x20, 0x00], &[]), None),
        ] {
            let (addr, left) = parse(&bytes).unwrap();
            assert_eq!((addr.map(|addr| addr.to_string()).as_deref(), left), (expected, 4), "{bytes:?}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        for bytes in [
            &b"*1\r\n$4\r\nPING\r\n*1\r\n"[..],
            b"PROXY TCP4 10.1.2.3\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 99999 80\r\n",
            b"PROXY tcp4 10.1.2.3 10.0.0.1 9 80\r\n",
            b"PROXY",
            b"",
            &long,
            &v2([0x11, 0x11], &[0; 12]),
            &v2([0x21, 0x11], &[0; 3]),
            &v2([0x22, 0x11], &[0; 12]),
            &[&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat(),
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
