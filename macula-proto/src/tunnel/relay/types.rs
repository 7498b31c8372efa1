//! What the relay machine is told, what it asks for, and what it tells.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;

use crate::{
    Code,
    tunnel::{ConnKey, ControlEnd, Name, StreamKey},
    wire::{
        Encoding,
        control::{Reason, TunnelId},
    },
};

/// A stream that the relay machine asked for and has not got yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A tunnel of this relay. Never used for a second tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelKey(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A client's handshake is complete.
    Connected {
        /// Its connection.
        conn: ConnKey,
        /// SHA-256 of the DER of the leaf certificate it showed, if it showed one (and proved to hold its key).
        pin: Option<[u8; 32]>,
        /// Where it comes from.
        remote: SocketAddr,
    },
    /// Bytes of the client's first stream, in order.
    ControlBytes {
        /// Its connection.
        conn: ConnKey,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The client ended its first stream, after all of its bytes were handed in.
    ControlEnded {
        /// Its connection.
        conn: ConnKey,
        /// How.
        end: ControlEnd,
    },
    /// More than [`control_backlog`](crate::Limits::control_backlog) bytes of control messages wait for the client to take
    /// them.
    ControlStalled {
        /// Its connection.
        conn: ConnKey,
    },
    /// The client opened a stream other than its first, which was refused.
    ExtraStream {
        /// Its connection.
        conn: ConnKey,
    },
    /// Answer to [`Action::OpenStream`]: here it is.
    StreamOpened {
        /// The ticket of the request.
        ticket: Ticket,
        /// The stream.
        stream: StreamKey,
    },
    /// Answer to [`Action::OpenStream`]: the client grants no more streams for now.
    StreamUnavailable {
        /// The ticket of the request.
        ticket: Ticket,
    },
    /// The client grants more streams than before.
    StreamsAvailable {
        /// Its connection.
        conn: ConnKey,
    },
    /// Both directions of a spliced tunnel are over. Not needed for a tunnel that the machine ended itself.
    TunnelEnded {
        /// The tunnel.
        tunnel: TunnelKey,
        /// How.
        end: SpliceEnd,
        /// How much it carried.
        bytes: TunnelBytes,
    },
    /// A connection is gone: the last event of every connection, also of one that the machine had closed.
    ConnectionLost {
        /// The connection.
        conn: ConnKey,
    },
    /// The time of [`poll_timeout`](super::Relay::poll_timeout) has come.
    Timeout,
    /// Take nothing new: clients that had no tunnel are closed with [`Code::DRAINING`], the others a second after their last
    /// tunnel has ended, so that what has arrived there is read; requests are answered `draining`.
    Drain,
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes on the control stream.
    SendControl {
        /// The client's connection.
        conn: ConnKey,
        /// One whole message.
        bytes: Bytes,
    },
    /// Open a bidirectional stream to the client; answer with [`Event::StreamOpened`] or [`Event::StreamUnavailable`].
    /// Write nothing on it yet.
    OpenStream {
        /// The client's connection.
        conn: ConnKey,
        /// To be named in the answer.
        ticket: Ticket,
    },
    /// Write the 32 bytes of the id on both streams, then copy raw bytes both ways, passing FIN, reset and stop on as what
    /// they are, until both directions are over; then say [`Event::TunnelEnded`].
    Splice {
        /// Names the tunnel in later actions and events.
        tunnel: TunnelKey,
        /// The id to write.
        id: TunnelId,
        /// Connection and stream of the node that asked for the tunnel.
        requester: (ConnKey, StreamKey),
        /// Connection and stream of the node that it leads to; the same connection for a tunnel to oneself.
        target: (ConnKey, StreamKey),
        /// How fast it may be.
        rates: Rates,
    },
    /// A stream that was opened is not needed after all: reset and stop it. Nothing was written on it.
    DropStream {
        /// The client's connection.
        conn: ConnKey,
        /// The stream.
        stream: StreamKey,
        /// The code to reset it with.
        code: Code,
    },
    /// Reset and stop both streams of a tunnel, as far as they are still there, and forget it.
    EndTunnel {
        /// The tunnel.
        tunnel: TunnelKey,
        /// The code to reset them with.
        code: Code,
    },
    /// Close a connection. [`Event::ConnectionLost`] must still follow.
    CloseConnection {
        /// The connection.
        conn: ConnKey,
        /// The application close code.
        code: Code,
        /// The reason phrase.
        reason: &'static str,
    },
    /// Tell the user.
    Report(Report),
}

/// Something the user of a relay may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// A client has taken a name.
    Identified {
        /// Its connection.
        conn: ConnKey,
        /// The name.
        name: Name,
    },
    /// A newer connection took over a name; the older one is being closed.
    Displaced {
        /// The name.
        name: Name,
        /// The connection that held it.
        old: ConnKey,
        /// The connection that holds it now.
        new: ConnKey,
    },
    /// A client was not given a name; unless it has tunnels on a relay that drains, it is being closed.
    IdentifyRefused {
        /// Its connection.
        conn: ConnKey,
        /// The name it asked for.
        name: Name,
        /// Why not.
        why: &'static str,
    },
    /// A tunnel is open.
    TunnelOpened {
        /// The tunnel.
        tunnel: TunnelKey,
        /// Its id on the wire.
        id: TunnelId,
        /// The node that asked for it.
        source: Name,
        /// The node it leads to.
        target: Name,
    },
    /// A tunnel is over.
    TunnelClosed {
        /// The tunnel.
        tunnel: TunnelKey,
        /// Its id on the wire.
        id: TunnelId,
        /// The node that asked for it.
        source: Name,
        /// The node it led to.
        target: Name,
        /// Why it is over.
        reason: TunnelCloseReason,
        /// How much it carried, as told by [`Event::TunnelEnded`]. `None` if the machine ended it: whoever executed
        /// [`Action::EndTunnel`], which always precedes this report, knows the figures.
        bytes: Option<TunnelBytes>,
    },
    /// A tunnel request was answered with an error.
    RequestRefused {
        /// The connection it came from.
        conn: ConnKey,
        /// The name of the node that asked, if it had one.
        source: Option<Name>,
        /// The name it asked for, cut to the longest legal name.
        target: Name,
        /// The answer.
        why: Refusal,
    },
    /// A client is gone, or is being closed.
    Disconnected {
        /// Its connection.
        conn: ConnKey,
        /// The names it held, in order.
        names: Vec<Name>,
        /// The code and reason it is being closed with; `None` if it went by itself.
        closed: Option<(Code, &'static str)>,
    },
    /// The relay takes nothing new from now on.
    Draining,
    /// The relay was told to drain, and its last client is gone or being closed.
    Drained,
}

/// Why a relay of this implementation refuses a tunnel request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// `target_not_connected`: nobody holds that name.
    TargetNotConnected,
    /// `not_identified`: the requester has not said its own name.
    NotIdentified,
    /// `stream_limit`: one of the two nodes grants no more streams, and did not within
    /// [`stream_wait`](crate::Limits::stream_wait).
    StreamLimit,
    /// `target_gone`: the target was lost while its stream was being opened.
    TargetGone,
    /// `busy`: a limit of the relay on requests or tunnels is reached.
    Busy,
    /// `not_allowed`: the access rules forbid it.
    NotAllowed,
    /// `draining`: the relay takes nothing new.
    Draining,
    /// `bad_request`: the target is empty or longer than a name may be.
    BadRequest,
}

impl Refusal {
    /// Every one of them.
    pub const ALL: [Self; 8] = [
        Self::TargetNotConnected,
        Self::NotIdentified,
        Self::StreamLimit,
        Self::TargetGone,
        Self::Busy,
        Self::NotAllowed,
        Self::Draining,
        Self::BadRequest,
    ];
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TargetNotConnected => Self::TargetNotConnected,
            Refusal::NotIdentified => Self::NotIdentified,
            Refusal::StreamLimit => Self::StreamLimit,
            Refusal::TargetGone => Self::TargetGone,
            Refusal::Busy => Self::Busy,
            Refusal::NotAllowed => Self::NotAllowed,
            Refusal::Draining => Self::Draining,
            Refusal::BadRequest => Self::BadRequest,
        }
    }
}

/// The text that travels.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Reason::from(*self).fmt(f)
    }
}

/// How a splice ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpliceEnd {
    /// Both directions ended with FIN.
    Finished,
    /// At least one direction was reset or stopped, first with this code.
    Reset(Code),
}

/// Why a tunnel is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TunnelCloseReason {
    /// Both directions ended with FIN.
    Finished,
    /// A node reset or stopped its stream with this code.
    Reset(Code),
    /// The node that asked for the tunnel closed it by a control message.
    ClosedBySource,
    /// The node it led to closed it by a control message.
    ClosedByTarget,
    /// A node's connection is gone or was closed.
    PeerGone,
}

/// Payload bytes that a tunnel carried, the ids not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelBytes {
    /// From the requester to the target.
    pub to_target: u64,
    /// From the target to the requester.
    pub to_requester: u64,
}

/// Bytes per second that the two nodes of a tunnel may pass through the relay, each over all of its tunnels and both
/// directions together. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Of the node that asked for the tunnel.
    pub requester: Option<u64>,
    /// Of the node that it leads to.
    pub target: Option<u64>,
}

/// A snapshot of a relay, everything in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayStatus {
    /// Whether it drains.
    pub draining: bool,
    /// Names, sorted.
    pub names: Vec<NameStatus>,
    /// Connections, by key.
    pub connections: Vec<ConnectionStatus>,
    /// Open tunnels, oldest first.
    pub tunnels: Vec<TunnelStatus>,
}

/// A name that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameStatus {
    /// The name.
    pub name: Name,
    /// The connection that holds it.
    pub conn: ConnKey,
    /// Tunnels from and to this name, those still being opened included. A tunnel of a name to itself counts once.
    pub tunnels: usize,
}

/// A connection that is not being closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// The connection.
    pub conn: ConnKey,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The names it holds, sorted.
    pub names: Vec<Name>,
    /// The encoding it speaks, once it has said something.
    pub encoding: Option<Encoding>,
    /// Tunnels it takes part in.
    pub tunnels: usize,
    /// Its own tunnel requests that wait for streams.
    pub pending: usize,
}

/// An open tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelStatus {
    /// The tunnel.
    pub tunnel: TunnelKey,
    /// Its id on the wire.
    pub id: TunnelId,
    /// The node that asked for it.
    pub source: Name,
    /// The node it leads to.
    pub target: Name,
    /// Their connections.
    pub conns: (ConnKey, ConnKey),
}

/// Counters of a relay since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RelayStats {
    /// Connections that completed their handshake.
    pub connections: u64,
    /// Identify messages that were answered.
    pub identified: u64,
    /// Identify messages that were refused.
    pub identify_refused: u64,
    /// Connections closed because they did not identify in time.
    pub identify_timeouts: u64,
    /// Connections displaced by a newer one.
    pub displaced: u64,
    /// Tunnel requests that arrived.
    pub requests: u64,
    /// Tunnels opened.
    pub tunnels_opened: u64,
    /// Tunnels that are over.
    pub tunnels_closed: u64,
    /// Requests refused, by reason, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Requests above the rate limit (they are also among those refused as `busy`).
    pub rate_limited: u64,
    /// Control messages that could not be read.
    pub malformed: u64,
    /// Control messages that only a relay may send.
    pub unexpected: u64,
    /// Closes of a tunnel that is not there, or not the sender's (usual when both ends close at the same time).
    pub stray_closes: u64,
    /// Streams that clients opened and should not have.
    pub extra_streams: u64,
    /// Connections closed by this machine for any reason.
    pub closed: u64,
    /// Events about a connection, ticket or tunnel that is not known (any more).
    pub stale_events: u64,
}
