//! Attacks on the journal: torn and damaged files, killed processes, full disks, limits.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod bed;
mod child;
mod damage;
mod disk;
mod limits;
