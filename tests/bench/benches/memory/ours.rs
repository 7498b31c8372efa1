//! Our connections, streams, tunnels and calls.

use std::net::{Ipv4Addr, SocketAddr};

use macula_bench::{
    Result,
    our_setup::{self, Setup},
};
use macula_tokio::{
    Connection, DialConfig, Endpoint, ListenConfig, Options, RelayClient, RelayServer, Stream, TransportConfig, Tunnel,
    alpn,
    rpc::{Call, Mode, RpcClient, RpcConfig, RpcServer, ServerCall, Value},
    tls::Credentials,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::children::{Opening, Party};

/// The protocol of connections without anything on them.
pub(crate) const PROTOCOL: &[u8] = b"bench";
/// Streams, tunnels and calls that a connection allows for.
pub(crate) const MOST: u32 = 16_384;

/// As everywhere in this program: the defaults, but idle time-out, keep-alive and the ceiling of datagrams as quinn has them here.
pub(crate) fn transport() -> TransportConfig {
    let mut transport = our_setup::transport();
    transport.max_bidi_streams = TransportConfig::default().max_bidi_streams;
    transport
}

/// Of a server with many connections, as relays are: few streams are granted at first.
pub(crate) fn accepting() -> TransportConfig {
    let mut transport = transport();
    transport.initial_streams = TransportConfig::relay_listener().initial_streams;
    transport
}

fn roomy() -> TransportConfig {
    let mut transport = transport();
    transport.max_bidi_streams = MOST.into();
    transport
}

fn listen(credentials: &Credentials, protocol: &[u8], transport: TransportConfig) -> Result<(Endpoint, ListenConfig)> {
    Setup::new(protocol)
        .transport(transport)
        .listener(credentials, Options::default())
}

fn dialler(credentials: &Credentials, protocol: &[u8], transport: TransportConfig) -> Result<(Endpoint, DialConfig)> {
    Setup::new(protocol)
        .transport(transport)
        .dialler(credentials, Options::default())
}

fn at(peer: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, peer).into()
}

/// Idle connections of one end.
pub(crate) struct Connections {
    endpoint: Endpoint,
    /// Whom to dial, and how.
    dial: Option<(DialConfig, SocketAddr)>,
    held: Vec<Connection>,
}

impl Connections {
    pub(crate) fn serve(credentials: Credentials) -> Result<Self> {
        let (endpoint, config) = listen(&credentials, PROTOCOL, accepting())?;
        endpoint.listen(config)?;
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Some(connection) = accepting.accept().await {
                held.push(connection);
            }
        });
        Ok(Self {
            endpoint,
            dial: None,
            held: Vec::new(),
        })
    }

    pub(crate) fn dial(peer: u16, credentials: &Credentials) -> Result<Self> {
        let (endpoint, config) = dialler(credentials, PROTOCOL, transport())?;
        Ok(Self {
            endpoint,
            dial: Some((config, at(peer))),
            held: Vec::new(),
        })
    }
}

impl Party for Connections {
    fn port(&self) -> u16 {
        self.endpoint.local_addr().port()
    }

    fn open(&mut self, count: usize) -> Opening<'_> {
        Box::pin(async move {
            let (config, at) = self.dial.as_ref().ok_or("a server does not dial")?;
            for _ in 0..count {
                self.held.push(self.endpoint.connect(config, *at, "localhost").await?);
            }
            Ok(())
        })
    }
}

/// Idle streams of one end, all on one connection.
pub(crate) struct Streams {
    endpoint: Endpoint,
    connection: Option<Connection>,
    held: Vec<Stream>,
}

impl Streams {
    pub(crate) fn serve(credentials: Credentials) -> Result<Self> {
        let (endpoint, config) = listen(&credentials, PROTOCOL, roomy())?;
        endpoint.listen(config)?;
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            let connection = accepting.accept().await.ok_or("nobody dialled")?;
            let mut held = Vec::new();
            while let Ok(mut stream) = connection.accept_bi().await {
                stream.read_u8().await?;
                stream.write_u8(0).await?;
                held.push(stream);
            }
            Result::Ok(())
        });
        Ok(Self {
            endpoint,
            connection: None,
            held: Vec::new(),
        })
    }

    pub(crate) async fn dial(peer: u16, credentials: &Credentials) -> Result<Self> {
        let (endpoint, config) = dialler(credentials, PROTOCOL, roomy())?;
        let connection = endpoint.connect(&config, at(peer), "localhost").await?;
        Ok(Self {
            endpoint,
            connection: Some(connection),
            held: Vec::new(),
        })
    }
}

impl Party for Streams {
    fn port(&self) -> u16 {
        self.endpoint.local_addr().port()
    }

    fn open(&mut self, count: usize) -> Opening<'_> {
        Box::pin(async move {
            let connection = self.connection.as_ref().ok_or("a server does not open")?;
            for _ in 0..count {
                let mut stream = connection.open_bi().await?;
                stream.write_u8(0).await?;
                stream.read_u8().await?;
                self.held.push(stream);
            }
            Ok(())
        })
    }
}

/// A relay that lets a node open tunnels as fast as it can.
pub(crate) struct Relay(RelayServer);

impl Relay {
    pub(crate) fn serve(credentials: Credentials) -> Result<Self> {
        let (endpoint, listen) = listen(&credentials, alpn::MACULA_DIST, roomy())?;
        let config = our_setup::roomy_relay(MOST as usize);
        Ok(Self(RelayServer::serve(&endpoint, config, listen)?))
    }
}

impl Party for Relay {
    fn port(&self) -> u16 {
        self.0.endpoint().local_addr().port()
    }
}

/// A node with idle tunnels.
pub(crate) struct Node {
    node: RelayClient,
    held: Vec<Tunnel>,
}

const TAKER: &str = "taker";

impl Node {
    async fn start(peer: u16, credentials: &Credentials, name: &'static str) -> Result<RelayClient> {
        our_setup::node(dialler(credentials, alpn::MACULA_DIST, roomy())?, at(peer), name, 64).await
    }

    pub(crate) async fn take(peer: u16, credentials: &Credentials) -> Result<Self> {
        let node = Self::start(peer, credentials, TAKER).await?;
        let taking = node.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Some(mut tunnel) = taking.incoming().await {
                tunnel.read_u8().await?;
                tunnel.write_u8(0).await?;
                held.push(tunnel);
            }
            Result::Ok(())
        });
        Ok(Self { node, held: Vec::new() })
    }

    pub(crate) async fn open(peer: u16, credentials: &Credentials) -> Result<Self> {
        let node = Self::start(peer, credentials, "opener").await?;
        Ok(Self { node, held: Vec::new() })
    }
}

impl Party for Node {
    fn open(&mut self, count: usize) -> Opening<'_> {
        Box::pin(async move {
            for _ in 0..count {
                let mut tunnel = self.node.open(TAKER).await?;
                tunnel.write_u8(0).await?;
                tunnel.read_u8().await?;
                self.held.push(tunnel);
            }
            Ok(())
        })
    }
}

/// Idle calls of one end, all on one connection.
pub(crate) struct Calls {
    endpoint: Endpoint,
    _server: Option<RpcServer>,
    client: Option<RpcClient>,
    held: Vec<Call>,
}

impl Calls {
    fn config(node: u8) -> RpcConfig {
        let mut config = RpcConfig::new([node; 32]);
        config.limits.calls = MOST as usize;
        config
    }

    pub(crate) fn serve(credentials: Credentials) -> Result<Self> {
        let (endpoint, listen) = listen(&credentials, alpn::MACULA, roomy())?;
        endpoint.listen(listen)?;
        endpoint.serve_rpc(Self::config(1));
        let server = RpcServer::new(&endpoint);
        server.advertise("hold", Mode::Bidi, async |mut call: ServerCall| {
            while call.recv().await?.is_some() {}
            Ok(Value::Null)
        });
        Ok(Self {
            endpoint,
            _server: Some(server),
            client: None,
            held: Vec::new(),
        })
    }

    pub(crate) async fn dial(peer: u16, credentials: &Credentials) -> Result<Self> {
        let (endpoint, dial) = dialler(credentials, alpn::MACULA, roomy())?;
        let client = endpoint
            .connect_rpc(&dial, at(peer), "localhost", Self::config(2))
            .await?;
        Ok(Self {
            endpoint,
            _server: None,
            client: Some(client),
            held: Vec::new(),
        })
    }
}

impl Party for Calls {
    fn port(&self) -> u16 {
        self.endpoint.local_addr().port()
    }

    fn open(&mut self, count: usize) -> Opening<'_> {
        Box::pin(async move {
            let client = self.client.as_ref().ok_or("a server does not call")?;
            for _ in 0..count {
                self.held.push(client.open("hold", Mode::Bidi, Value::Null).await?);
            }
            Ok(())
        })
    }
}
