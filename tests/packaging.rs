//! The container and service files: what can be checked of them without an engine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's failure is a panic"
)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_yaml_ng::Value;
use support::{Proxy, SharedStack};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// With merge keys (`<<`) resolved; what only compose understands (`!reset`) is kept as its value.
fn yaml(path: &str) -> Value {
    let mut value: Value =
        serde_yaml_ng::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    value.apply_merge().unwrap();
    value
}

fn services(file: &Value) -> impl Iterator<Item = (&str, &Value)> {
    file["services"].as_mapping().unwrap().iter().map(|(name, service)| (name.as_str().unwrap(), service))
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_sequence().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `${NAME:-default}` and `${NAME}` in a text.
fn variables(text: &str) -> BTreeSet<String> {
    let names = text.split("${").skip(1);
    names.map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn every_file_that_is_named_exists() {
    for path in ["compose.yml", "compose.dev.yml"] {
        let file = yaml(path);
        for (name, service) in services(&file) {
            for volume in strings(&service["volumes"]) {
                let source = volume.split(':').next().unwrap();
                if source.starts_with('.') {
                    assert!(
                        root().join(source).exists(),
                        "{path}: {name} mounts {source}, which is not there"
                    );
                } else {
                    let declared =
                        [path, "compose.yml"].iter().any(|f| yaml(f)["volumes"].get(source).is_some());
                    assert!(declared, "{path}: {name} uses the volume {source}, which is not declared");
                }
            }
        }
    }
    for line in text("Dockerfile").lines().filter(|l| l.starts_with("COPY") && !l.contains("--from")) {
        let sources: Vec<&str> = line.split(' ').skip(1).collect();
        for source in &sources[..sources.len() - 1] {
            assert!(root().join(source).exists(), "Dockerfile copies {source}, which is not there");
            let top = source.split('/').next().unwrap();
            assert!(text(".dockerignore").contains(&format!("!{top}\n")), ".dockerignore hides {source}");
        }
    }
    for (path, top) in compiled_in() {
        let copied = text("Dockerfile").contains(&format!("COPY {top}"));
        assert!(copied, "{path} is made part of the program, but the Dockerfile does not copy {top}");
    }
    for rules in strings(&yaml("packaging/prometheus.yml")["rule_files"]) {
        assert!(root().join("packaging").join(rules).exists(), "{rules}");
    }
}

/// What `include_str!` and `include_bytes!` name outside of src/, each with its folder or file at the top.
fn compiled_in() -> Vec<(String, String)> {
    let found = Command::new("grep")
        .args(["-rhoE", r#"include_(str|bytes)!\("(\.\./)+[^"]+""#, "src"])
        .current_dir(root())
        .output()
        .unwrap();
    let lines = String::from_utf8(found.stdout).unwrap();
    let paths =
        lines.lines().map(|line| line.split('"').nth(1).unwrap().trim_start_matches("../").to_owned());
    paths.map(|path| (path.clone(), path.split('/').next().unwrap().to_owned())).collect()
}

#[test]
fn services_wait_for_services_that_exist_and_can_say_that_they_are_ready() {
    let file = yaml("compose.yml");
    let known: BTreeSet<&str> = services(&file).map(|(name, _)| name).collect();
    let image_has_check = text("Dockerfile").contains("HEALTHCHECK");
    for (name, service) in services(&file) {
        for (on, how) in service["depends_on"].as_mapping().into_iter().flatten() {
            let on = on.as_str().unwrap();
            assert!(known.contains(on), "{name} waits for {on}, which is no service");
            if how["condition"] == "service_healthy" {
                let checked = file["services"][on].get("healthcheck").is_some();
                assert!(checked || on == "dsproxy" && image_has_check, "{on} has no health check");
            }
        }
    }
    let nodes = services(&file).filter(|(name, _)| name.starts_with("redis-"));
    let addresses: Vec<&str> =
        nodes.map(|(_, node)| node["networks"]["dsproxy"]["ipv4_address"].as_str().unwrap()).collect();
    assert_eq!(addresses.len(), 6);
    let created = strings(&file["services"]["create-cluster"]["command"]);
    assert_eq!(&created[2..], addresses, "the cluster is made of all nodes");
    let asked = file["services"]["dsproxy"]["environment"]["REDIS_NODES"].as_str().unwrap();
    for node in asked.split(',') {
        let address = node.strip_suffix(":6379").unwrap();
        assert!(addresses.contains(&address), "REDIS_NODES names {address}, which is no node");
    }
}

#[test]
fn ports_inside_are_those_that_the_image_listens_on_and_stay_on_this_machine() {
    let dockerfile = text("Dockerfile");
    let exposed: Vec<&str> =
        dockerfile.lines().find_map(|l| l.strip_prefix("EXPOSE ")).unwrap().split(' ').collect();
    for port in &exposed {
        assert!(dockerfile.contains(&format!("0.0.0.0:{port}")), "nothing listens on {port}");
    }
    let file = yaml("compose.yml");
    for (name, service) in services(&file) {
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} opens {port} to the world");
            if name == "dsproxy" {
                assert!(exposed.contains(&port.rsplit(':').next().unwrap()), "{port}");
            }
        }
    }
    let scraped =
        yaml("packaging/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0].clone();
    assert_eq!(scraped, "dsproxy:8080");
}

#[test]
fn the_example_environment_names_every_variable_and_no_other() {
    let used = variables(&text("compose.yml"));
    let example = text(".env.example");
    let named: BTreeSet<String> = example
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('=').next().unwrap().to_owned())
        .collect();
    assert_eq!(used, named);
}

/// The variables that containers and the service set are settings: the program itself refuses those that are none.
#[test]
fn the_program_knows_the_variables_that_are_set_for_it() {
    let mut set = Vec::new();
    let file = yaml("compose.yml");
    for service in ["migrate", "dsproxy"] {
        let environment = file["services"][service]["environment"].as_mapping().unwrap();
        set.extend(environment.keys().map(|key| key.as_str().unwrap().to_owned()));
    }
    let known = ["REDIS_NODES", "DATABASE_URL", "PROXY_ADDR", "HTTP_ADDR", "DSPROXY_CONFIG"];
    for line in text("Dockerfile").lines() {
        let line = line.trim().trim_start_matches("ENV ").trim_end_matches(" \\");
        if let Some((name, _)) = line.split_once('=')
            && (known.contains(&name) || name.starts_with("DSPROXY_"))
        {
            set.push(name.to_owned());
        }
    }
    for line in text("packaging/dsproxy.service").lines() {
        set.extend(line.strip_prefix("Environment=").map(|v| v.split('=').next().unwrap().to_owned()));
    }
    let reference = text("docs/configuration.md");
    for name in set {
        assert!(
            known.contains(&name.as_str()) || reference.contains(&format!("`{name}`")),
            "{name} is no setting"
        );
    }
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let stack = SharedStack::get();
    let database = stack.fresh_database();
    database.execute("create table alerts (id bigint primary key, name text)");
    let mapping = "[[mapping]]\nname = \"alert\"\nkey = \"alert:{id}\"\ntable = \"alerts\"\nid = \"bigint\"\nwrite = \"behind\"\n";
    let proxy = Proxy::for_nodes(stack.redis_nodes(), Some(database.url()), mapping);
    // What is counted by node shows once a node was asked.
    proxy.connect().cmd(&["GET", "alerts"]);
    let page = proxy.get("/metrics").body;
    let rules = yaml("packaging/alerts.yml");
    for rule in rules["groups"][0]["rules"].as_sequence().unwrap() {
        let expression = rule["expr"].as_str().unwrap();
        let metrics = expression
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("dsproxy_"));
        for metric in metrics {
            assert!(
                page.contains(metric),
                "{}: there is no metric {metric}",
                rule["alert"].as_str().unwrap()
            );
        }
    }
}

#[test]
fn the_health_verb_tells_a_living_proxy_from_none() {
    let stack = SharedStack::get();
    let mut proxy = Proxy::for_nodes(stack.redis_nodes(), None, "");
    let ask = |port: u16, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
        command.arg("health").args(more).env("HTTP_ADDR", format!("0.0.0.0:{port}"));
        command.env("REDIS_NODES", stack.redis_nodes().join(",")).current_dir(proxy_dir());
        command.output().unwrap()
    };
    for more in [&[][..], &["--ready"]] {
        let said = ask(proxy.http_port(), more);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    let port = proxy.http_port();
    proxy.stop();
    let said = ask(port, &[]);
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("no answer from http://127.0.0.1:"), "{said:?}");
}

/// A directory without a proxy.toml.
fn proxy_dir() -> PathBuf {
    std::env::temp_dir()
}

#[test]
fn the_cluster_script_is_valid_shell() {
    for script in ["packaging/create-cluster.sh", "scripts/setup.sh"] {
        let checked = Command::new("bash").arg("-n").arg(root().join(script)).output().unwrap();
        assert!(checked.status.success(), "{script}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
