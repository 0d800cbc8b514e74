//! The directory of a journal: its lock, its files.
//!
//! Must not know: what is in a segment.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::error::OpenError;

/// Ending of a segment's name.
const SEGMENT: &str = "journal";
/// Ending of the name of a segment that is being made.
const UNFINISHED: &str = "new";

/// A locked directory. The lock ends with this value, or with the process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Makes it where it is missing, and locks it.
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::io("create", path))?;
        let file = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(OpenError::io("open", &file))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let owner = match owner.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(OpenError::Locked { directory: path.to_owned(), owner });
            }
            Err(error) => return Err(OpenError::io("lock", &file)(error.into())),
        }
        let pid = std::process::id().to_string();
        lock.set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| lock.write_all(pid.as_bytes()))
            .map_err(OpenError::io("write", &file))?;
        let directory = Self { path: path.to_owned(), lock };
        directory.remove_unfinished()?;
        Ok(directory)
    }

    /// Gives it back before the end of this value. Nothing may be written any more.
    pub fn release(&self) {
        // It fails on a bad descriptor only.
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what was created, renamed or removed in it durable.
    pub fn sync(&self) -> std::io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// The name of the segment that starts with `first`, and its name while it is being made.
    pub fn names(&self, first: u64) -> (PathBuf, PathBuf) {
        let name = |ending| self.path.join(format!("{first:020}.{ending}"));
        (name(SEGMENT), name(UNFINISHED))
    }

    /// A crash left them; nothing was written to them yet.
    fn remove_unfinished(&self) -> Result<(), OpenError> {
        for path in files(&self.path, UNFINISHED)? {
            fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
        }
        Ok(())
    }
}

/// The segments in `path`, oldest first.
pub(super) fn segments(path: &Path) -> Result<Vec<PathBuf>, OpenError> {
    files(path, SEGMENT)
}

fn files(path: &Path, ending: &str) -> Result<Vec<PathBuf>, OpenError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(OpenError::io("read", path))? {
        let file = entry.map_err(OpenError::io("read", path))?.path();
        let numbered = file
            .file_stem()
            .is_some_and(|stem| stem.len() == 20 && stem.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        if numbered && file.extension().is_some_and(|own| own == ending) {
            found.push(file);
        }
    }
    // Twenty digits each: the order of names is the order of numbers.
    found.sort_unstable();
    Ok(found)
}
