//! A node's way to its relays: the supervisor and the session of the current connection, carried out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    address::RelayAddress,
    lane::{Lane, refuse},
};
use crate::{
    Code, Now, Rng,
    deadlines::earliest,
    quic::{self, CloseReason, ConnectionHandle, DialConfig, Dir, Side, StreamId, TransportConfig, tls::ClientCrypto},
    tunnel::{
        Name, StreamKey,
        client::{
            Session, Supervisor,
            session::{self, BadName, RequestError, RequestId, SessionConfig, SessionStats, SessionStatus, TunnelEnd},
            supervisor::{self, Attempt, RelayIndex, SupervisorConfig, SupervisorStatus},
        },
    },
    wire::control::TunnelId,
};

/// Least time given to one address of a relay when it has several.
const MIN_DIAL: Duration = Duration::from_secs(2);

/// A node and its relays.
#[derive(Debug, Clone)]
pub struct RelayClientConfig {
    /// The relays, in order of preference. The node is connected to one of them at a time.
    pub relays: Vec<RelayAddress>,
    /// How relays are dialled, for all of them; ALPN `macula-dist`.
    pub dial: DialConfig,
    /// The node's name, and how it identifies.
    pub session: SessionConfig,
    /// Backoff and time-outs.
    pub supervisor: SupervisorConfig,
}

impl RelayClientConfig {
    /// The defaults, for a node of this name: it keeps its connection alive, as [`TransportConfig::relay`] does. `tls` needs the
    /// ALPN [`MACULA_DIST`](quic::alpn::MACULA_DIST).
    pub fn new(name: impl Into<Name>, relays: Vec<RelayAddress>, tls: ClientCrypto) -> Self {
        let mut dial = DialConfig::new(tls);
        dial.transport = TransportConfig::relay();
        Self {
            relays,
            dial,
            session: SessionConfig::new(name.into()),
            supervisor: SupervisorConfig::default(),
        }
    }
}

/// Names a node of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(super) u64);

impl ClientId {
    /// The number of the node, counted from 0.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Why a node cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientConfigError {
    /// There is no relay to dial.
    #[error("no relay is given")]
    NoRelay,
    /// The node's name cannot be used.
    #[error("{0}")]
    BadName(#[from] BadName),
}

/// An occurrence at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The address of a relay is needed that was given by name: answer with [`Endpoint::resolved`](crate::Endpoint::resolved).
    Resolve {
        /// To be named in the answer.
        attempt: Attempt,
        /// What to resolve.
        address: RelayAddress,
    },
    /// The supervisor dials, waits, is up, or is down.
    Relay(supervisor::Report),
    /// A connection to a relay, or the try to make one, ended like this. [`ClientEvent::Relay`] with the consequences
    /// follows.
    Disconnected {
        /// The relay.
        relay: RelayIndex,
        /// Why.
        reason: CloseReason,
    },
    /// Outcome of a request: a tunnel. Read its stream at once: it may have bytes already, and
    /// [`Readable`](quic::Event::Readable) comes only after a read that found nothing.
    Opened {
        /// The request.
        request: RequestId,
        /// The tunnel's id.
        tunnel: TunnelId,
        /// The connection of the stream.
        conn: ConnectionHandle,
        /// The stream, in the owner's hands from now on.
        stream: StreamId,
    },
    /// Outcome of a request: none.
    Failed {
        /// The request.
        request: RequestId,
        /// Why.
        error: RequestError,
    },
    /// Another node opened a tunnel to this one. Read its stream at once, as for [`Opened`](Self::Opened).
    Incoming {
        /// The tunnel's id.
        tunnel: TunnelId,
        /// The name of the other node, as the relay tells it.
        source: Name,
        /// The connection of the stream.
        conn: ConnectionHandle,
        /// The stream, in the owner's hands from now on.
        stream: StreamId,
    },
}

/// The connection of an attempt, from its dial on.
#[derive(Debug)]
struct Link {
    attempt: Attempt,
    relay: RelayIndex,
    conn: ConnectionHandle,
    /// Addresses to try after the one that is being dialled.
    rest: VecDeque<SocketAddr>,
    lane: Option<Lane>,
    /// First bytes of streams that the relay opened.
    prefixes: BTreeMap<StreamId, Prefix>,
    /// Streams in the owner's hands.
    tunnels: BTreeSet<StreamId>,
}

#[derive(Debug)]
struct Prefix {
    bytes: [u8; TunnelId::LENGTH],
    filled: usize,
}

/// A node inside an endpoint.
#[derive(Debug)]
pub(super) struct ClientRole {
    config: RelayClientConfig,
    supervisor: Supervisor,
    session: Option<Session>,
    /// Counters of the sessions before it.
    past: SessionStats,
    link: Option<Link>,
    /// The attempt whose address is being resolved.
    resolving: Option<(Attempt, RelayIndex)>,
    next_request: u64,
    allow_from: Option<BTreeSet<Name>>,
}

/// Where a client's events go.
pub(super) type Out = Vec<ClientEvent>;

impl ClientRole {
    pub(super) fn new(config: RelayClientConfig, rng: Rng) -> Result<Self, ClientConfigError> {
        let relays = NonZeroUsize::new(config.relays.len()).ok_or(ClientConfigError::NoRelay)?;
        // A name that cannot be used is found now, not when the first relay answers.
        Session::new(config.session.clone())?;
        Ok(Self {
            supervisor: Supervisor::new(config.supervisor, relays, rng),
            session: None,
            past: SessionStats::default(),
            link: None,
            resolving: None,
            next_request: 0,
            allow_from: config.session.allow_from.clone(),
            config,
        })
    }

    pub(super) fn status(&self) -> (SupervisorStatus, Option<SessionStatus>) {
        (self.supervisor.status(), self.session.as_ref().map(Session::status))
    }

    pub(super) fn stats(&self) -> SessionStats {
        let mut stats = self.past;
        stats += self.session.as_ref().map(Session::stats).unwrap_or_default();
        stats
    }

    pub(super) fn connection(&self) -> Option<ConnectionHandle> {
        self.link.as_ref().map(|link| link.conn)
    }

    pub(super) fn relay(&self, index: RelayIndex) -> Option<&RelayAddress> {
        self.config.relays.get(index.0)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref().and_then(Session::poll_timeout);
        earliest(self.supervisor.poll_timeout(), session)
    }

    pub(super) fn start(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Out) {
        self.supervise(quic, now, supervisor::Event::Start, out);
    }

    pub(super) fn stop(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Out) {
        self.session_event(quic, now, session::Event::Close, out);
        self.supervise(quic, now, supervisor::Event::Stop, out);
    }

    pub(super) fn handle_timeout(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Out) {
        if self
            .session
            .as_ref()
            .and_then(Session::poll_timeout)
            .is_some_and(|at| at <= now.mono)
        {
            self.session_event(quic, now, session::Event::Timeout, out);
        }
        if self.supervisor.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.supervise(quic, now, supervisor::Event::Timeout, out);
        }
    }

    /// The outcome of [`ClientEvent::Resolve`].
    pub(super) fn resolved(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        attempt: Attempt,
        addresses: &[SocketAddr],
        out: &mut Out,
    ) {
        match self.resolving {
            Some((waiting, relay)) if waiting == attempt => {
                self.resolving = None;
                self.dial(quic, now, attempt, relay, addresses.iter().copied().collect(), out);
            }
            _ => {}
        }
    }

    pub(super) fn request(&mut self, quic: &mut quic::Endpoint, now: Now, target: Name, out: &mut Out) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        if self.session.is_some() {
            self.session_event(quic, now, session::Event::Request { request, target }, out);
        } else {
            let error = RequestError::NotIdentified;
            out.push(ClientEvent::Failed { request, error });
        }
        request
    }

    pub(super) fn cancel(&mut self, quic: &mut quic::Endpoint, now: Now, request: RequestId, out: &mut Out) {
        self.session_event(quic, now, session::Event::Cancel { request }, out);
    }

    pub(super) fn allow_from(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        names: Option<BTreeSet<Name>>,
        out: &mut Out,
    ) {
        self.allow_from.clone_from(&names);
        self.session_event(quic, now, session::Event::AllowFrom(names), out);
    }

    /// Gives up a tunnel: both ends see `code`, and the relay is told.
    pub(super) fn close_tunnel(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        stream: StreamId,
        code: Code,
        out: &mut Out,
    ) -> bool {
        let Some(link) = &mut self.link else { return false };
        if !link.tunnels.remove(&stream) {
            return false;
        }
        if let Ok(mut conn) = quic.connection(link.conn)
            && let Ok(mut stream) = conn.stream(stream)
        {
            stream.abort(code);
        }
        let event = session::Event::TunnelDone {
            stream: StreamKey(stream.get()),
            end: TunnelEnd::Abandoned,
        };
        self.session_event(quic, now, event, out);
        true
    }

    /// Takes an event of the client's connection; gives back what its owner has to see.
    pub(super) fn on_event(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        event: quic::Event,
        out: &mut Out,
    ) -> Option<quic::Event> {
        match &event {
            quic::Event::Connected { .. } => {
                self.connected(quic, now, out);
                None
            }
            quic::Event::Closed { reason, .. } => {
                self.closed(quic, now, reason.clone(), out);
                Some(event)
            }
            _ => match event.stream() {
                Some(stream) => self.on_stream(quic, now, stream, event, out),
                None => None,
            },
        }
    }

    // ----- the connection ------------------------------------------------------------------------------------------

    fn dial(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        attempt: Attempt,
        relay: RelayIndex,
        mut addresses: VecDeque<SocketAddr>,
        out: &mut Out,
    ) {
        let Some(address) = self.relay(relay) else { return };
        let name = quic::tls::server_name(&address.host).unwrap_or_else(|_| address.host.clone());
        let mut config = self.config.dial.clone();
        while let Some(remote) = addresses.pop_front() {
            let shared = config.handshake_timeout / u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
            config.handshake_timeout = shared.max(MIN_DIAL).min(config.handshake_timeout);
            match quic.connect(now, &config, remote, &name) {
                Ok(conn) => {
                    self.link = Some(Link {
                        attempt,
                        relay,
                        conn,
                        rest: addresses,
                        lane: None,
                        prefixes: BTreeMap::new(),
                        tunnels: BTreeSet::new(),
                    });
                    return;
                }
                Err(error) => tracing::debug!(%remote, %error, "cannot dial"),
            }
        }
        self.supervise(quic, now, supervisor::Event::DialFailed { attempt }, out);
    }

    fn connected(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Out) {
        let Some(link) = &mut self.link else { return };
        let attempt = link.attempt;
        let mut config = self.config.session.clone();
        config.allow_from.clone_from(&self.allow_from);
        let control = quic
            .connection(link.conn)
            .ok()
            .and_then(|mut conn| conn.open(Dir::Bi).ok());
        let (Some(stream), Ok(session)) = (control, Session::new(config)) else {
            // A relay that grants not a single stream.
            if let Ok(mut conn) = quic.connection(link.conn) {
                conn.close(now, Code::PROTOCOL, Bytes::from_static(b"no stream to identify on"));
            }
            return;
        };
        link.lane = Some(Lane::new(
            quic,
            link.conn,
            stream,
            self.config.session.limits.control_backlog,
        ));
        self.session = Some(session);
        self.supervise(quic, now, supervisor::Event::Connected { attempt }, out);
        self.session_event(quic, now, session::Event::Connected, out);
    }

    fn closed(&mut self, quic: &mut quic::Endpoint, now: Now, reason: CloseReason, out: &mut Out) {
        self.session_event(quic, now, session::Event::ConnectionLost, out);
        self.forget_session();
        let Some(link) = self.link.take() else { return };
        let (attempt, established) = (link.attempt, link.lane.is_some());
        let code = reason.code();
        out.push(ClientEvent::Disconnected {
            relay: link.relay,
            reason,
        });
        if established {
            self.supervise(quic, now, supervisor::Event::Lost { attempt, code }, out);
        } else if link.rest.is_empty() {
            self.supervise(quic, now, supervisor::Event::DialFailed { attempt }, out);
        } else {
            self.dial(quic, now, attempt, link.relay, link.rest, out);
        }
    }

    fn supervise(&mut self, quic: &mut quic::Endpoint, now: Now, event: supervisor::Event, out: &mut Out) {
        let mut actions = Vec::new();
        self.supervisor.handle(now, event, &mut actions);
        let mut known = None;
        for action in actions {
            match action {
                supervisor::Action::Dial { relay, attempt } => {
                    self.resolving = Some((attempt, relay));
                    let Some(address) = self.relay(relay) else { continue };
                    match address.socket_addr() {
                        Some(address) => known = Some((attempt, address)),
                        None => {
                            let address = address.clone();
                            out.push(ClientEvent::Resolve { attempt, address });
                        }
                    }
                }
                supervisor::Action::AbandonDial { attempt, .. } => self.abandon(quic, now, attempt, out),
                supervisor::Action::Report(report) => out.push(ClientEvent::Relay(report)),
            }
        }
        // Last, because a dial that cannot even start comes back here.
        if let Some((attempt, address)) = known {
            self.resolved(quic, now, attempt, &[address], out);
        }
    }

    /// Stops an attempt, whatever has become of it. The end of its connection is not reported to the supervisor again.
    fn abandon(&mut self, quic: &mut quic::Endpoint, now: Now, attempt: Attempt, out: &mut Out) {
        if self.resolving.is_some_and(|(waiting, _)| waiting == attempt) {
            self.resolving = None;
        }
        let Some(link) = self.link.take_if(|link| link.attempt == attempt) else {
            return;
        };
        self.session_event(quic, now, session::Event::ConnectionLost, out);
        self.forget_session();
        if let Ok(mut conn) = quic.connection(link.conn) {
            conn.close(now, Code::CANCELLED, Bytes::from_static(b"given up"));
        }
    }

    // ----- streams -------------------------------------------------------------------------------------------------

    fn on_stream(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        stream: StreamId,
        event: quic::Event,
        out: &mut Out,
    ) -> Option<quic::Event> {
        let link = self.link.as_mut()?;
        if link.tunnels.contains(&stream) {
            if let quic::Event::Over { .. } = event {
                link.tunnels.remove(&stream);
                let event = session::Event::TunnelDone {
                    stream: StreamKey(stream.get()),
                    end: TunnelEnd::Finished,
                };
                self.session_event(quic, now, event, out);
            }
            return Some(event);
        }
        if let Some(lane) = link.lane.as_mut().filter(|lane| lane.stream() == stream) {
            match event {
                quic::Event::Writable { .. } => lane.flush(quic),
                quic::Event::Readable { .. } | quic::Event::Reset { .. } => self.read_control(quic, now, out),
                _ => {}
            }
            return None;
        }
        match event {
            quic::Event::StreamOpened { .. } => self.stream_arrived(quic, now, stream, out),
            quic::Event::Readable { .. } => self.read_prefix(quic, now, stream, out),
            quic::Event::Reset { .. } | quic::Event::Finished { .. } => self.stream_lost(quic, now, stream, out),
            // Forgotten without having been handed out; or handed out and given up by its owner.
            quic::Event::Over { .. } => return Some(event),
            _ => {}
        }
        None
    }

    fn stream_arrived(&mut self, quic: &mut quic::Endpoint, now: Now, stream: StreamId, out: &mut Out) {
        let Some(link) = &mut self.link else { return };
        if stream.dir() != Dir::Bi || stream.initiator() != Side::Server {
            self.past.extra_streams += 1;
            return refuse(quic, link.conn, stream, Code::REFUSED);
        }
        let prefix = Prefix {
            bytes: [0; TunnelId::LENGTH],
            filled: 0,
        };
        link.prefixes.insert(stream, prefix);
        let key = StreamKey(stream.get());
        self.session_event(quic, now, session::Event::StreamArrived { stream: key }, out);
        self.read_prefix(quic, now, stream, out);
    }

    /// Reads the id that goes before everything else on a stream, and not a byte more.
    fn read_prefix(&mut self, quic: &mut quic::Endpoint, now: Now, stream: StreamId, out: &mut Out) {
        let Some(link) = &mut self.link else { return };
        let Some(prefix) = link.prefixes.get_mut(&stream) else {
            return;
        };
        let key = StreamKey(stream.get());
        while let Some(room) = prefix.bytes.get_mut(prefix.filled..)
            && !room.is_empty()
        {
            let Ok(mut conn) = quic.connection(link.conn) else {
                return;
            };
            let Ok(mut borrowed) = conn.stream(stream) else { return };
            match borrowed.read(room) {
                // The end, or a reset, comes as an event.
                Ok(0) | Err(_) => return,
                Ok(read) => prefix.filled += read,
            }
        }
        let id = TunnelId::from_bytes(prefix.bytes);
        link.prefixes.remove(&stream);
        self.session_event(quic, now, session::Event::Prefix { stream: key, id }, out);
    }

    fn stream_lost(&mut self, quic: &mut quic::Endpoint, now: Now, stream: StreamId, out: &mut Out) {
        let Some(link) = &mut self.link else { return };
        link.prefixes.remove(&stream);
        refuse(quic, link.conn, stream, Code::CLOSED);
        let key = StreamKey(stream.get());
        self.session_event(quic, now, session::Event::StreamLost { stream: key }, out);
    }

    fn read_control(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Out) {
        while let Some(lane) = self.link.as_mut().and_then(|link| link.lane.as_mut())
            && let Some(read) = lane.read(quic)
        {
            match read {
                Ok(bytes) => self.session_event(quic, now, session::Event::ControlBytes(&bytes), out),
                Err(end) => self.session_event(quic, now, session::Event::ControlEnded(end), out),
            }
        }
    }

    fn forget_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.past += session.stats();
        }
    }

    // ----- the session ---------------------------------------------------------------------------------------------

    fn session_event(&mut self, quic: &mut quic::Endpoint, now: Now, event: session::Event<'_>, out: &mut Out) {
        let Some(session) = &mut self.session else { return };
        let mut actions = Vec::new();
        session.handle(now, event, &mut actions);
        let mut stalled = false;
        for action in actions {
            stalled |= self.session_action(quic, now, action, out);
        }
        // Told once the whole list is carried out, so that messages leave in the order of their causes.
        if stalled {
            self.session_event(quic, now, session::Event::ControlStalled, out);
        }
    }

    /// Carries out one action; true if too much waits to be sent.
    fn session_action(&mut self, quic: &mut quic::Endpoint, now: Now, action: session::Action, out: &mut Out) -> bool {
        if let session::Action::RequestFailed { request, error } = action {
            out.push(ClientEvent::Failed { request, error });
            return false;
        }
        let Some(link) = &mut self.link else { return false };
        match action {
            session::Action::SendControl(bytes) => {
                return link.lane.as_mut().is_some_and(|lane| lane.send(quic, &bytes).is_err());
            }
            session::Action::RejectStream { stream, code } => {
                if let Some(stream) = StreamId::new(stream.0) {
                    link.prefixes.remove(&stream);
                    refuse(quic, link.conn, stream, code);
                }
            }
            session::Action::Identified => {
                let attempt = link.attempt;
                self.supervise(quic, now, supervisor::Event::Identified { attempt }, out);
            }
            session::Action::Opened {
                request,
                tunnel,
                stream,
            } => {
                if let Some((conn, stream)) = hand_out(link, stream) {
                    out.push(ClientEvent::Opened {
                        request,
                        tunnel,
                        conn,
                        stream,
                    });
                }
            }
            session::Action::Incoming { tunnel, source, stream } => {
                if let Some((conn, stream)) = hand_out(link, stream) {
                    out.push(ClientEvent::Incoming {
                        tunnel,
                        source,
                        conn,
                        stream,
                    });
                }
            }
            session::Action::Close { code, reason } => {
                if let Ok(mut conn) = quic.connection(link.conn) {
                    conn.close(now, code, Bytes::from_static(reason.as_bytes()));
                }
            }
            session::Action::RequestFailed { .. } => {}
        }
        false
    }
}

fn hand_out(link: &mut Link, stream: StreamKey) -> Option<(ConnectionHandle, StreamId)> {
    let stream = StreamId::new(stream.0)?;
    link.tunnels.insert(stream);
    Some((link.conn, stream))
}
