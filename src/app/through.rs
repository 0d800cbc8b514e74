//! What the cache is told of write-throughs.
//!
//! Must not know: the database, who writes.

use super::writes::{Cache, value_of};
use crate::cluster::Origin;
use crate::mapping::MappingId;
use crate::sidecar::{self, Token};
use crate::source::Committed as Held;
use crate::writeback::{Begun, ThroughEnd};
use bytes::Bytes;
use std::time::Duration;

impl Cache {
    /// Drops and marks these keys.
    pub(super) async fn begin_through(
        self,
        mapping: MappingId,
        keys: Vec<(Bytes, Token)>,
        life: Duration,
    ) -> Vec<Begun> {
        if self.mapping(mapping).is_none_or(|mapping| !mapping.cache) {
            return vec![Begun::Yes { version: 0, found: false, contested: false }; keys.len()];
        }
        let requests = keys.iter().map(|(key, token)| sidecar::begin_through(key, *token, life)).collect();
        let replies = self.gateway.call_many(Origin::Internal, requests).await;
        let begun = |reply: Result<Bytes, _>| match reply.map(|reply| (sidecar::parse_begun(&reply), reply)) {
            Ok((Ok((true, version)), reply)) => Begun::Yes {
                version,
                found: sidecar::had_entry(&reply),
                contested: sidecar::is_contested(&reply),
            },
            Ok((Ok((false, _)), _)) => Begun::Dirty,
            Ok((Err(fault), _)) => Begun::Failed(fault.to_string()),
            Err(error) => Begun::Failed(format!("{error}")),
        };
        replies.into_iter().map(begun).collect()
    }

    /// Stores what is committed; answers the keys of which it could not be told.
    pub(super) async fn end_through(self, mapping: MappingId, keys: Vec<ThroughEnd>) -> Vec<ThroughEnd> {
        let Some(settings) = self.mapping(mapping).filter(|mapping| mapping.cache) else { return Vec::new() };
        let request = |end: &ThroughEnd| {
            let value = match &end.held {
                Some(Held::Value(value)) => value_of(settings, value),
                _ => None,
            };
            let row = match (&end.held, &value) {
                (None, _) => sidecar::Committed::Nothing,
                (Some(Held::Unknown), _) => sidecar::Committed::Unknown,
                (Some(_), Some(value)) => sidecar::Committed::Row(value),
                // Of an appended row it is not known whether it is the newest: the next reader finds out.
                (Some(_), None) => sidecar::Committed::Absent,
            };
            sidecar::end_through(&end.key, end.token, end.version, row, self.life(settings, end.expires_at))
        };
        let requests = keys.iter().map(request).collect();
        let replies = self.gateway.call_many(Origin::Internal, requests).await;
        let told =
            |reply: &Result<Bytes, _>| reply.as_ref().is_ok_and(|reply| sidecar::parse_ended(reply).is_ok());
        keys.into_iter().zip(&replies).filter(|(_, reply)| !told(reply)).map(|(key, _)| key).collect()
    }
}
