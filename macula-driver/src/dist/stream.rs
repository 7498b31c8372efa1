//! Streams of programs on the connection between two nodes.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::{
        streams::Side,
        user::{Owner, Priority, UserStream},
    },
    endpoint::DistStreamError,
    quic::StreamId,
    wire::etf::Atom,
};

use super::{
    DistAcceptor, DistConnection, StreamError,
    key::{self, Stream as OfStream},
    table::{Links, StreamSlot},
};
use crate::{
    shared::{Phase, State},
    waiters::Wait,
};

/// Bytes copied in one call while others wait for the lock.
const MAX_WRITE: usize = 64 << 10;

/// What both halves of a stream share.
struct Common {
    connection: DistConnection,
    id: StreamId,
    number: u64,
    opened_here: bool,
    /// Somebody else has it now.
    given: AtomicBool,
}

impl Common {
    fn owner(&self) -> Owner {
        Owner(self.number)
    }

    fn given(&self) -> bool {
        self.given.load(Ordering::Relaxed)
    }

    /// Runs an operation on the endpoint, then says what became of it.
    fn run<T>(
        &self,
        state: &mut State,
        operation: impl FnOnce(&mut macula_proto::Endpoint, macula_proto::Now) -> Result<T, DistStreamError>,
        code: impl FnOnce(&Links) -> Option<StreamError>,
    ) -> Poll<Result<T, StreamError>> {
        let now = state.tick();
        let outcome = operation(&mut state.endpoint, now);
        state.kick_if_due();
        let error = match outcome {
            Ok(value) => return Poll::Ready(Ok(value)),
            Err(DistStreamError::Blocked) if state.phase != Phase::Dead => return Poll::Pending,
            Err(error) => error,
        };
        let dist = self.connection.id();
        let why = state.on_extension(|links: &mut Links, _| {
            let over = links.end(dist).map(|_| StreamError::ConnectionLost);
            code(links).or(over)
        });
        // A stream of which nothing is known, on a connection that goes on, was ended here.
        let unknown = match StreamError::from(error) {
            StreamError::ConnectionLost if state.phase != Phase::Dead => StreamError::Closed,
            error => error,
        };
        Poll::Ready(Err(why.flatten().unwrap_or(unknown)))
    }

    fn locked<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        self.connection.endpoint().shared().locked(operation)
    }

    /// Runs an operation that does not wait.
    fn now(
        &self,
        operation: impl FnOnce(&mut macula_proto::Endpoint, macula_proto::Now) -> Result<(), DistStreamError>,
    ) -> Result<(), StreamError> {
        let outcome = self.locked(|state| self.run(state, operation, |_| None));
        match outcome {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        if !self.given() {
            let (dist, id) = (self.connection.id(), self.id);
            self.connection
                .endpoint()
                .with_extension(|links: &mut Links, _| links.forget_stream(dist, id));
        }
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("node", self.connection.node())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

// ----- receiving ---------------------------------------------------------------------------------------------------

/// The receiving half of a stream.
///
/// Dropping it before its end was read stops the stream with [`Code::CLOSED`]: the peer learns that nobody reads on.
#[derive(Debug)]
pub struct DistRecvStream {
    common: Arc<Common>,
    /// The end was read.
    ended: bool,
    /// It was stopped here.
    stopped: bool,
    place: Option<u64>,
}

impl DistRecvStream {
    /// The next bytes, at most `max`, as they arrived; `Ok(None)` is the end.
    pub fn poll_read_chunk(
        &mut self,
        cx: &mut TaskContext<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        if self.stopped {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let common = &self.common;
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        let look = |state: &mut State| {
            common.run(
                state,
                |endpoint, now| endpoint.dist_stream_read(now, dist, id, owner, max),
                |links| links.reset(dist, id).map(StreamError::Reset),
            )
        };
        let wait = Wait::Custom(key::stream(common.number, OfStream::Read));
        let shared = common.connection.endpoint().shared();
        let read = shared.poll_until(wait, &mut self.place, cx, look);
        self.ended |= matches!(read, Poll::Ready(Ok(None)));
        read
    }

    /// The next bytes as they arrived, without copying them; `None` is the end. Cancellation-safe.
    ///
    /// # Errors
    /// [`StreamError`], for good.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_read_chunk(cx, usize::MAX)).await
    }

    /// Everything up to the end, if that is at most `limit` bytes; otherwise the stream is stopped with [`Code::LIMIT`] and
    /// `None` is the answer. Not cancellation-safe: what was read is lost with the future.
    ///
    /// # Errors
    /// [`StreamError`], for good.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Option<Vec<u8>>, StreamError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.read_chunk().await? {
            if chunk.len() > limit - all.len() {
                let _ = self.stop(Code::LIMIT);
                return Ok(None);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(Some(all))
    }

    /// Tells the peer that no more bytes are wanted, and drops what has arrived.
    ///
    /// # Errors
    /// [`StreamError::Closed`] if this half is over already; [`StreamError::ConnectionLost`].
    pub fn stop(&mut self, code: Code) -> Result<(), StreamError> {
        if self.ended || std::mem::replace(&mut self.stopped, true) {
            return Err(StreamError::Closed);
        }
        let common = &self.common;
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        common.now(|endpoint, now| endpoint.dist_stream_stop(now, dist, id, owner, code))
    }

    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        self.common.id
    }

    /// The connection of the stream.
    pub fn connection(&self) -> &DistConnection {
        &self.common.connection
    }
}

impl Drop for DistRecvStream {
    fn drop(&mut self) {
        let common = &self.common;
        let wait = Wait::Custom(key::stream(common.number, OfStream::Read));
        common
            .connection
            .endpoint()
            .shared()
            .stop_waiting(wait, &mut self.place);
        if self.ended || self.stopped || common.given() {
            return;
        }
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        common.locked(|state| {
            let now = state.tick();
            // If only the end is left to read, nothing is lost and the peer need not hear of it.
            if !matches!(
                state.endpoint.dist_stream_read(now, dist, id, owner, usize::MAX),
                Ok(None)
            ) {
                let _ = state.endpoint.dist_stream_stop(now, dist, id, owner, Code::CLOSED);
            }
            state.kick_if_due();
        });
    }
}

// ----- sending -----------------------------------------------------------------------------------------------------

/// The sending half of a stream.
///
/// Dropping it without [`finish`](Self::finish) abandons it with [`Code::CANCELLED`], so that the peer never takes half a message
/// for a whole one. After `finish` it can be dropped at once; what was written is still delivered as long as the connection lives.
#[derive(Debug)]
pub struct DistSendStream {
    common: Arc<Common>,
    /// Finished or abandoned.
    over: bool,
    finished: bool,
    place: Option<u64>,
}

impl DistSendStream {
    /// Gives bytes to be sent without copying them, and says how many were taken, at least one if there are any; `data` is advanced.
    pub fn poll_write_chunk(&mut self, cx: &mut TaskContext<'_>, data: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        if self.over {
            return Poll::Ready(Err(StreamError::Closed));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let common = &self.common;
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        let look = |state: &mut State| {
            common.run(
                state,
                |endpoint, _| endpoint.dist_stream_write(dist, id, owner, data),
                |links| links.stopped(dist, id).map(StreamError::Stopped),
            )
        };
        let wait = Wait::Custom(key::stream(common.number, OfStream::Write));
        let shared = common.connection.endpoint().shared();
        shared.poll_until(wait, &mut self.place, cx, look)
    }

    /// Copies bytes to be sent, and says how many were taken, at least one if there are any.
    pub fn poll_write(&mut self, cx: &mut TaskContext<'_>, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        let part = data.get(..MAX_WRITE).unwrap_or(data);
        self.poll_write_chunk(cx, &mut Bytes::copy_from_slice(part))
    }

    /// Copies bytes to be sent, and says how many were taken, at least one if there are any. Cancellation-safe: what was not taken was
    /// not sent.
    ///
    /// # Errors
    /// [`StreamError`], for good.
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        poll_fn(|cx| self.poll_write(cx, data)).await
    }

    /// Writes all of `data`. Not cancellation-safe: a part may have been taken.
    ///
    /// # Errors
    /// [`StreamError`], for good.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), StreamError> {
        while !data.is_empty() {
            let taken = self.write(data).await?;
            data = data.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes all of `data` without copying it; what was taken is gone from it, so calling it again with what is left goes on.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`StreamError`], for good.
    pub async fn write_chunk(&mut self, data: &mut Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            poll_fn(|cx| self.poll_write_chunk(cx, data)).await?;
        }
        Ok(())
    }

    /// Ends the stream once everything written is sent.
    ///
    /// # Errors
    /// [`StreamError::Closed`] if this half is over already; [`StreamError::Stopped`], [`StreamError::ConnectionLost`].
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.over, true) {
            return Err(StreamError::Closed);
        }
        self.finished = true;
        let common = &self.common;
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        let outcome = common.locked(|state| {
            common.run(
                state,
                |endpoint, now| endpoint.dist_stream_finish(now, dist, id, owner),
                |links| links.stopped(dist, id).map(StreamError::Stopped),
            )
        });
        match outcome {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }

    /// Finishes unless that was done before; what shutting down means for a byte stream.
    #[cfg_attr(
        not(any(feature = "tokio", feature = "futures-io")),
        expect(dead_code, reason = "used by the traits of runtimes")
    )]
    pub(super) fn shut_down(&mut self) -> Result<(), StreamError> {
        if self.finished {
            return Ok(());
        }
        self.finish()
    }

    /// Abandons this half: the peer sees the code, and bytes not yet delivered are lost.
    ///
    /// # Errors
    /// [`StreamError::Closed`] if this half is over already; [`StreamError::ConnectionLost`].
    pub fn reset(&mut self, code: Code) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.over, true) {
            return Err(StreamError::Closed);
        }
        let common = &self.common;
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        common.now(|endpoint, now| endpoint.dist_stream_abandon(now, dist, id, owner, code))
    }

    /// The code that the peer has stopped the stream with, if it did.
    pub fn is_stopped(&self) -> Option<Code> {
        let (dist, id) = (self.common.connection.id(), self.common.id);
        let stopped = |links: &mut Links, _: &mut crate::Context<'_>| links.stopped(dist, id);
        self.common.connection.endpoint().with_extension(stopped).flatten()
    }

    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        self.common.id
    }

    /// The connection of the stream.
    pub fn connection(&self) -> &DistConnection {
        &self.common.connection
    }
}

impl Drop for DistSendStream {
    fn drop(&mut self) {
        let common = &self.common;
        let wait = Wait::Custom(key::stream(common.number, OfStream::Write));
        common
            .connection
            .endpoint()
            .shared()
            .stop_waiting(wait, &mut self.place);
        if !common.given() {
            // Without effect on a half that is over.
            let _ = self.reset(Code::CANCELLED);
        }
    }
}

// ----- both --------------------------------------------------------------------------------------------------------

/// A stream of bytes in both directions, beside the messages of a connection. Dropping it drops both halves; see
/// [`DistSendStream`] and [`DistRecvStream`] for what that means.
#[derive(Debug)]
pub struct DistStream {
    send: DistSendStream,
    recv: DistRecvStream,
}

impl DistStream {
    pub(super) fn new(connection: DistConnection, id: StreamId, slot: StreamSlot) -> Self {
        let common = Arc::new(Common {
            connection,
            id,
            number: slot.number,
            opened_here: slot.opened_here,
            given: AtomicBool::new(false),
        });
        Self {
            send: DistSendStream {
                common: Arc::clone(&common),
                over: slot.written,
                finished: slot.written,
                place: None,
            },
            recv: DistRecvStream {
                common,
                ended: slot.read,
                stopped: false,
                place: None,
            },
        }
    }

    /// The node at the other end.
    pub fn node(&self) -> &Atom {
        self.connection().node()
    }

    /// The connection of the stream, which lives as long as the stream.
    pub fn connection(&self) -> &DistConnection {
        self.send.connection()
    }

    /// The id of the stream: from 20 on if the node that dialled has opened it, from 17 on if the other one has.
    pub fn id(&self) -> StreamId {
        self.send.id()
    }

    /// Whether this side has opened it.
    pub fn is_own(&self) -> bool {
        self.send.common.opened_here
    }

    /// Which end of the connection has opened it.
    pub fn opener(&self) -> Side {
        match (self.connection().side(), self.is_own()) {
            (Side::Client, true) | (Side::Server, false) => Side::Client,
            _ => Side::Server,
        }
    }

    /// How urgent this side takes it to be. `None` once it is over.
    pub fn priority(&self) -> Option<Priority> {
        self.state().map(|state| state.priority)
    }

    /// How far it is; `None` once both directions are over.
    pub fn state(&self) -> Option<UserStream> {
        let id = self.id().get();
        let streams = self.connection().streams();
        streams.into_iter().find(|stream| stream.stream == id)
    }

    /// See [`DistRecvStream::read_chunk`].
    ///
    /// # Errors
    /// [`StreamError`], for good.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.recv.read_chunk().await
    }

    /// See [`DistSendStream::write_chunk`].
    ///
    /// # Errors
    /// [`StreamError`], for good.
    pub async fn write_chunk(&mut self, data: &mut Bytes) -> Result<(), StreamError> {
        self.send.write_chunk(data).await
    }

    /// See [`DistSendStream::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.send.finish()
    }

    /// See [`DistRecvStream::stop`].
    ///
    /// # Errors
    /// As there.
    pub fn stop(&mut self, code: Code) -> Result<(), StreamError> {
        self.recv.stop(code)
    }

    /// Ends both directions at once; the peer sees the code. Deployed nodes use 0 unless they say otherwise.
    ///
    /// # Errors
    /// [`StreamError::Closed`] if both are over already; [`StreamError::ConnectionLost`].
    pub fn reset(&mut self, code: Code) -> Result<(), StreamError> {
        let over = std::mem::replace(&mut self.send.over, true);
        if std::mem::replace(&mut self.recv.stopped, true) && over {
            return Err(StreamError::Closed);
        }
        let common = &self.send.common;
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        common.now(|endpoint, now| endpoint.dist_stream_reset(now, dist, id, owner, code))
    }

    /// Hands the stream to an acceptor of the same endpoint, who gets it as if the peer had opened it, with everything that has
    /// arrived and was not read. Between tasks, a handle can just as well be moved.
    ///
    /// # Errors
    /// Gives the stream back if it is over, or the acceptor is another endpoint's.
    pub fn hand_over(self, to: &DistAcceptor) -> Result<(), Self> {
        let common = &self.send.common;
        let (dist, id, owner) = (common.connection.id(), common.id, common.owner());
        let (read, written) = (self.recv.ended || self.recv.stopped, self.send.over);
        if !std::ptr::eq(common.connection.endpoint().shared(), to.endpoint.shared()) {
            return Err(self);
        }
        let to = Owner(to.owner);
        let given = common.connection.endpoint().with_extension(|links: &mut Links, cx| {
            let now = cx.now();
            cx.endpoint().dist_hand_over(now, dist, id, owner, to)?;
            links.handing_over(dist, id, read, written);
            Ok::<(), DistStreamError>(())
        });
        if !matches!(given, Some(Ok(()))) {
            return Err(self);
        }
        common.given.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Both halves, to be used by different tasks.
    pub fn split(self) -> (DistSendStream, DistRecvStream) {
        (self.send, self.recv)
    }

    /// The reverse of [`split`](Self::split).
    ///
    /// # Errors
    /// Gives both back if they are not halves of one stream.
    pub fn join(send: DistSendStream, recv: DistRecvStream) -> Result<Self, (DistSendStream, DistRecvStream)> {
        if Arc::ptr_eq(&send.common, &recv.common) {
            Ok(Self { send, recv })
        } else {
            Err((send, recv))
        }
    }

    /// The sending half.
    pub fn send(&mut self) -> &mut DistSendStream {
        &mut self.send
    }

    /// The receiving half.
    pub fn recv(&mut self) -> &mut DistRecvStream {
        &mut self.recv
    }
}
