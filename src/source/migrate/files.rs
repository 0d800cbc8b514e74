//! Paired migration files of one directory.
//!
//! Must not know: databases.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::MigrateError;

/// One version in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Number at the start of the file names.
    pub version: i64,
    /// Name between the number and `.up.sql`.
    pub name: String,
    pub(super) up: PathBuf,
    pub(super) down: PathBuf,
}

/// The migrations of a directory.
#[derive(Debug)]
pub struct Migrations {
    pub(super) directory: PathBuf,
    pub(super) all: Vec<Migration>,
    warnings: Vec<String>,
}

impl Migrations {
    /// Reads the directory; every mistake in it is reported.
    pub fn read(directory: &Path) -> Result<Self, MigrateError> {
        let io = |error| MigrateError::Io { path: directory.to_owned(), error };
        let mut found: BTreeMap<i64, BTreeMap<String, [Option<PathBuf>; 2]>> = BTreeMap::new();
        let mut mistakes = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !file.ends_with(".sql") {
                continue;
            }
            match parse_name(&file) {
                Some((version, name, down)) => {
                    found.entry(version).or_default().entry(name).or_default()[usize::from(down)] =
                        Some(path);
                }
                None => mistakes.push(format!("{file}: name it NNNN_name.up.sql or NNNN_name.down.sql")),
            }
        }
        let mut all: Vec<Migration> = Vec::new();
        for (version, names) in found {
            if names.len() > 1 {
                let names = names.keys().cloned().collect::<Vec<_>>().join(", ");
                mistakes.push(format!("version {version} is given twice: {names}; renumber one"));
                continue;
            }
            for (name, pair) in names {
                match pair {
                    [Some(up), Some(down)] => all.push(Migration { version, name, up, down }),
                    [up, _] => {
                        let missing = if up.is_some() { "down" } else { "up" };
                        mistakes
                            .push(format!("version {version} ({name}) has no .{missing}.sql file; add it"));
                    }
                }
            }
        }
        let warnings = all.windows(2).filter(|pair| pair[1].version != pair[0].version + 1).map(|pair| {
            format!("there is a gap between versions {} and {}", pair[0].version, pair[1].version)
        });
        let warnings = warnings.collect();
        let directory = directory.to_owned();
        if mistakes.is_empty() {
            Ok(Self { directory, all, warnings })
        } else {
            Err(MigrateError::Files(mistakes))
        }
    }

    /// Things worth saying that stop nothing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// All versions, ascending.
    pub fn all(&self) -> &[Migration] {
        &self.all
    }

    /// Writes a pair for the next version, up and down; answers the paths.
    pub fn create(&self, name: &str, sql: [&str; 2]) -> Result<[PathBuf; 2], MigrateError> {
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .collect();
        let version = self.all.last().map_or(1, |last| last.version + 1);
        let paths = ["up", "down"].map(|way| self.directory.join(format!("{version:04}_{name}.{way}.sql")));
        for (path, sql) in paths.iter().zip(sql) {
            let mut options = std::fs::OpenOptions::new();
            let io = |error| MigrateError::Io { path: path.clone(), error };
            let mut file = options.write(true).create_new(true).open(path).map_err(io)?;
            file.write_all(sql.as_bytes()).map_err(io)?;
        }
        Ok(paths)
    }

    pub(super) fn version(&self, version: i64) -> Result<&Migration, MigrateError> {
        self.all
            .iter()
            .find(|m| m.version == version)
            .ok_or_else(|| MigrateError::Unknown(version, self.directory.clone()))
    }
}

fn parse_name(file: &str) -> Option<(i64, String, bool)> {
    let (stem, down) = match file.strip_suffix(".up.sql") {
        Some(stem) => (stem, false),
        None => (file.strip_suffix(".down.sql")?, true),
    };
    let (number, name) = stem.split_once('_')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (digits && !name.is_empty()).then(|| Some((number.parse().ok()?, name.to_owned(), down)))?
}
