//! Stream handles.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use macula_proto::{
    Code,
    quic::{self, ClosedStream, ConnectionHandle, Dir, StreamId, StreamStats, Written},
};

use crate::{
    active::{Active, ActiveStream},
    connection::{ConnRef, Connection},
    error::{ReadError, WriteError},
    extension::RawStream,
    shared::{Shared, State},
};

/// Bytes copied in one call while others wait for the lock.
const MAX_WRITE: usize = 256 << 10;

/// One half of a stream, kept.
#[derive(Debug)]
struct Half {
    conn: Arc<ConnRef>,
    id: StreamId,
}

impl Half {
    fn locked<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        self.conn.shared.locked(operation)
    }

    /// Runs `operation` on the stream; `None` if the transport has forgotten it.
    fn run<T>(&self, operation: impl FnOnce(&mut quic::Stream<'_>) -> T) -> Option<T> {
        self.locked(|state| self.run_in(state, operation))
    }

    fn run_in<T>(&self, state: &mut State, operation: impl FnOnce(&mut quic::Stream<'_>) -> T) -> Option<T> {
        let result = {
            let mut connection = state.endpoint.quic().connection(self.conn.conn).ok()?;
            let mut stream = connection.stream(self.id).ok()?;
            operation(&mut stream)
        };
        state.kick_if_due();
        Some(result)
    }

    /// Why an operation found nothing, or found the connection lost.
    fn lost<E>(&self, state: &State, lost: impl FnOnce(quic::CloseReason) -> E, rejected: E) -> E {
        if state.is_closed(self.conn.conn) {
            lost(state.reason(self.conn.conn))
        } else {
            // Only streams that the server did not take vanish while they are kept.
            rejected
        }
    }
}

// ----- receiving ---------------------------------------------------------------------------------------------------

/// The receiving half of a stream.
///
/// Dropping it before its end was read stops the stream with [`Code::CLOSED`]: the peer learns that nobody reads on.
#[derive(Debug)]
pub struct RecvStream {
    half: Half,
    /// The end was read, or it was stopped.
    over: bool,
}

impl RecvStream {
    pub(crate) fn new(conn: &Arc<ConnRef>, id: StreamId) -> Self {
        let half = Half {
            conn: Arc::clone(conn),
            id,
        };
        Self { half, over: false }
    }

    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        self.half.id
    }

    /// The connection of the stream, as a name.
    pub fn connection_handle(&self) -> ConnectionHandle {
        self.half.conn.conn
    }

    /// A handle of the connection of the stream.
    pub fn connection(&self) -> Connection {
        Connection::new(Arc::clone(&self.half.conn))
    }

    /// Counters of the stream.
    pub fn stats(&self) -> StreamStats {
        self.half.run(|stream| stream.stats()).unwrap_or_default()
    }

    /// Reads into `buf`; `Ok(0)` is the end, if `buf` is not empty.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<Result<usize, ReadError>> {
        self.poll(cx, |stream| stream.read(buf)).map_ok(|read| {
            self.over |= read == 0 && !buf.is_empty();
            read
        })
    }

    /// Hands what can be read to `sink`, in order and without copying it, at most `max` bytes all together; `Ok(0)` is the
    /// end, if `max` is not 0. `sink` runs under the endpoint's lock: it must not block or use a handle.
    pub fn poll_read_with(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        sink: impl FnMut(Bytes),
    ) -> Poll<Result<usize, ReadError>> {
        self.poll(cx, |stream| stream.read_with(max, sink)).map_ok(|read| {
            self.over |= read == 0 && max > 0;
            read
        })
    }

    /// The next bytes, at most `max`, as they arrived; `Ok(None)` is the end.
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        self.poll(cx, |stream| stream.read_chunk(max)).map_ok(|chunk| {
            self.over |= chunk.is_none();
            chunk
        })
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut quic::Stream<'_>) -> Result<T, quic::ReadError>,
    ) -> Poll<Result<T, ReadError>> {
        let half = &self.half;
        half.locked(|state| match half.run_in(state, operation) {
            Some(Ok(value)) => Poll::Ready(Ok(value)),
            Some(Err(quic::ReadError::Reset(code))) => Poll::Ready(Err(ReadError::Reset(code))),
            Some(Err(quic::ReadError::Closed)) => Poll::Ready(Err(ReadError::Closed)),
            Some(Err(quic::ReadError::Blocked)) if state.park(half.conn.conn, half.id, true, cx.waker()) => {
                Poll::Pending
            }
            _ => Poll::Ready(Err(half.lost(
                state,
                ReadError::ConnectionLost,
                ReadError::EarlyDataRejected,
            ))),
        })
    }

    /// Reads into `buf` and says how much; 0 is the end, if `buf` is not empty. Cancellation-safe.
    ///
    /// # Errors
    /// [`ReadError`], for good.
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// The next bytes as they arrived, without copying them; `None` is the end. Cancellation-safe.
    ///
    /// # Errors
    /// [`ReadError`], for good.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_read_chunk(cx, usize::MAX)).await
    }

    /// Everything up to the end, if that is at most `limit` bytes; otherwise the stream is stopped with [`Code::LIMIT`] and
    /// `None` is the answer. Not cancellation-safe: what was read is lost with the future.
    ///
    /// # Errors
    /// [`ReadError`], for good.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Option<Vec<u8>>, ReadError> {
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

    /// Gives bytes back, to be read again before anything else, by whoever reads next.
    pub fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.half.run(|stream| stream.unread(bytes));
            self.over = false;
        }
    }

    /// Tells the peer that no more bytes are wanted, and drops what has arrived.
    ///
    /// # Errors
    /// [`ClosedStream`] if this half is over already.
    pub fn stop(&mut self, code: Code) -> Result<(), ClosedStream> {
        self.over = true;
        self.half.run(|stream| stream.stop(code)).unwrap_or(Err(ClosedStream))
    }

    /// Turns to active mode: what arrives comes as events, as many as `mode` says.
    pub fn active(self, mode: Active) -> ActiveStream {
        ActiveStream::new(self, mode)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let half = &self.half;
        let over = self.over;
        half.locked(|state| {
            half.run_in(state, |stream| {
                // If only the end is left to read, nothing is lost and the peer need not hear of it.
                if !over && !matches!(stream.read_chunk(usize::MAX), Ok(None)) {
                    let _ = stream.stop(Code::CLOSED);
                }
            });
            state.let_go_stream(half.conn.conn, half.id);
        });
    }
}

// ----- sending -----------------------------------------------------------------------------------------------------

/// The sending half of a stream.
///
/// Dropping it without [`finish`](Self::finish) resets the stream with [`Code::CANCELLED`], so that the peer never takes
/// half a message for a whole one. After `finish` it can be dropped at once; what was written is still delivered as long as
/// the connection lives.
#[derive(Debug)]
pub struct SendStream {
    half: Half,
    /// Finished or reset.
    over: bool,
}

impl SendStream {
    pub(crate) fn new(conn: &Arc<ConnRef>, id: StreamId) -> Self {
        let half = Half {
            conn: Arc::clone(conn),
            id,
        };
        Self { half, over: false }
    }

    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        self.half.id
    }

    /// The connection of the stream, as a name.
    pub fn connection_handle(&self) -> ConnectionHandle {
        self.half.conn.conn
    }

    /// A handle of the connection of the stream.
    pub fn connection(&self) -> Connection {
        Connection::new(Arc::clone(&self.half.conn))
    }

    /// Counters of the stream.
    pub fn stats(&self) -> StreamStats {
        self.half.run(|stream| stream.stats()).unwrap_or_default()
    }

    /// Copies bytes into the send buffer and says how many were taken, at least one if there are any.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        let part = data.get(..MAX_WRITE).unwrap_or(data);
        self.poll(cx, |stream| stream.write(part))
    }

    /// Gives bytes to be sent without copying them, and says how much was taken; a chunk taken in part is advanced.
    pub fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Written, WriteError>> {
        self.poll(cx, |stream| stream.write_chunks(chunks))
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut quic::Stream<'_>) -> Result<T, quic::WriteError>,
    ) -> Poll<Result<T, WriteError>> {
        let half = &self.half;
        half.locked(|state| match half.run_in(state, operation) {
            Some(Ok(value)) => Poll::Ready(Ok(value)),
            Some(Err(quic::WriteError::Stopped(code))) => Poll::Ready(Err(WriteError::Stopped(code))),
            Some(Err(quic::WriteError::Closed)) => Poll::Ready(Err(WriteError::Closed)),
            Some(Err(quic::WriteError::Blocked)) if state.park(half.conn.conn, half.id, false, cx.waker()) => {
                Poll::Pending
            }
            _ => Poll::Ready(Err(half.lost(
                state,
                WriteError::ConnectionLost,
                WriteError::EarlyDataRejected,
            ))),
        })
    }

    /// Copies bytes into the send buffer and says how many were taken, at least one if there are any. Cancellation-safe:
    /// what was not taken was not sent.
    ///
    /// # Errors
    /// [`WriteError`], for good.
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll_write(cx, data)).await
    }

    /// Writes all of `data`. Not cancellation-safe: a part may have been taken.
    ///
    /// # Errors
    /// [`WriteError`], for good.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        while !data.is_empty() {
            let taken = self.write(data).await?;
            data = data.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Gives bytes to be sent without copying them; a chunk taken in part is advanced, so calling it again with what is left
    /// goes on. Cancellation-safe.
    ///
    /// # Errors
    /// [`WriteError`], for good.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Written, WriteError> {
        poll_fn(|cx| self.poll_write_chunks(cx, chunks)).await
    }

    /// Writes all of `data` without copying it. Not cancellation-safe: a part may have been taken.
    ///
    /// # Errors
    /// [`WriteError`], for good.
    pub async fn write_chunk(&mut self, data: Bytes) -> Result<(), WriteError> {
        let mut chunks = [data];
        while chunks.iter().any(|chunk| !chunk.is_empty()) {
            self.write_chunks(&mut chunks).await?;
        }
        Ok(())
    }

    /// Queues bytes to be sent as soon as the stream takes them; nothing has to be awaited.
    ///
    /// # Errors
    /// [`EnqueueError`](quic::EnqueueError), with the bytes, when the queue is full or this half is over.
    pub fn enqueue(&mut self, bytes: Bytes) -> Result<(), quic::EnqueueError> {
        let again = bytes.clone();
        self.half
            .run(|stream| stream.enqueue(bytes))
            .unwrap_or(Err(quic::EnqueueError::Closed(again)))
    }

    /// Ends the stream once everything written is sent.
    ///
    /// # Errors
    /// [`ClosedStream`] if this half is over already.
    pub fn finish(&mut self) -> Result<(), ClosedStream> {
        self.over = true;
        self.half.run(|stream| stream.finish()).unwrap_or(Err(ClosedStream))
    }

    /// Waits until the peer has everything, the end included; after [`finish`](Self::finish). Cancellation-safe.
    ///
    /// # Errors
    /// [`WriteError`]; [`WriteError::Closed`] if the stream was reset.
    pub async fn delivered(&mut self) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_delivered(cx)).await
    }

    /// See [`delivered`](Self::delivered).
    pub fn poll_delivered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        let half = &self.half;
        half.locked(|state| {
            if let Some(outcome) = half.outcome(state) {
                return Poll::Ready(outcome);
            }
            if half.run_in(state, |stream| stream.priority().is_err()) == Some(true) {
                return Poll::Ready(Err(WriteError::Closed));
            }
            if !state.is_closed(half.conn.conn) && state.park(half.conn.conn, half.id, false, cx.waker()) {
                return Poll::Pending;
            }
            let reason = state.reason(half.conn.conn);
            Poll::Ready(Err(WriteError::ConnectionLost(reason)))
        })
    }

    /// Waits until the peer stops the stream, and says with which code; `None` once everything was delivered instead.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`WriteError`] when the stream was reset here or the connection is over.
    pub async fn stopped(&mut self) -> Result<Option<Code>, WriteError> {
        match self.delivered().await {
            Ok(()) => Ok(None),
            Err(WriteError::Stopped(code)) => Ok(Some(code)),
            Err(error) => Err(error),
        }
    }

    /// Abandons the stream: the peer sees the code, and bytes not yet delivered are lost.
    ///
    /// # Errors
    /// [`ClosedStream`] if this half is over already.
    pub fn reset(&mut self, code: Code) -> Result<(), ClosedStream> {
        self.over = true;
        self.half.run(|stream| stream.reset(code)).unwrap_or(Err(ClosedStream))
    }

    /// Sets the priority among the streams of the connection; higher goes first, 0 is the default.
    ///
    /// # Errors
    /// [`ClosedStream`] if this half is over already.
    pub fn set_priority(&mut self, priority: i32) -> Result<(), ClosedStream> {
        self.half
            .run(|stream| stream.set_priority(priority))
            .unwrap_or(Err(ClosedStream))
    }

    /// The priority among the streams of the connection.
    ///
    /// # Errors
    /// [`ClosedStream`] if this half is over already.
    pub fn priority(&self) -> Result<i32, ClosedStream> {
        self.half.run(|stream| stream.priority()).unwrap_or(Err(ClosedStream))
    }

    /// Finishes unless that was done before; what shutting down means for a byte stream.
    #[cfg_attr(
        not(any(feature = "tokio", feature = "futures-io")),
        expect(dead_code, reason = "used by the traits of runtimes")
    )]
    pub(crate) fn shut_down(&mut self) -> Result<(), WriteError> {
        if self.over || self.finish().is_ok() {
            return Ok(());
        }
        let half = &self.half;
        half.locked(|state| match half.outcome(state) {
            Some(outcome) => outcome,
            None => Err(half.lost(state, WriteError::ConnectionLost, WriteError::EarlyDataRejected)),
        })
    }
}

impl Half {
    /// How the sending half ended, if it did.
    fn outcome(&self, state: &State) -> Option<Result<(), WriteError>> {
        let entry = state.conns.get(&self.conn.conn)?.streams.get(&self.id)?;
        if entry.delivered {
            return Some(Ok(()));
        }
        entry.stopped.map(|code| Err(WriteError::Stopped(code)))
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let half = &self.half;
        let over = self.over;
        half.locked(|state| {
            if !over {
                half.run_in(state, |stream| {
                    let _ = stream.reset(Code::CANCELLED);
                });
            }
            state.let_go_stream(half.conn.conn, half.id);
        });
    }
}

// ----- both --------------------------------------------------------------------------------------------------------

/// A bidirectional stream: both halves in one handle. Dropping it drops both halves; see [`SendStream`] and
/// [`RecvStream`] for what that means.
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    recv: RecvStream,
}

impl Stream {
    pub(crate) fn new(conn: &Arc<ConnRef>, id: StreamId) -> Self {
        Self {
            send: SendStream::new(conn, id),
            recv: RecvStream::new(conn, id),
        }
    }

    pub(crate) fn adopted(shared: &Arc<Shared>, raw: RawStream) -> Self {
        debug_assert_eq!(raw.stream.dir(), Dir::Bi, "machines hand out bidirectional streams");
        Self::new(&ConnRef::new(shared, raw.conn, false), raw.stream)
    }

    pub(crate) fn place(&self) -> (ConnectionHandle, StreamId) {
        (self.send.half.conn.conn, self.send.half.id)
    }

    /// Leaves the stream to a machine, which took it over with nothing lost: dropping the handle does nothing to it. To be called
    /// under the lock under which the machine takes it.
    pub(crate) fn disown(&mut self, state: &mut State) {
        state.forget_stream(self.send.half.conn.conn, self.send.half.id);
        self.send.over = true;
        self.recv.over = true;
    }

    /// Both halves, to be used by different tasks.
    pub fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    /// The reverse of [`split`](Self::split).
    ///
    /// # Errors
    /// Gives both back if they are not halves of one stream.
    pub fn join(send: SendStream, recv: RecvStream) -> Result<Self, (SendStream, RecvStream)> {
        let same = send.id() == recv.id()
            && send.connection_handle() == recv.connection_handle()
            && Arc::ptr_eq(&send.half.conn.shared, &recv.half.conn.shared);
        if same {
            Ok(Self { send, recv })
        } else {
            Err((send, recv))
        }
    }

    /// The sending half.
    pub fn send(&mut self) -> &mut SendStream {
        &mut self.send
    }

    /// The receiving half.
    pub fn recv(&mut self) -> &mut RecvStream {
        &mut self.recv
    }

    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        self.send.id()
    }

    /// The connection of the stream, as a name.
    pub fn connection_handle(&self) -> ConnectionHandle {
        self.send.connection_handle()
    }

    /// A handle of the connection of the stream.
    pub fn connection(&self) -> Connection {
        self.send.connection()
    }

    /// Counters of the stream.
    pub fn stats(&self) -> StreamStats {
        self.send.stats()
    }

    /// See [`RecvStream::read_chunk`].
    ///
    /// # Errors
    /// [`ReadError`], for good.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        self.recv.read_chunk().await
    }

    /// See [`SendStream::write_chunks`].
    ///
    /// # Errors
    /// [`WriteError`], for good.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Written, WriteError> {
        self.send.write_chunks(chunks).await
    }

    /// See [`SendStream::finish`].
    ///
    /// # Errors
    /// [`ClosedStream`] if the sending half is over already.
    pub fn finish(&mut self) -> Result<(), ClosedStream> {
        self.send.finish()
    }

    /// See [`SendStream::delivered`].
    ///
    /// # Errors
    /// As there.
    pub async fn delivered(&mut self) -> Result<(), WriteError> {
        self.send.delivered().await
    }

    /// See [`SendStream::reset`].
    ///
    /// # Errors
    /// [`ClosedStream`] if the sending half is over already.
    pub fn reset(&mut self, code: Code) -> Result<(), ClosedStream> {
        self.send.reset(code)
    }

    /// See [`RecvStream::stop`].
    ///
    /// # Errors
    /// [`ClosedStream`] if the receiving half is over already.
    pub fn stop(&mut self, code: Code) -> Result<(), ClosedStream> {
        self.recv.stop(code)
    }

    /// See [`SendStream::set_priority`].
    ///
    /// # Errors
    /// [`ClosedStream`] if the sending half is over already.
    pub fn set_priority(&mut self, priority: i32) -> Result<(), ClosedStream> {
        self.send.set_priority(priority)
    }
}
