//! Fills from a real streaming replica, whose replay is paused, which is promoted and killed: never a row from before an
//! invalidation.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dsproxy::embedded::keeper::KeeperOptions;

use crate::bed::{Bed, PATIENCE};
use crate::support::{PrivateStack, Value, eventually, run_sql};

const MAPPINGS: &str = r#"
[[mapping]]
name = "row"
key = "row:{id}"
table = "item"
id = "bigint"
format = "text"
column = "v"
[[mapping]]
name = "where"
key = "where:{id}"
id = "bigint"
format = "text"
column = "v"
load = "select id, case when pg_is_in_recovery() then 'replica' else 'primary' end as v from item where id = any($1)"
"#;

struct Replica {
    server: Child,
    /// `postgres://user:password@host:port`
    url: String,
    _dir: tempfile::TempDir,
}

/// A program of Postgres, run as the user that may run it.
fn program(name: &str) -> Command {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("bin").join(name)).find(|path| path.exists());
    let path = found.unwrap_or_else(|| PathBuf::from(name));
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--pdeathsig", "KILL"])
        .arg(path);
    command
}

impl Replica {
    #[track_caller]
    fn of(stack: &PrivateStack) -> Self {
        let (server, _) =
            stack.database_url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let (user, rest) = server.strip_prefix("postgres://").unwrap().split_once(':').unwrap();
        let (password, address) = rest.split_once('@').unwrap();
        let (host, port) = address.split_once(':').unwrap();
        let dir = tempfile::tempdir().unwrap();
        // The data directory is made inside, by and for whoever runs the server.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = dir.path().join("data");
        let done = program("pg_basebackup")
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-h", host, "-p", port, "-U", user, "-D"])
            .arg(&data)
            .env("PGPASSWORD", password)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={own}"),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            "dynamic_shared_memory_type=mmap".to_owned(),
            "fsync=off".to_owned(),
        ];
        let server = program("postgres")
            .arg("-D")
            .arg(&data)
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("postgres://{user}:{password}@{host}:{own}");
        let replica = Self { server, url, _dir: dir };
        eventually(PATIENCE, "the replica answers", || {
            run_sql(&format!("{}/dsproxy", replica.url), "select 1").is_ok()
        });
        replica
    }

    fn run(&self, sql: &str) {
        run_sql(&format!("{}/dsproxy", self.url), sql).unwrap();
    }

    fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where rows are loaded from; every id is asked for once.
fn loaded_from(bed: &Bed, ids: &mut impl Iterator<Item = u64>) -> String {
    bed.proxies[0].connect().cmd(&["GET", &format!("where:{}", ids.next().unwrap())]).text()
}

fn outcomes(bed: &Bed, outcome: &str) -> f64 {
    let name = format!("dsproxy_database_replica_loads_total{{outcome=\"{outcome}\"}}");
    bed.proxies.iter().map(|proxy| proxy.metric(&name)).sum()
}

/// Changes a row at the primary, says so through one proxy, and reads it.
fn change_and_read(bed: &Bed, id: u64, value: &str, proxy: usize) {
    bed.write(id, value);
    let mut client = bed.proxies[proxy].connect();
    let key = format!("row:{id}");
    client.cmd(&["DEL", &key]);
    assert_eq!(client.cmd(&["GET", &key]), Value::from(value), "{key}");
}

#[test]
fn a_replica_is_used_when_it_has_seen_everything_and_never_otherwise() {
    let stack = PrivateStack::start(KeeperOptions::default());
    let mut replica = Replica::of(&stack);
    let more = format!("replicas = [\"{}/$DB\"]\nreplica_wait = \"300ms\"\n{MAPPINGS}", replica.url);
    let bed = Bed::on(stack, 2, "", &more);
    let mut ids = 1..20_000u64;
    eventually(PATIENCE, "rows come from the replica", || loaded_from(&bed, &mut ids) == "replica");
    assert!(outcomes(&bed, "served") >= 1.0);
    // It lags: nothing may come from it.
    replica.run("select pg_wal_replay_pause()");
    for n in 0..10 {
        change_and_read(&bed, 1 + n % 3, &format!("paused {n}"), n as usize % 2);
        assert_eq!(loaded_from(&bed, &mut ids), "primary");
    }
    assert!(outcomes(&bed, "behind") >= 1.0);
    replica.run("select pg_wal_replay_resume()");
    eventually(PATIENCE, "it has caught up", || loaded_from(&bed, &mut ids) == "replica");
    // It stops and goes on at random.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                replica.run("select pg_wal_replay_pause()");
                std::thread::sleep(Duration::from_millis(rand::random_range(0..60)));
                replica.run("select pg_wal_replay_resume()");
                std::thread::sleep(Duration::from_millis(rand::random_range(0..200)));
            }
        });
        let (started, served) = (Instant::now(), outcomes(&bed, "served"));
        let mut n = 0;
        while started.elapsed() < Duration::from_secs(3)
            || (outcomes(&bed, "served") - served < 5.0 && started.elapsed() < PATIENCE)
        {
            change_and_read(&bed, 10 + n % 5, &format!("random {n}"), n as usize % 2);
            n += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(outcomes(&bed, "served") - served >= 5.0, "the replica took no part in {n} changes");
    });
    // It becomes a primary of its own.
    replica.run("select pg_promote()");
    for n in 0..5 {
        change_and_read(&bed, 20, &format!("promoted {n}"), n % 2);
        assert_eq!(loaded_from(&bed, &mut ids), "primary");
    }
    replica.kill();
    for n in 0..5 {
        let started = Instant::now();
        change_and_read(&bed, 21, &format!("killed {n}"), n % 2);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}
