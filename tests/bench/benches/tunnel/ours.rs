//! Ends and relays of this crate.

use std::net::{Ipv4Addr, SocketAddr};

use macula_bench::Result;
use macula_tokio::{
    Connection, DatagramSize, DialConfig, Endpoint, ListenConfig, Options, RelayClient, RelayClientConfig, RelayServer,
    TransportConfig, alpn,
    proto::tunnel::{
        Name,
        client::{session::SessionConfig, supervisor::SupervisorConfig},
        relay::RelayConfig,
    },
    tls::{ClientTls, Credentials, ServerTls, Trust},
};

use crate::work::{Acceptor, Duplex, Opener};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The protocol of direct connections.
pub(crate) const DIRECT: &str = "bench";

fn transport(size: DatagramSize) -> TransportConfig {
    let mut transport = TransportConfig::relay();
    transport.datagram_size = size;
    transport
}

fn dial(endpoint: &Endpoint, credentials: &Credentials, protocol: &[u8], size: DatagramSize) -> Result<DialConfig> {
    let trust = Trust::Roots(credentials.chain().to_vec());
    let tls = ClientTls::new(trust).alpn([protocol]).build(endpoint.clock())?;
    let mut config = DialConfig::new(tls);
    config.transport = transport(size);
    Ok(config)
}

/// A listening endpoint.
pub(crate) fn listen(credentials: Credentials, size: DatagramSize) -> Result<Endpoint> {
    let endpoint = Endpoint::bind(ANY, Options::default())?;
    let tls = ServerTls::new(credentials).alpn([DIRECT]).build(endpoint.clock())?;
    let mut config = ListenConfig::new(tls);
    config.transport = transport(size);
    endpoint.listen(config)?;
    Ok(endpoint)
}

pub(crate) async fn accept(endpoint: Endpoint) -> Result<Direct> {
    let connection = endpoint.accept().await.ok_or("no connection came")?;
    Ok(Direct(connection))
}

pub(crate) async fn connect(server: SocketAddr, credentials: &Credentials, size: DatagramSize) -> Result<Direct> {
    let endpoint = Endpoint::bind(ANY, Options::default())?;
    let config = dial(&endpoint, credentials, DIRECT.as_bytes(), size)?;
    Ok(Direct(endpoint.connect(&config, server, "localhost").await?))
}

/// A connection without a relay.
pub(crate) struct Direct(Connection);

impl Opener for Direct {
    async fn open(&mut self) -> Result<impl Duplex> {
        Ok(self.0.open_bi().await?)
    }
}

impl Acceptor for Direct {
    async fn accept(&mut self) -> Result<impl Duplex> {
        Ok(self.0.accept_bi().await?)
    }
}

/// A relay; batches of 4, as relays have them.
pub(crate) fn relay(credentials: Credentials, size: DatagramSize) -> Result<RelayServer> {
    let mut options = Options::default();
    options.receive_batch = 4;
    let endpoint = Endpoint::bind(ANY, options)?;
    let tls = ServerTls::new(credentials)
        .alpn([alpn::MACULA_DIST])
        .build(endpoint.clock())?;
    let mut config = ListenConfig::new(tls);
    config.transport = transport(size);
    Ok(RelayServer::serve(&endpoint, RelayConfig::default(), config)?)
}

pub(crate) async fn node(
    relay: SocketAddr,
    name: &'static str,
    credentials: &Credentials,
    size: DatagramSize,
) -> Result<Node> {
    let endpoint = Endpoint::bind(ANY, Options::default())?;
    let config = RelayClientConfig {
        relays: vec![format!("localhost:{}", relay.port()).parse()?],
        dial: dial(&endpoint, credentials, alpn::MACULA_DIST, size)?,
        session: SessionConfig::new(Name::from(name)),
        supervisor: SupervisorConfig::default(),
    };
    let node = RelayClient::start(&endpoint, config, 4)?;
    if node.identified().await {
        Ok(Node(node))
    } else {
        Err("the relay does not know the node".into())
    }
}

/// A node at a relay.
pub(crate) struct Node(RelayClient);

impl Opener for Node {
    async fn open(&mut self) -> Result<impl Duplex> {
        Ok(self.0.open("receiver").await?)
    }
}

impl Acceptor for Node {
    async fn accept(&mut self) -> Result<impl Duplex> {
        Ok(self.0.incoming().await.ok_or("no tunnel came")?)
    }
}
