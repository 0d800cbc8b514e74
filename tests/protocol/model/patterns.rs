//! Invalidation by pattern, which scans, while loads store rows and leave no sidecar behind.
//!
//! A scan finds what is there from its beginning to its end; of anything else it may find what is there at some time.

use super::{Model, breaks, holds};

/// What is looked at, in which order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Of {
    Sidecars,
    Entries,
}

const TOKENS: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Scan {
    NotYet,
    /// The position in `order`; whether the key was there from the beginning, and not found.
    At(usize, bool),
    Over,
}

/// One load: its token, and the row, once it is read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Flight {
    token: u8,
    row: Option<u8>,
    /// It is of the process that invalidates.
    is_own: bool,
    outdated: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    order: &'static [Of],
    row: u8,
    entry: Option<u8>,
    lease: Option<u8>,
    lease_is_over: bool,
    flights: Vec<Flight>,
    scan: Scan,
    /// The row when the invalidation began: nothing older may be left.
    floor: u8,
    tokens: u8,
}

fn start(order: &'static [Of]) -> World {
    World {
        order,
        row: 0,
        entry: None,
        lease: None,
        lease_is_over: false,
        flights: Vec::new(),
        scan: Scan::NotYet,
        floor: 0,
        tokens: 0,
    }
}

impl World {
    fn is_there(&self, what: Of) -> bool {
        match what {
            Of::Sidecars => self.lease.is_some(),
            Of::Entries => self.entry.is_some(),
        }
    }

    /// What is gone was not there all the time.
    fn noticed(mut self) -> Self {
        if let Scan::At(place, true) = self.scan
            && !self.is_there(self.order[place])
        {
            self.scan = Scan::At(place, false);
        }
        self
    }

    fn scan_from(mut self, place: usize) -> Self {
        self.scan = match self.order.get(place) {
            Some(what) => Scan::At(place, self.is_there(*what)),
            None => Scan::Over,
        };
        self
    }

    fn scanned(&self) -> Vec<(String, Self)> {
        match self.scan {
            Scan::NotYet => {
                let mut next = self.clone();
                next.floor = self.row;
                next.flights
                    .iter_mut()
                    .filter(|flight| flight.is_own)
                    .for_each(|flight| flight.outdated = true);
                vec![("the invalidation begins".into(), next.scan_from(0))]
            }
            Scan::At(place, missed) => {
                let mut steps = Vec::new();
                if self.is_there(self.order[place]) {
                    let next = Self { lease: None, entry: None, ..self.clone() };
                    steps.push((format!("the scan of {:?} finds it", self.order[place]), next));
                }
                if !missed {
                    steps.push((
                        format!("the scan of {:?} ends", self.order[place]),
                        self.clone().scan_from(place + 1),
                    ));
                }
                steps
            }
            Scan::Over => Vec::new(),
        }
    }

    fn asked(&self) -> Vec<(String, Self)> {
        let is_free = self.lease.is_none() || self.lease_is_over;
        if self.entry.is_some() || !is_free || self.tokens == TOKENS || self.flights.len() == 2 {
            return Vec::new();
        }
        let granted = |is_own| {
            let mut next = self.clone();
            next.tokens += 1;
            (next.lease, next.lease_is_over) = (Some(next.tokens), false);
            next.flights.push(Flight { token: next.tokens, row: None, is_own, outdated: false });
            (format!("a lease is given, own: {is_own}"), next)
        };
        vec![granted(true), granted(false)]
    }

    fn flown(&self, at: usize) -> (String, Self) {
        let mut next = self.clone();
        let Some(row) = self.flights[at].row else {
            next.flights[at].row = Some(self.row);
            return ("a row is loaded".into(), next);
        };
        let flight = next.flights.remove(at);
        if self.lease == Some(flight.token) {
            // Nothing is left of the sidecar.
            next.lease = None;
            if self.entry.is_none() && !flight.outdated {
                next.entry = Some(row);
            }
        }
        (format!("a fill with {row}"), next)
    }
}

impl Model for World {
    fn steps(&self) -> Vec<(String, Result<Self, String>)> {
        let mut steps = self.scanned();
        steps.extend(self.asked());
        steps.extend((0..self.flights.len()).map(|at| self.flown(at)));
        if self.row < 2 {
            steps.push(("the row is changed".into(), Self { row: self.row + 1, ..self.clone() }));
        }
        steps.push(("the sidecar is evicted".into(), Self { lease: None, ..self.clone() }));
        steps.push(("the entry is evicted".into(), Self { entry: None, ..self.clone() }));
        steps.push(("the lease runs out".into(), Self { lease_is_over: true, ..self.clone() }));
        steps.into_iter().map(|(name, next)| (name, Ok(next.noticed()))).collect()
    }

    fn fault(&self) -> Option<String> {
        let row = self.entry.filter(|row| self.scan == Scan::Over && *row < self.floor)?;
        Some(format!("{row} is cached after the invalidation that left {}", self.floor))
    }
}

#[test]
fn a_pattern_is_looked_for_among_sidecars_and_then_among_entries() {
    holds(start(&[Of::Sidecars, Of::Entries]));
}

#[test]
fn the_other_way_round_a_load_passes_between_the_two() {
    breaks(start(&[Of::Entries, Of::Sidecars]));
}

#[test]
fn either_alone_misses_what_is_stored() {
    breaks(start(&[Of::Entries]));
    breaks(start(&[Of::Sidecars]));
}
