//! What a node is told, what it asks for, and what its processes get.

use bytes::Bytes;
use thiserror::Error;

use crate::wire::{
    DecodeLimits, EncodeError,
    dist::{DEFAULT_MAX_MESSAGE, Flags, FragmentLimits, MESSAGE_LIMITS, MessageError},
    etf::{Atom, Pid, Reference, Term},
};

/// Who a node is.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name: `name@host`.
    pub name: Atom,
    /// Which run of the node this is: another number at each start, the one that its handshakes tell. Not 0.
    pub creation: u32,
    /// What it may cost.
    pub limits: NodeLimits,
}

impl NodeConfig {
    /// With the default limits.
    pub fn new(name: Atom, creation: u32) -> Self {
        Self {
            name,
            creation,
            limits: NodeLimits::default(),
        }
    }
}

/// Caps of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeLimits {
    /// Processes at once. Default 65,536.
    pub processes: usize,
    /// Bytes of memory that signals in one mailbox take up before those who send to it have to wait. It is exceeded by one
    /// message for each connection at the most, and by exits and downs. Default 16 MiB.
    pub mailbox: usize,
    /// Bytes that wait to be sent on one connection before processes have to wait. Default 4 MiB. One message may go beyond it.
    pub outgoing: usize,
    /// Links across one connection. The peer's further ones end at once with `system_limit`. Default 65,536.
    pub links: usize,
    /// Monitors set by the other side of one connection, and monitors set by one process. The peer's further ones end at
    /// once with `system_limit`. Default 65,536.
    pub monitors: usize,
    /// Aliases of one process. Default 65,536.
    pub aliases: usize,
    /// Longest message sent, and longest one put together of fragments, in bytes. Default 64 MiB.
    pub max_message: u32,
    /// Caps of messages that come in fragments, for each connection.
    pub fragments: FragmentLimits,
    /// Caps of the terms in a message. Default [`MESSAGE_LIMITS`].
    pub terms: DecodeLimits,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            processes: 1 << 16,
            mailbox: 16 << 20,
            outgoing: 4 << 20,
            links: 1 << 16,
            monitors: 1 << 16,
            aliases: 1 << 16,
            max_message: DEFAULT_MAX_MESSAGE,
            fragments: FragmentLimits::default(),
            terms: MESSAGE_LIMITS,
        }
    }
}

/// Something that happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<K> {
    /// The handshake is complete. An earlier connection with the same node is down with that.
    Up {
        /// Which connection.
        connection: K,
        /// The node at the other end.
        peer: Atom,
        /// What both can do.
        common: Flags,
    },
    /// A message came out of the framing, its length taken off. Ticks are not handed in.
    Received {
        /// On which connection.
        connection: K,
        /// The message.
        message: Bytes,
    },
    /// The connection is gone.
    Down {
        /// Which connection.
        connection: K,
    },
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<K> {
    /// There is something to send: pull it with [`Node::poll_message`](super::Node::poll_message).
    Writable(K),
    /// The connection [can be read](super::Node::can_receive) again.
    Readable(K),
    /// There is room for what was refused with [`CommandError::Busy`], for this node or another.
    Room,
    /// The mailbox of this process was empty, and is not any more: take with [`Node::receive`](super::Node::receive).
    Signal(Pid),
    /// The process was killed from outside. It is gone, and so are the signals in its mailbox.
    Ended(Pid),
    /// The peer broke the rules, and the connection is down for this node: close it.
    Close {
        /// Which connection.
        connection: K,
        /// What the peer did.
        error: MessageError,
    },
}

/// What a process gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A message.
    Message {
        /// From whom, if the message tells.
        from: Option<Pid>,
        /// What.
        term: Term,
    },
    /// A linked process has ended, or another one called `exit(Pid, Reason)`.
    Exit {
        /// Which one.
        from: Pid,
        /// Why: `noproc` if it was not there, `noconnection` if the connection with its node is lost.
        reason: Term,
        /// Whether it was linked. The link is gone.
        linked: bool,
    },
    /// A monitored process has ended.
    Down {
        /// Which monitor. It is gone.
        reference: Reference,
        /// Who was monitored.
        target: Target,
        /// Why: `noproc` if it was not there, `noconnection` if the connection with its node is lost.
        reason: Term,
    },
}

/// A process of any node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// By pid.
    Pid(Pid),
    /// By the name it is registered under on its node.
    Name {
        /// The name.
        name: Atom,
        /// The node.
        node: Atom,
    },
    /// By an alias.
    Alias(Reference),
}

impl Target {
    /// The node it is on.
    pub fn node(&self) -> &Atom {
        match self {
            Self::Pid(pid) => &pid.node,
            Self::Name { node, .. } => node,
            Self::Alias(reference) => &reference.node,
        }
    }
}

impl From<Pid> for Target {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<&Pid> for Target {
    fn from(pid: &Pid) -> Self {
        Self::Pid(pid.clone())
    }
}

impl From<(Atom, Atom)> for Target {
    /// A registered name, and the node.
    fn from((name, node): (Atom, Atom)) -> Self {
        Self::Name { name, node }
    }
}

impl From<Reference> for Target {
    fn from(alias: Reference) -> Self {
        Self::Alias(alias)
    }
}

/// Why a process cannot do something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The process itself is not there any more.
    #[error("the process has ended")]
    Ended,
    /// There is no connection with the node.
    #[error("no connection with {0}")]
    NotConnected(Atom),
    /// Too much waits already. [`Action::Room`] tells when to try again.
    #[error("too much waits to be taken")]
    Busy,
    /// The process sends to itself, and its mailbox is full.
    #[error("the process's own mailbox is full")]
    OwnMailbox,
    /// The message is too long.
    #[error("a message of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its bytes.
        length: usize,
        /// The limit.
        limit: u32,
    },
    /// The term cannot be written.
    #[error(transparent)]
    Term(#[from] EncodeError),
    /// The other node has no aliases, or an alias cannot be monitored.
    #[error("not possible with an alias")]
    Alias,
    /// A limit of [`NodeLimits`] is reached.
    #[error("no more than {limit} {what}")]
    Limit {
        /// Of what there are too many.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

/// Why a name cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The process is not there any more.
    #[error("the process has ended")]
    Ended,
    /// A process has that name.
    #[error("{0} is registered already")]
    Taken(Atom),
    /// The process has another name.
    #[error("the process is registered as {0}")]
    Named(Atom),
    /// `undefined` is no name.
    #[error("{0} cannot be a name")]
    Reserved(Atom),
}

/// What a node has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NodeStats {
    /// Messages that came over connections, complete, of all kinds.
    pub received: u64,
    /// Messages put out for connections, of all kinds.
    pub sent: u64,
    /// Signals put into mailboxes.
    pub delivered: u64,
    /// Messages for processes, names and aliases that are not there.
    pub dropped: u64,
    /// Messages of peers about links and monitors that there are none of, or that are not theirs.
    pub stray: u64,
    /// Messages of kinds that mean nothing here.
    pub ignored: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// Calls of `net_adm:ping` answered.
    pub pings: u64,
    /// Links and monitors of peers refused because of a limit.
    pub refused: u64,
    /// Requests of peers to spawn a process, all refused.
    pub spawns_refused: u64,
}
