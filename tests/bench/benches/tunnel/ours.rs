//! Ends and relays of this crate.

use std::{net::SocketAddr, time::Duration};

use macula_bench::{
    Result,
    our_setup::{self, Setup},
};
use macula_tokio::{
    Connection, Endpoint, Options, RelayClient, RelayServer, alpn, proto::tunnel::relay::RelayConfig, tls::Credentials,
};

use crate::{cases::Tuning, work::Stream};

/// Incoming tunnels that wait to be taken.
const BACKLOG: usize = 1024;

/// The protocol of direct connections.
pub(crate) const DIRECT: &str = "bench";

fn options(spin: Duration) -> Options {
    let mut options = Options::default();
    options.spin = spin;
    options
}

fn setup(protocol: &[u8], tuning: Tuning) -> Setup {
    let mut transport = our_setup::transport();
    transport.datagram_size = tuning.size;
    Setup::new(protocol).transport(transport)
}

/// A listening endpoint.
pub(crate) fn listen(credentials: &Credentials, tuning: Tuning) -> Result<Endpoint> {
    setup(DIRECT.as_bytes(), tuning).listen(credentials, options(tuning.spin))
}

pub(crate) async fn accept(endpoint: &Endpoint) -> Result<Direct> {
    let connection = endpoint.accept().await.ok_or("no connection came")?;
    Ok(Direct(connection))
}

pub(crate) async fn connect(server: SocketAddr, credentials: &Credentials, tuning: Tuning) -> Result<Direct> {
    let (endpoint, config) = setup(DIRECT.as_bytes(), tuning).dialler(credentials, options(tuning.spin))?;
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

pub(crate) fn relay(credentials: &Credentials, tuning: Tuning) -> Result<RelayServer> {
    let options = || {
        let mut options = Options::relay();
        options.spin = tuning.relay_spin;
        options
    };
    let setup = setup(alpn::MACULA_DIST, tuning);
    if tuning.sockets == 1 {
        let (endpoint, listen) = setup.listener(credentials, options())?;
        return Ok(RelayServer::serve(&endpoint, RelayConfig::default(), listen)?);
    }
    let (endpoints, listen) = setup.listeners(credentials, tuning.sockets, options)?;
    Ok(RelayServer::serve_shards(&endpoints, &RelayConfig::default(), &listen)?)
}

pub(crate) async fn node(relay: SocketAddr, name: &str, credentials: &Credentials, tuning: Tuning) -> Result<Node> {
    let dialler = setup(alpn::MACULA_DIST, tuning).dialler(credentials, options(tuning.spin))?;
    Ok(Node(our_setup::node(dialler, relay, name, BACKLOG).await?))
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
