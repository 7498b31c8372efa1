//! What the shards of a relay say to each other.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::{
    Code,
    tunnel::{
        ConnKey, ControlEnd, StreamKey,
        relay::{Action, Event, Ticket, TunnelBytes, TunnelKey},
    },
};

/// Blocks of a tunnel that may be on their way from one shard to another, in each direction. The block that is being filled and
/// the one that is being written come on top.
pub(super) const CREDIT: usize = 4;

/// A message between two shards of a relay.
#[derive(Debug)]
pub(crate) enum RelayMessage {
    /// To the shard that decides.
    Told(Told),
    /// From the shard that decides.
    Do(Action),
    /// So many bytes of the control stream were heard.
    Heard { conn: ConnKey, bytes: usize },
    /// Between the two shards of a tunnel, about one of its directions.
    Crossing {
        tunnel: TunnelKey,
        to_target: bool,
        crossing: Crossing,
    },
}

/// What the shard that has a connection tells the one that decides: events of the machine that own what they carry.
#[derive(Debug)]
pub(crate) enum Told {
    Connected {
        conn: ConnKey,
        pin: Option<[u8; 32]>,
        remote: SocketAddr,
    },
    ControlBytes {
        conn: ConnKey,
        bytes: Bytes,
    },
    ControlEnded {
        conn: ConnKey,
        end: ControlEnd,
    },
    ControlStalled(ConnKey),
    ExtraStream(ConnKey),
    StreamOpened(Ticket, StreamKey),
    StreamUnavailable(Ticket),
    StreamsAvailable(ConnKey),
    /// The shard's part of a tunnel is over.
    PartEnded(TunnelKey, Part),
    ConnectionLost(ConnKey),
}

/// What one shard has to say of a tunnel that is over.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Part {
    /// The code that a direction was reset or stopped with first.
    pub(super) reset: Option<Code>,
    /// Bytes that were read there.
    pub(super) bytes: TunnelBytes,
}

/// About one direction of a tunnel whose ends are on different shards.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Crossing {
    /// The next bytes. At most [`CREDIT`] blocks are on their way.
    Block(Bytes),
    /// No more come.
    Finish,
    /// The sender reset its stream.
    Reset(Code),
    /// A block was taken.
    Credit,
    /// Everything has arrived, the end too.
    Delivered,
    /// The receiver stopped its stream.
    Stop(Code),
}

impl Told {
    /// The event of the machine; `None` for the part of a tunnel, which it hears of when all parts are over.
    pub(super) fn event(&self) -> Option<Event<'_>> {
        Some(match *self {
            Self::Connected { conn, pin, remote } => Event::Connected { conn, pin, remote },
            Self::ControlBytes { conn, ref bytes } => Event::ControlBytes { conn, bytes },
            Self::ControlEnded { conn, end } => Event::ControlEnded { conn, end },
            Self::ControlStalled(conn) => Event::ControlStalled { conn },
            Self::ExtraStream(conn) => Event::ExtraStream { conn },
            Self::StreamOpened(ticket, stream) => Event::StreamOpened { ticket, stream },
            Self::StreamUnavailable(ticket) => Event::StreamUnavailable { ticket },
            Self::StreamsAvailable(conn) => Event::StreamsAvailable { conn },
            Self::ConnectionLost(conn) => Event::ConnectionLost { conn },
            Self::PartEnded(..) => return None,
        })
    }
}
