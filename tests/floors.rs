//! Keeps the house in shape: imports point down, every file says what it is for, no file grows out of hand.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, top first. A module may import from lower floors only.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["cli", "app"],
    &["http", "worker", "embedded"],
    &["core"],
    &["modify"],
    &["cache"],
    &["writeback"],
    &["cluster", "source", "journal"],
    &["sidecar", "acl"],
    &["mapping", "command"],
    &["glob", "tls", "slot", "clock", "config", "metrics", "health", "task", "failpoint"],
    &["resp", "route", "sql"],
];

/// What may import less than its floor allows: modules that stand beside the house and use this only.
const BESIDE: &[(&str, &[&str])] = &[("embedded", &["resp"])];

/// Lines of a file above which it is named, and above which the test fails.
const LONG: usize = 400;
const TOO_LONG: usize = 450;
/// Files that are longer for now, and the length at which that ends. Only ever take from this list.
const STILL_TOO_LONG: &[(&str, usize)] = &[];

struct File {
    path: PathBuf,
    module: String,
    text: String,
}

/// All source files, each with the module on the top level that it belongs to.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let module = inside.components().next().unwrap().as_os_str().to_string_lossy();
                let module = module.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).unwrap();
                files.push(File { path: inside.to_owned(), module, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Modules on the top level that a text names after `root` (`crate::`, or `dsproxy::` in the program itself), in code.
fn imports(root: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    for (at, _) in code.match_indices(root) {
        let is_whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_whole_word {
            let line = code[..at].matches('\n').count() + 1;
            let names = first_names(&code[at + root.len()..]);
            found.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first segment of a path, or of each path in a group: `a::b` is a; `{a::{b, c}, d}` is a and d.
fn first_names(rest: &str) -> Vec<String> {
    let name =
        |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|file| file.module != "lib") {
        let Some(from) = floor(&file.module) else {
            wrong.push(format!(
                "{}: `{}` has no floor; give it one in tests/floors.rs",
                file.path.display(),
                file.module
            ));
            continue;
        };
        for (line, name) in imports(if file.module == "main" { "dsproxy::" } else { "crate::" }, &file.text) {
            let allowed = match BESIDE.iter().find(|(module, _)| *module == file.module) {
                Some((_, allowed)) => allowed.contains(&name.as_str()),
                None => floor(&name).is_some_and(|to| to > from),
            };
            let is_own = name == file.module || name.chars().next().is_some_and(char::is_uppercase);
            if !allowed && !is_own {
                wrong.push(format!(
                    "{}:{line}: `{}` may not import `{name}`",
                    file.path.display(),
                    file.module
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "imports must point to a lower floor:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<_> =
        files().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path).collect();
    assert!(silent.is_empty(), "these files do not open with `//!`: {silent:?}");
}

#[test]
fn no_file_is_too_long() {
    let mut too_long = BTreeMap::new();
    for file in files() {
        let lines = file.text.lines().count();
        if lines > LONG {
            println!("{} has {lines} lines: look for the missing concept", file.path.display());
        }
        let known = STILL_TOO_LONG.iter().find(|(path, _)| file.path == Path::new(path));
        if lines > known.map_or(TOO_LONG, |(_, most)| *most) {
            too_long.insert(file.path, lines);
        }
    }
    assert!(too_long.is_empty(), "more than {TOO_LONG} lines: {too_long:?}");
}

#[test]
fn the_scan_finds_all_ways_to_write_an_import() {
    let names = |text| imports("crate::", text).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(names("use crate::resp::Args;\nlet x: crate::slot::Slot;"), ["resp", "slot"]);
    assert_eq!(names("use crate::{command::{self, Command}, slot};"), ["command", "slot"]);
    assert_eq!(names("use crate::{\n    cluster,\n    resp::{Args, Scan},\n};"), ["cluster", "resp"]);
    assert_eq!(names("pub(crate) fn f() {} // crate::core is not here\n/// nor [`crate::core`]"), [""; 0]);
}
