//! Streaming RPC of an endpoint: what the embedding program sees of it.

mod calls;
mod carrier;
mod frames;
mod local;
mod role;

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;

use super::{Endpoint, Event, PeerId, peer::PeerRole};
use crate::{
    Code, Now,
    quic::{self, ConnectError, ConnectionHandle, DialConfig, StreamId},
    rpc::{
        Chunk, Fault, Info, Kind, Outcome, RecvError, ReplyError, RpcConfig, SendError,
        session::{CallId, EndReason, Incoming, OpenError, PeerHello, Request, Room, SessionStats},
    },
};
pub(super) use frames::is_rpc;
pub(super) use role::RpcRole;

/// Names an RPC link of an endpoint: a connection, a tunnel or a peering connection that carries calls, or the process
/// itself. Never used for a second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcId(pub(super) u64);

impl RpcId {
    /// Calls between programs of this endpoint, with no network between them. Always there.
    pub const LOCAL: Self = Self(0);

    /// The number of the link; all kinds are counted together, from 1.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A call that a peer has made, for the program that advertised its procedure.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IncomingCall {
    /// The link on which it came.
    pub link: RpcId,
    /// What is asked, and of what.
    pub incoming: Incoming,
}

/// An occurrence of RPC. There are few for each call, however many chunks come: those are fetched.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RpcEvent {
    /// A link is up: calls can be made on it. For accepted connections this is the first that is heard of them.
    Up {
        /// The link.
        link: RpcId,
        /// What the peer said about itself.
        hello: Box<PeerHello>,
    },
    /// A link is over: nothing comes in or goes out any more. The last event of it, but not of its calls: those with chunks that
    /// had arrived and were not fetched yet [end](RpcEvent::Finished) when these are fetched. All others ended before.
    Down {
        /// The link.
        link: RpcId,
        /// Why.
        reason: EndReason,
    },
    /// There are calls to take with [`Endpoint::next_incoming_call`]. Given once; it comes again after that has answered
    /// `None`.
    Incoming,
    /// There is something to fetch with [`Endpoint::call_recv`]. Given once; it comes again after that has answered
    /// `WouldBlock`.
    Readable(CallId),
    /// There is room again after [`SendError::WouldBlock`].
    SendReady(CallId),
    /// The reply is there, or there will be none: [`Endpoint::call_reply`] answers.
    Replied(CallId),
    /// Nothing more goes in either direction, and all chunks that had come were fetched. Exactly once for each call that was not
    /// forgotten before. The reply can still be asked for.
    Finished(CallId),
    /// A pong came for a ping of [`Endpoint::rpc_ping`].
    Pong {
        /// The link.
        link: RpcId,
        /// Round trip, from the ping's being queued to the pong's being read.
        rtt: Duration,
    },
}

/// An RPC link at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RpcInfo {
    /// Where the peer is; `None` for the local link.
    pub remote: Option<SocketAddr>,
    /// The QUIC connection that carries it.
    pub connection: Option<ConnectionHandle>,
    /// Calls that are not over, both directions.
    pub calls: usize,
    /// Bytes that wait to be sent, of all calls.
    pub queued: usize,
    /// Bytes of chunks that wait to be fetched, of all calls.
    pub waiting: usize,
    /// Whether each call has a stream of its own.
    pub per_call: bool,
    /// Counters.
    pub stats: SessionStats,
}

/// There is no such link (any more), or it is not up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such RPC link")]
pub struct UnknownLink;

/// Streaming RPC.
///
/// A *link* carries calls between two programs: a connection of its own ([`connect_rpc`](Self::connect_rpc), and accepted ones after
/// [`serve_rpc`](Self::serve_rpc)), a tunnel of a relay ([`rpc_over_tunnel`](Self::rpc_over_tunnel)), a peering connection
/// ([`rpc_over_peer`](Self::rpc_over_peer)), or the process itself ([`RpcId::LOCAL`]). Procedures are advertised once, for all links.
impl Endpoint {
    /// Serves calls on connections accepted from now on with ALPN `macula` whose first byte is that of an RPC message.
    /// [`quic::Endpoint::listen`] comes beside it. Another call changes the settings for connections accepted from then on.
    pub fn serve_rpc(&mut self, config: RpcConfig) {
        self.rpc.serve(config);
    }

    /// Dials a peer for calls. [`RpcEvent::Up`] follows, or [`RpcEvent::Down`]. `dial` needs the ALPN `macula`.
    ///
    /// # Errors
    /// [`ConnectError`] when the dial cannot even start.
    pub fn connect_rpc(
        &mut self,
        now: Now,
        dial: &DialConfig,
        remote: SocketAddr,
        server_name: &str,
        config: RpcConfig,
    ) -> Result<RpcId, ConnectError> {
        let conn = self.quic.connect(now, dial, remote, server_name)?;
        Ok(self.rpc.dialled(conn, remote, config))
    }

    /// Runs a link on a tunnel that a node was given ([`ClientEvent::Opened`](super::ClientEvent::Opened) or
    /// `Arrived`). The end that asked for the tunnel is the `dialler`. The stream is the link's from then on.
    pub fn rpc_over_tunnel(
        &mut self,
        now: Now,
        conn: ConnectionHandle,
        stream: StreamId,
        dialler: bool,
        config: RpcConfig,
    ) -> RpcId {
        self.with_rpc(|rpc, cx| rpc.over_tunnel(cx, now, conn, stream, dialler, config))
    }

    /// Runs a link on a peering connection whose handshake is complete: its frames of streams and calls go to the link from then
    /// on, signed on the way out, all others come with [`next_peer_item`](Self::next_peer_item) as before. Frames of streams that
    /// came before are not lost: they are the link's.
    pub fn rpc_over_peer(&mut self, now: Now, peer: PeerId, config: RpcConfig) -> RpcId {
        self.with_rpc(|rpc, cx| rpc.over_peer(cx, now, peer, config))
    }

    /// Offers a procedure on all links. `false` if it was advertised before; the kind is then the new one.
    pub fn advertise(&mut self, procedure: impl Into<Bytes>, kind: Kind) -> bool {
        self.rpc.advertise(procedure.into(), kind)
    }

    /// Offers a procedure no more. Calls under way go on. `false` if it was not advertised.
    pub fn unadvertise(&mut self, procedure: &[u8]) -> bool {
        self.rpc.unadvertise(procedure)
    }

    /// Registers an advertised procedure at the far end of a link, so that a router there sends calls for it. The router answers
    /// nothing.
    ///
    /// # Errors
    /// [`UnknownLink`] also for a link that is not up yet.
    pub fn register_procedure(&mut self, now: Now, link: RpcId, procedure: &[u8]) -> Result<(), UnknownLink> {
        self.with_rpc(|rpc, cx| rpc.register(cx, now, link, procedure))
    }

    /// Makes a call on a link that is up.
    ///
    /// # Errors
    /// [`OpenError`] names what is in the way; after [`OpenError::Busy`] another call has to end first.
    pub fn open_call(&mut self, now: Now, link: RpcId, request: Request) -> Result<CallId, OpenError> {
        self.with_rpc(|rpc, cx| rpc.open(cx, now, link, request))
    }

    /// The next call that a peer made of an advertised procedure.
    pub fn next_incoming_call(&mut self) -> Option<IncomingCall> {
        self.rpc.next_incoming()
    }

    /// Sends a chunk on a streaming call.
    ///
    /// # Errors
    /// [`SendError`], with the chunk, which was not taken. After [`SendError::WouldBlock`], [`RpcEvent::SendReady`] tells when there is room.
    pub fn call_send(&mut self, now: Now, call: CallId, chunk: Chunk) -> Result<(), (SendError, Chunk)> {
        self.with_rpc(|rpc, cx| rpc.send(cx, now, call, chunk))
    }

    /// Sends chunks on a streaming call in one go, which costs much less than one by one if they are small. All are taken, even
    /// if more wait to be sent than [`RpcLimits::outbox`](crate::rpc::RpcLimits::outbox) allows: whoever uses it bounds how many
    /// there are, and begins with [`call_send`](Self::call_send), which tells whether there is room. Only on [`RpcId::LOCAL`] they are
    /// taken one by one as far as there is.
    ///
    /// # Errors
    /// [`SendError`]. The chunks that were not sent are left.
    pub fn call_send_all(&mut self, now: Now, call: CallId, chunks: &mut VecDeque<Chunk>) -> Result<(), SendError> {
        self.with_rpc(|rpc, cx| rpc.send_all(cx, now, call, chunks))
    }

    /// Appends the next chunks of a streaming call to `out`, as many as are there and `room` allows, at least one.
    ///
    /// # Errors
    /// As [`call_recv`](Self::call_recv), with nothing appended.
    pub fn call_recv_many(
        &mut self,
        now: Now,
        call: CallId,
        room: Room,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), RecvError> {
        self.with_rpc(|rpc, cx| rpc.recv_many(cx, now, call, room, out))
    }

    /// The next chunk of a streaming call. Fetching makes room for more.
    ///
    /// # Errors
    /// [`RecvError::WouldBlock`] when there is none now; [`RecvError::Eof`] behind the last; what went wrong otherwise.
    pub fn call_recv(&mut self, now: Now, call: CallId) -> Result<Chunk, RecvError> {
        self.with_rpc(|rpc, cx| rpc.recv(cx, now, call))
    }

    /// Says that no more chunks will be sent; the other direction goes on. Idempotent.
    pub fn call_finish(&mut self, now: Now, call: CallId) {
        self.with_rpc(|rpc, cx| rpc.finish(cx, now, call));
    }

    /// The reply of a call, streaming or unary; `None` while there is none yet.
    pub fn call_reply(&mut self, now: Now, call: CallId) -> Option<Result<Outcome, ReplyError>> {
        self.with_rpc(|rpc, cx| rpc.reply(cx, now, call))
    }

    /// Settles the reply of a call that came in. The first one counts. `false` if it was settled or over before.
    pub fn call_set_reply(&mut self, now: Now, call: CallId, outcome: Outcome) -> bool {
        self.with_rpc(|rpc, cx| rpc.set_reply(cx, now, call, outcome))
    }

    /// Ends both directions of a call in good order. Idempotent.
    pub fn call_close(&mut self, now: Now, call: CallId) {
        self.with_rpc(|rpc, cx| rpc.close_call(cx, now, call));
    }

    /// Ends a call with an error that the peer sees.
    pub fn call_abort(&mut self, now: Now, call: CallId, fault: Fault) {
        self.with_rpc(|rpc, cx| rpc.abort(cx, now, call, fault));
    }

    /// Forgets a call: nothing more is heard of it. One that is not over ends with the error `owner_down` at the peer's (a caller's, with
    /// `cancelled`).
    pub fn forget_call(&mut self, now: Now, call: CallId) {
        self.with_rpc(|rpc, cx| rpc.forget(cx, now, call));
    }

    /// A streaming call at this moment; `None` for unary ones and when it is forgotten.
    pub fn call_info(&self, call: CallId) -> Option<Info> {
        self.rpc.call_info(call)
    }

    /// Sends a ping; [`RpcEvent::Pong`] follows if the peer lives.
    ///
    /// # Errors
    /// [`UnknownLink`] also for a link that is not up yet or has no pings (local and peering ones).
    pub fn rpc_ping(&mut self, now: Now, link: RpcId) -> Result<(), UnknownLink> {
        self.with_rpc(|rpc, cx| rpc.ping(cx, now, link))
    }

    /// Ends a link: its calls end, a connection of its own is closed with `code`, a tunnel finished, a peering connection left as it
    /// is. [`RpcEvent::Down`] follows.
    pub fn close_rpc(&mut self, now: Now, link: RpcId, code: Code) {
        self.with_rpc(|rpc, cx| rpc.close(cx, now, link, code));
    }

    /// A link at this moment; `None` when it is over.
    pub fn rpc_info(&self, link: RpcId) -> Option<RpcInfo> {
        self.rpc.info(link)
    }

    pub(super) fn with_rpc<T>(&mut self, run: impl FnOnce(&mut RpcRole, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            quic: &mut self.quic,
            peers: &mut self.peers,
            out: Vec::new(),
        };
        let result = run(&mut self.rpc, &mut cx);
        let out = cx.out;
        self.events.extend(out);
        result
    }
}

/// What links are run on.
pub(super) struct Cx<'a> {
    quic: &'a mut quic::Endpoint,
    peers: &'a mut PeerRole,
    out: Vec<Event>,
}

impl Cx<'_> {
    fn tell(&mut self, event: RpcEvent) {
        self.out.push(Event::Rpc(event));
    }
}
