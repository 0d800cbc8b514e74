//! The table of where proxies keep versions, in SQLite.
//!
//! Must not know: when they agree.

use rusqlite::{Connection, params};

use super::Sqlite;
use super::ledger::begin;
use crate::source::agreement::{self, Guard, Said, WORD};
use crate::source::error::SourceError;

/// `until` in seconds since 1970.
pub(super) const CREATE: &str = "\
create table if not exists dsproxy_guards (
    id text not null, mapping text not null, guard text not null, until integer not null, primary key (id, mapping));";

/// Says where `id` keeps versions.
pub(super) async fn agree(sqlite: &Sqlite, id: &str, guards: &[(String, Guard)]) -> Result<(), SourceError> {
    let (id, guards) = (id.to_owned(), guards.to_vec());
    let work = move |connection: &mut Connection| {
        let transaction = begin(connection)?;
        transaction.execute("delete from dsproxy_guards where id = ?1 or until < unixepoch()", [&id])?;
        let said = {
            let sql =
                "select id, mapping, guard, until - unixepoch() from dsproxy_guards order by id, mapping";
            let mut statement = transaction.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Said { id: row.get(0)?, mapping: row.get(1)?, guard: row.get(2)?, left: row.get(3)? })
            })?;
            rows.collect::<Result<Vec<_>, _>>()?
        };
        agreement::check(&guards, &said)?;
        let sql =
            "insert into dsproxy_guards (id, mapping, guard, until) values (?1, ?2, ?3, unixepoch() + ?4)";
        for (mapping, guard) in &guards {
            transaction.execute(sql, params![id, mapping, guard.to_string(), WORD.as_secs() as i64])?;
        }
        Ok(transaction.commit()?)
    };
    sqlite.writes.run(work).await
}
