//! The endpoint: everything that shares one UDP socket.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::DatagramEvent;

use super::{
    ConnectError, Connection, ConnectionHandle, DialConfig, EndpointConfig, EndpointStats, Event, Owner, ResetKey,
    Shard, Stray, Stream, StreamId, UnknownConnection, UnknownStream,
    accept::Listener,
    config::ConfigError,
    conn::{Conn, Queues},
    slots::Slots,
};
use crate::{
    Code, Limits, Now, WallClock,
    deadlines::{Deadlines, earliest},
};

/// Replies outside of connections kept until the driver sends them; more are dropped, as a network may do.
const MAX_REPLIES: usize = 256;

/// Where a datagram came from and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramMeta {
    /// The sender.
    pub remote: SocketAddr,
    /// The local address it was sent to, where the socket tells it.
    pub local_ip: Option<IpAddr>,
    /// The two ECN bits of the IP header (RFC 3168), where the socket tells them.
    pub ecn: Option<u8>,
}

impl DatagramMeta {
    /// A datagram from `remote` about which nothing else is known.
    pub fn from(remote: SocketAddr) -> Self {
        Self {
            remote,
            local_ip: None,
            ecn: None,
        }
    }
}

/// What to do with the bytes that [`Endpoint::poll_transmit`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver.
    pub destination: SocketAddr,
    /// The two ECN bits of the IP header to set.
    pub ecn: Option<u8>,
    /// Bytes written to the buffer.
    pub size: usize,
    /// If several datagrams were written: the size of each but the last, which may be smaller.
    pub segment_size: Option<usize>,
    /// The local address to send from, if it matters.
    pub source_ip: Option<IpAddr>,
}

/// All connections of one UDP socket, as a machine without a socket.
///
/// Hand in datagrams, time-outs and operations; poll events and datagrams out until there are none; sleep until
/// [`poll_timeout`](Self::poll_timeout) or the next input.
pub struct Endpoint {
    pub(super) inner: quinn_proto::Endpoint,
    pub(super) limits: Limits,
    clock: WallClock,
    pub(super) conns: Slots<Box<Conn>>,
    /// From quinn-proto's index, which is used again, to ours.
    by_quinn: Vec<Option<ConnectionHandle>>,
    pub(super) queues: Queues,
    timers: Deadlines<ConnectionHandle>,
    replies: VecDeque<(Transmit, Vec<u8>)>,
    pub(super) scratch: Vec<u8>,
    /// Connections to forget as soon as their events were polled.
    over: Vec<ConnectionHandle>,
    last_timeout: Option<Instant>,
    last_now: Option<Instant>,
    pub(super) listener: Option<Listener>,
    pub(super) stats: EndpointStats,
    pub(super) shard: Shard,
    /// What connection ids are checked with, where several endpoints share a port.
    pub(super) cid_key: Option<ResetKey>,
    pub(super) strays: VecDeque<Stray>,
    #[cfg(feature = "sim")]
    simulated: Option<Simulated>,
}

/// What only simulated endpoints have.
#[cfg(feature = "sim")]
struct Simulated {
    /// Draws the connection ids of dials.
    rng: crate::Rng,
    tls: super::simulated::Shared,
    token_key: Arc<dyn quinn_proto::crypto::HandshakeTokenKey>,
}

impl Endpoint {
    /// An endpoint that can dial. It accepts nothing before [`listen`](Self::listen).
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range.
    pub fn new(config: &EndpointConfig, limits: Limits) -> Result<Self, ConfigError> {
        let quinn = match &config.reset_key {
            Some(key) => key.endpoint_config(config.shard),
            None if config.shard.is_one_of_many() => return Err(ConfigError("reset_key")),
            None => ResetKey::random().endpoint_config(config.shard),
        };
        Self::build(config, limits, quinn, None)
    }

    /// An endpoint for simulations: everything it draws (connection ids, packet numbers, stateless reset keys unless
    /// `config` has one, address tokens, and what TLS needs) comes from `seed`, so that the same inputs give the same datagrams
    /// to the byte. Nothing it sends is secret, and it must never face a network.
    ///
    /// TLS configurations have to be built with its [`clock`](Self::clock). They offer a key exchange that no other endpoint
    /// speaks, so that an endpoint that is not simulated, and a configuration made for one, fail to connect.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "sim")]
    pub fn simulated(config: &EndpointConfig, limits: Limits, seed: u64) -> Result<Self, ConfigError> {
        if config.shard.is_one_of_many() {
            return Err(ConfigError("shard"));
        }
        let mut rng = crate::Rng::from_seed(seed);
        let quinn = super::simulated::endpoint_config(config.reset_key.as_ref(), &mut rng);
        let mut endpoint = Self::build(config, limits, quinn, Some(rng.bytes()))?;
        endpoint.clock = WallClock::simulated();
        endpoint.simulated = Some(Simulated {
            tls: Arc::new(std::sync::Mutex::new(rng.fork())),
            token_key: super::simulated::token_key(&mut rng),
            rng,
        });
        Ok(endpoint)
    }

    /// Lets TLS draw from this endpoint until the guard goes.
    #[cfg(feature = "sim")]
    pub(super) fn lend(&self) -> Option<super::simulated::Lent> {
        let simulated = self.simulated.as_ref()?;
        Some(super::simulated::lend(&simulated.tls))
    }

    /// Settings of a listener that has none yet.
    pub(super) fn fresh_server(&self, tls: Arc<dyn quinn_proto::crypto::ServerConfig>) -> quinn_proto::ServerConfig {
        #[cfg(feature = "sim")]
        if let Some(simulated) = &self.simulated {
            return quinn_proto::ServerConfig::new(tls, simulated.token_key.clone());
        }
        quinn_proto::ServerConfig::with_crypto(tls)
    }

    fn build(
        config: &EndpointConfig,
        limits: Limits,
        mut quinn: quinn_proto::EndpointConfig,
        seed: Option<[u8; 32]>,
    ) -> Result<Self, ConfigError> {
        quinn
            .max_udp_payload_size(config.max_udp_payload)
            .map_err(|_| ConfigError("max_udp_payload"))?
            .min_reset_interval(config.stateless_reset_interval);
        Ok(Self {
            inner: quinn_proto::Endpoint::new(Arc::new(quinn), None, config.unfragmented, seed),
            limits,
            clock: WallClock::default(),
            conns: Slots::new(),
            by_quinn: Vec::new(),
            queues: Queues::default(),
            timers: Deadlines::default(),
            replies: VecDeque::new(),
            scratch: Vec::new(),
            over: Vec::new(),
            last_timeout: None,
            last_now: None,
            listener: None,
            stats: EndpointStats::default(),
            shard: config.shard,
            cid_key: config.reset_key.as_ref().map(ResetKey::of_ids),
            strays: VecDeque::new(),
            #[cfg(feature = "sim")]
            simulated: None,
        })
    }

    /// The wall clock that certificate validity is checked against; set by every [`Now`] handed in.
    pub fn clock(&self) -> &WallClock {
        &self.clock
    }

    // ----- the edge ------------------------------------------------------------------------------------------------

    /// Takes one UDP datagram. Nothing a peer sends is an error here: it becomes an event, a counter, or nothing.
    ///
    /// Bytes of streams stay slices of `data` until they are read, so a small datagram should not pin a large buffer.
    pub fn handle_datagram(&mut self, now: Now, meta: DatagramMeta, data: BytesMut) {
        if let Some(owner) = self.goes_to(&data) {
            return self.keep_stray(owner, meta, data);
        }
        self.set_now(now);
        #[cfg(feature = "sim")]
        let _lent = self.lend();
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += data.len() as u64;
        let ecn = meta.ecn.and_then(quinn_proto::EcnCodepoint::from_bits);
        let mut reply = std::mem::take(&mut self.scratch);
        reply.clear();
        let event = self
            .inner
            .handle(now.mono, meta.remote, meta.local_ip, ecn, data, &mut reply);
        match event {
            Some(DatagramEvent::ConnectionEvent(quinn, event)) => {
                if let Some(handle) = self.by_quinn.get(quinn.0).copied().flatten() {
                    if let Some(conn) = self.conns.get_mut(handle) {
                        conn.inner.handle_event(event);
                        conn.touched(&mut self.queues);
                    }
                    self.settle(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.on_incoming(now, incoming),
            Some(DatagramEvent::Response(transmit)) => self.push_reply(&transmit, &reply),
            None => self.stats.datagrams_ignored += 1,
        }
        self.scratch = reply;
    }

    /// Fires everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.set_now(now);
        #[cfg(feature = "sim")]
        let _lent = self.lend();
        self.last_timeout = Some(now.mono);
        while let Some(handle) = self.timers.pop_due(now.mono) {
            let Some(conn) = self.conns.get_mut(handle) else {
                continue;
            };
            conn.deadline = None;
            let expired = conn.handshake_deadline.take_if(|at| *at <= now.mono).is_some();
            // It may have come to its end in datagrams whose events were not polled yet.
            if expired && conn.inner.is_handshaking() {
                let words = Bytes::from_static(b"handshake timed out");
                let reason = super::CloseReason::HandshakeTimeout;
                conn.close(now.mono, Code::TIMEOUT, words, reason, &mut self.queues);
            } else {
                conn.inner.handle_timeout(now.mono);
                conn.turns.handle_timeout(now.mono);
            }
            conn.touched(&mut self.queues);
            self.settle(handle);
        }
        self.expire_incoming(now);
    }

    /// Writes the next datagrams, all to one receiver, into `buf`, which is cleared before; at most `max_datagrams` of
    /// equal size.
    ///
    /// Poll until it answers `None`, after any input.
    pub fn poll_transmit(&mut self, now: Now, max_datagrams: NonZeroUsize, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.set_now(now);
        #[cfg(feature = "sim")]
        let _lent = self.lend();
        // quinn-proto takes the length of the buffer for that of the datagrams.
        buf.clear();
        if let Some((transmit, bytes)) = self.replies.pop_front() {
            buf.extend_from_slice(&bytes);
            self.count_sent(&transmit);
            return Some(transmit);
        }
        while let Some(handle) = self.queues.transmit.pop_front() {
            let Some(conn) = self.conns.get_mut(handle) else {
                continue;
            };
            let segments = segments(max_datagrams, conn.inner.current_mtu());
            if let Some(transmit) = conn.inner.poll_transmit(now.mono, segments, buf) {
                // To the back: connections take turns.
                self.queues.transmit.push_back(handle);
                let transmit = from_quinn(&transmit);
                self.count_sent(&transmit);
                return Some(transmit);
            }
            conn.in_transmit = false;
            self.settle(handle);
            self.update_deadline(handle);
        }
        None
    }

    /// The next event. Poll until it answers `None`, after any input.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.queues.events.is_empty() {
            self.forget_streams();
        }
        loop {
            if let Some(event) = self.queues.events.pop_front() {
                self.count_event(&event);
                return Some(event);
            }
            if let Some(handle) = self.queues.poll.pop_front() {
                if let Some(conn) = self.conns.get_mut(handle) {
                    conn.in_poll = false;
                    conn.pump(&mut self.queues);
                    let until = conn.turns.next_deadline();
                    conn.hand_out_room(self.last_now, &mut self.queues);
                    if conn.turns.next_deadline() != until {
                        self.update_deadline(handle);
                    }
                }
                continue;
            }
            if let Some((handle, stream)) = self.queues.push.pop_front() {
                if let Some(event) = self.push_data(handle, stream) {
                    return Some(event);
                }
                continue;
            }
            if let Some(event) = self.queues.ended.pop_front() {
                self.count_event(&event);
                if let Some(conn) = event.connection().and_then(|handle| self.conns.get_mut(handle)) {
                    conn.silent = true;
                }
                return Some(event);
            }
            self.forget_streams();
            if !self.queues.events.is_empty() {
                continue;
            }
            self.forget_over();
            return None;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next; `None` when only input can bring news.
    ///
    /// If events or datagrams were not polled to the end, that is now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.queues.is_empty() || !self.replies.is_empty() {
            return self.last_now;
        }
        let incoming = self.listener.as_ref().and_then(Listener::next_deadline);
        let earliest = earliest(self.timers.earliest(), incoming)?;
        // A deadline that was set in the past is served at the next tick, never twice in the same one.
        Some(match self.last_timeout {
            Some(last) if earliest <= last => last + Duration::from_micros(1),
            _ => earliest,
        })
    }

    // ----- operations ----------------------------------------------------------------------------------------------

    /// Dials. [`Event::Connected`] or [`Event::Closed`] follows, the latter after
    /// [`DialConfig::handshake_timeout`] at the latest.
    ///
    /// `server_name` is what the certificate must be valid for: a DNS name, or the text of an IP address, for which no SNI
    /// is sent.
    ///
    /// # Errors
    /// [`ConnectError`] when the dial cannot even start.
    pub fn connect(
        &mut self,
        now: Now,
        config: &DialConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<ConnectionHandle, ConnectError> {
        self.set_now(now);
        if self.conns.len() >= self.limits.connections {
            return Err(ConnectError::TooManyConnections(self.limits.connections));
        }
        let mut client = quinn_proto::ClientConfig::new(config.tls.quinn());
        client.token_store(config.tls.tokens());
        client.transport_config(Arc::new(config.transport.to_quinn(remote.ip())?));
        #[cfg(feature = "sim")]
        if let Some(simulated) = &mut self.simulated {
            super::simulated::fix_initial_cid(&mut client, &mut simulated.rng);
        }
        #[cfg(feature = "sim")]
        let _lent = self.lend();
        let (quinn, inner) = self.inner.connect(now.mono, client, remote, server_name)?;
        let deadline = now.mono + config.handshake_timeout;
        Ok(self.insert(quinn, Conn::new(inner, quinn, deadline, &config.transport)))
    }

    /// Borrows a connection.
    ///
    /// # Errors
    /// [`UnknownConnection`] if it is gone.
    pub fn connection(&mut self, handle: ConnectionHandle) -> Result<Connection<'_>, UnknownConnection> {
        let conn = self.conns.get_mut(handle).ok_or(UnknownConnection)?;
        Ok(Connection {
            conn,
            queues: &mut self.queues,
            limits: &self.limits,
        })
    }

    /// Borrows a stream of one of the connections.
    ///
    /// # Errors
    /// [`UnknownStream`] if there is no such stream, or it is over; also if that is true of its connection.
    pub fn stream(&mut self, conn: ConnectionHandle, stream: StreamId) -> Result<Stream<'_>, UnknownStream> {
        let conn = self.conns.get_mut(conn).ok_or(UnknownStream)?;
        Stream::of(conn, &mut self.queues, &self.limits, stream)
    }

    /// Handles of all connections that are not forgotten yet.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionHandle> + '_ {
        self.conns.handles()
    }

    /// Closes all connections.
    pub fn close_all(&mut self, now: Now, code: Code, reason: &Bytes) {
        let handles: Vec<_> = self.conns.handles().collect();
        for handle in handles {
            if let Ok(mut conn) = self.connection(handle) {
                conn.close(now, code, reason.clone());
            }
        }
    }

    /// Lets go of a connection that was held: it is forgotten as soon as it is over.
    pub fn release(&mut self, handle: ConnectionHandle) {
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.held = false;
            if conn.drained {
                self.over.push(handle);
            }
        }
    }

    /// Whose event this is: the owner of its stream, or else of its connection. To be asked before the next event is polled,
    /// which may forget the stream.
    pub fn owner_of(&self, event: &Event) -> Option<Owner> {
        let conn = self.conns.get(event.connection()?)?;
        let stream: Option<StreamId> = event.stream();
        let own = stream
            .and_then(|id| conn.streams.get(&id))
            .and_then(|state| state.owner);
        Some(own.unwrap_or(conn.owner))
    }

    /// Whether every connection is over and its peer needs no more answers, so that the socket may go.
    pub fn is_idle(&self) -> bool {
        self.inner.open_connections() == 0
    }

    /// Counters of the endpoint.
    pub fn stats(&self) -> EndpointStats {
        EndpointStats {
            open: self.conns.len() as u64,
            handshaking: self.handshaking() as u64,
            ..self.stats
        }
    }

    /// Copies pieces into one, in memory that is used again once it was sent and acknowledged.
    pub(crate) fn gather(&mut self, pieces: &[Bytes], bytes: usize) -> Bytes {
        if (super::blocks::WORTH_A_BLOCK..=super::blocks::BLOCK).contains(&bytes) {
            return self.queues.blocks.gather(pieces);
        }
        let mut all = BytesMut::with_capacity(bytes);
        for piece in pieces {
            all.extend_from_slice(piece);
        }
        all.freeze()
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    pub(super) fn insert(&mut self, quinn: quinn_proto::ConnectionHandle, conn: Conn) -> ConnectionHandle {
        let handle = self.conns.insert(Box::new(conn));
        if self.by_quinn.len() <= quinn.0 {
            self.by_quinn.resize(quinn.0 + 1, None);
        }
        if let Some(entry) = self.by_quinn.get_mut(quinn.0) {
            *entry = Some(handle);
        }
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.handle = handle;
            conn.touched(&mut self.queues);
        }
        self.stats.handshaking += 1;
        handle
    }

    pub(super) fn push_reply(&mut self, transmit: &quinn_proto::Transmit, bytes: &[u8]) {
        if self.replies.len() >= MAX_REPLIES {
            self.stats.replies_dropped += 1;
            return;
        }
        let bytes = bytes.get(..transmit.size).unwrap_or(bytes).to_vec();
        self.replies.push_back((from_quinn(transmit), bytes));
    }

    pub(super) fn handshaking(&self) -> usize {
        self.stats.handshaking as usize
    }

    fn set_now(&mut self, now: Now) {
        self.clock.set(now.unix_ms);
        self.last_now = Some(now.mono);
    }

    /// Exchanges what a connection and quinn-proto's endpoint have for each other.
    fn settle(&mut self, handle: ConnectionHandle) {
        let Some(conn) = self.conns.get_mut(handle) else {
            return;
        };
        if conn.drained {
            return;
        }
        while let Some(event) = conn.inner.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(event) = self.inner.handle_event(conn.quinn, event) {
                conn.inner.handle_event(event);
                // New connection ids: something to send, no event. An event here would come after the caller has
                // polled them all.
                conn.wants_transmit(&mut self.queues);
            }
            if drained {
                conn.drained = true;
                if let Some(entry) = self.by_quinn.get_mut(conn.quinn.0) {
                    *entry = None;
                }
                if !conn.held {
                    self.over.push(handle);
                }
                break;
            }
        }
        if conn.drained {
            self.update_deadline(handle);
        }
    }

    fn update_deadline(&mut self, handle: ConnectionHandle) {
        if let Some(conn) = self.conns.get_mut(handle) {
            let next = if conn.drained { None } else { conn.next_deadline() };
            self.timers.update(handle, conn.deadline, next);
            conn.deadline = next;
        }
    }

    /// The next bytes of a stream in active mode.
    fn push_data(&mut self, handle: ConnectionHandle, stream: StreamId) -> Option<Event> {
        let mut conn = self.connection(handle).ok()?;
        let silent = conn.conn.silent;
        let mut borrowed = conn.stream(stream).ok()?;
        let state = borrowed.conn.streams.get_mut(&stream)?;
        let passive = state.active.is_passive();
        if silent || passive {
            state.pushing = false;
        }
        if silent {
            return None;
        }
        let chunk = borrowed.read_chunk(usize::MAX);
        if passive {
            // Made passive meanwhile: its owner hears of what there is.
            if let Ok(Some(bytes)) = chunk {
                borrowed.unread(bytes);
            }
            return None;
        }
        let state = self.conns.get_mut(handle)?.streams.get_mut(&stream);
        let Ok(Some(data)) = chunk else {
            if let Some(state) = state {
                state.pushing = false;
            }
            return None;
        };
        if let Some(state) = state {
            state.active = state.active.after_push();
            if state.active.is_passive() {
                state.pushing = false;
                state.readable = true;
                self.queues.events.push_back(Event::Passive { conn: handle, stream });
            } else {
                self.queues.push.push_back((handle, stream));
            }
        }
        Some(Event::Data {
            conn: handle,
            stream,
            data,
        })
    }

    fn forget_streams(&mut self) {
        for (handle, stream) in std::mem::take(&mut self.queues.over) {
            if let Some(conn) = self.conns.get_mut(handle) {
                conn.forget_stream(stream, &mut self.queues);
            }
        }
    }

    fn forget_over(&mut self) {
        for handle in std::mem::take(&mut self.over) {
            if self.conns.get(handle).is_some_and(|conn| conn.drained && !conn.held)
                && let Some(conn) = self.conns.remove(handle)
            {
                self.timers.update(handle, conn.deadline, None);
            }
        }
    }

    fn count_sent(&mut self, transmit: &Transmit) {
        self.stats.bytes_sent += transmit.size as u64;
        self.stats.datagrams_sent += transmit
            .segment_size
            .map_or(1, |size| transmit.size.div_ceil(size.max(1))) as u64;
    }

    fn count_event(&mut self, event: &Event) {
        match event {
            Event::Connected { side, .. } => {
                self.stats.handshaking = self.stats.handshaking.saturating_sub(1);
                match side {
                    super::Side::Client => self.stats.dialled += 1,
                    super::Side::Server => self.stats.accepted += 1,
                }
            }
            Event::Closed { established: true, .. } => self.stats.closed += 1,
            Event::Closed { established: false, .. } => {
                self.stats.handshaking = self.stats.handshaking.saturating_sub(1);
                self.stats.handshakes_failed += 1;
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("connections", &self.conns.len())
            .field("listening", &self.listener.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("handle", &self.handle)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// How many datagrams of this size one send may carry: at most `max`, 64 (what kernels take), and one UDP datagram's
/// worth of bytes.
fn segments(max: NonZeroUsize, datagram_size: u16) -> usize {
    let fit = 65_507 / usize::from(datagram_size.max(1));
    max.get().min(64).min(fit).max(1)
}

fn from_quinn(transmit: &quinn_proto::Transmit) -> Transmit {
    Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.map(|ecn| ecn as u8),
        size: transmit.size,
        segment_size: transmit.segment_size,
        source_ip: transmit.src_ip,
    }
}
