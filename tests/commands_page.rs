//! Keeps `docs/commands.md` what the command table says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[test]
fn the_page_is_up_to_date() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = dsproxy::command::reference_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page,
        "docs/commands.md is out of date: `UPDATE_DOCS=1 cargo test --test commands_page` writes it anew"
    );
}
