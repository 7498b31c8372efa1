//! What the command needs of the library: the only file here that knows how a relay or a node is really made.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::SocketAddr,
    time::Duration,
};

use macula_proto::{
    quic::{
        tls::{ClientAuth, Credentials, Trust},
        {ConnectionStats, EndpointStats},
    },
    rpc::router::{RouterConfig, RouterStats, RouterStatus},
    tunnel::{
        ConnKey, Name,
        client::session::{EncodingChoice, RequestError},
        relay::{AccessRules, RelayConfig, RelayStats, RelayStatus, Report, TunnelBytes, TunnelKey},
    },
    wire::control::TunnelId,
};

use super::values::HostPort;
use crate::tcp::{RecvHalf, SendHalf};

/// Makes relays and nodes.
pub(crate) trait Backend: Send + Sync + 'static {
    type Relay: RelayHandle;
    type Node: NodeHandle;

    /// A relay that listens.
    fn relay(&self, options: RelayOptions) -> impl Future<Output = io::Result<Self::Relay>> + Send;

    /// A node that dials its relays by itself, again and again, until it is closed.
    fn node(&self, options: NodeOptions) -> impl Future<Output = io::Result<Self::Node>> + Send;
}

#[derive(Debug, Clone)]
pub(crate) struct RelayOptions {
    pub(crate) listen: SocketAddr,
    pub(crate) credentials: Credentials,
    pub(crate) client_auth: ClientAuth,
    pub(crate) relay: RelayConfig,
    /// `None`: no router runs beside the relay.
    pub(crate) router: Option<RouterConfig>,
    /// How many share the port; more than one only without a router.
    pub(crate) sockets: u8,
    /// How long their threads look for datagrams before they sleep.
    pub(crate) spin: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct NodeOptions {
    /// The first is preferred, the next ones take over.
    pub(crate) relays: Vec<HostPort>,
    pub(crate) name: Name,
    pub(crate) trust: Trust,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) encoding: EncodingChoice,
    /// Who may open tunnels to this node; `None`: everybody.
    pub(crate) allow_from: Option<BTreeSet<Name>>,
}

/// A running relay. Every future may be dropped at any time without losing anything.
pub(crate) trait RelayHandle: Send + Sync + 'static {
    /// The address it really listens on.
    fn local_addr(&self) -> SocketAddr;

    /// The next thing to tell; `None` when the relay is gone.
    fn next_report(&self) -> impl Future<Output = Option<Report>> + Send;

    fn snapshot(&self) -> impl Future<Output = RelaySnapshot> + Send;

    /// Replaces the access rules.
    fn set_access(&self, access: AccessRules);

    /// Shows another certificate in new handshakes.
    fn set_credentials(&self, credentials: Credentials);

    /// Takes nothing new from now on; [`Report::Drained`] says when everything has ended.
    fn drain(&self);

    /// Closes what is left and waits until the clients were told.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Everything that can be seen of a relay at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RelaySnapshot {
    pub(crate) status: RelayStatus,
    pub(crate) stats: RelayStats,
    pub(crate) router: Option<(RouterStatus, RouterStats)>,
    /// Of the socket.
    pub(crate) endpoint: EndpointStats,
    pub(crate) connections: BTreeMap<ConnKey, ConnectionStats>,
    pub(crate) tunnels: BTreeMap<TunnelKey, TunnelBytes>,
}

/// A running node. Every future may be dropped at any time without losing anything.
pub(crate) trait NodeHandle: Send + Sync + 'static {
    type Tunnel: TunnelHandle;

    /// The next thing to tell; `None` when the node is closed.
    fn next_event(&self) -> impl Future<Output = Option<NodeEvent>> + Send;

    /// A tunnel to another node.
    fn open(&self, target: &Name) -> impl Future<Output = Result<Self::Tunnel, RequestError>> + Send;

    /// The next tunnel that another node opened; `None` when the node is closed.
    fn incoming(&self) -> impl Future<Output = Option<Self::Tunnel>> + Send;

    /// Closes the connection and waits until the relay was told.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// What a node has to tell about its relays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NodeEvent {
    Dialling {
        relay: String,
    },
    Identified {
        relay: String,
        name: Name,
    },
    Down {
        relay: String,
        reason: String,
    },
    Waiting {
        relay: String,
        duration: Duration,
        starved: bool,
    },
}

/// A tunnel that was handed out.
pub(crate) trait TunnelHandle: Send + 'static {
    type Recv: RecvHalf + 'static;
    type Send: SendHalf + 'static;

    fn id(&self) -> TunnelId;

    /// The name of the node at the other end.
    fn peer(&self) -> Name;

    /// The relay it goes through.
    fn relay(&self) -> String;

    fn split(self) -> (Self::Recv, Self::Send);
}
