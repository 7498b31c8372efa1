//! Our streams, tunnels and connections.

use std::{net::SocketAddr, time::Duration};

use macula_bench::{
    Result,
    our_setup::{self, Dialler, Setup},
};
use macula_tokio::{Connection, DialConfig, Endpoint, Options, RelayClient, RelayServer, alpn, tls::Credentials};

use crate::scene::{Boxed, Duplex, Opener, Party, answer};

/// The protocol of connections without machines on them.
pub(crate) const PROTOCOL: &[u8] = b"bench";
/// Streams and tunnels that a connection allows for.
pub(crate) const MOST: u32 = 16_384;
/// Idle time-out: nothing is lost, and nothing has to be kept alive, while this runs.
pub(crate) const IDLE: Duration = Duration::from_secs(600);

fn setup(protocol: &[u8]) -> Setup {
    let mut transport = our_setup::transport();
    transport.max_bidi_streams = MOST.into();
    transport.idle_timeout = Some(IDLE);
    transport.keep_alive = None;
    Setup::new(protocol).transport(transport)
}

/// Each connection with a whole handshake.
fn dialler(credentials: &Credentials, protocol: &[u8]) -> Result<Dialler> {
    setup(protocol)
        .never_resuming()
        .dialler(credentials, Options::default())
}

/// Answers on every stream of every connection.
fn serve(credentials: Credentials) -> Result<(SocketAddr, Party)> {
    Party::start(async move || {
        let endpoint = setup(PROTOCOL).listen(&credentials, Options::default())?;
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

async fn node(relay: SocketAddr, name: &str, credentials: &Credentials) -> Result<RelayClient> {
    our_setup::node(dialler(credentials, alpn::MACULA_DIST)?, relay, name, 64).await
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
            let (endpoint, listen) = setup(alpn::MACULA_DIST).listener(&own, Options::relay())?;
            let config = our_setup::roomy_relay(MOST as usize);
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
