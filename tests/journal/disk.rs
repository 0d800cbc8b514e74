//! Disks that are full, or not ours to write.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use dsproxy::journal::{JournalError, JournalOptions, OpenError, verify};

use crate::bed::{Text, Told, append, next, open, small, start};
use crate::child::spawn;

/// In a child: its files may not grow beyond a limit, so a segment cannot be made at some point.
pub fn write_until_refused(place: &Path) {
    let (journal, told) = start(place, JournalOptions { segment_bytes: 16 << 10, ..small() });
    append(&journal, "fits");
    assert!(matches!(next(&told), Told::Durable(1, _)));
    // No file may be made larger than it is now: as a full disk, for this process.
    rlimit::setrlimit(rlimit::Resource::FSIZE, 8 << 10, 8 << 10).unwrap();
    for n in 0..100 {
        // The write that fails may be the mark after a record that is acknowledged: then the next one is not taken.
        if let Err(refused) = journal.append(Text(format!("{n:01000}"), 1)) {
            println!("refused: {}", refused.error);
            break;
        }
        match next(&told) {
            Told::Durable(..) => {}
            Told::Poisoned(_) => assert!(matches!(next(&told), Told::Failed(..))),
            Told::Failed(_, error) => panic!("poisoned first: {error}"),
        }
    }
    println!("poisoned: {}", journal.stats().poisoned.is_some());
    println!("again: {:?}", journal.append(Text("more".into(), 1)).err().map(|r| r.error));
    journal.close();
}

#[test]
fn a_write_error_poisons_and_keeps_what_was_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let mut child = spawn("limited", place.path(), None);
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert!(text.contains("refused: the journal cannot be written any more: cannot write"), "{text}");
    assert!(text.contains("poisoned: true") && text.contains("again: Some(Poisoned("), "{text}");
    let summary = verify(place.path()).unwrap();
    assert!(summary.records >= 2, "{summary:?}");
}

/// A file system of its own, where root may make one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(place.path())
            .output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(place))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_refuses_and_room_on_it_mends() {
    let Some(small_disk) = Small::mount("256k") else {
        eprintln!("skipped: needs the right to mount a tmpfs");
        return;
    };
    let place = small_disk.0.path().join("journal");
    let options = JournalOptions { segment_bytes: 64 << 10, ..small() };
    let (journal, told) = start(&place, options.clone());
    let mut last = 0;
    let refused = loop {
        append(&journal, "x".repeat(10_000));
        match next(&told) {
            Told::Durable(first, _) => last = first,
            Told::Failed(_, error) => break error,
            Told::Poisoned(reason) => panic!("{reason}"),
        }
    };
    assert!(matches!(refused, JournalError::NoSpace(_)), "{refused}");
    assert!(last >= 6 && journal.stats().poisoned.is_none(), "{last}");
    append(&journal, "still full");
    assert!(matches!(next(&told), Told::Failed(..)));
    journal.trim(last + 1); // everything is in the database: the old segments go
    let mut freed = 0;
    loop {
        append(&journal, "room");
        match next(&told) {
            Told::Durable(first, _) => {
                assert_eq!(first, last + 1, "no sequence is left out");
                break;
            }
            Told::Failed(..) => freed += 1,
            Told::Poisoned(reason) => panic!("{reason}"),
        }
        assert!(freed < 100_000);
    }
    journal.close();
    assert_eq!(verify(&place).unwrap().last, last + 1);
}

#[test]
fn a_read_only_directory_is_refused_in_words() {
    let Some(disk) = Small::mount("1m") else {
        eprintln!("skipped: needs the right to mount a tmpfs");
        return;
    };
    fs::create_dir(disk.0.path().join("journal")).unwrap();
    let remount =
        std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).output().unwrap();
    assert!(remount.status.success());
    let error = open(&disk.0.path().join("journal"), small()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("Read-only file system") && text.contains("data_dir"), "{text}");
    let error = open(Path::new("/proc/journal"), small()).unwrap_err().to_string();
    assert!(error.starts_with("cannot create /proc/journal"), "{error}");
}
