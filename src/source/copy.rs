//! Streams many new rows into Postgres with COPY.
//!
//! Must not know: which rows.

use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;

use super::error::SourceError;
use super::postgres::connector;

/// Runs `statement` (`copy .. from stdin`) over a connection of its own with these pieces of its text format; how many rows
/// that were. All of them, or none.
///
/// # Errors
/// [`SourceError`].
pub async fn copy_in(
    url: &str,
    statement: &str,
    pieces: impl Iterator<Item = Vec<u8>> + Send,
) -> Result<u64, SourceError> {
    let (mut config, tls) = connector(url)?;
    let (client, connection) = config.application_name("dsproxy datagen").connect(tls).await?;
    let driver = tokio::spawn(connection);
    let mut sink = pin!(client.copy_in::<_, Bytes>(statement).await?);
    for piece in pieces {
        sink.send(Bytes::from(piece)).await?;
    }
    let rows = sink.finish().await?;
    drop(client);
    let _ = driver.await;
    Ok(rows)
}
