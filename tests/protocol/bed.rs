//! Several proxies before one cluster and one database, whose queries the test slows down, breaks and counts.

use std::time::Duration;

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::sidecar::sidecar_key;

use crate::support::{Database, PrivateStack, Proxy, Resp, Value};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Environment of proxies that do not give up a query while the test holds it.
pub const PATIENT: &[(&str, &str)] = &[("DSPROXY_DATABASE_STATEMENT_TIMEOUT", "20s")];

/// `gate` runs once per query, after its snapshot was taken.
const TABLES: &str = "create table item (id bigint primary key, v text not null); create sequence loads; \
    create table knobs (sleep float8, fail boolean, hold boolean); insert into knobs values (0, false, false); \
    create function gate() returns int volatile language plpgsql as $$ declare k knobs; begin \
      perform nextval('loads'); select * into k from knobs; \
      if k.fail then raise exception 'broken' using errcode = '57P01'; end if; \
      perform pg_sleep(k.sleep); \
      while k.hold loop perform pg_sleep(0.01); select * into k from knobs; end loop; return 1; end $$; \
    create table kept (id bigint primary key, v text); insert into item select i, 'v' || i from generate_series(1, 20000) i; analyze item";

pub struct Bed {
    pub proxies: Vec<Proxy>,
    pub db: Database,
    pub stack: PrivateStack,
    config: String,
}

impl Bed {
    /// `mapping`: more lines of the mapping; `more`: sections.
    #[track_caller]
    pub fn start(proxies: usize, mapping: &str, more: &str) -> Self {
        let stack = Self::servers();
        Self::on(stack, proxies, mapping, more)
    }

    pub fn servers() -> PrivateStack {
        PrivateStack::start(KeeperOptions { node_timeout_ms: 1000, ..KeeperOptions::default() })
    }

    #[track_caller]
    pub fn on(stack: PrivateStack, proxies: usize, mapping: &str, more: &str) -> Self {
        Self::with(stack, proxies, mapping, more, &[])
    }

    /// `env`: of the proxies.
    #[track_caller]
    pub fn with(
        stack: PrivateStack,
        proxies: usize,
        mapping: &str,
        more: &str,
        env: &[(&str, &str)],
    ) -> Self {
        let db = stack.fresh_database();
        db.execute(TABLES);
        let config = format!(
            "[upstream]\nnodes = {:?}\nrefresh_interval = \"500ms\"\ncommand_timeout = \"5s\"\n\
             [database]\nurl = {:?}\nstatement_timeout = \"2s\"\n{more}\n\
             [[mapping]]\nname = \"item\"\nkey = \"item:{{id}}\"\nid = \"bigint\"\nformat = \"text\"\ncolumn = \"v\"\n\
             load = \"select i.id, i.v from item i, gate() where i.id = any($1)\"\n{mapping}\n",
            stack.redis_nodes(),
            db.url()
        );
        // `$DB` stands for the name of the database.
        let config = config.replace("$DB", db.url().rsplit('/').next().unwrap());
        let start = |_| {
            let mut proxy = Proxy::spawn_with(&config, env);
            proxy.wait_ready();
            proxy
        };
        let proxies = (0..proxies).map(start).collect();
        Self { proxies, db, stack, config }
    }

    /// Starts a proxy again, which has ended.
    #[track_caller]
    pub fn restart(&mut self, proxy: usize) {
        self.proxies[proxy] = Proxy::start(&self.config);
    }

    /// How long each query takes from now on, in seconds.
    pub fn slow(&self, seconds: f64) {
        self.db.execute(&format!("update knobs set sleep = {seconds}"));
    }

    /// Queries end when this is over, and not before: what the test waits for meanwhile may take its time. The proxies need
    /// [`PATIENT`] for it.
    pub fn hold(&self, hold: bool) {
        self.db.execute(&format!("update knobs set hold = {hold}"));
    }

    pub fn fail(&self, fail: bool) {
        self.db.execute(&format!("update knobs set fail = {fail}"));
    }

    pub fn write(&self, id: u64, value: &str) {
        self.db.execute(&format!(
            "insert into item values ({id}, '{value}') on conflict (id) do update set v = excluded.v"
        ));
    }

    /// Queries so far.
    pub fn loads(&self) -> u64 {
        let row = self.db.query("select case when is_called then last_value else 0 end::text from loads");
        row[0][0].as_ref().unwrap().parse().unwrap()
    }

    /// Runs a command at the node that has the key.
    #[track_caller]
    pub fn direct(&self, args: &[&str]) -> Value {
        let mut node = self.stack.redis_nodes()[0].clone();
        loop {
            match Resp::connect(&*node).cmd(args) {
                Value::Error(moved) if moved.starts_with("MOVED ") => {
                    node = moved.split(' ').nth(2).unwrap().to_owned();
                }
                value => return value,
            }
        }
    }

    /// A field of the sidecar of a key.
    #[track_caller]
    pub fn sidecar(&self, key: &str, field: &str) -> Option<String> {
        let side = String::from_utf8(sidecar_key(key.as_bytes())).unwrap();
        match self.direct(&["HGET", &side, field]) {
            Value::Nil => None,
            // The short form of a lease.
            Value::Error(_) if field == "l" => Some(self.direct(&["GET", &side]).text()),
            Value::Error(_) => None,
            value => Some(value.text()),
        }
    }
}
