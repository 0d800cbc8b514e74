//! Where the answer to a read of a mapped key came from, as a metric label.
//!
//! Must not know: mappings, how an answer is found.

/// Where the answer to a read of a mapped key came from. Of several keys of one command, the one that came the longest
/// way counts: the variants are in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Served {
    /// The cluster had the value.
    Hit,
    /// The process had it in its memory.
    Near,
    /// A write that waits for the database had it (or says that the row is deleted).
    Dirty,
    /// It is known that there is no row.
    Negative,
    /// An older value than the mapping's time to live allows, since it may be served while a newer one is loaded.
    Stale,
    /// The database was asked.
    Miss,
    /// The database was asked and the answer was not (or may not be) stored; or the key belongs to no mapping.
    Bypass,
}

impl Served {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::Hit, Self::Near, Self::Dirty, Self::Negative, Self::Stale, Self::Miss, Self::Bypass];

    /// The label: `hit`, `near`, `dirty`, `negative`, `stale`, `miss`, `bypass`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Near => "near",
            Self::Dirty => "dirty",
            Self::Negative => "negative",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }

    /// True when no database was asked.
    pub const fn is_from_cache(self) -> bool {
        !matches!(self, Self::Miss | Self::Bypass)
    }
}
