//! `CLIENT PAUSE`: commands of this process' clients wait until it is over.
//!
//! Must not know: what waits.
//!
//! While nobody pauses anything, a command pays for one flag of its worker. A command that is held stays unread in its
//! client's buffer, which is bounded like that of a client at a limit, and runs when the pause is over (a worker looks every
//! 20 ms) or lifted. What was sent before runs to its end. `CLIENT PAUSE` and `UNPAUSE` are never held: Redis holds them, so that a
//! pause of all cannot be lifted. The proxy's own commands (fills, flushes) are no client's, and go on.

use super::peers::Question;
use super::{Core, Kind};
use crate::command::Command;
use crate::config::Config;
use crate::resp::{Args, RequestLimits, RequestScanner, Scan, push_simple};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Which commands are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    /// None.
    #[default]
    Nothing,
    /// Those that may write.
    Writes,
    /// All.
    Everything,
}

impl Held {
    /// As Redis 7.2 names it in `INFO`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Writes => "write",
            Self::Everything => "all",
        }
    }
}

/// The pause of a process.
#[derive(Debug)]
pub(super) struct Pause {
    now: Mutex<Option<(Held, Instant)>>,
    longest: Duration,
}

impl Pause {
    /// None yet; bounded as configured.
    pub fn new(config: &Config) -> Self {
        Self { now: Mutex::default(), longest: config.limits.client_pause }
    }

    /// What is held, and until when.
    pub fn state(&self) -> Option<(Held, Instant)> {
        self.lock().filter(|(_, until)| *until > Instant::now())
    }

    /// One more pause: of two that overlap the stricter kind and the later end hold, as in Redis.
    fn add(&self, held: Held, time: Duration) {
        let until = Instant::now() + time;
        let before = self.state();
        let both = before.map_or((held, until), |(kind, end)| (kind.max(held), end.max(until)));
        *self.lock() = Some(both);
    }

    fn lift(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Held, Instant)>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// `CLIENT PAUSE`, once its words are read; an error's text when it is too long.
    pub(super) fn begin_pause(
        &mut self,
        index: usize,
        command: &'static Command,
        held: Held,
        time: Duration,
    ) -> Result<(), String> {
        let longest = self.process.pause.longest;
        if time > longest {
            let longest = longest.as_millis();
            return Err(format!("ERR dsproxy: a pause takes {longest} ms at most (limits.client_pause)"));
        }
        self.process.pause.add(held, time);
        self.ask_all(index, command, &Question::Pause, |_, _, reply| push_simple(reply, "OK"));
        Ok(())
    }

    /// `CLIENT UNPAUSE`.
    pub(super) fn end_pause(&mut self, index: usize, command: &'static Command) {
        self.process.pause.lift();
        self.ask_all(index, command, &Question::Pause, |_, _, reply| push_simple(reply, "OK"));
    }

    /// The pause may have begun, changed, or be over.
    pub(super) fn look_at_pause(&mut self) {
        let before =
            std::mem::replace(&mut self.held, self.process.pause.state().map_or(Held::Nothing, |s| s.0));
        if before > self.held {
            let held = self.clients.iter().filter(|(_, client)| client.put_off).map(|(index, _)| index);
            for index in held.collect::<Vec<_>>() {
                if let Some(client) = self.clients.get_mut(index) {
                    client.put_off = false;
                }
                self.check_resume(index);
            }
        }
        let held = self.clients.iter().filter(|(_, client)| client.put_off).count() as u64;
        self.stats.held.set(held);
    }

    /// True when this command must wait for the end of the pause.
    #[cold]
    pub(super) fn is_held(&mut self, index: usize, command: Option<&'static Command>) -> bool {
        // What cannot be run is told so at once.
        let (Some(command), Some(client)) = (command, self.clients.get(index)) else { return false };
        let is_exempt = client.kind == Kind::Internal
            || matches!(command.name, "client|pause" | "client|unpause")
            || !client.session.authenticated && !command.flags.contains(crate::command::Flags::NO_AUTH);
        let holds = !is_exempt
            && match self.held {
                Held::Nothing => false,
                Held::Everything => true,
                Held::Writes if command.name == "exec" => {
                    client.transaction.as_ref().is_some_and(|queued| self.any_writes(queued.requests()))
                }
                Held::Writes => writes(command),
            };
        if let Some(client) = self.clients.get_mut(index) {
            client.put_off = holds;
        }
        holds
    }

    /// True when one of these requests, one after the other, may write.
    fn any_writes(&self, mut rest: &[u8]) -> bool {
        let mut scanner = RequestScanner::default();
        while let Ok(Scan::Complete(length)) = scanner.scan(rest, &RequestLimits::default()) {
            let args = Args::new(rest, scanner.spans());
            if self.process.learned.resolve(&args).is_ok_and(writes) {
                return true;
            }
            scanner.reset();
            rest = rest.get(length..).unwrap_or_default();
        }
        false
    }
}

/// It writes, or may have replicas do something (`CMD_MAY_REPLICATE` of Redis).
fn writes(command: &Command) -> bool {
    command.is_write()
        || matches!(command.name, "eval" | "evalsha" | "fcall" | "publish" | "spublish" | "pfcount")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_pauses_the_stricter_and_the_longer_hold() {
        let pause = Pause::new(&Config::default());
        assert!(pause.state().is_none());
        pause.add(Held::Writes, Duration::from_secs(50));
        pause.add(Held::Everything, Duration::from_secs(10));
        let (held, until) = pause.state().unwrap_or((Held::Nothing, Instant::now()));
        assert_eq!(held, Held::Everything);
        assert!(until > Instant::now() + Duration::from_secs(45));
        pause.add(Held::Writes, Duration::from_secs(1));
        assert_eq!(pause.state().map(|state| state.0), Some(Held::Everything));
        pause.lift();
        pause.add(Held::Everything, Duration::ZERO);
        assert!(pause.state().is_none());
    }
}
