//! Which stream of a distribution connection over QUIC is for what.
//!
//! All streams are bidirectional. Stream 0 is the [control lane](super::control). Each side has four streams for messages: the client
//! opens 4, 8, 12 and 16, the server 1, 5, 9 and 13 once the handshake is complete. Those behind them, 20 and up from the
//! client, 17 and up from the server, belong to the users.

/// Priority of the control stream as an urgency: lower is more urgent.
pub const CONTROL_URGENCY: u8 = 0;
/// Urgency of the data streams. 4 to 6 are reserved for them.
pub const DATA_URGENCY: u8 = 5;
/// Urgencies that a user stream may have.
pub const USER_URGENCY: std::ops::RangeInclusive<u8> = 16..=255;
/// Urgency of a user stream unless it is told otherwise.
pub const DEFAULT_USER_URGENCY: u8 = 128;

/// Which end of the QUIC connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// It opened the connection: the dialler.
    Client,
    /// It accepted the connection.
    Server,
}

/// One of the four data streams of a side, in the order they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// Data streams of a side.
    pub const COUNT: usize = 4;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self(0), Self(1), Self(2), Self(3)];
    /// The one that carries everything where there is only one: the last, as deployed nodes do it.
    pub const SINGLE: Self = Self(3);

    /// Its number, from 0 to 3.
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// The id of its stream.
    pub fn stream_id(self, side: Side) -> u64 {
        match side {
            Side::Client => 4 * (u64::from(self.0) + 1),
            Side::Server => 4 * u64::from(self.0) + 1,
        }
    }
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamClass {
    /// The control lane.
    Control,
    /// Messages of the side that opened it.
    Data(Side, Slot),
    /// A user's.
    User(Side),
    /// Nobody's: streams in one direction.
    Unknown,
}

impl StreamClass {
    /// The class of the stream with this id.
    pub fn of(id: u64) -> Self {
        let (side, data) = match id % 4 {
            0 if id == 0 => return Self::Control,
            0 => (Side::Client, id / 4 - 1),
            1 => (Side::Server, id / 4),
            _ => return Self::Unknown,
        };
        let slot = Slot::ALL.into_iter().find(|slot| u64::from(slot.0) == data);
        slot.map_or(Self::User(side), |slot| Self::Data(side, slot))
    }
}
