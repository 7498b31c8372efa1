//! quinn, set up as ours.

use std::net::SocketAddr;

use macula_bench::{Result, quinn_setup::Setup};
use macula_tokio::tls::Credentials;

use crate::work::{Acceptor, Duplex, Opener};

/// A listening endpoint.
pub(crate) fn listen(credentials: &Credentials) -> Result<quinn::Endpoint> {
    Setup::new(crate::ours::DIRECT.as_bytes()).listen(credentials)
}

pub(crate) async fn accept(endpoint: quinn::Endpoint) -> Result<Direct> {
    let connection = endpoint.accept().await.ok_or("no connection came")?.await?;
    Ok(Direct {
        connection,
        _endpoint: endpoint,
    })
}

pub(crate) async fn connect(server: SocketAddr, credentials: &Credentials, protocol: &[u8]) -> Result<Direct> {
    let (endpoint, config) = Setup::new(protocol).dialler(credentials)?;
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

impl Opener for Direct {
    async fn open(&mut self) -> Result<impl Duplex> {
        let (send, recv) = self.connection.open_bi().await?;
        Ok(tokio::io::join(recv, send))
    }
}

impl Acceptor for Direct {
    async fn accept(&mut self) -> Result<impl Duplex> {
        let (send, recv) = self.connection.accept_bi().await?;
        Ok(tokio::io::join(recv, send))
    }
}
