//! Our streams, tunnels and connections.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

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

use crate::scene::{Boxed, Duplex, Opener, Party, answer};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The protocol of connections without machines on them.
pub(crate) const PROTOCOL: &[u8] = b"bench";
/// Streams and tunnels that a connection allows for.
pub(crate) const MOST: u32 = 16_384;
/// Idle time-out: nothing is lost, and nothing has to be kept alive, while this runs.
pub(crate) const IDLE: Duration = Duration::from_secs(600);

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::relay();
    transport.max_bidi_streams = MOST.into();
    transport.datagram_size = DatagramSize::UpTo(1452);
    transport.idle_timeout = Some(IDLE);
    transport.keep_alive = None;
    transport
}

fn listener(credentials: Credentials, protocol: &[u8], batch: usize) -> Result<(Endpoint, ListenConfig)> {
    let mut options = Options::default();
    options.receive_batch = batch;
    let endpoint = Endpoint::bind(ANY, options)?;
    let tls = ServerTls::new(credentials).alpn([protocol]);
    let mut config = ListenConfig::new(tls.build(endpoint.clock())?);
    config.transport = transport();
    Ok((endpoint, config))
}

fn dialler(credentials: &Credentials, protocol: &[u8]) -> Result<(Endpoint, DialConfig)> {
    let endpoint = Endpoint::bind(ANY, Options::default())?;
    let trust = Trust::Roots(credentials.chain().to_vec());
    let tls = ClientTls::new(trust).alpn([protocol]).resumable_servers(0);
    let mut config = DialConfig::new(tls.build(endpoint.clock())?);
    config.transport = transport();
    Ok((endpoint, config))
}

/// Answers on every stream of every connection.
fn serve(credentials: Credentials) -> Result<(SocketAddr, Party)> {
    Party::start(async move || {
        let (endpoint, config) = listener(credentials, PROTOCOL, 16)?;
        endpoint.listen(config)?;
        let at = endpoint.local_addr();
        tokio::spawn(async move {
            while let Some(connection) = endpoint.accept().await {
                tokio::spawn(async move {
                    while let Ok(stream) = connection.accept_bi().await {
                        tokio::spawn(answer(stream));
                    }
                });
            }
        });
        Ok(at)
    })
}

/// Streams of one connection.
struct Streams(Connection);

impl Opener for Streams {
    fn open(&mut self) -> Boxed<'_, Box<dyn Duplex>> {
        Box::pin(async { Ok(Box::new(self.0.open_bi().await?) as Box<dyn Duplex>) })
    }
}

pub(crate) fn streams(credentials: Credentials) -> Boxed<'static, (Box<dyn Opener>, Vec<Party>)> {
    Box::pin(async move {
        let (at, party) = serve(credentials.clone())?;
        let (endpoint, config) = dialler(&credentials, PROTOCOL)?;
        let connection = endpoint.connect(&config, at, "localhost").await?;
        Ok((Box::new(Streams(connection)) as Box<dyn Opener>, vec![party]))
    })
}

/// Streams with a connection each.
struct Connections {
    endpoint: Endpoint,
    config: DialConfig,
    at: SocketAddr,
    held: Vec<Connection>,
}

impl Opener for Connections {
    fn open(&mut self) -> Boxed<'_, Box<dyn Duplex>> {
        Box::pin(async {
            let connection = self.endpoint.connect(&self.config, self.at, "localhost").await?;
            let stream = connection.open_bi().await?;
            self.held.push(connection);
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

pub(crate) fn connections(credentials: Credentials) -> Boxed<'static, (Box<dyn Opener>, Vec<Party>)> {
    Box::pin(async move {
        let (at, party) = serve(credentials.clone())?;
        let (endpoint, config) = dialler(&credentials, PROTOCOL)?;
        let opener = Connections {
            endpoint,
            config,
            at,
            held: Vec::new(),
        };
        Ok((Box::new(opener) as Box<dyn Opener>, vec![party]))
    })
}

const TAKER: &str = "taker";

async fn node(relay: SocketAddr, name: &'static str, credentials: &Credentials) -> Result<RelayClient> {
    let (endpoint, dial) = dialler(credentials, alpn::MACULA_DIST)?;
    let config = RelayClientConfig {
        relays: vec![format!("localhost:{}", relay.port()).parse()?],
        dial,
        session: SessionConfig::new(Name::from(name)),
        supervisor: SupervisorConfig::default(),
    };
    let node = RelayClient::start(&endpoint, config, 64)?;
    match node.identified().await {
        true => Ok(node),
        false => Err("the relay does not know the node".into()),
    }
}

/// Tunnels of one node.
struct Tunnels(RelayClient);

impl Opener for Tunnels {
    fn open(&mut self) -> Boxed<'_, Box<dyn Duplex>> {
        Box::pin(async { Ok(Box::new(self.0.open(TAKER).await?) as Box<dyn Duplex>) })
    }
}

pub(crate) fn tunnels(credentials: Credentials) -> Boxed<'static, (Box<dyn Opener>, Vec<Party>)> {
    Box::pin(async move {
        let own = credentials.clone();
        let (at, relay) = Party::start(async move || {
            let (endpoint, listen) = listener(own, alpn::MACULA_DIST, 4)?;
            let mut config = RelayConfig::default();
            config.limits.control_rate = 0;
            config.limits.tunnels_per_connection = MOST as usize;
            let relay = RelayServer::serve(&endpoint, config, listen)?;
            let at = endpoint.local_addr();
            // It serves until its runtime ends.
            std::mem::forget(relay);
            Ok(at)
        })?;
        let own = credentials.clone();
        let ((), taker) = Party::start(async move || {
            let node = node(at, TAKER, &own).await?;
            tokio::spawn(async move {
                while let Some(tunnel) = node.incoming().await {
                    tokio::spawn(answer(tunnel));
                }
            });
            Ok(())
        })?;
        let node = node(at, "opener", &credentials).await?;
        Ok((Box::new(Tunnels(node)) as Box<dyn Opener>, vec![taker, relay]))
    })
}
