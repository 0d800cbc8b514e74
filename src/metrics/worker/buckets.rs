//! A latency histogram over all workers, as `LATENCY HISTOGRAM` shows it.
//!
//! Must not know: what the routes are.

use super::{BUCKETS, FIRST_BOUND_US, Merged, WorkerStats};
use std::sync::Arc;

/// Of one route ([`WorkerStats::ROUTES`]): upper bounds in microseconds, each with how many were at most that; bounds
/// that add nothing are left out. The last bound stands for everything above the one before.
pub fn cumulated(workers: &[Arc<WorkerStats>], route: usize) -> Vec<(u64, u64)> {
    let mut merged = Merged::default();
    workers
        .iter()
        .filter_map(|worker| worker.latency.get(route))
        .for_each(|latency| latency.merge_into(&mut merged));
    let mut total = 0;
    let bounds = (0..BUCKETS).map(|bucket| FIRST_BOUND_US << bucket);
    let filled = bounds.zip(merged.buckets).filter(|(_, count)| *count > 0);
    filled
        .map(|(bound, count)| {
            total += count;
            (bound, total)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_workers_and_bounds() {
        let workers = [Arc::new(WorkerStats::new(0, 0)), Arc::new(WorkerStats::new(0, 0))];
        for (worker, us) in [(0, 10), (1, 64), (1, 65), (0, 1000), (1, 60_000_000)] {
            workers[worker].latency[1].record(us);
        }
        assert_eq!(cumulated(&workers, 1), [(64, 2), (128, 3), (1024, 4), (64 << 18, 5)]);
        assert_eq!(cumulated(&workers, 0), []);
    }
}
