//! Procedures that are offered here.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Mode;

/// What a procedure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A streaming call in this mode.
    Stream(Mode),
    /// One request, one reply.
    Unary,
}

impl From<Mode> for Kind {
    fn from(mode: Mode) -> Self {
        Self::Stream(mode)
    }
}

/// The procedures that are offered, with their kinds.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    procedures: BTreeMap<Bytes, Kind>,
}

impl Registry {
    /// Offers a procedure. `false` if it was offered before; the kind is then the new one.
    pub fn advertise(&mut self, procedure: Bytes, kind: Kind) -> bool {
        self.procedures.insert(procedure, kind).is_none()
    }

    /// Offers a procedure no more. `false` if it was not offered.
    pub fn unadvertise(&mut self, procedure: &[u8]) -> bool {
        self.procedures.remove(procedure).is_some()
    }

    /// The kind of a procedure that is offered.
    pub fn kind(&self, procedure: &[u8]) -> Option<Kind> {
        self.procedures.get(procedure).copied()
    }

    /// All procedures, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, Kind)> {
        self.procedures.iter().map(|(name, kind)| (name, *kind))
    }
}
