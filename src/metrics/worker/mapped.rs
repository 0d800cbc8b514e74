//! Reads of mapped keys, by what the cluster answered and by where the answer came from.
//!
//! Must not know: who counts.

use super::super::Served;
use super::{Cell, WorkerCollector, counter, family};
use prometheus::proto::{self, MetricFamily};

/// Counters of one mapping.
#[derive(Debug, Default)]
pub struct MappingCells {
    /// Reads that the cluster answered with a value.
    pub hits: Cell,
    /// Reads that the cluster answered with nil.
    pub misses: Cell,
    /// Those, by where their answer came from: by [`Served`], hits of the cluster left out.
    pub served: [Cell; Served::ALL.len()],
    /// Keys read inside `MULTI`: from the cache alone.
    pub in_transactions: Cell,
    /// Keys that scripts named: read from the cache alone.
    pub in_scripts: Cell,
}

impl MappingCells {
    /// Hits that were found on the way of a miss.
    fn late_hits(&self) -> u64 {
        self.served[Served::Hit as usize].get()
    }

    /// A hit of the cluster is counted once, in `hits`.
    fn hits_if(&self, served: Served) -> u64 {
        if served == Served::Hit { self.hits.get() } else { 0 }
    }
}

impl WorkerCollector {
    pub(super) fn hits_and_misses(&self, families: &mut Vec<MetricFamily>) {
        type Part = (&'static str, &'static str, fn(&MappingCells) -> u64);
        // A list is looked at like a miss, and then found to be a hit.
        let parts: [Part; 2] = [
            ("cache_hits_total", "Total cache hits by key.", |m| m.hits.get() + m.late_hits()),
            ("cache_misses_total", "Total cache misses by key.", |m| {
                m.misses.get().saturating_sub(m.late_hits())
            }),
        ];
        let mut requests = Vec::new();
        for (name, help, cell) in parts {
            let mut samples = Vec::new();
            for (index, labels) in self.mappings.iter().enumerate() {
                let count = self.sum(|w| w.mappings.get(index).map_or(0, cell));
                samples.push(counter(&[("key", &labels.key), ("mapping", &labels.name)], count));
                let result = if name == "cache_hits_total" { "hit" } else { "miss" };
                requests.push(counter(&[("mapping", &labels.name), ("result", result)], count));
            }
            families.push(family(name, help, samples, proto::MetricType::COUNTER));
        }
        families.push(family(
            "dsproxy_cache_requests_total",
            "Reads of mapped keys, by mapping and by what the cluster answered.",
            requests,
            proto::MetricType::COUNTER,
        ));
        families.push(self.mapped_reads());
        families.push(self.cache_only_reads());
    }

    fn cache_only_reads(&self) -> MetricFamily {
        type Part = (&'static str, fn(&MappingCells) -> u64);
        let parts: [Part; 2] =
            [("transaction", |m| m.in_transactions.get()), ("script", |m| m.in_scripts.get())];
        let mut samples = Vec::new();
        for (index, labels) in self.mappings.iter().enumerate() {
            for (place, cell) in parts {
                let count = self.sum(|w| w.mappings.get(index).map_or(0, cell));
                samples.push(counter(&[("mapping", &labels.name), ("place", place)], count));
            }
        }
        family(
            "dsproxy_cache_only_reads_total",
            "Mapped keys read where nothing is loaded, by mapping and place: transaction (between MULTI and EXEC), script (keys that it names).",
            samples,
            proto::MetricType::COUNTER,
        )
    }

    fn mapped_reads(&self) -> MetricFamily {
        let mut samples = Vec::new();
        for (index, labels) in self.mappings.iter().enumerate() {
            for served in Served::ALL {
                let count = |m: &MappingCells| m.served[served as usize].get() + m.hits_if(served);
                let count = self.sum(|w| w.mappings.get(index).map_or(0, count));
                samples.push(counter(&[("mapping", &labels.name), ("served", served.label())], count));
            }
        }
        family(
            "dsproxy_mapped_reads_total",
            "Keys of mapped reads answered, by mapping and by where the answer came from: hit, near, dirty, negative, stale, miss, bypass.",
            samples,
            proto::MetricType::COUNTER,
        )
    }
}
