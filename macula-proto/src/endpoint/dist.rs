//! Erlang distribution of an endpoint: what the embedding program sees of it.

mod carry;
mod info;
mod link;
mod role;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use bytes::Bytes;

use super::{Endpoint, Event};
pub use crate::dist::{controller::EndReason as DistEnd, pool::SendError as DistSendError};
use crate::{
    Code, Now,
    dist::{
        controller::{ControllerConfig, ControllerStats, LinkState},
        handshake::{HandshakeConfig, Standing},
        pool::SendError,
        streams::Side,
        user::{Owner, Priority, UserError, UserEvent, UserStream},
    },
    quic::{
        self, ConnectError, ConnectionHandle, StreamId, TransportConfig,
        tls::{ClientTls, TlsError},
    },
    wire::{dist::Flags, etf::Atom},
};
pub(super) use role::DistRole;

/// Names a distribution connection of an endpoint. Never used for a second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DistId(u64);

impl DistId {
    /// The number of the connection; dialled and accepted ones are counted together, from 0.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// How an endpoint is a node of a cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DistConfig {
    /// Who the node is, and how its connections behave.
    pub controller: ControllerConfig,
    /// How it dials. The ALPN is set by the endpoint. Each node that is dialled has sessions of its own to be resumed.
    pub dial: ClientTls,
    /// Transport of dialled connections. Default [`TransportConfig::dist`].
    pub transport: TransportConfig,
    /// Time that a dial may take, before the handshake of the distribution begins. Default 10 s.
    pub dial_timeout: Duration,
    /// Nodes that may call; `None`: all. They have to prove that they know the cookie in any case. Default all.
    pub allowed: Option<BTreeSet<Atom>>,
    /// Accepted connections that may be in their handshake at once; more are closed with [`Code::LIMIT`]. Default 256.
    pub handshaking: usize,
    /// Nodes whose sessions are kept. Default 256.
    pub remembered: usize,
    /// Bytes written and not acknowledged that one connection may have, whatever its congestion window. Default 10 MB.
    pub send_window: u64,
}

impl DistConfig {
    /// The defaults for this node, which dials with `dial`.
    pub fn new(handshake: HandshakeConfig, dial: ClientTls) -> Self {
        Self {
            controller: ControllerConfig::new(handshake),
            dial,
            transport: TransportConfig::dist(),
            dial_timeout: Duration::from_secs(10),
            allowed: None,
            handshaking: 256,
            remembered: 256,
            send_window: 10_000_000,
        }
    }
}

/// Why no dial was begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DistConnectError {
    /// [`Endpoint::serve_dist`] comes first.
    #[error("this endpoint is no node of a cluster")]
    NotServing,
    /// There is a connection with the node already, up or on its way.
    #[error("there is a connection with the node already ({0:?})")]
    Present(Standing),
    /// The settings of TLS are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The dial cannot start.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Why an operation on a user stream was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DistStreamError {
    /// There is no such connection.
    #[error("there is no such distribution connection")]
    UnknownConnection,
    /// The stream is not the owner's, or not there, or cannot do it.
    #[error(transparent)]
    User(#[from] UserError),
    /// Nothing can be done now: no stream can be opened before [`DistEvent::StreamsAvailable`], nothing read before
    /// [`UserEvent::Readable`], nothing written before [`UserEvent::Writable`].
    #[error("not now")]
    Blocked,
    /// The peer abandoned its direction.
    #[error("the peer reset the stream ({0})")]
    Reset(Code),
    /// The peer wants no more bytes.
    #[error("the peer stopped the stream ({0})")]
    Stopped(Code),
    /// The connection is over.
    #[error("the connection was lost")]
    ConnectionLost,
}

/// An occurrence on a distribution connection. There are few for each, however many messages come: those are fetched.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DistEvent {
    /// The handshake is complete, and the node about to be up: the moment for last settings. [`DistEvent::Up`] comes at once
    /// behind it.
    PreNodeUp {
        /// The other node.
        node: Atom,
    },
    /// The node is up. For accepted connections this and [`DistEvent::PreNodeUp`] are the first that is heard of them.
    Up {
        /// The other node.
        node: Atom,
        /// Which run of it; 0 if it does not tell.
        creation: u32,
        /// What this node is called: its name, or, if it had none, the one that the other node gave it.
        own: Atom,
        /// Which run of this node it is.
        own_creation: u32,
        /// What both can do.
        flags: Flags,
        /// Which end this side is.
        side: Side,
        /// Where the other node is.
        remote: SocketAddr,
    },
    /// It is over, and messages that came before wait to be fetched: [`DistEvent::Down`] follows the last of them. Nothing
    /// more is taken, and streams of users are gone.
    Over(DistEnd),
    /// It is over. The last event, once every message that came before has been fetched.
    Down {
        /// The other node.
        node: Option<Atom>,
        /// Why.
        reason: DistEnd,
        /// Who watches over the connection; see [`Endpoint::dist_set_supervisor`].
        supervisor: Option<Owner>,
    },
    /// There are messages to fetch with [`Endpoint::next_dist_message`]. Given once; it comes again after that has answered
    /// `None`.
    Readable,
    /// Messages are taken again, after [`SendError::Later`] or [`SendError::Congested`], or after [`DistEvent::Congested`].
    SendReady,
    /// So much waits to be sent that no more messages are taken.
    Congested,
    /// The peer sent a tick.
    Tick,
    /// The peer is at another address now.
    PathChanged(SocketAddr),
    /// After [`DistStreamError::Blocked`]: the peer allows more streams.
    StreamsAvailable,
    /// On a stream of a user.
    Stream {
        /// The stream.
        stream: StreamId,
        /// Its owner: who is to be told.
        owner: Owner,
        /// What happened.
        event: UserEvent,
    },
}

/// Statistics of a distribution connection, as the net kernel of a node asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DistStat {
    /// UDP datagrams received on the connection.
    pub received: u64,
    /// Packets sent on the connection.
    pub sent: u64,
    /// Bytes of messages and ticks that were taken and wait to be written.
    pub pending: usize,
    /// What the machines of the connection have done.
    pub controller: ControllerStats,
}

/// A distribution connection at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DistInfo {
    /// The other node, as far as it is known.
    pub node: Option<Atom>,
    /// Which end this side is.
    pub side: Side,
    /// How far it is.
    pub state: LinkState,
    /// Where the other node is, as of now.
    pub remote: SocketAddr,
    /// The QUIC connection.
    pub connection: ConnectionHandle,
    /// Whether no more messages are taken because too much waits.
    pub congested: bool,
    /// Messages of the peer that wait to be fetched.
    pub has_messages: bool,
    /// Streams of users that are not over.
    pub streams: usize,
    /// Who watches over the connection.
    pub supervisor: Option<Owner>,
}

/// Erlang distribution over QUIC.
///
/// An endpoint is one node. It accepts connections of other nodes with ALPN `erlang-dist` and dials others; with each node there is
/// one connection, also when both dial at once. Messages go with [`dist_send`](Self::dist_send) and come with
/// [`next_dist_message`](Self::next_dist_message); what they contain is the matter of
/// [`wire::dist`](crate::wire::dist). Next to them, programs have byte streams of their own on the connection.
impl Endpoint {
    /// Makes the endpoint a node, and serves connections accepted from now on with ALPN `erlang-dist`.
    /// [`quic::Endpoint::listen`] comes beside it, if it is to accept any. Another call changes the settings for connections that
    /// begin from then on; the name must be the same.
    pub fn serve_dist(&mut self, config: DistConfig) {
        self.dist.serve(config);
    }

    /// Lets in only these nodes from now on; `None`: all. Who is in stays in.
    pub fn allow_dist(&mut self, nodes: Option<BTreeSet<Atom>>) {
        self.dist.allow(nodes);
    }

    /// Dials a node. [`DistEvent::Up`] follows, or [`DistEvent::Down`]: with [`DistEnd::Displaced`], or a handshake that failed with
    /// `nok`, if the node dialled this one at the same time and that connection stays.
    ///
    /// `server_name` is what the certificate must be valid for.
    ///
    /// # Errors
    /// [`DistConnectError`] when the dial cannot even start.
    pub fn connect_dist(
        &mut self,
        now: Now,
        node: Atom,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<DistId, DistConnectError> {
        self.with_dist(|dist, cx| dist.connect(cx, now, node, remote, server_name))
    }

    /// The connection with a node that is up.
    pub fn dist_of(&self, node: &str) -> Option<DistId> {
        self.dist.connection_of(node)
    }

    /// All nodes that are up, by name, and the connections with them.
    pub fn dist_nodes(&self) -> Vec<(Atom, DistId)> {
        self.dist.nodes()
    }

    /// Sends a message. `key` says which messages have to stay in order if they are spread by key; otherwise it does not matter.
    ///
    /// # Errors
    /// [`SendError`]: it was not taken, a clone of it can be offered again. After [`SendError::Later`] and [`SendError::Congested`],
    /// [`DistEvent::SendReady`] tells when. A connection that is forgotten answers [`SendError::Failed`].
    pub fn dist_send(&mut self, now: Now, dist: DistId, message: Bytes, key: u64) -> Result<(), SendError> {
        self.with_dist(|role, cx| role.send(cx, now, dist, message, key))
    }

    /// The next message of a node. Fetching makes room: as long as too much waits, the node is slowed down.
    pub fn next_dist_message(&mut self, now: Now, dist: DistId) -> Option<Bytes> {
        self.with_dist(|role, cx| role.next_message(cx, now, dist))
    }

    /// Sends a tick, before all data, and a PING with it. Ticks are sent by themselves as well, unless
    /// [`net_tick`](ControllerConfig::net_tick) is `None`. Without effect before the node is up.
    pub fn dist_tick(&mut self, now: Now, dist: DistId) {
        self.with_dist(|role, cx| role.tick(cx, now, dist));
    }

    /// Closes a connection in good order: takes no more messages, sends those that it has, and closes with `code` when all have
    /// arrived, after [`drain`](ControllerConfig::drain) at the latest. [`DistEvent::Down`] follows. Streams of users do not hold it
    /// up: what they have not delivered by then is lost.
    pub fn dist_close(&mut self, now: Now, dist: DistId, code: Code) {
        self.with_dist(|role, cx| role.leave(cx, now, dist, code));
    }

    /// Closes a connection at once, if it is not over, and forgets it: nothing more is heard of it.
    pub fn forget_dist(&mut self, now: Now, dist: DistId, code: Code) {
        self.with_dist(|role, cx| role.forget(cx, now, dist, code));
    }

    /// Statistics: packets received and sent, and what waits. `None` when it is forgotten.
    pub fn dist_stat(&mut self, dist: DistId) -> Option<DistStat> {
        self.with_dist(|role, cx| role.stat(cx, dist))
    }

    /// A connection at this moment; `None` when it is forgotten.
    pub fn dist_info(&self, dist: DistId) -> Option<DistInfo> {
        self.dist.info(dist)
    }

    /// Calls the other node by another name from now on, in events and information. False when the connection is forgotten.
    pub fn dist_set_node(&mut self, dist: DistId, node: Atom) -> bool {
        self.dist.set_node(dist, node)
    }

    /// Notes who watches over a connection, to be named when it is over. False when it is forgotten.
    pub fn dist_set_supervisor(&mut self, dist: DistId, supervisor: Option<Owner>) -> bool {
        self.dist.set_supervisor(dist, supervisor)
    }

    // ----- streams of users ----------------------------------------------------------------------------------------

    /// Opens a stream for `owner`. The peer learns of it with the first bytes, or the end, sent on it.
    ///
    /// # Errors
    /// [`DistStreamError`]; after [`DistStreamError::Blocked`], [`DistEvent::StreamsAvailable`] tells when to try again.
    pub fn dist_open_stream(
        &mut self,
        now: Now,
        dist: DistId,
        owner: Owner,
        priority: Priority,
    ) -> Result<StreamId, DistStreamError> {
        self.with_dist(|role, cx| role.open_stream(cx, now, dist, owner, priority))
    }

    /// Gives `owner` streams that the peer opens from now on, in turn with the others who accept; [`UserEvent::Accepted`]
    /// tells of each. While nobody accepts they are reset with [`Code::REFUSED`].
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_accept_streams(&mut self, dist: DistId, owner: Owner) -> Result<(), DistStreamError> {
        self.dist.accept_streams(dist, owner)
    }

    /// Gives `owner` no more streams. It keeps those that it has.
    pub fn dist_stop_accepting(&mut self, dist: DistId, owner: Owner) {
        self.dist.stop_accepting(dist, owner);
    }

    /// Writes on a stream, as much as it takes, without a copy; `data` is advanced. Returns how many bytes were taken.
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_stream_write(
        &mut self,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
        data: &mut Bytes,
    ) -> Result<usize, DistStreamError> {
        self.with_dist(|role, cx| role.stream_write(cx, dist, stream, owner, data))
    }

    /// Sends no more on a stream; the other direction goes on. Idempotent.
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_stream_finish(
        &mut self,
        now: Now,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
    ) -> Result<(), DistStreamError> {
        self.with_dist(|role, cx| role.on_stream(cx, now, dist, |users, out| users.finish(stream.get(), owner, out)))
    }

    /// The next bytes of a stream, at most `max`; `None` is the end.
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_stream_read(
        &mut self,
        now: Now,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
        max: usize,
    ) -> Result<Option<Bytes>, DistStreamError> {
        self.with_dist(|role, cx| role.stream_read(cx, now, dist, stream, owner, max))
    }

    /// Reads no more of a stream: the peer is told with the code. The other direction goes on. Idempotent.
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_stream_stop(
        &mut self,
        now: Now,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
        code: Code,
    ) -> Result<(), DistStreamError> {
        self.with_dist(|role, cx| {
            role.on_stream(cx, now, dist, |users, out| users.stop(stream.get(), owner, code, out))
        })
    }

    /// Gives up the sending direction of a stream, unless it is finished: the peer sees the code, and what has not arrived is lost.
    /// The other direction goes on. Idempotent.
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_stream_abandon(
        &mut self,
        now: Now,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
        code: Code,
    ) -> Result<(), DistStreamError> {
        self.with_dist(|role, cx| {
            role.on_stream(cx, now, dist, |users, out| {
                users.abandon(stream.get(), owner, code, out)
            })
        })
    }

    /// Is done with a stream: what was written arrives, nothing more is read.
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_stream_close(
        &mut self,
        now: Now,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
    ) -> Result<(), DistStreamError> {
        self.with_dist(|role, cx| role.on_stream(cx, now, dist, |users, out| users.close(stream.get(), owner, out)))
    }

    /// Ends both directions of a stream at once; the peer sees the code. Deployed nodes use 0 unless they say otherwise.
    ///
    /// # Errors
    /// [`DistStreamError`].
    pub fn dist_stream_reset(
        &mut self,
        now: Now,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
        code: Code,
    ) -> Result<(), DistStreamError> {
        self.with_dist(|role, cx| {
            role.on_stream(cx, now, dist, |users, out| users.reset(stream.get(), owner, code, out))
        })
    }

    /// Hands a stream from its owner to another one, who is told with [`UserEvent::HandedOver`].
    ///
    /// # Errors
    /// [`DistStreamError`]: only the owner may.
    pub fn dist_hand_over(
        &mut self,
        now: Now,
        dist: DistId,
        stream: StreamId,
        owner: Owner,
        to: Owner,
    ) -> Result<(), DistStreamError> {
        self.with_dist(|role, cx| {
            role.on_stream(cx, now, dist, |users, out| {
                users.hand_over(stream.get(), owner, to, out)
            })
        })
    }

    /// An owner is gone: its streams, of all connections, are reset with [`Code::CANCELLED`], and it accepts no more.
    pub fn dist_owner_gone(&mut self, now: Now, owner: Owner) {
        self.with_dist(|role, cx| role.owner_gone(cx, now, owner));
    }

    /// The streams of users on a connection that are not over, by id.
    pub fn dist_streams(&self, dist: DistId) -> Vec<UserStream> {
        self.dist.streams(dist)
    }

    pub(super) fn with_dist<T>(&mut self, run: impl FnOnce(&mut DistRole, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            quic: &mut self.quic,
            out: Vec::new(),
        };
        let result = run(&mut self.dist, &mut cx);
        let out = cx.out;
        self.events.extend(out);
        result
    }
}

/// What connections are run on.
pub(super) struct Cx<'a> {
    quic: &'a mut quic::Endpoint,
    out: Vec<Event>,
}

impl Cx<'_> {
    fn tell(&mut self, dist: DistId, event: DistEvent) {
        self.out.push(Event::Dist { dist, event });
    }
}
