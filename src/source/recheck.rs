//! Holds a mapping against its database again when a statement did not fit.
//!
//! Must not know: how that is asked.
//!
//! A table may go, come back, or change while the proxy runs. The statements name tables and columns, so they fit again
//! as soon as the table does; meanwhile clients are told what is wrong in the words of the check at start. Columns that
//! are new are read at once (where a row is shown whole) and can be written after a restart.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::Misfits;
use super::error::SourceError;

/// Time between two looks at the schema of one mapping.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the last look has found.
#[derive(Debug, Default)]
pub(super) struct Recheck(Mutex<Option<(Instant, Option<String>)>>);

impl Recheck {
    /// The error to be given out instead of `error`; `None` when the mapping fits, so that trying again can help. `look`
    /// is awaited at most every half second, by one caller.
    pub async fn explain(
        &self,
        error: SourceError,
        look: impl Future<Output = Result<Option<Misfits>, SourceError>>,
    ) -> Option<SourceError> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = {
            let mut last = lock();
            let known = last.as_ref().map(|(_, message)| message.clone());
            match &*last {
                Some((at, _)) if at.elapsed() < INTERVAL => known,
                _ => {
                    // The others go by what is known until this look is over.
                    *last = Some((Instant::now(), known.flatten()));
                    None
                }
            }
        };
        let message = match known {
            Some(message) => message,
            None => {
                let Ok(misfits) = look.await else { return Some(error) };
                let message = misfits
                    .map(|misfits| misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
                *lock() = Some((Instant::now(), message.clone()));
                message
            }
        };
        let code = error.code().unwrap_or("42000").to_owned();
        message.map(|message| SourceError::Schema { message, code })
    }
}
