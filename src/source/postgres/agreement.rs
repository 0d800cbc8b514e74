//! The table of where proxies keep versions, in Postgres.
//!
//! Must not know: when they agree.

use deadpool_postgres::{GenericClient, Object};

use super::pool::Postgres;
use super::tables::LOCK;
use crate::source::agreement::{self, Guard, Said, WORD};
use crate::source::error::SourceError;

pub(super) const CREATE: &str = "\
create table if not exists dsproxy_guards (
    id text not null, mapping text not null, guard text not null, until timestamptz not null, primary key (id, mapping));";

/// Says where `id` keeps versions.
pub(super) async fn agree(
    postgres: &Postgres,
    id: &str,
    guards: &[(String, Guard)],
) -> Result<(), SourceError> {
    let client = postgres.writer().await?;
    let work = async |client: &mut Object| {
        let transaction = client.transaction().await?;
        // Of two that start at once the second one sees what the first has said.
        transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        transaction.execute("delete from dsproxy_guards where id = $1 or until < now()", &[&id]).await?;
        let sql = "select id, mapping, guard, ceil(extract(epoch from until - now()))::bigint from dsproxy_guards \
                   order by id, mapping";
        let mut said = Vec::new();
        for row in transaction.query(sql, &[]).await? {
            let (id, mapping) = (row.try_get(0)?, row.try_get(1)?);
            said.push(Said { id, mapping, guard: row.try_get(2)?, left: row.try_get(3)? });
        }
        agreement::check(guards, &said)?;
        let (names, places): (Vec<&str>, Vec<String>) =
            guards.iter().map(|(name, guard)| (name.as_str(), guard.to_string())).unzip();
        let sql = "insert into dsproxy_guards (id, mapping, guard, until) \
                   select $1, m, g, now() + make_interval(secs => $4) from unnest($2::text[], $3::text[]) u(m, g)";
        transaction.execute(sql, &[&id, &names, &places, &WORD.as_secs_f64()]).await?;
        Ok(transaction.commit().await?)
    };
    postgres.bounded(client, work).await
}
