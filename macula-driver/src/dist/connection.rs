//! The handle of a connection between two nodes.

use std::{collections::VecDeque, fmt, net::SocketAddr, sync::Arc, task::Poll};

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::{
        pool::SendError,
        streams::Side,
        user::{Owner, Priority, UserStream},
    },
    endpoint::{DistEnd, DistId, DistInfo, DistStat, DistStreamError},
    quic::ConnectionStats,
    wire::{dist::Flags, etf::Atom},
};

use super::{
    DialError, DistAcceptor, DistStream, StreamError,
    key::{self, Link as OfLink},
    table::{Links, Up},
};
use crate::{
    Context, Endpoint,
    shared::{Phase, State},
    waiters::Wait,
};

/// A connection with another node that is up: messages both ways, in order, and streams.
///
/// Clones are handles of the same connection. When the last of them and of its streams is dropped, the connection is closed at once,
/// and messages that have not arrived are lost; [`close`](Self::close) is the orderly end.
///
/// Received messages wait until they are fetched with [`recv`](Self::recv), and slow the other node down if they are too many. Ticks
/// are sent and answered by themselves. All futures are cancellation-safe.
#[derive(Debug, Clone)]
pub struct DistConnection {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    endpoint: Endpoint,
    dist: DistId,
    up: Box<Up>,
}

impl DistConnection {
    pub(super) fn new(endpoint: &Endpoint, dist: DistId, up: Box<Up>) -> Self {
        let endpoint = endpoint.clone();
        let inner = Arc::new(Inner { endpoint, dist, up });
        let handle = Arc::downgrade(&inner);
        inner
            .endpoint
            .with_extension(|links: &mut Links, cx| links.handled(cx, dist, handle));
        Self { inner }
    }

    pub(super) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    // ----- messages ------------------------------------------------------------------------------------------------

    /// Sends a message as soon as there is room for it. Dropping the future sends nothing.
    ///
    /// # Errors
    /// [`SendError`], never [`Later`](SendError::Later) or [`Congested`](SendError::Congested).
    pub async fn send(&self, message: Bytes) -> Result<(), SendError> {
        let mut messages = VecDeque::from([message]);
        self.send_all(&mut messages).await
    }

    /// Sends messages from the front, as there is room for them. Those that were taken are gone from `messages`, also when the future
    /// is dropped.
    ///
    /// # Errors
    /// [`SendError`] about the first one that is left, never [`Later`](SendError::Later) or [`Congested`](SendError::Congested).
    pub async fn send_all(&self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError> {
        let dist = self.inner.dist;
        let look = |state: &mut State| {
            let now = state.tick();
            let mut outcome = Poll::Ready(Ok(()));
            while let Some(message) = messages.front() {
                match state.endpoint.dist_send(now, dist, message.clone(), 0) {
                    Ok(()) => _ = messages.pop_front(),
                    Err(SendError::Later | SendError::Congested) if state.phase != Phase::Dead => {
                        outcome = Poll::Pending;
                        break;
                    }
                    Err(SendError::Later | SendError::Congested) => {
                        outcome = Poll::Ready(Err(SendError::Failed));
                        break;
                    }
                    Err(error) => {
                        outcome = Poll::Ready(Err(error));
                        break;
                    }
                }
            }
            state.kick_if_due();
            outcome
        };
        let wait = Wait::Custom(key::link(dist, OfLink::Send));
        self.inner.endpoint.shared().until(wait, look).await
    }

    /// Sends a message if it is taken at once.
    ///
    /// # Errors
    /// [`SendError`]: it was not taken. After [`Later`](SendError::Later) and [`Congested`](SendError::Congested) it may be offered
    /// again, best with [`send`](Self::send).
    pub fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let dist = self.inner.dist;
        self.with(|cx| {
            let now = cx.now();
            cx.endpoint().dist_send(now, dist, message, 0)
        })
    }

    /// The next message. Several tasks may wait; each message goes to one.
    ///
    /// # Errors
    /// How the connection ended, behind the messages that had come before.
    pub async fn recv(&self) -> Result<Bytes, DistEnd> {
        let mut message = Vec::with_capacity(1);
        self.recv_many(&mut message, 1).await?;
        message.pop().ok_or(DistEnd::Closed)
    }

    /// Fetches the messages that are there, at least one and at most `max`, and puts them behind those in `into`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_many(&self, into: &mut Vec<Bytes>, max: usize) -> Result<(), DistEnd> {
        let dist = self.inner.dist;
        let look = |links: &mut Links, cx: &mut Context<'_>| {
            let now = cx.now();
            for count in 0..max.max(1) {
                match cx.endpoint().next_dist_message(now, dist) {
                    Some(message) => into.push(message),
                    None if count > 0 => break,
                    None => {
                        return match links.end(dist) {
                            Some(end) => Poll::Ready(Err(end)),
                            None => Poll::Pending,
                        };
                    }
                }
            }
            Poll::Ready(Ok(()))
        };
        let fetched = self.inner.endpoint.wait(key::link(dist, OfLink::Recv), look).await;
        fetched.unwrap_or(Err(DistEnd::Closed))
    }

    /// The next message, if there is one already.
    pub fn try_recv(&self) -> Option<Bytes> {
        let dist = self.inner.dist;
        self.with(|cx| {
            let now = cx.now();
            cx.endpoint().next_dist_message(now, dist)
        })
    }

    /// Sends a tick now, before all messages.
    pub fn tick(&self) {
        let dist = self.inner.dist;
        self.with(|cx| {
            let now = cx.now();
            cx.endpoint().dist_tick(now, dist);
        });
    }

    // ----- streams -------------------------------------------------------------------------------------------------

    /// Opens a stream, as soon as the other node allows one more. It learns of the stream with the first bytes, or the end, sent
    /// on it.
    ///
    /// # Errors
    /// [`StreamError::Limit`], [`StreamError::ConnectionLost`].
    pub async fn open_stream(&self, priority: Priority) -> Result<DistStream, StreamError> {
        let dist = self.inner.dist;
        let look = |links: &mut Links, cx: &mut Context<'_>| {
            let (now, number) = (cx.now(), links.next_owner());
            let owner = Owner(number);
            match cx.endpoint().dist_open_stream(now, dist, owner, priority) {
                Ok(stream) => Poll::Ready(Ok((stream, links.opened(dist, stream, number)))),
                Err(DistStreamError::Blocked) if links.end(dist).is_none() => Poll::Pending,
                Err(error) => Poll::Ready(Err(StreamError::from(error))),
            }
        };
        let opened = self.inner.endpoint.wait(key::link(dist, OfLink::Open), look).await;
        let (stream, slot) = opened.unwrap_or(Err(StreamError::ConnectionLost))?;
        Ok(DistStream::new(self.clone(), stream, slot))
    }

    /// Takes streams that the other node opens on this connection, in turn with others who do. While nobody does they are refused.
    pub fn accept_streams(&self) -> DistAcceptor {
        DistAcceptor::new(&self.inner.endpoint, Some(self.clone()))
    }

    /// The streams that are not over, by id.
    pub fn streams(&self) -> Vec<UserStream> {
        let dist = self.inner.dist;
        self.with(|cx| cx.endpoint().dist_streams(dist))
    }

    // ----- what is there -------------------------------------------------------------------------------------------

    /// Which connection of the endpoint this is.
    pub fn id(&self) -> DistId {
        self.inner.dist
    }

    /// The other node, as it proved to be called.
    pub fn node(&self) -> &Atom {
        &self.inner.up.node
    }

    /// Which run of the other node this is; 0 if it does not tell.
    pub fn creation(&self) -> u32 {
        self.inner.up.creation
    }

    /// What both nodes can do.
    pub fn flags(&self) -> Flags {
        self.inner.up.flags
    }

    /// Which end this side is.
    pub fn side(&self) -> Side {
        self.inner.up.side
    }

    /// Where the other node is, as of now; where it was when it was last heard of, once the connection is over.
    pub fn remote_address(&self) -> SocketAddr {
        self.info().map_or(self.inner.up.remote, |info| info.remote)
    }

    /// The connection at this moment; `None` once it is over and everything was fetched.
    pub fn info(&self) -> Option<DistInfo> {
        let dist = self.inner.dist;
        self.with(|cx| cx.endpoint().dist_info(dist))
    }

    /// Whether so much waits to be sent that no more messages are taken for now.
    pub fn is_congested(&self) -> bool {
        self.info().is_some_and(|info| info.congested)
    }

    /// Packets received and sent, what waits to be sent, and counters; `None` once it is over and everything was fetched.
    pub fn stat(&self) -> Option<DistStat> {
        let dist = self.inner.dist;
        self.with(|cx| cx.endpoint().dist_stat(dist))
    }

    /// Figures of the QUIC connection; `None` once it is over.
    pub fn transport_stats(&self) -> Option<ConnectionStats> {
        self.on_quic(|connection| connection.stats())
    }

    /// Whether the QUIC connection resumed the session of an earlier one. Only the node that dialled knows, and only of nodes that take
    /// early data, of which there is none.
    pub fn is_resumed(&self) -> bool {
        self.on_quic(|connection| connection.accepted_early_data())
            .unwrap_or(false)
    }

    /// Calls the other node by another name from now on in [`info`](Self::info). False once the connection is over.
    pub fn set_node(&self, node: Atom) -> bool {
        let dist = self.inner.dist;
        self.with(|cx| cx.endpoint().dist_set_node(dist, node))
    }

    // ----- the end -------------------------------------------------------------------------------------------------

    /// Closes the connection in good order: what was sent arrives, for which there is the time of
    /// [`drain`](super::ControllerConfig::drain). What comes meanwhile is dropped, and streams end. Dropping the future stops the
    /// waiting only.
    pub async fn close(&self) -> DistEnd {
        let dist = self.inner.dist;
        self.with(|cx| {
            let now = cx.now();
            cx.endpoint().dist_close(now, dist, Code::CLOSED);
        });
        loop {
            if let Err(end) = self.recv().await {
                return end;
            }
        }
    }

    /// Closes the connection at once.
    pub fn abort(&self, code: Code) {
        let dist = self.inner.dist;
        self.inner
            .endpoint
            .with_extension(|links: &mut Links, cx| links.abort(cx, dist, code));
    }

    /// Waits until the connection is over, and says why. Messages that came before may still be there.
    pub async fn closed(&self) -> DistEnd {
        let dist = self.inner.dist;
        let look = |links: &mut Links, _: &mut Context<'_>| match links.end(dist) {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        };
        let end = self.inner.endpoint.wait(key::link(dist, OfLink::State), look).await;
        end.unwrap_or(DistEnd::Closed)
    }

    /// Runs `operation`; the driver is woken only if there is something for it.
    pub(super) fn with<T>(&self, operation: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.inner.endpoint.shared().locked(|state| {
            state.tick();
            let result = operation(&mut Context { state });
            state.kick_if_due();
            result
        })
    }

    fn on_quic<T>(&self, look: impl FnOnce(&mut macula_proto::quic::Connection<'_>) -> T) -> Option<T> {
        let dist = self.inner.dist;
        self.with(|cx| {
            let info = cx.endpoint().dist_info(dist)?;
            let mut connection = cx.endpoint().quic().connection(info.connection).ok()?;
            Some(look(&mut connection))
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let dist = self.dist;
        self.endpoint
            .with_extension(|links: &mut Links, cx| links.forget(cx, dist));
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("dist", &self.dist)
            .field("node", &self.up.node)
            .finish_non_exhaustive()
    }
}

/// A dial whose future may be dropped.
pub(super) struct Dialled<'a> {
    endpoint: &'a Endpoint,
    dist: Option<DistId>,
}

impl<'a> Dialled<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, dist: DistId) -> Self {
        let dist = Some(dist);
        Self { endpoint, dist }
    }

    pub(super) async fn up(mut self) -> Result<DistConnection, DialError> {
        let Some(dist) = self.dist else {
            return Err(DialError::EndpointClosed);
        };
        let look = |links: &mut Links, _: &mut Context<'_>| links.dial_up(dist);
        let outcome = self.endpoint.wait(key::link(dist, OfLink::State), look).await;
        let up = outcome.ok_or(DialError::EndpointClosed)?.map_err(DialError::Ended)?;
        // From here on the handle takes care of it.
        self.dist = None;
        Ok(DistConnection::new(self.endpoint, dist, up))
    }
}

impl Drop for Dialled<'_> {
    fn drop(&mut self) {
        if let Some(dist) = self.dist {
            self.endpoint
                .with_extension(|links: &mut Links, cx| links.forget(cx, dist));
        }
    }
}
