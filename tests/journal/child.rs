//! A process that appends, and is killed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bed::{Told, append, files, next, open, records, small, start};

/// What the child is told to do, and where.
const JOB: &str = "JOURNAL_TEST_JOB";
const PLACE: &str = "JOURNAL_TEST_PLACE";

/// Not a test: the child's `main`.
#[test]
fn child() {
    let (Ok(job), Ok(place)) = (std::env::var(JOB), std::env::var(PLACE)) else { return };
    let place = Path::new(&place);
    match job.as_str() {
        "append" => append_for_ever(place),
        "limited" => crate::disk::write_until_refused(place),
        "try" => {
            println!("{}", open(place, small()).map_or_else(|error| error.to_string(), |_| "open".into()))
        }
        other => panic!("{other}"),
    }
}

pub fn spawn(job: &str, place: &Path, failpoint: Option<&str>) -> Child {
    // Past the limit of a file's size a write is to fail, not the process to end.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" --exact child::child --nocapture"]);
    command.arg(std::env::current_exe().unwrap()).env(JOB, job).env(PLACE, place);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(failpoint) = failpoint {
        command.env("DSPROXY_FAILPOINT", failpoint);
    }
    command.spawn().unwrap()
}

/// Numbers from several threads; each is printed once it is durable, then what it was.
fn append_for_ever(place: &Path) {
    let (journal, told) = start(place, small());
    for thread in 0..4 {
        let journal = journal.clone();
        std::thread::spawn(move || {
            for n in 0.. {
                while journal.append(crate::bed::Text(format!("{thread}-{n}"), 1)).is_err() {
                    std::thread::yield_now();
                }
                if n % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
    }
    let mut out = String::new();
    let mut trimmed = 0;
    for said in told {
        let Told::Durable(first, text) = said else { panic!("{said:?}") };
        out.clear();
        std::fmt::Write::write_fmt(&mut out, format_args!("{first} {text}\n")).unwrap();
        // One write per line: a line that the parent sees whole was acknowledged.
        std::io::Write::write_all(&mut std::io::stdout().lock(), out.as_bytes()).unwrap();
        if first > trimmed + 2000 {
            trimmed = first - 1000;
            journal.trim(trimmed);
        }
    }
}

/// Everything acknowledged is there, in order, without a gap.
fn check(place: &Path, acknowledged: &[(u64, String)]) {
    let opened = open(place, small()).unwrap();
    let found = records(&opened);
    let firsts: Vec<u64> = found.iter().map(|(first, _)| *first).collect();
    assert!(firsts.windows(2).all(|pair| pair[1] == pair[0] + 1), "gapless");
    let start = firsts.first().copied().unwrap_or(1);
    for (sequence, text) in acknowledged.iter().filter(|(sequence, _)| *sequence >= start) {
        let at = (sequence - start) as usize;
        assert_eq!(found.get(at).map(|(_, text)| text), Some(text), "acknowledged {sequence} is lost");
    }
    let last = acknowledged.last().map_or(0, |(sequence, _)| *sequence);
    assert!(opened.last() >= last, "{} < {last}", opened.last());
    // Per writer, numbers rise by one: nothing is there twice, nothing is left out.
    for thread in 0..4 {
        let numbers: Vec<u64> = found
            .iter()
            .filter_map(|(_, text)| text.strip_prefix(&format!("{thread}-")))
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "writer {thread}");
    }
}

fn lines(child: &mut Child) -> impl Iterator<Item = (u64, String)> + use<> {
    let out = BufReader::new(child.stdout.take().unwrap());
    out.lines().map_while(Result::ok).filter_map(|line| {
        let (sequence, text) =
            line.rsplit_once("... ").map_or(line.as_str(), |(_, rest)| rest).split_once(' ')?;
        text.contains('-').then_some(())?;
        Some((sequence.parse().ok()?, text.to_owned()))
    })
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let place = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 0..8 {
        let mut child = spawn("append", place.path(), None);
        let mut acknowledged = Vec::new();
        let stop_after = 200 + round * 517;
        let mut lines = lines(&mut child);
        for line in lines.by_ref() {
            acknowledged.push(line);
            if acknowledged.len() == stop_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= stop_after);
        total += acknowledged.len();
        // Numbers of writers start anew in each round: only this round's are checked.
        check_round(place.path(), &acknowledged);
    }
    assert!(total > 8 * 200);
}

/// Checks the records of the last process, and forgets all.
fn check_round(place: &Path, acknowledged: &[(u64, String)]) {
    check(place, acknowledged);
    let (journal, told) = start(place, small());
    append(&journal, "end of round");
    let Told::Durable(last, _) = next(&told) else { panic!("not durable") };
    journal.trim(last);
    journal.close();
    // The trim is done before the thread ends; what is left is the segment of the last record.
    assert_eq!(files(place).len(), 1, "{:?}", files(place));
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn a_death_between_write_and_sync_or_before_the_answer_loses_nothing() {
    for point in ["journal.written:40", "journal.durable:40"] {
        let place = tempfile::tempdir().unwrap();
        let mut child = spawn("append", place.path(), Some(point));
        let acknowledged: Vec<_> = lines(&mut child).collect();
        assert!(!child.wait().unwrap().success(), "it was to be killed at {point}");
        assert!(!acknowledged.is_empty());
        check(place.path(), &acknowledged);
    }
}

#[test]
fn a_second_process_is_refused_and_told_by_whom() {
    let place = tempfile::tempdir().unwrap();
    let (journal, _told) = start(place.path(), small());
    let mut text = String::new();
    let mut child = spawn("try", place.path(), None);
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let owner = format!("in use by process {}", std::process::id());
    assert!(text.contains(&owner) && text.contains("data_dir"), "{text}");
    journal.close();
    drop(journal);
    assert!(open(place.path(), small()).is_ok(), "the lock ends with its holder");
}
