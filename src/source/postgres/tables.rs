//! The proxy's own tables in Postgres: made, brought up to date, or what stands in the way of that.
//!
//! Must not know: what is in them.

use deadpool_postgres::{GenericClient, Object};

use super::pool::Postgres;
use super::{agreement, writers};
use crate::source::error::SourceError;
use crate::source::ledger::{LedgerState, TABLES};

/// "dspx": the advisory lock under which the tables are made.
pub(super) const LOCK: i64 = 0x6473_7078;

const CREATE: &str = "\
create table if not exists dsproxy_instances (
    id text primary key, epoch bigint not null, claimed_at timestamptz not null default now());
create table if not exists dsproxy_applied (
    source text not null, mapping text not null, lane integer not null, epoch bigint not null, \"offset\" bigint not null,
    primary key (source, mapping, lane)) with (fillfactor = 50);
create table if not exists dsproxy_versions (
    mapping text not null, key text not null, version bigint not null,
    primary key (mapping, key)) with (fillfactor = 80);
create table if not exists dsproxy_dead_letters (
    id bigint generated always as identity primary key, at timestamptz not null default now(), mapping text not null,
    key text not null, operation text not null, version bigint not null, columns text, code text not null,
    error text not null);";

/// What the dead letters of earlier versions have not got. Only the owner of the table may run it, even where there is
/// nothing left to do.
const UPDATE: &str = "\
alter table dsproxy_dead_letters add column if not exists later bigint, \
add column if not exists held boolean not null default false, add column if not exists value bytea; \
create index if not exists dsproxy_dead_letters_key on dsproxy_dead_letters (mapping, key);";

/// How the tables stand.
struct Look {
    role: String,
    missing: Vec<String>,
    /// The dead letters are those of an earlier version.
    outdated: bool,
    /// This role may bring them up to date.
    owns: bool,
    may_create: bool,
    /// Tables that this role may not read or write.
    forbidden: Vec<String>,
}

async fn look(client: &impl GenericClient) -> Result<Look, SourceError> {
    let sql = "with t as (select n, to_regclass(n) as c from unnest(string_to_array($1, ', ')) n), \
               d as (select to_regclass('dsproxy_dead_letters') as c) select current_user::text, \
               array(select n from t where c is null), \
               d.c is not null and (select count(*) < 3 from pg_attribute \
               where attrelid = d.c and attname in ('later', 'held', 'value') and not attisdropped), \
               coalesce((select pg_has_role(relowner, 'usage') from pg_class where oid = d.c), true), \
               coalesce(has_schema_privilege(current_schema(), 'create'), false), \
               array(select n from t where c is not null and not (has_table_privilege(c, 'select') \
               and has_table_privilege(c, 'insert') and has_table_privilege(c, 'update') \
               and has_table_privilege(c, 'delete'))) from d";
    let row = client.query_one(sql, &[&TABLES]).await?;
    Ok(Look {
        role: row.try_get(0)?,
        missing: row.try_get(1)?,
        outdated: row.try_get(2)?,
        owns: row.try_get(3)?,
        may_create: row.try_get(4)?,
        forbidden: row.try_get(5)?,
    })
}

impl Look {
    /// What this role cannot do, with the cure.
    fn problem(&self) -> Option<SourceError> {
        let Self { role, missing, outdated, owns, may_create, forbidden } = self;
        let mut problems = Vec::new();
        if !missing.is_empty() && !may_create {
            problems.push(format!(
                "the tables of the proxy ({}) cannot be made: role {role} may not create any; grant it CREATE on its schema for \
                 the first start (grant create on schema public to {role}), or have another role run `dsproxy migrate up` and \
                 grant SELECT, INSERT, UPDATE, DELETE on them",
                missing.join(", ")
            ));
        }
        if *outdated && !owns {
            problems.push(format!(
                "table dsproxy_dead_letters is that of an earlier version, and role {role} does not own it: have its owner run \
                 `dsproxy migrate up` once, or: {UPDATE}"
            ));
        }
        if !forbidden.is_empty() {
            problems.push(format!(
                "role {role} may not read and write all tables of the proxy: grant select, insert, update, delete on {} to {role}",
                forbidden.join(", ")
            ));
        }
        (!problems.is_empty()).then(|| SourceError::schema("42501", problems.join("; ")))
    }
}

/// How the tables stand; an error where this role cannot make them what they should be.
pub(super) async fn state(postgres: &Postgres) -> Result<LedgerState, SourceError> {
    let client = postgres.writer().await?;
    let work = async |client: &mut Object| {
        let look = look(client).await?;
        match look.problem() {
            Some(problem) => Err(problem),
            None => Ok(LedgerState { missing: look.missing, outdated: look.outdated }),
        }
    };
    postgres.bounded(client, work).await
}

/// Makes the tables where they are missing, and brings up to date what is of an earlier version.
pub(super) async fn prepare(postgres: &Postgres) -> Result<(), SourceError> {
    let client = postgres.writer().await?;
    let work = async |client: &mut Object| {
        let transaction = client.transaction().await?;
        let mut now = look(&transaction).await?;
        // Whoever may not create needs no right to, once somebody else has.
        if now.missing.is_empty() && !now.outdated {
            return now.problem().map_or(Ok(()), Err);
        }
        // Of proxies that start at once the first one does it.
        transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        now = look(&transaction).await?;
        if let Some(problem) = now.problem() {
            return Err(problem);
        }
        transaction.batch_execute("set local client_min_messages = warning").await?;
        transaction.batch_execute(CREATE).await?;
        transaction.batch_execute(writers::CREATE).await?;
        transaction.batch_execute(agreement::CREATE).await?;
        if look(&transaction).await?.outdated {
            transaction.batch_execute(UPDATE).await?;
        }
        Ok(transaction.commit().await?)
    };
    postgres.bounded(client, work).await
}
