//! What the replies inside of a transaction with writes of mapped keys come to.
//!
//! Must not know: how the transaction was sent, who is told.

use super::super::Core;
use super::unit::Unit;
use super::writing::Step;
use crate::command::Merge;
use crate::resp::{ReplyScanner, Scan, push_array_header, push_integer};
use crate::sidecar::{self, Applied};
use crate::writeback::{InCache, KeyWrite};

impl Core {
    /// What is said to the client, and what is to be written once more.
    pub(super) fn read_unit(&self, unit: Unit, elements: Vec<&[u8]>) -> (Vec<u8>, Vec<Step>) {
        let (mut said, mut again) = (Vec::new(), Vec::new());
        push_array_header(&mut said, unit.count as usize);
        let (mut elements, mut queued) = (elements.into_iter(), unit.queued.into_iter().peekable());
        for position in 0..unit.count {
            match queued.next_if(|queued| queued.position == position) {
                None => said.extend_from_slice(elements.next().unwrap_or_default()),
                Some(queued) => {
                    let merge = queued.writes.merge;
                    let mut sum = Sum::default();
                    for step in queued.writes.steps {
                        let element = if matches!(step, Step::Over) { None } else { elements.next() };
                        self.step_answered(step, element, unit.trial.is_none(), &mut sum, &mut again);
                    }
                    match queued.writes.computed {
                        Some((reply, _)) => said.extend_from_slice(&reply),
                        None => sum.say(merge, &mut said),
                    }
                }
            }
        }
        (said, again)
    }

    /// `resolves`: nobody else says what became of the write in the cache.
    fn step_answered(
        &self,
        step: Step,
        element: Option<&[u8]>,
        resolves: bool,
        sum: &mut Sum,
        again: &mut Vec<Step>,
    ) {
        match (step, element) {
            (Step::Plain(..), Some(element)) => sum.add(element),
            (Step::Drop(_), Some(element)) => match sidecar::parse_invalidated(element) {
                Ok((found, _)) => sum.found += i64::from(found.dropped),
                Err(_) => sum.add(element),
            },
            (Step::Write(write, version), Some(element)) => {
                let Some(data) = &self.data else { return };
                let applied = sidecar::parse_applied(element);
                let known = if applied.is_ok() { InCache::Stored } else { InCache::Unknown };
                let resolve = |write: &KeyWrite| {
                    if resolves {
                        data.writes.resolve(write.mapping, &write.key, known);
                    }
                };
                sum.found += i64::from(sidecar::had_entry(element));
                if let Ok(Applied::Behind(newer)) = applied {
                    data.writes.clock().observe(newer);
                    if !data.writes.is_superseded(write.mapping, &write.key, version) {
                        resolve(&write);
                        return again.push(Step::Write(write, 0));
                    }
                }
                resolve(&write);
            }
            (Step::Over, _) | (_, None) => {}
        }
    }
}

/// The replies of the steps of a command.
#[derive(Default)]
struct Sum {
    found: i64,
    error: Option<Vec<u8>>,
}

impl Sum {
    fn add(&mut self, element: &[u8]) {
        let number =
            element.strip_prefix(b":").and_then(|rest| std::str::from_utf8(rest.trim_ascii_end()).ok());
        self.found += number.and_then(|number| number.parse::<i64>().ok()).unwrap_or_default();
        if element.first() == Some(&b'-') {
            self.error = Some(element.to_vec());
        }
    }

    fn say(self, merge: Option<Merge>, out: &mut Vec<u8>) {
        match (self.error, merge) {
            (Some(error), _) => out.extend_from_slice(&error),
            (None, Some(Merge::Sum)) => push_integer(out, self.found),
            (None, _) => out.extend_from_slice(b"+OK\r\n"),
        }
    }
}

/// The elements of an array; `None` when it is none.
pub(super) fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let end = memchr::memchr(b'\n', reply)? + 1;
    let count = std::str::from_utf8(reply.get(1..end)?).ok()?.trim_end().parse::<usize>().ok()?;
    if reply.first() != Some(&b'*') {
        return None;
    }
    let (mut rest, mut elements) = (reply.get(end..)?, Vec::new());
    for _ in 0..count {
        let Ok(Scan::Complete(length)) = ReplyScanner::default().scan(rest) else { return None };
        elements.push(rest.get(..length)?);
        rest = rest.get(length..)?;
    }
    Some(elements)
}
