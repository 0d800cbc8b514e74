//! The variables of each example: `proxy.toml` reads those that `.env.example` and the README tell, with their defaults.

use std::collections::BTreeMap;
use std::path::Path;

use crate::bed::{Example, cluster};

/// `${NAME:-default}` and `${url:NAME:-default}`.
fn read_by(config: &str) -> BTreeMap<String, String> {
    let found = config.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(|line| {
        line.split("${").skip(1).filter_map(|rest| {
            let (name, default) = rest.split_once('}')?.0.split_once(":-")?;
            Some((name.trim_start_matches("url:").to_owned(), default.to_owned()))
        })
    });
    found.collect()
}

#[test]
fn the_variables_are_those_that_are_told() {
    for name in ["dsproxy", "hotcold-users", "products", "relay-posts", "social-feed"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let text = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        let read = read_by(&text("proxy.toml"));
        let example = text(".env.example");
        let told =
            example.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        let told: BTreeMap<String, String> =
            told.map(|(name, default)| (name.to_owned(), default.to_owned())).collect();
        assert_eq!(read, told, "{name}/.env.example");
        let readme = text("README.md");
        for variable in read.keys() {
            assert!(readme.contains(variable.as_str()), "{name}/README.md says nothing of {variable}");
        }
    }
}

#[test]
fn hits_and_misses_are_in_the_log() {
    let example = Example::start("hotcold-users", |stack, db, http| {
        let own = vec![
            ("PORT", http.to_string()),
            ("DATABASE_URL", db.url().to_owned()),
            ("REQUEST_TIMEOUT_MS", "3000".to_owned()),
            ("DSPROXY_LOG_LEVEL", "info,dsproxy::http=debug".to_owned()),
            ("DSPROXY_LOG_FORMAT", "json".to_owned()),
        ];
        [cluster(stack), own].concat()
    });
    for _ in 0..2 {
        assert_eq!(example.get("/v1/users?user_id=someid").status, 200);
    }
    let log = example.log();
    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let said: Vec<&str> = lines
        .iter()
        .map(|line| &line["fields"])
        .filter(|fields| fields["key"] == "user:someid")
        .filter_map(|fields| fields["message"].as_str())
        .collect();
    assert_eq!(said, ["Cache MISS - fetching from source", "Cache HIT"], "{log}");
}
