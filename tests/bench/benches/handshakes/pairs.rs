//! Both ends of each kind, the accepting one already at work.

use std::{
    any::Any,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use macula_bench::{Result, our_setup, quinn_setup};
use macula_tokio::{
    DialConfig, Endpoint, Options, PeerListenConfig, alpn,
    proto::{
        identity::Identity,
        peering::{Duplicates, PeeringConfig},
    },
};

/// Connections; they end when this is dropped.
pub(crate) type Held = Box<dyn Any + Send>;

type Dialled = Pin<Box<dyn Future<Output = Result<Held>> + Send>>;

pub(crate) trait Pair {
    /// Dials so often, one after the other. Slots are dialled from at the same time.
    fn dial(&self, slot: u8, count: usize) -> Dialled;

    fn seen(&self) -> &Seen;
}

const SERVER_NAME: &str = "localhost";

/// What the accepting end has seen.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    accepted: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Seen {
    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Those of them that are over.
    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// One was accepted; `end` waits for its end.
    fn accept<T>(&self, end: impl Future<Output = T> + Send + 'static) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let ended = self.ended.clone();
        tokio::spawn(async move {
            end.await;
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }
}

pub(crate) struct Quinn {
    client: quinn::Endpoint,
    config: quinn::ClientConfig,
    server: SocketAddr,
    seen: Seen,
}

impl Quinn {
    pub(crate) fn start() -> Result<Self> {
        let credentials = our_setup::credentials()?;
        let protocol = alpn::MACULA;
        let server = quinn_setup::Setup::new(protocol)
            .never_resuming()
            .listen(&credentials)?;
        let (client, config) = quinn_setup::Setup::new(protocol)
            .never_resuming()
            .dialler(&credentials)?;
        let seen = Seen::default();
        let (address, accepting) = (server.local_addr()?, seen.clone());
        tokio::spawn(async move {
            while let Some(incoming) = server.accept().await {
                let accepting = accepting.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        accepting.accept(async move { connection.closed().await });
                    }
                });
            }
        });
        Ok(Self {
            client,
            config,
            server: address,
            seen,
        })
    }
}

impl Pair for Quinn {
    fn dial(&self, _slot: u8, count: usize) -> Dialled {
        let (client, config, server) = (self.client.clone(), self.config.clone(), self.server);
        Box::pin(async move {
            let mut held = Vec::with_capacity(count);
            for _ in 0..count {
                held.push(client.connect_with(config.clone(), server, SERVER_NAME)?.await?);
            }
            Ok(Box::new(held) as Held)
        })
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

/// Both of our endpoints, not serving yet.
struct Ours {
    client: Endpoint,
    dial: DialConfig,
    server: Endpoint,
    seen: Seen,
}

impl Ours {
    fn start() -> Result<Self> {
        let credentials = our_setup::credentials()?;
        let setup = our_setup::Setup::new(alpn::MACULA).never_resuming();
        let server = setup.listen(&credentials, Options::default())?;
        let (client, dial) = setup.dialler(&credentials, Options::default())?;
        Ok(Self {
            client,
            dial,
            server,
            seen: Seen::default(),
        })
    }
}

pub(crate) struct OursQuic(Ours);

impl OursQuic {
    pub(crate) fn start() -> Result<Self> {
        let ours = Ours::start()?;
        let (server, seen) = (ours.server.clone(), ours.seen.clone());
        tokio::spawn(async move {
            while let Some(connection) = server.accept().await {
                seen.accept(async move { connection.closed().await });
            }
        });
        Ok(Self(ours))
    }
}

impl Pair for OursQuic {
    fn dial(&self, _slot: u8, count: usize) -> Dialled {
        let (client, dial) = (self.0.client.clone(), self.0.dial.clone());
        let server = self.0.server.local_addr();
        Box::pin(async move {
            let mut held = Vec::with_capacity(count);
            for _ in 0..count {
                held.push(client.connect(&dial, server, SERVER_NAME).await?);
            }
            Ok(Box::new(held) as Held)
        })
    }

    fn seen(&self) -> &Seen {
        &self.0.seen
    }
}

pub(crate) struct OursPeering(Ours);

fn peering(byte: u8) -> PeeringConfig {
    PeeringConfig::new(Arc::new(Identity::from_seed(&[byte; 32])))
}

impl OursPeering {
    pub(crate) fn start() -> Result<Self> {
        let ours = Ours::start()?;
        let mut listen = PeerListenConfig::new(peering(u8::MAX));
        // One identity dials again and again.
        listen.gate.duplicates = Duplicates::KeepBoth;
        ours.server.serve_peers(listen, 64);
        let (server, seen) = (ours.server.clone(), ours.seen.clone());
        tokio::spawn(async move {
            while let Some(peer) = server.accept_peer().await {
                seen.accept(async move { while peer.recv().await.is_ok() {} });
            }
        });
        Ok(Self(ours))
    }
}

impl Pair for OursPeering {
    fn dial(&self, slot: u8, count: usize) -> Dialled {
        let (client, dial) = (self.0.client.clone(), self.0.dial.clone());
        let server = self.0.server.local_addr();
        let config = peering(slot);
        Box::pin(async move {
            let mut held = Vec::with_capacity(count);
            for _ in 0..count {
                held.push(client.connect_peer(&dial, server, SERVER_NAME, config.clone()).await?);
            }
            Ok(Box::new(held) as Held)
        })
    }

    fn seen(&self) -> &Seen {
        &self.0.seen
    }
}
