//! Composition: what each connection runs, and where its events go.
//!
//! An [`Endpoint`] is one UDP socket's worth of connections. Each connection is either in the hands of the embedding
//! program, which sees its events as [`Event::Quic`], or run by a machine:
//!
//! | connection | run by | events |
//! |---|---|---|
//! | accepted, ALPN `macula-dist`, after [`serve_relay`](Endpoint::serve_relay) | the relay machine | [`Event::Relay`] |
//! | dialled by a node of [`relay_client`](Endpoint::relay_client) | its session and supervisor | [`Event::Client`]; those of tunnels handed out as [`Event::Quic`] |
//! | dialled with [`connect_peer`](Endpoint::connect_peer) | its peering machine | [`Event::Peer`] |
//! | accepted, ALPN `macula`, after [`serve_peers`](Endpoint::serve_peers), first byte 0 | its peering machine | [`Event::Peer`] |
//! | dialled with [`connect_rpc`](Endpoint::connect_rpc) | its RPC session | [`Event::Rpc`] |
//! | accepted, ALPN `macula`, after [`serve_rpc`](Endpoint::serve_rpc), first byte 1 | its RPC session | [`Event::Rpc`] |
//! | accepted, ALPN `macula`, after [`serve_router`](Endpoint::serve_router), first byte 1 | the router machine | none |
//! | dialled with [`connect_dist`](Endpoint::connect_dist) | its distribution controller | [`Event::Dist`] |
//! | accepted, ALPN `erlang-dist`, after [`serve_dist`](Endpoint::serve_dist) | its distribution controller | [`Event::Dist`] |
//! | all others | nobody | [`Event::Quic`] |

mod address;
mod client;
mod dist;
mod lane;
mod peer;
mod relay;
mod router;
mod rpc;
mod shards;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use bytes::BytesMut;

pub use address::{DEFAULT_RELAY_PORT, ParseAddressError, RelayAddress};
pub use client::{ClientConfigError, ClientEvent, ClientId, RelayClientConfig};
pub use dist::{
    DistConfig, DistConnectError, DistEnd, DistEvent, DistId, DistInfo, DistSendError, DistStat, DistStreamError,
};
pub use peer::{PeerEvent, PeerId, PeerInfo, PeerItem, PeerListenConfig, PeerServiceStats};
pub use rpc::{IncomingCall, RpcEvent, RpcId, RpcInfo, UnknownLink};
pub use shards::ShardMessage;

use crate::{
    Code, Limits, Now, Rng,
    deadlines::{Deadlines, earliest},
    quic::{self, ConfigError, ConnectionHandle, DatagramMeta, EndpointConfig, Side, StreamId, Transmit, alpn},
    tunnel::{
        Name,
        client::{
            session::{RequestId, SessionStats, SessionStatus},
            supervisor::{Attempt, RelayIndex, SupervisorStatus},
        },
        relay::{AccessRules, RelayConfig, RelayStats, RelayStatus, Report, TunnelBytes, TunnelKey},
    },
};
use client::ClientRole;
use dist::DistRole;
use peer::PeerRole;
use relay::RelayRole;
use router::RouterRole;
use rpc::RpcRole;

/// Everything that shares one UDP socket: connections in the hands of the embedding program, and those that a machine
/// runs.
///
/// Hand in datagrams and the time; poll events and datagrams until there are none; sleep until
/// [`poll_timeout`](Self::poll_timeout) or the next input.
#[derive(Debug)]
pub struct Endpoint {
    quic: quic::Endpoint,
    rng: Rng,
    relay: Option<RelayRole>,
    router: Option<RouterRole>,
    peers: PeerRole,
    rpc: RpcRole,
    /// Of connections that turned out to be no peers.
    returned: VecDeque<quic::Event>,
    dist: DistRole,
    clients: BTreeMap<ClientId, Client>,
    next_client: u64,
    /// Which node runs a connection.
    by_conn: HashMap<ConnectionHandle, ClientId>,
    deadlines: Deadlines<ClientId>,
    events: VecDeque<Event>,
    last_timeout: Option<Instant>,
}

/// A node, and how it stands in the endpoint's tables.
#[derive(Debug)]
struct Client {
    role: ClientRole,
    conn: Option<ConnectionHandle>,
    deadline: Option<Instant>,
}

/// An occurrence at an [`Endpoint`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// On a connection that no machine runs, or on a tunnel that a node was given.
    Quic(quic::Event),
    /// At the relay of this endpoint.
    Relay(Report),
    /// At a node of this endpoint.
    Client {
        /// The node.
        client: ClientId,
        /// What happened.
        event: ClientEvent,
    },
    /// On a peering connection of this endpoint.
    Peer {
        /// The connection.
        peer: PeerId,
        /// What happened.
        event: PeerEvent,
    },
    /// On a call, or on a link that carries calls.
    Rpc(RpcEvent),
    /// On a distribution connection of this endpoint.
    Dist {
        /// The connection.
        dist: DistId,
        /// What happened.
        event: DistEvent,
    },
}

/// There is no such node at this endpoint (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such node")]
pub struct UnknownClient;

impl Endpoint {
    /// An endpoint that can dial and does not listen yet. `entropy` must come from the operating system: tunnel ids and
    /// jitter follow from it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range.
    pub fn new(config: &EndpointConfig, limits: Limits, entropy: [u8; 32]) -> Result<Self, ConfigError> {
        Ok(Self::compose(
            quic::Endpoint::new(config, limits)?,
            Rng::from_entropy(entropy),
        ))
    }

    /// An endpoint for simulations: everything it draws follows from `seed`, so it must never face a network; see
    /// [`quic::Endpoint::simulated`] for what that asks of TLS. [`sim::World`](crate::sim::World) makes such endpoints.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "sim")]
    pub fn simulated(config: &EndpointConfig, limits: Limits, seed: u64) -> Result<Self, ConfigError> {
        let quic = quic::Endpoint::simulated(config, limits, seed)?;
        Ok(Self::compose(quic, Rng::from_seed(seed.wrapping_add(1))))
    }

    fn compose(quic: quic::Endpoint, mut rng: Rng) -> Self {
        let peers = PeerRole::new(rng.fork());
        let rpc = RpcRole::new(rng.fork());
        let dist = DistRole::new(rng.fork());
        Self {
            quic,
            rng,
            relay: None,
            router: None,
            peers,
            rpc,
            returned: VecDeque::new(),
            dist,
            clients: BTreeMap::new(),
            next_client: 0,
            by_conn: HashMap::new(),
            deadlines: Deadlines::default(),
            events: VecDeque::new(),
            last_timeout: None,
        }
    }

    // ----- the edge ------------------------------------------------------------------------------------------------

    /// Takes one UDP datagram; see [`quic::Endpoint::handle_datagram`].
    pub fn handle_datagram(&mut self, now: Now, meta: DatagramMeta, data: BytesMut) {
        self.quic.handle_datagram(now, meta, data);
    }

    /// Fires everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.last_timeout = Some(now.mono);
        self.quic.handle_timeout(now);
        self.with_relay(|relay, quic, out| relay.handle_timeout(quic, now, out));
        self.with_router(|router, quic| router.handle_timeout(quic, now));
        while let Some(client) = self.deadlines.pop_due(now.mono) {
            if let Some(client) = self.clients.get_mut(&client) {
                client.deadline = None;
            }
            let _ = self.with_client(client, |role, quic, out| role.handle_timeout(quic, now, out));
        }
        self.with_peers(|peers, quic, out| peers.handle_timeout(quic, now, out));
        self.with_rpc(|rpc, cx| rpc.handle_timeout(cx, now));
        self.with_dist(|dist, cx| dist.handle_timeout(cx, now));
    }

    /// Writes the next datagrams; see [`quic::Endpoint::poll_transmit`].
    pub fn poll_transmit(&mut self, now: Now, max_datagrams: NonZeroUsize, buf: &mut Vec<u8>) -> Option<Transmit> {
        let transmit = self.quic.poll_transmit(now, max_datagrams, buf);
        if transmit.is_none() {
            self.peers.transmitted(now);
        }
        transmit
    }

    /// The next event. Poll until it answers `None`, after any input: tunnels of a relay move meanwhile.
    pub fn poll_event(&mut self, now: Now) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Some(event) = self.returned.pop_front() {
                if let Some(event) = self.claim(now, event) {
                    self.events.push_back(Event::Quic(event));
                }
                continue;
            }
            if let Some(event) = self.quic.poll_event() {
                if let Some(event) = self.route(now, event) {
                    // What a machine said about it on the way comes first.
                    self.events.push_back(Event::Quic(event));
                }
                continue;
            }
            if self.with_peers(|peers, quic, out| peers.flush(quic, now, out)) {
                continue;
            }
            if self.with_rpc(|rpc, cx| rpc.run(cx, now)) {
                continue;
            }
            if self.with_dist(|dist, cx| dist.run(cx, now)) {
                continue;
            }
            let moved = self.with_relay(|relay, quic, out| relay.run(quic, now, out));
            if moved != Some(true) {
                return None;
            }
        }
    }

    /// Whether [`poll_event`](Self::poll_event) has something to do or to tell that a call of a method left behind. What
    /// datagrams and deadlines bring is not meant.
    pub fn has_news(&self) -> bool {
        !self.events.is_empty() || self.rpc.has_output() || self.dist.has_output()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next; `None` when only input can bring news.
    ///
    /// Once events and datagrams were polled to the end it is later than the `now` of the time-out just handled; before
    /// that it is now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let relay = self.relay.as_ref().and_then(RelayRole::poll_timeout);
        let router = self.router.as_ref().and_then(RouterRole::poll_timeout);
        let mut machines = earliest(earliest(relay, router), self.deadlines.earliest());
        machines = earliest(machines, self.peers.poll_timeout());
        machines = earliest(machines, self.rpc.poll_timeout());
        machines = earliest(machines, self.dist.poll_timeout());
        // A deadline set in the past is served at the next tick, never twice in the same one.
        if let (Some(at), Some(last)) = (machines, self.last_timeout) {
            machines = Some(at.max(last + Duration::from_micros(1)));
        }
        earliest(self.quic.poll_timeout(), machines)
    }

    /// The connections in the hands of the embedding program, and the listener.
    ///
    /// Connections that a machine runs are reached by it too, for figures; closing one is fine, reading its streams would
    /// take bytes from the machine, except for tunnels that were handed out.
    pub fn quic(&mut self) -> &mut quic::Endpoint {
        &mut self.quic
    }

    // ----- as a relay ----------------------------------------------------------------------------------------------

    /// Runs a relay on connections accepted from now on with ALPN `macula-dist`. [`quic::Endpoint::listen`] comes beside
    /// it. Of several endpoints on a port each carries a part of the relay, and the one with index 0 decides: access rules, status
    /// and reports are there.
    pub fn serve_relay(&mut self, config: RelayConfig) {
        let rng = self.rng.fork();
        self.relay = Some(RelayRole::new(config, rng, self.quic.shard()));
    }

    /// Whether a relay runs here.
    pub fn is_relay(&self) -> bool {
        self.relay.is_some()
    }

    /// Makes the relay take nothing new; existing tunnels go on, clients without tunnels are closed with
    /// [`Code::DRAINING`], a second after the last one if they had any.
    pub fn drain_relay(&mut self, now: Now) {
        self.with_relay(|relay, quic, out| relay.drain(quic, now, out));
    }

    /// Replaces the access rules of the relay.
    pub fn set_relay_access(&mut self, now: Now, access: AccessRules) {
        self.with_relay(|relay, quic, out| relay.set_access(quic, now, access, out));
    }

    /// A snapshot of the relay, if one runs here.
    pub fn relay_status(&self) -> Option<RelayStatus> {
        self.relay.as_ref()?.status()
    }

    /// Counters of the relay, if one runs here.
    pub fn relay_stats(&self) -> Option<RelayStats> {
        self.relay.as_ref()?.stats()
    }

    /// What an open tunnel of the relay has carried so far: of several endpoints on a port, what each of them has read of it.
    pub fn relay_tunnel_bytes(&self, tunnel: TunnelKey) -> Option<TunnelBytes> {
        self.relay.as_ref()?.tunnel_bytes(tunnel)
    }

    // ----- as a node -----------------------------------------------------------------------------------------------

    /// Connects a node to its relays, and keeps it connected until [`stop_client`](Self::stop_client).
    ///
    /// # Errors
    /// [`ClientConfigError`] when there is no relay or the name cannot be used.
    pub fn relay_client(&mut self, now: Now, config: RelayClientConfig) -> Result<ClientId, ClientConfigError> {
        let role = ClientRole::new(config, self.rng.fork())?;
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let client = Client {
            role,
            conn: None,
            deadline: None,
        };
        self.clients.insert(id, client);
        let _ = self.with_client(id, |role, quic, out| role.start(quic, now, out));
        Ok(id)
    }

    /// Answers [`ClientEvent::Resolve`] with the addresses of a relay, best first; none means that it has none.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn resolved(
        &mut self,
        now: Now,
        client: ClientId,
        attempt: Attempt,
        addresses: &[SocketAddr],
    ) -> Result<(), UnknownClient> {
        self.with_client(client, |role, quic, out| {
            role.resolved(quic, now, attempt, addresses, out)
        })
    }

    /// Asks for a tunnel to the node named `target`. [`ClientEvent::Opened`] or [`ClientEvent::Failed`] follows, after
    /// [`Limits::request_timeout`] at the latest; before the node is identified at a relay it fails at once.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn open_tunnel(&mut self, now: Now, client: ClientId, target: Name) -> Result<RequestId, UnknownClient> {
        self.with_client(client, |role, quic, out| role.request(quic, now, target, out))
    }

    /// Gives up a request. [`ClientEvent::Failed`] follows unless its outcome is known already.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn cancel_request(&mut self, now: Now, client: ClientId, request: RequestId) -> Result<(), UnknownClient> {
        self.with_client(client, |role, quic, out| role.cancel(quic, now, request, out))
    }

    /// Gives up a tunnel at once: its streams are reset with `code`, and the relay is told to end it. False if it is over
    /// already.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn close_tunnel(
        &mut self,
        now: Now,
        client: ClientId,
        stream: StreamId,
        code: Code,
    ) -> Result<bool, UnknownClient> {
        self.with_client(client, |role, quic, out| {
            role.close_tunnel(quic, now, stream, code, out)
        })
    }

    /// Accepts tunnels only from these names from now on; `None`: from everybody.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn allow_tunnels_from(
        &mut self,
        now: Now,
        client: ClientId,
        names: Option<BTreeSet<Name>>,
    ) -> Result<(), UnknownClient> {
        self.with_client(client, |role, quic, out| role.allow_from(quic, now, names, out))
    }

    /// State of a node: of its way to the relays, and of its session while there is one.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn client_status(&self, client: ClientId) -> Result<(SupervisorStatus, Option<SessionStatus>), UnknownClient> {
        Ok(self.clients.get(&client).ok_or(UnknownClient)?.role.status())
    }

    /// Counters of a node, over all its sessions so far.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn client_stats(&self, client: ClientId) -> Result<SessionStats, UnknownClient> {
        Ok(self.clients.get(&client).ok_or(UnknownClient)?.role.stats())
    }

    /// The connection of a node to its relay, or the dial that shall become it.
    ///
    /// # Errors
    /// [`UnknownClient`] if the node was stopped.
    pub fn client_connection(&self, client: ClientId) -> Result<Option<ConnectionHandle>, UnknownClient> {
        Ok(self.clients.get(&client).ok_or(UnknownClient)?.conn)
    }

    /// The address of one of a node's relays.
    pub fn relay_address(&self, client: ClientId, relay: RelayIndex) -> Option<&RelayAddress> {
        self.clients.get(&client)?.role.relay(relay)
    }

    /// Disconnects a node from its relay and forgets it. Its requests fail, its tunnels end.
    ///
    /// # Errors
    /// [`UnknownClient`] if it was stopped before.
    pub fn stop_client(&mut self, now: Now, client: ClientId) -> Result<(), UnknownClient> {
        self.with_client(client, |role, quic, out| role.stop(quic, now, out))?;
        if let Some(gone) = self.clients.remove(&client) {
            self.deadlines.update(client, gone.deadline, None);
            gone.conn.map(|conn| self.by_conn.remove(&conn));
        }
        Ok(())
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    /// Gives an event to the machine that runs its connection; what is left is for the embedding program.
    fn route(&mut self, now: Now, event: quic::Event) -> Option<quic::Event> {
        let Some(conn) = event.connection() else {
            return Some(event);
        };
        if let quic::Event::Connected {
            side: Side::Server,
            alpn: Some(protocol),
            ..
        } = &event
            && protocol.as_ref() == alpn::MACULA_DIST
            && self.relay.is_some()
        {
            self.with_relay(|relay, quic, out| relay.connected(quic, now, conn, out));
            return None;
        }
        if self.relay.as_ref().is_some_and(|relay| relay.runs(conn)) {
            self.with_relay(|relay, quic, out| relay.on_event(quic, now, &event, out));
            return None;
        }
        if self.dist.takes(&event) {
            self.with_dist(|dist, cx| dist.on_event(cx, now, event));
            return None;
        }
        if self.peers.takes(&event) {
            self.with_peers(|peers, quic, out| peers.on_event(quic, now, event, out));
            return None;
        }
        self.claim(now, event)
    }

    /// The same behind the door of peers, which looks first at what comes with ALPN `macula` and gives back what is not its own.
    fn claim(&mut self, now: Now, event: quic::Event) -> Option<quic::Event> {
        let Some(conn) = event.connection() else {
            return Some(event);
        };
        if self.router.as_ref().is_some_and(|router| router.takes(&event)) {
            self.with_router(|router, quic| router.on_event(quic, now, &event));
            return None;
        }
        if self.rpc.takes(&event) {
            self.with_rpc(|rpc, cx| rpc.on_event(cx, now, event));
            return None;
        }
        if let quic::Event::Closed { conn, .. } = event {
            self.with_rpc(|rpc, cx| rpc.connection_closed(cx, now, conn));
        }
        match self.by_conn.get(&conn).copied() {
            Some(client) => self
                .with_client(client, |role, quic, out| role.on_event(quic, now, event, out))
                .ok()
                .flatten(),
            None => Some(event),
        }
    }

    fn with_relay<T>(
        &mut self,
        run: impl FnOnce(&mut RelayRole, &mut quic::Endpoint, &mut Vec<Report>) -> T,
    ) -> Option<T> {
        let relay = self.relay.as_mut()?;
        let mut reports = Vec::new();
        let result = run(relay, &mut self.quic, &mut reports);
        self.events.extend(reports.into_iter().map(Event::Relay));
        Some(result)
    }

    fn with_client<T>(
        &mut self,
        client: ClientId,
        run: impl FnOnce(&mut ClientRole, &mut quic::Endpoint, &mut Vec<ClientEvent>) -> T,
    ) -> Result<T, UnknownClient> {
        let entry = self.clients.get_mut(&client).ok_or(UnknownClient)?;
        let mut events = Vec::new();
        let result = run(&mut entry.role, &mut self.quic, &mut events);
        let events = events.into_iter().map(|event| Event::Client { client, event });
        self.events.extend(events);
        let conn = entry.role.connection();
        if conn != entry.conn {
            entry.conn.map(|old| self.by_conn.remove(&old));
            conn.map(|new| self.by_conn.insert(new, client));
            entry.conn = conn;
        }
        let deadline = entry.role.poll_timeout();
        self.deadlines.update(client, entry.deadline, deadline);
        entry.deadline = deadline;
        Ok(result)
    }
}
