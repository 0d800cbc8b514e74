//! Leases, fills, negative markers and invalidation, while rows are changed behind the proxies' back.

use super::{Model, breaks, holds};

/// How the protocol is bent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
struct Bend {
    /// A fill stores unless an entry is there (plain cache-aside).
    no_lease: bool,
    /// An invalidation removes the entry, and leaves the lease.
    keeps_lease: bool,
    /// An invalidation leaves the negative marker.
    keeps_marker: bool,
    /// Readers of the proxy that invalidated join a load from before.
    joins_old_load: bool,
}

/// A load on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Flight {
    proxy: usize,
    /// Who joined last has seen an invalidation complete that left this row, or a newer one.
    floor: u8,
    outdated: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Asking,
    Granted(u8),
    Loaded(u8, u8),
}

/// Rows are numbers that grow; 0: there is no row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    bend: Bend,
    row: u8,
    entry: Option<u8>,
    marker: bool,
    lease: Option<u8>,
    lease_is_over: bool,
    flights: Vec<Flight>,
    /// The row was changed, and is not invalidated yet.
    changed: bool,
    /// What readers through proxy 0 must see at least.
    floor: u8,
    tokens: u8,
    changes: u8,
}

fn start(bend: Bend) -> World {
    World {
        bend,
        row: 0,
        entry: None,
        marker: false,
        lease: None,
        lease_is_over: false,
        flights: Vec::new(),
        changed: false,
        floor: 0,
        tokens: 0,
        changes: 2,
    }
}

fn seen(row: u8, floor: u8) -> Result<(), String> {
    if row < floor {
        Err(format!("row {row} is read after the invalidation that left {floor}"))
    } else {
        Ok(())
    }
}

impl World {
    /// Somebody reads through `proxy`.
    fn read(&self, proxy: usize) -> Option<Result<Self, String>> {
        let floor = if proxy == 0 { self.floor } else { 0 };
        if let Some(row) = self.entry {
            return Some(seen(row, floor).map(|()| self.clone()));
        }
        let mut next = self.clone();
        let open = next.flights.iter_mut().find(|flight| flight.proxy == proxy && !flight.outdated);
        match open {
            Some(flight) => flight.floor = flight.floor.max(floor),
            None if self.flights.len() < 3 => {
                next.flights.push(Flight { proxy, floor, outdated: false, stage: Stage::Asking });
            }
            None => return None,
        }
        Some(Ok(next))
    }

    fn step(&self, at: usize) -> Option<(String, Result<Self, String>)> {
        let flight = self.flights.get(at)?.clone();
        let mut next = self.clone();
        let name = |what: &str| format!("proxy {}: {what}", flight.proxy);
        let answer = |mut next: Self, what: &str, row: u8| {
            next.flights.remove(at);
            Some((name(what), seen(row, flight.floor).map(|()| next)))
        };
        match flight.stage {
            Stage::Asking => {
                if let Some(row) = self.entry {
                    return answer(next, "finds an entry", row);
                }
                if self.marker {
                    return answer(next, "finds that there is no row", 0);
                }
                if self.lease.is_some() && !self.lease_is_over && !self.bend.no_lease {
                    return None;
                }
                if self.tokens == 5 {
                    return None;
                }
                next.tokens += 1;
                (next.lease, next.lease_is_over) = (Some(next.tokens), false);
                next.flights[at].stage = Stage::Granted(next.tokens);
                Some((name("gets the lease"), Ok(next)))
            }
            Stage::Granted(token) => {
                next.flights[at].stage = Stage::Loaded(token, self.row);
                Some((name("loads"), Ok(next)))
            }
            Stage::Loaded(token, row) => {
                let ours = self.lease == Some(token) || self.bend.no_lease;
                if ours {
                    next.lease = None;
                    if self.entry.is_none() && (!flight.outdated || self.bend.no_lease) {
                        (next.entry, next.marker) = ((row > 0).then_some(row), row == 0);
                    }
                }
                answer(next, "fills", row)
            }
        }
    }
}

impl Model for World {
    fn steps(&self) -> Vec<(String, Result<Self, String>)> {
        let mut steps = Vec::new();
        for proxy in 0..2 {
            steps.extend(self.read(proxy).map(|next| (format!("proxy {proxy}: a read"), next)));
        }
        steps.extend((0..self.flights.len()).filter_map(|at| self.step(at)));
        if self.changes > 0 && !self.changed {
            let next = Self { row: self.row + 1, changed: true, changes: self.changes - 1, ..self.clone() };
            steps.push(("the row is changed".into(), Ok(next)));
        }
        if self.changed {
            // Flights of the proxy are outdated first, then the script runs.
            let mut next = Self { changed: false, entry: None, floor: self.row, ..self.clone() };
            if !self.bend.keeps_lease {
                next.lease = None;
            }
            next.marker &= self.bend.keeps_marker;
            if !self.bend.joins_old_load {
                next.flights.iter_mut().filter(|f| f.proxy == 0).for_each(|flight| flight.outdated = true);
            }
            steps.push(("proxy 0: invalidates".into(), Ok(next)));
        }
        let lost = Self { marker: false, lease: None, ..self.clone() };
        steps.push(("the sidecar is evicted".into(), Ok(lost)));
        steps.push(("the entry expires".into(), Ok(Self { entry: None, ..self.clone() })));
        steps.push(("the lease runs out".into(), Ok(Self { lease_is_over: true, ..self.clone() })));
        for at in 0..self.flights.len() {
            let mut next = self.clone();
            let flight = next.flights.remove(at);
            steps.push((format!("a load of proxy {} dies", flight.proxy), Ok(next)));
        }
        steps
    }

    fn fault(&self) -> Option<String> {
        let quiet = self.flights.is_empty() && !self.changed;
        match self.entry {
            Some(row) if quiet && row != self.row => {
                Some(format!("{row} is cached for ever, the row is {}", self.row))
            }
            None if quiet && self.marker && self.row > 0 => {
                Some("a row that is there is called missing".into())
            }
            _ => None,
        }
    }
}

#[test]
fn reads_and_invalidations_leave_no_older_row() {
    holds(start(Bend::default()));
}

#[test]
fn cache_aside_without_a_lease_is_stale_for_ever() {
    breaks(start(Bend { no_lease: true, ..Bend::default() }));
}

#[test]
fn an_invalidation_that_leaves_leases_alone_is_undone_by_a_load() {
    breaks(start(Bend { keeps_lease: true, ..Bend::default() }));
}

#[test]
fn an_invalidation_that_leaves_the_negative_marker_hides_the_row() {
    breaks(start(Bend { keeps_marker: true, ..Bend::default() }));
}

#[test]
fn readers_that_join_a_load_from_before_the_invalidation_see_the_older_row() {
    breaks(start(Bend { joins_old_load: true, ..Bend::default() }));
}
