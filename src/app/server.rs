//! The proxy as a whole: listeners, workers, the back runtime's services, and their end.
//!
//! Must not know: the command line.

use super::data::{self, Data};
use super::doors::{self, Doors};
use super::threads::{HttpThreads, Inbox, WorkerEnd, channels, join};
use super::{StartError, StartErrors, eviction, facade, security};
use crate::cluster::{Discovery, Gateway, UpstreamOptions};
use crate::command::{self, Command, ID_COUNT};
use crate::config::{Config, Live, UpstreamMode};
use crate::core::{About, Access, Commons, CoreOptions, DataSide, Process, ScriptStore, UpstreamAuth};
use crate::health::{Condition, Dependency, Health};
use crate::http::{self, Backend, HttpState, Site};
use crate::metrics::Metrics;
use crate::metrics::worker::{WorkerCollector, WorkerStats};
use crate::resp::RequestLimits;
use crate::tls::Dialer;
use crate::worker::{self, Acceptor, WorkerParts};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the proxy listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// RESP, unless switched off.
    pub resp: Option<SocketAddr>,
    /// HTTP, unless switched off.
    pub http: Option<SocketAddr>,
    /// RESP over TLS, if configured.
    pub tls: Option<SocketAddr>,
}

/// A running proxy.
pub struct Server {
    addresses: Addresses,
    health: Arc<Health>,
    drain_timeout: Duration,
    shutdown_timeout: Duration,
    /// No new clients; those there are closed once answered.
    drain: CancellationToken,
    /// Everything that is left ends now.
    stop: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    /// The threads of HTTP, which outlive the answers that are under way when `stop` comes.
    http: HttpThreads,
    dialer: Option<Dialer>,
    stats: Vec<Arc<WorkerStats>>,
    tasks: TaskTracker,
    data: Option<Data>,
}

impl Server {
    /// Binds, connects, checks and starts everything. On return clients are served.
    ///
    /// # Errors
    /// Every reason why it cannot start; nothing runs then.
    pub async fn start(config: &Config) -> Result<Self, StartErrors> {
        let (resp, http) = listen(config)?;
        let doors = Doors::open(config)?;
        let auth = http::Auth::new(&config.auth).map_err(|text| StartErrors(vec![StartError::Http(text)]))?;
        let health = Arc::new(Health::new());
        let metrics = Arc::new(Metrics::new());
        let count = config.server.worker_count();
        let (gateway, ends, inboxes) = channels(count, config.http.thread_count(), config.mappings.len());
        let (discovery, data) = tokio::join!(
            Discovery::start(upstream_options(config, doors.dialer.clone())),
            Data::open(config, &gateway, &metrics)
        );
        let (discovery, data) = both(discovery.map_err(StartErrors::from), data)?;
        health.set(Dependency::Redis, Condition::Up);

        let access = Arc::new(security::access(config, discovery.learned(), metrics.security.clone())?);
        let stats: Vec<_> = ends.iter().map(|end| end.stats.clone()).collect();
        let labels = data.as_ref().map(Data::labels).unwrap_or_default();
        let collector = WorkerCollector::new(stats.clone(), command_names(), labels)?;
        metrics.registry().register(Box::new(collector))?;

        let addresses = Addresses {
            resp: resp.as_ref().map(TcpListener::local_addr).transpose()?,
            http: http.as_ref().map(TcpListener::local_addr).transpose()?,
            tls: doors.tls.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?,
        };
        let server = Self {
            addresses,
            health: health.clone(),
            drain_timeout: config.server.drain_timeout,
            shutdown_timeout: config.write_behind.shutdown_timeout,
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            workers: Vec::new(),
            http: HttpThreads::default(),
            dialer: doors.dialer.clone(),
            stats,
            tasks: TaskTracker::new(),
            data,
        };
        server.run_services(
            config,
            discovery,
            access,
            gateway,
            metrics,
            (resp, http, auth, doors),
            ends,
            inboxes,
        )
    }

    /// Starts threads and tasks; the last thing is to accept clients.
    #[expect(clippy::too_many_arguments, reason = "each part is made before, and owned by one task after")]
    fn run_services(
        mut self,
        config: &Config,
        discovery: Discovery,
        access: Arc<Access>,
        gateway: Gateway,
        metrics: Arc<Metrics>,
        (resp, http, auth, doors): (Option<TcpListener>, Option<TcpListener>, http::Auth, Doors),
        mut ends: Vec<WorkerEnd>,
        inboxes: Vec<Inbox>,
    ) -> Result<Self, StartErrors> {
        let count = config.server.worker_count();
        let live = Arc::new(Live::new(config));
        let notes = inboxes.iter().map(|inbox| inbox.notes.0.clone()).collect();
        let process = Arc::new(Process::new(config, live.clone(), access, self.stats.clone(), notes));
        let commons = Commons {
            process: process.clone(),
            subscriptions: Arc::default(),
            scripts: Arc::new(ScriptStore::new(config.limits.script_store)),
        };
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let about = About {
                redis_version: discovery.server_version().to_owned(),
                port: self.addresses.resp.or(self.addresses.tls).map_or(0, |addr| addr.port()),
                workers: ends.len(),
                worker: index,
            };
            let data = self.data.as_ref().map(|data| data.side(inbox.told.0.clone()));
            let for_http = index.checked_sub(count);
            let mut parts = self.worker_parts(
                config,
                &discovery,
                core_options(config, about),
                data,
                inbox,
                commons.clone(),
            );
            let Some(number) = for_http else {
                self.workers.push(worker::spawn(format!("worker-{index}"), parts)?.0);
                continue;
            };
            (parts.drain, parts.stop) = (CancellationToken::new(), self.http.stop.clone());
            let (thread, runtime) = worker::spawn(format!("http-{number}"), parts)?;
            self.http.threads.push(thread);
            self.http.runtimes.push(runtime);
        }
        let for_http = ends.split_off(count);
        let own = self.http.threads.iter().zip(&for_http);
        gateway.at_home(own.map(|(thread, end)| (thread.thread().id(), end.calls.clone())).collect());
        let (health, topology) = (self.health.clone(), discovery.watch());
        gateway.follow(topology.clone());
        let writes = self.data.as_ref().map(Data::writes);
        let moving = move |slots: &[u16]| {
            if let Some(writes) = &writes {
                writes.doubt_slots(slots);
            }
        };
        self.tasks.spawn(discovery.run(self.stop.clone(), moving, move |round| {
            let condition = round.map_or_else(Condition::Down, |()| Condition::Up);
            health.set(Dependency::Redis, condition);
        }));
        match &self.data {
            Some(data) => {
                data.watch(config, &self.tasks, self.health.clone(), self.stop.clone());
                data.warm(config, &self.tasks, &self.stop);
                let options = upstream_options(config, self.dialer.clone());
                let watch = eviction::Watch::new(topology.clone(), options, &self.health, &metrics);
                data.watch_eviction(watch, &self.tasks, self.stop.clone());
            }
            None => data::absent(&self.health),
        }
        let security = metrics.security.clone();
        self.tasks.spawn(doors.keep_fresh(config, security.clone(), self.stop.clone()));
        if let Some(listener) = http {
            let state = HttpState {
                config: config.http.clone(),
                metrics: metrics.clone(),
                health: self.health.clone(),
                facade: facade::facade(self.data.as_ref(), gateway.clone()),
                site: site(config, self.data.as_ref(), gateway, auth, &metrics)?,
                cache: facade::cache_stats(self.data.as_ref(), &metrics, &self.stats, topology),
                reads: self.data.as_ref().map(|data| data.reads.clone()),
                writeback: self.data.as_ref().map(Data::writeback),
                requests: AtomicU64::new(0),
                process: std::process::id(),
            };
            let listener = tokio::net::TcpListener::from_std(listener)?;
            self.tasks.spawn(http::serve(
                listener,
                doors.http.clone(),
                Arc::new(state),
                self.http.runtimes.clone(),
                self.stop.clone(),
            ));
        }
        let (tls, unix) = doors.listeners()?;
        let acceptor = Acceptor {
            plain: resp.map(tokio::net::TcpListener::from_std).transpose()?,
            tls,
            unix,
            workers: ends.into_iter().map(|end| (end.connections, end.stats)).collect(),
            live,
            refused: process.refused.clone(),
            metrics: security,
            networks: doors::networks(config),
            keepalive: config.server.tcp_keepalive,
            handshake_timeout: config.tls.handshake_timeout,
            max_handshakes: config.tls.max_handshakes,
        };
        self.tasks.spawn(acceptor.run(self.drain.clone()));
        self.tasks.close();
        Ok(self)
    }

    fn worker_parts(
        &self,
        config: &Config,
        discovery: &Discovery,
        options: CoreOptions,
        data: Option<DataSide>,
        inbox: Inbox,
        commons: Commons,
    ) -> WorkerParts {
        WorkerParts {
            options,
            data,
            commons,
            stats: inbox.stats,
            connections: inbox.connections,
            calls: inbox.calls,
            told: inbox.told.1,
            notes: inbox.notes.1,
            topology: discovery.watch(),
            refresh: discovery.refresh_handle(),
            connect_timeout: config.upstream.connect_timeout,
            tls: self.dialer.clone(),
            busy_poll: config.server.busy_poll,
            stall_timeout: config.limits.client_stall_timeout,
            drain: self.drain.clone(),
            stop: self.stop.clone(),
        }
    }

    /// What fills the cache, where there are mappings.
    pub(super) fn reads(&self) -> Option<&crate::cache::ReadThrough> {
        self.data.as_ref().map(|data| &data.reads)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown` completes, then drains: no new clients, unfinished commands are answered (up to
    /// `server.drain_timeout`), queued rows are written (up to `write_behind.shutdown_timeout`).
    ///
    /// Returns the number of rows that could not be written.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> usize {
        shutdown.await;
        tracing::info!("draining: no new clients, unfinished commands are answered");
        self.health.drain();
        self.drain.cancel();
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        let clients = || self.stats.iter().map(|worker| worker.clients.get()).sum::<u64>();
        while clients() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if clients() > 0 {
            tracing::warn!(clients = clients(), "the drain timeout is over; closing what is left");
        }
        // Rows first, then the end of everything else: the metrics show the flush, and readers of HTTP may still come.
        let left = match &self.data {
            Some(data) => data.shutdown(self.shutdown_timeout).await,
            None => 0,
        };
        self.stop.cancel();
        join(self.workers).await;
        self.tasks.wait().await;
        self.http.stop.cancel();
        join(self.http.threads).await;
        tracing::info!(rows_left = left, "stopped");
        left
    }
}

/// The routes of the configuration, over the data side.
fn site(
    config: &Config,
    data: Option<&Data>,
    gateway: Gateway,
    auth: http::Auth,
    metrics: &Metrics,
) -> prometheus::Result<Site> {
    let name = if config.database.url.as_ref().is_some_and(|url| url.expose().starts_with("sqlite:")) {
        "sqlite"
    } else {
        "postgres"
    };
    let data = data.map(|data| (data.source.clone(), data.reads.clone()));
    let backend = Backend::new(gateway, data, name, metrics);
    Site::new(crate::config::compile(config), Some(backend), auth, metrics)
}

/// Opens both listening sockets; both problems are reported when both have one.
fn listen(config: &Config) -> Result<(Option<TcpListener>, Option<TcpListener>), StartErrors> {
    let open = |enabled: bool, addr, setting| match enabled {
        true => worker::bind(addr, setting).map(Some),
        false => Ok(None),
    };
    let resp = open(config.server.plain, config.server.listen, "[server] listen, or DSPROXY_SERVER_LISTEN");
    let http = open(config.http.enabled, config.http.listen, "[http] listen, or DSPROXY_HTTP_LISTEN");
    both(resp.map_err(StartErrors::from), http.map_err(StartErrors::from))
}

/// Both values, or the errors of both.
pub(super) fn both<A, B>(
    a: Result<A, StartErrors>,
    b: Result<B, StartErrors>,
) -> Result<(A, B), StartErrors> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(StartErrors(a.0.into_iter().chain(b.0).collect())),
        (Err(errors), Ok(_)) | (Ok(_), Err(errors)) => Err(errors),
    }
}

/// Names by [`Command::id`], subcommands included.
fn command_names() -> Vec<&'static str> {
    let mut names = vec![""; ID_COUNT];
    for Command { id, name, .. } in command::all() {
        if let Some(place) = names.get_mut(usize::from(*id)) {
            *place = name;
        }
    }
    names
}

/// How the upstream is reached, from the configuration.
pub(super) fn upstream_options(config: &Config, tls: Option<Dialer>) -> UpstreamOptions {
    let upstream = &config.upstream;
    UpstreamOptions {
        seeds: upstream.nodes.clone(),
        single: upstream.mode == UpstreamMode::Single,
        username: upstream.username.clone(),
        password: upstream.password.clone(),
        tls,
        connect_timeout: upstream.connect_timeout,
        refresh_interval: upstream.refresh_interval,
    }
}

fn core_options(config: &Config, about: About) -> CoreOptions {
    let (limits, upstream) = (&config.limits, &config.upstream);
    let us = |duration: Duration| duration.as_micros() as u64;
    let if_any = |duration: Duration| if duration.is_zero() { u64::MAX } else { us(duration) };
    CoreOptions {
        request: RequestLimits {
            inline_bytes: limits.inline,
            args: limits.args,
            bulk_bytes: limits.bulk,
            frame_bytes: limits.query_buffer,
            stranger: false,
        },
        inflight_per_client: limits.inflight_per_client,
        output_pause: limits.client_output_pause,
        output_max: limits.client_output_max,
        upstream_inflight: limits.upstream_inflight,
        upstream_buffer: limits.upstream_buffer,
        dedicated_connections: limits.dedicated_connections,
        dedicated_idle_us: if_any(upstream.dedicated_idle),
        max_retries: u8::try_from(upstream.max_retries).unwrap_or(u8::MAX),
        subscriptions_per_client: limits.subscriptions_per_client,
        request_timeout_us: if_any(limits.request_timeout),
        login_timeout_us: if_any(limits.login_timeout),
        command_timeout_us: us(upstream.command_timeout),
        backoff_us: (us(upstream.reconnect_backoff_min), us(upstream.reconnect_backoff_max)),
        upstream_auth: upstream
            .password
            .clone()
            .map(|password| UpstreamAuth { username: upstream.username.clone(), password }),
        about,
    }
}
