//! A private Postgres per test: own directory, own port, gone when the value is dropped.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dsproxy::mapping::{MappingSet, MappingSpec};
use dsproxy::source::{Postgres, PostgresOptions, Source};
use tokio_postgres::{Client, NoTls};

const BIN: &str = "/usr/lib/postgresql/15/bin";

pub struct Pg {
    directory: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--pdeathsig", "QUIT"]);
    command.arg(Path::new(BIN).join(program)).stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
    command
}

impl Pg {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut pg = Self { directory, port, server: None };
        let status = as_postgres("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(pg.data())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        pg.run();
        pg
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the server on its directory and waits until it takes connections.
    pub fn run(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
            let mut server = as_postgres("postgres")
                .args([
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    "fsync=off",
                    "-c",
                    "max_connections=60",
                    "-c",
                ])
                .arg(format!("unix_socket_directories={}", self.directory.path().display()))
                .args(["-p", &self.port.to_string(), "-D"])
                .arg(self.data())
                .stderr(log)
                .spawn()
                .unwrap();
            while server.try_wait().unwrap().is_none() && Instant::now() < deadline {
                let ready = as_postgres("pg_isready")
                    .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                    .status();
                if ready.unwrap().success() {
                    self.server = Some(server);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = server.kill(); // the last server's children may still be on their way out: again
            let _ = server.wait();
        }
        panic!(
            "Postgres does not start: {}",
            std::fs::read_to_string(self.directory.path().join("log")).unwrap()
        );
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres:sesame@127.0.0.1:{}/postgres", self.port)
    }

    pub async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    /// The first column of the first row, as text.
    pub async fn one(&self, sql: &str) -> String {
        let row =
            self.client().await.query_one(&format!("select x::text from ({sql}) q(x)"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub async fn source(&self, specs: Vec<MappingSpec>) -> Source {
        let options = PostgresOptions { wait_timeout: Duration::from_secs(2), ..PostgresOptions::default() };
        let postgres = Postgres::connect(&self.url(), &options).await.unwrap();
        Source::open(postgres, MappingSet::new(specs).unwrap()).await.unwrap()
    }
}

impl Drop for Pg {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            if let Some(pid) = rustix::process::Pid::from_raw(server.id() as i32) {
                // Not SIGKILL: an immediate shutdown removes the shared memory too.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            }
            let _ = server.wait();
        }
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited 20 s for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
