//! Hits of mappings whose values are loaded anew before they are gone.
//!
//! Must not know: when a value is due. Mappings without these options do not come here.

use super::super::{ClientKey, Core};
use super::DataSide;
use crate::cluster::{Entry, Owner};
use crate::mapping::MappingId;
use crate::resp::{Args, RequestLimits, RequestScanner};
use bytes::Bytes;

impl DataSide {
    /// Whether hits of any mapping are looked at.
    pub(in crate::core) fn watches(&self) -> bool {
        self.source.mappings().iter().any(|mapping| self.reads.watches(mapping.id))
    }
}

impl Core {
    /// The key of the oldest request of a connection, if it reads one of a mapping whose hits are looked at.
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
        let command = crate::command::resolve(&args).ok().filter(|command| command.is_readonly())?;
        args.get(command.first_key(&args)?).map(Bytes::copy_from_slice)
    }

    /// It was hit.
    #[cold]
    pub(in crate::core) fn watch(&mut self, entry: &Entry, key: Bytes) {
        if let Owner::Client { index, serial, .. } = entry.owner {
            self.watch_for(ClientKey { index, serial }, entry.mapping, key);
        }
    }

    /// The same for a key of several that a client has read at once.
    pub(super) fn watch_for(&mut self, client: ClientKey, mapping: MappingId, key: Bytes) {
        let Some(data) = self.data.as_ref().filter(|data| data.reads.watches(mapping)) else { return };
        let served = data.reads.hit(mapping, key);
        if let Some(client) = self.client_mut(client) {
            client.note_served(served);
        }
    }
}
