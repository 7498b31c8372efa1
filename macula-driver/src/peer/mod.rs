//! Peers, with handles.

mod handle;
mod table;

use std::{collections::BTreeSet, net::SocketAddr};

use macula_proto::{
    Code,
    endpoint::{PeerListenConfig, PeerServiceStats},
    identity::NodeId,
    peering::{Duplicates, PeeringConfig},
    quic::DialConfig,
};

use crate::{ConnectError, Context, Endpoint};
pub use handle::{Peer, PeerConnectError, PeerEnd};
use table::Peers;

/// What tasks wait for, besides streams and connections.
mod key {
    use macula_proto::endpoint::PeerId;

    pub(super) const ACCEPT: u64 = 6 << 56;

    /// What tasks with a peer wait for.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum What {
        /// The handshake, and frames.
        Receive = 7,
        /// Room to send.
        Send = 8,
    }

    pub(super) fn peer(peer: PeerId, what: What) -> u64 {
        ((what as u64) << 56) | (peer.get() & 0x00ff_ffff_ffff_ffff)
    }
}

/// Peering: connections with ALPN `macula` that carry signed frames.
impl Endpoint {
    /// Dials a peer and completes the peering handshake. Dropping the future gives the dial up.
    ///
    /// `server_name` is what the certificate must be valid for; `dial` needs the ALPN `macula`. Who the peer is follows from its
    /// signature, not from its certificate: set [`PeeringConfig::expected_peer`] to take no other.
    ///
    /// # Errors
    /// [`PeerConnectError`]; the dial and then the handshake each have
    /// [`peering_handshake_timeout`](macula_proto::Limits::peering_handshake_timeout), 30 s by default.
    pub async fn connect_peer(
        &self,
        dial: &DialConfig,
        remote: SocketAddr,
        server_name: &str,
        config: PeeringConfig,
    ) -> Result<Peer, PeerConnectError> {
        let remote = crate::socket::canonical(remote);
        if !self.reaches(remote) {
            let local = self.local_addr();
            return Err(ConnectError::Unreachable { local, remote }.into());
        }
        Peers::install(self);
        let start = |peers: &mut Peers, cx: &mut Context<'_>| {
            if peers.closed || cx.is_stopped() {
                return Err(ConnectError::EndpointClosed);
            }
            let now = cx.now();
            let peer = cx.endpoint().connect_peer(now, dial, remote, server_name, config)?;
            peers.add(peer);
            Ok(peer)
        };
        let started = self.with_extension(start);
        let peer = started.unwrap_or(Err(ConnectError::EndpointClosed))?;
        handle::Dialled::new(self, peer).connected().await
    }

    /// Serves peers on connections with ALPN `macula` from now on; [`listen`](Self::listen) comes beside it. Connections of that
    /// ALPN whose first byte is that of RPC come out of [`accept`](Self::accept) as before. One that sends nothing for
    /// [`peering_handshake_timeout`](macula_proto::Limits::peering_handshake_timeout) is closed with [`Code::TIMEOUT`].
    ///
    /// At most `backlog` connected peers wait for [`accept_peer`](Self::accept_peer); more are closed with [`Code::LIMIT`].
    /// Another call begins anew: all settings count for connections accepted from then on, the caps, the list and the policy about
    /// duplicates at once; after [`stop_serving_peers`](Self::stop_serving_peers) peers are let in again. Who is in stays in, and counts
    /// under the new caps. What waits for [`accept_peer`](Self::accept_peer) stays too, even if it is more than
    /// the new `backlog`. After [`close`](Self::close) nothing is served any more.
    pub fn serve_peers(&self, config: PeerListenConfig, backlog: usize) {
        Peers::install(self);
        self.with_extension(|peers: &mut Peers, cx| {
            peers.backlog = backlog;
            peers.serving = !peers.closed;
            cx.endpoint().serve_peers(config);
        });
    }

    /// The next peer that has come in, its handshake complete. `None` when the endpoint does not serve peers (any more) and all
    /// were accepted. Cancellation-safe.
    pub async fn accept_peer(&self) -> Option<Peer> {
        let found = self.wait(key::ACCEPT, Peers::next_accepted).await.flatten();
        found.map(|(peer, connected)| Peer::new(self, peer, connected))
    }

    /// Lets no peer in any more: those that come are told so. Peers that are in stay, and those that wait can be accepted.
    pub fn stop_serving_peers(&self) {
        self.with_extension(|peers: &mut Peers, cx| {
            peers.serving = false;
            cx.endpoint().stop_serving_peers();
            cx.wake(key::ACCEPT);
        });
    }

    /// Lets in only these peers from now on; `None`: everybody. Who is in stays in.
    pub fn allow_peers(&self, list: Option<BTreeSet<NodeId>>) {
        self.with(|cx| cx.endpoint().allow_peers(list));
    }

    /// What happens from now on when an identity comes twice.
    pub fn set_peer_duplicates(&self, policy: Duplicates) {
        self.with(|cx| cx.endpoint().set_peer_duplicates(policy));
    }

    /// Counters of serving peers.
    pub fn peer_service_stats(&self) -> PeerServiceStats {
        self.with(|cx| cx.endpoint().peer_service_stats())
    }
}

/// The code of a handle that is dropped.
const DROPPED: Code = Code::CLOSED;
