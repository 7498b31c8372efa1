//! What the shards of a relay say to each other.

use bytes::Bytes;

use crate::{
    Code,
    tunnel::{
        ConnKey,
        relay::{Action, Event, TunnelBytes, TunnelKey},
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
    Crossing(Way, Crossing),
}

/// What the shard that has a connection tells the one that decides.
#[derive(Debug)]
pub(crate) enum Told {
    /// Bytes of a control stream, which an event only borrows.
    ControlBytes { conn: ConnKey, bytes: Bytes },
    /// Any other event of the machine but the end of a tunnel.
    Event(Event<'static>),
    /// The shard's part of a tunnel is over. The machine hears of the end when all parts are.
    PartEnded(TunnelKey, Part),
}

/// One direction of a tunnel: towards its target, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Way {
    pub(super) tunnel: TunnelKey,
    pub(super) to_target: bool,
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
