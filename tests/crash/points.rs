//! Every fail point of the program is passed under load, and the death there loses nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::arena::{Arena, Blow};

/// Passed only where a safeguard is left out.
const BROKEN_ONLY: &[&str] = &["flush.torn"];

/// Names of all fail points, as the source has them, but those of write-through (`through.rs`) and of a replay of dead letters
/// (which has one of its own at the end of a round).
pub fn all() -> Vec<String> {
    let mut names = BTreeSet::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    let behind = names.into_iter().filter(|name| !name.starts_with("through.") && name != "held.release");
    behind.filter(|name| !BROKEN_ONLY.contains(&name.as_str())).collect()
}

fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let after = text.split("failpoint::hit(\"").skip(1);
            names.extend(after.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
}

#[test]
fn a_death_at_every_other_fail_point_loses_nothing() {
    die_at(|at| at % 2 == 0);
}

#[test]
fn nor_does_one_at_those_between() {
    die_at(|at| at % 2 == 1);
}

/// A round for each of these points, by number.
fn die_at(wanted: impl Fn(usize) -> bool) {
    let points = all();
    assert!(points.len() >= 13, "{points:?}");
    let points: Vec<String> =
        points.into_iter().enumerate().filter(|(at, _)| wanted(*at)).map(|(_, point)| point).collect();
    let mut arena = Arena::shared(crate::WRITERS, &[]);
    arena.patience = Duration::from_secs(15);
    let seed = crate::seed();
    for (round, point) in (0..).zip(&points) {
        let mut random = crate::random(seed, round);
        // At a start one comes by once; elsewhere something has happened before.
        let count = if point.starts_with("start.") || point == "journal.trimmed" { 1 } else { 2 };
        let found = arena.round(&mut random, &[Blow::FailPoint(0, point.clone(), count)]);
        assert!(
            found.is_clean() && found.miscounted.is_empty(),
            "CRASH_SEED={seed}, {point}: {found:?}\n{}",
            arena.logs()
        );
        let died = arena.tally.contains_key(&format!("died at {point}"));
        assert!(died, "nobody came by {point} (the load of the crash tests must)\n{}", arena.logs());
    }
    println!("{:?}", arena.tally);
}
