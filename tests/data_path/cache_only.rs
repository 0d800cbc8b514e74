//! Reads of mapped keys inside `MULTI` and by scripts: from the cache alone, and counted.

use crate::bed::{Bed, user};
use crate::support::Value;

#[test]
fn reads_from_the_cache_alone_are_counted() {
    let bed = Bed::start("");
    let counted = || {
        ["transaction", "script"].map(|place| {
            bed.proxy.metric(&format!("dsproxy_cache_only_reads_total{{mapping=\"user\",place=\"{place}\"}}"))
        })
    };
    let mut client = bed.proxy.connect();
    let mut run = |args: &[&str]| client.cmd(&bed.args(args));
    let script = "return redis.call('GET', KEYS[1])";

    // Nothing is cached: nil, and nothing is loaded.
    run(&["MULTI"]);
    run(&["GET", "@user:{7}"]);
    run(&["PING"]);
    assert_eq!(counted(), [0.0, 0.0], "nothing has run yet");
    run(&["DISCARD"]);
    run(&["MULTI"]);
    run(&["GET", "@user:7"]);
    run(&["EVAL", script, "1", "@user:7"]);
    assert_eq!(run(&["EXEC"]).items(), [Value::Nil, Value::Nil]);
    assert_eq!((counted(), bed.loads("user")), ([1.0, 1.0], 0.0));
    assert_eq!(run(&["EVAL", script, "1", "@user:7"]), Value::Nil);
    assert_eq!(run(&["EVAL", script, "1", "@plain"]), Value::Nil);
    assert_eq!((counted(), bed.loads("user")), ([1.0, 2.0], 0.0));

    // What is cached is seen, and counts as well; a read outside does not.
    assert_eq!(run(&["GET", "@user:7"]).text(), user(7));
    assert_eq!(run(&["EVAL", script, "1", "@user:7"]).text(), user(7));
    run(&["MULTI"]);
    run(&["MGET", "@user:7", "@user:7"]);
    run(&["EXEC"]);
    assert_eq!((counted(), bed.loads("user")), ([3.0, 3.0], 1.0));
}
