//! The table of writers in SQLite, and the pruning that it makes possible.
//!
//! Must not know: queues, journals, retries.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::ledger::begin;
use crate::clock::WRITERS;
use crate::source::error::SourceError;
use crate::source::writers::{NOTHING, SILENT, Seat, Standing, Writer, no_number};

/// Rows that one step of pruning removes.
const PRUNE: i64 = 10_000;

pub(super) const CREATE: &str = "\
create table if not exists dsproxy_writers (
    number integer primary key, id text not null unique, epoch integer not null, journaled integer not null,
    needed integer not null, last integer not null, seen_at text not null default current_timestamp);";

fn seat(row: &Row<'_>) -> rusqlite::Result<Seat> {
    Ok(Seat { number: row.get(0)?, last: row.get::<_, i64>(1)? as u64 })
}

/// Gives the writer its number: the one it had, a free one, or that of one that is gone.
pub(super) async fn register(sqlite: &Sqlite, writer: &Writer) -> Result<Seat, SourceError> {
    let writer = writer.clone();
    let work = move |connection: &mut Connection| {
        let transaction = begin(connection)?;
        let Writer { id, epoch, journaled } = &writer;
        let known = "update dsproxy_writers set epoch = ?2, journaled = ?3, needed = min(needed, last), \
                     seen_at = current_timestamp where id = ?1 returning number, last";
        let free = format!(
            "with recursive n(n) as (select 0 union all select n + 1 from n where n < {WRITERS} - 1) \
             insert into dsproxy_writers (number, id, epoch, journaled, needed, last) \
             select n, ?1, ?2, ?3, 0, 0 from n where n not in (select number from dsproxy_writers) order by n limit 1 \
             returning number, last"
        );
        let gone = format!(
            "update dsproxy_writers set id = ?1, epoch = ?2, journaled = ?3, needed = last, seen_at = current_timestamp \
             where number = (select number from dsproxy_writers \
             where not journaled and (needed = {NOTHING} or seen_at < datetime('now', '-{SILENT}')) order by seen_at limit 1) \
             returning number, last"
        );
        for sql in [known, &free, &gone] {
            if let Some(seat) = transaction.query_row(sql, params![id, epoch, journaled], seat).optional()? {
                transaction.commit()?;
                return Ok(seat);
            }
        }
        Err(no_number())
    };
    sqlite.writes.run(work).await
}

/// Notes what a writer needs, and answers what all of them do.
pub(super) async fn note(
    sqlite: &Sqlite,
    writer: &Writer,
    needed: Option<u64>,
    last: u64,
) -> Result<Standing, SourceError> {
    let (writer, needed) = (writer.clone(), needed.map_or(NOTHING, |needed| needed as i64));
    let work = move |connection: &mut Connection| {
        let note = "update dsproxy_writers set needed = ?3, last = max(last, ?4), seen_at = current_timestamp \
                    where id = ?1 and epoch = ?2";
        let known = connection.execute(note, params![writer.id, writer.epoch, needed, last as i64])? == 1;
        let bound = format!(
            "select coalesce(min(needed), 0) from dsproxy_writers \
             where journaled or seen_at > datetime('now', '-{SILENT}')"
        );
        let bound: i64 = connection.query_row(&bound, [], |row| row.get(0))?;
        Ok(Standing { known, bound: bound as u64 })
    };
    sqlite.writes.run(work).await
}

/// The journal of this instance is lost: it will apply nothing any more.
pub(super) async fn lost(sqlite: &Sqlite, id: &str) -> Result<(), SourceError> {
    let id = id.to_owned();
    let sql = "update dsproxy_writers set needed = ?2, journaled = false where id = ?1";
    sqlite.writes.run(move |connection| Ok(connection.execute(sql, params![id, NOTHING])?)).await?;
    Ok(())
}

/// Forgets versions below `before`, some of them; how many. Those of a mapping with older dead letters stay: such a letter
/// may be applied yet, and must not overwrite what came after it.
pub(super) async fn prune(sqlite: &Sqlite, before: u64) -> Result<u64, SourceError> {
    let sql = "delete from dsproxy_versions where (mapping, key) in (\
               select v.mapping, v.key from dsproxy_versions v where v.version < min(?1, coalesce((\
               select min(d.version) from dsproxy_dead_letters d where d.mapping = v.mapping), ?1)) limit ?2)";
    let work = move |connection: &mut Connection| Ok(connection.execute(sql, [before as i64, PRUNE])? as u64);
    sqlite.writes.run(work).await
}
