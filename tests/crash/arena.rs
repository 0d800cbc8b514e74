//! Two proxies, what stands behind them, the writers, and how all of it is hit.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;
use dsproxy::resp::push_command;
use dsproxy::sidecar::sidecar_key;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::check::{self, Found, Store};
use crate::letters::{self, Look};
use crate::load::Load;
use crate::model::Ending;
use crate::poison;
use crate::support::{PrivateStack, Resp, SharedStack, Value};
use crate::victim::{Setup, Victim};

/// A primary is away for at least so long: its replica takes over.
const FAILOVER: Duration = Duration::from_millis(2500);

/// What is done to the system in a round. All blows of a round fall before the first one is mended.
#[derive(Clone, Debug)]
pub enum Blow {
    /// `kill -9` of a proxy, which is started again.
    Proxy(usize),
    /// A proxy ends as it is asked to, and comes back at the end of the round: meanwhile the other one is alone.
    Leave(usize),
    /// A proxy dies at a fail point, when it comes by for the n-th time.
    FailPoint(usize, String, u32),
    /// `kill -9` of a proxy, and `dsproxy journal adopt` of what it leaves, which may die itself at a fail point.
    Adopt(usize, Option<String>),
    /// `kill -9` of Postgres.
    Postgres,
    /// `kill -9` of the n-th Redis primary.
    Redis(usize),
    /// Redis loses all entries of the writers and what it knows about them.
    Evict,
}

enum Servers {
    Shared(SharedStack),
    Private(PrivateStack),
}

pub struct Arena {
    /// Before the servers: it is dropped first.
    pub proxies: [Victim; 2],
    pub load: Load,
    pub store: Store,
    servers: Servers,
    /// How long it may take until somebody comes by a fail point.
    pub patience: Duration,
    /// How often something was hit, by name.
    pub tally: BTreeMap<String, u32>,
}

impl Arena {
    /// On servers of its own, every one of which may be killed.
    pub fn private(writers: usize) -> Self {
        let options =
            KeeperOptions { durable: true, replicas: 1, node_timeout_ms: 1000, ..KeeperOptions::default() };
        let stack = PrivateStack::start(options);
        let store = Store::postgres(stack.fresh_database());
        Self::make(Servers::Private(stack), store, writers, &[])
    }

    /// On the shared servers: only proxies are killed. `env`: of the proxies.
    pub fn shared(writers: usize, env: &[(&str, &str)]) -> Self {
        let stack = SharedStack::get();
        let store = Store::postgres(stack.fresh_database());
        Self::make(Servers::Shared(stack), store, writers, env)
    }

    /// The same over a SQLite file.
    pub fn sqlite(writers: usize) -> Self {
        Self::make(Servers::Shared(SharedStack::get()), Store::sqlite(), writers, &[])
    }

    fn make(servers: Servers, store: Store, writers: usize, env: &[(&str, &str)]) -> Self {
        let (nodes, prefix) = match &servers {
            Servers::Shared(stack) => (stack.redis_nodes().to_vec(), stack.key_prefix().to_owned()),
            Servers::Private(stack) => (stack.redis_nodes(), String::new()),
        };
        let setup = || Setup::new(&nodes, &store.url()).prefix(&prefix).env(env).more(poison::MAPPINGS);
        let mut proxies = [Victim::new(setup()), Victim::new(setup())];
        proxies.iter_mut().for_each(|proxy| proxy.start(None));
        let load = Load::new(writers, &prefix, proxies.each_ref().map(Victim::port));
        Self { proxies, load, store, servers, patience: Duration::from_millis(1500), tally: BTreeMap::new() }
    }

    /// Lets all writers write, strikes, mends, and when everything is in the database looks at what is there.
    pub fn round(&mut self, random: &mut StdRng, blows: &[Blow]) -> Found {
        let stop = Arc::new(AtomicBool::new(false));
        let running = self.load.run(random, &stop);
        let began = Instant::now();
        for blow in blows {
            pause(random, 20..250);
            self.strike(blow);
        }
        pause(random, 50..300);
        // Servers first: without them no proxy starts.
        blows.iter().for_each(|blow| self.mend_server(blow, began));
        blows.iter().for_each(|blow| self.mend_proxy(blow));
        self.proxies.iter_mut().for_each(Victim::ensure);
        pause(random, 50..200);
        stop.store(true, Ordering::Relaxed);
        self.load.join(running);
        self.proxies.iter_mut().for_each(Victim::ensure);
        self.proxies.iter().for_each(|proxy| proxy.wait_flushed(Duration::from_secs(60)));
        *self.tally.entry("rounds".into()).or_default() += 1;
        let mut found = check::check(&self.store, &mut self.load, &self.proxies);
        found.poisoned = self.end(random);
        found
    }

    /// Looks at the keys of which writes were refused, sees to their dead letters, and looks again; what is wrong with them.
    fn end(&mut self, random: &mut StdRng) -> Vec<String> {
        let ending = match self.tally["rounds"] % 4 {
            0 => Ending::Drop,
            2 => Ending::Keep,
            _ => Ending::Replay,
        };
        let mut wrong = letters::check(&self.store, &mut self.load, &self.proxies, Look::Before(ending));
        if ending != Ending::Keep {
            self.see_to_letters(random, ending);
            wrong.extend(letters::check(&self.store, &mut self.load, &self.proxies, Look::After(ending)));
        }
        wrong
    }

    /// Replays or drops all of them: over HTTP, or by the verb, which may die halfway first.
    fn see_to_letters(&mut self, random: &mut StdRng, ending: Ending) {
        let proxy = &self.proxies[random.random_range(0..2)];
        let by_verb = random.random_ratio(1, 3);
        let (method, path, verb) = match ending {
            Ending::Drop => ("DELETE", "/api/v1/dlq?which=all", &["dlq", "drop", "--all"][..]),
            _ => ("POST", "/api/v1/dlq/replay?which=all", &["dlq", "replay"][..]),
        };
        if ending == Ending::Replay {
            self.store.execute("insert into mercy values (true)");
        }
        if by_verb {
            // A second drop would drop more than the first.
            if ending == Ending::Replay {
                proxy.verb_to_die(verb, &format!("held.release:{}", random.random_range(1..20)));
            }
            let (done, report) = proxy.verb(verb);
            assert!(done, "{report}");
        } else {
            let answer = proxy.request(method, path);
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        self.store.execute("delete from mercy");
        self.count(match (ending, by_verb) {
            (Ending::Drop, false) => "letters dropped over HTTP",
            (Ending::Drop, true) => "letters dropped by the verb",
            (_, false) => "letters replayed over HTTP",
            (_, true) => "letters replayed by the verb that had died",
        });
    }

    fn count(&mut self, what: &str) {
        *self.tally.entry(what.to_owned()).or_default() += 1;
    }

    fn strike(&mut self, blow: &Blow) {
        println!("  {blow:?}");
        match blow {
            Blow::Proxy(which) => {
                self.proxies[*which].kill();
                self.proxies[*which].spawn(None);
                self.count("proxies killed");
            }
            Blow::Leave(which) => {
                // It cannot end as it should where a server is away.
                let left = self.proxies[*which].leave(Duration::from_secs(5));
                self.count(if left { "proxies left" } else { "proxies that could not leave" });
            }
            Blow::FailPoint(which, name, count) => {
                self.proxies[*which].kill();
                self.proxies[*which].spawn(Some(&format!("{name}:{count}")));
            }
            Blow::Adopt(which, failpoint) => {
                self.proxies[*which].kill();
                let data = self.proxies[*which].data().display().to_string();
                let adopted = self.proxies[1 - *which].adopt(&data, failpoint.as_deref());
                // It cannot where Postgres is away, or where it was to die on its way: nothing is lost by that.
                self.count(if adopted { "journals adopted" } else { "adoptions that died or failed" });
                self.proxies[*which].spawn(None);
            }
            Blow::Postgres => {
                self.own_servers().kill("postgres");
                self.count("Postgres killed");
            }
            Blow::Redis(which) => {
                let name = self.primary(*which);
                self.own_servers().kill(&name);
                self.count("Redis primaries killed");
            }
            Blow::Evict => {
                self.evict();
                self.count("evictions");
            }
        }
    }

    fn mend_server(&mut self, blow: &Blow, began: Instant) {
        match blow {
            Blow::Postgres => self.own_servers().start_server("postgres"),
            Blow::Redis(_) => {
                // How long the outage lasts; nothing is waited for.
                std::thread::sleep(FAILOVER.saturating_sub(began.elapsed()));
                let stack = self.own_servers();
                let dead: Vec<String> = nodes_of(stack).filter(|(_, up)| !up).map(|(name, _)| name).collect();
                dead.iter().for_each(|name| stack.start_server(name));
            }
            _ => {}
        }
    }

    fn mend_proxy(&mut self, blow: &Blow) {
        if let Blow::Leave(which) = blow {
            self.proxies[*which].kill();
            return self.proxies[*which].spawn(None);
        }
        let Blow::FailPoint(which, name, _) = blow else { return };
        if self.proxies[*which].wait_death(self.patience) {
            self.count(&format!("died at {name}"));
        }
        // It may not come by often enough; then it is killed in the end as any other.
        self.proxies[*which].kill();
        self.proxies[*which].spawn(None);
    }

    fn own_servers(&self) -> &PrivateStack {
        match &self.servers {
            Servers::Private(stack) => stack,
            Servers::Shared(_) => panic!("the shared servers must not be touched"),
        }
    }

    /// The name of one of the nodes that are primaries now.
    fn primary(&self, which: usize) -> String {
        let stack = self.own_servers();
        let nodes = stack.redis_nodes();
        let is_primary = |at: &usize| {
            let Ok(mut node) = Resp::try_connect(&*nodes[*at]) else { return false };
            matches!(node.cmd(&["ROLE"]), Value::Array(role) if role.first() == Some(&"master".into()))
        };
        let primaries: Vec<usize> = (0..nodes.len()).filter(is_primary).collect();
        format!("redis-{}", primaries[which % primaries.len()])
    }

    fn evict(&self) {
        let nodes = match &self.servers {
            Servers::Shared(stack) => stack.redis_nodes().to_vec(),
            Servers::Private(stack) => stack.redis_nodes(),
        };
        evict(&nodes, &self.load.keys());
    }

    pub fn logs(&self) -> String {
        self.proxies.iter().map(Victim::log_tail).collect::<Vec<_>>().join("\n---\n")
    }
}

/// Redis loses these keys and what it knows about them.
pub fn evict(nodes: &[String], keys: &[Vec<u8>]) {
    for node in nodes {
        // One that was killed a moment ago has nothing to lose.
        let Ok(mut node) = Resp::try_connect(&**node) else { continue };
        let mut requests = Vec::new();
        for key in keys {
            // Each node refuses what is another one's.
            push_command(&mut requests, [b"DEL".as_slice(), key, &sidecar_key(key)]);
        }
        if node.stream().write_all(&requests).is_ok() {
            let _ = keys.iter().try_for_each(|_| node.try_recv().map(drop));
        }
    }
}

fn pause(random: &mut StdRng, ms: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(random.random_range(ms)));
}

/// Names of the nodes, and whether they answer.
fn nodes_of(stack: &PrivateStack) -> impl Iterator<Item = (String, bool)> {
    let nodes = stack.redis_nodes().into_iter().enumerate();
    nodes.map(|(at, node)| (format!("redis-{at}"), Resp::try_connect(&*node).is_ok()))
}
