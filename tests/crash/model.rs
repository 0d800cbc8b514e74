//! What must become of refused writes and of the ones after them.
//!
//! A key that is written through one proxy has a model with every state in which its rows and its dead letters may be (after a
//! write with an unknown outcome there are more of them): the database must be in one of these, and readers must see what
//! it says. What is written through both proxies may be overtaken before it is refused: of such keys the newest write counts.

use std::collections::BTreeSet;

/// What becomes of later writes of a key of which one was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They are applied.
    Flag,
    /// They wait, and are merged.
    Wait,
    /// They wait, each for itself: the mapping appends.
    Line,
}

/// What a write stores, or what is stored: its number, and the number of the marked write that the row is from, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub seq: u64,
    pub mark: Option<u64>,
}

/// A dead letter; of a deletion it has no row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Letter {
    pub row: Option<Row>,
    pub held: bool,
    pub later: bool,
}

/// What the database has of a key: its rows and its dead letters, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    pub rows: Vec<Row>,
    pub letters: Vec<Letter>,
}

impl State {
    /// The number that readers see.
    pub fn shown(&self) -> Option<u64> {
        match self.letters.iter().rfind(|letter| letter.held) {
            Some(letter) => letter.row.map(|row| row.seq),
            None => self.rows.last().map(|row| row.seq),
        }
    }

    /// A row is stored, or all of them are deleted; no letter has a say.
    fn store(&mut self, policy: Policy, row: Option<Row>) {
        match (policy, row) {
            (Policy::Line, Some(row)) => self.rows.push(row),
            (_, Some(row)) => {
                let mark = row.mark.or(self.rows.last().and_then(|row| row.mark));
                self.rows = vec![Row { mark, ..row }];
            }
            (_, None) => self.rows.clear(),
        }
    }

    /// This write comes to wait.
    fn hold(&mut self, policy: Policy, row: Option<Row>) {
        let held = |row| Letter { row, held: true, later: false };
        match (policy, row, self.letters.last_mut()) {
            (Policy::Wait, None, _) => {
                // Whatever waited is deleted by it.
                self.letters.retain(|letter| !letter.held);
                self.letters.push(held(None));
            }
            (Policy::Wait, Some(row), Some(Letter { row: Some(last), held: true, .. })) => {
                *last = Row { mark: row.mark.or(last.mark), ..row };
            }
            (_, row, _) => self.letters.push(held(row)),
        }
    }

    /// What a write of `row` (or a deletion) makes of it. `fresh`: letters from this one on may have been in one batch with a
    /// deletion, which then leaves nothing of what it deletes.
    fn after(&self, policy: Policy, row: Option<Row>, fresh: usize) -> Vec<Self> {
        let mut next = self.clone();
        let mut others = Vec::new();
        if policy != Policy::Flag && !self.letters.is_empty() {
            next.hold(policy, row);
            if row.is_none() && fresh == 0 {
                others.push(Self::default());
            }
        } else if row.is_some_and(|row| row.mark.is_some()) {
            next.letters.push(Letter { row, held: false, later: false });
        } else {
            next.store(policy, row);
            next.letters.iter_mut().for_each(|letter| letter.later = true);
            if row.is_none() {
                let shorter = |count| Self { rows: Vec::new(), letters: next.letters[..count].to_vec() };
                others.extend((fresh..next.letters.len()).map(shorter));
            }
        }
        others.push(next);
        others
    }

    /// All letters are replayed, and nothing is refused.
    fn replay(&mut self, policy: Policy) {
        for letter in std::mem::take(&mut self.letters) {
            if !letter.later {
                self.store(policy, letter.row);
            }
        }
    }

    /// What was refused is dropped, and what waits is applied until one of that is refused.
    fn drop_letters(&mut self, policy: Policy) {
        let held = self.letters.split_off(self.letters.iter().take_while(|letter| !letter.held).count());
        self.letters.clear();
        for letter in held {
            if !self.letters.is_empty() {
                self.letters.push(letter);
            } else if letter.row.is_some_and(|row| row.mark.is_some()) {
                self.letters.push(Letter { held: false, ..letter });
            } else {
                self.store(policy, letter.row);
            }
        }
    }
}

/// How a round ends for those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything stays as it is until a later round.
    Keep,
    /// Whatever was refused is accepted, and replayed.
    Replay,
    /// It is dropped.
    Drop,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    pub name: String,
    pub policy: Policy,
    /// The states it may be in; of no use where it is written through both proxies.
    pub states: BTreeSet<State>,
    /// So many of its letters have been seen in the database.
    seen: usize,
    /// What was tried since the last acknowledged write (and this itself, first): number (none: a deletion), and a mark.
    pub newest: Vec<(Option<u64>, bool)>,
    pub acknowledged: bool,
    /// Writes with an unknown outcome since the last look at the database.
    pub unknown: usize,
}

impl Key {
    pub fn new(policy: Policy, name: String) -> Self {
        Self {
            name,
            policy,
            states: BTreeSet::from([State::default()]),
            seen: 0,
            newest: Vec::new(),
            acknowledged: false,
            unknown: 0,
        }
    }

    /// A write was tried.
    pub fn wrote(&mut self, row: Option<Row>, acknowledged: bool) {
        let after = self.states.iter().flat_map(|state| state.after(self.policy, row, self.seen));
        let after: BTreeSet<State> = after.collect();
        if acknowledged {
            (self.states, self.acknowledged) = (after, true);
            self.newest.clear();
        } else {
            self.states.extend(after);
            self.unknown += 1;
        }
        self.newest.push((row.map(|row| row.seq), row.is_some_and(|row| row.mark.is_some())));
    }

    /// It was in this state, and the round has ended for it.
    pub fn settle(&mut self, state: &State, ending: Ending) {
        let mut state = state.clone();
        match ending {
            Ending::Keep => {}
            Ending::Replay => state.replay(self.policy),
            Ending::Drop => state.drop_letters(self.policy),
        }
        self.seen = state.letters.len();
        self.states = BTreeSet::from([state]);
        self.unknown = 0;
    }

    /// It is in this state, after the end of the round.
    pub fn looked_after(&mut self, state: &State) {
        self.settle(state, Ending::Keep);
        // Whatever became of what was written: the newest is this, or what is replayed yet.
        let left = state.letters.last().map(|letter| letter.row.map(|row| row.seq));
        self.newest = [Some(state.shown()), left].into_iter().flatten().map(|it| (it, false)).collect();
    }
}
