//! Applied migrations in Postgres.
//!
//! Must not know: files.

use tokio_postgres::Client;

use super::{Applied, MigrateError, Script};
use crate::source::error::SourceError;
use crate::source::postgres::connector;

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Source(error.into())
    }
}

/// Key of the advisory lock: "dsproxy" in ASCII.
const LOCK: i64 = 0x0064_7370_726f_7879;

const TABLE: &str = "create table if not exists dsproxy_migrations (version bigint primary key, name text not null, \
     dirty boolean not null default false, applied_at timestamptz not null default now())";

/// A session that holds the lock.
#[derive(Debug)]
pub(super) struct Ledger {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Ends the session, and with it the lock.
        self.connection.abort();
    }
}

impl Ledger {
    pub async fn open(url: &str) -> Result<Self, MigrateError> {
        let (mut config, tls) = connector(url)?;
        config.application_name("dsproxy migrate");
        let (client, connection) = config.connect(tls).await?;
        let connection = tokio::spawn(async move {
            let _ = connection.await; // its error reaches us through the client's calls
        });
        let ledger = Self { client, connection };
        ledger.client.batch_execute("set client_min_messages = warning; set timezone = 'UTC'").await?;
        ledger.client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
        ledger.client.batch_execute(TABLE).await?;
        Ok(ledger)
    }

    pub async fn applied(&self) -> Result<Vec<Applied>, MigrateError> {
        let sql = "select version, name, dirty, to_char(applied_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
             from dsproxy_migrations order by version";
        let mut applied = Vec::new();
        for row in self.client.query(sql, &[]).await? {
            let (version, name) = (row.try_get(0)?, row.try_get(1)?);
            applied.push(Applied { version, name, dirty: row.try_get(2)?, applied_at: row.try_get(3)? });
        }
        Ok(applied)
    }

    pub async fn force(&mut self, target: i64, kept: &[(i64, String)]) -> Result<(), MigrateError> {
        let transaction = self.client.transaction().await?;
        transaction.execute("delete from dsproxy_migrations where version > $1", &[&target]).await?;
        transaction.execute("update dsproxy_migrations set dirty = false", &[]).await?;
        for (version, name) in kept {
            let sql = "insert into dsproxy_migrations (version, name) values ($1, $2) on conflict do nothing";
            transaction.execute(sql, &[version, name]).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub async fn run(&mut self, script: &Script) -> Result<(), MigrateError> {
        let failed = |error: tokio_postgres::Error| script.failed(explain(&error, &script.sql));
        if script.bare {
            self.mark(script, true).await?;
            self.client.batch_execute(&script.sql).await.map_err(failed)?;
            return if script.up { self.mark(script, false).await } else { self.forget(script).await };
        }
        let transaction = self.client.transaction().await?;
        transaction.batch_execute(&script.sql).await.map_err(failed)?;
        match script.up {
            true => {
                let sql = "insert into dsproxy_migrations (version, name) values ($1, $2)";
                transaction.execute(sql, &[&script.version, &script.name]).await?
            }
            false => {
                let sql = "delete from dsproxy_migrations where version = $1";
                transaction.execute(sql, &[&script.version]).await?
            }
        };
        transaction.commit().await.map_err(failed)
    }

    async fn mark(&self, script: &Script, dirty: bool) -> Result<(), MigrateError> {
        let sql = "insert into dsproxy_migrations (version, name, dirty) values ($1, $2, $3) \
             on conflict (version) do update set dirty = excluded.dirty";
        self.client.execute(sql, &[&script.version, &script.name, &dirty]).await?;
        Ok(())
    }

    async fn forget(&self, script: &Script) -> Result<(), MigrateError> {
        let sql = "delete from dsproxy_migrations where version = $1";
        self.client.execute(sql, &[&script.version]).await?;
        Ok(())
    }
}

/// The database's words, with the line of the file where it names a position.
fn explain(error: &tokio_postgres::Error, sql: &str) -> String {
    use tokio_postgres::error::ErrorPosition;
    let Some(db) = error.as_db_error() else {
        return SourceError::unavailable(error.to_string()).to_string();
    };
    let line = match db.position() {
        Some(ErrorPosition::Original(at)) => {
            let lines = sql.chars().take(*at as usize).filter(|c| *c == '\n').count() + 1;
            format!(" at line {lines}")
        }
        _ => String::new(),
    };
    format!("{}{line} (SQLSTATE {})", db.message(), db.code().code())
}
