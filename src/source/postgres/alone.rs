//! Finds out whether the versions of a batch need be neither compared nor noted, because nobody else writes.
//!
//! Must not know: queues, journals.
//!
//! Versions decide between writers. As long as there is but one, its lanes keep the order of a key, and what it has written
//! once it is not alone any more is compared like everybody's. A write that it made while it had company is compared, too,
//! whenever it is applied. So nobody may become a writer while a transaction runs that took itself to be alone: the
//! transaction has a share of a lock that `register` takes as a whole.

use deadpool_postgres::Transaction;

use crate::failpoint::{self, Safeguard};
use crate::mapping::Bound;
use crate::source::error::SourceError;
use crate::source::ledger::Batch;
use crate::source::writers::{NOTHING, SILENT};

/// "dspa": the advisory lock of who becomes a writer, and, shared, of who takes itself to be the only one.
pub(super) const LOCK: i64 = 0x6473_7061;

/// Who else writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody, until the transaction ends, nor did anybody give a version above those of the batch.
    None,
    /// Others do.
    Some,
    /// It was not asked, or the answer does not matter.
    Unknown,
}

/// Looks around, at the beginning of the batch's transaction.
pub(super) async fn company(
    transaction: &Transaction<'_>,
    bound: &Bound,
    batch: &Batch<'_>,
) -> Result<Company, SourceError> {
    let oldest = batch.writes.iter().map(|write| write.version).min();
    let (Some(alone), Some(oldest)) = (batch.alone, oldest) else { return Ok(Company::Unknown) };
    // Rows that hold their versions themselves are locked before; appended rows have none.
    if bound.version_column.is_some() || bound.is_append() || oldest <= alone.since {
        return Ok(Company::Unknown);
    }
    if failpoint::leaves_out(Safeguard::Company) {
        return Ok(Company::None);
    }
    let sql = transaction.prepare_cached("select pg_advisory_xact_lock_shared($1)").await?;
    transaction.execute(&sql, &[&LOCK]).await?;
    // A statement of its own, so that it sees who has got the lock before; which holds for this isolation level only. Dead
    // letters are applied by whoever wants to, however much was written since.
    let sql = format!(
        "select exists (select from dsproxy_writers where id <> $1 and needed <> $3 \
               and (journaled or seen_at > now() - interval '{SILENT}')), \
               exists (select from dsproxy_writers where id = $1 and epoch = $2 and needed <> $3) \
               and not exists (select from dsproxy_writers where id <> $1 and last >= $4) \
               and not exists (select from dsproxy_dead_letters where mapping = $5) \
               and current_setting('transaction_isolation') = 'read committed'"
    );
    let sql = transaction.prepare_cached(&sql).await?;
    let mapping = &bound.mapping.name;
    let row = transaction
        .query_one(&sql, &[&alone.writer, &alone.epoch, &NOTHING, &(oldest as i64), mapping])
        .await?;
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (true, _) => Company::Some,
        (false, true) => Company::None,
        (false, false) => Company::Unknown,
    })
}
