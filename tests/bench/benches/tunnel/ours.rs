//! Ends and relays of this crate.

use std::net::{Ipv4Addr, SocketAddr};

use macula_bench::Result;
use macula_tokio::{
    Connection, DialConfig, Endpoint, ListenConfig, Options, RelayClient, RelayClientConfig, RelayServer,
    TransportConfig, alpn,
    proto::tunnel::{
        Name,
        client::{session::SessionConfig, supervisor::SupervisorConfig},
        relay::RelayConfig,
    },
    tls::{ClientTls, Credentials, ServerTls, Trust},
};

use crate::{cases::Tuning, work::Stream};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Incoming tunnels that wait to be taken.
const BACKLOG: usize = 1024;

/// The protocol of direct connections.
pub(crate) const DIRECT: &str = "bench";

fn options(tuning: Tuning) -> Options {
    let mut options = Options::default();
    options.spin = tuning.spin;
    options
}

fn transport(tuning: Tuning) -> TransportConfig {
    let mut transport = TransportConfig::relay();
    transport.datagram_size = tuning.size;
    transport
}

fn dial(endpoint: &Endpoint, credentials: &Credentials, protocol: &[u8], tuning: Tuning) -> Result<DialConfig> {
    let trust = Trust::Roots(credentials.chain().to_vec());
    let tls = ClientTls::new(trust).alpn([protocol]).build(endpoint.clock())?;
    let mut config = DialConfig::new(tls);
    config.transport = transport(tuning);
    Ok(config)
}

/// A listening endpoint.
pub(crate) fn listen(credentials: Credentials, tuning: Tuning) -> Result<Endpoint> {
    let endpoint = Endpoint::bind(ANY, options(tuning))?;
    let tls = ServerTls::new(credentials).alpn([DIRECT]).build(endpoint.clock())?;
    let mut config = ListenConfig::new(tls);
    config.transport = transport(tuning);
    endpoint.listen(config)?;
    Ok(endpoint)
}

pub(crate) async fn accept(endpoint: &Endpoint) -> Result<Direct> {
    let connection = endpoint.accept().await.ok_or("no connection came")?;
    Ok(Direct(connection))
}

pub(crate) async fn connect(server: SocketAddr, credentials: &Credentials, tuning: Tuning) -> Result<Direct> {
    let endpoint = Endpoint::bind(ANY, options(tuning))?;
    let config = dial(&endpoint, credentials, DIRECT.as_bytes(), tuning)?;
    Ok(Direct(endpoint.connect(&config, server, "localhost").await?))
}

/// A connection without a relay.
pub(crate) struct Direct(Connection);

impl Direct {
    pub(crate) async fn open(&self) -> Result<Stream> {
        Ok(Box::new(self.0.open_bi().await?))
    }

    pub(crate) async fn accept(&self) -> Result<Stream> {
        Ok(Box::new(self.0.accept_bi().await?))
    }
}

/// A relay; batches of 4, as relays have them.
pub(crate) fn relay(credentials: Credentials, tuning: Tuning) -> Result<RelayServer> {
    let mut options = options(tuning);
    options.receive_batch = 4;
    let endpoint = Endpoint::bind(ANY, options)?;
    let tls = ServerTls::new(credentials)
        .alpn([alpn::MACULA_DIST])
        .build(endpoint.clock())?;
    let mut config = ListenConfig::new(tls);
    config.transport = transport(tuning);
    Ok(RelayServer::serve(&endpoint, RelayConfig::default(), config)?)
}

pub(crate) async fn node(relay: SocketAddr, name: &str, credentials: &Credentials, tuning: Tuning) -> Result<Node> {
    let endpoint = Endpoint::bind(ANY, options(tuning))?;
    let config = RelayClientConfig {
        relays: vec![format!("localhost:{}", relay.port()).parse()?],
        dial: dial(&endpoint, credentials, alpn::MACULA_DIST, tuning)?,
        session: SessionConfig::new(Name::from(name)),
        supervisor: SupervisorConfig::default(),
    };
    let node = RelayClient::start(&endpoint, config, BACKLOG)?;
    if node.identified().await {
        Ok(Node(node))
    } else {
        Err("the relay does not know the node".into())
    }
}

/// A node at a relay.
pub(crate) struct Node(RelayClient);

impl Node {
    pub(crate) async fn open(&self, target: &str) -> Result<Stream> {
        Ok(Box::new(self.0.open(target).await?))
    }

    pub(crate) async fn accept(&self) -> Result<Stream> {
        Ok(Box::new(self.0.incoming().await.ok_or("no tunnel came")?))
    }
}
