//! The table of writers in Postgres, and the pruning that it makes possible.
//!
//! Must not know: queues, journals, retries.

use deadpool_postgres::{GenericClient, Object};

use super::alone;
use super::pool::Postgres;
use super::tables::LOCK;
use crate::clock::WRITERS;
use crate::source::error::SourceError;
use crate::source::writers::{NOTHING, SILENT, Seat, Standing, Writer, no_number};

/// Rows that one step of pruning removes.
const PRUNE: i64 = 10_000;

pub(super) const CREATE: &str = "\
create table if not exists dsproxy_writers (
    number integer primary key, id text not null unique, epoch bigint not null, journaled boolean not null,
    needed bigint not null, last bigint not null, seen_at timestamptz not null default now());";

/// Gives the writer its number: the one it had, a free one, or that of one that is gone.
pub(super) async fn register(postgres: &Postgres, writer: &Writer) -> Result<Seat, SourceError> {
    let client = postgres.writer().await?;
    let Writer { id, epoch, journaled } = writer;
    let work = async |client: &mut Object| {
        let transaction = client.transaction().await?;
        transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        // Whoever takes itself to be the only one has committed then, and sees this one from now on.
        transaction.execute("select pg_advisory_xact_lock($1)", &[&alone::LOCK]).await?;
        let known = "update dsproxy_writers set epoch = $2, journaled = $3, needed = least(needed, last), seen_at = now() \
                     where id = $1 returning number, last";
        let free = "insert into dsproxy_writers (number, id, epoch, journaled, needed, last) \
                    select n, $1, $2, $3, 0, 0 from generate_series(0, $4 - 1) n \
                    where not exists (select from dsproxy_writers w where w.number = n) order by n limit 1 \
                    returning number, last";
        let gone = format!(
            "update dsproxy_writers set id = $1, epoch = $2, journaled = $3, needed = last, seen_at = now() \
             where number = (select number from dsproxy_writers \
             where not journaled and (needed = {NOTHING} or seen_at < now() - interval '{SILENT}') order by seen_at limit 1) \
             returning number, last"
        );
        let mut row = transaction.query_opt(known, &[id, epoch, journaled]).await?;
        if row.is_none() {
            row = transaction.query_opt(free, &[id, epoch, journaled, &i32::from(WRITERS)]).await?;
        }
        if row.is_none() {
            row = transaction.query_opt(&gone, &[id, epoch, journaled]).await?;
        }
        let row = row.ok_or_else(no_number)?;
        let seat = Seat { number: row.try_get::<_, i32>(0)? as u16, last: row.try_get::<_, i64>(1)? as u64 };
        transaction.commit().await?;
        Ok(seat)
    };
    postgres.bounded(client, work).await
}

/// Notes what a writer needs, and answers what all of them do.
pub(super) async fn note(
    postgres: &Postgres,
    writer: &Writer,
    needed: Option<u64>,
    last: u64,
) -> Result<Standing, SourceError> {
    let client = postgres.writer().await?;
    let needed = needed.map_or(NOTHING, |needed| needed as i64);
    let work = async |client: &mut Object| {
        let note = "update dsproxy_writers set needed = $3, last = greatest(last, $4), seen_at = now() \
                    where id = $1 and epoch = $2";
        let known = client.execute(note, &[&writer.id, &writer.epoch, &needed, &(last as i64)]).await? == 1;
        let bound = format!(
            "select coalesce(min(needed), 0) from dsproxy_writers \
             where journaled or seen_at > now() - interval '{SILENT}'"
        );
        let bound: i64 = client.query_one(&bound, &[]).await?.try_get(0)?;
        Ok(Standing { known, bound: bound as u64 })
    };
    postgres.bounded(client, work).await
}

/// The journal of this instance is lost: it will apply nothing any more.
pub(super) async fn lost(postgres: &Postgres, id: &str) -> Result<(), SourceError> {
    let client = postgres.writer().await?;
    let sql = "update dsproxy_writers set needed = $2, journaled = false where id = $1";
    postgres
        .bounded(client, async |client: &mut Object| Ok(client.execute(sql, &[&id, &NOTHING]).await?))
        .await?;
    Ok(())
}

/// Forgets versions below `before`, some of them; how many. Those of a mapping with older dead letters stay: such a letter
/// may be applied yet, and must not overwrite what came after it.
pub(super) async fn prune(postgres: &Postgres, before: u64) -> Result<u64, SourceError> {
    let client = postgres.writer().await?;
    let sql = "delete from dsproxy_versions where ctid = any (array(\
               select v.ctid from dsproxy_versions v where v.version < least($1, (\
               select min(d.version) from dsproxy_dead_letters d where d.mapping = v.mapping)) \
               limit $2 for update skip locked))";
    let work = async |client: &mut Object| Ok(client.execute(sql, &[&(before as i64), &PRUNE]).await?);
    postgres.bounded(client, work).await
}
