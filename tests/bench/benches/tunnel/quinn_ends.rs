//! quinn, set up as ours.

use std::net::SocketAddr;

use macula_bench::{Result, quinn_setup::Setup};
use macula_tokio::tls::Credentials;

use crate::{ours::DIRECT, work::Stream};

/// As many streams as our relays take.
pub(crate) fn setup(protocol: &[u8]) -> Setup {
    Setup::new(protocol).streams(4096)
}

/// A listening endpoint.
pub(crate) fn listen(credentials: &Credentials) -> Result<quinn::Endpoint> {
    setup(DIRECT.as_bytes()).listen(credentials)
}

pub(crate) async fn accept(endpoint: quinn::Endpoint) -> Result<Direct> {
    let connection = endpoint.accept().await.ok_or("no connection came")?.await?;
    Ok(Direct {
        connection,
        _endpoint: endpoint,
    })
}

pub(crate) async fn connect(server: SocketAddr, credentials: &Credentials, protocol: &[u8]) -> Result<Direct> {
    let (endpoint, config) = setup(protocol).dialler(credentials)?;
    let connection = endpoint.connect_with(config, server, "localhost")?.await?;
    Ok(Direct {
        connection,
        _endpoint: endpoint,
    })
}

/// A connection, without a relay unless a script speaks to one.
pub(crate) struct Direct {
    pub(crate) connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl Direct {
    pub(crate) async fn open(&self) -> Result<Stream> {
        let (send, recv) = self.connection.open_bi().await?;
        Ok(Box::new(tokio::io::join(recv, send)))
    }

    pub(crate) async fn accept(&self) -> Result<Stream> {
        let (send, recv) = self.connection.accept_bi().await?;
        Ok(Box::new(tokio::io::join(recv, send)))
    }
}
