//! An example that runs: its files, an environment, fresh servers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dsproxy::embedded::free_ports;
use dsproxy::embedded::keeper::KeeperOptions;

use crate::support::{Database, Http, PrivateStack, Resp, Value};

/// Deadline for being ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running example.
pub struct Example {
    child: Child,
    pub http: u16,
    pub resp: u16,
    pub db: Option<Database>,
    pub stack: PrivateStack,
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
    config: PathBuf,
}

impl Example {
    /// Migrates, then serves `examples/NAME`. `environment` gets the stack and a port for HTTP, and names the variables
    /// that the example knows; `$DIR` in a value is a directory of this run.
    #[track_caller]
    pub fn start(
        name: &str,
        environment: impl FnOnce(&PrivateStack, &Database, u16) -> Vec<(&'static str, String)>,
    ) -> Self {
        let stack = PrivateStack::start(KeeperOptions::default());
        let db = stack.fresh_database();
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(2).unwrap();
        let (resp, http) = (ports[0], ports[1]);
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let config = here.join("proxy.toml");
        let mut environment: Vec<(String, String)> = environment(&stack, &db, http)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.replace("$DIR", &dir.path().display().to_string())))
            .collect();
        environment.push(("RESP_PORT".to_owned(), resp.to_string()));
        let migrated = command(&config, &environment, dir.path())
            .args(["migrate", "--config"])
            .arg(&config)
            .arg("--migrations")
            .arg(here.join("migrations"))
            .arg("up")
            .output()
            .unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let child = serve(&config, &environment, dir.path());
        let mut example = Self { child, http, resp, db: Some(db), stack, dir, environment, config };
        example.wait_ready();
        example
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        while Http::try_get(self.http, "/health/ready").is_none_or(|answer| answer.status != 200) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "not ready: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the proxy and starts it again with another environment.
    #[track_caller]
    pub fn restart_with(&mut self, more: &[(&str, &str)]) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.environment.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.child = serve(&self.config, &self.environment, self.dir.path());
        self.wait_ready();
    }

    /// What the program says that does not start with this variable.
    #[track_caller]
    pub fn refused_with(&self, variable: &str, value: &str) -> String {
        let mut command = command(&self.config, &self.environment, self.dir.path());
        let Output { status, stderr, .. } = command.env(variable, value).arg("check").output().unwrap();
        assert!(!status.success(), "{variable}={value}");
        String::from_utf8(stderr).unwrap()
    }

    /// Runs another verb of the program in this example's environment; what it printed.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            command(&self.config, &self.environment, self.dir.path()).args(args).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Http {
        Http::try_get(self.http, path).unwrap()
    }

    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &str) -> Http {
        Http::try_request(self.http, method, path, body).unwrap()
    }

    #[track_caller]
    pub fn send_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Http {
        Http::try_request_with(self.http, method, path, headers, body).unwrap()
    }

    pub fn redis(&self) -> Resp {
        Resp::connect(("127.0.0.1", self.resp))
    }

    /// Runs a command at the node that has the key, past the proxy.
    #[track_caller]
    pub fn in_redis(&self, args: &[&str]) -> Value {
        let mut node = self.stack.redis_nodes().swap_remove(0);
        loop {
            match Resp::connect(&*node).cmd(args) {
                Value::Error(moved) if moved.starts_with("MOVED ") => {
                    node = moved.split(' ').nth(2).unwrap().to_owned();
                }
                value => return value,
            }
        }
    }

    /// What the database answers to a query of one value.
    #[track_caller]
    pub fn one(&self, sql: &str) -> Option<String> {
        self.db.as_ref().unwrap().query(sql).into_iter().next()?.into_iter().next()?
    }

    /// The value of a metric, by its name and labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let found = page.lines().filter_map(|line| line.rsplit_once(' ')).find(|(key, _)| *key == name);
        found.map_or(0.0, |(_, value)| value.parse().unwrap())
    }

    /// Runs the lines of the example's README that begin with `curl`, with this run's port, as a shell does; each with what
    /// it printed.
    #[track_caller]
    pub fn readme(&self, published: u16) -> Vec<(String, String)> {
        let readme = std::fs::read_to_string(self.config.with_file_name("README.md")).unwrap();
        let joined = readme.replace("\\\n", " ");
        let mut seen = Vec::new();
        let mut script = None::<String>;
        for line in joined.lines() {
            // A body may go over several lines, within its quotes.
            let text = match script.take() {
                Some(before) => format!("{before}\n{line}"),
                None if line.starts_with("curl ") || line.starts_with("time curl ") => line.to_owned(),
                None => continue,
            };
            if text.matches('\'').count() % 2 == 1 {
                script = Some(text);
                continue;
            }
            let here = text.replace(&format!("localhost:{published}"), &format!("127.0.0.1:{}", self.http));
            let Output { status, stdout, stderr } =
                Command::new("bash").args(["-c", &here]).output().unwrap();
            assert!(status.success(), "{here}: {}", String::from_utf8_lossy(&stderr));
            seen.push((text, String::from_utf8(stdout).unwrap()));
        }
        seen
    }
}

fn command(config: &Path, environment: &[(String, String)], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
    command.env_clear().envs(environment.iter().cloned()).current_dir(dir).env("DSPROXY_CONFIG", config);
    command
}

fn serve(config: &Path, environment: &[(String, String)], dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    command(config, environment, dir)
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr().lock(), "--- the proxy's log:\n{}---", self.log());
        }
    }
}

/// The parts of a database URL, as users give them one by one.
pub fn parts(db: &Database) -> Vec<(&'static str, String)> {
    let config: tokio_postgres::Config = db.url().parse().unwrap();
    let host = match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(host) => host.clone(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    };
    vec![
        ("DB_HOST", host),
        ("DB_PORT", config.get_ports()[0].to_string()),
        ("DB_USER", config.get_user().unwrap().to_owned()),
        ("DB_PASS", String::from_utf8(config.get_password().unwrap_or(b"unused").to_vec()).unwrap()),
        ("DB_NAME", config.get_dbname().unwrap().to_owned()),
    ]
}

/// The cluster, as REDIS_ADDR.
pub fn cluster(stack: &PrivateStack) -> Vec<(&'static str, String)> {
    vec![("REDIS_MODE", "cluster".to_owned()), ("REDIS_ADDR", stack.redis_nodes().join(","))]
}
