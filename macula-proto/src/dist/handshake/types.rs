//! What a handshake is told, and what it asks for.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::{
    Code,
    wire::{
        dist::{
            Flags,
            handshake::{Carrier, Cookie, HandshakeDecodeError},
        },
        etf::Atom,
    },
};

/// Who this node is, and what it expects.
#[derive(Debug, Clone)]
pub struct HandshakeConfig {
    /// Its name: `name@host`. With [`Flags::NAME_ME`] among the [flags](Self::flags) its host alone: it has no name yet, and asks
    /// the node that it dials for one.
    pub name: Atom,
    /// Which run of the node this is: another number at each start. Not 0, which means that a node does not tell. A node that asks
    /// for a name gets its number with it.
    pub creation: u32,
    /// The cookie.
    pub cookie: Cookie,
    /// What it can do. Default [`Flags::DEFAULT`].
    pub flags: Flags,
    /// What a peer has to be able to do. Default [`Flags::MANDATORY_25`].
    pub required: Flags,
    /// Whether a node that calls without a name is given one. Default true, as on OTP nodes.
    pub give_names: bool,
    /// What carries the handshake. Default [`Carrier::Quic`].
    pub carrier: Carrier,
    /// How long the handshake may take. Default 7 s, as on OTP nodes.
    pub timeout: Duration,
}

impl HandshakeConfig {
    /// With the defaults for everything else.
    pub fn new(name: Atom, creation: u32, cookie: Cookie) -> Self {
        Self {
            name,
            creation,
            cookie,
            flags: Flags::DEFAULT,
            required: Flags::MANDATORY_25,
            give_names: true,
            carrier: Carrier::Quic,
            timeout: Duration::from_secs(7),
        }
    }

    /// Of a node without a name, on this host, that asks the first node it dials for one (as an Erlang node started with
    /// `-sname undefined`). It can let nobody in before.
    pub fn nameless(host: Atom, cookie: Cookie) -> Self {
        Self {
            flags: Flags::DEFAULT | Flags::NAME_ME,
            ..Self::new(host, 0, cookie)
        }
    }

    /// Whether the node has no name yet, and asks for one.
    pub fn is_nameless(&self) -> bool {
        self.flags.contains(Flags::NAME_ME)
    }

    /// Takes over the name that a node gave, for later connections.
    pub fn adopt(&mut self, name: Atom, creation: u32) {
        self.name = name;
        self.creation = creation;
        self.flags = self.flags.without(Flags::NAME_ME);
    }
}

/// Which side of the connection this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection, to reach this node.
    Dialler {
        /// The name of the node.
        peer: Atom,
    },
    /// It was called.
    Acceptor,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The connection is there; the time of the handshake begins.
    Start,
    /// Bytes from the peer, in order. Handed in before [`Event::Start`] they are kept for it.
    Received(Bytes),
    /// Acceptor only: the answer to [`Action::AskStanding`].
    Standing(Standing),
    /// Dialler only: the answer to [`Action::AskWanted`].
    Wanted(bool),
    /// This side takes the connection back, as another one with the same node takes its place.
    Abort,
    /// The connection is gone, or the peer's side of it is finished.
    Lost,
    /// The time of [`poll_timeout`](super::Handshake::poll_timeout) has come.
    Timeout,
}

/// How things stand with a node that calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// There is nothing.
    New,
    /// This node is dialling it.
    Dialling,
    /// There is a connection with it.
    Connected,
    /// There is a connection with it, and another one is about to take its place.
    Replacing,
    /// It is not to be let in.
    Forbidden,
}

/// What a node that calls is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It may go on.
    Ok,
    /// It may go on, and the dial in the other direction is taken back.
    OkSimultaneous,
    /// It may not: the dial in the other direction goes on, or another of its own connections.
    Nok,
    /// It may not.
    NotAllowed,
    /// It is asked whether the connection that there is is dead.
    Alive,
}

impl Decision {
    /// What `own` tells `peer`.
    pub fn of(own: &Atom, peer: &Atom, standing: Standing) -> Self {
        match standing {
            Standing::New => Self::Ok,
            Standing::Dialling if own > peer => Self::Nok,
            Standing::Dialling => Self::OkSimultaneous,
            Standing::Connected => Self::Alive,
            Standing::Replacing => Self::Nok,
            Standing::Forbidden => Self::NotAllowed,
        }
    }
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this: one handshake message, as the carrier takes it. On a QUIC stream to a node that is not of this
    /// implementation it has to leave in a packet of its own, and not at once behind another one.
    Send(Bytes),
    /// Acceptor only: answer with [`Event::Standing`].
    AskStanding {
        /// Who calls, and has not proved anything yet. A node without a name goes by the one that it is about to be given.
        peer: Atom,
    },
    /// Acceptor only: take back the dial to the peer. (It was told `ok_simultaneous`.)
    AbortDial,
    /// Dialler only: the peer has a connection with this node. Answer with [`Event::Wanted`] whether that one is
    /// dead and this one still wanted.
    AskWanted,
    /// The handshake is complete. Nothing follows.
    Up(Box<Established>),
    /// The handshake failed: close the connection once everything was sent. Nothing follows.
    Failed(Failure),
}

/// A connection between two nodes that know the same cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Established {
    /// This node: the name it had, or the one that the other node gave it.
    pub own: Atom,
    /// Which run of this node it is; given with the name if that was given.
    pub own_creation: u32,
    /// The other node: the name it had, or the one that this node gave it.
    pub peer: Atom,
    /// Which run of that node it is.
    pub peer_creation: u32,
    /// What it can do.
    pub peer_flags: Flags,
    /// What both can do: this decides over the [form](crate::wire::dist::Form) of messages.
    pub common: Flags,
    /// Bytes that came behind the handshake.
    pub rest: Bytes,
}

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// The peer sent what is no handshake message.
    #[error(transparent)]
    Decode(#[from] HandshakeDecodeError),
    /// The peer sent a handshake message that has no place here.
    #[error("a handshake message out of order: {0}")]
    Unexpected(&'static str),
    /// The peer sent too much while it had to wait.
    #[error("too many bytes before the handshake was complete")]
    Flood,
    /// The peer cannot do what it has to.
    #[error("the peer lacks {missing}")]
    Flags {
        /// What it lacks.
        missing: Flags,
    },
    /// A name that is none for a node, or this node's own; the host of a node that asked for a name in vain.
    #[error("the peer calls itself {0}")]
    Name(Atom),
    /// Dialler: it asked for a name, and was given one that is none for a node on its host.
    #[error("the peer gave the name {0}")]
    GivenName(Atom),
    /// Dialler: another node than the one dialled.
    #[error("the peer is {found}, not {expected}")]
    OtherNode {
        /// The node that was dialled.
        expected: Atom,
        /// The one that answered.
        found: Atom,
    },
    /// Dialler: the peer's own dial takes the place of this connection.
    #[error("the peer's own dial stays")]
    Nok,
    /// Dialler: the peer does not let this node in.
    #[error("the peer does not allow it")]
    NotAllowed,
    /// Acceptor: the peer was told that it may not go on.
    #[error("turned away: {0:?}")]
    TurnedAway(Decision),
    /// The connection that there was is alive.
    #[error("the earlier connection is alive")]
    Alive,
    /// The peer's proof is wrong: it has another cookie.
    #[error("the peer has another cookie")]
    Cookie,
    /// It took too long.
    #[error("the handshake timed out")]
    TimedOut,
    /// This side took it back.
    #[error("taken back")]
    Aborted,
    /// The connection was lost.
    #[error("the connection was lost")]
    Lost,
}

impl Failure {
    /// What to close the connection with.
    pub fn code(&self) -> Code {
        match self {
            Self::Decode(_) | Self::Unexpected(_) | Self::GivenName(_) => Code::PROTOCOL,
            Self::Flood => Code::LIMIT,
            Self::Flags { .. } | Self::Name(_) | Self::OtherNode { .. } | Self::Cookie | Self::NotAllowed => {
                Code::NOT_ALLOWED
            }
            Self::TurnedAway(_) | Self::Nok | Self::Alive => Code::REFUSED,
            Self::TimedOut => Code::TIMEOUT,
            Self::Aborted => Code::DISPLACED,
            Self::Lost => Code::CLOSED,
        }
    }
}
