//! What this process knows of commits while the cache cannot be told of them, and shortly after it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dsproxy::mapping::MappingId;
use dsproxy::writeback::{BoxFuture, Committed, Observer, Pending, WriteBehind, WriteBehindOptions};
use tokio::runtime::Handle;

use crate::pg::{Pg, until};
use crate::writeback::{USERS, behind, never, set};

/// A cache that cannot be told of anything, as long as it is deaf.
struct Deaf(AtomicBool);

impl Observer for Deaf {
    fn committed(&self, _: MappingId, keys: Vec<Committed>) -> BoxFuture<Vec<Committed>> {
        let untold = if self.0.load(Ordering::SeqCst) { keys } else { Vec::new() };
        Box::pin(std::future::ready(untold))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_the_cache_knows_ends_what_it_could_not_be_told_before() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    let minute = Duration::from_secs(60);
    let options = WriteBehindOptions { retry_first: minute, retry_most: minute, ..never() };
    let cache = Arc::new(Deaf(AtomicBool::new(true)));
    let writes = WriteBehind::start(source.clone(), options, cache.clone(), &Handle::current());
    let name = |name: &str| format!(r#"{{"name":"{name}"}}"#);
    let shown = |text: &str| Some(Pending::Value(Bytes::copy_from_slice(name(text).as_bytes())));
    set(&writes, &source, "u:1", &name("old")).unwrap();
    writes.flush_now().await;
    assert_eq!(writes.pending(0, b"u:1"), shown("old"), "the cache does not know");
    set(&writes, &source, "u:1", &name("new")).unwrap();
    assert_eq!(writes.pending(0, b"u:1"), shown("new"));
    cache.0.store(false, Ordering::SeqCst);
    writes.flush_now().await;
    assert_eq!(writes.pending(0, b"u:1"), None, "not the older one, which is still to be told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_asked_for_before_the_cache_was_told_at_last_is_compared() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    for (longest_read, stays) in [(Duration::from_secs(600), true), (Duration::from_millis(10), false)] {
        let (retry_first, retry_most) = (Duration::from_millis(10), Duration::from_millis(10));
        let options = WriteBehindOptions { retry_first, retry_most, longest_read, ..never() };
        let cache = Arc::new(Deaf(AtomicBool::new(true)));
        let writes = WriteBehind::start(source.clone(), options, cache.clone(), &Handle::current());
        set(&writes, &source, "u:1", "{}").unwrap();
        writes.flush_now().await;
        assert!(
            writes.pending(0, b"u:1").is_some() && writes.is_doubtful(0, b"u:1"),
            "the cache does not know"
        );
        cache.0.store(false, Ordering::SeqCst);
        until("it is told", async || writes.pending(0, b"u:1").is_none()).await;
        if stays {
            assert!(!writes.is_doubtful(0, b"u:1") && writes.has_unflushed());
            assert!(matches!(writes.unflushed(0, b"u:1"), Some((Pending::Value(_), 1..))));
        } else {
            until("no such answer is on its way", async || !writes.has_unflushed()).await;
            assert_eq!(writes.unflushed(0, b"u:1"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_a_key_that_was_told_at_last_stays_among_the_untold() {
    let pg = Pg::start();
    pg.execute(USERS).await;
    let source = Arc::new(pg.source(vec![behind("u", "u:{id}", "u", "bigint")]).await);
    for (longest_read, stays) in [(Duration::from_secs(600), true), (Duration::from_millis(10), false)] {
        let (retry_first, retry_most) = (Duration::from_millis(10), Duration::from_millis(10));
        // One key of each of the four lanes.
        let options = WriteBehindOptions { retry_first, retry_most, longest_read, max_untold: 4, ..never() };
        let cache = Arc::new(Deaf(AtomicBool::new(true)));
        let writes = WriteBehind::start(source.clone(), options, cache.clone(), &Handle::current());
        set(&writes, &source, "u:1", "{}").unwrap();
        writes.flush_now().await;
        let lane = writes.lane_depths(0).iter().position(|lane| lane.untold == 1).unwrap();
        cache.0.store(false, Ordering::SeqCst);
        until("it is told", async || writes.depth(0).untold == 0).await;
        cache.0.store(true, Ordering::SeqCst);
        let mut other = 1;
        while writes.lane_depths(0)[lane].untold == 0 {
            other += 1;
            set(&writes, &source, &format!("u:{other}"), r#"{"name":"old"}"#).unwrap();
            writes.flush_now().await;
        }
        cache.0.store(false, Ordering::SeqCst);
        let (key, new) = (format!("u:{other}"), r#"{"name":"new"}"#);
        set(&writes, &source, &key, new).unwrap();
        writes.flush_now().await;
        if stays {
            let depth = writes.lane_depths(0)[lane];
            assert_eq!((depth.untold, depth.retold), (1, 1));
            let shown = writes.unflushed(0, key.as_bytes()).map(|(pending, _)| pending);
            assert_eq!(shown, Some(Pending::Value(Bytes::from_static(new.as_bytes()))), "the newest");
        } else {
            until("nobody waits for such an answer", async || !writes.has_unflushed()).await;
            assert_eq!(writes.depth(0), Default::default());
        }
    }
}
