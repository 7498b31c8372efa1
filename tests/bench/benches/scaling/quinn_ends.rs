//! quinn's streams and connections.

use std::net::SocketAddr;

use macula_bench::{Result, quinn_setup::Setup};
use macula_tokio::tls::Credentials;

use crate::{
    ours::{IDLE, MOST, PROTOCOL},
    scene::{Boxed, Duplex, Opener, Party, answer},
};

fn setup(streams: Option<u32>) -> Setup {
    let setup = Setup::new(PROTOCOL).never_resuming().silent_for(IDLE);
    match streams {
        Some(streams) => setup.streams(streams),
        None => setup,
    }
}

/// Answers on every stream of every connection, each of which may have so many.
fn serve(credentials: Credentials, streams: Option<u32>) -> Result<(SocketAddr, Party)> {
    Party::start(async move || {
        let endpoint = setup(streams).listen(&credentials)?;
        let at = endpoint.local_addr()?;
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    let connection = incoming.await?;
                    while let Ok((send, recv)) = connection.accept_bi().await {
                        tokio::spawn(answer(tokio::io::join(recv, send)));
                    }
                    Result::Ok(())
                });
            }
        });
        Ok(at)
    })
}

/// Streams of one connection.
struct Streams(quinn::Connection);

impl Opener for Streams {
    fn open(&mut self) -> Boxed<'_, Box<dyn Duplex>> {
        Box::pin(async {
            let (send, recv) = self.0.open_bi().await?;
            Ok(Box::new(tokio::io::join(recv, send)) as Box<dyn Duplex>)
        })
    }
}

pub(crate) fn streams(credentials: Credentials) -> Boxed<'static, (Box<dyn Opener>, Vec<Party>)> {
    Box::pin(async move {
        let (at, party) = serve(credentials.clone(), Some(MOST))?;
        let (endpoint, config) = setup(None).dialler(&credentials)?;
        let connection = endpoint.connect_with(config, at, "localhost")?.await?;
        Ok((Box::new(Streams(connection)) as Box<dyn Opener>, vec![party]))
    })
}

/// Streams with a connection each.
struct Connections {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    at: SocketAddr,
    held: Vec<quinn::Connection>,
}

impl Opener for Connections {
    fn open(&mut self) -> Boxed<'_, Box<dyn Duplex>> {
        Box::pin(async {
            let dialled = self.endpoint.connect_with(self.config.clone(), self.at, "localhost")?;
            let connection = dialled.await?;
            let (send, recv) = connection.open_bi().await?;
            self.held.push(connection);
            Ok(Box::new(tokio::io::join(recv, send)) as Box<dyn Duplex>)
        })
    }
}

pub(crate) fn connections(credentials: Credentials) -> Boxed<'static, (Box<dyn Opener>, Vec<Party>)> {
    Box::pin(async move {
        let (at, party) = serve(credentials.clone(), None)?;
        let (endpoint, config) = setup(None).dialler(&credentials)?;
        let opener = Connections {
            endpoint,
            config,
            at,
            held: Vec::new(),
        };
        Ok((Box::new(opener) as Box<dyn Opener>, vec![party]))
    })
}
