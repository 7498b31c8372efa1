//! What the messages hold.

use super::Kind;
use crate::wire::Value;
use bytes::Bytes;
use std::fmt;

/// Names a streaming call: 16 bytes, drawn at random by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; Self::LENGTH]);

impl StreamId {
    /// Length in bytes.
    pub const LENGTH: usize = 16;

    /// The bytes as they go over the wire.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// Hexadecimal digits, lower case.
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl From<[u8; Self::LENGTH]> for StreamId {
    fn from(id: [u8; Self::LENGTH]) -> Self {
        Self(id)
    }
}

/// Who sends chunks in a streaming call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The one who serves it.
    ServerStream,
    /// The caller.
    ClientStream,
    /// Both.
    Bidi,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::ServerStream, Self::ClientStream, Self::Bidi];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerStream => "server_stream",
            Self::ClientStream => "client_stream",
            Self::Bidi => "bidi",
        }
    }

    /// The mode of this name. `None` if there is none; in a message that counts as [`Mode::Bidi`], as deployed peers have
    /// it.
    pub fn from_wire(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str().as_bytes() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the end of a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndRole {
    /// The sender's direction.
    Send,
    /// Both directions.
    Both,
}

impl EndRole {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Both => "both",
        }
    }

    /// The role of this name. `None` if there is none; in a message that counts as [`EndRole::Both`], as deployed peers
    /// have it.
    pub fn from_wire(name: &[u8]) -> Option<Self> {
        [Self::Send, Self::Both]
            .into_iter()
            .find(|role| role.as_str().as_bytes() == name)
    }
}

impl fmt::Display for EndRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One chunk of a streaming call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes (`encoding: raw`, which unknown encodings count as too).
    Raw(Bytes),
    /// A value (`encoding: msgpack`; the name is historical: the value is written in the encoding of the message).
    Term(Value),
}

impl Chunk {
    /// The name of the chunk's encoding on the wire.
    pub const fn encoding(&self) -> &'static str {
        match self {
            Self::Raw(_) => RAW,
            Self::Term(_) => TERM,
        }
    }
}

pub(super) const RAW: &str = "raw";
pub(super) const TERM: &str = "msgpack";

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its result.
    Ok(Value),
    /// Why it has none.
    Err(Fault),
}

/// What went wrong with a call. Peers send either part as text or as a byte string, which mean the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What went wrong, in one word (`not_found`, `handler_error`); UTF-8 as a rule.
    pub code: Bytes,
    /// More about it; UTF-8 as a rule.
    pub message: Option<Bytes>,
}

impl Fault {
    /// A fault with a message.
    pub fn new(code: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        Self {
            code: Bytes::copy_from_slice(code.as_ref().as_bytes()),
            message: Some(Bytes::copy_from_slice(message.as_ref().as_bytes())),
        }
    }

    /// A fault that is only a code.
    pub fn from_code(code: impl AsRef<str>) -> Self {
        Self {
            code: Bytes::copy_from_slice(code.as_ref().as_bytes()),
            message: None,
        }
    }

    /// The code, if it is UTF-8.
    pub fn code_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.code).ok()
    }

    /// The message, if there is one and it is UTF-8.
    pub fn message_str(&self) -> Option<&str> {
        std::str::from_utf8(self.message.as_ref()?).ok()
    }
}

/// `code` or `code: message`; what is not printable ASCII as `\x..`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code.escape_ascii())?;
        match &self.message {
            Some(message) => write!(f, ": {}", message.escape_ascii()),
            None => Ok(()),
        }
    }
}

/// Who dials, in the first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connect {
    /// The node's id; 32 bytes in messages of honest peers.
    pub node_id: Bytes,
    /// The version of the protocol: `1.0`.
    pub version: Option<Bytes>,
    /// The node's name.
    pub node_name: Option<Bytes>,
    /// The realm that the node belongs to.
    pub realm_id: Option<Bytes>,
    /// What the node can do, in words.
    pub capabilities: Vec<Bytes>,
    /// Where the node listens.
    pub endpoint: Option<Bytes>,
    /// What the node is: `node`. (The field `type` of the wire.)
    pub node_type: Option<Bytes>,
    /// The relay that the node dials.
    pub target_relay: Option<Bytes>,
    /// More about the node (deployed peers: a city and its coordinates).
    pub identity: Option<Value>,
    /// Where the node is.
    pub site: Option<Value>,
    /// The relay that the node was connected to before.
    pub previous_relay: Option<Bytes>,
}

impl Connect {
    /// The version that every peer of this generation states.
    pub const VERSION: &'static str = "1.0";

    /// The least that deployed peers say: an id, the version, the type `node`.
    pub fn new(node_id: Bytes) -> Self {
        Self {
            node_id,
            version: Some(Bytes::from_static(Self::VERSION.as_bytes())),
            node_type: Some(Bytes::from_static(b"node")),
            ..Self::default()
        }
    }

    /// Whether the node says that it can do this.
    pub fn has_capability(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability.as_bytes())
    }
}

/// An event for the subscribers of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The topic.
    pub topic: Bytes,
    /// What happened.
    pub payload: Value,
    /// 0, or 1 for delivery at least once.
    pub qos: Option<u64>,
    /// Whether later subscribers get it too.
    pub retain: Option<bool>,
    /// Names the event.
    pub message_id: Option<Bytes>,
    /// Where it came through (`_trace` on the wire).
    pub trace: Option<Value>,
}

/// A call with one reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Names the call among those of its caller; any bytes (deployed peers: 16 base64 characters).
    pub call_id: Bytes,
    /// What is called.
    pub procedure: Bytes,
    /// The arguments; null if the message has none. See [`unpack_args`](super::unpack_args).
    pub args: Value,
    /// The node that shall serve it.
    pub target: Option<Bytes>,
    /// How long the caller waits, in milliseconds.
    pub timeout: Option<u64>,
    /// Where it came through (`_trace` on the wire). The reply returns it.
    pub trace: Option<Value>,
}

/// The reply to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The call.
    pub call_id: Bytes,
    /// What it came to.
    pub outcome: Outcome,
    /// The call's trace (`_trace` on the wire).
    pub trace: Option<Value>,
}

/// The first message of a streaming call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOpen {
    /// Names the call.
    pub stream: StreamId,
    /// What is called.
    pub procedure: Bytes,
    /// Who sends. (A mode that is unknown or absent reads as [`Mode::Bidi`].)
    pub mode: Mode,
    /// The arguments; null if the message has none. See [`unpack_args`](super::unpack_args).
    pub args: Value,
}

/// A chunk of a streaming call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamData {
    /// Names the call.
    pub stream: StreamId,
    /// Chunks before this one in the same direction.
    pub seq: u64,
    /// The chunk.
    pub chunk: Chunk,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Who is at the other end.
    Connect(Box<Connect>),
    /// The sender is leaving.
    Disconnect {
        /// Why, in one word.
        reason: Option<Bytes>,
        /// Why, in more words.
        message: Option<Bytes>,
    },
    /// Is the other end there?
    Ping {
        /// The sender's time, as a rule milliseconds since the Unix epoch.
        timestamp: u64,
    },
    /// It is.
    Pong {
        /// That of the ping.
        timestamp: u64,
        /// The time of the end that answers, in its own milliseconds.
        server_time: Option<u64>,
    },
    /// An event for the subscribers of a topic.
    Publish(Publish),
    /// Events of topics are wanted.
    Subscribe {
        /// The topics, or patterns of them.
        topics: Vec<Bytes>,
        /// 0, or 1 for delivery at least once.
        qos: Option<u64>,
    },
    /// They are no longer.
    Unsubscribe {
        /// As in the subscription.
        topics: Vec<Bytes>,
    },
    /// A call with one reply.
    Call(Call),
    /// The reply.
    Reply(Reply),
    /// A call without one.
    Cast {
        /// What is called.
        procedure: Bytes,
        /// The arguments; null if the message has none. See [`unpack_args`](super::unpack_args).
        args: Value,
    },
    /// The sender serves a procedure.
    RegisterProcedure {
        /// Its name.
        procedure: Bytes,
    },
    /// A streaming call begins.
    StreamOpen(StreamOpen),
    /// A chunk of one.
    StreamData(StreamData),
    /// Its sender sends no more.
    StreamEnd {
        /// Names the call.
        stream: StreamId,
        /// What ends. (A role that is unknown or absent reads as [`EndRole::Both`].)
        role: EndRole,
    },
    /// It failed, and is over in both directions.
    StreamError {
        /// Names the call.
        stream: StreamId,
        /// Why.
        fault: Fault,
    },
    /// What it came to.
    StreamReply {
        /// Names the call.
        stream: StreamId,
        /// What it came to.
        outcome: Outcome,
    },
}

impl Message {
    /// Its type.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) => Kind::Connect,
            Self::Disconnect { .. } => Kind::Disconnect,
            Self::Ping { .. } => Kind::Ping,
            Self::Pong { .. } => Kind::Pong,
            Self::Publish(_) => Kind::Publish,
            Self::Subscribe { .. } => Kind::Subscribe,
            Self::Unsubscribe { .. } => Kind::Unsubscribe,
            Self::Call(_) => Kind::Call,
            Self::Reply(_) => Kind::Reply,
            Self::Cast { .. } => Kind::Cast,
            Self::RegisterProcedure { .. } => Kind::RegisterProcedure,
            Self::StreamOpen(_) => Kind::StreamOpen,
            Self::StreamData(_) => Kind::StreamData,
            Self::StreamEnd { .. } => Kind::StreamEnd,
            Self::StreamError { .. } => Kind::StreamError,
            Self::StreamReply { .. } => Kind::StreamReply,
        }
    }

    /// The streaming call that the message belongs to.
    pub const fn stream(&self) -> Option<StreamId> {
        match self {
            Self::StreamOpen(StreamOpen { stream, .. })
            | Self::StreamData(StreamData { stream, .. })
            | Self::StreamEnd { stream, .. }
            | Self::StreamError { stream, .. }
            | Self::StreamReply { stream, .. } => Some(*stream),
            _ => None,
        }
    }

    /// Turns all text inside the message's values into byte strings.
    ///
    /// Deployed MessagePack peers, whose strings are all `bin`, read text as a list of numbers. To them, text is what a router
    /// gets where a CBOR peer sent an atom. Between other peers it is better left as it is.
    pub fn text_to_bytes(&mut self) {
        match self {
            Self::Connect(connect) => {
                let Connect { identity, site, .. } = &mut **connect;
                [identity, site].into_iter().flatten().for_each(text_to_bytes);
            }
            Self::Publish(Publish { payload, trace, .. }) => {
                text_to_bytes(payload);
                trace.iter_mut().for_each(text_to_bytes);
            }
            Self::Call(Call { args, trace, .. }) => {
                text_to_bytes(args);
                trace.iter_mut().for_each(text_to_bytes);
            }
            Self::Reply(Reply { outcome, trace, .. }) => {
                outcome.text_to_bytes();
                trace.iter_mut().for_each(text_to_bytes);
            }
            Self::StreamReply { outcome, .. } => outcome.text_to_bytes(),
            Self::Cast { args, .. } | Self::StreamOpen(StreamOpen { args, .. }) => text_to_bytes(args),
            Self::StreamData(StreamData { chunk, .. }) => {
                if let Chunk::Term(term) = chunk {
                    text_to_bytes(term);
                }
            }
            Self::Disconnect { .. } | Self::Ping { .. } | Self::Pong { .. } => {}
            Self::Subscribe { .. } | Self::Unsubscribe { .. } | Self::RegisterProcedure { .. } => {}
            Self::StreamEnd { .. } | Self::StreamError { .. } => {}
        }
    }
}

impl Outcome {
    fn text_to_bytes(&mut self) {
        if let Self::Ok(result) = self {
            text_to_bytes(result);
        }
    }
}

/// As deep as the value is nested, which decoders keep within a limit.
fn text_to_bytes(value: &mut Value) {
    match value {
        Value::Text(text) => *value = Value::Bytes(std::mem::take(text)),
        Value::Array(elements) => elements.iter_mut().for_each(text_to_bytes),
        Value::Map(entries) => {
            for (key, value) in entries {
                text_to_bytes(key);
                text_to_bytes(value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Uint(_) | Value::Int(_) | Value::Float(_) | Value::Bytes(_) => {}
    }
}
