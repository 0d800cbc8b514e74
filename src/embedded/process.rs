//! A child process that cannot outlive us.
//!
//! Must not know: what the programs are for.
//!
//! Every child is started as `setpriv --pdeathsig SIG [--reuid USER ...] sh -c '<parent check>' PROGRAM`: the kernel
//! sends it SIG when its parent is gone, also after `kill -9`, where no code of ours can run. `setpriv` changes the
//! user first and sets the signal last (the kernel forgets the signal on a change of user), and the shell makes sure
//! that the parent did not die before the signal was set; then it `exec`s, so the pid stays the same throughout.
//!
//! **The signal is bound to the parent THREAD.** The kernel sends it when the thread that spawned the child ends, so
//! children must be spawned from a thread that lives as long as they should: in the program, the main thread. (A thread
//! that ends within the first milliseconds is not noticed at all; a process that does is.)
//!
//! Every child leads its own process group: Ctrl-C in a terminal reaches us only, and we stop the children in order.
//! (It also frees paused children: when we die the kernel continues the stopped members of an orphaned group.)

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::StackError;

/// How often a condition is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// A log larger than this many bytes is started anew with the next child.
const LOG_BYTES: u64 = 4 << 20;

/// Exits unless our parent is still the one that spawned us, then becomes the program.
const PARENT_CHECK: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;

/// What the kernel sends a child when its parent is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeathSignal {
    /// A clean stop for Redis.
    Term,
    /// A fast shutdown for Postgres.
    Int,
    /// An immediate shutdown for Postgres.
    Quit,
    /// At once, when nothing is worth keeping.
    Kill,
}

impl DeathSignal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
        }
    }

    /// The same signal, to be sent by ourselves.
    pub fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
            Self::Quit => Signal::QUIT,
            Self::Kill => Signal::KILL,
        }
    }
}

/// How to start a child.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its name in messages.
    pub name: String,
    /// The program, as a path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Where its standard output and error go (appended).
    pub log: PathBuf,
    /// Run it as this user (we are root), or as ourselves.
    pub user: Option<String>,
    /// What it gets when we are gone.
    pub death_signal: DeathSignal,
}

/// A running child; dropping it kills it.
#[derive(Debug)]
pub struct Supervised {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: u64,
}

impl Supervised {
    /// Starts a child from this thread (see the module's warning on threads).
    ///
    /// # Errors
    /// [`StackError::MissingProgram`] without `setpriv`, [`StackError::Io`] when the log or the process cannot be had.
    pub fn spawn(launch: &Launch) -> Result<Self, StackError> {
        let setpriv = find_program("setpriv", &[], "util-linux")?;
        let (log, log_start) =
            open_log(&launch.log).map_err(StackError::io("cannot open log", &launch.log))?;
        let also = log.try_clone().map_err(StackError::io("cannot open log", &launch.log))?;
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", launch.death_signal.name()]);
        if let Some(user) = &launch.user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.args(["/bin/sh", "-c", PARENT_CHECK, "parent-check"]).arg(std::process::id().to_string());
        command.arg(&launch.program).args(&launch.args);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").current_dir(&launch.cwd);
        command.stdin(Stdio::null()).stdout(log).stderr(also).process_group(0);
        let child = command.spawn().map_err(StackError::io("cannot start", &launch.program))?;
        Ok(Self { name: launch.name.clone(), child, log: launch.log.clone(), log_start })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a signal; one that is already gone is fine.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Not yet waited for (that takes `&mut`), so the pid cannot belong to somebody else.
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error with the end of its log if it has ended.
    ///
    /// # Errors
    /// [`StackError::Died`].
    pub fn still_runs(&mut self) -> Result<(), StackError> {
        match self.exited() {
            None => Ok(()),
            Some(status) => Err(self.died(status)),
        }
    }

    /// The error for an end that was not wanted.
    pub fn died(&self, status: ExitStatus) -> StackError {
        StackError::Died {
            name: self.name.clone(),
            status: status.to_string(),
            log: self.log.clone(),
            tail: log_tail(&self.log, self.log_start),
        }
    }

    /// Waits for its end; `None` when `deadline` comes first.
    pub fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end until `deadline`, then kills it. Send the polite signal first.
    pub fn finish(&mut self, deadline: Instant) {
        if self.wait_until(deadline).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.finish(Instant::now());
    }
}

/// Looks for `program` in PATH and then in `also`.
///
/// # Errors
/// [`StackError::MissingProgram`].
pub fn find_program(program: &str, also: &[PathBuf], package: &'static str) -> Result<PathBuf, StackError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(also.iter().cloned())
        .chain(sbin)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| StackError::MissingProgram { program: program.to_owned(), package })
}

/// True while a process of this id runs; one that has ended but was not waited for does not.
pub fn runs(pid: u32) -> bool {
    // The state follows the name, which is in parentheses and may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !stat.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The processes named one of `names` whose working directory is `dir` or below it.
pub(crate) fn running_below(dir: &Path, names: &[&str]) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        names.contains(&comm.trim_end()) && cwd.starts_with(dir) && runs(*pid)
    })
    .collect()
}

/// Kills a process that is no child of ours.
pub(crate) fn kill_stray(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn open_log(path: &Path) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= LOG_BYTES {
        return Ok((file, length));
    }
    file.set_len(0)?;
    Ok((file, 0))
}

/// The last lines written at or after `start`.
fn log_tail(path: &Path, start: u64) -> String {
    const LINES: usize = 12;
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.seek(SeekFrom::Start(start));
        let _ = file.read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn launch(dir: &Path, script: &str) -> Launch {
        Launch {
            name: "child".to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            cwd: dir.to_owned(),
            log: dir.join("log"),
            user: None,
            death_signal: DeathSignal::Kill,
        }
    }

    #[test]
    fn a_missing_program_names_the_cure() {
        let error = find_program("no-such-program", &[], "some-package").unwrap_err().to_string();
        assert!(
            error.contains("no-such-program") && error.contains("apt-get install some-package"),
            "{error}"
        );
    }

    #[test]
    fn an_early_end_shows_its_own_last_words() {
        let dir = tempfile::tempdir().unwrap();
        for words in ["first", "second"] {
            let mut child =
                Supervised::spawn(&launch(dir.path(), &format!("echo {words} words; exit 3"))).unwrap();
            child.wait_until(Instant::now() + Duration::from_secs(10)).unwrap();
            let error = child.still_runs().unwrap_err().to_string();
            assert!(error.contains("exit status: 3") && error.contains(&format!("{words} words")), "{error}");
            assert!(words == "first" || !error.contains("first"), "{error}");
        }
    }

    #[test]
    fn a_child_ends_with_the_thread_that_spawned_it() {
        let dir = tempfile::tempdir().unwrap();
        let launch = launch(dir.path(), "echo up; exec sleep 100");
        // A thread that ends before the child has asked for the signal is not noticed: the process still is there.
        let spawn = move || {
            let child = Supervised::spawn(&launch).unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while !log_tail(&launch.log, 0).contains("up") {
                assert!(Instant::now() < deadline);
                std::thread::sleep(POLL);
            }
            child
        };
        let mut child = std::thread::spawn(spawn).join().unwrap();
        assert!(child.wait_until(Instant::now() + Duration::from_secs(10)).is_some());
        assert!(!runs(child.pid()));
    }
}
