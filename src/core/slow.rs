//! The slow log: the last commands that took a node long.
//!
//! Must not know: how its entries are shown.
//!
//! The time is that from dispatch to reply, as the client feels it, where Redis logs the time that the command ran. Only
//! commands that go to a node are logged, each part of a split one by itself; none of them carries a password of ours.

use super::Core;
use crate::cluster::Owner;
use crate::command::{Class, Flags};
use crate::resp::{Args, RequestLimits, RequestScanner};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments that are kept of a command, and bytes of each, as in Redis (slowlog.h).
const MOST_ARGS: usize = 32;
const MOST_BYTES: usize = 128;

/// Commands that one worker logs between two ticks (20 ms): when a node stalls, everything is slow, and the log must
/// not make it slower.
pub(super) const MOST_PER_TICK: u32 = 8;

/// One slow command.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Unique number, ascending.
    pub id: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// How long it took, in microseconds.
    pub us: u64,
    /// Of these, so long at least it was not written to the node: there was no connection, or the node took nothing, or
    /// another command had to be answered first. Known to 20 ms.
    pub held_back_us: u64,
    /// The node that answered, as `host:port`.
    pub node: String,
    /// Redirects and retries.
    pub attempts: u8,
    /// Its arguments, shortened.
    pub args: Vec<Vec<u8>>,
    /// Who sent it.
    pub peer: String,
    /// The name it has given itself.
    pub name: Vec<u8>,
}

/// The log, newest first.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<(u64, VecDeque<Slow>)>);

impl SlowLog {
    /// Adds a command, whose id is set here, and drops the oldest beyond `most`.
    fn push(&self, mut slow: Slow, most: usize) {
        let mut log = self.lock();
        slow.id = log.0;
        log.0 += 1;
        log.1.push_front(slow);
        log.1.truncate(most);
    }

    /// The newest `most`, newest first.
    pub fn newest(&self, most: usize) -> Vec<Slow> {
        self.lock().1.iter().take(most).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().1.len()
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.lock().1.clear();
    }

    fn lock(&self) -> MutexGuard<'_, (u64, VecDeque<Slow>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// The oldest request of this connection is answered at last: writes it down.
    #[cold]
    pub(super) fn note_slow(&mut self, upstream: usize) {
        if self.slow_left == 0 {
            return;
        }
        let Some(upstream) = self.upstreams.get(upstream) else { return };
        let Some(oldest) = upstream.oldest() else { return };
        let Owner::Client { index, serial, .. } = oldest.owner else { return };
        let Some(client) = self.clients.get(index as usize).filter(|client| client.serial == serial) else {
            return;
        };
        let request = upstream.oldest_request();
        let mut scanner = RequestScanner::default();
        if scanner.scan(request, &RequestLimits::default()).is_err() {
            return;
        }
        let args = Args::new(request, scanner.spans());
        // A blocking command takes as long as its client wanted.
        let quiet = |command: &crate::command::Command| {
            command.flags.contains(Flags::SKIP_SLOWLOG) || command.class_of(&args) == Class::Blocking
        };
        if self.process.learned.resolve(&args).is_ok_and(quiet) {
            return;
        }
        let slow = Slow {
            id: 0,
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            us: self.now.saturating_sub(oldest.at),
            held_back_us: upstream.held_back_until().map_or(0, |until| until.saturating_sub(oldest.at)),
            node: upstream.addr.to_string(),
            attempts: oldest.attempts,
            args: shortened(&args),
            peer: client.session.peer.as_deref().unwrap_or_default().to_owned(),
            name: client.session.name().to_vec(),
        };
        self.slow_left -= 1;
        self.process.slow.push(slow, self.process.live.slow_entries.get() as usize);
    }
}

/// The arguments as `slowlogCreateEntry` keeps them.
fn shortened(args: &Args<'_>) -> Vec<Vec<u8>> {
    let kept = if args.len() > MOST_ARGS { MOST_ARGS - 1 } else { args.len() };
    let mut shown: Vec<Vec<u8>> = args
        .iter()
        .take(kept)
        .map(|arg| match arg.split_at_checked(MOST_BYTES) {
            Some((head, rest)) if !rest.is_empty() => {
                let mut short = head.to_vec();
                short.extend_from_slice(format!("... ({} more bytes)", rest.len()).as_bytes());
                short
            }
            _ => arg.to_vec(),
        })
        .collect();
    if kept < args.len() {
        shown.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(words: &[&[u8]]) -> Vec<String> {
        let mut frame = Vec::new();
        crate::resp::push_command(&mut frame, words.iter().copied());
        let mut scanner = RequestScanner::default();
        scanner.scan(&frame, &RequestLimits::default()).unwrap();
        shortened(&Args::new(&frame, scanner.spans()))
            .into_iter()
            .map(|arg| String::from_utf8(arg).unwrap())
            .collect()
    }

    #[test]
    fn long_commands_are_shortened() {
        let long = [b'x'; 130];
        assert_eq!(kept(&[b"GET", &long])[1], format!("{}... (2 more bytes)", "x".repeat(128)));
        assert_eq!(kept(&[b"GET", &long[..128]])[1], "x".repeat(128));
        let many = kept(&[&b"MGET"[..]; 40]);
        assert_eq!((many.len(), many[31].as_str()), (32, "... (9 more arguments)"));
        assert_eq!(kept(&[&b"MGET"[..]; 32]).len(), 32);
    }

    #[test]
    fn the_log_is_bounded() {
        let log = SlowLog::default();
        let entry = Slow {
            id: 9,
            at: 1,
            us: 2,
            held_back_us: 0,
            node: String::new(),
            attempts: 0,
            args: vec![],
            peer: String::new(),
            name: vec![],
        };
        (0..5).for_each(|_| log.push(entry.clone(), 3));
        assert_eq!(log.newest(9).iter().map(|slow| slow.id).collect::<Vec<_>>(), [4, 3, 2]);
        log.clear();
        log.push(entry, 3);
        assert_eq!((log.len(), log.newest(1)[0].id), (1, 5));
    }
}
