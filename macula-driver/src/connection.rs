//! The connection handle.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use macula_proto::{
    Code,
    quic::{self, CloseReason, ConnectionHandle, ConnectionStats, Dir, Side, StreamId, tls::HandshakeInfo},
};
use rustls_pki_types::CertificateDer;

use crate::{
    error::ConnectionLost,
    shared::{Shared, State},
    stream::{RecvStream, SendStream, Stream},
    waiters::Wait,
};

/// Keeps a connection for all handles of it and of its streams.
#[derive(Debug)]
pub(crate) struct ConnRef {
    pub(crate) shared: Arc<Shared>,
    pub(crate) conn: ConnectionHandle,
    /// Whether the connection ends with its handles; otherwise a machine runs it.
    close: bool,
}

impl ConnRef {
    /// Takes over one count of [`State::keep`].
    pub(crate) fn new(shared: &Arc<Shared>, conn: ConnectionHandle, close: bool) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            conn,
            close,
        })
    }
}

impl Drop for ConnRef {
    fn drop(&mut self) {
        self.shared.locked(|state| state.let_go(self.conn, self.close));
    }
}

/// A QUIC connection.
///
/// Clones are handles of the same connection. When the last of them and of its streams is dropped, the connection is
/// closed at once with [`Code::CLOSED`]: what was written and not delivered yet is lost. Wait for
/// [`SendStream::delivered`], for an answer, or for the peer to close.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: Arc<ConnRef>,
}

impl Connection {
    pub(crate) fn new(inner: Arc<ConnRef>) -> Self {
        Self { inner }
    }

    fn run<T>(&self, operation: impl FnOnce(&mut quic::Connection<'_>) -> T) -> Option<T> {
        self.inner
            .shared
            .locked(|state| state.on_connection(self.inner.conn, operation))
    }

    /// Names the connection within its endpoint.
    pub fn handle(&self) -> ConnectionHandle {
        self.inner.conn
    }

    // ----- streams -------------------------------------------------------------------------------------------------

    /// Opens a bidirectional stream; waits while the peer allows no more. The peer learns of the stream with the first
    /// bytes, or the end, sent on it. Cancellation-safe.
    ///
    /// # Errors
    /// [`ConnectionLost`] when the connection is over.
    pub async fn open_bi(&self) -> Result<Stream, ConnectionLost> {
        let id = self.open(Dir::Bi).await?;
        Ok(Stream::new(&self.inner, id))
    }

    /// Opens a unidirectional stream; otherwise as [`open_bi`](Self::open_bi).
    ///
    /// # Errors
    /// [`ConnectionLost`] when the connection is over.
    pub async fn open_uni(&self) -> Result<SendStream, ConnectionLost> {
        let id = self.open(Dir::Uni).await?;
        Ok(SendStream::new(&self.inner, id))
    }

    /// The next bidirectional stream that the peer opened. Cancellation-safe.
    ///
    /// Streams that nobody accepts wait in the transport and count against
    /// [`TransportConfig::max_bidi_streams`](quic::TransportConfig::max_bidi_streams).
    ///
    /// # Errors
    /// [`ConnectionLost`] when the connection is over and all streams were accepted.
    pub async fn accept_bi(&self) -> Result<Stream, ConnectionLost> {
        let id = self.accept(Dir::Bi).await?;
        Ok(Stream::new(&self.inner, id))
    }

    /// The next unidirectional stream that the peer opened; otherwise as [`accept_bi`](Self::accept_bi).
    ///
    /// # Errors
    /// [`ConnectionLost`] when the connection is over and all streams were accepted.
    pub async fn accept_uni(&self) -> Result<RecvStream, ConnectionLost> {
        let id = self.accept(Dir::Uni).await?;
        Ok(RecvStream::new(&self.inner, id))
    }

    async fn open(&self, dir: Dir) -> Result<StreamId, ConnectionLost> {
        let conn = self.inner.conn;
        let halves = if dir == Dir::Bi { 2 } else { 1 };
        let attempt = |state: &mut State| {
            let opened = state
                .endpoint
                .quic()
                .connection(conn)
                .map(|mut connection| connection.open(dir));
            match opened {
                Ok(Ok(id)) => {
                    state.keep_stream(conn, id, halves);
                    Poll::Ready(Ok(id))
                }
                Ok(Err(quic::OpenError::Blocked)) if !state.is_closed(conn) => {
                    // The peer is told that it is what blocks us.
                    state.kick();
                    Poll::Pending
                }
                _ => Poll::Ready(Err(ConnectionLost(state.reason(conn)))),
            }
        };
        self.inner.shared.until(Wait::Open(conn, dir), attempt).await
    }

    async fn accept(&self, dir: Dir) -> Result<StreamId, ConnectionLost> {
        let conn = self.inner.conn;
        let halves = if dir == Dir::Bi { 2 } else { 1 };
        let attempt = |state: &mut State| match state.next_stream(conn, dir) {
            Some(id) => {
                state.keep_stream(conn, id, halves);
                Poll::Ready(Ok(id))
            }
            None if state.is_closed(conn) => Poll::Ready(Err(ConnectionLost(state.reason(conn)))),
            None => Poll::Pending,
        };
        self.inner.shared.until(Wait::Accept(conn, dir), attempt).await
    }

    // ----- the end -------------------------------------------------------------------------------------------------

    /// Closes the connection at once, on both sides; what is not delivered yet is lost. Does nothing if it is over.
    ///
    /// `reason` is cut to what fits into a packet.
    pub fn close(&self, code: Code, reason: impl Into<Bytes>) {
        let reason = reason.into();
        self.inner.shared.locked(|state| {
            let now = state.tick();
            if let Ok(mut connection) = state.endpoint.quic().connection(self.inner.conn) {
                connection.close(now, code, reason);
            }
            state.kick();
        });
    }

    /// Waits for the end of the connection, whoever ends it. Cancellation-safe.
    pub async fn closed(&self) -> CloseReason {
        let conn = self.inner.conn;
        let over = |state: &mut State| {
            if state.is_closed(conn) {
                Poll::Ready(state.reason(conn))
            } else {
                Poll::Pending
            }
        };
        self.inner.shared.until(Wait::Closed(conn), over).await
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        let conn = self.inner.conn;
        self.inner
            .shared
            .locked(|state| state.is_closed(conn).then(|| state.reason(conn)))
    }

    /// Waits until the handshake is complete; at once, except for a connection used
    /// [early](Connecting::early_data). Cancellation-safe.
    ///
    /// # Errors
    /// [`ConnectionLost`] if the handshake failed.
    pub async fn connected(&self) -> Result<(), ConnectionLost> {
        let conn = self.inner.conn;
        let check = |state: &mut State| state.poll_connected(conn);
        self.inner.shared.until(Wait::Connected(conn), check).await
    }

    // ----- figures and facts ---------------------------------------------------------------------------------------

    /// Which end this is.
    pub fn side(&self) -> Option<Side> {
        self.run(|connection| connection.side())
    }

    /// The address of the peer, as of now; `None` if the endpoint has forgotten the connection.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.run(|connection| connection.remote_address())
    }

    /// The address that the peer reaches us at, where the socket tells it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.run(|connection| connection.local_ip()).flatten()
    }

    /// The negotiated application protocol.
    pub fn alpn(&self) -> Option<Bytes> {
        self.run(|connection| connection.alpn()).flatten()
    }

    /// What both sides agreed on and showed in the handshake, the pin of the peer's certificate among it.
    pub fn handshake(&self) -> HandshakeInfo {
        self.run(|connection| connection.handshake()).unwrap_or_default()
    }

    /// The certificate chain that the peer showed, leaf first; empty if it showed none.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.run(|connection| connection.peer_certificates())
            .unwrap_or_default()
    }

    /// Whether the server took the early data of this connection.
    pub fn accepted_early_data(&self) -> bool {
        self.run(|connection| connection.accepted_early_data()).unwrap_or(false)
    }

    /// Figures of the connection.
    pub fn stats(&self) -> ConnectionStats {
        self.run(|connection| connection.stats()).unwrap_or_default()
    }

    /// Fills `out` with keying material of the TLS session (RFC 5705), the same on both ends and on no other connection.
    /// False, with `out` untouched, before the handshake is complete.
    pub fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> bool {
        self.run(|connection| connection.export_keying_material(out, label, context))
            .unwrap_or(false)
    }

    // ----- settings ------------------------------------------------------------------------------------------------

    /// Makes the peer answer: a packet is sent that it must acknowledge.
    pub fn ping(&self) {
        self.run(|connection| connection.ping());
    }

    /// Changes how many streams the peer may have open at once.
    pub fn set_max_streams(&self, dir: Dir, count: u64) {
        self.run(|connection| connection.set_max_streams(dir, count));
    }

    /// Changes how many bytes of all streams together the peer may send before they are read.
    pub fn set_connection_window(&self, bytes: u64) {
        self.run(|connection| connection.set_connection_window(bytes));
    }

    /// Changes how many bytes sent and not acknowledged are kept.
    pub fn set_send_window(&self, bytes: u64) {
        self.run(|connection| connection.set_send_window(bytes));
    }

    /// Starts using new packet keys (RFC 9001 §6).
    pub fn update_keys(&self) {
        self.run(|connection| connection.update_keys());
    }

    /// Tells the connection that the local address changed, so that it moves there (RFC 9000 §9).
    pub fn local_address_changed(&self) {
        self.run(|connection| connection.local_address_changed());
    }
}

impl State {
    pub(crate) fn poll_connected(&mut self, conn: ConnectionHandle) -> Poll<Result<(), ConnectionLost>> {
        match self.conns.get(&conn) {
            Some(entry) if entry.closed.is_some() => Poll::Ready(Err(ConnectionLost(self.reason(conn)))),
            Some(entry) if entry.established => Poll::Ready(Ok(())),
            Some(_) => Poll::Pending,
            None => Poll::Ready(Err(ConnectionLost(self.reason(conn)))),
        }
    }
}

/// A handshake that is going on: a future of the connection. Dropping it closes the connection.
#[must_use = "dropping it gives the connection up"]
pub struct Connecting {
    wait: Pin<Box<dyn Future<Output = Result<Connection, ConnectionLost>> + Send>>,
    conn: Connection,
}

impl Connecting {
    pub(crate) fn new(inner: Arc<ConnRef>) -> Self {
        let conn = Connection::new(inner);
        let waiting = conn.clone();
        let wait = Box::pin(async move {
            waiting.connected().await?;
            Ok(waiting)
        });
        Self { wait, conn }
    }

    /// The connection before its handshake is complete, if a session can be resumed and early data (0-RTT) is allowed. An
    /// attacker may replay what is sent on streams opened before [`Connection::connected`] answers, and a server that does
    /// not take it makes these streams fail with [`ReadError::EarlyDataRejected`](crate::ReadError::EarlyDataRejected).
    ///
    /// # Errors
    /// Gives itself back when there is no early data to be sent.
    pub fn early_data(self) -> Result<Connection, Self> {
        if self.conn.run(|connection| connection.has_early_data()).unwrap_or(false) {
            Ok(self.conn)
        } else {
            Err(self)
        }
    }

    /// The address of the peer.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.conn.remote_address()
    }
}

impl Future for Connecting {
    type Output = Result<Connection, ConnectionLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.wait.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connecting")
            .field("conn", &self.conn)
            .finish_non_exhaustive()
    }
}
