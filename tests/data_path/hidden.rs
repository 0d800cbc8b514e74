//! The proxy's own keys on a cluster that has nothing else: nobody sees or counts them.

use crate::bed::Bed;
use crate::support::{Resp, Value};

#[test]
fn a_cluster_with_nothing_but_the_proxys_own_keys_is_empty() {
    let bed = Bed::private("");
    // Sidecars of rows that are not there, and of entries that are gone; generations.
    for n in 1..=40 {
        bed.run(&["GET", &format!("user:{}", 5000 + n)]);
        bed.run(&["GET", &format!("user:{n}")]);
        bed.direct(&["DEL", &format!("user:{n}")]);
    }
    let kept: i64 = bed.nodes.iter().map(|node| Resp::connect(&**node).cmd(&["DBSIZE"]).int()).sum();
    assert!(kept >= 40, "{kept}");
    let scanned = |more: &[&str]| {
        let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
        loop {
            let page = bed.run(&[&["SCAN", &cursor][..], more].concat());
            seen.extend(page.items()[1].items().to_vec());
            cursor = page.items()[0].text();
            if cursor == "0" {
                return seen;
            }
        }
    };
    assert_eq!(bed.run(&["DBSIZE"]).int(), 0);
    for _ in 0..20 {
        assert_eq!(bed.run(&["RANDOMKEY"]), Value::Nil);
    }
    for pattern in ["*", "dsproxy:*", "*user:5001", "ds[p]roxy*"] {
        assert_eq!(bed.run(&["KEYS", pattern]).items(), [], "{pattern}");
        assert_eq!(scanned(&["MATCH", pattern, "COUNT", "100"]), [], "{pattern}");
    }
    assert_eq!(scanned(&["TYPE", "hash"]), []);
    // In MULTI, too, or it is refused.
    let mut client = bed.proxy.connect();
    for line in [&["RANDOMKEY"][..], &["DBSIZE"], &["KEYS", "*"], &["SCAN", "0"]] {
        client.cmd(&["MULTI"]);
        assert!(matches!(client.cmd(line), Value::Error(_)), "{line:?}");
        client.cmd(&["DISCARD"]);
    }
    // One key of a client's among them is the only one there is.
    bed.run(&["SET", "mine", "1"]);
    for _ in 0..20 {
        assert_eq!(bed.run(&["RANDOMKEY"]), "mine".into());
    }
    assert_eq!((bed.run(&["DBSIZE"]).int(), scanned(&[])), (1, vec!["mine".into()]));
    assert_eq!(bed.run(&["KEYS", "*"]).items(), ["mine".into()]);
}
