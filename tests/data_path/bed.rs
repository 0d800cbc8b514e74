//! What each test lies on: a proxy with mappings of the test's own, a database of its own, keys of its own.

use std::time::Duration;

use dsproxy::embedded::keeper::KeeperOptions;
use tokio_postgres::NoTls;

use crate::support::{Database, PrivateStack, Proxy, Resp, SharedStack, Value, eventually};

/// Deadline of every wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

const TABLES: &str = "create table users (id bigint primary key, name varchar(20) not null, email text, age int); \
     create table posts (id bigint primary key, content text not null); create table counters (id bigint primary key, n int); \
     create table user_data (id bigserial primary key, user_id text not null, value text not null, ts bigint not null); \
     create index on user_data (user_id, ts desc); \
     create table notes (id bigint primary key, user_id bigint not null, title text, price numeric(10, 2), done boolean, \
     extra jsonb, at timestamptz not null default '2024-05-17 09:30:00.123456+02'); \
     insert into notes select n, n % 5, 't' || n, n + 0.5, n % 2 = 0, jsonb_build_object('n', n) from generate_series(1, 100) n; \
     create unique index on notes (user_id, id); insert into users select n, 'u' || n from generate_series(1, 200) n; \
     insert into posts select n, 'p' || n from generate_series(1, 20) n";

/// `user` is written behind, `post` is read-only, `user_data` appends.
const MAPPINGS: &str = r#"
[[mapping]]
name = "user"
key = "PREFIXuser:{id}"
table = "users"
id = "bigint"
write = "behind"
ttl = "100s"
[[mapping]]
name = "post"
key = "PREFIXpost:{id}"
table = "posts"
id = "bigint"
[[mapping]]
name = "user_data"
key = "PREFIXuser_data:{user_id}"
table = "user_data"
id = "text"
format = "text"
column = "value"
order_by = "ts"
write = "behind"
mode = "append"
"#;

/// Nothing is flushed by the clock.
pub const NO_CLOCK: &str = "[write_behind]\nbatch_interval = \"1h\"\n";

/// In proxy.toml: the mappings are written through.
const THROUGH: &str = "# through";

/// In proxy.toml: later writes of a key wait behind its dead letter.
pub const WAIT: &str = "# wait";

enum Stack {
    Shared(#[expect(dead_code, reason = "keeps the servers")] SharedStack),
    Private(PrivateStack),
}

pub struct Bed {
    pub proxy: Proxy,
    pub db: Database,
    pub nodes: Vec<String>,
    prefix: String,
    stack: Stack,
    /// Its proxy.toml.
    config: String,
    /// The directory of its journal, where that outlives the proxy.
    data: Option<tempfile::TempDir>,
}

impl Bed {
    /// On the shared servers. `more` is added to proxy.toml behind the keys of `[database]`; `PREFIX` in it is the prefix
    /// of this test's keys.
    #[track_caller]
    pub fn start(more: &str) -> Self {
        let stack = SharedStack::get();
        let (db, nodes, prefix) =
            (stack.fresh_database(), stack.redis_nodes().to_vec(), stack.key_prefix().to_owned());
        Self::make(db, nodes, prefix, Stack::Shared(stack), more)
    }

    /// As `start`, with more tables.
    #[track_caller]
    pub fn start_with(more: &str, tables: &str) -> Self {
        let stack = SharedStack::get();
        let (db, nodes, prefix) =
            (stack.fresh_database(), stack.redis_nodes().to_vec(), stack.key_prefix().to_owned());
        db.execute(tables);
        Self::make(db, nodes, prefix, Stack::Shared(stack), more)
    }

    /// Another proxy with the same mappings, and a journal of its own.
    #[track_caller]
    pub fn twin(&self) -> Proxy {
        assert!(self.data.is_none(), "its journal is not its own");
        Proxy::start(&self.config)
    }

    /// As `start`, with a journal that outlives the proxy: see `crash` and `restart`.
    #[track_caller]
    pub fn durable(more: &str) -> Self {
        Self::durable_with(more, "")
    }

    /// The same with more tables.
    #[track_caller]
    pub fn durable_with(more: &str, tables: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let journal = format!("[journal]\ndata_dir = {:?}\nsegment_size = \"1mb\"\n", data.path());
        Self { data: Some(data), ..Self::start_with(&format!("{more}\n{journal}"), tables) }
    }

    /// As `durable`, with mappings that are written through. `database` goes into `[database]`.
    #[track_caller]
    pub fn through(database: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let journal = format!("[journal]\ndata_dir = {:?}\nsegment_size = \"1mb\"\n", data.path());
        Self { data: Some(data), ..Self::start(&format!("{database}\n{THROUGH}\n{journal}")) }
    }

    /// The same on servers that the test may stop and kill.
    #[track_caller]
    pub fn through_private(database: &str) -> Self {
        Self::private(&format!("{database}\n{THROUGH}"))
    }

    /// The next start has another configuration.
    pub fn change_config(&mut self, from: &str, to: &str) {
        assert!(self.config.contains(from), "{from}");
        self.config = self.config.replace(from, to);
    }

    /// `kill -9` of the proxy, and its next start.
    #[track_caller]
    pub fn crash(&mut self) {
        self.proxy.signal(rustix::process::Signal::KILL);
        self.restart();
    }

    /// `kill -9` of the proxy; the next one dies when it comes by this fail point.
    #[track_caller]
    pub fn crash_to_die_at(&mut self, point: &str) {
        self.proxy.signal(rustix::process::Signal::KILL);
        self.proxy.wait_exit();
        self.proxy = Proxy::spawn_with(&self.config, &[("DSPROXY_FAILPOINT", point)]);
        self.proxy.wait_ready();
    }

    /// Starts the proxy again, which is about to end or has ended.
    #[track_caller]
    pub fn restart(&mut self) {
        self.proxy.wait_exit();
        self.proxy = Proxy::start(&self.config);
    }

    /// The same, and it dies at this fail point.
    #[track_caller]
    pub fn restart_to_die(&mut self, point: &str) {
        self.proxy.wait_exit();
        self.proxy = Proxy::spawn_with(&self.config, &[("DSPROXY_FAILPOINT", point)]);
        self.proxy.wait_ready();
    }

    /// Another proxy with the same configuration, not waited for.
    #[track_caller]
    pub fn second(&self) -> Proxy {
        assert!(self.data.is_some(), "its journal is its own");
        Proxy::spawn(&self.config)
    }

    /// Another proxy beside this durable one, on the same cluster and database, with a journal of its own; its configuration is
    /// the same but for these texts.
    #[track_caller]
    pub fn beside(&self, changes: &[(&str, &str)]) -> Beside {
        let (own, data) = (self.data.as_ref().unwrap(), tempfile::tempdir().unwrap());
        let mut config = self.config.replace(own.path().to_str().unwrap(), data.path().to_str().unwrap());
        for (from, to) in changes {
            assert!(config.contains(from), "{from}");
            config = config.replace(from, to);
        }
        Beside { proxy: Proxy::start(&config), config, _data: data }
    }

    /// The same, which refuses to start: its log.
    #[track_caller]
    pub fn refused_beside(&self, changes: &[(&str, &str)]) -> String {
        let (own, data) = (self.data.as_ref().unwrap(), tempfile::tempdir().unwrap());
        let mut config = self.config.replace(own.path().to_str().unwrap(), data.path().to_str().unwrap());
        for (from, to) in changes {
            assert!(config.contains(from), "{from}");
            config = config.replace(from, to);
        }
        let mut proxy = Proxy::spawn(&config);
        assert!(!proxy.wait_exit().success());
        proxy.log()
    }

    /// On servers that the test may stop and kill; durable ones.
    #[track_caller]
    pub fn private(more: &str) -> Self {
        Self::private_with(more, "")
    }

    /// The same with more tables.
    #[track_caller]
    pub fn private_with(more: &str, tables: &str) -> Self {
        let stack = PrivateStack::start(KeeperOptions { durable: true, ..KeeperOptions::default() });
        let (db, nodes) = (stack.fresh_database(), stack.redis_nodes());
        db.execute(tables);
        Self::make(db, nodes, String::new(), Stack::Private(stack), more)
    }

    #[track_caller]
    fn make(db: Database, nodes: Vec<String>, prefix: String, stack: Stack, more: &str) -> Self {
        db.execute(TABLES);
        let mappings = match more.contains(THROUGH) {
            true => MAPPINGS.replace("write = \"behind\"", "write = \"behind\"\ndurability = \"database\""),
            false if more.contains(WAIT) => {
                MAPPINGS.replace("write = \"behind\"", "write = \"behind\"\non_poison = \"wait\"")
            }
            false => MAPPINGS.to_owned(),
        };
        let more = format!("{more}\n{mappings}").replace("PREFIX", &prefix);
        let config = format!(
            "[upstream]\nnodes = {nodes:?}\nrefresh_interval = \"500ms\"\ncommand_timeout = \"2s\"\n\
             [database]\nurl = {:?}\n{more}",
            db.url()
        );
        Self { proxy: Proxy::start(&config), db, nodes, prefix, stack, config, data: None }
    }

    #[track_caller]
    pub fn stack(&self) -> &PrivateStack {
        match &self.stack {
            Stack::Private(stack) => stack,
            Stack::Shared(_) => panic!("the shared servers must not be touched"),
        }
    }

    /// `user:1` with this test's prefix.
    pub fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// `SET user:1 value` becomes a command on this test's keys: every argument that begins with `@` is a key.
    pub fn args(&self, args: &[&str]) -> Vec<String> {
        let own = |arg: &&str| arg.strip_prefix('@').map_or_else(|| (*arg).to_owned(), |key| self.key(key));
        args.iter().map(own).collect()
    }

    /// Runs one command over a connection of its own; arguments that begin with `@` are keys.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Value {
        self.proxy.connect().cmd(&self.args(args))
    }

    /// `GET` of a key with a value.
    #[track_caller]
    pub fn get(&self, key: &str) -> String {
        self.run(&["GET", &format!("@{key}")]).text()
    }

    /// The first column of the first row.
    #[track_caller]
    pub fn one(&self, sql: &str) -> Option<String> {
        self.db.query(sql).first().and_then(|row| row[0].clone())
    }

    /// Runs a command at the node that has the key, past the proxy.
    #[track_caller]
    pub fn direct(&self, args: &[&str]) -> Value {
        let args = self.args(args);
        let mut node = self.nodes[0].clone();
        loop {
            match Resp::connect(&*node).cmd(&args) {
                Value::Error(moved) if moved.starts_with("MOVED ") => {
                    node = moved.split(' ').nth(2).unwrap().to_owned();
                }
                value => return value,
            }
        }
    }

    /// Queries that loaded rows of `mapping`, failed ones too.
    #[track_caller]
    pub fn loads(&self, mapping: &str) -> f64 {
        let of = |outcome: &str| {
            format!("dsproxy_queries_total{{kind=\"load\",mapping=\"{mapping}\",outcome=\"{outcome}\"}}")
        };
        self.proxy.metric(&of("ok")) + self.proxy.metric(&of("error"))
    }

    /// Rows of `mapping` that wait for the database.
    #[track_caller]
    pub fn waiting(&self, mapping: &str) -> f64 {
        self.proxy.metric(&format!("dsproxy_write_behind_queue_rows{{mapping=\"{mapping}\"}}"))
    }

    /// Waits until nothing waits for the database.
    #[track_caller]
    pub fn wait_flushed(&self) {
        eventually(PATIENCE, "everything is flushed", || {
            self.waiting("user") + self.waiting("user_data") == 0.0
        });
    }
}

/// Another proxy beside that of a bed.
pub struct Beside {
    pub proxy: Proxy,
    config: String,
    _data: tempfile::TempDir,
}

impl Beside {
    /// Runs one command; arguments that begin with `@` are keys of `bed`.
    #[track_caller]
    pub fn run(&self, bed: &Bed, args: &[&str]) -> Value {
        self.proxy.connect().cmd(&bed.args(args))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.proxy.signal(rustix::process::Signal::KILL);
        self.proxy.wait_exit();
    }

    /// The next start has another configuration.
    pub fn change_config(&mut self, from: &str, to: &str) {
        assert!(self.config.contains(from), "{from}");
        self.config = self.config.replace(from, to);
    }

    /// Starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.proxy = Proxy::start(&self.config);
    }
}

/// A database session that stays, and what it holds with it.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Session {
    pub fn open(db: &Database) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(tokio_postgres::connect(db.url(), NoTls)).unwrap();
        runtime.spawn(connection);
        Self { runtime, client }
    }

    pub fn execute(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap();
    }
}

/// The row of a user as JSON, as it is in the fresh database.
pub fn user(n: u32) -> String {
    format!(r#"{{"id":{n},"name":"u{n}","email":null,"age":null}}"#)
}
