//! A relay: the machine inside an endpoint, with handles.

use std::{collections::VecDeque, io, net::SocketAddr, task::Poll};

use macula_proto::{
    Code, Event,
    quic::{ConfigError, ConnectionStats, EndpointStats, ListenConfig, TransportConfig, tls::ServerTls},
    rpc::router::{RouterConfig, RouterStats, RouterStatus},
    tunnel::relay::{AccessRules, RelayConfig, RelayStats, RelayStatus, Report, TunnelBytes},
};

use super::{invalid, key};
use crate::{Context, Endpoint, Extension, Options, Runtime};

/// Reports kept for a user that does not fetch them; then the oldest are dropped and counted.
const MAX_REPORTS: usize = 65_536;

/// A relay that nodes connect to, and through which they reach each other.
///
/// Dropping the last clone closes it at once. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct RelayServer {
    /// The one that decides.
    endpoint: Endpoint,
    /// The others on its port.
    others: Vec<Endpoint>,
}

/// What a relay has to say about itself at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelaySnapshot {
    /// Names, connections and open tunnels.
    pub status: RelayStatus,
    /// What each open tunnel has carried, in the order of [`RelayStatus::tunnels`].
    pub bytes: Vec<TunnelBytes>,
    /// Figures of each connection, in the order of [`RelayStatus::connections`].
    pub connections: Vec<ConnectionStats>,
    /// Counters of the relay.
    pub relay: RelayStats,
    /// The router that runs beside it, if one does: its state, and its counters.
    pub router: Option<(RouterStatus, RouterStats)>,
    /// Counters of its endpoint.
    pub endpoint: EndpointStats,
    /// Reports dropped because nobody fetched them.
    pub reports_dropped: u64,
}

/// Reports on their way to the user.
#[derive(Debug, Default)]
struct Reports {
    queue: VecDeque<Report>,
    dropped: u64,
}

impl RelayServer {
    /// Binds a socket and serves a relay on it, with the transport settings of relays. `tls` needs the ALPN `macula-dist`,
    /// and `macula` for the router that passes calls between nodes.
    ///
    /// # Errors
    /// As [`Endpoint::bind`]; [`io::ErrorKind::InvalidInput`] for settings that cannot be used.
    pub fn bind<R: Runtime>(addr: SocketAddr, tls: &ServerTls, relay: RelayConfig) -> io::Result<Self> {
        let options = Options {
            limits: relay.limits.clone(),
            ..Options::relay()
        };
        let endpoint = Endpoint::bind::<R>(addr, options)?;
        let mut listen = ListenConfig::new(tls.build(endpoint.clock()).map_err(invalid)?);
        listen.transport = TransportConfig::relay_listener();
        Self::serve(endpoint, relay, listen).map_err(invalid)
    }

    /// Makes an endpoint a relay: it listens, and serves connections with ALPN `macula-dist`. On connections with ALPN `macula`,
    /// if `listen` offers that, a router with the default settings passes calls between nodes. [`Options::relay`] and
    /// [`TransportConfig::relay_listener`] are what [`bind`](Self::bind) makes it from.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range.
    pub fn serve(endpoint: Endpoint, relay: RelayConfig, listen: ListenConfig) -> Result<Self, ConfigError> {
        Self::serve_with(endpoint, relay, Some(RouterConfig::default()), listen)
    }

    /// As [`serve`](Self::serve), with settings of one's own for the router, or without one.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range.
    pub fn serve_with(
        endpoint: Endpoint,
        relay: RelayConfig,
        router: Option<RouterConfig>,
        listen: ListenConfig,
    ) -> Result<Self, ConfigError> {
        endpoint.add_extension(Reports::default());
        endpoint.with(|cx| cx.endpoint().serve_relay(relay));
        if let Some(router) = router {
            endpoint.with(|cx| cx.endpoint().serve_router(router));
        }
        endpoint.listen(listen)?;
        let others = Vec::new();
        Ok(Self { endpoint, others })
    }

    /// Makes the endpoints that [`start_shards`](crate::start_shards) bound to one port one relay, so that it can use as many
    /// processors. Nodes reach each other wherever the kernel puts them. The caps of [`Limits`](macula_proto::Limits) on connections
    /// and handshakes hold for each of the sockets. No router runs beside it. If one of the sockets fails, all of the relay ends.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that is out of range: `shard` if these are not all endpoints of one port, in their order.
    pub fn serve_shards(
        endpoints: Vec<Endpoint>,
        relay: &RelayConfig,
        listen: &ListenConfig,
    ) -> Result<Self, ConfigError> {
        let local = endpoints.first().map(Endpoint::local_addr);
        for (index, endpoint) in (0..).zip(&endpoints) {
            let shard = endpoint.with(|cx| cx.endpoint().shard());
            let fits = shard.index() == index && usize::from(shard.count()) == endpoints.len();
            if !fits || Some(endpoint.local_addr()) != local {
                return Err(ConfigError("shard"));
            }
        }
        let mut others = endpoints;
        if others.is_empty() {
            return Err(ConfigError("shard"));
        }
        let endpoint = others.remove(0);
        endpoint.add_extension(Reports::default());
        // All of them are there before the first connection comes.
        for shard in std::iter::once(&endpoint).chain(&others) {
            shard.with(|cx| cx.endpoint().serve_relay(relay.clone()));
        }
        for shard in std::iter::once(&endpoint).chain(&others) {
            shard.listen(listen.clone())?;
        }
        Ok(Self { endpoint, others })
    }

    /// The endpoint of the relay; of several, the one that decides.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// All endpoints of the relay, in the order of their [shards](macula_proto::quic::Shard).
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        std::iter::once(&self.endpoint).chain(&self.others)
    }

    /// The next thing that happened. `None` when the driver has stopped. Cancellation-safe.
    ///
    /// Up to 65,536 reports are kept for a user that is slow.
    pub async fn next_report(&self) -> Option<Report> {
        let next = |reports: &mut Reports, _: &mut Context<'_>| match reports.queue.pop_front() {
            Some(report) => Poll::Ready(report),
            None => Poll::Pending,
        };
        self.endpoint.wait(key::REPORTS, next).await
    }

    /// A snapshot. Takes time in proportion to what the relay holds, with the relay stopped meanwhile.
    pub fn snapshot(&self) -> RelaySnapshot {
        let dropped = self.endpoint.with_extension(|reports: &mut Reports, _| reports.dropped);
        let mut snapshot = self.endpoint.with(|cx| {
            let endpoint = cx.endpoint();
            let status = endpoint.relay_status().unwrap_or_default();
            RelaySnapshot {
                bytes: vec![TunnelBytes::default(); status.tunnels.len()],
                connections: vec![ConnectionStats::default(); status.connections.len()],
                relay: endpoint.relay_stats().unwrap_or_default(),
                router: endpoint.router_status().zip(endpoint.router_stats()),
                endpoint: EndpointStats::default(),
                reports_dropped: dropped.unwrap_or_default(),
                status,
            }
        });
        for shard in self.endpoints() {
            shard.with(|cx| snapshot.add(cx.endpoint()));
        }
        snapshot
    }

    /// Takes nothing new from now on: existing tunnels go on, nodes without tunnels are told to go elsewhere.
    /// [`Report::Drained`] follows when the last is gone. The router does the same with calls, without a report: its
    /// [status](RelaySnapshot::router) shows no nodes when it has drained.
    pub fn drain(&self) {
        self.endpoint.with(|cx| {
            let now = cx.now();
            cx.endpoint().drain_relay(now);
            cx.endpoint().drain_router(now);
        });
    }

    /// Replaces the access rules; nodes that may not hold their name any more are closed.
    pub fn set_access(&self, access: AccessRules) {
        self.endpoint.with(|cx| {
            let now = cx.now();
            cx.endpoint().set_relay_access(now, access);
        });
    }

    /// Closes everything at once with [`Code::SHUTDOWN`], and waits until the nodes are told, as far as the network lets
    /// them.
    pub async fn close(&self) {
        for shard in self.endpoints() {
            shard.close(Code::SHUTDOWN, "shutdown");
        }
        for shard in self.endpoints() {
            shard.wait_idle().await;
        }
    }
}

impl RelaySnapshot {
    /// Adds what one endpoint of the relay knows.
    fn add(&mut self, endpoint: &mut macula_proto::Endpoint) {
        for (sum, tunnel) in self.bytes.iter_mut().zip(&self.status.tunnels) {
            let read = endpoint.relay_tunnel_bytes(tunnel.tunnel).unwrap_or_default();
            sum.to_target += read.to_target;
            sum.to_requester += read.to_requester;
        }
        for (figures, known) in self.connections.iter_mut().zip(&self.status.connections) {
            if let Some((_, Some(handle))) = endpoint.relay_connection(known.conn)
                && let Ok(conn) = endpoint.quic().connection(handle)
            {
                *figures = conn.stats();
            }
        }
        self.endpoint += endpoint.quic().stats();
    }
}

impl Extension for Reports {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> Option<Event> {
        let Event::Relay(report) = event else {
            return Some(event);
        };
        if self.queue.len() >= MAX_REPORTS {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back(report);
        cx.wake(key::REPORTS);
        None
    }
}
