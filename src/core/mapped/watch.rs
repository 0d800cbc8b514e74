//! Hits of mappings whose values are loaded anew before they are gone.
//!
//! Must not know: when a value is due. Mappings without these options do not come here.

use super::super::{ClientKey, Core};
use super::DataSide;
use crate::cluster::{Entry, Owner};
use crate::resp::{Args, RequestLimits, RequestScanner};
use bytes::Bytes;

impl DataSide {
    /// Whether hits of any mapping are looked at.
    pub(in crate::core) fn watches(&self) -> bool {
        self.source.mappings().iter().any(|mapping| self.reads.watches(mapping.id))
    }
}

impl Core {
    /// The key of the oldest request of a connection, if it is a GET of a mapping whose hits are looked at.
    #[cold]
    pub(in crate::core) fn watched(&self, index: usize) -> Option<Bytes> {
        let upstream = self.upstreams.get(index)?;
        let (data, oldest) = (self.data.as_ref()?, upstream.oldest()?);
        if oldest.mapping == Entry::UNMAPPED || !data.reads.watches(oldest.mapping) {
            return None;
        }
        let (request, mut scanner) = (upstream.oldest_request(), RequestScanner::default());
        scanner.scan(request, &RequestLimits::default()).ok()?;
        let args = Args::new(request, scanner.spans());
        let is_get = crate::command::lookup(args.name()).is_some_and(|command| command.name == "get");
        args.get(1).filter(|_| is_get).map(Bytes::copy_from_slice)
    }

    /// It was hit.
    #[cold]
    pub(in crate::core) fn watch(&mut self, entry: &Entry, key: Bytes) {
        let Some(data) = &self.data else { return };
        let served = data.reads.hit(entry.mapping, key);
        if let Owner::Client { index, serial, .. } = entry.owner
            && let Some(client) = self.client_mut(ClientKey { index, serial })
        {
            client.note_served(served);
        }
    }
}
