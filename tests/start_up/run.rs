//! Runs the program to its end.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Whatever is wrong is said within this.
const SOON: Duration = Duration::from_secs(10);

/// How a run ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    pub success: bool,
    pub out: String,
    pub err: String,
}

/// The program without the variables of whoever runs the tests.
pub fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["DATABASE_URL", "REDIS_NODES", "PROXY_ADDR", "HTTP_ADDR"].contains(&&*text);
        if ours || text.starts_with("DSPROXY_") {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// Runs `dsproxy args` in `dir`; panics when it does not end by itself, or panics.
#[track_caller]
pub fn run(dir: &Path, args: &[&str]) -> Ran {
    let mut child = program(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + SOON;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("{args:?} still runs after {SOON:?}: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { success: status.success(), out: text(stdout), err: text(stderr) };
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    ran
}

/// Runs `dsproxy verb` with this proxy.toml; what it says on the standard error output when it fails, as it must.
#[track_caller]
pub fn complaint(verb: &str, config: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("proxy.toml"), config).unwrap();
    let ran = run(dir.path(), &[verb]);
    assert!(!ran.success, "{ran:?}");
    ran.err
}

/// Panics unless all parts are in the text.
#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}
