//! Figures, all of them measured.

use std::{ops::AddAssign, time::Duration};

/// Counters of one endpoint since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// UDP datagrams handed in.
    pub datagrams_received: u64,
    /// Bytes of UDP payload handed in.
    pub bytes_received: u64,
    /// Of those datagrams: the ones that no connection took, that started none, and that were not answered.
    pub datagrams_ignored: u64,
    /// UDP datagrams handed out.
    pub datagrams_sent: u64,
    /// Bytes of UDP payload handed out.
    pub bytes_sent: u64,
    /// Connections whose handshake was completed, dialled.
    pub dialled: u64,
    /// Connections whose handshake was completed, accepted.
    pub accepted: u64,
    /// Connections that ended before their handshake was complete.
    pub handshakes_failed: u64,
    /// Established connections that ended.
    pub closed: u64,
    /// Incoming connections refused because too many were in their handshake.
    pub refused_handshaking: u64,
    /// Incoming connections refused because too many were established.
    pub refused_connections: u64,
    /// Incoming connections refused because too many waited for a decision, or waited too long.
    pub refused_undecided: u64,
    /// Incoming connections refused by the owner.
    pub refused_by_owner: u64,
    /// Retry packets sent to validate addresses.
    pub retries: u64,
    /// Replies outside of connections (version negotiation, stateless reset, refusal) dropped because the driver was not
    /// sending.
    pub replies_dropped: u64,
    /// UDP datagrams of another [shard](super::Shard), to be passed on. They are not among those handed in.
    pub strays: u64,
    /// Such datagrams that were dropped because the driver was not passing them on.
    pub strays_dropped: u64,
    /// Connections that exist now, those that are closing included.
    pub open: u64,
    /// Connections that are in their handshake now.
    pub handshaking: u64,
}

/// Those of several endpoints together.
impl AddAssign for EndpointStats {
    fn add_assign(&mut self, other: Self) {
        self.datagrams_received += other.datagrams_received;
        self.bytes_received += other.bytes_received;
        self.datagrams_ignored += other.datagrams_ignored;
        self.datagrams_sent += other.datagrams_sent;
        self.bytes_sent += other.bytes_sent;
        self.dialled += other.dialled;
        self.accepted += other.accepted;
        self.handshakes_failed += other.handshakes_failed;
        self.closed += other.closed;
        self.refused_handshaking += other.refused_handshaking;
        self.refused_connections += other.refused_connections;
        self.refused_undecided += other.refused_undecided;
        self.refused_by_owner += other.refused_by_owner;
        self.retries += other.retries;
        self.replies_dropped += other.replies_dropped;
        self.strays += other.strays;
        self.strays_dropped += other.strays_dropped;
        self.open += other.open;
        self.handshaking += other.handshaking;
    }
}

/// Figures of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Least round-trip time seen.
    pub min_rtt: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Times that the congestion controller cut back.
    pub congestion_events: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets lost.
    pub packets_lost: u64,
    /// Bytes lost.
    pub bytes_lost: u64,
    /// Times that large datagrams stopped getting through.
    pub black_holes: u64,
    /// Largest UDP payload that the path takes, as known now.
    pub datagram_size: u16,
    /// STREAM frames sent.
    pub stream_frames_sent: u64,
    /// STREAM frames received.
    pub stream_frames_received: u64,
    /// Streams opened by this side.
    pub streams_opened: u64,
    /// Streams accepted from the peer.
    pub streams_accepted: u64,
    /// Streams open now.
    pub streams_open: u64,
}

/// Figures of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Bytes read by this side.
    pub bytes_read: u64,
    /// Bytes taken from this side to be sent.
    pub bytes_written: u64,
    /// Bytes queued here and not yet taken by the transport.
    pub bytes_queued: u64,
    /// Times that a write found the stream blocked.
    pub write_blocked: u64,
}
