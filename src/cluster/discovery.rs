//! Asks the nodes of a cluster who owns what, and keeps asking.
//!
//! Must not know: who uses the answer.

use super::topology::{Topology, TopologyError};
use crate::command::Learned;
use crate::resp::{ReplyScanner, Scan, decode_reply, push_command};
use crate::tls::Dialer;
use redis_protocol::resp3::types::BytesFrame;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Most nodes asked in one round: enough that a minority cannot answer alone in clusters of ordinary size.
const ASKED_AT_MOST: usize = 9;
/// Longest `CLUSTER NODES` reply accepted, in bytes (1,000 nodes are about 200 KiB).
const REPLY_BYTES: usize = 16 << 20;
/// Least time between two rounds, however many redirects ask for one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Time between two rounds while an owner of slots is silent: its slots may get another owner at any moment.
const WATCHFUL: Duration = Duration::from_millis(300);
/// Once most nodes have answered, the others have this much longer: one that hangs must not hold the news back.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// How to reach the upstream.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// Seed addresses, `host:port`.
    pub seeds: Vec<String>,
    /// One plain Redis instead of a cluster.
    pub single: bool,
    /// User name for `AUTH`, if any.
    pub username: Option<String>,
    /// Password for `AUTH`, if any. Never printed.
    pub password: Option<crate::config::Secret>,
    /// How the nodes are reached over TLS, if they are.
    pub tls: Option<Dialer>,
    /// Bound on connecting, and on each question.
    pub connect_timeout: Duration,
    /// Time between two rounds when nothing asks for one.
    pub refresh_interval: Duration,
}

/// Why no topology could be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DiscoveryError {
    /// No seed answered; each with its reason.
    #[error(
        "no Redis node answers: {0}; start them, or correct [upstream] nodes in proxy.toml (or REDIS_NODES)"
    )]
    NoneAnswers(String),
    /// The seeds are plain servers.
    #[error(
        "{0} is a Redis server without cluster mode; set [upstream] mode = \"single\", or name the nodes of a cluster"
    )]
    NotACluster(String),
    /// The seed in `single` mode is a cluster node.
    #[error("{0} is a node of a Redis Cluster; set [upstream] mode = \"cluster\"")]
    IsACluster(String),
    /// The answers do not fit together.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

/// Learns the topology at start and refreshes it when told to, or every now and then.
#[derive(Debug)]
pub struct Discovery {
    options: UpstreamOptions,
    current: watch::Sender<Arc<Topology>>,
    wanted: Arc<Notify>,
    version: String,
    learned: Arc<Learned>,
}

impl Discovery {
    /// Asks the seeds once.
    ///
    /// # Errors
    /// [`DiscoveryError`] when no node answers, or the cluster has slots without an owner.
    pub async fn start(options: UpstreamOptions) -> Result<Self, DiscoveryError> {
        let topology = ask(&options, None).await?.topology;
        topology.complete()?;
        let addr = topology.owner_addr(0).unwrap_or_default().to_owned();
        let info = question(&addr, &options, &[b"INFO", b"server"])
            .await
            .map_err(|reason| DiscoveryError::NoneAnswers(format!("{addr}: {reason}")))?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("7.0.0");
        let version = version.trim().to_owned();
        let learned = learn(&addr, &options).await;
        let current = watch::Sender::new(Arc::new(topology));
        Ok(Self { options, current, wanted: Arc::default(), version, learned: Arc::new(learned) })
    }

    /// The version of the servers, as one of them gave it at start.
    pub fn server_version(&self) -> &str {
        &self.version
    }

    /// Commands of the servers that the command table does not know, as one of them gave them at start.
    pub fn learned(&self) -> Arc<Learned> {
        self.learned.clone()
    }

    /// The topology, now and after each change.
    pub fn watch(&self) -> watch::Receiver<Arc<Topology>> {
        self.current.subscribe()
    }

    /// Notify this to have the topology refreshed soon.
    pub fn refresh_handle(&self) -> Arc<Notify> {
        self.wanted.clone()
    }

    /// Refreshes until `stop`, and tells `report` how each round went, and `moving` which slots are about to have another owner,
    /// before anybody else hears of it. Cancel-safe.
    pub async fn run(
        self,
        stop: CancellationToken,
        moving: impl Fn(&[u16]),
        report: impl Fn(Result<(), String>),
    ) {
        let mut pause = self.options.refresh_interval;
        let mut problem = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let known = self.current.borrow().clone();
            let round = self.refresh(&known, &moving).await;
            pause = match round {
                Ok(true) => self.options.refresh_interval,
                Ok(false) | Err(_) => WATCHFUL.min(self.options.refresh_interval),
            };
            let failure = round.err();
            if let Some(error) = failure.as_ref().filter(|_| failure != problem) {
                tracing::warn!(%error, "cannot refresh the topology; keeping the one known before");
            }
            report(failure.as_ref().map_or(Ok(()), |error| Err(error.to_string())));
            problem = failure;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DEBOUNCE) => {}
            }
        }
    }
}

impl Discovery {
    /// One round; false when an owner of slots that was asked did not answer. A topology with slots that nobody owns (a failover runs) is not
    /// taken: better the old owner than none.
    async fn refresh(&self, known: &Arc<Topology>, moving: impl Fn(&[u16])) -> Result<bool, DiscoveryError> {
        let Round { topology, silent } = ask(&self.options, Some(known)).await?;
        topology.complete()?;
        let whole = !topology.nodes().iter().any(|node| silent.contains(&*node.addr));
        if topology != **known {
            let moved = known.moved_slots(&topology);
            moving(&moved);
            tracing::info!(
                moved_slots = moved.len(),
                nodes = topology.nodes().len(),
                "the topology has changed"
            );
            self.current.send_replace(Arc::new(topology));
        }
        Ok(whole)
    }
}

/// What one round of questions gave.
struct Round {
    topology: Topology,
    /// Nodes that were asked and did not answer.
    silent: BTreeSet<String>,
}

/// Asks the known nodes and the seeds, all at once, and merges what they say.
async fn ask(options: &UpstreamOptions, known: Option<&Topology>) -> Result<Round, DiscoveryError> {
    if options.single {
        return ask_single(options).await;
    }
    let known = known.into_iter().flat_map(|t| t.nodes().iter().map(|node| node.addr.to_string()));
    let addrs: BTreeSet<String> = known.chain(options.seeds.iter().cloned()).take(ASKED_AT_MOST).collect();
    let mut round = tokio::task::JoinSet::new();
    for addr in addrs.clone() {
        let options = options.clone();
        round.spawn(async move {
            let answer = question(&addr, &options, &[b"CLUSTER", b"NODES"]).await;
            (addr, answer)
        });
    }
    let asked = round.len();
    let mut views: BTreeMap<String, String> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut end = None;
    loop {
        if end.is_none() && views.len() * 2 > asked {
            end = Some(Instant::now() + STRAGGLERS);
        }
        let answer = match end {
            None => round.join_next().await,
            Some(end) => timeout_at(end, round.join_next()).await.unwrap_or(None),
        };
        match answer {
            None => break,
            Some(Ok((addr, Ok(text)))) => {
                views.insert(addr, text);
            }
            Some(Ok((addr, Err(reason)))) if reason.contains("cluster support disabled") => {
                return Err(DiscoveryError::NotACluster(addr));
            }
            Some(Ok((addr, Err(reason)))) => failures.push(format!("{addr}: {reason}")),
            Some(Err(panicked)) => failures.push(panicked.to_string()),
        }
    }
    if views.is_empty() {
        failures.sort();
        return Err(DiscoveryError::NoneAnswers(failures.join("; ")));
    }
    let topology = Topology::from_views(views.iter().map(|(addr, text)| (addr.as_str(), text.as_str())))?;
    let silent = addrs.into_iter().filter(|addr| !views.contains_key(addr)).collect();
    Ok(Round { topology, silent })
}

async fn ask_single(options: &UpstreamOptions) -> Result<Round, DiscoveryError> {
    let addr = options.seeds.first().cloned().unwrap_or_default();
    let info = question(&addr, options, &[b"INFO", b"cluster"])
        .await
        .map_err(|reason| DiscoveryError::NoneAnswers(format!("{addr}: {reason}")))?;
    if info.contains("cluster_enabled:1") {
        return Err(DiscoveryError::IsACluster(addr));
    }
    Ok(Round { topology: Topology::single(&addr), silent: BTreeSet::new() })
}

/// Asks a node which commands there are. One that does not say serves those of the table.
async fn learn(addr: &str, options: &UpstreamOptions) -> Learned {
    match question_raw(addr, options, &[b"COMMAND"]).await {
        Ok(reply) => {
            let learned = Learned::new(&reply);
            if !learned.is_empty() {
                tracing::info!(commands = learned.len(), "the servers have commands beyond the table");
            }
            learned
        }
        Err(reason) => {
            tracing::warn!(
                node = addr,
                reason,
                "cannot ask for the servers' commands; using the table alone"
            );
            Learned::default()
        }
    }
}

/// Asks one node one question over a connection of its own; the answer's text, or why there is none.
pub(super) async fn question(
    addr: &str,
    options: &UpstreamOptions,
    command: &[&[u8]],
) -> Result<String, String> {
    match question_raw(addr, options, command).await? {
        BytesFrame::BlobString { data, .. } | BytesFrame::VerbatimString { data, .. } => {
            Ok(String::from_utf8_lossy(&data).into_owned())
        }
        _ => Err("unexpected reply".into()),
    }
}

async fn question_raw(
    addr: &str,
    options: &UpstreamOptions,
    command: &[&[u8]],
) -> Result<BytesFrame, String> {
    let asking = async {
        let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
        match &options.tls {
            None => converse(stream, options, command).await,
            Some(dialer) => {
                let stream = dialer.connect(addr, stream).await.map_err(|e| e.to_string())?;
                converse(stream, options, command).await
            }
        }
    };
    timeout(options.connect_timeout, asking)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {:?}", options.connect_timeout)))
}

/// Logs in where that is needed, and asks.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    options: &UpstreamOptions,
    command: &[&[u8]],
) -> Result<BytesFrame, String> {
    let mut reader = ReplyReader::default();
    if let Some(password) = &options.password {
        let mut auth: Vec<&[u8]> = vec![b"AUTH"];
        auth.extend(options.username.as_deref().map(str::as_bytes));
        auth.push(password.expose().as_bytes());
        reader.ask(&mut stream, &auth).await?;
    }
    reader.ask(&mut stream, command).await
}

/// Reads whole replies off one connection.
#[derive(Default)]
struct ReplyReader {
    buf: Vec<u8>,
    scanner: ReplyScanner,
}

impl ReplyReader {
    async fn ask(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        command: &[&[u8]],
    ) -> Result<BytesFrame, String> {
        let mut request = Vec::new();
        push_command(&mut request, command.iter().copied());
        stream.write_all(&request).await.map_err(|e| e.to_string())?;
        loop {
            match self.scanner.scan(&self.buf).map_err(|e| e.to_string())? {
                Scan::Complete(end) => {
                    let frame = decode_reply(&self.buf[..end]).map_err(|e| e.to_string())?;
                    self.buf.drain(..end);
                    return match frame {
                        BytesFrame::SimpleError { data, .. } => Err(data.to_string()),
                        frame => Ok(frame),
                    };
                }
                Scan::Incomplete(_) if self.buf.len() > REPLY_BYTES => return Err("reply too long".into()),
                Scan::Incomplete(_) => {}
            }
            if stream.read_buf(&mut self.buf).await.map_err(|e| e.to_string())? == 0 {
                return Err("connection closed".into());
            }
        }
    }
}
