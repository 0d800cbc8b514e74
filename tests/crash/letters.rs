//! Reads the rows and the dead letters of keys with refused writes, and holds them against what their writers know.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::check::Store;
use crate::load::Load;
use crate::model::{Ending, Key, Letter, Row, State};
use crate::poison::{line_of, number_of};
use crate::support::Resp;
use crate::victim::Victim;

/// The cache is told of all that an earlier process may not have told it.
const TOLD: Duration = Duration::from_secs(3);

/// Which look at the end of a round it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Everything has been flushed, and nobody has seen to the dead letters yet.
    Before(Ending),
    /// Somebody has.
    After(Ending),
}

/// What there is to complain about.
pub fn check(store: &Store, load: &mut Load, proxies: &[Victim; 2], look: Look) -> Vec<String> {
    let mut states = read(store, load.prefix());
    let poisoned = || load.writers.iter().filter_map(|writer| writer.poisoned.as_ref());
    let shown = |key: &Key| states.get(&key.name).and_then(State::shown);
    let expected: Vec<(String, Option<u64>)> =
        poisoned().flat_map(|it| &it.keys).map(|key| (key.name.clone(), shown(key))).collect();
    let mut complaints: Vec<String> =
        proxies.iter().flat_map(|proxy| seen_instead(proxy, &expected)).collect();
    for poisoned in load.writers.iter_mut().filter_map(|writer| writer.poisoned.as_mut()) {
        for key in &mut poisoned.keys {
            let state = states.remove(&key.name).unwrap_or_default();
            let wrong = wrong(key, &state, poisoned.through.is_some(), look);
            complaints.extend(wrong.map(|what| format!("{}, {look:?}: {what}", key.name)));
            match look {
                Look::Before(ending) => key.settle(&state, ending),
                Look::After(_) => key.looked_after(&state),
            }
        }
    }
    complaints.extend(states.iter().map(|(key, state)| format!("{key}: nobody wrote {state:?}")));
    complaints
}

/// What readers see of these keys, where that is not this. The next start of a proxy that died before it could tell the cache
/// of a refusal does so in the background.
fn seen_instead(proxy: &Victim, expected: &[(String, Option<u64>)]) -> Vec<String> {
    let (mut proxy, end) = (Resp::connect(("127.0.0.1", proxy.port())), Instant::now() + TOLD);
    let gets: Vec<_> = expected.iter().map(|(key, _)| vec!["GET", key]).collect();
    loop {
        let replies = proxy.pipeline(&gets);
        let differs =
            expected.iter().zip(&replies).filter(|((_, expected), reply)| number_of(reply) != *expected);
        let wrong: Vec<String> = differs
            .map(|((key, expected), reply)| format!("{key}: read {reply:?}, not {expected:?}"))
            .collect();
        if wrong.is_empty() || Instant::now() > end {
            return wrong;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Why the key cannot have come to this state.
fn wrong(key: &Key, state: &State, alone: bool, look: Look) -> Option<String> {
    if alone {
        let fits = key.states.contains(state);
        return (!fits).then(|| format!("it is {state:?}, and not one of {:?}", key.states));
    }
    let replayed = matches!(look, Look::After(Ending::Replay));
    if replayed && !state.letters.is_empty() {
        return Some(format!("these are left: {:?}", state.letters));
    }
    // A marked write may have been refused: until it is replayed readers see what was there before.
    let counts = match look {
        Look::Before(_) => key.newest.first().is_some_and(|(_, marked)| !marked),
        Look::After(_) => replayed,
    };
    let fits = key.newest.iter().any(|(seq, _)| *seq == state.shown());
    let never = state.shown().is_none() && !key.acknowledged;
    (counts && !fits && !never)
        .then(|| format!("readers see {:?} of {state:?}, and not one of {:?}", state.shown(), key.newest))
}

/// All keys that have rows or dead letters.
fn read(store: &Store, prefix: &str) -> HashMap<String, State> {
    let mut states: HashMap<String, State> = HashMap::new();
    let rows = "select 'flagged:' || id, seq, coalesce(mark, 0) from flagged union all \
                select 'waiting:' || id, seq, coalesce(mark, 0) from waiting";
    for row in store.rows(rows) {
        let [key, seq, mark] = &row[..] else { unreachable!() };
        let mark = Some(number(mark)).filter(|mark| *mark > 0);
        let row = Row { seq: number(seq), mark };
        states.entry(format!("{prefix}{key}")).or_default().rows.push(row);
    }
    for row in store.rows("select id, value from line order by n") {
        let [id, value] = &row[..] else { unreachable!() };
        let row = line_of(value).unwrap();
        states.entry(format!("{prefix}line:{id}")).or_default().rows.push(row);
    }
    let letters = "select key, coalesce(columns, ''), case when held then 1 else 0 end, \
                   case when later is null then 0 else 1 end from dsproxy_dead_letters order by held, version, id";
    for row in store.rows(letters) {
        let [key, columns, held, later] = &row[..] else { unreachable!() };
        let letter = Letter { row: row_of(columns), held: held == "1", later: later == "1" };
        states.entry(key.clone()).or_default().letters.push(letter);
    }
    states
}

/// What a dead letter has of its row, each column as a text.
fn row_of(columns: &str) -> Option<Row> {
    let columns: HashMap<String, Option<String>> = serde_json::from_str(columns).ok()?;
    let column = |name: &str| columns.get(name).cloned().flatten();
    match column("value") {
        Some(value) => line_of(&value),
        None => Some(Row { seq: number(&column("seq")?), mark: column("mark").as_deref().map(number) }),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}
