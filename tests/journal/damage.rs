//! Every byte of a journal flipped or cut: each is seen, or does no harm.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dsproxy::journal::{JournalOptions, OpenError, verify};

use crate::bed::{append, files, next, open, records, small, start};

/// These tests open thousands of journals, and no power fails meanwhile.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Room for a handful of records: each of its bytes is changed in turn.
fn tiny() -> JournalOptions {
    JournalOptions { segment_bytes: 400, ..JournalOptions::default() }
}

/// Three records, and the process gone without closing (`clean`: closed).
fn write(directory: &Path, clean: bool) -> Vec<(u64, String)> {
    let (journal, told) = start(directory, tiny());
    for text in ["first", "second", "third, a longer one"] {
        append(&journal, text);
        next(&told);
    }
    let all = ["first", "second", "third, a longer one"];
    if clean {
        journal.close();
    } else {
        // The file as a kill would leave it, once the mark after the last record is there.
        let file = &files(directory)[0];
        let deadline = Instant::now() + Duration::from_secs(20);
        let bytes = loop {
            let bytes = fs::read(file).unwrap();
            let end =
                bytes.windows(all[2].len()).position(|w| w == all[2].as_bytes()).unwrap() + all[2].len();
            if bytes[end..end + 36].iter().any(|byte| *byte != 0) {
                break bytes;
            }
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        };
        journal.close();
        fs::write(file, bytes).unwrap();
    }
    (1..).zip(all.map(str::to_owned)).collect()
}

/// Opens a copy with `change` made to its only segment; the records, if it opens.
fn after(original: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<(u64, String)>, OpenError> {
    let directory = in_memory();
    let mut bytes = original.to_vec();
    change(&mut bytes);
    fs::write(directory.path().join("00000000000000000001.journal"), bytes).unwrap();
    open(directory.path(), tiny()).map(|opened| records(&opened))
}

#[test]
fn every_flipped_byte_is_seen_or_harmless() {
    for clean in [false, true] {
        let directory = in_memory();
        let all = write(directory.path(), clean);
        let bytes = fs::read(&files(directory.path())[0]).unwrap();
        assert_eq!(after(&bytes, |_| {}).unwrap(), all);
        let mut seen = 0;
        for at in 0..bytes.len() {
            match after(&bytes, |bytes| bytes[at] ^= 0x41) {
                // The header's reserved bytes are covered, too: harmless is only what lies behind the last record.
                Ok(found) => assert_eq!(found, all, "byte {at} (clean: {clean})"),
                Err(OpenError::Damaged { .. } | OpenError::Newer { .. }) => seen += 1,
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
        assert!(seen >= 64 + 3 * 36, "{seen} of {}", bytes.len());
    }
}

#[test]
fn every_cut_is_seen() {
    for clean in [false, true] {
        let directory = in_memory();
        write(directory.path(), clean);
        let bytes = fs::read(&files(directory.path())[0]).unwrap();
        for length in 0..bytes.len() {
            let error = after(&bytes, |bytes| bytes.truncate(length)).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{length}: {error}");
        }
    }
}

#[test]
fn the_torn_end_of_a_write_that_nobody_was_told_of_is_cut_off() {
    let directory = in_memory();
    let all = write(directory.path(), false);
    let bytes = fs::read(&files(directory.path())[0]).unwrap();
    // A batch of two more records as a crash may leave it: any part of it, in any order of sectors. Their `synced` is 3.
    let donor = in_memory();
    let (journal, told) = start(donor.path(), tiny());
    for text in ["first", "second", "third, a longer one"] {
        append(&journal, text);
        next(&told);
    }
    append(&journal, "fourth");
    next(&told);
    journal.close();
    let with_fourth = fs::read(&files(donor.path())[0]).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 3; // the mark ends in two zeros
    let fourth = with_fourth.windows(6).position(|w| w == b"fourth").unwrap() - 36;
    let frame = &with_fourth[fourth..fourth + 42];
    for part in 1..frame.len() {
        let found = after(&bytes, |bytes| bytes[end..end + part].copy_from_slice(&frame[..part])).unwrap();
        assert_eq!(found, all, "{part} bytes of it");
    }
    // The second record of the batch arrived, the first did not.
    let found = after(&bytes, |bytes| bytes[end + 50..end + 92].copy_from_slice(frame)).unwrap();
    assert_eq!(found, all);
    let mut more = all.clone();
    more.push((4, "fourth".into()));
    let found = after(&bytes, |bytes| bytes[end..end + 42].copy_from_slice(frame)).unwrap();
    assert_eq!(found, more, "whole, though nobody was told");
}

#[test]
fn a_torn_end_is_gone_after_the_next_start_and_writing_goes_on() {
    let directory = in_memory();
    let all = write(directory.path(), false);
    let file = files(directory.path()).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 3;
    bytes[end..end + 100].fill(0xAB);
    fs::write(&file, bytes).unwrap();
    assert_eq!(verify(directory.path()).unwrap().torn, 100);
    let (journal, told) = start(directory.path(), small());
    append(&journal, "fourth");
    assert_eq!(next(&told), crate::bed::Told::Durable(4, "fourth".into()));
    journal.close();
    let summary = verify(directory.path()).unwrap();
    assert_eq!((summary.torn, summary.last, summary.segments), (0, 4, 2));
    let found = records(&open(directory.path(), small()).unwrap());
    assert_eq!(found, [all, vec![(4, "fourth".into())]].concat());
}

#[test]
fn damage_in_the_middle_names_file_offset_and_cure() {
    let directory = in_memory();
    let (journal, told) = start(directory.path(), small());
    for n in 0..100 {
        append(&journal, format!("{n:0200}"));
        next(&told);
    }
    journal.close();
    let all = files(directory.path());
    assert!(all.len() > 3, "{all:?}");
    let mut bytes = fs::read(&all[1]).unwrap();
    bytes[300] ^= 1;
    fs::write(&all[1], bytes).unwrap();
    let text = open(directory.path(), small()).unwrap_err().to_string();
    let name = all[1].file_name().unwrap().to_string_lossy().into_owned();
    assert!(text.contains(&name) && text.contains("byte ") && text.contains("restore the file"), "{text}");
    fs::remove_file(&all[1]).unwrap();
    let text = open(directory.path(), small()).unwrap_err().to_string();
    assert!(text.contains("a file before it is missing"), "{text}");
}

#[test]
fn a_newer_format_is_refused_in_words() {
    let directory = in_memory();
    write(directory.path(), true);
    let bytes = fs::read(&files(directory.path())[0]).unwrap();
    let error = after(&bytes, |bytes| bytes[8] = 2).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{text}");
    assert!(text.contains("written by a newer one"), "{text}");
}
