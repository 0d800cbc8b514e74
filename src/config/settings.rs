//! Every setting, defined once.
//!
//! Must not know: how a setting is parsed, documented or overridden.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::compound::{List, Optional};
use super::define::{settings, words};
use super::kind::{Address, Count, Flag, Fraction, Hidden, Size, Text};
use super::kind::{choice, duration, duration_or};
use super::postgres_url::{DATABASE_URL, REPLICA_URL};
use super::secret::Secret;

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;
pub(super) const GB: usize = 1 << 30;

pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(super) const NODE: Text =
    Text { expects: "host:port, such as 10.0.0.1:7000", example: "127.0.0.1:7000", check: is_node };

pub(super) const USERNAME: Text = some_text("the user's name", "dsproxy");
const PASSWORD: Text = some_text("the password", "change-me");
const DIRECTORY: Text = some_text("a directory", ".dsproxy");

const SOCKET: Text = some_text("the path of a socket, at most 100 bytes long", "/tmp/dsproxy.sock");
const MODE: Text = Text {
    expects: "three or four octal digits",
    example: "770",
    check: |text| matches!(text.len(), 3 | 4) && u32::from_str_radix(text, 8).is_ok(),
};
const NETWORK: Text = Text {
    expects: "a network such as 10.0.0.0/8 or fd00::/8, or one address",
    example: "127.0.0.0/8",
    check: |text| text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok(),
};
pub(super) const PEM_FILE: Text = some_text("the path of a PEM file", "certs/proxy.pem");
const SERVER_NAME: Text = some_text("a host name", "redis.example");
const ORIGIN: Text = Text {
    expects: "an origin such as https://app.example, or *",
    example: "https://app.example",
    check: |text| text == "*" || (text.contains("://") && !text.ends_with('/') && !text.contains(' ')),
};

const FILTER: Text = Text {
    expects: "error, warn, info, debug, trace or off, or a filter by module such as info,dsproxy::cluster=debug",
    example: "info,dsproxy::cluster=debug",
    check: |text| {
        // A bare word that is no level would be taken for a target by the filter's own grammar, and log everything of it.
        let bare = !text.contains(['=', ',', '[']);
        match bare {
            true => text.parse::<tracing_subscriber::filter::LevelFilter>().is_ok(),
            false => tracing_subscriber::EnvFilter::try_new(text).is_ok(),
        }
    },
};

pub(super) const fn some_text(expects: &'static str, example: &'static str) -> Text {
    Text { expects, example, check: |text| !text.is_empty() && !text.contains('\0') }
}

fn is_node(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '@', ' ', '[', ']']),
    };
    host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
}

words! {
    /// What stands behind the proxy.
    UpstreamMode {
        /// A Redis Cluster.
        Cluster = "cluster",
        /// One plain Redis.
        Single = "single",
    }

    /// Who may use the facade of the HTTP side.
    FacadeAccess {
        /// Everybody who reaches the port.
        Open = "open",
        /// Who shows a bearer token that `[auth]` accepts.
        Bearer = "bearer",
        /// Nobody.
        Off = "off",
    }

    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// For machines: one JSON object per line.
        Json = "json",
    }
}

settings! {
    /// The RESP port: where Redis clients connect.
    ServerConfig in "server" {
        /// Address and port for Redis clients. Port 0 takes a free one.
        listen: SocketAddr = local(6380), Address;
        /// Data threads. 0 means one per core but one, at least 1, at most 8.
        workers: usize = 0, Count(0..=256);
        /// How long a data thread, or that of the journal, looks for further requests and replies before it sleeps (busy polling).
        /// `0` = it sleeps at once. `50us` takes most of the wake-up time off a lone request, for up to a core per data thread
        /// under load; where lone writes count it should be longer than a sync of the disk.
        busy_poll: Duration = Duration::ZERO, duration_or("off", Duration::from_micros(1)..=ms(100));
        /// Whether clients are served without TLS at `listen`. Off: they come over TLS (`tls.listen`) or the Unix socket.
        plain: bool = true, Flag;
        /// Connected clients at most; one more is refused with Redis' own error.
        max_clients: usize = 10_000, Count(1..=1_000_000);
        /// Idle time after which TCP asks whether the client is still there.
        tcp_keepalive: Duration = secs(300), duration_or("never", secs(1)..=hours(24));
        /// A Unix socket for clients of this machine. Unset: none.
        unix_socket: Option<String> = None, Optional(SOCKET);
        /// Permissions of the Unix socket, in octal digits.
        unix_socket_mode: String = "770".to_owned(), MODE;
        /// Networks that clients may come from; empty: from everywhere. Holds for the address that the PROXY protocol tells, where
        /// it does, and for TLS, too; not for the Unix socket.
        allow: Vec<String> = Vec::new(), List(NETWORK);
        /// Networks of load balancers whose connections begin with a header of the PROXY protocol (version 1 or 2). Those from
        /// elsewhere begin with none.
        proxy_protocol: Vec<String> = Vec::new(), List(NETWORK);
        /// Password that clients must send with AUTH. Unset: none is asked for.
        password: Option<Secret> = None, Optional(Hidden(PASSWORD));
        /// On SIGTERM: how long unfinished commands may take before their connections are closed.
        drain_timeout: Duration = secs(10), duration(ms(0)..=hours(1));
        /// Idle time after which a client is disconnected.
        client_idle_timeout: Duration = secs(0), duration_or("never", secs(1)..=hours(24 * 7));
        /// Commands that took a node longer than this stand in the slow log (`SLOWLOG`).
        slowlog_threshold: Duration = ms(10), duration_or("nothing is logged", ms(1)..=hours(1));
        /// Commands that the slow log keeps.
        slowlog_entries: usize = 128, Count(0..=100_000);
        /// The address that `CLUSTER SLOTS` and its like give to cluster-aware clients, such as `redis.example:6379`.
        /// Unset: the address that the client has connected to.
        announce: Option<String> = None, Optional(NODE);
    }

    /// The HTTP port: metrics, health, and the small REST facade.
    HttpConfig in "http" {
        /// Address and port for HTTP. Port 0 takes a free one.
        listen: SocketAddr = local(8080), Address;
        /// Whether HTTP is served at all.
        enabled: bool = true, Flag;
        /// The certificate of the HTTP port, and those up to its authority (PEM). Set, with `tls_key`: the port speaks HTTPS only.
        /// Read again as those of `[tls]` are.
        tls_certificate: Option<String> = None, Optional(PEM_FILE);
        /// Its private key (PEM).
        tls_key: Option<String> = None, Optional(PEM_FILE);
        /// Authorities of client certificates (PEM). Set: clients of the HTTP port must show one.
        tls_client_ca: Option<String> = None, Optional(PEM_FILE);
        /// Threads that serve HTTP, each with a connection of its own to every node. 0 means one per core, at least 1, at most 4.
        threads: usize = 0, Count(0..=256);
        /// Longest request body.
        max_body: usize = MB, Size(KB..=GB);
        /// How long a client may take to send a request's head or body, and a handler to answer it.
        request_timeout: Duration = secs(5), duration(ms(10)..=hours(1));
        /// Open HTTP connections at most; further ones wait to be accepted.
        max_connections: usize = 1024, Count(1..=100_000);
        /// Who may use `/read`, `/write` and `/mget`.
        facade: FacadeAccess = FacadeAccess::Open, choice::<FacadeAccess>();
        /// Origins whose pages may use the routes (CORS); `*` is any. Empty: none.
        cors_origins: Vec<String> = Vec::new(), List(ORIGIN);
        /// Answers of at least this size are compressed for clients that accept gzip; 0 means none are.
        compress_min: usize = KB, Size(0..=GB);
    }

    /// The Redis behind the proxy.
    UpstreamConfig in "upstream" {
        /// A Redis Cluster, or one plain Redis.
        mode: UpstreamMode = UpstreamMode::Cluster, choice::<UpstreamMode>();
        /// Nodes to ask for the cluster's layout (any few of them), or the one plain Redis. Also set by `REDIS_NODES`.
        nodes: Vec<String> = Vec::new(), List(NODE);
        /// User for AUTH at the nodes (Redis ACL).
        username: Option<String> = None, Optional(USERNAME);
        /// Password for AUTH at the nodes.
        password: Option<Secret> = None, Optional(Hidden(PASSWORD));
        /// Reach the nodes over TLS.
        tls: bool = false, Flag;
        /// Authorities of the nodes' certificates (PEM). Unset: those of the system.
        tls_ca: Option<String> = None, Optional(PEM_FILE);
        /// The certificate to show to the nodes (PEM), for mutual TLS. Needs `tls_key`.
        tls_certificate: Option<String> = None, Optional(PEM_FILE);
        /// Its private key (PEM).
        tls_key: Option<String> = None, Optional(PEM_FILE);
        /// The name that all nodes' certificates must be for. Unset: the host of each node's address.
        tls_server_name: Option<String> = None, Optional(SERVER_NAME);
        /// Whether a node's certificate must be for its name; otherwise one of the authority is enough.
        tls_verify_names: bool = true, Flag;
        /// How long connecting to a node may take.
        connect_timeout: Duration = secs(1), duration(ms(10)..=secs(60));
        /// How long a node may take to answer a command before the client gets an error.
        command_timeout: Duration = secs(5), duration(ms(10)..=hours(1));
        /// How often one command is redirected, or sent again where that is safe, before its client gets the error.
        max_retries: usize = 16, Count(0..=255);
        /// Connections that one client had for itself (`limits.dedicated_connections`), and nobody needed for so long, are closed.
        dedicated_idle: Duration = secs(0), duration_or("never", secs(1)..=hours(24 * 365));
        /// How often the cluster's layout is asked for, besides on every redirect and lost connection.
        refresh_interval: Duration = secs(10), duration(ms(100)..=hours(1));
        /// Wait before the first attempt to reconnect; doubled on every failure.
        reconnect_backoff_min: Duration = ms(20), duration(ms(1)..=secs(60));
        /// Longest wait between attempts to reconnect.
        reconnect_backoff_max: Duration = secs(2), duration(ms(1)..=secs(300));
    }

    /// What one client, one command or one node may take. Every buffer and queue of the hot path ends here.
    LimitsConfig in "limits" {
        /// Longest inline command and longest header line.
        inline: usize = 64 * KB, Size(KB..=16 * MB);
        /// Arguments of one command at most.
        args: usize = MB, Count(16..=16 * MB);
        /// Longest argument, as Redis' `proto-max-bulk-len`.
        bulk: usize = 512 * MB, Size(KB..=4 * GB);
        /// Longest unfinished command of one client, as Redis' `client-query-buffer-limit`.
        query_buffer: usize = GB, Size(KB..=8 * GB);
        /// Unanswered commands of one client; reading from it pauses there.
        inflight_per_client: usize = 1024, Count(1..=1_000_000);
        /// Unread replies of one client (bytes) at which reading from it pauses.
        client_output_pause: usize = MB, Size(KB..=GB);
        /// Unread replies of one client (bytes) at which it is disconnected.
        client_output_max: usize = 256 * MB, Size(KB..=8 * GB);
        /// Slow senders: how long a client may take for each 16 kB of a request, and for its end.
        request_timeout: Duration = secs(60), duration_or("for ever", secs(1)..=hours(24));
        /// How long a client may stay that must log in and does not.
        login_timeout: Duration = secs(60), duration_or("for ever", secs(1)..=hours(24));
        /// How long a client with unread replies may take nothing before it is disconnected.
        client_stall_timeout: Duration = secs(60), duration_or("never", ms(100)..=hours(24));
        /// Most channels and patterns that one client subscribes to; beyond it `SUBSCRIBE` answers an error.
        subscriptions_per_client: usize = 100_000, Count(1..=10_000_000);
        /// Unanswered commands at one node, per data thread; further ones wait with their clients.
        upstream_inflight: usize = 65_536, Count(16..=16 * MB);
        /// Connections of their own that clients hold to watch keys or to wait in blocking commands, per data thread.
        dedicated_connections: usize = 1000, Count(1..=100_000);
        /// Longest time for which `CLIENT PAUSE` may hold the commands of clients; a longer one is answered an error.
        client_pause: Duration = secs(600), duration(ms(1)..=hours(24 * 7));
        /// Clients that look on (`MONITOR`) at the same time; further ones are answered an error.
        monitors: usize = 16, Count(0..=1000);
        /// Lines that each of them is shown per second; the others are counted, and told once a second.
        monitor_lines: usize = 10_000, Count(1..=1_000_000);
        /// Scripts that clients have shown to the proxy, kept to answer `NOSCRIPT` of a node that lacks them; bytes of all.
        script_store: usize = 16 * MB, Size(KB..=GB);
        /// Unsent bytes to one node, per data thread; further commands wait with their clients.
        upstream_buffer: usize = 256 * MB, Size(64 * KB..=8 * GB);
    }

    /// The database behind the mappings.
    DatabaseConfig in "database" {
        /// Where the database is: Postgres (`postgres://..`) or a SQLite file (`sqlite:path/file.db`). Needed as soon as
        /// there is a mapping. TLS to Postgres as in libpq: `?sslmode=disable|prefer|require|verify-ca|verify-full`, with
        /// `sslrootcert` (PEM file; unset: the system's), `sslcert` and `sslkey`. Also set by `DATABASE_URL`.
        url: Option<Secret> = None, Optional(Hidden(DATABASE_URL));
        /// Read replicas of this Postgres (streaming, physical), which rows are then loaded from; each has connections for that
        /// like the primary. One is used for a load when it has replayed all that the primary had when the load began, so it
        /// never gives an older row.
        replicas: Vec<Secret> = Vec::new(), List(Hidden(REPLICA_URL));
        /// How long a load waits for a replica to have replayed that. After it the primary is asked, and the replica rests for a
        /// second.
        replica_wait: Duration = ms(50), duration(ms(1)..=secs(10));
        /// Open connections at most. A quarter of them is for flushes, a quarter for statements of routes, the rest for
        /// loads (each has one at least), so that none can starve the others.
        max_connections: usize = 16, Count(1..=1000);
        /// How long connecting may take.
        connect_timeout: Duration = secs(3), duration(ms(10)..=secs(60));
        /// Connections to Postgres that were not used for so long are closed.
        max_idle_time: Duration = secs(0), duration_or("never", secs(1)..=hours(24 * 365));
        /// Connections to Postgres that are older are closed when nobody uses them.
        max_lifetime: Duration = secs(0), duration_or("never", secs(1)..=hours(24 * 365));
        /// How often the database is asked whether it is well, and its connections are looked at.
        health_interval: Duration = secs(2), duration(ms(10)..=hours(1));
        /// How long one statement may take before the database is told to cancel it.
        statement_timeout: Duration = secs(2), duration(ms(10)..=hours(1));
        /// Longest value that is loaded for a key (a longer one is an error, and is not cached), and most bytes that one
        /// statement of a route answers.
        max_value_bytes: usize = 64 * MB, Size(KB..=512 * MB);
        /// Failures in a row (lost connections, no answers) that open the circuit breaker: loads and statements then fail
        /// at once, until a probe succeeds. Flushes go on trying by `write_behind.retry_min`. 0 means never.
        breaker_failures: usize = 10, Count(0..=100_000);
        /// Wait between the opening of the circuit breaker and its first probe; doubled on every failure.
        breaker_probe_min: Duration = ms(500), duration(ms(10)..=secs(60));
        /// Longest wait between probes of the circuit breaker.
        breaker_probe_max: Duration = secs(10), duration(ms(10)..=hours(1));
    }

    /// Filling the cache from the database on a miss.
    ReadThroughConfig in "read_through" {
        /// Keys that one query loads at most.
        max_batch: usize = 1000, Count(1..=100_000);
        /// Queries of one mapping at a time.
        concurrency: usize = 4, Count(1..=256);
        /// Keys that may wait to be loaded; one more is answered with an error.
        queue: usize = 100_000, Count(1..=10_000_000);
        /// Part of the time to live that is varied at random, so that keys loaded together do not expire together.
        ttl_jitter: f64 = 0.1, Fraction(0.0..=0.5);
        /// How long the cluster may take to answer a read of a mapped key, or to say who loads it. After that the database is asked
        /// all the same, and what it says is not stored.
        cache_timeout: Duration = ms(500), duration(ms(1)..=hours(1));
        /// How long a client waits for a load before it gets an error.
        timeout: Duration = secs(5), duration(ms(10)..=hours(1));
    }

    /// Writing to the database in batches, after the client has its answer.
    WriteBehindConfig in "write_behind" {
        /// Waiting rows that start a flush.
        batch_rows: usize = 50, Count(1..=100_000);
        /// Longest time that a row waits before a flush is started.
        batch_interval: Duration = secs(2), duration(ms(1)..=hours(1));
        /// Time between the beginnings of two flushes of a mapping, unless `max_batch_rows` wait: where many write, it makes
        /// batches larger, and each row cheaper.
        batch_pause: Duration = ms(10), duration(ms(0)..=secs(10));
        /// Rows that one statement writes at most.
        max_batch_rows: usize = 1000, Count(1..=100_000);
        /// Rows that may wait; further writes are refused.
        queue_rows: usize = 1_000_000, Count(1..=100_000_000);
        /// Bytes that may wait; further writes are refused.
        queue_bytes: usize = 512 * MB, Size(64 * KB..=64 * GB);
        /// Wait before a failed flush is tried again; doubled on every failure.
        retry_min: Duration = ms(50), duration(ms(1)..=secs(60));
        /// Longest wait between attempts to flush.
        retry_max: Duration = secs(5), duration(ms(1)..=hours(1));
        /// Keys whose commit the cache could not be told of that are kept; their records stay in the journal meanwhile. As many at
        /// most are told of again within the time of a read.
        max_untold: usize = 100_000, Count(0..=10_000_000);
        /// Commits that the cache was told of within a minute that are kept, by mapping, to be told again after a failover.
        recent_rows: usize = 50_000, Count(0..=10_000_000);
        /// Bytes of these, by mapping.
        recent_bytes: usize = 16 * MB, Size(0..=64 * GB);
        /// Writes that may wait behind dead letters (`on_poison = "wait"`), by mapping. Beyond it those of further keys are
        /// applied instead, and their dead letters say so.
        max_held: usize = 10_000, Count(0..=10_000_000);
        /// How often the versions of keys that no proxy needs any more are removed from `dsproxy_versions`.
        prune_interval: Duration = secs(60), duration(ms(10)..=hours(1));
        /// Commands that compute a value from the one that is there (`INCR`, `APPEND`, `HSET` ...) that may wait, over all keys.
        modify_queue: usize = 100_000, Count(1..=10_000_000);
        /// How long such a command is tried again while others write its key, or while its node does not answer.
        modify_timeout: Duration = secs(5), duration(ms(10)..=hours(1));
        /// On shutdown: how long the last flush may take.
        shutdown_timeout: Duration = secs(30), duration(ms(0)..=hours(1));
    }

    /// The log on the disk that acknowledged writes are in until the database has them.
    JournalConfig in "journal" {
        /// Directory of the journal, for one proxy alone. Acknowledged writes survive as long as it does.
        data_dir: String = "dsproxy-data".to_owned(), DIRECTORY;
        /// Size of one file of the journal, reserved when it is begun.
        segment_size: usize = 64 * MB, Size(64 * KB..=4 * GB);
        /// Bytes that may wait for the database; further writes are refused. On the disk it is up to two files more, and those of
        /// `recent_bytes`.
        max_bytes: usize = GB, Size(MB..=1024 * GB);
        /// Bytes of files that stay for a minute after all of their writes are in the database, up to a file more: the next start
        /// tells the cache of these again.
        recent_bytes: usize = 16 * MB, Size(0..=64 * GB);
        /// How long a write may wait for the database before further ones are refused.
        max_age: Duration = ms(0), duration_or("never", secs(1)..=hours(24 * 365));
        /// Part of the limits at which writes begin to be slowed down.
        high_water: f64 = 0.75, Fraction(0.0..=1.0);
        /// Writes that may wait for the disk; further ones are refused.
        inbox: usize = 65_536, Count(16..=10_000_000);
        /// Bytes that may wait for the disk; further writes are refused.
        inbox_bytes: usize = 64 * MB, Size(64 * KB..=4 * GB);
    }

    /// What the proxy says about itself.
    LogConfig in "log" {
        /// Lines for people, or JSON for machines.
        format: LogFormat = LogFormat::Text, choice::<LogFormat>();
        /// How much is said: error, warn, info, debug or trace, or a filter by module such as
        /// `info,dsproxy::cluster=debug`.
        level: String = "info".to_owned(), FILTER;
    }

    /// The embedded servers of `dsproxy dev`.
    DevConfig in "dev" {
        /// Directory for their data.
        directory: String = ".dsproxy".to_owned(), DIRECTORY;
        /// Redis nodes of the embedded cluster.
        shards: usize = 3, Count(3..=16);
    }
}

impl HttpConfig {
    /// The number of threads that serve HTTP.
    pub fn thread_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match (self.enabled, self.threads) {
            (false, _) => 0,
            (true, 0) => cores().clamp(1, 4),
            (true, threads) => threads,
        }
    }
}

impl ServerConfig {
    /// How many data threads to start: as configured, or one per core but one, at least 1, at most 8.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).clamp(1, 8)),
            workers => workers,
        }
    }
}
