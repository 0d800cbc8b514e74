//! Stub.
use super::run::Hook;
use super::{ClientKey, Core};
use crate::cluster::Entry;
use crate::command::Command;
use crate::resp::Args;

/// Handles of the data side.
pub struct DataSide;
/// Loaded.
pub struct Loads;

#[derive(PartialEq)]
pub(super) enum Split { Plain }
impl Split {
    pub fn may_share(&self, a: &(u16, u32), b: &(u16, u32)) -> bool { a.0 == b.0 }
    pub fn encode(&self, _: &Args<'_>, _: u32, _: &mut Vec<u8>) -> bool { false }
    pub fn mapping(&self, _: &[(u16, u32)]) -> u16 { Entry::UNMAPPED }
}
impl Core {
    pub(super) fn mapping_of(&mut self, _index: usize, _command: &'static Command, _args: &Args<'_>) -> Hook { Hook::Plain(Entry::UNMAPPED) }
    pub(super) fn mapped_split(&mut self, _: usize, _: &'static Command, _: &Args<'_>, _: usize) -> Option<Split> { Some(Split::Plain) }
    pub(super) fn count_hit(&self, _: &Entry, _: &[u8]) {}
    /// x
    pub fn loaded(&mut self, _: Loads) {}
    pub(super) fn load_missing(&mut self, _: &Entry, _: &[u8]) -> bool { false }
    pub(super) fn load_missing_parts(&mut self, _: ClientKey, _: u32) -> bool { false }
}
