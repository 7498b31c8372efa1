//! The handle of a peer.

use std::{fmt, net::SocketAddr, ops::Range, sync::Arc, task::Poll};

use bytes::Bytes;
use macula_proto::{
    Code,
    endpoint::PeerId,
    identity::NodeId,
    peering::{Connected, EndReason, Outgoing, PeeringStats, Received, SendError},
    quic::ConnectionStats,
    wire::frame::Text,
};

use super::{
    key::{self, What},
    table::Peers,
};
use crate::{ConnectError, Context, Endpoint};

/// A peer whose handshake is complete: signed frames both ways, in order.
///
/// Clones are handles of the same connection, for one task that sends and one that receives. When the last is dropped the connection
/// is closed at once with [`Code::CLOSED`], without GOODBYE, and frames that have not arrived are lost; [`close`](Self::close)
/// is the orderly end.
///
/// Received frames wait in the transport until they are fetched with [`recv`](Self::recv); a peer that sends more than fits is
/// slowed down. All futures are cancellation-safe.
#[derive(Debug, Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    peer: PeerId,
    connected: Box<Connected>,
    remote: SocketAddr,
}

/// How a connection with a peer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerEnd {
    /// Why; [`EndReason::is_good`] tells a GOODBYE of either side from everything else.
    pub reason: EndReason,
    /// What the peer said in its GOODBYE, if it said one.
    pub goodbye: Option<(Text, Option<Bytes>)>,
    /// Numbers of frames that were taken for sending and were not given to the transport whole. Those before may have been lost
    /// too, unless the end is a good one.
    pub unsent: Range<u64>,
}

impl PeerEnd {
    /// The end of an endpoint without a driver.
    pub(super) fn stopped() -> Self {
        Self {
            reason: EndReason::Aborted(Code::SHUTDOWN),
            goodbye: None,
            unsent: 0..0,
        }
    }
}

impl fmt::Display for PeerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for PeerEnd {}

/// Why there is no connection with a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerConnectError {
    /// The dial could not start.
    #[error(transparent)]
    Dial(#[from] ConnectError),
    /// The dial or the handshake failed.
    #[error(transparent)]
    Ended(PeerEnd),
}

impl Peer {
    pub(super) fn new(endpoint: &Endpoint, peer: PeerId, connected: Box<Connected>) -> Self {
        let info = endpoint.with(|cx| cx.endpoint().peer_info(peer));
        let inner = Inner {
            remote: info.map_or_else(|| SocketAddr::from(([0; 4], 0)), |info| info.remote),
            endpoint: endpoint.clone(),
            peer,
            connected,
        };
        let inner = Arc::new(inner);
        Self { inner }
    }

    /// The peer's node id, proved by its signature.
    pub fn peer_id(&self) -> NodeId {
        self.inner.connected.peer
    }

    /// All that the peer said about itself, and whether it proved that this connection is its own.
    pub fn connected(&self) -> &Connected {
        &self.inner.connected
    }

    /// Where the peer was when the connection began.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote
    }

    pub(crate) fn number(&self) -> PeerId {
        self.inner.peer
    }

    /// The endpoint of the connection.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Sends a frame, signed unless it carries a signature, as soon as there is room for it. The number that is returned counts
    /// the frames of this connection; [`PeerEnd::unsent`] names those that did not make it. Dropping the future sends nothing.
    ///
    /// # Errors
    /// [`SendError::Closing`] when the end was announced or has come; [`SendError::Encode`] for a frame that cannot be written,
    /// which harms nothing else.
    pub async fn send(&self, frame: impl Into<Outgoing>) -> Result<u64, SendError> {
        let frame = frame.into();
        let peer = self.inner.peer;
        let look = |_: &mut Peers, cx: &mut Context<'_>| {
            let now = cx.now();
            match cx.endpoint().peer_send(now, peer, frame.clone()) {
                Err(SendError::Full { .. }) => Poll::Pending,
                outcome => Poll::Ready(outcome),
            }
        };
        let sent = self.inner.endpoint.wait(key::peer(peer, What::Send), look).await;
        sent.unwrap_or(Err(SendError::Closing))
    }

    /// As [`send`](Self::send), at once or not at all.
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room; otherwise as [`send`](Self::send).
    pub fn try_send(&self, frame: impl Into<Outgoing>) -> Result<u64, SendError> {
        let (peer, frame) = (self.inner.peer, frame.into());
        self.inner.endpoint.with(|cx| {
            let now = cx.now();
            cx.endpoint().peer_send(now, peer, frame)
        })
    }

    /// The next frame, with the verdict about its signature. Of several tasks that wait each frame goes to one.
    ///
    /// # Errors
    /// [`PeerEnd`] when it is over, again and again.
    pub async fn recv(&self) -> Result<Received, PeerEnd> {
        let peer = self.inner.peer;
        let look = |peers: &mut Peers, cx: &mut Context<'_>| peers.receive(cx, peer);
        let received = self.inner.endpoint.wait(key::peer(peer, What::Receive), look).await;
        received.unwrap_or(Err(PeerEnd::stopped())).map(|frame| *frame)
    }

    /// Says GOODBYE behind everything that was sent, waits for the peer to leave (5 s by default), and closes. Frames that
    /// come meanwhile are dropped. Dropping the future stops the waiting only: the connection ends the same way, as long as a handle
    /// is left and frames are fetched.
    pub async fn close(&self, reason: impl Into<Text>) -> PeerEnd {
        let peer = self.inner.peer;
        self.inner.endpoint.with(|cx| {
            let now = cx.now();
            cx.endpoint().peer_close(now, peer, reason.into(), None);
        });
        loop {
            if let Err(end) = self.recv().await {
                return end;
            }
        }
    }

    /// Closes the connection at once with `code`, without GOODBYE.
    pub fn abort(&self, code: Code) {
        let peer = self.inner.peer;
        self.inner
            .endpoint
            .with_extension(|peers: &mut Peers, cx| peers.abort(cx, peer, code));
    }

    /// Counters of the connection; `None` once its end was fetched.
    pub fn stats(&self) -> Option<PeeringStats> {
        let peer = self.inner.peer;
        let info = self.inner.endpoint.with(|cx| cx.endpoint().peer_info(peer));
        info.map(|info| info.stats)
    }

    /// Figures of the QUIC connection; `None` once it is forgotten.
    pub fn connection_stats(&self) -> Option<ConnectionStats> {
        let peer = self.inner.peer;
        self.inner.endpoint.with(|cx| {
            let info = cx.endpoint().peer_info(peer)?;
            let connection = cx.endpoint().quic().connection(info.connection).ok()?;
            Some(connection.stats())
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let peer = self.peer;
        self.endpoint
            .with_extension(|peers: &mut Peers, cx| peers.forget(cx, peer));
    }
}

/// A dial whose future may be dropped.
pub(super) struct Dialled<'a> {
    endpoint: &'a Endpoint,
    peer: Option<PeerId>,
}

impl<'a> Dialled<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, peer: PeerId) -> Self {
        let peer = Some(peer);
        Self { endpoint, peer }
    }

    pub(super) async fn connected(mut self) -> Result<Peer, PeerConnectError> {
        let Some(peer) = self.peer else {
            return Err(PeerConnectError::Ended(PeerEnd::stopped()));
        };
        let look = |peers: &mut Peers, cx: &mut Context<'_>| peers.dialled(cx, peer);
        let outcome = self.endpoint.wait(key::peer(peer, What::Receive), look).await;
        let outcome = outcome.unwrap_or(Err(PeerEnd::stopped()));
        let connected = outcome.map_err(PeerConnectError::Ended)?;
        // From here on the handle takes care of it.
        self.peer = None;
        Ok(Peer::new(self.endpoint, peer, connected))
    }
}

impl Drop for Dialled<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            self.endpoint
                .with_extension(|peers: &mut Peers, cx| peers.forget(cx, peer));
        }
    }
}
