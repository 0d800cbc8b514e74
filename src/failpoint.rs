//! Places at which a test has the process die, and safeguards that a test has it leave out.
//!
//! Must not know: who passes by.
//!
//! Only a debug build reads these from its environment; in a release build nothing of them is left, and it refuses to start
//! with them (`config/load.rs`).
//!
//! - `DSPROXY_FAILPOINT=name:count`: the process kills itself, as `kill -9` does, when it comes by `name` for the `count`-th
//!   time (1 where no count is given).
//! - `DSPROXY_POWER_CUT=1`: what the journal has not synced stays in the process, so that its death takes it, as a power cut
//!   takes what the kernel has not written.
//! - `DSPROXY_LEAVE_OUT=name`: one [`Safeguard`] is missing, to show that the crash tests notice.

/// What the promises about writes rest on, each of which can be left out in a debug build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// The journal is synced before anybody is told.
    Sync,
    /// What the journal holds is queued again at the start.
    Replay,
    /// Only the epoch that claimed an instance last may write for it.
    Fence,
    /// An older write does not replace a newer one in the database.
    VersionGuard,
    /// Only a proxy that is alone leaves its versions out.
    Company,
    /// A batch and the note that it is applied are one transaction.
    OneTransaction,
    /// Readers see what waits for the database.
    Overlay,
}

impl Safeguard {
    /// All of them, with their names in `DSPROXY_LEAVE_OUT`.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Sync, "sync"),
        (Self::Replay, "replay"),
        (Self::Fence, "fence"),
        (Self::VersionGuard, "version_guard"),
        (Self::Company, "company"),
        (Self::OneTransaction, "one_transaction"),
        (Self::Overlay, "overlay"),
    ];
}

#[cfg(debug_assertions)]
mod armed {
    use super::Safeguard;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        left: AtomicU64,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    static LEFT_OUT: OnceLock<Option<Safeguard>> = OnceLock::new();
    static POWER_CUT: OnceLock<bool> = OnceLock::new();

    fn read() -> Option<Armed> {
        let text = std::env::var("DSPROXY_FAILPOINT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(1)) })
    }

    pub(super) fn hit(name: &str) {
        let Some(armed) = ARMED.get_or_init(read).as_ref().filter(|armed| armed.name == name) else { return };
        if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }

    fn read_left_out() -> Option<Safeguard> {
        let name = std::env::var("DSPROXY_LEAVE_OUT").ok()?;
        let (safeguard, _) = Safeguard::ALL.into_iter().find(|(_, known)| *known == name)?;
        tracing::error!(safeguard = name, "DSPROXY_LEAVE_OUT is set: this process loses data on purpose");
        Some(safeguard)
    }

    pub(super) fn leaves_out(safeguard: Safeguard) -> bool {
        *LEFT_OUT.get_or_init(read_left_out) == Some(safeguard)
    }

    pub(super) fn power_cut() -> bool {
        *POWER_CUT.get_or_init(|| std::env::var("DSPROXY_POWER_CUT").is_ok_and(|value| value == "1"))
    }
}

/// The process ends here, if it was told to.
#[inline]
pub fn hit(name: &str) {
    #[cfg(debug_assertions)]
    armed::hit(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Whether this safeguard is left out; never in a release build.
#[cfg(debug_assertions)]
#[inline]
pub fn leaves_out(safeguard: Safeguard) -> bool {
    armed::leaves_out(safeguard)
}

/// Whether this safeguard is left out; never in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn leaves_out(_: Safeguard) -> bool {
    false
}

/// Whether the death of the process takes what was not synced; never in a release build.
#[cfg(debug_assertions)]
#[inline]
pub fn power_cut() -> bool {
    armed::power_cut()
}

/// Whether the death of the process takes what was not synced; never in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn power_cut() -> bool {
    false
}
