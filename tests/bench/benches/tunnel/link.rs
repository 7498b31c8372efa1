//! Ends of every kind, which open streams or take them.

use std::net::SocketAddr;

use macula_bench::Result;
use macula_tokio::tls::Credentials;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    cases::{Case, Ends, Path},
    ours, quinn_ends, relays, scripted,
    work::Stream,
};

/// The end that opens streams.
pub(crate) enum Opener {
    Ours(ours::Direct),
    Node(ours::Node),
    Quinn(quinn_ends::Direct),
    Script(scripted::Node),
    Tcp(SocketAddr),
}

impl Opener {
    /// The node with this number, connected to a receiver or a relay.
    pub(crate) async fn connect(case: &Case, credentials: &Credentials, to: SocketAddr, node: usize) -> Result<Self> {
        Ok(match (case.ends, case.path) {
            (Ends::Bare, _) => return Err("without a runtime there is no link".into()),
            (Ends::Tcp, _) => Self::Tcp(to),
            (Ends::Quinn, Path::Macula) => {
                Self::Script(scripted::Node::connect(to, &format!("sender-{node}"), credentials).await?)
            }
            (Ends::Quinn, _) => Self::Quinn(quinn_ends::connect(to, credentials, ours::DIRECT.as_bytes()).await?),
            (Ends::Ours, Path::Macula) => {
                Self::Node(ours::node(to, &format!("sender-{node}"), credentials, case.tuning).await?)
            }
            (Ends::Ours, _) => Self::Ours(ours::connect(to, credentials, case.tuning).await?),
        })
    }

    pub(crate) async fn open(&mut self) -> Result<Stream> {
        match self {
            Self::Ours(direct) => direct.open().await,
            Self::Node(node) => node.open(scripted::RECEIVER).await,
            Self::Quinn(direct) => direct.open().await,
            Self::Script(node) => node.open().await,
            Self::Tcp(to) => {
                let stream = TcpStream::connect(*to).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// The end that takes streams.
pub(crate) enum Acceptor {
    OursAt(macula_tokio::Endpoint),
    Ours(ours::Direct),
    Node(ours::Node),
    QuinnAt(quinn::Endpoint),
    Quinn(quinn_ends::Direct),
    Script(scripted::Node),
    Tcp(TcpListener),
}

impl Acceptor {
    /// At a relay, or waiting for a sender.
    pub(crate) async fn start(case: &Case, credentials: &Credentials, relay: Option<SocketAddr>) -> Result<Self> {
        Ok(match (case.ends, case.path, relay) {
            (Ends::Bare, _, _) => return Err("without a runtime there is no link".into()),
            (Ends::Tcp, _, _) => Self::Tcp(relays::listen_tcp().await?),
            (Ends::Quinn, Path::Macula, Some(relay)) => {
                Self::Script(scripted::Node::connect(relay, scripted::RECEIVER, credentials).await?)
            }
            (Ends::Quinn, _, Some(relay)) => {
                Self::Quinn(quinn_ends::connect(relay, credentials, ours::DIRECT.as_bytes()).await?)
            }
            (Ends::Quinn, _, None) => Self::QuinnAt(quinn_ends::listen(credentials)?),
            (Ends::Ours, _, Some(relay)) => {
                Self::Node(ours::node(relay, scripted::RECEIVER, credentials, case.tuning).await?)
            }
            (Ends::Ours, _, None) => Self::OursAt(ours::listen(credentials, case.tuning)?),
        })
    }

    /// Where senders connect to.
    pub(crate) fn address(&self) -> Result<Option<SocketAddr>> {
        Ok(match self {
            Self::OursAt(endpoint) => Some(endpoint.local_addr()),
            Self::QuinnAt(endpoint) => Some(endpoint.local_addr()?),
            Self::Tcp(listener) => Some(listener.local_addr()?),
            _ => None,
        })
    }

    pub(crate) async fn accept(&mut self) -> Result<Stream> {
        match self {
            Self::OursAt(endpoint) => *self = Self::Ours(ours::accept(endpoint).await?),
            Self::QuinnAt(endpoint) => *self = Self::Quinn(quinn_ends::accept(endpoint.clone()).await?),
            _ => {}
        }
        match self {
            Self::Ours(direct) => direct.accept().await,
            Self::Node(node) => node.accept().await,
            Self::Quinn(direct) => direct.accept().await,
            Self::Script(node) => node.accept().await,
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::OursAt(_) | Self::QuinnAt(_) => Err("nobody has connected".into()),
        }
    }
}
