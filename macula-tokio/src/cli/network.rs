//! The real backend: relays and nodes of this library, on sockets.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use macula_proto::{
    endpoint::{RelayAddress, RelayClientConfig},
    quic::{
        DialConfig, ListenConfig, ResetKey, TransportConfig, alpn,
        tls::{ClientTls, Credentials, Reloadable, ServerTls},
    },
    tunnel::{
        Name,
        client::{
            session::{RequestError, SessionConfig},
            supervisor::SupervisorConfig,
        },
        relay::{AccessRules, Report},
    },
    wire::control::TunnelId,
};
use tokio::time::timeout;

use super::backend::{
    Backend, NodeEvent, NodeHandle, NodeOptions, RelayHandle, RelayOptions, RelaySnapshot, TunnelHandle,
};
use super::{outcome::Failure, relay, values::HostPort};
use crate::{Endpoint, OpenError, Options, RecvStream, RelayClient, RelayServer, SendStream, Tunnel, relay::invalid};

/// How long the end of a connection is announced to peers that do not answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Incoming tunnels that wait to be taken.
const BACKLOG: usize = 256;

/// Makes relays and nodes on UDP sockets.
#[derive(Debug)]
pub(crate) struct Network;

#[derive(Debug)]
pub(crate) struct NetworkRelay {
    relay: RelayServer,
    credentials: Reloadable,
}

#[derive(Debug)]
pub(crate) struct NetworkNode {
    node: RelayClient,
    endpoint: Endpoint,
}

impl Backend for Network {
    type Relay = NetworkRelay;
    type Node = NetworkNode;

    async fn relay(&self, options: RelayOptions) -> io::Result<NetworkRelay> {
        let credentials = Reloadable::new(options.credentials.clone());
        let protocols: &[&[u8]] = match options.router {
            Some(_) => &[alpn::MACULA_DIST, alpn::MACULA],
            None => &[alpn::MACULA_DIST],
        };
        let tls = ServerTls::new(credentials.clone())
            .alpn(protocols.iter().copied())
            .client_auth(options.client_auth.clone());
        let endpoints = bind_relay(&options)?;
        let first = endpoints.first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut listen = ListenConfig::new(tls.build(first.clock()).map_err(invalid)?);
        listen.transport = TransportConfig::relay_listener();
        let relay = match endpoints.as_slice() {
            [only] => RelayServer::serve_with(only, options.relay, options.router, listen),
            all => RelayServer::serve_shards(all, &options.relay, &listen),
        };
        let relay = relay.map_err(invalid)?;
        Ok(NetworkRelay { relay, credentials })
    }

    async fn node(&self, options: NodeOptions) -> io::Result<NetworkNode> {
        let endpoint = Endpoint::bind_any(Options::default())?;
        let mut tls = ClientTls::new(options.trust).alpn([alpn::MACULA_DIST]);
        if let Some(credentials) = options.credentials {
            tls = tls.credentials(credentials);
        }
        let mut dial = DialConfig::new(tls.build(endpoint.clock()).map_err(invalid)?);
        dial.transport = TransportConfig::relay();
        let mut session = SessionConfig::new(options.name);
        session.encoding = options.encoding;
        session.allow_from = options.allow_from;
        let config = node_config(&options.relays, dial, session);
        let node = RelayClient::start(&endpoint, config, BACKLOG).map_err(invalid)?;
        Ok(NetworkNode { node, endpoint })
    }
}

impl RelayHandle for NetworkRelay {
    fn local_addr(&self) -> SocketAddr {
        self.relay.endpoint().local_addr()
    }

    async fn next_report(&self) -> Option<Report> {
        self.relay.next_report().await
    }

    async fn snapshot(&self) -> RelaySnapshot {
        let found = self.relay.snapshot();
        let connections = found.status.connections.iter().map(|conn| conn.conn);
        let tunnels = found.status.tunnels.iter().map(|tunnel| tunnel.tunnel);
        RelaySnapshot {
            connections: connections.zip(found.connections).collect(),
            tunnels: tunnels.zip(found.bytes).collect(),
            stats: found.relay,
            router: found.router,
            endpoint: found.endpoint,
            status: found.status,
        }
    }

    fn set_access(&self, access: AccessRules) {
        self.relay.set_access(access);
    }

    fn set_credentials(&self, credentials: Credentials) {
        self.credentials.replace(credentials);
    }

    fn drain(&self) {
        self.relay.drain();
    }

    async fn close(&self) {
        let _ = timeout(FAREWELL, self.relay.close()).await;
    }
}

impl NodeHandle for NetworkNode {
    type Tunnel = Tunnel;

    async fn next_event(&self) -> Option<NodeEvent> {
        loop {
            let event = self.node.next_event().await?;
            if let Some(event) = node_event(event, self.node.name()) {
                return Some(event);
            }
        }
    }

    async fn open(&self, target: &Name) -> Result<Tunnel, RequestError> {
        self.node.open(target.clone()).await.map_err(|error| match error {
            OpenError::Request(error) => error,
            _ => RequestError::Lost,
        })
    }

    async fn incoming(&self) -> Option<Tunnel> {
        self.node.incoming().await
    }

    async fn close(&self) {
        self.node.stop();
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

impl TunnelHandle for Tunnel {
    type Recv = RecvStream;
    type Send = SendStream;

    fn id(&self) -> TunnelId {
        Self::id(self)
    }

    fn peer(&self) -> Name {
        Self::peer(self).clone()
    }

    fn relay(&self) -> String {
        Self::relay(self).to_string()
    }

    fn split(self) -> (RecvStream, SendStream) {
        let (send, recv) = Self::split(self);
        (recv, send)
    }
}

/// What the command tells of what happens to a node of this name, if anything.
pub(crate) fn node_event(event: crate::NodeEvent, name: &Name) -> Option<NodeEvent> {
    Some(match event {
        crate::NodeEvent::Dialling { relay } => NodeEvent::Dialling {
            relay: relay.to_string(),
        },
        crate::NodeEvent::Identified { relay } => NodeEvent::Identified {
            relay: relay.to_string(),
            name: name.clone(),
        },
        crate::NodeEvent::Down { relay, why, reason, .. } => NodeEvent::Down {
            relay: relay.to_string(),
            reason: match reason {
                Some(reason) => reason.to_string(),
                None => why.to_string(),
            },
        },
        crate::NodeEvent::Waiting {
            relay,
            duration,
            starved,
        } => NodeEvent::Waiting {
            relay: relay.to_string(),
            duration,
            starved,
        },
        _ => return None,
    })
}

/// Binds the socket of a listener. On a system without IPv6 "every address" means every IPv4 address.
pub(crate) fn bind(listen: SocketAddr, settings: Options) -> io::Result<Endpoint> {
    let socket = or_ipv4(listen, |listen| macula_driver::bind(listen, &settings.socket))?;
    Endpoint::with_socket(socket, settings)
}

/// The sockets of a relay.
fn bind_relay(options: &RelayOptions) -> io::Result<Vec<Endpoint>> {
    let settings = || {
        let mut settings = Options::relay();
        settings.limits = options.relay.limits.clone();
        // A second relay on the same port shall fail, not take half of the first one's datagrams.
        settings.socket.reuse_port = false;
        // Who was connected to this relay before it was started again learns of it at once.
        settings.endpoint.reset_key = Some(reset_key(&options.credentials));
        settings.spin = options.spin;
        settings
    };
    match options.sockets {
        1 => Ok(vec![bind(options.listen, settings())?]),
        count => or_ipv4(options.listen, |listen| Endpoint::bind_shards(listen, count, settings)),
    }
}

/// Binds to all addresses of IPv4 if those of IPv6 cannot be had.
fn or_ipv4<T>(listen: SocketAddr, mut bind: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match bind(listen) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) if listen.ip().is_unspecified() && listen.is_ipv6() => {
            bind((Ipv4Addr::UNSPECIFIED, listen.port()).into())
        }
        outcome => outcome,
    }
}

/// A node at these relays.
pub(crate) fn node_config(relays: &[HostPort], dial: DialConfig, session: SessionConfig) -> RelayClientConfig {
    let relays = relays.iter().map(|at| RelayAddress {
        host: at.host.clone(),
        port: at.port,
    });
    RelayClientConfig {
        relays: relays.collect(),
        dial,
        session,
        supervisor: SupervisorConfig::default(),
    }
}

/// The socket of a listener for peers and calls, and what it will listen with: the transport is the caller's to set.
pub(crate) async fn listener(
    at: &HostPort,
    mut settings: Options,
    credentials: Credentials,
) -> Result<(Endpoint, ListenConfig), Failure> {
    // A second listener on the same port shall fail, not take half of the first one's datagrams.
    settings.socket.reuse_port = false;
    // Who was connected before this listener was started again learns of it at once.
    settings.endpoint.reset_key = Some(reset_key(&credentials));
    let endpoint = bind(relay::resolve(at).await?, settings).map_err(|error| cannot_listen(at, error))?;
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA]);
    let tls = tls
        .build(endpoint.clock())
        .map_err(|error| cannot_listen(at, invalid(error)))?;
    Ok((endpoint, ListenConfig::new(tls)))
}

pub(crate) fn cannot_listen(at: &HostPort, error: io::Error) -> Failure {
    Failure::failed("listen", format_args!("cannot listen on {at}: {error}"))
}

/// A secret that every process with the same private key has.
pub(crate) fn reset_key(credentials: &Credentials) -> ResetKey {
    ResetKey::derive(credentials.key_to_pem().as_bytes())
}
