//! Every cap of the core in one place.

use std::time::Duration;

/// Caps that together bound what one connection and one endpoint can cost.
///
/// Each has a safe default; each refusal that a cap causes is counted in the statistics of the machine that applies it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest relay control message, in bytes of payload behind the length prefix. Default 4 KiB (honest messages stay
    /// below 400 bytes). A longer one closes the connection.
    pub control_message: usize,
    /// Bytes of control messages that may wait for the peer to take them, per connection. Default 64 KiB. More means that
    /// the peer does not read, and closes the connection.
    pub control_backlog: usize,
    /// Malformed control messages tolerated per connection before it is closed. Default 16.
    pub control_malformed: u32,
    /// Control messages that a client may send to a relay at once, above [`control_rate`](Self::control_rate). Tunnel
    /// requests above it are answered `busy`; other messages close the connection. Default 1,000.
    pub control_burst: u32,
    /// Control messages per second that a client may send to a relay in the long run; 0 for no limit. Default 500.
    pub control_rate: u32,
    /// Streams that a client may try to open at a relay besides its first, before it is closed. Default 64.
    pub extra_streams: u32,
    /// Longest node name, in bytes. Default 255.
    pub name: usize,
    /// Names that one connection may hold at a relay. Default 8.
    pub names_per_connection: usize,
    /// Time a client has to identify itself to a relay after its handshake. Default 10 s.
    pub identify_timeout: Duration,
    /// Tunnels that one connection may take part in at a relay. Default 4,096.
    pub tunnels_per_connection: usize,
    /// Tunnel requests that one connection may have waiting for free streams at a relay. Default 1,024.
    pub pending_requests: usize,
    /// Time a tunnel request may wait for a free stream at a relay. Default 5 s.
    pub stream_wait: Duration,
    /// Tunnel streams whose id is not known yet (or not complete yet) that a client holds. Default 1,024.
    pub orphan_streams: usize,
    /// Time such a stream is held. Default 15 s.
    pub orphan_timeout: Duration,
    /// Time a tunnel request may take at a client. Default 15 s.
    pub request_timeout: Duration,
    /// Largest block that a relay gathers from one direction of a tunnel before it writes it on. Default 64 KiB.
    pub splice_block: usize,
    /// Connections that may be in their handshake at once; more are refused. Default 1,024.
    pub handshaking: usize,
    /// Connections that may be established at once. Default 65,536.
    pub connections: usize,
    /// Incoming connections held for a decision when they are accepted on demand. Default 1,024.
    pub pending_incoming: usize,
    /// Bytes of queued fire-and-forget sends per stream. Default 1 MiB.
    pub send_queue: usize,
    /// Largest peering frame, in bytes of payload behind the length. Default and maximum 16 MiB - 1. A longer one ends the
    /// connection.
    pub peering_frame: u32,
    /// Largest peering frame before the handshake is complete, so that an unknown peer cannot make this side hold more.
    /// Default 256 KiB (honest ones stay below 2 KiB). A longer one ends the connection.
    pub peering_handshake_frame: u32,
    /// Frames that are passed over while a peering connection waits for CONNECT or HELLO. Default 64. One more ends the
    /// connection.
    pub peering_skipped: u32,
    /// Time a peering handshake may take, and before it the dial. Default 30 s each.
    pub peering_handshake_timeout: Duration,
    /// Time a peering connection that is being closed waits for the peer. Default 5 s.
    pub peering_drain: Duration,
    /// Accepted peering connections that may be in their peering handshake at once. Default 1,024. One more displaces the
    /// oldest of them.
    pub peering_handshaking: usize,
    /// Accepted peers that may be connected at once. Default 65,536. More are refused.
    pub peers: usize,
    /// Largest RPC message, in bytes of payload behind the header. Default 16 MiB. A longer one ends the stream of messages.
    pub rpc_message: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control_message: 4 << 10,
            control_backlog: 64 << 10,
            control_malformed: 16,
            control_burst: 1000,
            control_rate: 500,
            extra_streams: 64,
            name: 255,
            names_per_connection: 8,
            identify_timeout: Duration::from_secs(10),
            tunnels_per_connection: 4096,
            pending_requests: 1024,
            stream_wait: Duration::from_secs(5),
            orphan_streams: 1024,
            orphan_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(15),
            splice_block: 64 << 10,
            handshaking: 1024,
            connections: 65_536,
            pending_incoming: 1024,
            send_queue: 1 << 20,
            peering_frame: 0x00FF_FFFF,
            peering_handshake_frame: 256 << 10,
            peering_skipped: 64,
            peering_handshake_timeout: Duration::from_secs(30),
            peering_drain: Duration::from_secs(5),
            peering_handshaking: 1024,
            peers: 65_536,
            rpc_message: 16 << 20,
        }
    }
}
