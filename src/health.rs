//! Whether what the proxy depends on is there, as those who use it have last seen.
//!
//! Must not know: how that is found out, who asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// What the proxy depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// The Redis behind it.
    Redis,
    /// The database of the mappings.
    Database,
    /// The queue of written rows.
    WriteBehind,
}

impl Dependency {
    /// Every dependency.
    pub const ALL: [Self; 3] = [Self::Redis, Self::Database, Self::WriteBehind];

    /// Its name in `/health/ready`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Database => "database",
            Self::WriteBehind => "write_behind",
        }
    }
}

/// What is known of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Not configured: nothing depends on it.
    Off,
    /// Not known yet.
    Starting,
    /// There.
    Up,
    /// Away, and why.
    Down(String),
}

/// The condition of every dependency. Shared; each dependency is set by its owner and read by anyone.
#[derive(Debug)]
pub struct Health {
    conditions: [watch::Sender<Condition>; 3],
    draining: AtomicBool,
    warnings: Mutex<Vec<String>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// All dependencies are starting.
    pub fn new() -> Self {
        Self {
            conditions: std::array::from_fn(|_| watch::Sender::new(Condition::Starting)),
            draining: AtomicBool::new(false),
            warnings: Mutex::default(),
        }
    }

    /// Sets the condition of `dependency`; true when it was another one, which is worth a log line.
    pub fn set(&self, dependency: Dependency, condition: Condition) -> bool {
        self.of(dependency).send_if_modified(|current| {
            let changed = *current != condition;
            *current = condition;
            changed
        })
    }

    /// The condition of `dependency`.
    pub fn get(&self, dependency: Dependency) -> Condition {
        self.of(dependency).borrow().clone()
    }

    /// A view of `dependency` that can be waited on.
    pub fn watch(&self, dependency: Dependency) -> watch::Receiver<Condition> {
        self.of(dependency).subscribe()
    }

    /// What somebody should see to, though work can be taken.
    pub fn warn(&self, warnings: Vec<String>) {
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = warnings;
    }

    /// What was said last with [`Health::warn`].
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on the proxy is not ready: it takes no new work.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Health::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether work can be taken: every dependency is up or not configured, and no drain has begun.
    pub fn is_ready(&self) -> bool {
        let usable = |dependency| matches!(self.get(dependency), Condition::Up | Condition::Off);
        !self.is_draining() && Dependency::ALL.into_iter().all(usable)
    }

    fn of(&self, dependency: Dependency) -> &watch::Sender<Condition> {
        match dependency {
            Dependency::Redis => &self.conditions[0],
            Dependency::Database => &self.conditions[1],
            Dependency::WriteBehind => &self.conditions[2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_everything_is_there_and_no_drain_has_begun() {
        let health = Health::new();
        assert!(!health.is_ready());
        assert!(health.set(Dependency::Redis, Condition::Up));
        assert!(health.set(Dependency::Database, Condition::Off));
        assert!(!health.is_ready());
        assert!(health.set(Dependency::WriteBehind, Condition::Up));
        assert!(health.is_ready());
        assert!(!health.set(Dependency::WriteBehind, Condition::Up), "nothing has changed");
        health.set(Dependency::Redis, Condition::Down("gone".to_owned()));
        assert!(!health.is_ready());
        health.set(Dependency::Redis, Condition::Up);
        health.drain();
        assert!(!health.is_ready());
    }
}
