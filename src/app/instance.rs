//! Who this proxy is, to the database: the instance of its data directory.
//!
//! Must not know: what is written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::{StartError, StartErrors};
use crate::source::{Claim, Source};
use crate::writeback::record::LANES;

/// The file in the data directory.
pub(super) const FILE: &str = "instance";

/// Claims the instance of the journal in `directory`, which ends with the sequence `last`.
pub(super) async fn claim(
    directory: &Path,
    source: &Source,
    last: u64,
) -> Result<(String, Claim), StartErrors> {
    let id = read_or_make(directory)?;
    let claim = source.claim(&id, LANES).await?;
    if claim.highest() <= last {
        return Ok((id, claim));
    }
    // The journal was lost or replaced. Its sequences begin anew, and would be taken for applied ones under the old name.
    let new = make(directory).map_err(|error| failure(directory, error))?;
    tracing::warn!(
        old = id,
        new,
        applied = claim.highest(),
        last,
        "the journal ends before what the database has applied of it: it was removed or replaced; this is a new instance"
    );
    source.journal_lost(&id).await?;
    let claim = source.claim(&new, LANES).await?;
    Ok((new, claim))
}

fn failure(directory: &Path, error: io::Error) -> StartErrors {
    StartError::Instance { path: directory.join(FILE), error }.into()
}

/// The id: 128 random bits as 32 hexadecimal digits.
fn read_or_make(directory: &Path) -> Result<String, StartErrors> {
    let found = match fs::read_to_string(directory.join(FILE)) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return make(directory).map_err(|error| failure(directory, error));
        }
        Err(error) => return Err(failure(directory, error)),
    };
    if found.len() == 32 && found.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(found);
    }
    let error = io::Error::new(io::ErrorKind::InvalidData, "it should hold 32 hexadecimal digits");
    Err(failure(directory, error))
}

/// An id for this process only.
pub(super) fn passing() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn make(directory: &Path) -> io::Result<String> {
    let id = passing();
    let (path, unfinished) = (directory.join(FILE), directory.join("instance.new"));
    let mut file = File::create(&unfinished)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(id)
}
