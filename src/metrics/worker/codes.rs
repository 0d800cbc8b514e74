//! Error replies by their code, which is the first word of their text.
//!
//! Must not know: what a code means.
//!
//! A script may make codes of its own, so only known ones have a counter: the number of labels is bounded.

use super::{Cell, WorkerCollector, WorkerStats, counter, family};
use prometheus::proto::{self, MetricFamily};
use std::sync::Arc;

/// The codes of Redis 7.0; whatever else there is counts as the last.
const CODES: [&str; 29] = [
    "ERR",
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "EXECABORT",
    "INPROG",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGROUP",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOSUB",
    "NOTBUSY",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
    "other",
];

/// One counter per code.
#[derive(Debug, Default)]
pub struct ErrorCells([Cell; CODES.len()]);

impl ErrorCells {
    /// Counts an error reply.
    #[cold]
    pub fn count(&self, reply: &[u8]) {
        let code = reply.get(1..).unwrap_or_default().split(|byte| matches!(byte, b' ' | b'\r')).next();
        let known = CODES.iter().position(|known| Some(known.as_bytes()) == code);
        if let Some(cell) = self.0.get(known.unwrap_or(CODES.len() - 1)) {
            cell.add(1);
        }
    }
}

/// Errors so far by their codes, over all workers; codes that did not occur are left out.
pub fn error_codes(workers: &[Arc<WorkerStats>]) -> Vec<(&'static str, u64)> {
    let sum = |at: usize| workers.iter().filter_map(|worker| worker.errors.0.get(at)).map(Cell::get).sum();
    CODES.iter().enumerate().map(|(at, code)| (*code, sum(at))).filter(|(_, count)| *count > 0).collect()
}

impl WorkerCollector {
    pub(super) fn errors(&self) -> MetricFamily {
        let samples = error_codes(&self.workers).into_iter().map(|(code, n)| counter(&[("code", code)], n));
        family(
            "dsproxy_error_replies_total",
            "Error replies to clients, by code: the first word of the text, where Redis knows it; other.",
            samples.collect(),
            proto::MetricType::COUNTER,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_scripts_have_no_label_of_their_own() {
        let worker = Arc::new(WorkerStats::new(0, 0));
        for reply in ["-ERR a b\r\n", "-OOM x\r\n", "-ERR\r\n", "-MINE x\r\n", "-other x\r\n", "-\r\n", ""] {
            worker.errors.count(reply.as_bytes());
        }
        assert_eq!(error_codes(&[worker]), [("ERR", 2), ("OOM", 1), ("other", 4)]);
    }
}
