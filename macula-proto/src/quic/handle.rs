//! Names of connections and streams.

use std::fmt;

/// Which end of a connection this endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// This endpoint dialled.
    Client,
    /// This endpoint accepted.
    Server,
}

impl Side {
    /// True for the dialling side.
    pub fn is_client(self) -> bool {
        self == Self::Client
    }
}

impl From<quinn_proto::Side> for Side {
    fn from(side: quinn_proto::Side) -> Self {
        match side {
            quinn_proto::Side::Client => Self::Client,
            quinn_proto::Side::Server => Self::Server,
        }
    }
}

/// Directionality of a stream (RFC 9000 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// Both ends send.
    Bi,
    /// Only the end that opened it sends.
    Uni,
}

impl From<Dir> for quinn_proto::Dir {
    fn from(dir: Dir) -> Self {
        match dir {
            Dir::Bi => Self::Bi,
            Dir::Uni => Self::Uni,
        }
    }
}

impl From<quinn_proto::Dir> for Dir {
    fn from(dir: quinn_proto::Dir) -> Self {
        match dir {
            quinn_proto::Dir::Bi => Self::Bi,
            quinn_proto::Dir::Uni => Self::Uni,
        }
    }
}

/// A QUIC stream id (RFC 9000 §2.1): the low bit says who opened it, the next whether it is unidirectional.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// A stream id from its number on the wire; `None` above 2^62 - 1.
    pub const fn new(id: u64) -> Option<Self> {
        if id < (1 << 62) { Some(Self(id)) } else { None }
    }

    /// The number on the wire.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Who opened the stream.
    pub const fn initiator(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// Whether the stream is bidirectional.
    pub const fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bi } else { Dir::Uni }
    }

    /// How many streams of this initiator and direction were opened before it.
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }

    pub(super) fn from_quinn(id: quinn_proto::StreamId) -> Self {
        Self(quinn_proto::VarInt::from(id).into_inner())
    }

    pub(super) fn to_quinn(self) -> quinn_proto::StreamId {
        let side = match self.initiator() {
            Side::Client => quinn_proto::Side::Client,
            Side::Server => quinn_proto::Side::Server,
        };
        quinn_proto::StreamId::new(side, self.dir().into(), self.index())
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

/// Names one connection of one endpoint for as long as that connection exists.
///
/// Handles are generational: the handle of a connection that is gone is an error when it is used, never another
/// connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionHandle {
    pub(super) generation: u32,
    pub(super) index: u32,
}

impl ConnectionHandle {
    /// The handle as one number, for tables of machines and drivers.
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// The handle that [`to_bits`](Self::to_bits) made.
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            generation: (bits >> 32) as u32,
            index: (bits & 0xffff_ffff) as u32,
        }
    }
}

impl fmt::Display for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionHandle({self})")
    }
}

/// Names an incoming connection that waits for a decision; see [`Endpoint::accept`](super::Endpoint::accept).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncomingHandle(pub(super) u64);

/// Whoever a connection or a stream belongs to: a number that the embedding program chooses and the endpoint only
/// stores. Handing over is changing it; nothing buffered moves, so nothing can be lost or reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Owner(pub u64);
