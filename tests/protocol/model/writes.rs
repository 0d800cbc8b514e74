//! Write-behind: two proxies write and read a key, crash, and lose the cache.

use super::{Model, breaks, holds};

/// How the protocol is bent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Bend {
    /// The cache before the journal.
    cache_first: bool,
    /// A flush clears the dirty flag whatever the version.
    clears_always: bool,
    /// Dirty entries expire.
    dirty_expires: bool,
    /// The database takes any version.
    no_guard: bool,
    /// Versions are counted in Redis.
    redis_counts: bool,
    /// A write that is behind the cache's version is applied all the same.
    no_behind: bool,
    /// Fills do not look at the dirty flag, nor do writes cancel leases.
    fill_ignores_writes: bool,
    /// Two proxies may take the same version.
    shared_versions: bool,
    /// A reader who finds a value does not look at the writes that wait in its own proxy.
    hits_ignore_pending: bool,
    /// Clocks of the proxies differ by this much; 0: they agree.
    skew: u8,
    evictions: u8,
    crashes: u8,
}

const STRAIGHT: Bend = Bend {
    cache_first: false,
    clears_always: false,
    dirty_expires: false,
    no_guard: false,
    redis_counts: false,
    no_behind: false,
    fill_ignores_writes: false,
    shared_versions: false,
    hits_ignore_pending: true,
    skew: 3,
    evictions: 0,
    crashes: 1,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Stage {
    /// Applied, but not in the journal (only where the order is wrong).
    Unjournaled,
    Journaled,
    Applied,
    /// With what the database holds since.
    Committed(u8),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Write {
    version: u8,
    stage: Stage,
    acked: bool,
    /// The newest version that was acknowledged before it began.
    after: u8,
}

#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Proxy {
    clock: u8,
    writes: Vec<Write>,
    left: u8,
    /// What its readers must see at least.
    floor: u8,
    /// A load: its token, the row once loaded, what its readers must see.
    flight: Option<(u8, Option<u8>, u8)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    bend: Bend,
    row: u8,
    entry: Option<u8>,
    version: u8,
    dirty: bool,
    lease: Option<u8>,
    counter: u8,
    proxies: [Proxy; 2],
    acked: u8,
    tokens: u8,
    evictions: u8,
    crashes: u8,
}

fn start(bend: Bend) -> World {
    let proxy = |clock, left| Proxy { clock, left, ..Proxy::default() };
    World {
        bend,
        row: 1,
        entry: None,
        version: 0,
        dirty: false,
        lease: None,
        counter: 1,
        proxies: [proxy(1, 2), proxy(1 + bend.skew, 1)],
        acked: 1,
        tokens: 0,
        evictions: bend.evictions,
        crashes: bend.crashes,
    }
}

fn seen(row: u8, floor: u8) -> Result<(), String> {
    if row < floor { Err(format!("{row} is read after {floor} was acknowledged here")) } else { Ok(()) }
}

type Step = (String, Result<World, String>);

impl World {
    fn pending(&self, p: usize) -> Option<u8> {
        let waits = |write: &&Write| (Stage::Journaled..Stage::Committed(0)).contains(&write.stage);
        self.proxies[p].writes.iter().filter(waits).map(|write| write.version).max()
    }

    /// What a reader through this proxy must see at least. Once the cache has lost entries: the writes that wait in it.
    fn floor(&self, p: usize) -> u8 {
        if self.bend.evictions == 0 {
            return self.proxies[p].floor;
        }
        let waits = |write: &&Write| write.stage == Stage::Applied;
        self.proxies[p].writes.iter().filter(waits).map(|write| write.version).max().unwrap_or(0)
    }

    /// The lowest version of this proxy above `version`: the last bit tells whose it is.
    fn above(&self, p: usize, version: u8) -> u8 {
        let next = version + 1;
        if self.bend.shared_versions || usize::from(next % 2) == p { next } else { next + 1 }
    }

    fn begin(&self, p: usize) -> Option<Step> {
        if self.proxies[p].left == 0
            || self.proxies[p].writes.last().is_some_and(|w| w.stage < Stage::Applied)
        {
            return None;
        }
        let mut next = self.clone();
        let version = if self.bend.redis_counts {
            next.counter += 1;
            next.counter
        } else if self.bend.skew == 0 {
            // Clocks that agree: no two are alike, and a later one is higher.
            self.above(p, self.proxies.iter().map(|proxy| proxy.clock).max().unwrap_or_default())
        } else {
            self.above(p, self.proxies[p].clock)
        };
        let proxy = &mut next.proxies[p];
        proxy.clock = proxy.clock.max(version);
        proxy.left -= 1;
        let stage = if self.bend.cache_first { Stage::Unjournaled } else { Stage::Journaled };
        proxy.writes.push(Write { version, stage, acked: false, after: self.acked });
        if self.bend.cache_first {
            (next.entry, next.version, next.dirty, next.lease) = (Some(version), version, true, None);
        }
        Some((format!("proxy {p}: begins {version}"), Ok(next)))
    }

    fn advance(&self, p: usize) -> Option<Step> {
        // Applied in order, flushed in order.
        let writes = &self.proxies[p].writes;
        let at = writes.iter().position(|write| write.stage < Stage::Applied).unwrap_or(0);
        let (version, stage) = writes.get(at).map(|write| (write.version, write.stage))?;
        let mut next = self.clone();
        let name = |what: &str| format!("proxy {p}: {what} {version}");
        match stage {
            Stage::Unjournaled => {
                next.proxies[p].writes[at].stage = Stage::Journaled;
                Some((name("journals"), Ok(next)))
            }
            Stage::Journaled if self.version > version && !self.bend.no_behind => {
                let higher = self.above(p, self.version);
                next.proxies[p].writes[at].version = higher;
                next.proxies[p].clock = higher;
                Some((name("is behind with"), Ok(next)))
            }
            Stage::Journaled => Some((name("applies"), self.apply(p, at))),
            Stage::Applied => {
                next.row = if self.bend.no_guard { version } else { self.row.max(version) };
                next.proxies[p].writes[at].stage = Stage::Committed(next.row);
                Some((name("commits"), Ok(next)))
            }
            Stage::Committed(row) => {
                next.proxies[p].writes.remove(at);
                let clears = self.bend.clears_always && self.version > version;
                if clears || self.version == version {
                    // What was applied is not always what is in the database.
                    let differs = !clears && row != version;
                    next.entry = if differs { Some(row) } else { self.entry };
                    (next.dirty, next.lease) = (false, None);
                } else if self.version < version {
                    next.entry = if self.version == 0 { None } else { Some(row) };
                    (next.dirty, next.lease, next.version) = (false, None, version);
                }
                Some((name("says flushed"), Ok(next)))
            }
        }
    }

    fn apply(&self, p: usize, at: usize) -> Result<Self, String> {
        let mut next = self.clone();
        let Write { version, acked, after, .. } = self.proxies[p].writes[at];
        (next.entry, next.version, next.dirty) = (Some(version), version, true);
        if !self.bend.fill_ignores_writes {
            next.lease = None;
        }
        next.proxies[p].floor = self.proxies[p].floor.max(version);
        next.acked = self.acked.max(version);
        let write = &mut next.proxies[p].writes[at];
        (write.stage, write.acked) = (Stage::Applied, true);
        if version <= after && !acked {
            return Err(format!("{version} is acknowledged after {after}, and will lose to it"));
        }
        Ok(next)
    }

    fn read(&self, p: usize) -> Option<Step> {
        let floor = self.floor(p);
        let name = format!("proxy {p}: a read");
        if let Some(row) = self.entry {
            let own = self.pending(p).filter(|_| !self.bend.hits_ignore_pending).unwrap_or(0);
            return Some((name, seen(row.max(own), floor).map(|()| self.clone())));
        }
        if let Some(row) = self.pending(p) {
            return Some((name, seen(row, floor).map(|()| self.clone())));
        }
        // A dirty entry that is gone is waited for; another's lease may run out.
        if self.proxies[p].flight.is_some() || self.dirty || self.tokens == 3 {
            return None;
        }
        let mut next = self.clone();
        next.tokens += 1;
        next.lease = Some(next.tokens);
        next.proxies[p].flight = Some((next.tokens, None, floor));
        Some((name, Ok(next)))
    }

    fn fly(&self, p: usize) -> Option<Step> {
        let (token, loaded, floor) = self.proxies[p].flight?;
        let mut next = self.clone();
        let Some(row) = loaded else {
            next.proxies[p].flight = Some((token, Some(self.row), floor));
            return Some((format!("proxy {p}: loads"), Ok(next)));
        };
        next.proxies[p].flight = None;
        let own = self.pending(p).is_some();
        let may = self.lease == Some(token) && !self.dirty && !own || self.bend.fill_ignores_writes;
        if may && self.entry.is_none() {
            next.entry = Some(row);
        }
        if self.lease == Some(token) {
            next.lease = None;
        }
        Some((format!("proxy {p}: fills"), seen(row, floor).map(|()| next)))
    }

    fn crash(&self, p: usize) -> Option<Step> {
        if self.crashes == 0 {
            return None;
        }
        let mut next = Self { crashes: self.crashes - 1, ..self.clone() };
        let proxy = &mut next.proxies[p];
        proxy.flight = None;
        proxy.writes.retain(|write| write.stage > Stage::Unjournaled);
        // Replayed: what is not in the database is applied again.
        proxy
            .writes
            .iter_mut()
            .filter(|w| w.stage == Stage::Applied)
            .for_each(|w| w.stage = Stage::Journaled);
        Some((format!("proxy {p}: is killed and starts again"), Ok(next)))
    }
}

impl Model for World {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for p in 0..2 {
            steps.extend(self.begin(p));
            steps.extend(self.advance(p));
            steps.extend(self.read(p));
            steps.extend(self.fly(p));
            steps.extend(self.crash(p));
        }
        let mut push = |name: &str, next: Self| steps.push((name.into(), Ok(next)));
        if !self.dirty {
            push("the entry expires", Self { entry: None, ..self.clone() });
        } else if self.bend.dirty_expires {
            let next = Self { entry: None, dirty: false, version: 0, ..self.clone() };
            push("the entry expires with its sidecar", next);
        }
        if self.evictions > 0 {
            let less = Self { evictions: self.evictions - 1, ..self.clone() };
            let side = Self { dirty: false, version: 0, lease: None, ..less.clone() };
            push("the node loses all", Self { entry: None, counter: 1, ..side.clone() });
            push("the sidecar is evicted", side);
            push("the entry is evicted", Self { entry: None, ..less });
        }
        steps
    }

    fn fault(&self) -> Option<String> {
        if self.proxies.iter().any(|proxy| !proxy.writes.is_empty() || proxy.flight.is_some()) {
            return None;
        }
        let row = self.row;
        match self.entry {
            _ if row < self.acked => Some(format!("{} was acknowledged, the database has {row}", self.acked)),
            Some(entry) if entry != row => Some(format!("{entry} is cached for ever, the row is {row}")),
            _ if self.dirty => Some("dirty for ever".into()),
            _ => None,
        }
    }
}

#[test]
fn writes_of_two_proxies_with_clocks_that_differ() {
    holds(start(STRAIGHT));
    holds(start(Bend { skew: 1, ..STRAIGHT }));
}

#[test]
fn a_node_that_loses_entries_harms_nobody_who_looks_at_his_own_writes() {
    let bend = Bend { skew: 0, evictions: 1, crashes: 0, hits_ignore_pending: false, ..STRAIGHT };
    holds(start(bend));
    // Another proxy may have filled the older row meanwhile.
    breaks(start(Bend { hits_ignore_pending: true, ..bend }));
}

#[test]
fn two_writes_may_not_have_the_same_version() {
    breaks(start(Bend { shared_versions: true, ..STRAIGHT }));
}

#[test]
fn cache_before_journal_shows_a_value_that_a_crash_takes_back() {
    breaks(start(Bend { cache_first: true, ..STRAIGHT }));
}

#[test]
fn clearing_dirty_without_comparing_versions_loses_the_newer_flag() {
    breaks(start(Bend { clears_always: true, ..STRAIGHT }));
}

#[test]
fn a_time_to_live_on_dirty_entries_shows_the_older_row() {
    breaks(start(Bend { dirty_expires: true, ..STRAIGHT }));
}

#[test]
fn without_the_guard_in_sql_an_older_write_wins() {
    breaks(start(Bend { no_guard: true, ..STRAIGHT }));
}

#[test]
fn versions_counted_in_redis_go_backwards_with_a_failover() {
    let bend = Bend { evictions: 1, skew: 0, hits_ignore_pending: false, ..STRAIGHT };
    breaks(start(Bend { redis_counts: true, ..bend }));
}

#[test]
fn a_clock_that_is_behind_must_take_a_higher_version() {
    breaks(start(Bend { no_behind: true, ..STRAIGHT }));
}

#[test]
fn a_fill_that_does_not_mind_writes_shows_the_older_row() {
    breaks(start(Bend { fill_ignores_writes: true, ..STRAIGHT }));
}
