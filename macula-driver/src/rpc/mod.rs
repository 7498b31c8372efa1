//! Calls between programs, with handles.

mod call;
mod client;
mod data;
mod error;
mod incoming;
mod outgoing;
mod server;
mod table;
mod value;

use std::{net::SocketAddr, task::Poll};

use bytes::Bytes;
use macula_proto::{
    endpoint::RpcId,
    quic::DialConfig,
    rpc::{Kind, RpcConfig, session::PeerHello},
};

use crate::{ConnectError, Context, Endpoint, Peer, RelayClient, Tunnel, shared::State};
pub use call::{Call, CallControl};
pub use client::RpcClient;
pub use data::{CallReceiver, CallSender};
pub use error::{CallError, PingError, RpcConnectError};
pub use incoming::ServerCall;
pub(crate) use outgoing::Outgoing;
pub use server::{Overload, RpcServer, RpcServerConfig};
use table::Links;
pub use value::IntoValue;

/// What tasks wait for, besides streams, connections, nodes and peers.
mod key {
    use macula_proto::{endpoint::RpcId, rpc::session::CallId};

    /// A link of a peer's making.
    pub(super) const ACCEPT: u64 = 16 << 56;
    /// A call of a peer's making.
    pub(super) const INCOMING: u64 = 17 << 56;

    /// What tasks with a link wait for.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum Link {
        /// Its coming up, its end, pongs.
        State = 18,
        /// Room for another call.
        Room = 19,
    }

    /// What tasks with a call wait for.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum Call {
        Recv = 20,
        Send = 21,
        Reply = 22,
        Ended = 23,
    }

    const NUMBER: u64 = 0x00ff_ffff_ffff_ffff;

    pub(super) fn link(link: RpcId, what: Link) -> u64 {
        ((what as u64) << 56) | (link.get() & NUMBER)
    }

    pub(super) fn call(call: CallId, what: Call) -> u64 {
        ((what as u64) << 56) | (call.get() & NUMBER)
    }
}

/// Streaming RPC: calls on connections with ALPN `macula`, on tunnels, on peering connections, and within the process.
impl Endpoint {
    /// Dials a peer for calls, and exchanges greetings with it. Dropping the future gives the dial up. The connection is closed when
    /// the last handle of the link and of its calls is dropped.
    ///
    /// `server_name` is what the certificate must be valid for; `dial` needs the ALPN `macula`.
    ///
    /// # Errors
    /// [`RpcConnectError`], after [`DialConfig::handshake_timeout`] and [`RpcConfig::handshake_timeout`] at the latest.
    pub async fn connect_rpc(
        &self,
        dial: &DialConfig,
        remote: SocketAddr,
        server_name: &str,
        config: RpcConfig,
    ) -> Result<RpcClient, RpcConnectError> {
        let remote = crate::socket::canonical(remote);
        if !self.reaches(remote) {
            let local = self.local_addr();
            return Err(ConnectError::Unreachable { local, remote }.into());
        }
        let start = |links: &mut Links, cx: &mut Context<'_>| {
            if links.closed || cx.is_stopped() {
                return Err(ConnectError::EndpointClosed);
            }
            let now = cx.now();
            let link = cx.endpoint().connect_rpc(now, dial, remote, server_name, config)?;
            links.keep_own(link);
            Ok(link)
        };
        Links::install(self);
        let started = self.with_extension(start);
        let link = started.unwrap_or(Err(ConnectError::EndpointClosed))?;
        RpcClient::new(self, link, None).up().await
    }

    /// Serves calls of advertised procedures on connections with ALPN `macula` from now on; [`listen`](Self::listen) comes beside it.
    /// Such connections live until their peers leave or the endpoint is closed, whether there is a handle of them or not.
    ///
    /// Connections whose first byte is that of a peering frame go to [`serve_peers`](Self::serve_peers), if that is asked for too.
    /// Another call changes the settings for connections accepted from then on.
    pub fn serve_rpc(&self, config: RpcConfig) {
        Links::install(self);
        self.with(|cx| cx.endpoint().serve_rpc(config));
    }

    /// The next link that a peer made: a connection, or a tunnel served by [`RelayClient::serve_rpc`]. Only for programs that call
    /// back, or watch their peers: links are served without it. The last 1,024 are kept for who asks late. `None` once the endpoint is
    /// closed. Cancellation-safe.
    pub async fn accept_rpc(&self) -> Option<RpcClient> {
        Links::install(self);
        let look = |links: &mut Links, _: &mut Context<'_>| links.next_accepted();
        let (link, hello) = self.wait(key::ACCEPT, look).await.flatten()?;
        Some(RpcClient::new(self, link, None).with_hello(*hello))
    }

    /// Calls of the procedures that this endpoint itself offers, with no network between: the same behaviour, without bytes.
    pub fn local_rpc(&self) -> RpcClient {
        Links::install(self);
        RpcClient::new(self, RpcId::LOCAL, None).with_hello(PeerHello::default())
    }

    /// Runs a link on a tunnel of a relay, and exchanges greetings. The end that opened the tunnel is the `dialler`. The tunnel ends with
    /// the last handle of the link and its calls. Dropping the future gives the tunnel up.
    ///
    /// # Errors
    /// [`EndReason`](macula_proto::rpc::session::EndReason): why it came to nothing, after [`RpcConfig::handshake_timeout`] at the
    /// latest if this end is the dialler.
    pub async fn rpc_over(
        &self,
        tunnel: Tunnel,
        dialler: bool,
        config: RpcConfig,
    ) -> Result<RpcClient, RpcConnectError> {
        let link = self.start_on(tunnel, dialler, config, true);
        let link = link.ok_or(ConnectError::EndpointClosed)?;
        RpcClient::new(self, link, None).up().await
    }

    /// Offers a procedure on all links. What it is called with comes out of [`accept_call`](Self::accept_call). `false` if it was
    /// advertised before; the kind is then the new one.
    pub fn advertise(&self, procedure: impl Into<Bytes>, kind: impl Into<Kind>) -> bool {
        Links::install(self);
        self.with(|cx| cx.endpoint().advertise(procedure, kind.into()))
    }

    /// Offers a procedure no more: new calls of it are answered with `not_found`, those under way go on. `false` if it was not
    /// advertised.
    pub fn unadvertise(&self, procedure: impl AsRef<[u8]>) -> bool {
        self.with(|cx| cx.endpoint().unadvertise(procedure.as_ref()))
    }

    /// The next call of an advertised procedure, local ones included. Links have their turns, so that one with many calls does not
    /// keep the others waiting. `None` once the endpoint is closed. Cancellation-safe.
    ///
    /// Calls wait for this without limit in time; their number is that of [`RpcLimits::calls`](macula_proto::rpc::RpcLimits::calls) for each link.
    pub async fn accept_call(&self) -> Option<ServerCall> {
        Links::install(self);
        let found = self.wait(key::INCOMING, Links::next_call).await.flatten()?;
        Some(ServerCall::new(self, found))
    }

    /// As [`with_extension`](Self::with_extension), but the driver is woken only if there is something for it.
    fn with_links<T>(&self, link: RpcId, operation: impl FnOnce(&mut Links, &mut Context<'_>) -> T) -> Option<T> {
        self.shared().locked(|state| {
            state.tick();
            let result = state.on_extension(operation);
            settle(state, link);
            result
        })
    }

    /// Gives a tunnel to a link, without losing anything that comes on it.
    fn start_on(&self, mut tunnel: Tunnel, dialler: bool, config: RpcConfig, keep: bool) -> Option<RpcId> {
        Links::install(self);
        self.with_extension(|links: &mut Links, cx| {
            if links.closed || cx.is_stopped() {
                return None;
            }
            let now = cx.now();
            let (conn, stream) = tunnel.stream.place();
            let link = cx.endpoint().rpc_over_tunnel(now, conn, stream, dialler, config);
            tunnel.stream.disown(cx.state);
            if keep {
                links.keep_own(link);
            }
            Some(link)
        })
        .flatten()
    }
}

impl Peer {
    /// Runs calls on this peering connection, as signed frames, in both directions; all other frames come with
    /// [`recv`](Self::recv) as before, and have to be fetched, or they hold up the calls. The link ends with its last handle; the
    /// connection goes on, and stays open as long as the link has handles.
    ///
    /// Signed frames have fewer types than other links: negative integers cannot be sent (the call ends with `bad_value`), booleans and
    /// floats arrive as text.
    ///
    /// # Errors
    /// [`RpcConnectError`] when the connection is over.
    pub async fn rpc(&self, config: RpcConfig) -> Result<RpcClient, RpcConnectError> {
        let endpoint = self.endpoint();
        Links::install(endpoint);
        let peer = self.number();
        let start = |links: &mut Links, cx: &mut Context<'_>| {
            let now = cx.now();
            let link = cx.endpoint().rpc_over_peer(now, peer, config);
            links.keep_own(link);
            link
        };
        let link = endpoint.with_extension(start).ok_or(ConnectError::EndpointClosed)?;
        RpcClient::new(endpoint, link, Some(self.clone())).up().await
    }
}

impl RelayClient {
    /// Serves the endpoint's advertised procedures on every tunnel that other nodes open to this one, until the node is stopped or
    /// the future dropped; links made till then go on. It takes the place of [`incoming`](Self::incoming).
    pub async fn serve_rpc(&self, config: RpcConfig) {
        while let Some(tunnel) = self.incoming().await {
            self.endpoint().start_on(tunnel, false, config.clone(), false);
        }
    }
}

/// After something was done to a call. What is said within the process is passed on at once, without the driver.
fn settle(state: &mut State, link: RpcId) {
    if link == RpcId::LOCAL && state.endpoint.has_news() {
        state.drain_events();
    }
    state.kick_if_due();
}

/// Looks until there is an answer.
fn ready_if<T>(found: Option<T>) -> Poll<T> {
    found.map_or(Poll::Pending, Poll::Ready)
}
