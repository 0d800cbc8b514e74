//! What endpoints run: commands on keys, as a RESP client would give them.
//!
//! Must not know: HTTP beyond its error type, routes.

use std::sync::Arc;

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;

use super::error::ApiError;
use crate::cluster::{Gateway, GatewayError, Origin, Served};
use crate::resp::{decode_reply, push_command};
use crate::source::Source;

/// The ways to the data. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    gateway: Gateway,
    source: Option<Arc<Source>>,
}

impl Backend {
    /// Commands go through `gateway`; `source` has the mappings.
    pub fn new(gateway: Gateway, source: Option<Arc<Source>>) -> Self {
        Self { gateway, source }
    }

    /// The name of what stands behind the cache, as answers give it.
    pub fn source_name(&self) -> &'static str {
        "postgres"
    }

    /// The key of `mapping` that stands for these ids; `None` when no key does.
    pub fn key(&self, mapping: &str, ids: &[String]) -> Option<String> {
        self.source.as_ref()?.mappings().by_name(mapping)?.template.build(ids)
    }

    /// The value of a key, and where it was found.
    pub async fn get(&self, key: &str) -> Result<(Option<Bytes>, Served), ApiError> {
        let (reply, served) = self.call(&[b"GET", key.as_bytes()]).await?;
        match reply {
            BytesFrame::Null => Ok((None, served)),
            BytesFrame::BlobString { data, .. } => Ok((Some(data), served)),
            BytesFrame::SimpleError { data, .. } => Err(ApiError::Unavailable(data.to_string())),
            _ => Err(unexpected()),
        }
    }

    /// Writes a key.
    pub async fn set(&self, key: &str, value: &[u8]) -> Result<(), ApiError> {
        match self.call(&[b"SET", key.as_bytes(), value]).await?.0 {
            BytesFrame::SimpleString { .. } => Ok(()),
            BytesFrame::SimpleError { data, .. } => Err(refused(&data)),
            _ => Err(unexpected()),
        }
    }

    /// Deletes a key, and the row that it stands for.
    pub async fn delete(&self, key: &str) -> Result<(), ApiError> {
        match self.call(&[b"DEL", key.as_bytes()]).await?.0 {
            BytesFrame::Number { .. } => Ok(()),
            BytesFrame::SimpleError { data, .. } => Err(refused(&data)),
            _ => Err(unexpected()),
        }
    }

    async fn call(&self, args: &[&[u8]]) -> Result<(BytesFrame, Served), ApiError> {
        let mut request = Vec::new();
        push_command(&mut request, args.iter().copied());
        let reply = self.gateway.call_served(Origin::Client, request).await;
        let (reply, served) =
            reply.map_err(|error: GatewayError| ApiError::Unavailable(error.to_string()))?;
        Ok((decode_reply(&reply).map_err(|error| ApiError::Internal(error.to_string()))?, served))
    }
}

fn unexpected() -> ApiError {
    ApiError::Internal("the cluster gave an unexpected reply".to_owned())
}

/// What an error reply to a write means: by its code, the client's value is wrong (`ERR`), or the cluster or the queue
/// cannot take it now.
fn refused(reply: &str) -> ApiError {
    match reply.split_once(' ') {
        Some(("ERR", text)) => ApiError::Unprocessable(text.to_owned()),
        _ => ApiError::Unavailable(reply.to_owned()),
    }
}
