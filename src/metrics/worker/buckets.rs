//! Latency histograms over all workers, by command and by the way that commands took.
//!
//! Must not know: what commands and routes are.
//!
//! A command that is forwarded whole is recorded once, in the histogram of its name; one that took another way is recorded
//! in that of its way as well. So the histogram of the plain way is what is left: it costs nothing.

use super::{BUCKETS, FIRST_BOUND_US, Latency, Merged, WorkerStats};
use std::sync::Arc;

impl Merged {
    fn add(&mut self, latency: &Latency) {
        latency.merge_into(self);
    }

    /// Numbers are read while they grow, so some may be ahead of others.
    fn take(&mut self, other: &Self) {
        for (left, taken) in self.buckets.iter_mut().zip(other.buckets) {
            *left = left.saturating_sub(taken);
        }
        self.sum_us = self.sum_us.saturating_sub(other.sum_us);
    }

    /// Upper bounds in microseconds, each with how many were at most that; bounds that add nothing are left out. The last
    /// bound stands for everything above the one before.
    fn cumulated(&self) -> Vec<(u64, u64)> {
        let mut total = 0;
        let bounds = (0..BUCKETS).map(|bucket| FIRST_BOUND_US << bucket);
        let filled = bounds.zip(self.buckets).filter(|(_, count)| *count > 0);
        filled
            .map(|(bound, count)| {
                total += count;
                (bound, total)
            })
            .collect()
    }
}

/// Of the way at this position of [`WorkerStats::ROUTES`].
pub(super) fn of_route(workers: &[Arc<WorkerStats>], route: usize) -> Merged {
    let mut merged = Merged::default();
    if let Some(detour) = route.checked_sub(1) {
        workers.iter().filter_map(|worker| worker.detours.get(detour)).for_each(|one| merged.add(one));
        return merged;
    }
    workers.iter().flat_map(|worker| &worker.commands).for_each(|command| merged.add(&command.latency));
    for detour in 1..WorkerStats::ROUTES.len() {
        merged.take(&of_route(workers, detour));
    }
    merged
}

/// Of the command at this index.
pub(super) fn of_command(workers: &[Arc<WorkerStats>], command: usize) -> Merged {
    let mut merged = Merged::default();
    workers.iter().filter_map(|worker| worker.commands.get(command)).for_each(|one| merged.add(&one.latency));
    merged
}

/// The histogram of one way, cumulated: see [`WorkerStats::ROUTES`].
pub fn route_latency(workers: &[Arc<WorkerStats>], route: usize) -> Vec<(u64, u64)> {
    of_route(workers, route).cumulated()
}

/// The histogram of one command, cumulated: upper bounds in microseconds, each with how many were at most that.
pub fn command_latency(workers: &[Arc<WorkerStats>], command: usize) -> Vec<(u64, u64)> {
    of_command(workers, command).cumulated()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_workers_and_bounds() {
        let workers = [Arc::new(WorkerStats::new(2, 0)), Arc::new(WorkerStats::new(2, 0))];
        for (worker, command, us) in [(0, 0, 10), (1, 0, 64), (1, 0, 65), (0, 1, 1000), (1, 1, 60_000_000)] {
            workers[worker].commands[command].latency.record(us);
        }
        // Two of them took another way.
        workers[0].detours[0].record(1000);
        workers[1].detours[2].record(64);
        assert_eq!(command_latency(&workers, 0), [(64, 2), (128, 3)]);
        assert_eq!(command_latency(&workers, 1), [(1024, 1), (64 << 18, 2)]);
        assert_eq!(route_latency(&workers, 0), [(64, 1), (128, 2), (64 << 18, 3)]);
        assert_eq!(route_latency(&workers, 1), [(1024, 1)]);
        assert_eq!(route_latency(&workers, 2), []);
        assert_eq!(of_route(&workers, 0).sum_us, 10 + 65 + 60_000_000);
    }
}
