//! Operations on one connection.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{
    Accept, CloseReason, ConnectionHandle, ConnectionStats, Dir, Owner, Side, Stream, StreamId,
    conn::{Conn, Queues},
    stream_state::StreamState,
    tls::HandshakeInfo,
};
use crate::{Code, Limits, Now};

/// A connection of an endpoint, borrowed for a few operations.
#[derive(Debug)]
pub struct Connection<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) queues: &'a mut Queues,
    pub(super) limits: &'a Limits,
}

impl Connection<'_> {
    /// The handle of the connection.
    pub fn handle(&self) -> ConnectionHandle {
        self.conn.handle
    }

    /// Which end this endpoint is.
    pub fn side(&self) -> Side {
        self.conn.side
    }

    /// The address of the peer, as of now.
    pub fn remote_address(&self) -> SocketAddr {
        self.conn.inner.remote_address()
    }

    /// The address that the peer reaches us at, where the socket tells it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.conn.inner.local_ip()
    }

    /// The negotiated application protocol, once the handshake is complete.
    pub fn alpn(&self) -> Option<Bytes> {
        self.conn.alpn()
    }

    /// Whether the handshake is complete and the connection not over.
    pub fn is_established(&self) -> bool {
        self.conn.established && !self.conn.closed
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.conn.closed
    }

    /// Whether the server took the early data of this connection.
    pub fn accepted_early_data(&self) -> bool {
        self.conn.inner.accepted_0rtt()
    }

    /// Whether streams opened now send early data, which an attacker may replay.
    pub fn has_early_data(&self) -> bool {
        self.conn.inner.has_0rtt() && self.conn.inner.is_handshaking()
    }

    /// Figures of the connection.
    pub fn stats(&self) -> ConnectionStats {
        self.conn.stats()
    }

    /// Fills `out` with keying material of the TLS session (RFC 5705), the same on both ends and on no other connection.
    /// False before the handshake is complete.
    pub fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> bool {
        let session = self.conn.inner.crypto_session();
        session.export_keying_material(out, label, context).is_ok()
    }

    /// What both sides agreed on and showed in the handshake, the pin of the peer's certificate among it.
    pub fn handshake(&self) -> HandshakeInfo {
        HandshakeInfo::of(self.conn.inner.crypto_session())
    }

    /// The certificate chain that the peer showed, leaf first; empty if it showed none.
    pub fn peer_certificates(&self) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        super::tls::peer_chain(self.conn.inner.crypto_session())
    }

    // ----- streams -------------------------------------------------------------------------------------------------

    /// Opens a stream. The peer learns of it with the first bytes, or the end, sent on it.
    ///
    /// # Errors
    /// [`OpenError::Blocked`] when the peer allows no more; [`Event::StreamsAvailable`](super::Event::StreamsAvailable)
    /// follows.
    pub fn open(&mut self, dir: Dir) -> Result<StreamId, OpenError> {
        if !self.conn.established && !self.conn.inner.is_handshaking() {
            // What was opened before the news of the handshake may be refused early data; this stream is not.
            self.conn.pump(self.queues);
        }
        if self.conn.closed {
            return Err(OpenError::ConnectionLost);
        }
        let Some(id) = self.conn.inner.streams().open(dir.into()) else {
            self.conn.open_blocked[dir as usize] = true;
            return Err(OpenError::Blocked);
        };
        let id = StreamId::from_quinn(id);
        self.conn.open_blocked[dir as usize] = false;
        self.conn.streams.insert(id, StreamState::new(id, self.conn.side));
        self.conn.opened += 1;
        Ok(id)
    }

    /// Takes the next stream that the peer opened, if one waits. Only with [`Accept::OnDemand`].
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let stream = self.conn.accept_stream(dir)?;
        self.conn.tell_stopped(stream, self.queues);
        Some(stream)
    }

    /// Says who accepts streams that the peer opens. With [`Accept::All`] those that wait already are accepted now.
    pub fn set_accept(&mut self, dir: Dir, accept: Accept) {
        self.conn.accept[dir as usize] = accept;
        if accept == Accept::All && self.conn.waiting[dir as usize] {
            self.conn.on_opened(dir, self.queues);
        }
    }

    /// Changes how many streams the peer may have open at once. A larger number is granted as it is used, beginning with
    /// [`TransportConfig::initial_streams`](super::TransportConfig::initial_streams); a smaller one counts as soon as enough
    /// streams have ended.
    pub fn set_max_streams(&mut self, dir: Dir, count: u64) {
        self.conn.set_max_streams(dir, count, self.queues);
    }

    /// Changes how many bytes of all streams together the peer may send before they are read.
    pub fn set_connection_window(&mut self, bytes: u64) {
        let bytes = quinn_proto::VarInt::from_u64(bytes).unwrap_or(quinn_proto::VarInt::MAX);
        self.conn.inner.set_receive_window(bytes);
        self.conn.wants_transmit(self.queues);
    }

    /// Changes how many bytes sent and not acknowledged are kept.
    pub fn set_send_window(&mut self, bytes: u64) {
        self.conn.inner.set_send_window(bytes);
        self.conn.turns.set_send_window(bytes);
        self.conn.touched(self.queues);
    }

    /// Borrows one of the streams.
    ///
    /// # Errors
    /// [`UnknownStream`] if there is no such stream, or it is over.
    pub fn stream(&mut self, id: StreamId) -> Result<Stream<'_>, UnknownStream> {
        Stream::of(self.conn, self.queues, self.limits, id)
    }

    // ----- the connection itself -----------------------------------------------------------------------------------

    /// Closes the connection at once, on both sides; what is not delivered yet is lost. Does nothing if it is over.
    ///
    /// `reason` is cut to what fits into a packet.
    pub fn close(&mut self, now: Now, code: Code, reason: Bytes) {
        let words = reason.clone();
        let reason = CloseReason::Local { code, reason };
        self.conn.close(now.mono, code, words, reason, self.queues);
    }

    /// Makes the peer answer: a packet is sent that it must acknowledge.
    pub fn ping(&mut self) {
        self.conn.inner.ping();
        self.conn.wants_transmit(self.queues);
    }

    /// Tells the connection that the local address changed (another network, another socket): it moves there (RFC 9000 §9).
    pub fn local_address_changed(&mut self) {
        self.conn.inner.local_address_changed();
        self.conn.touched(self.queues);
    }

    /// Starts using new packet keys (RFC 9001 §6).
    pub fn update_keys(&mut self) {
        self.conn.inner.force_key_update();
        self.conn.wants_transmit(self.queues);
    }

    /// Hands the connection over. Events polled from now on are the new owner's, those of streams included that were not
    /// handed over on their own.
    pub fn set_owner(&mut self, owner: Owner) {
        self.conn.owner = owner;
    }

    /// The owner of the connection.
    pub fn owner(&self) -> Owner {
        self.conn.owner
    }

    /// Keeps the connection, and what its streams have to read, after its end until
    /// [`Endpoint::release`](super::Endpoint::release).
    pub fn hold(&mut self) {
        self.conn.held = true;
    }
}

/// Why no stream was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer allows no more streams now.
    #[error("the peer allows no more streams now")]
    Blocked,
    /// The connection is over.
    #[error("the connection was lost")]
    ConnectionLost,
}

/// There is no such stream (any more) on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such stream")]
pub struct UnknownStream;

/// There is no such connection (any more) at this endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such connection")]
pub struct UnknownConnection;
