//! Runs commands that compute a value from the one that is there: `INCR`, `APPEND`, `SET` with `NX`, and their kin.
//!
//! Must not know: clients, sockets, SQL.
//!
//! Commands of one key stand in line in a process, and those that wait together make one write (`line.rs`). A write is
//! computed from what the cache holds under a stamp (`base.rs`), journaled, and applied only while that stamp is there
//! (`round.rs`). When somebody else was quicker, in this process or in another, it is taken back and computed anew: no
//! update is lost. What the commands do stands in `compute.rs`, `hash.rs` and `float.rs`, what they come to for the row in `draft.rs`.
//! What depends on several keys is tried as a whole (`several.rs`, `trial.rs`; `unit.rs` for commands inside of `MULTI`), and `verdict.rs` finds out what became of it where
//! nobody knows.

mod base;
mod compute;
mod draft;
mod float;
mod hash;
mod line;
pub mod options;
mod round;
mod several;
mod trial;
mod unit;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::cache::ReadThrough;
use crate::cluster::Gateway;
use crate::mapping::{MappingId, StoreMode, WriteMode};
use crate::metrics::MappingMetrics;
use crate::source::Source;
use crate::writeback::WriteBehind;
pub use compute::Asked;
use line::{Job, Lines};
pub use several::Several;
pub use trial::{Stage, Tell, Trial};
pub use unit::{Computed, Ordered};
pub use verdict::find_out;

/// Limits.
#[derive(Clone, Debug)]
pub struct ModifyOptions {
    /// Commands that may wait, over all keys.
    pub max_waiting: usize,
    /// How long a command is tried again while others write its key.
    pub timeout: Duration,
    /// Shows the commands that wait.
    pub waiting: IntGauge,
}

/// Called once with the reply, from any thread; must not block.
pub type Done = Box<dyn FnOnce(Vec<u8>) + Send>;

/// The commands under way. Cheap to clone.
#[derive(Clone)]
pub struct Modifier {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<Source>,
    reads: ReadThrough,
    writes: WriteBehind,
    gateway: Gateway,
    /// By mapping.
    metrics: Vec<MappingMetrics>,
    options: ModifyOptions,
    lines: Lines,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Modifier {
    /// Commands run on `runtime`.
    pub fn new(
        source: Arc<Source>,
        reads: ReadThrough,
        writes: WriteBehind,
        gateway: Gateway,
        metrics: Vec<MappingMetrics>,
        options: ModifyOptions,
        runtime: &Handle,
    ) -> Self {
        let shared = Shared {
            source,
            reads,
            writes,
            gateway,
            metrics,
            options,
            lines: Lines::default(),
            runtime: runtime.clone(),
            tasks: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Why no such command can run on keys of a mapping, in the words of an error reply.
    ///
    /// # Errors
    /// That reply.
    pub fn check(&self, mapping: MappingId, command: &str) -> Result<(), String> {
        let settings =
            self.shared.source.mappings().get(mapping).ok_or("ERR the key belongs to no mapping")?;
        let name = &settings.name;
        match (settings.write, settings.mode) {
            (WriteMode::None, _) => Err(format!("ERR mapping '{name}' is read-only (write = \"none\")")),
            (_, StoreMode::Append) => Err(format!(
                "ERR '{command}' is not supported on keys of mapping '{name}': it appends rows, and no row replaces another"
            )),
            _ if !settings.cache => Err(format!(
                "ERR '{command}' is not supported on keys of mapping '{name}': it computes from the cached value, and \
                 cache = \"off\""
            )),
            _ => Ok(()),
        }
    }

    /// Runs a command; its reply goes to `done`. Commands of one key run in the order in which they come. Never blocks.
    pub fn submit(&self, mapping: MappingId, key: Bytes, asked: Asked, done: Done) {
        let shared = &self.shared;
        let Some(done) = self.let_in(done) else { return };
        let job = Job::new(asked, done, shared.options.waiting.clone());
        if shared.lines.join(mapping, &key, job) {
            let shared = shared.clone();
            let runtime = shared.runtime.clone();
            runtime.spawn(shared.tasks.track_future(line::serve(shared.clone(), mapping, key)));
        }
    }

    /// Why `command` cannot run on these keys, in the words of an error reply.
    ///
    /// # Errors
    /// That reply.
    pub fn check_several(&self, several: &Several, command: &str) -> Result<(), String> {
        for (mapping, ..) in &several.mapped {
            self.check(*mapping, command)?;
            if self.shared.writes.is_through(*mapping) {
                let name = self.shared.source.mappings().get(*mapping).map_or("?", |mapping| &mapping.name);
                return Err(format!(
                    "ERR '{command}' of several keys is not supported on keys of mapping '{name}': they are written through \
                     (durability = \"database\")"
                ));
            }
        }
        Ok(())
    }

    /// Runs an `MSETNX` of several keys in one slot; its reply goes to `done`. Never blocks.
    pub fn submit_several(&self, several: Several, asked: Asked, done: Done) {
        let shared = &self.shared;
        let Some(done) = self.let_in(done) else { return };
        let job = Job::new(asked, done, shared.options.waiting.clone());
        shared.runtime.spawn(shared.tasks.track_future(several::serve(shared.clone(), several, job)));
    }

    /// Answers that too many wait, if so.
    fn let_in(&self, done: Done) -> Option<Done> {
        let most = self.shared.options.max_waiting;
        if self.waiting() < most {
            return Some(done);
        }
        let mut reply = Vec::new();
        let text =
            format!("BUSY {most} commands wait for others on their keys already (write_behind.modify_queue)");
        crate::resp::push_error(&mut reply, text);
        done(reply);
        None
    }

    /// Commands that have no reply yet.
    pub fn waiting(&self) -> usize {
        usize::try_from(self.shared.options.waiting.get()).unwrap_or_default()
    }

    /// Waits for what is under way, at most `deadline`.
    pub async fn shutdown(&self, deadline: Duration) {
        self.shared.tasks.close();
        let _ = tokio::time::timeout(deadline, self.shared.tasks.wait()).await;
    }
}

impl Shared {
    fn outrun_too_often(&self) -> String {
        format!(
            "ERR others have written this key again and again for {:?} (write_behind.modify_timeout); nothing has happened, try \
             again",
            self.options.timeout
        )
    }
}
