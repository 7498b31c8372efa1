//! quinn's connections and streams.

use std::net::{Ipv4Addr, SocketAddr};

use macula_bench::{Result, quinn_setup::Setup};
use macula_tokio::tls::Credentials;

use crate::{
    children::{Opening, Party},
    ours::{MOST, PROTOCOL},
};

/// Idle connections of one end.
pub(crate) struct Connections {
    endpoint: quinn::Endpoint,
    /// Whom to dial, and how.
    dial: Option<(quinn::ClientConfig, SocketAddr)>,
    held: Vec<quinn::Connection>,
}

impl Connections {
    pub(crate) fn serve(credentials: &Credentials) -> Result<Self> {
        let endpoint = Setup::new(PROTOCOL).listen(credentials)?;
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Some(incoming) = accepting.accept().await {
                held.extend(incoming.await);
            }
        });
        Ok(Self {
            endpoint,
            dial: None,
            held: Vec::new(),
        })
    }

    pub(crate) fn dial(peer: u16, credentials: &Credentials) -> Result<Self> {
        let (endpoint, config) = Setup::new(PROTOCOL).dialler(credentials)?;
        Ok(Self {
            endpoint,
            dial: Some((config, (Ipv4Addr::LOCALHOST, peer).into())),
            held: Vec::new(),
        })
    }
}

impl Party for Connections {
    fn port(&self) -> u16 {
        self.endpoint.local_addr().map_or(0, |address| address.port())
    }

    fn open(&mut self, count: usize) -> Opening<'_> {
        Box::pin(async move {
            let (config, at) = self.dial.as_ref().ok_or("a server does not dial")?;
            for _ in 0..count {
                let dialled = self.endpoint.connect_with(config.clone(), *at, "localhost")?;
                self.held.push(dialled.await?);
            }
            Ok(())
        })
    }
}

/// Idle streams of one end, all on one connection.
pub(crate) struct Streams {
    endpoint: quinn::Endpoint,
    connection: Option<quinn::Connection>,
    held: Vec<(quinn::SendStream, quinn::RecvStream)>,
}

impl Streams {
    pub(crate) fn serve(credentials: &Credentials) -> Result<Self> {
        let endpoint = Setup::new(PROTOCOL).streams(MOST).listen(credentials)?;
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            let connection = accepting.accept().await.ok_or("nobody dialled")?.await?;
            let mut held = Vec::new();
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                recv.read_exact(&mut [0]).await?;
                send.write_all(&[0]).await?;
                held.push((send, recv));
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
        let (endpoint, config) = Setup::new(PROTOCOL).dialler(credentials)?;
        let at = (Ipv4Addr::LOCALHOST, peer).into();
        let connection = endpoint.connect_with(config, at, "localhost")?.await?;
        Ok(Self {
            endpoint,
            connection: Some(connection),
            held: Vec::new(),
        })
    }
}

impl Party for Streams {
    fn port(&self) -> u16 {
        self.endpoint.local_addr().map_or(0, |address| address.port())
    }

    fn open(&mut self, count: usize) -> Opening<'_> {
        Box::pin(async move {
            let connection = self.connection.as_ref().ok_or("a server does not open")?;
            for _ in 0..count {
                let (mut send, mut recv) = connection.open_bi().await?;
                send.write_all(&[0]).await?;
                recv.read_exact(&mut [0]).await?;
                self.held.push((send, recv));
            }
            Ok(())
        })
    }
}
