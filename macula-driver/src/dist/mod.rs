//! Erlang distribution over QUIC, with handles: connections between nodes, their messages, and streams of programs beside them.
//!
//! An endpoint is one node: [`Endpoint::serve_dist`] says which. It dials others with [`Endpoint::connect_dist`] and takes their
//! connections with [`Endpoint::accept_dist`]; with each node there is one, also when both dial at once. A [`DistConnection`] carries
//! messages as they are, in order; [`node`] makes processes, links and monitors of them. Ticks are sent and answered by themselves.
//! [`DistStream`]s are streams of bytes beside the messages, each with a [`Priority`].

mod acceptor;
mod connection;
pub mod discovery;
mod error;
#[cfg(feature = "futures-io")]
mod io_futures;
#[cfg(feature = "tokio")]
mod io_tokio;
pub mod node;
mod stream;
mod table;

use std::{collections::BTreeSet, net::SocketAddr};

use macula_proto::wire::etf::Atom;

pub use acceptor::DistAcceptor;
pub use connection::DistConnection;
pub use error::{DialError, StreamError};
pub use macula_proto::{
    dist::{
        controller::{ControllerConfig, ControllerStats, LinkState},
        handshake::{Failure, HandshakeConfig, Standing},
        pool::SendError,
        streams::Side,
        user::{Owner, Priority, UserStream},
    },
    endpoint::{DistConfig, DistEnd, DistId, DistInfo, DistStat},
};
pub use stream::{DistRecvStream, DistSendStream, DistStream};
use table::Links;

use crate::{Context, Endpoint};

/// What tasks wait for, besides streams, connections, nodes, peers and calls.
mod key {
    use macula_proto::endpoint::DistId;

    /// A connection of a peer's making.
    pub(super) const ACCEPT: u64 = 32 << 56;

    /// What tasks with a connection wait for.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum Link {
        /// Its coming up, and its end.
        State = 33,
        /// Messages.
        Recv = 34,
        /// Room for messages.
        Send = 35,
        /// Leave to open streams.
        Open = 36,
    }

    /// What tasks with a stream wait for, or those who take streams.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum Stream {
        Read = 37,
        Write = 38,
        Accept = 39,
    }

    const NUMBER: u64 = 0x00ff_ffff_ffff_ffff;

    pub(super) fn link(dist: DistId, what: Link) -> u64 {
        ((what as u64) << 56) | (dist.get() & NUMBER)
    }

    pub(super) fn stream(number: u64, what: Stream) -> u64 {
        ((what as u64) << 56) | (number & NUMBER)
    }
}

/// Erlang distribution: connections with ALPN `erlang-dist` between nodes.
impl Endpoint {
    /// Makes the endpoint a node, which dials others and serves connections accepted from now on with ALPN `erlang-dist`;
    /// [`listen`](Self::listen) comes beside it, if it is to accept any.
    ///
    /// At most `backlog` connections that are up wait for [`accept_dist`](Self::accept_dist); more are closed. Another call changes
    /// the settings for connections that begin from then on; the node's name must be the same.
    pub fn serve_dist(&self, config: DistConfig, backlog: usize) {
        Links::install(self);
        self.with_extension(|links: &mut Links, cx| {
            links.backlog = backlog;
            cx.endpoint().serve_dist(config);
        });
    }

    /// Lets in only these nodes from now on; `None`: all who know the cookie. Who is in stays in.
    pub fn allow_dist(&self, nodes: Option<BTreeSet<Atom>>) {
        self.with(|cx| cx.endpoint().allow_dist(nodes));
    }

    /// Dials a node and completes the handshake of the distribution. Dropping the future gives the dial up.
    ///
    /// `server_name` is what the certificate must be valid for. A session of an earlier connection with the same node is resumed.
    ///
    /// # Errors
    /// [`DialError`]. If both nodes dial at once one of the two dials fails, and the other's connection comes out of
    /// [`accept_dist`](Self::accept_dist) on the one side.
    pub async fn connect_dist(
        &self,
        node: Atom,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<DistConnection, DialError> {
        let remote = crate::socket::canonical(remote);
        if !self.reaches(remote) {
            let local = self.local_addr();
            return Err(DialError::Unreachable { local, remote });
        }
        Links::install(self);
        let start = |links: &mut Links, cx: &mut Context<'_>| {
            if links.closed || cx.is_stopped() {
                return Err(DialError::EndpointClosed);
            }
            let now = cx.now();
            let dist = cx.endpoint().connect_dist(now, node, remote, server_name)?;
            links.dialled(cx, dist);
            Ok(dist)
        };
        let started = self.with_extension(start);
        let dist = started.unwrap_or(Err(DialError::EndpointClosed))?;
        connection::Dialled::new(self, dist).up().await
    }

    /// The next connection that another node made, its handshake complete. `None` once the endpoint is closed. Cancellation-safe.
    pub async fn accept_dist(&self) -> Option<DistConnection> {
        Links::install(self);
        let look = |links: &mut Links, _: &mut Context<'_>| links.next_accepted();
        let (dist, up) = self.wait(key::ACCEPT, look).await.flatten()?;
        Some(DistConnection::new(self, dist, up))
    }

    /// Takes streams that other nodes open, on every connection there is and will be, in turn with others who do. While nobody does
    /// they are refused.
    pub fn accept_dist_streams(&self) -> DistAcceptor {
        Links::install(self);
        DistAcceptor::new(self, None)
    }

    /// The nodes that are up, by name.
    pub fn dist_nodes(&self) -> Vec<Atom> {
        let nodes = self.with(|cx| cx.endpoint().dist_nodes());
        nodes.into_iter().map(|(node, _)| node).collect()
    }
}
