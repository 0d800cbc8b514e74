//! The small files of a stack's directory: its lock, what it remembers between runs, the env file.
//!
//! Must not know: processes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StackError;

/// Held while a process uses the directory; the kernel lets go of it when that process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock of `dir`, which exists.
    ///
    /// # Errors
    /// [`StackError::InUse`] with the holder's pid.
    pub fn take(dir: &Path) -> Result<Self, StackError> {
        let path = dir.join("lock");
        let failed = "cannot lock";
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(StackError::io(failed, &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "?".to_owned() } else { pid.trim().to_owned() };
                return Err(StackError::InUse { dir: dir.to_owned(), pid });
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(StackError::io(failed, &path)(error)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(StackError::io(failed, &path))?;
        Ok(Self { _file: file })
    }
}

/// What a stack remembers between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub shards: usize,
    pub replicas: usize,
    /// Client port and cluster bus port of each node.
    pub redis_ports: Vec<(u16, u16)>,
    pub postgres_port: u16,
    /// All slots were served once: what the nodes' directories hold is a cluster.
    pub cluster_formed: bool,
    /// `initdb` finished: what Postgres' directory holds is a database.
    pub postgres_initialised: bool,
}

impl Memory {
    /// What the last run left; the default when there was none, or its file is no longer readable.
    pub fn load(dir: &Path) -> Self {
        let text = std::fs::read(dir.join("stack.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub fn save(&self, dir: &Path) -> Result<(), StackError> {
        let path = dir.join("stack.json");
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        text.and_then(|text| write_private(&path, &text)).map_err(StackError::io("cannot write", &path))
    }
}

/// Writes `KEY='value'` lines for `. FILE` in a shell: readable by the owner only, replaced as a whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_env_file(path: &Path, values: &[(&str, String)]) -> Result<(), StackError> {
    let mut text = String::new();
    for (key, value) in values {
        text.push_str(&format!("{key}={}\n", shell_word(value)));
    }
    write_private(path, text.as_bytes()).map_err(StackError::io("cannot write", path))
}

/// A word a POSIX shell reads back as `value`.
fn shell_word(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+./:,@%=".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Replaces `path` atomically by a file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Creates a directory (parents too) that others may pass through but not list.
pub(crate) fn create_dir(path: &Path) -> Result<(), StackError> {
    let failed = StackError::io("cannot create", path);
    DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(failed)
}

/// Removes a file or a directory with all it holds; absence is fine.
pub(crate) fn remove(path: &Path) -> Result<(), StackError> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StackError::io("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_env_file_is_private_and_read_back_by_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        let odd = "it's $HOME `x` \"y\"";
        write_env_file(&path, &[("PLAIN", "127.0.0.1:1,b".into()), ("ODD", odd.into())]).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let script = r#". "$0"; printf '%s|%s' "$PLAIN" "$ODD""#;
        let seen = std::process::Command::new("/bin/sh").args(["-c", script]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout), format!("127.0.0.1:1,b|{odd}"));
    }

    #[test]
    fn a_second_holder_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let second = DirLock::take(dir.path()).unwrap_err().to_string();
        assert!(second.contains(&format!("pid {}", std::process::id())), "{second}");
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }
}
