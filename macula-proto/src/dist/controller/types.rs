//! What a controller is told, and what it asks for.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::{
    Code,
    dist::{
        control::{self, LaneConfig, LaneStats},
        handshake::{Established, Failure, HandshakeConfig, Standing},
        pool::{self, PoolConfig, PoolStats},
        streams::{Side, Slot},
        user::{UserConfig, UserStats},
    },
    wire::etf::Atom,
};

/// How a controller behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControllerConfig {
    /// Who this node is, and what it expects of others.
    pub handshake: HandshakeConfig,
    /// The control lane.
    pub lane: LaneConfig,
    /// The data pool. Which side it is on is set by the controller.
    pub pool: PoolConfig,
    /// Streams of users.
    pub users: UserConfig,
    /// A peer of which nothing was heard for this long is gone; ticks are sent every quarter of it. `None`: ticks are sent when
    /// the owner says so, and nobody is given up. Default 60 s, as on OTP nodes.
    pub net_tick: Option<Duration>,
    /// How long leaving in good order may take. Default 5 s.
    pub drain: Duration,
}

impl ControllerConfig {
    /// The defaults for this node.
    pub fn new(handshake: HandshakeConfig) -> Self {
        Self {
            handshake,
            lane: LaneConfig::default(),
            pool: PoolConfig::new(Side::Client),
            users: UserConfig::default(),
            net_tick: Some(Duration::from_secs(60)),
            drain: Duration::from_secs(5),
        }
    }
}

/// What a stream is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The control lane. Client only.
    Control,
    /// Messages of this side.
    Data(Slot),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The connection is there.
    Connected,
    /// After [`Action::Open`]: the stream is open.
    Opened(Purpose),
    /// The peer opened a stream.
    Arrived(u64),
    /// Bytes of the control stream or of a data stream of the peer, in order.
    Received {
        /// Which one.
        stream: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The peer finished its direction of a stream, and everything was read.
    Finished(u64),
    /// The peer abandoned its direction of a stream.
    Reset(u64, Code),
    /// The peer wants no more on a stream.
    Stopped(u64, Code),
    /// A stream of a user has something to read.
    Readable(u64),
    /// A stream of a user takes bytes again.
    Writable(u64),
    /// The peer has everything on a stream that was finished here.
    Delivered(u64),
    /// The answer to [`Action::AskStanding`].
    Standing(Standing),
    /// The answer to [`Action::AskWanted`].
    Wanted(bool),
    /// Another connection with the same node takes the place of this one.
    Displaced,
    /// The connection is gone.
    Lost(EndReason),
    /// The owner wants a tick sent.
    Tick,
    /// The producer of messages has its turn again.
    Wakeup,
    /// How full the transport is; see [`pool::Event::Transport`].
    Transport {
        /// Bytes that were written and have not been sent yet.
        queued: u64,
        /// The congestion window, in bytes.
        window: u64,
        /// Bytes of data streams that were written and have not been acknowledged yet.
        in_flight: u64,
    },
    /// Leave in good order, and close with this code.
    Leave(Code),
    /// Close at once, with this code.
    Close(Code),
    /// The time of [`poll_timeout`](super::Controller::poll_timeout) has come.
    Timeout,
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a bidirectional stream, wait for it if it has to be, and tell with [`Event::Opened`]. They have to be opened in the
    /// order asked for, before any stream of a user, so that they get the ids that the peer expects.
    Open(Purpose),
    /// There is something to write: pull it with [`poll_output`](super::Controller::poll_output).
    Writable(Purpose),
    /// Finish this side of a stream once everything that waits for it is written.
    Finish(Purpose),
    /// There is room again for what the peer sends: read its data streams.
    Read,
    /// Send a QUIC PING.
    Ping,
    /// Answer with [`Event::Standing`].
    AskStanding {
        /// Who calls, and has not proved anything yet.
        peer: Atom,
    },
    /// Answer with [`Event::Wanted`].
    AskWanted,
    /// The handshake is complete.
    Up(Box<Established>),
    /// The peer sent a tick: it is alive.
    PeerTick,
    /// No more messages are taken for now.
    Congested,
    /// Messages are taken again.
    SendReady,
    /// There are messages: take them with [`next_message`](super::Controller::next_message).
    Messages,
    /// For a stream of a user.
    User(crate::dist::user::Action),
    /// Close the connection.
    Close {
        /// With this code.
        code: Code,
        /// And these words.
        reason: String,
    },
    /// It is over. Messages that came before can still be taken.
    Down(EndReason),
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// The connection is not there yet.
    Connecting,
    /// In its handshake.
    Handshaking,
    /// The node is up.
    Up,
    /// This side leaves.
    Leaving,
    /// It is over.
    Over,
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndReason {
    /// This side closed it.
    #[error("closed")]
    Closed,
    /// The peer closed it.
    #[error("closed by the peer ({0})")]
    PeerClosed(Code),
    /// The handshake failed.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] Failure),
    /// Another connection with the same node took its place.
    #[error("another connection with the same node took its place")]
    Displaced,
    /// The control stream ended, or carried what it must not.
    #[error(transparent)]
    Control(#[from] control::Fault),
    /// A data stream ended, or carried what it must not.
    #[error(transparent)]
    Data(#[from] pool::Fault),
    /// Nothing was heard of the peer for the net tick time.
    #[error("nothing was heard of the peer for the net tick time")]
    NetTick,
    /// Too many connections are in their handshake.
    #[error("too many connections are in their handshake")]
    Crowded,
    /// The connection was lost.
    #[error("{0}")]
    Lost(String),
}

impl EndReason {
    /// What to close the connection with.
    pub fn code(&self) -> Code {
        match self {
            Self::Handshake(failure) => failure.code(),
            Self::Displaced => Code::DISPLACED,
            Self::Control(fault) => fault.code(),
            Self::Data(fault) => fault.code(),
            Self::NetTick => Code::TIMEOUT,
            Self::Crowded => Code::LIMIT,
            Self::Closed | Self::PeerClosed(_) | Self::Lost(_) => Code::CLOSED,
        }
    }
}

/// What a controller has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ControllerStats {
    /// On the control lane.
    pub lane: LaneStats,
    /// In the data pool.
    pub pool: PoolStats,
    /// With streams of users.
    pub users: UserStats,
}
