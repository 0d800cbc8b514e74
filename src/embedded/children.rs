//! Stopping, freezing and starting single servers of a running stack, by name.
//!
//! Must not know: why.

use std::time::Instant;

use rustix::process::Signal;

use super::process::Supervised;
use super::{Stack, StackError};

impl Stack {
    /// Stops one child politely, `redis-N` or `postgres`; it can be started again.
    ///
    /// # Errors
    /// [`StackError::NoSuchChild`].
    pub fn stop_child(&mut self, name: &str) -> Result<(), StackError> {
        let deadline = Instant::now() + self.options.stop_timeout;
        let polite = match name {
            "postgres" => Signal::INT,
            _ => Signal::TERM,
        };
        self.end_child(name, polite, deadline)
    }

    /// Kills one child without notice.
    ///
    /// # Errors
    /// [`StackError::NoSuchChild`].
    pub fn kill_child(&mut self, name: &str) -> Result<(), StackError> {
        self.end_child(name, Signal::KILL, Instant::now() + self.options.stop_timeout)
    }

    fn end_child(&mut self, name: &str, signal: Signal, deadline: Instant) -> Result<(), StackError> {
        if let Some(mut child) = self.child_slot(name)?.take() {
            child.signal(signal);
            child.signal(Signal::CONT);
            child.finish(deadline);
        }
        Ok(())
    }

    /// Freezes one child: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// [`StackError::NoSuchChild`].
    pub fn pause_child(&mut self, name: &str) -> Result<(), StackError> {
        self.child_slot(name)?.iter().for_each(|child| child.signal(Signal::STOP));
        Ok(())
    }

    /// Lets a frozen child go on.
    ///
    /// # Errors
    /// [`StackError::NoSuchChild`].
    pub fn resume_child(&mut self, name: &str) -> Result<(), StackError> {
        self.child_slot(name)?.iter().for_each(|child| child.signal(Signal::CONT));
        Ok(())
    }

    /// Starts a stopped or killed child on its old port and waits until it answers (not for the cluster around it).
    ///
    /// # Errors
    /// [`StackError`] when it does not come up.
    pub fn start_child(&mut self, name: &str) -> Result<(), StackError> {
        let deadline = Instant::now() + self.options.start_timeout;
        if self.child_slot(name)?.as_mut().is_some_and(|child| child.exited().is_none()) {
            return Ok(());
        }
        if let Some(postgres) = self.postgres.as_mut().filter(|_| name == "postgres") {
            postgres.spawn()?;
            return postgres.wait_ready(deadline);
        }
        for node in self.nodes.iter_mut().filter(|node| node.name == name) {
            node.spawn(&self.style)?;
            node.wait_ready(deadline)?;
        }
        Ok(())
    }

    fn child_slot(&mut self, name: &str) -> Result<&mut Option<Supervised>, StackError> {
        if name == "postgres" {
            let postgres = self.postgres.as_mut();
            return postgres
                .map(|postgres| &mut postgres.child)
                .ok_or_else(|| StackError::NoSuchChild(name.into()));
        }
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        node.map(|node| &mut node.child).ok_or_else(|| StackError::NoSuchChild(name.to_owned()))
    }
}
