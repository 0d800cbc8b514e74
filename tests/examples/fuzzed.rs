//! schemathesis against what each example says about itself: it sends what the document allows and what it forbids, and
//! holds every answer against it.
//!
//! Short here; `make test-http-fuzz` takes its time.

use std::process::Command;
use std::time::Duration;

use crate::bed::Example;

/// Seconds per example, unless `HTTP_FUZZ_SECONDS` says otherwise. The runner kills a test after 120 s.
const SECONDS: u64 = 5;

/// Runs schemathesis; `header` goes with every request.
#[track_caller]
fn run(example: &Example, header: Option<&str>) {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let seconds = given("HTTP_FUZZ_SECONDS").unwrap_or_else(|| SECONDS.to_string());
    let seed = given("HTTP_FUZZ_SEED").unwrap_or_else(|| "1".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/schemathesis.sh");
    let url = format!("http://127.0.0.1:{}/openapi.json", example.http);
    let mut command = Command::new(script);
    command.args([url.as_str(), &seconds, &seed]).args(header);
    let output = command.output().unwrap_or_else(|error| panic!("{script}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // "725 generated, 725 passed"
    let generated = text.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<u32>().ok());
    let least = if seconds.parse::<u64>().is_ok_and(|s| s >= 20) { 100 } else { 1 };
    assert!(generated.is_some_and(|cases| cases >= least), "{text}");
    // Nothing that was sent has harmed it.
    crate::support::eventually(Duration::from_secs(5), "the proxy is well", || {
        example.get("/health/ready").status == 200
    });
    assert!(!example.log().contains("panicked"), "{}", example.log());
}

#[test]
fn dsproxy() {
    run(&crate::dsproxy::start(), None);
}

#[test]
fn hotcold_users() {
    run(&crate::hotcold_users::start(), None);
}

#[test]
fn products() {
    run(&crate::products::start(), None);
}

#[test]
fn relay_posts() {
    let example = crate::relay_posts::start();
    let token = crate::relay_posts::enter(&example, "fuzzer");
    run(&example, Some(token.trim_end()));
}

#[test]
fn social_feed() {
    let example = crate::social_feed::start();
    run(&example, None);
}
