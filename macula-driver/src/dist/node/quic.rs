//! A node's connections over QUIC.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::{
        handshake::{Failure, Standing},
        pool::PoolConfig,
        streams::Side,
        user::{Priority, UserStream},
    },
    endpoint::{DistConfig, DistConnectError, DistEnd, DistStat},
    quic::{
        ConnectionStats, ListenConfig, TransportConfig, alpn,
        tls::{ClientAuth, ClientTls, Credentials, Reloadable, ServerTls, Trust, server_name},
    },
    wire::{dist::handshake::Carrier, etf::Atom},
};

use super::{
    ConnectError, DownReason,
    exchange::{FAREWELL, hand_in},
    handle::Node,
    shared::{Link, Shared, State},
    sync::{Either, race},
};
use crate::{
    Endpoint,
    dist::{DialError, DistAcceptor, DistConnection, DistStream, StreamError},
};

/// Connections that are up and wait for the node to look at them.
const BACKLOG: usize = 1024;

/// Accepted connections that may be in their handshake at once.
const HANDSHAKING: usize = 256;

/// Messages fetched at once.
const FETCH: usize = 256;

/// How a node speaks QUIC.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuicConfig {
    /// Whom it believes, when it dials, to be who they say. The cookie is proved on either side in any case, but with
    /// [`Trust::Insecure`] somebody on the path can pass that proof on and read everything.
    pub trust: Trust,
    /// The certificate that it shows to nodes that call, and to those it dials that ask for one. `None`, the default: it only dials,
    /// and lets nobody in.
    pub credentials: Option<Reloadable>,
    /// What nodes that call have to show. Default nothing.
    pub client_auth: ClientAuth,
    /// What the certificate of a node that is dialled must be valid for, if `trust` looks at that. Default: the host in the node's
    /// name.
    pub server_name: Option<String>,
    /// Nodes that may call; `None`, the default: all that know the cookie.
    pub allowed: Option<BTreeSet<Atom>>,
    /// Transport of the connections. Default [`TransportConfig::dist`], with 4,096 streams.
    pub transport: TransportConfig,
    /// Bytes of messages that may be on their way, if that has to be bound: deployed nodes give up the connection when it is more
    /// than about 4 MiB. Default 2 MiB; `None` is faster, between nodes of this implementation.
    pub in_flight: Option<u64>,
}

impl QuicConfig {
    /// With the defaults for everything but whom to trust.
    pub fn new(trust: Trust) -> Self {
        let mut transport = TransportConfig::dist();
        transport.max_bidi_streams = 4096;
        Self {
            trust,
            credentials: None,
            client_auth: ClientAuth::None,
            server_name: None,
            allowed: None,
            transport,
            in_flight: PoolConfig::new(Side::Client).in_flight,
        }
    }

    /// Shows this certificate, and lets nodes in.
    #[must_use]
    pub fn credentials(mut self, credentials: impl Into<Reloadable>) -> Self {
        self.credentials = Some(credentials.into());
        self
    }

    fn dial(&self) -> ClientTls {
        // Nothing is sent early, but it shows whether a session was resumed.
        let tls = ClientTls::new(self.trust.clone()).early_data(true);
        let credentials: Option<Credentials> = self.credentials.as_ref().map(Reloadable::current);
        match credentials {
            Some(credentials) => tls.credentials(credentials),
            None => tls,
        }
    }
}

/// A connection over QUIC at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QuicLink {
    /// Where the other node is.
    pub remote: SocketAddr,
    /// Which end this node is: whoever dialled is the client.
    pub side: Side,
    /// Whether the session of an earlier connection was resumed. Only the node that dialled knows.
    pub resumed: bool,
    /// Whether so much waits to be sent that no more messages are taken for now.
    pub congested: bool,
    /// Packets received and sent, what waits, and counters.
    pub stat: DistStat,
    /// Figures of the QUIC connection.
    pub transport: ConnectionStats,
    /// Streams that are not over.
    pub streams: Vec<UserStream>,
}

/// The socket of a node, and what dials need.
#[derive(Debug)]
pub(super) struct Quic {
    pub(super) endpoint: Endpoint,
    server_name: Option<String>,
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn no_quic() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the node has no socket for QUIC yet")
}

/// Distribution over QUIC.
impl Node {
    /// Speaks QUIC on an endpoint from now on: dials, and lets nodes in if there are credentials. The endpoint is the node's then, and
    /// is closed with it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if there is an endpoint already: a node has one. [`io::ErrorKind::InvalidInput`] for settings
    /// that are of no use.
    pub fn serve_quic(&self, endpoint: Endpoint, config: QuicConfig) -> io::Result<()> {
        let shared = self.shared();
        let dial = config.dial();
        // What is wrong with it is to be told now and not at each dial.
        let alpn = [alpn::ERLANG_DIST];
        dial.clone().alpn(alpn).build(endpoint.clock()).map_err(invalid)?;
        let listen = match &config.credentials {
            Some(credentials) => {
                // Sessions of clients whose certificates have to be valid are not resumed.
                let resumes = !matches!(config.client_auth, ClientAuth::RequireRoots(_));
                let tls = ServerTls::new(credentials.clone()).alpn(alpn).early_data(resumes);
                let tls = tls.client_auth(config.client_auth.clone());
                let mut listen = ListenConfig::new(tls.build(endpoint.clock()).map_err(invalid)?);
                listen.transport = config.transport.clone();
                Some(listen)
            }
            None => None,
        };
        let mut dist = DistConfig::new(shared.handshake(Carrier::Quic), dial);
        dist.controller.net_tick = Some(shared.config.net_ticktime);
        dist.controller.drain = FAREWELL;
        dist.controller.pool.max_message = shared.config.limits.max_message;
        dist.controller.pool.in_flight = config.in_flight;
        dist.transport = config.transport;
        dist.dial_timeout = shared.config.setup_time;
        dist.allowed = config.allowed;
        dist.handshaking = HANDSHAKING.min(shared.config.connections.max(1));
        let quic = Quic {
            endpoint: endpoint.clone(),
            server_name: config.server_name,
        };
        if shared.quic.set(quic).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the node speaks QUIC already",
            ));
        }
        endpoint.serve_dist(dist, BACKLOG);
        if let Some(listen) = listen {
            endpoint.listen(listen).map_err(invalid)?;
        }
        shared.spawn(accept(Arc::clone(shared), endpoint));
        Ok(())
    }

    /// Where the node's socket for QUIC is bound, if it has one.
    pub fn quic_address(&self) -> Option<SocketAddr> {
        self.shared().quic.get().map(|quic| quic.endpoint.local_addr())
    }

    /// Connects over QUIC to the node of that name, and waits until it is done. At once there if the nodes are connected; if both dial at
    /// once, one connection stays. Dropping the future leaves the dial to go on. The session of an earlier connection with the node is
    /// resumed.
    ///
    /// # Errors
    /// [`ConnectError`]; with [`io::ErrorKind::NotConnected`] if the node does not speak QUIC yet.
    pub async fn connect_quic(&self, name: &str, address: SocketAddr) -> Result<(), ConnectError> {
        let Some(quic) = self.shared().quic.get() else {
            return Err(ConnectError::Io(no_quic()));
        };
        let host = name.split_once('@').map_or(name, |(_, host)| host);
        let server = match &quic.server_name {
            Some(name) => name.clone(),
            // A host that is no name can be pinned all the same.
            None => server_name(host).unwrap_or_else(|_| "node".into()),
        };
        let endpoint = quic.endpoint.clone();
        self.dial(name, |shared, (id, link), peer, deadline| async move {
            let dial = endpoint.connect_dist(peer.clone(), address, &server);
            let dial = shared.until(deadline, dial);
            let connection = match race(dial, link.close.raised()).await {
                Either::First(Some(Ok(connection))) => connection,
                Either::First(Some(Err(error))) => return Err(error.into()),
                Either::First(None) => return Err(ConnectError::Io(io::ErrorKind::TimedOut.into())),
                Either::Second(()) => return Err(ConnectError::Handshake(Failure::Aborted)),
            };
            begin(shared, (id, link), connection);
            Ok(())
        })
        .await
    }

    /// Lets in only these nodes over QUIC from now on; `None`: all who know the cookie. Who is in stays in.
    pub fn allow_quic(&self, nodes: Option<BTreeSet<Atom>>) {
        if let Some(quic) = self.shared().quic.get() {
            quic.endpoint.allow_dist(nodes);
        }
    }

    /// The connection with a node as it is now, if it is over QUIC.
    pub fn quic_link(&self, name: &str) -> Option<QuicLink> {
        let connection = self.quic_connection(name)?;
        let info = connection.info()?;
        Some(QuicLink {
            remote: info.remote,
            side: info.side,
            resumed: connection.is_resumed(),
            congested: info.congested,
            stat: connection.stat()?,
            transport: connection.transport_stats()?,
            streams: connection.streams(),
        })
    }

    /// Sends a tick to a node now, if it is connected over QUIC. Ticks are sent by themselves when they are due.
    pub fn tick(&self, name: &str) -> bool {
        let connection = self.quic_connection(name);
        connection.map(|connection| connection.tick()).is_some()
    }

    /// Opens a stream to a node that is connected over QUIC, as soon as that allows one more. It learns of the stream with the first
    /// bytes, or the end, sent on it.
    ///
    /// # Errors
    /// [`StreamError::NotConnected`], [`StreamError::Limit`], [`StreamError::ConnectionLost`].
    pub async fn open_stream(&self, name: &str, priority: Priority) -> Result<DistStream, StreamError> {
        let connection = self.quic_connection(name).ok_or(StreamError::NotConnected)?;
        connection.open_stream(priority).await
    }

    /// Takes streams that other nodes open, now and on connections to come, in turn with others who do. While nobody does they are refused
    /// with [`Code::REFUSED`].
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] if the node does not speak QUIC yet.
    pub fn accept_streams(&self) -> io::Result<DistAcceptor> {
        let quic = self.shared().quic.get().ok_or_else(no_quic)?;
        Ok(quic.endpoint.accept_dist_streams())
    }

    fn quic_connection(&self, name: &str) -> Option<DistConnection> {
        let state = self.shared().lock();
        let id = state.node.connection(name)?;
        state.quic_connection(id)
    }
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Ended(DistEnd::Handshake(failure)) => Self::Handshake(failure),
            DialError::Ended(DistEnd::Displaced) => Self::Handshake(Failure::Aborted),
            DialError::Ended(DistEnd::PeerClosed(code)) => Self::Refused(code),
            DialError::Ended(end) => Self::Io(io::Error::new(io::ErrorKind::ConnectionAborted, end)),
            // The other node's dial stays, or one that was here before.
            DialError::Dial(DistConnectError::Present(
                Standing::Connected | Standing::Dialling | Standing::Replacing,
            )) => Self::Handshake(Failure::Nok),
            DialError::EndpointClosed => Self::Io(io::Error::new(io::ErrorKind::NotConnected, error)),
            error => Self::Io(invalid(error)),
        }
    }
}

/// Lets nodes in until the node ends.
async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    while let Either::First(Some(connection)) = race(endpoint.accept_dist(), shared.closed()).await {
        let place = {
            let mut state = shared.lock();
            (state.connections() < shared.config.connections).then(|| state.add_connection())
        };
        match place {
            Some(place) => begin(Arc::clone(&shared), place, connection),
            None => {
                tracing::debug!("too many connections");
                connection.abort(Code::LIMIT);
            }
        }
    }
}

/// A connection that is up is the node's from now on.
fn begin(shared: Arc<Shared>, (id, link): (u64, Arc<Link>), connection: DistConnection) {
    let peer = connection.node().clone();
    shared.lock().keep_quic(id, connection.clone());
    shared.prevail(id, &peer, connection.flags());
    let task = Arc::clone(&shared);
    shared.spawn(async move {
        let reason = exchange(&task, id, &link, &connection).await;
        tracing::debug!(%peer, %reason, "node down");
        task.gone(id, Some(&peer), reason);
    });
}

async fn exchange(shared: &Shared, id: u64, link: &Link, connection: &DistConnection) -> DownReason {
    // What was taken is not lost with the futures that took it.
    let (mut outgoing, mut incoming) = (VecDeque::new(), VecDeque::new());
    let both = race(
        send(shared, id, link, connection, &mut outgoing),
        receive(shared, id, link, connection, &mut incoming),
    );
    if let Either::First(outcome) = race(both, link.close.raised()).await {
        let end = match outcome {
            // How it ended is behind the messages that had come.
            Either::First(()) => receive(shared, id, link, connection, &mut incoming).await,
            Either::Second(end) => end,
        };
        return down_reason(&end);
    }
    let farewell = async {
        while connection.send_all(&mut outgoing).await.is_ok() {
            outgoing = shared.take(id);
            if outgoing.is_empty() {
                return;
            }
        }
    };
    shared.until(Instant::now() + FAREWELL, farewell).await;
    let end = shared.until(Instant::now() + 2 * FAREWELL, connection.close()).await;
    if end.is_none() {
        connection.abort(Code::CLOSED);
    }
    match end {
        Some(DistEnd::Displaced) => DownReason::Replaced,
        _ => DownReason::Closed,
    }
}

/// Sends until the connection is over.
async fn send(shared: &Shared, id: u64, link: &Link, connection: &DistConnection, outgoing: &mut VecDeque<Bytes>) {
    loop {
        if outgoing.is_empty() {
            *outgoing = shared.take(id);
        }
        if outgoing.is_empty() {
            link.writable.raised().await;
        } else if connection.send_all(outgoing).await.is_err() {
            return;
        }
    }
}

async fn receive(
    shared: &Shared,
    id: u64,
    link: &Link,
    connection: &DistConnection,
    incoming: &mut VecDeque<Bytes>,
) -> DistEnd {
    let mut fetched = Vec::new();
    loop {
        while !hand_in(shared, id, incoming) {
            link.readable.raised().await;
        }
        if let Err(end) = connection.recv_many(&mut fetched, FETCH).await {
            return end;
        }
        incoming.extend(fetched.drain(..));
    }
}

fn down_reason(end: &DistEnd) -> DownReason {
    match end {
        DistEnd::Closed | DistEnd::PeerClosed(_) => DownReason::Closed,
        DistEnd::NetTick => DownReason::NetTickTimeout,
        DistEnd::Displaced => DownReason::Replaced,
        DistEnd::Control(_) | DistEnd::Data(_) => DownReason::Lost(io::ErrorKind::InvalidData),
        _ => DownReason::Lost(io::ErrorKind::ConnectionAborted),
    }
}

impl State {
    fn keep_quic(&mut self, id: u64, connection: DistConnection) {
        self.quic.insert(id, connection);
    }

    fn quic_connection(&self, id: u64) -> Option<DistConnection> {
        self.quic.get(&id).cloned()
    }
}
