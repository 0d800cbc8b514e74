//! `/metrics` as Prometheus reads it.

use std::collections::{HashMap, HashSet};

use crate::bed::{Bed, NO_CLOCK};

/// Families by name: type and samples (name with labels, value).
type Families = HashMap<String, (String, Vec<(String, f64)>)>;

/// Parses the text format and panics where a Prometheus would complain (or promtool warn).
fn parse(page: &str) -> Families {
    assert!(page.ends_with('\n'), "the last line must end");
    let mut families = Families::new();
    let (mut helped, mut series, mut closed) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "HELP of {name}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name}: TYPE without HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(closed.insert(name.to_owned()), "{name} comes twice");
            families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            current = name.to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(series.insert(name.to_owned()), "{name} comes twice");
            let bare = name.split('{').next().unwrap();
            assert!(
                bare.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{bare}"
            );
            let (kind, samples) =
                families.get_mut(&current).unwrap_or_else(|| panic!("no TYPE before {line}"));
            let part =
                bare.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{bare} under {current}"));
            let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(parts.contains(&part), "{bare} of the {kind} {current}");
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            samples.push((name.to_owned(), value));
        }
    }
    families
}

/// Buckets of each series must rise to its count.
fn check_histograms(families: &Families) {
    for (name, (_, samples)) in families.iter().filter(|(_, (kind, _))| kind == "histogram") {
        let mut last: HashMap<String, f64> = HashMap::new();
        for (sample, value) in samples {
            let labels = sample.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
            let (le, others): (Vec<&str>, Vec<&str>) =
                labels.split(',').filter(|l| !l.is_empty()).partition(|label| label.starts_with("le="));
            let series = others.join(",");
            if sample.starts_with(&format!("{name}_bucket")) {
                assert_eq!(le.len(), 1, "{sample}");
                let before = last.insert(series, *value).unwrap_or(0.0);
                assert!(*value >= before, "{sample} falls");
            } else if sample.starts_with(&format!("{name}_count")) {
                assert_eq!(last.get(&series), Some(value), "{sample}: count and +Inf differ");
            }
        }
        assert!(samples.iter().any(|(sample, _)| sample.contains("le=\"+Inf\"")), "{name}");
    }
}

#[test]
fn the_page_is_prometheus_text_with_every_promised_family() {
    let bed = Bed::start(NO_CLOCK);
    let mut client = bed.proxy.connect();
    for n in 1..=50 {
        client.cmd(&bed.args(&["SET", &format!("@user:{n}"), r#"{"name":"x"}"#]));
    }
    bed.wait_flushed();
    client.cmd(&bed.args(&["GET", "@user:70"]));
    client.cmd(&bed.args(&["GET", "@user:70"]));
    client.cmd(&bed.args(&["MGET", "@user:1", "@user:71", "@plain"]));
    client.cmd(&bed.args(&["SET", "@user:1", "{"]));
    client.cmd(&bed.args(&["INCR", "@user:1"]));
    client.cmd(&["NONSENSE"]);
    client.cmd(&["CLIENT", "ID"]);
    client.cmd(&["EVAL", "return 1", "0"]);
    bed.proxy.post("/write", r#"{"user_id":"a","value":"x"}"#);
    bed.proxy.get("/no/such/path");

    let answer = bed.proxy.get("/metrics");
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    let families = parse(&answer.body);
    check_histograms(&families);
    for family in [
        "dsproxy_commands_total",
        "dsproxy_command_duration_seconds",
        "dsproxy_upstream_duration_seconds",
        "dsproxy_query_duration_seconds",
        "dsproxy_queries_total",
        "dsproxy_cache_requests_total",
        "cache_hits_total",
        "cache_misses_total",
        "dsproxy_inflight_commands",
        "dsproxy_upstream_inflight_requests",
        "dsproxy_load_batch_keys",
        "dsproxy_flush_batch_rows",
        "dsproxy_flush_duration_seconds",
        "dsproxy_write_behind_queue_rows",
        "dsproxy_write_behind_queue_bytes",
        "dsproxy_write_behind_oldest_seconds",
        "dsproxy_connected_clients",
        "dsproxy_client_connections_total",
        "dsproxy_http_requests_total",
        "dsproxy_build_info",
        "process_cpu_seconds_total",
    ] {
        let samples = families.get(family).map(|(_, samples)| samples.len());
        assert!(samples > Some(0), "no {family}");
    }
    let key = bed.key("user:{id}");
    for (name, value) in [
        ("dsproxy_commands_total{command=\"set\",outcome=\"ok\"}".to_owned(), 50.0),
        ("dsproxy_commands_total{command=\"set\",outcome=\"error\"}".to_owned(), 1.0),
        ("dsproxy_commands_total{command=\"incr\",outcome=\"error\"}".to_owned(), 1.0),
        ("dsproxy_commands_total{command=\"mget\",outcome=\"ok\"}".to_owned(), 1.0),
        ("dsproxy_commands_total{command=\"unknown\",outcome=\"error\"}".to_owned(), 1.0),
        (format!("cache_hits_total{{key=\"{key}\",mapping=\"user\"}}"), 2.0),
        (format!("cache_misses_total{{key=\"{key}\",mapping=\"user\"}}"), 2.0),
        ("dsproxy_cache_requests_total{mapping=\"user\",result=\"hit\"}".to_owned(), 2.0),
        ("dsproxy_queries_total{kind=\"load\",mapping=\"user\",outcome=\"ok\"}".to_owned(), 2.0),
        ("dsproxy_inflight_commands".to_owned(), 0.0),
        ("dsproxy_connected_clients".to_owned(), 1.0),
        ("dsproxy_write_behind_queue_rows{mapping=\"user_data\"}".to_owned(), 1.0),
        ("dsproxy_http_requests_total{route=\"unmatched\",status=\"404\"}".to_owned(), 1.0),
    ] {
        assert_eq!(bed.proxy.metric(&name), value, "{name}");
    }
}

#[test]
fn each_key_read_is_counted_by_where_its_answer_came_from() {
    let more = "[[mapping]]\nname = \"off\"\nkey = \"PREFIXoff:{id}\"\ntable = \"users\"\nid = \"bigint\"\ncache = \"off\"\n";
    let bed = Bed::start(&format!("{NO_CLOCK}{more}"));
    let served = |mapping: &str, served: &str| {
        bed.proxy.metric(&format!("dsproxy_mapped_reads_total{{mapping=\"{mapping}\",served=\"{served}\"}}"))
    };
    bed.get("user:1");
    bed.get("user:1");
    bed.run(&["MGET", "@user:1", "@user:2", "@user:3", "@plain"]);
    bed.run(&["DEL", "@user:4"]);
    bed.run(&["GET", "@user:4"]);
    bed.run(&["GET", "@off:1"]);
    let counts = ["hit", "miss", "dirty", "bypass", "near", "stale"].map(|s| served("user", s));
    assert_eq!(counts, [2.0, 3.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!((served("off", "bypass"), served("off", "miss")), (1.0, 0.0));
}
