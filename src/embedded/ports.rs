//! Free TCP ports on 127.0.0.1.
//!
//! Must not know: who listens on them.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Below Linux' range for outgoing connections (32768..): a port of a stopped server stays free until it is started
/// again, because no passing connection is given it.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// What one process keeps reserved; with more, the oldest are given up.
const RESERVED: usize = 256;

/// A port that this process was given. Its server may be down for a while: no other process of this program is given the
/// port meanwhile, because the name of this socket is taken. The kernel frees it with the process, whatever ends that.
type Reservation = UnixListener;

static RESERVATIONS: Mutex<VecDeque<Reservation>> = Mutex::new(VecDeque::new());

/// Picks `count` different ports that are free now, and reserves them for as long as this process lives.
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
        let Ok(reservation) = reserve(port) else { continue };
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener, reservation));
        }
    }
    if held.len() < count {
        return Err(io::Error::other("no free port on 127.0.0.1 between 12000 and 31999"));
    }
    let mut reservations = RESERVATIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let ports = held.into_iter().map(|(port, _, reservation)| {
        reservations.push_back(reservation);
        port
    });
    let ports = ports.collect();
    let surplus = reservations.len().saturating_sub(RESERVED);
    reservations.drain(..surplus);
    Ok(ports)
}

/// Takes the abstract name that stands for `port`: like ports, such names belong to the network namespace.
fn reserve(port: u16) -> io::Result<Reservation> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("dsproxy-port-{port}"))?)
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

    #[test]
    fn the_port_of_a_server_that_is_down_is_given_to_nobody_else() {
        let ports = free_ports(1).unwrap_or_default();
        assert!(ports.len() == 1 && ports.iter().all(|port| reserve(*port).is_err() && is_free(*port)));
    }
}
