//! The sets of named bits a command carries: flags, ACL categories, ways of using a key.
//!
//! Must not know: any particular command.

/// Declares a set of named bits: a newtype, one associated constant per bit for readers, and a module of plain
/// integers for the rows of the table, where constants must be joined with `|` at compile time.
macro_rules! bit_set {
    ($(#[$doc:meta])* $type:ident, $(#[$module_doc:meta])* $module:ident { $($bit:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $type(u32);

        $(#[$module_doc])*
        pub(super) mod $module {
            #[allow(clippy::upper_case_acronyms, non_camel_case_types, reason = "named like the bits they number")]
            enum Position { $($bit,)* }
            $(pub(crate) const $bit: u32 = 1 << Position::$bit as u32;)*
        }

        impl $type {
            $(
                #[doc = concat!("`", $text, "`")]
                pub const $bit: Self = Self($module::$bit);
            )*

            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$bit, $text),)*];

            pub(super) const fn new(bits: u32) -> Self {
                Self(bits)
            }

            /// True when every bit of `other` is set here.
            #[inline]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// True when no bit is set.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The names of the set bits as Redis spells them.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().filter(move |(bit, _)| self.contains(*bit)).map(|(_, name)| *name)
            }

            /// The names of all bits as Redis spells them.
            pub fn all() -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().map(|(_, name)| *name)
            }

            /// The bit that Redis calls `name`.
            pub fn named(name: &str) -> Option<Self> {
                Self::NAMES.iter().find(|(_, known)| *known == name).map(|(bit, _)| *bit)
            }
        }

        impl std::ops::BitOr for $type {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.debug_set().entries(self.names()).finish()
            }
        }
    };
}

bit_set! {
    /// Command flags, as the third element of a `COMMAND` reply lists them (Redis docs, "COMMAND", "Flags").
    Flags,
    /// [`Flags`] as integers.
    flag {
        WRITE = "write",
        READONLY = "readonly",
        DENYOOM = "denyoom",
        ADMIN = "admin",
        PUBSUB = "pubsub",
        NOSCRIPT = "noscript",
        BLOCKING = "blocking",
        LOADING = "loading",
        STALE = "stale",
        SKIP_MONITOR = "skip_monitor",
        SKIP_SLOWLOG = "skip_slowlog",
        ASKING = "asking",
        FAST = "fast",
        NO_AUTH = "no_auth",
        NO_ASYNC_LOADING = "no_async_loading",
        NO_MULTI = "no_multi",
        ALLOW_BUSY = "allow_busy",
        NO_MANDATORY_KEYS = "no_mandatory_keys",
        MOVABLEKEYS = "movablekeys",
    }
}

bit_set! {
    /// ACL categories, as `ACL CAT` lists them; Redis writes them with an `@` in front.
    Categories,
    /// [`Categories`] as integers.
    category {
        KEYSPACE = "keyspace",
        READ = "read",
        WRITE = "write",
        SET = "set",
        SORTEDSET = "sortedset",
        LIST = "list",
        HASH = "hash",
        STRING = "string",
        BITMAP = "bitmap",
        HYPERLOGLOG = "hyperloglog",
        GEO = "geo",
        STREAM = "stream",
        PUBSUB = "pubsub",
        ADMIN = "admin",
        FAST = "fast",
        SLOW = "slow",
        BLOCKING = "blocking",
        DANGEROUS = "dangerous",
        CONNECTION = "connection",
        TRANSACTION = "transaction",
        SCRIPTING = "scripting",
    }
}

bit_set! {
    /// What a command does to the keys of one key spec (Redis docs, "Command key specifications", "Flags").
    KeyFlags,
    /// [`KeyFlags`] as integers.
    key_flag {
        RO = "RO",
        RW = "RW",
        OW = "OW",
        RM = "RM",
        ACCESS = "access",
        UPDATE = "update",
        INSERT = "insert",
        DELETE = "delete",
        NOT_KEY = "not_key",
        INCOMPLETE = "incomplete",
        VARIABLE = "variable_flags",
    }
}

impl Categories {
    /// `explicit` and what Redis adds on its own from the flags (`setImplicitACLCategories` in its server.c).
    pub(super) const fn with_implied(explicit: u32, flags: u32) -> Self {
        let mut bits = explicit;
        if flags & flag::WRITE != 0 {
            bits |= category::WRITE;
        }
        if flags & flag::READONLY != 0 && explicit & category::SCRIPTING == 0 {
            bits |= category::READ;
        }
        if flags & flag::ADMIN != 0 {
            bits |= category::ADMIN | category::DANGEROUS;
        }
        if flags & flag::PUBSUB != 0 {
            bits |= category::PUBSUB;
        }
        if flags & flag::BLOCKING != 0 {
            bits |= category::BLOCKING;
        }
        bits |= if flags & flag::FAST != 0 { category::FAST } else { category::SLOW };
        Self::new(bits)
    }
}
