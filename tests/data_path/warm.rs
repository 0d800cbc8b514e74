//! `dsproxy warm` against a running proxy.

use std::process::{Command, Output, Stdio};

use crate::bed::{Bed, PATIENCE};
use crate::support::eventually;

const ROWS: usize = 1700;

fn command(bed: &Bed, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
    command.current_dir(bed.proxy.dir()).arg("warm").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn warm(bed: &Bed, args: &[&str]) -> String {
    let output = command(bed, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    text(&output)
}

fn cached(bed: &Bed) -> usize {
    bed.run(&["KEYS", "@user:*"]).items().len()
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let bed = Bed::start("");
    bed.db.execute(&format!("insert into users select n, 'u' || n from generate_series(201, {ROWS}) n"));
    let checkpoint = bed.proxy.dir().join("dsproxy-data/warm-user.json");
    let mut child = command(&bed, &["user", "--rate", "300"]).spawn().unwrap();
    eventually(PATIENCE, "some pages are loaded", || checkpoint.exists() && cached(&bed) >= 120);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = cached(&bed);
    assert!(before < ROWS, "{before} of {ROWS} rows at 300 per second");

    // What is loaded is not loaded again: an entry that went meanwhile stays away.
    bed.direct(&["DEL", "@user:1"]);
    let loads = bed.loads("user");
    let said = warm(&bed, &["user"]);
    assert!(said.contains("of a run before"), "{said}");
    assert_eq!((cached(&bed), bed.direct(&["EXISTS", "@user:1"]).int()), (ROWS - 1, 0));
    assert!(!checkpoint.exists());
    let queries = bed.loads("user") - loads;
    assert!((1.0..=100.0).contains(&queries), "{queries} queries for {} rows", ROWS - before);

    // All is there: no query. The next run is a new one, and finds the one that is missing.
    assert!(warm(&bed, &["user"]).contains(&format!("{ROWS} rows in")));
    assert_eq!((cached(&bed), bed.loads("user") - loads), (ROWS, queries + 1.0));
}

#[test]
fn a_part_is_warmed_and_mistakes_are_told() {
    let bed = Bed::start("max_value_bytes = \"1KB\"");
    let checkpoint = bed.proxy.dir().join("dsproxy-data/warm-user.json");
    warm(&bed, &["user", "--where", "id % 2 = 0", "--limit", "60"]);
    // Rows are answered before they are stored.
    eventually(PATIENCE, "half of the rows are cached", || cached(&bed) == 60);
    assert_eq!(
        (bed.direct(&["EXISTS", "@user:120"]).int(), bed.direct(&["EXISTS", "@user:3"]).int()),
        (1, 0)
    );

    // A checkpoint of other rows, one that is damaged, and one that is not wanted do not count.
    std::fs::create_dir_all(checkpoint.parent().unwrap()).unwrap();
    for (kept, args) in [
        (r#"{"filter":"id > 5","after":["150"],"rows":150}"#, &["user", "--limit", "3"][..]),
        ("{garbage", &["user", "--limit", "4"]),
        (r#"{"filter":null,"after":["150"],"rows":150}"#, &["user", "--limit", "5", "--restart"]),
    ] {
        std::fs::write(&checkpoint, kept).unwrap();
        assert!(warm(&bed, args).contains(&format!("{} rows in", args[2])), "{kept}");
    }

    for (args, says) in [
        (&["nosuch"][..], "no mapping `nosuch`"),
        (&["user", "--where", "nosuch = 1"], "nosuch"),
        (&["user", "--rate", "0"], "--rate"),
        (&["user", "--user", "nosuch"], "WRONGPASS"),
        (&["user", "--address", "127.0.0.1:1"], "no proxy answers at 127.0.0.1:1"),
    ] {
        let output = command(&bed, args).output().unwrap();
        assert!(!output.status.success() && text(&output).contains(says), "{args:?}: {}", text(&output));
    }

    // A row that cannot be loaded ends it, and says why; what was loaded before counts.
    bed.db.execute("update users set email = repeat('x', 3000) where id = 190");
    let args = ["user", "--where", "id > 180", "--rate", "25"];
    let output = command(&bed, &args).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("5 rows are loaded"), "{}", text(&output));
    bed.db.execute("update users set email = null where id = 190");
    let said = warm(&bed, &args);
    assert!(said.contains("15 rows after 5 of a run before"), "{said}");
}
