//! A wire that can be cut: forwards TCP to a server, until it is told not to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PASS: u8 = 0;
const FROZEN: u8 = 1;
const GARBAGE: u8 = 2;

/// The wire.
pub struct Wire {
    addr: std::net::SocketAddr,
    mode: Arc<AtomicU8>,
    /// Connections of an older generation are closed.
    generation: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, generation) = (Arc::new(AtomicU8::new(PASS)), Arc::new(AtomicU64::new(0)));
        let (m, g) = (mode.clone(), generation.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(forward(client_in, server_out, m.clone(), g.clone(), false));
                tokio::spawn(forward(server_in, client_out, m.clone(), g.clone(), true));
            }
        });
        Self { addr, mode, generation, task }
    }

    /// `url` with this wire in place of its host and port.
    pub fn url(&self, url: &str) -> String {
        let (head, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let user = authority.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        format!("{head}://{user}{}/{path}", self.addr)
    }

    /// Bytes stay where they are; nothing is closed.
    pub fn freeze(&self) {
        self.mode.store(FROZEN, Ordering::Relaxed);
    }

    /// What the server says is replaced by bytes that mean nothing.
    pub fn garble(&self) {
        self.mode.store(GARBAGE, Ordering::Relaxed);
    }

    pub fn pass(&self) {
        self.mode.store(PASS, Ordering::Relaxed);
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mode: Arc<AtomicU8>,
    generation: Arc<AtomicU64>,
    from_server: bool,
) {
    let born = generation.load(Ordering::Relaxed);
    let mut buffer = vec![0; 65_536];
    let alive = || generation.load(Ordering::Relaxed) == born;
    let tick = || tokio::time::sleep(std::time::Duration::from_millis(2));
    while alive() {
        let n = tokio::select! {
            n = from.read(&mut buffer) => n.unwrap_or(0),
            () = tick() => continue,
        };
        if n == 0 {
            return;
        }
        while mode.load(Ordering::Relaxed) == FROZEN && alive() {
            tick().await;
        }
        if !alive() {
            return;
        }
        if from_server && mode.load(Ordering::Relaxed) == GARBAGE {
            buffer[..n].iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 151 + 7) as u8);
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
