//! What a link is set up with.

use std::time::Duration;

use bytes::Bytes;

use crate::wire::Encoding;

/// Settings of one end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcConfig {
    /// The node's id, told to the peer. It proves nothing in this generation of the protocol.
    pub node_id: [u8; 32],
    /// The node's name, told to the peer.
    pub node_name: Bytes,
    /// The realm that the node belongs to, told to the peer. On a signed link, 32 bytes are used as they are and anything else
    /// as 32 zeros.
    pub realm: Bytes,
    /// Where the node listens, told to the peer.
    pub endpoint: Bytes,
    /// The relay that is dialled, told to the peer.
    pub target_relay: Bytes,
    /// How a dialler writes its messages. An acceptor answers in the peer's encoding.
    pub encoding: EncodingChoice,
    /// Whether each call gets a QUIC stream of its own where the peer can do that too. Default true. Deployed peers cannot; with
    /// them all calls share one stream, and one that is not read can hold up the others for up to [`RpcLimits::stall`].
    pub stream_per_call: bool,
    /// How long a dialler waits for the first answer. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a unary call waits for its reply if it does not say. Default 30 s.
    pub call_timeout: Duration,
    /// How often a ping is sent when nothing has come meanwhile; without any answer for three of these the link is closed. Default
    /// `None`: QUIC finds out by itself, with its own idle time-out.
    pub ping_interval: Option<Duration>,
    /// Caps.
    pub limits: RpcLimits,
}

impl RpcConfig {
    /// The default settings for a node.
    pub fn new(node_id: [u8; 32]) -> Self {
        Self {
            node_id,
            node_name: Bytes::new(),
            realm: Bytes::new(),
            endpoint: Bytes::new(),
            target_relay: Bytes::new(),
            encoding: EncodingChoice::default(),
            stream_per_call: true,
            handshake_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            ping_interval: None,
            limits: RpcLimits::default(),
        }
    }
}

/// How a dialler writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodingChoice {
    /// In MessagePack first; when nothing comes back within a second, in CBOR too; then in the one that is answered.
    #[default]
    Auto,
    /// In this one.
    Only(Encoding),
}

/// Caps of one link. Together they bound its memory: [`waiting`](Self::waiting) and [`outbox`](Self::outbox) bytes, and for each
/// call at most one chunk and one incomplete message, and 16 KiB of each QUIC stream that were read and not looked at, beside QUIC's
/// own windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcLimits {
    /// Largest payload of a message, in bytes. Default 16 MiB. A longer one closes the link.
    pub message: u32,
    /// Calls that are not over, both directions together. Default 16,384. An incoming one above is answered with the error `limit`.
    pub calls: usize,
    /// Bytes of chunks of one call that may wait to be fetched. Default 256 KiB. Then the peer is slowed down.
    pub inbox: usize,
    /// Bytes of chunks of all calls that may wait to be fetched. Default 16 MiB. Above it a call gets its next chunk when it has
    /// fetched the one before.
    pub waiting: usize,
    /// Bytes that may wait to be sent, for each QUIC stream. Default 256 KiB. Above it chunks are not taken.
    pub outbox: usize,
    /// How long a call may hold up others that share its stream by not fetching. Default 10 s. Then it is aborted with the code
    /// `limit`.
    pub stall: Duration,
    /// Messages with a fault that are passed over before the link is closed. Default 64.
    pub malformed: u32,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            message: 16 << 20,
            calls: 16_384,
            inbox: 256 << 10,
            waiting: 16 << 20,
            outbox: 256 << 10,
            stall: Duration::from_secs(10),
            malformed: 64,
        }
    }
}
