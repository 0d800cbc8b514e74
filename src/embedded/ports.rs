//! Free TCP ports on 127.0.0.1.
//!
//! Must not know: who listens on them.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below Linux' range for outgoing connections (32768..): a port of a stopped server stays free until it is started
/// again, because no passing connection is given it.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// Picks `count` different ports that are free now.
///
/// # Errors
/// When the range holds no more free ports.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let span = RANGE.end - RANGE.start;
    let seed = super::random_bytes::<2>()?;
    let start = u16::from_le_bytes(seed) % span;
    // All are held until all are found, so that no port is found twice.
    let mut held = Vec::with_capacity(count);
    for offset in 0..span {
        if held.len() == count {
            break;
        }
        let port = RANGE.start + ((u32::from(start) + u32::from(offset)) % u32::from(span)) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        return Err(io::Error::other("no free port on 127.0.0.1 between 12000 and 31999"));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

/// True when somebody could listen on `port` now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let mut ports = free_ports(8).unwrap_or_default();
        assert!(ports.iter().all(|port| is_free(*port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }
}
