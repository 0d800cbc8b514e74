//! The protocol as a model, small enough to look at everything that can happen: one key, two proxies.
//!
//! What a script does is one step; anything may happen between two steps: other steps, expiry, eviction, a crash. Each
//! variant that "simplifies" the protocol is a test that must find what goes wrong.

mod patterns;
mod reads;
mod through;
mod writes;

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

/// A system that moves from state to state.
trait Model: Clone + Eq + Hash + Debug {
    /// What can happen next: its name, and the state after it, or what is wrong about it.
    fn steps(&self) -> Vec<(String, Result<Self, String>)>;
    /// What is wrong with the state itself.
    fn fault(&self) -> Option<String>;
}

/// Looks at every reachable state. The number of states, or the shortest way to a fault.
fn explore<M: Model>(start: M) -> Result<usize, String> {
    let mut before: HashMap<M, Option<(M, String)>> = HashMap::from([(start.clone(), None)]);
    let mut queue = VecDeque::from([start]);
    let way = |before: &HashMap<M, Option<(M, String)>>, mut state: M, last: String| {
        let mut names = vec![last];
        while let Some(Some((parent, name))) = before.get(&state) {
            names.push(name.clone());
            state = parent.clone();
        }
        names.reverse();
        names.join(" -> ")
    };
    while let Some(state) = queue.pop_front() {
        for (name, next) in state.steps() {
            let next = match next {
                Ok(next) => next,
                Err(fault) => return Err(way(&before, state, format!("{name}: {fault}"))),
            };
            if before.contains_key(&next) {
                continue;
            }
            if let Some(fault) = next.fault() {
                return Err(way(&before, state, format!("{name}: {fault}")));
            }
            before.insert(next.clone(), Some((state.clone(), name)));
            queue.push_back(next);
        }
    }
    Ok(before.len())
}

/// Finds nothing wrong; prints how much was looked at.
#[track_caller]
fn holds<M: Model>(start: M) {
    match explore(start) {
        Ok(states) => {
            println!("{states} states");
            assert!(states > 100, "hardly anything happens: {states}");
        }
        Err(way) => panic!("{way}"),
    }
}

/// Finds something wrong.
#[track_caller]
fn breaks<M: Model>(start: M) {
    match explore(start) {
        Ok(states) => panic!("nothing wrong in {states} states"),
        Err(way) => println!("{way}"),
    }
}
