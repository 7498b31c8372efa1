//! Relays and nodes on tokio.

use std::{io, net::SocketAddr, ops::Deref};

use macula_proto::{
    endpoint::{ClientConfigError, RelayAddress, RelayClientConfig},
    quic::{ListenConfig, tls::ClientTls, tls::ServerTls},
    rpc::router::RouterConfig,
    tunnel::{Name, relay::RelayConfig},
};

use crate::{Endpoint, runtime::Tokio};

/// A relay on tokio. It does what [`macula_driver::RelayServer`] does, which it dereferences to.
#[derive(Debug, Clone)]
pub struct RelayServer(macula_driver::RelayServer);

impl RelayServer {
    /// Binds a socket and serves a relay on it, with the transport settings of relays. `tls` needs the ALPN `macula-dist`,
    /// and `macula` for the router that passes calls between nodes.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::InvalidInput`] for settings that cannot be used.
    pub fn bind(addr: SocketAddr, tls: &ServerTls, relay: RelayConfig) -> io::Result<Self> {
        macula_driver::RelayServer::bind::<Tokio>(addr, tls, relay).map(Self)
    }

    /// As [`bind`](Self::bind), on an endpoint and with transport settings of one's own; [`bind`](Self::bind) has
    /// [`Options::relay`](crate::Options::relay) and [`TransportConfig::relay_listener`](crate::TransportConfig::relay_listener).
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError) names the setting that is out of range.
    pub fn serve(endpoint: &Endpoint, relay: RelayConfig, listen: ListenConfig) -> Result<Self, crate::ConfigError> {
        macula_driver::RelayServer::serve((**endpoint).clone(), relay, listen).map(Self)
    }

    /// As [`serve`](Self::serve), with settings of one's own for the router, or without one.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError) names the setting that is out of range.
    pub fn serve_with(
        endpoint: &Endpoint,
        relay: RelayConfig,
        router: Option<RouterConfig>,
        listen: ListenConfig,
    ) -> Result<Self, crate::ConfigError> {
        macula_driver::RelayServer::serve_with((**endpoint).clone(), relay, router, listen).map(Self)
    }

    /// Serves a relay on all endpoints that [`Endpoint::bind_shards`] bound to one port, with a thread for each; see
    /// [`macula_driver::RelayServer::serve_shards`].
    ///
    /// ```no_run
    /// # use macula_tokio::{Endpoint, ListenConfig, Options, RelayServer, TransportConfig, alpn};
    /// # use macula_tokio::{proto::tunnel::relay::RelayConfig, tls::ServerTls};
    /// # fn serve(tls: ServerTls) -> Result<(), Box<dyn std::error::Error>> {
    /// let endpoints = Endpoint::bind_shards("[::]:4434".parse()?, 4, Options::relay)?;
    /// let mut listen = ListenConfig::new(tls.alpn([alpn::MACULA_DIST]).build(endpoints[0].clock())?);
    /// listen.transport = TransportConfig::relay_listener();
    /// let relay = RelayServer::serve_shards(&endpoints, &RelayConfig::default(), &listen)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError) names the setting that is out of range.
    pub fn serve_shards(
        endpoints: &[Endpoint],
        relay: &RelayConfig,
        listen: &ListenConfig,
    ) -> Result<Self, crate::ConfigError> {
        let endpoints = endpoints.iter().map(|endpoint| (**endpoint).clone()).collect();
        macula_driver::RelayServer::serve_shards(endpoints, relay, listen).map(Self)
    }
}

impl Deref for RelayServer {
    type Target = macula_driver::RelayServer;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A node on tokio: reachable through relays under its name. It does what [`macula_driver::RelayClient`] does, which it
/// dereferences to.
///
/// ```no_run
/// use macula_tokio::{RelayClient, alpn, tls::{ClientTls, Trust}};
/// use tokio::io::AsyncWriteExt;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = ClientTls::new(Trust::Pins(vec!["..".parse()?])).alpn([alpn::MACULA_DIST]);
/// let node = RelayClient::connect(["relay.example".parse()?], "alice", &tls)?;
/// node.identified().await;
/// let mut tunnel = node.open("bob").await?;
/// tunnel.write_all(b"hello").await?;
/// while let Some(tunnel) = node.incoming().await {
///     println!("a tunnel from {}", tunnel.peer());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RelayClient(macula_driver::RelayClient);

impl RelayClient {
    /// Starts a node on a socket of its own, with the default settings. `tls` needs the ALPN `macula-dist`.
    ///
    /// It returns at once; [`identified`](macula_driver::RelayClient::identified) waits for the relay.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::InvalidInput`] for settings that cannot be used.
    pub fn connect(
        relays: impl IntoIterator<Item = RelayAddress>,
        name: impl Into<Name>,
        tls: &ClientTls,
    ) -> io::Result<Self> {
        macula_driver::RelayClient::connect::<Tokio>(relays, name, tls).map(Self)
    }

    /// Starts a node on an endpoint and with settings of one's own. At most `backlog` incoming tunnels wait to be taken;
    /// more are refused, and with 0 all are. Names of relays are looked up with tokio's resolver.
    ///
    /// # Errors
    /// [`ClientConfigError`] when there is no relay or the name cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(endpoint: &Endpoint, config: RelayClientConfig, backlog: usize) -> Result<Self, ClientConfigError> {
        let (client, resolve) = macula_driver::RelayClient::start((**endpoint).clone(), config, backlog)?;
        resolve.spawn::<Tokio>().expect("called in a tokio runtime");
        Ok(Self(client))
    }
}

impl Deref for RelayClient {
    type Target = macula_driver::RelayClient;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(feature = "cli")]
pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
