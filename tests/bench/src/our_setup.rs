//! Our endpoints, with the same certificate, cipher, datagram size, windows and socket buffers as quinn's.

use std::net::{Ipv4Addr, SocketAddr};

use macula_tokio::{
    DatagramSize, DialConfig, Endpoint, ListenConfig, Options, RelayClient, RelayClientConfig, TransportConfig,
    entropy,
    proto::tunnel::{
        Name,
        client::{session::SessionConfig, supervisor::SupervisorConfig},
        relay::RelayConfig,
    },
    tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
};

use crate::Result;

/// An endpoint and what it dials with.
pub type Dialler = (Endpoint, DialConfig);

/// How an endpoint is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    protocol: Vec<u8>,
    resuming: bool,
    transport: TransportConfig,
}

/// The windows of a relay, which are quinn's, and datagrams of up to 1452 bytes, as quinn has them.
pub fn transport() -> TransportConfig {
    let mut transport = TransportConfig::relay();
    transport.datagram_size = DatagramSize::UpTo(1452);
    transport
}

/// A new self-signed certificate for `localhost`, and its key.
///
/// # Errors
/// Those of the operating system's randomness.
pub fn credentials() -> Result<Credentials> {
    let content = SelfSigned {
        names: vec!["localhost".to_owned()],
        ..SelfSigned::default()
    };
    Ok(Credentials::self_signed(&entropy()?, &content)?)
}

fn bind(options: Options) -> Result<Endpoint> {
    Ok(Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), options)?)
}

impl Setup {
    /// With this protocol in TLS, sessions that are resumed, and [`transport`].
    pub fn new(protocol: &[u8]) -> Self {
        Self {
            protocol: protocol.to_vec(),
            resuming: true,
            transport: transport(),
        }
    }

    /// With a whole handshake for every connection.
    #[must_use]
    pub fn never_resuming(mut self) -> Self {
        self.resuming = false;
        self
    }

    /// With other windows, sizes and limits.
    #[must_use]
    pub fn transport(mut self, transport: TransportConfig) -> Self {
        self.transport = transport;
        self
    }

    /// An endpoint, and what it shall listen with.
    ///
    /// # Errors
    /// Those of TLS and of the socket.
    pub fn listener(&self, credentials: &Credentials, options: Options) -> Result<(Endpoint, ListenConfig)> {
        let endpoint = bind(options)?;
        let config = self.listening(credentials, &endpoint)?;
        Ok((endpoint, config))
    }

    /// Endpoints of one port, each with a thread of its own, and what they shall listen with.
    ///
    /// # Errors
    /// As [`listener`](Self::listener).
    pub fn listeners(
        &self,
        credentials: &Credentials,
        count: u8,
        options: impl FnMut() -> Options,
    ) -> Result<(Vec<Endpoint>, ListenConfig)> {
        let endpoints = Endpoint::bind_shards((Ipv4Addr::LOCALHOST, 0).into(), count, options)?;
        let first = endpoints.first().ok_or("no sockets")?;
        let config = self.listening(credentials, first)?;
        Ok((endpoints, config))
    }

    fn listening(&self, credentials: &Credentials, endpoint: &Endpoint) -> Result<ListenConfig> {
        let mut tls = ServerTls::new(credentials.clone()).alpn([self.protocol.clone()]);
        if !self.resuming {
            tls = tls.resumable_sessions(0);
        }
        let mut config = ListenConfig::new(tls.build(endpoint.clock())?);
        config.transport = self.transport.clone();
        Ok(config)
    }

    /// A listening endpoint.
    ///
    /// # Errors
    /// As [`listener`](Self::listener).
    pub fn listen(&self, credentials: &Credentials, options: Options) -> Result<Endpoint> {
        let (endpoint, config) = self.listener(credentials, options)?;
        endpoint.listen(config)?;
        Ok(endpoint)
    }

    /// An endpoint that dials, and with what.
    ///
    /// # Errors
    /// Those of TLS and of the socket.
    pub fn dialler(&self, credentials: &Credentials, options: Options) -> Result<Dialler> {
        let endpoint = bind(options)?;
        let mut tls = ClientTls::new(Trust::Roots(credentials.chain().to_vec())).alpn([self.protocol.clone()]);
        if !self.resuming {
            tls = tls.resumable_servers(0);
        }
        let mut config = DialConfig::new(tls.build(endpoint.clock())?);
        config.transport = self.transport.clone();
        Ok((endpoint, config))
    }
}

/// Of a relay where a node may have so many tunnels, opened as fast as it can.
pub fn roomy_relay(tunnels: usize) -> RelayConfig {
    let mut config = RelayConfig::default();
    config.limits.control_rate = 0;
    config.limits.tunnels_per_connection = tunnels;
    config
}

/// A node at the relay there, once that knows it; `backlog` of incoming tunnels may wait to be taken.
///
/// # Errors
/// When the relay does not take it.
pub async fn node((endpoint, dial): Dialler, relay: SocketAddr, name: &str, backlog: usize) -> Result<RelayClient> {
    let config = RelayClientConfig {
        relays: vec![format!("localhost:{}", relay.port()).parse()?],
        dial,
        session: SessionConfig::new(Name::from(name)),
        supervisor: SupervisorConfig::default(),
    };
    let node = RelayClient::start(&endpoint, config, backlog)?;
    match node.identified().await {
        true => Ok(node),
        false => Err("the relay does not know the node".into()),
    }
}
