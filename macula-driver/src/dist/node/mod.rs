//! Erlang nodes: a program as a member of a cluster, on any runtime.
//!
//! A [`Node`] has a name and a cookie. It is connected with others over streams of bytes, such as the TCP connections that Erlang nodes
//! make by themselves, or over QUIC; messages, links and monitors are the same over both. Its processes are [mailboxes](Mailbox).
//! An adapter adds what needs its [`Runtime`](crate::Runtime): listeners and sockets.
//!
//! The node says in the handshake that it is hidden, as C nodes do, so that Erlang's `global` leaves it alone: it is listed by
//! `nodes(hidden)`.

mod bytes;
pub mod epmd;
mod exchange;
mod handle;
mod mailbox;
mod quic;
mod shared;
mod sync;

use std::{fmt, io, time::Duration};

use macula_proto::{
    Code,
    dist::handshake::Failure,
    wire::{
        dist::{Flags, handshake::Cookie},
        etf::AtomTooLong,
    },
};

pub use self::{
    bytes::{ByteReader, ByteWriter},
    handle::{Admission, Events, Node},
    mailbox::Mailbox,
    quic::{QuicConfig, QuicLink},
};
pub use macula_proto::{
    dist::node::{Call, CommandError, NodeLimits, NodeStats, RegisterError, Signal, Target},
    wire::etf::{Atom, Pid, Reference, Term},
};

/// Who a node is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Its name: `name@host`.
    pub name: String,
    /// What all nodes of a cluster know, and nobody else. Who can read the connections can try cookies.
    pub cookie: Cookie,
    /// What it says it can do. Default: all that this implementation can, as a hidden node, but for the atom cache and fragments
    /// ([`Flags::DIST_HDR_ATOM_CACHE`], [`Flags::FRAGMENTS`]), which may be added.
    pub flags: Flags,
    /// A node is taken for dead when nothing has come for this long; a tick is sent every quarter of it. It has to be about the same on
    /// all nodes. Default 60 s, as on OTP nodes.
    pub net_ticktime: Duration,
    /// How long a connection and its handshake may take. Default 7 s, as on OTP nodes.
    pub setup_time: Duration,
    /// Connections at once, those in their handshake included; more are not accepted. Default 1,024.
    pub connections: usize,
    /// What processes and connections may cost.
    pub limits: NodeLimits,
}

impl NodeConfig {
    /// With the defaults for everything else.
    pub fn new(name: impl Into<String>, cookie: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.into(),
            cookie: Cookie::new(cookie),
            flags: Flags::DEFAULT,
            net_ticktime: Duration::from_secs(60),
            setup_time: Duration::from_secs(7),
            connections: 1024,
            limits: NodeLimits::default(),
        }
    }
}

/// The atom of a text.
///
/// # Errors
/// [`AtomTooLong`] above 255 characters.
pub fn atom(text: impl AsRef<str>) -> Result<Atom, AtomTooLong> {
    Atom::new(text)
}

/// A node came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// There is a connection with it.
    Up(Atom),
    /// There is none any more.
    Down(Atom, DownReason),
    /// So many events came while nobody took them, and are lost.
    Missed(u64),
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// Either side closed it.
    Closed,
    /// Nothing came for the net tick time.
    NetTickTimeout,
    /// Another connection with the same node took its place.
    Replaced,
    /// It failed.
    Lost(io::ErrorKind),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::NetTickTimeout => f.write_str("nothing came for the net tick time"),
            Self::Replaced => f.write_str("replaced by another connection"),
            Self::Lost(kind) => write!(f, "lost: {kind}"),
        }
    }
}

/// Why there is no connection with a node.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name is none for a node.
    Name,
    /// It cannot be reached.
    Io(io::Error),
    /// The handshake failed. Over TCP, another cookie shows as [`Failure::Lost`] on the side that dials, because the other one says
    /// nothing.
    Handshake(Failure),
    /// Over QUIC: the other node closed the connection during the handshake. [`Code::NOT_ALLOWED`] stands for another cookie.
    Refused(Code),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("not the name of a node"),
            Self::Io(error) => error.fmt(f),
            Self::Handshake(failure) => failure.fmt(f),
            Self::Refused(Code::NOT_ALLOWED) => f.write_str("refused by the node, as with another cookie"),
            Self::Refused(code) => write!(f, "refused by the node ({code})"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Name | Self::Refused(_) => None,
            Self::Io(error) => Some(error),
            Self::Handshake(failure) => Some(failure),
        }
    }
}

/// Why a call has no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The request could not be sent.
    Send(CommandError),
    /// The process has ended, was not there, or the connection is lost: the reason as Erlang gives it.
    Down(Term),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => error.fmt(f),
            Self::Down(reason) => write!(f, "the process is gone: {reason}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<CommandError> for CallError {
    fn from(error: CommandError) -> Self {
        Self::Send(error)
    }
}
