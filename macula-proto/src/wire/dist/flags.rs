use std::{
    fmt,
    ops::{BitAnd, BitOr},
};

/// What a node can do, as nodes tell each other in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)*];
        }
    };
}

flags! {
    /// The node is to be listed among the others: it is not hidden.
    PUBLISHED = 0;
    /// The old atom cache. No node uses it.
    ATOM_CACHE = 1;
    /// References of several words.
    EXTENDED_REFERENCES = 2;
    /// Monitors of processes.
    DIST_MONITOR = 3;
    /// The tag of functions.
    FUN_TAGS = 4;
    /// Monitors of registered names.
    DIST_MONITOR_NAME = 5;
    /// The old atom cache of hidden nodes.
    HIDDEN_ATOM_CACHE = 6;
    /// The tag of functions with their size in front.
    NEW_FUN_TAGS = 7;
    /// Pids and ports of more bits.
    EXTENDED_PIDS_PORTS = 8;
    /// The tag of functions of modules.
    EXPORT_PTR_TAG = 9;
    /// The tag of bit strings.
    BIT_BINARIES = 10;
    /// The tag of floats in binary form.
    NEW_FLOATS = 11;
    /// Unicode characters in input and output requests.
    UNICODE_IO = 12;
    /// Messages have a distribution header with an atom cache.
    DIST_HDR_ATOM_CACHE = 13;
    /// The tags of atoms with a length of one byte.
    SMALL_ATOM_TAGS = 14;
    /// Atoms in UTF-8.
    UTF8_ATOMS = 16;
    /// The tag of maps.
    MAP_TAG = 17;
    /// Creations of 32 bits.
    BIG_CREATION = 18;
    /// Messages name their sender: SEND_SENDER.
    SEND_SENDER = 19;
    /// Any term as the label of a trace token.
    BIG_SEQTRACE_LABELS = 20;
    /// Exit reasons travel behind the control term: PAYLOAD_EXIT and its kin.
    EXIT_PAYLOAD = 22;
    /// Long messages come in fragments.
    FRAGMENTS = 23;
    /// Version 6 of the handshake.
    HANDSHAKE_23 = 24;
    /// Links are taken down with UNLINK_ID and its answer.
    UNLINK_ID = 25;
    /// Stands for all flags of [`Flags::MANDATORY_25`].
    MANDATORY_25_DIGEST = 26;
    /// SPAWN_REQUEST and SPAWN_REPLY.
    SPAWN = 32;
    /// The node has no name yet and asks for one.
    NAME_ME = 33;
    /// Pids and ports of 64 bits.
    V4_NC = 34;
    /// ALIAS_SEND.
    ALIAS = 35;
    /// The priority messages of OTP 28.
    ALTACT_SIG = 37;
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// The flags without which no node of OTP 25 or later lets another one in.
    pub const MANDATORY_25: Self = Self(
        Self::EXTENDED_REFERENCES.0
            | Self::FUN_TAGS.0
            | Self::EXTENDED_PIDS_PORTS.0
            | Self::NEW_FUN_TAGS.0
            | Self::EXPORT_PTR_TAG.0
            | Self::BIT_BINARIES.0
            | Self::NEW_FLOATS.0
            | Self::UTF8_ATOMS.0
            | Self::MAP_TAG.0
            | Self::BIG_CREATION.0
            | Self::HANDSHAKE_23.0,
    );

    /// What became mandatory with OTP 26.
    pub const MANDATORY_26: Self = Self(Self::V4_NC.0 | Self::UNLINK_ID.0);

    /// What this implementation can do, as a hidden node: all that is mandatory up to OTP 27, and whatever else the codec reads.
    /// The atom cache and fragments are read too, but not asked for: without them every message is complete in itself.
    pub const DEFAULT: Self = Self(
        Self::MANDATORY_25.0
            | Self::MANDATORY_26.0
            | Self::MANDATORY_25_DIGEST.0
            | Self::DIST_MONITOR.0
            | Self::DIST_MONITOR_NAME.0
            | Self::UNICODE_IO.0
            | Self::SMALL_ATOM_TAGS.0
            | Self::SEND_SENDER.0
            | Self::BIG_SEQTRACE_LABELS.0
            | Self::EXIT_PAYLOAD.0
            | Self::ALIAS.0,
    );

    /// From the bits of the wire, those without a name included.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `flags` are among these.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags with `flags` added.
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// These flags with `flags` taken away.
    #[must_use]
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These flags with what [`Flags::MANDATORY_25_DIGEST`] stands for.
    #[must_use]
    pub const fn expanded(self) -> Self {
        if self.contains(Self::MANDATORY_25_DIGEST) {
            self.with(Self::MANDATORY_25)
        } else {
            self
        }
    }

    /// The names of the flags that have one, the lowest bit first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let set = Self::NAMES.iter().filter(move |(flag, _)| self.contains(*flag));
        set.map(|(_, name)| *name)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitAnd for Flags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The names with `|` in between; bits without a name in hexadecimal at the end.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unnamed = self.0;
        let mut separator = "";
        for (flag, name) in Self::NAMES {
            if self.contains(*flag) {
                unnamed &= !flag.0;
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        match (unnamed, self.0) {
            (_, 0) => f.write_str("NONE"),
            (0, _) => Ok(()),
            (unnamed, _) => write!(f, "{separator}{unnamed:#x}"),
        }
    }
}
