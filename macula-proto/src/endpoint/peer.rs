//! Peering connections of an endpoint: what the embedding program sees of them.

mod actions;
mod aside;
mod door;
mod role;

use std::{collections::BTreeSet, net::SocketAddr, ops::Range};

use bytes::Bytes;

use super::{Endpoint, Event};
use crate::{
    Code, Now,
    identity::NodeId,
    peering::{
        Connected, Duplicates, EndReason, GateConfig, GateStats, Outgoing, PeeringConfig, PeeringStats, Received, Role,
        SendError,
    },
    quic::{self, ConnectError, ConnectionHandle, DialConfig},
    wire::frame::Text,
};
pub(super) use role::PeerRole;

/// Names a peering connection of an endpoint. Never used for a second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u64);

impl PeerId {
    /// The number of the connection; dialled and accepted ones are counted together, from 0.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// How an endpoint serves peers.
#[derive(Debug, Clone)]
pub struct PeerListenConfig {
    /// Who this node is, and whom it takes.
    pub peering: PeeringConfig,
    /// How many may come in, who, and what happens when an identity comes twice.
    pub gate: GateConfig,
}

impl PeerListenConfig {
    /// The default door for these settings.
    pub fn new(peering: PeeringConfig) -> Self {
        Self {
            gate: GateConfig::new(&peering.limits),
            peering,
        }
    }
}

/// An occurrence on a peering connection. There are few for each, however many frames come: those are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// The handshake is complete. For accepted connections this is the first that is heard of them, once for each.
    Connected {
        /// Which end this side is.
        role: Role,
        /// Where the peer is.
        remote: SocketAddr,
        /// Who it is.
        connected: Box<Connected>,
    },
    /// There is something to fetch with [`Endpoint::next_peer_item`]. Given once; it comes again after that has answered
    /// `None`.
    Readable,
    /// There is room again after [`SendError::Full`].
    SendReady,
}

/// What comes from a peer, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerItem {
    /// A frame.
    Frame(Box<Received>),
    /// The peer announced the end. Nothing can be sent any more; [`PeerItem::Ended`] follows.
    Goodbye {
        /// Why, in one word.
        reason: Text,
        /// More about it.
        detail: Option<Bytes>,
    },
    /// It is over. The last item, exactly once; the connection is forgotten with it.
    Ended {
        /// Why.
        reason: EndReason,
        /// Numbers of frames that were taken for sending and were not given to the transport whole.
        unsent: Range<u64>,
    },
}

/// A peering connection at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Which end this side is.
    pub role: Role,
    /// The peer, once the handshake is complete.
    pub peer: Option<NodeId>,
    /// Where it is, or was when the connection began.
    pub remote: SocketAddr,
    /// The QUIC connection.
    pub connection: ConnectionHandle,
    /// Bytes of frames that were taken and wait to be sent.
    pub queued: usize,
    /// Items that wait to be fetched.
    pub waiting: usize,
    /// Counters.
    pub stats: PeeringStats,
}

/// Counters of an endpoint that serves peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PeerServiceStats {
    /// Connections that turned out to speak RPC, and were given to the embedding program.
    pub rpc: u64,
    /// Connections that were closed because their first byte is that of no protocol, or never came.
    pub unrecognised: u64,
    /// Connections that were closed because too many had not sent their first byte.
    pub displaced_silent: u64,
    /// Streams that were refused because a peering connection has only one.
    pub extra_streams: u64,
    /// What happened at the door.
    pub gate: GateStats,
    /// Connections whose first byte is not there yet.
    pub silent: usize,
    /// Connections in their peering handshake.
    pub handshaking: usize,
    /// Accepted peers that are connected.
    pub connected: usize,
}

/// Peering.
///
/// Connections with ALPN `macula` carry peering frames or RPC messages; the first byte of the first client stream tells which: 0
/// is the high byte of a frame's length, 1 the version of an RPC message. After [`serve_peers`](Self::serve_peers) an accepted
/// connection of that ALPN is held until its first byte is there. With 0 it becomes a peering connection. With 1 it is given to
/// the embedding program as if nothing had been: [`quic::Event::Connected`] and everything after it, no byte missing. With any
/// other, or when the stream ends before, it is closed with [`Code::PROTOCOL`]; without one for
/// [`peering_handshake_timeout`](crate::Limits::peering_handshake_timeout), with [`Code::TIMEOUT`]. As many connections may
/// wait for their first byte as may be in their handshake ([`GateConfig::handshaking`]); one more displaces the oldest, which is
/// closed with [`Code::LIMIT`].
impl Endpoint {
    /// Serves peers on connections accepted from now on with ALPN `macula`. [`quic::Endpoint::listen`] comes beside it.
    ///
    /// Another call begins anew: all settings count for connections accepted from then on, the caps, the list and the policy about
    /// duplicates at once; after [`stop_serving_peers`](Self::stop_serving_peers) peers are let in again. Who is in stays in, and counts
    /// under the new caps.
    pub fn serve_peers(&mut self, config: PeerListenConfig) {
        self.peers.serve(config);
    }

    /// Whether peers are served here.
    pub fn serves_peers(&self) -> bool {
        self.peers.serves()
    }

    /// Lets in only these peers from now on; `None`: everybody. Who is in stays in.
    pub fn allow_peers(&mut self, list: Option<BTreeSet<NodeId>>) {
        self.peers.allow(list);
    }

    /// What happens from now on when an identity comes twice.
    pub fn set_peer_duplicates(&mut self, policy: Duplicates) {
        self.peers.set_duplicates(policy);
    }

    /// Lets in no peer any more: those that come are told so and closed with [`Code::SHUTDOWN`]. Who is in stays in.
    pub fn stop_serving_peers(&mut self) {
        self.peers.shut();
    }

    /// Counters of serving peers.
    pub fn peer_service_stats(&self) -> PeerServiceStats {
        self.peers.stats()
    }

    /// Dials a peer. [`PeerEvent::Connected`] follows, or [`PeerItem::Ended`] is there to be fetched; the dial and then the
    /// handshake each have [`peering_handshake_timeout`](crate::Limits::peering_handshake_timeout).
    ///
    /// `server_name` is what the certificate must be valid for; `dial` needs the ALPN `macula`.
    ///
    /// # Errors
    /// [`ConnectError`] when the dial cannot even start.
    pub fn connect_peer(
        &mut self,
        now: Now,
        dial: &DialConfig,
        remote: SocketAddr,
        server_name: &str,
        config: PeeringConfig,
    ) -> Result<PeerId, ConnectError> {
        let conn = self.quic.connect(now, dial, remote, server_name)?;
        let rng = self.rng.fork();
        Ok(self.with_peers(|peers, quic, out| peers.dialled(quic, now, conn, remote, config, rng, out)))
    }

    /// Sends a frame: encoded, signed unless it carries a signature, and queued. The number that is returned counts the frames of
    /// this connection from 0 on.
    ///
    /// # Errors
    /// [`SendError`]: the frame was not taken. After [`SendError::Full`], [`PeerEvent::SendReady`] tells when there is room. A
    /// connection that is forgotten answers [`SendError::Closing`].
    pub fn peer_send(&mut self, now: Now, peer: PeerId, frame: impl Into<Outgoing>) -> Result<u64, SendError> {
        let frame = frame.into();
        self.with_peers(|peers, quic, out| peers.send(quic, now, peer, frame, out))
    }

    /// The next item from a peer. Fetching makes room: as long as too much waits, the peer is slowed down.
    pub fn next_peer_item(&mut self, now: Now, peer: PeerId) -> Option<PeerItem> {
        self.with_peers(|peers, quic, out| peers.next_item(quic, now, peer, out))
    }

    /// Says GOODBYE, waits up to [`peering_drain`](crate::Limits::peering_drain) for the peer, and closes; [`PeerItem::Ended`] is
    /// there to be fetched then. Frames that were taken before go before GOODBYE. Without effect when the end is under way.
    pub fn peer_close(&mut self, now: Now, peer: PeerId, reason: Text, detail: Option<Bytes>) {
        self.with_peers(|peers, quic, out| peers.close(quic, now, peer, reason, detail, out));
    }

    /// Closes a peering connection at once with `code`, if it is not over, and forgets it: nothing more is heard of it.
    pub fn forget_peer(&mut self, now: Now, peer: PeerId, code: Code) {
        self.with_peers(|peers, quic, out| peers.forget(quic, now, peer, code, out));
    }

    /// A peering connection at this moment; `None` when it is forgotten.
    pub fn peer_info(&self, peer: PeerId) -> Option<PeerInfo> {
        self.peers.info(peer)
    }

    pub(super) fn with_peers<T>(
        &mut self,
        run: impl FnOnce(&mut PeerRole, &mut quic::Endpoint, &mut Vec<Event>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let result = run(&mut self.peers, &mut self.quic, &mut out);
        for event in out {
            match event {
                Event::Quic(event) => self.returned.push_back(event),
                event => self.events.push_back(event),
            }
        }
        result
    }
}
