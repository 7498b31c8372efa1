//! Operations on one stream.

use bytes::{Bytes, BytesMut};

use super::{
    Active, ConnectionHandle, Dir, Event, Owner, StreamId, StreamStats, UnknownStream,
    blocks::WORTH_A_BLOCK,
    conn::{Conn, Queues, fail_queue},
    event::{code_from, code_to},
    stream_state::{RecvHalf, SendHalf, StreamState},
};
use crate::{Code, Limits};

/// A stream of a connection, borrowed for a few operations.
#[derive(Debug)]
pub struct Stream<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) queues: &'a mut Queues,
    pub(super) id: StreamId,
    pub(super) send_queue_limit: usize,
}

impl<'a> Stream<'a> {
    /// A stream of a connection, if it is there.
    pub(super) fn of(
        conn: &'a mut Conn,
        queues: &'a mut Queues,
        limits: &Limits,
        id: StreamId,
    ) -> Result<Self, UnknownStream> {
        if !conn.streams.contains_key(&id) {
            return Err(UnknownStream);
        }
        Ok(Self {
            conn,
            queues,
            id,
            send_queue_limit: limits.send_queue,
        })
    }
}

impl Stream<'_> {
    /// The id of the stream.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Whether both ends send on it, or only the one that opened it.
    pub fn dir(&self) -> Dir {
        self.id.dir()
    }

    /// The connection of the stream.
    pub fn connection(&self) -> ConnectionHandle {
        self.conn.handle
    }

    /// Counters of the stream.
    pub fn stats(&self) -> StreamStats {
        self.conn
            .streams
            .get(&self.id)
            .map_or_else(StreamStats::default, |state| state.stats)
    }

    // ----- receiving -----------------------------------------------------------------------------------------------

    /// Takes the next bytes in order, at most `max`, without copying them.
    ///
    /// `Ok(None)` is the end: the peer finished the stream and everything was read. A large `max` is best: a small one cuts
    /// what arrived into pieces.
    ///
    /// # Errors
    /// [`ReadError::Blocked`] when nothing is there; [`Event::Readable`] follows. The others are final.
    pub fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        let mut chunk = None;
        let max = max.max(1);
        if let Some(bytes) = self.take_unread(max) {
            return Ok(Some(bytes));
        }
        let pulled = self.pull(|chunks| {
            chunk = chunks.next(max)?;
            Ok(())
        })?;
        match chunk {
            Some(bytes) => Ok(Some(bytes)),
            None if pulled.finished => Ok(None),
            None => Err(ReadError::Blocked),
        }
    }

    /// Copies the next bytes in order into `buf`. `Ok(0)` is the end, if `buf` is not empty.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        self.read_with(buf.len(), |bytes| {
            if let Some(room) = buf.get_mut(filled..filled + bytes.len()) {
                room.copy_from_slice(&bytes);
                filled += bytes.len();
            }
        })
    }

    /// Appends the next bytes in order to `out`, at most `max`. `Ok(0)` is the end, if `max` is not 0.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn read_into(&mut self, out: &mut BytesMut, max: usize) -> Result<usize, ReadError> {
        self.read_with(max, |bytes| out.extend_from_slice(&bytes))
    }

    /// Hands the next pieces in order to `sink`, `max` bytes at most all together, and says how many bytes these were.
    /// `Ok(0)` is the end, if `max` is not 0.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn read_with(&mut self, max: usize, mut sink: impl FnMut(Bytes)) -> Result<usize, ReadError> {
        if max == 0 {
            return Ok(0);
        }
        let mut read = 0;
        while let Some(bytes) = self.take_unread(max - read) {
            read += bytes.len();
            sink(bytes);
            if read == max {
                return Ok(read);
            }
        }
        let pulled = self.pull(|chunks| {
            while read < max {
                let Some(bytes) = chunks.next(max - read)? else { break };
                read += bytes.len();
                sink(bytes);
            }
            Ok(())
        });
        match pulled {
            _ if read > 0 => Ok(read),
            Ok(pulled) if pulled.finished => Ok(0),
            Ok(_) => Err(ReadError::Blocked),
            Err(error) => Err(error),
        }
    }

    /// Hands everything that has arrived to `sink`, in order and without copying it. True behind the end of the stream; false
    /// if more will come, which [`Event::Readable`] tells.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk), but never [`ReadError::Blocked`]. What came before has been handed out.
    pub fn read_available(&mut self, mut sink: impl FnMut(Bytes)) -> Result<bool, ReadError> {
        let state = self.conn.streams.get(&self.id);
        // A stream that is over may be forgotten with the last bytes that were given back.
        let ended = state.is_some_and(|state| state.recv == RecvHalf::Finished);
        while let Some(bytes) = self.take_unread(usize::MAX) {
            sink(bytes);
        }
        if ended {
            return Ok(true);
        }
        let pulled = self.pull(|chunks| {
            while let Some(bytes) = chunks.next(usize::MAX)? {
                sink(bytes);
            }
            Ok(())
        });
        match pulled {
            Ok(pulled) => Ok(pulled.finished),
            Err(ReadError::Blocked) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives bytes back, to be read again before anything else.
    ///
    /// For whoever reads a prefix and hands the stream over: what came behind the prefix goes first. If the stream was found
    /// empty before, the bytes are announced as if they had arrived now. On a half that was stopped they are dropped.
    pub fn unread(&mut self, bytes: Bytes) {
        if let Some(state) = self.conn.streams.get_mut(&self.id)
            && state.recv != RecvHalf::Closed
            && !bytes.is_empty()
        {
            state.stats.bytes_read = state.stats.bytes_read.saturating_sub(bytes.len() as u64);
            state.unread.push_front(bytes);
            self.conn.announce(self.id, self.queues);
        }
    }

    /// Tells the peer that no more bytes are wanted (STOP_SENDING), and drops what has arrived.
    ///
    /// # Errors
    /// [`ClosedStream`] if the receiving half is over already.
    pub fn stop(&mut self, code: Code) -> Result<(), ClosedStream> {
        let state = self.conn.streams.get_mut(&self.id).ok_or(ClosedStream)?;
        if state.recv != RecvHalf::Open {
            return Err(ClosedStream);
        }
        state.recv = RecvHalf::Closed;
        state.unread.clear();
        let _ = self.conn.inner.recv_stream(self.id.to_quinn()).stop(code_to(code));
        self.after();
        Ok(())
    }

    /// Says whether bytes are pushed as [`Event::Data`] or pulled. What has arrived already is pushed first. When an active
    /// stream is made passive, nothing more is pushed, and [`Event::Readable`] tells of what is left.
    pub fn set_active(&mut self, active: Active) {
        let Some(state) = self.conn.streams.get_mut(&self.id) else {
            return;
        };
        state.active = active;
        if !active.is_passive() {
            state.readable = false;
            self.conn.announce(self.id, self.queues);
        }
    }

    // ----- sending -------------------------------------------------------------------------------------------------

    /// Copies bytes into the send buffer and says how many were taken, at least one.
    ///
    /// Streams that wait for room in the send window of their connection
    /// ([`TransportConfig::send_window`](super::TransportConfig::send_window)) have it in turn: each takes 64 KiB, or a 32nd of
    /// a smaller window, then it is the next one's, whatever their priorities.
    ///
    /// # Errors
    /// [`WriteError::Blocked`] when flow control or the send window allow none, or it is the turn of others;
    /// [`Event::Writable`] follows. The others are final.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        if data.is_empty() {
            return Ok(0);
        }
        let mut taken = 0;
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.write_piece(rest) {
                Ok((written, offered)) => {
                    taken += written;
                    if written < offered {
                        break;
                    }
                }
                // The caller hears of it with the next write.
                Err(WriteError::Blocked) if taken > 0 => {
                    self.unblock();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Writes the front of `data`, and says how much of how much.
    fn write_piece(&mut self, data: &[u8]) -> Result<(usize, usize), WriteError> {
        if data.len() < WORTH_A_BLOCK {
            return Ok((self.transfer(|stream| stream.write(data))?, data.len()));
        }
        self.check_write()?;
        let mut block = self.queues.blocks.copy(data);
        let offered = block.len();
        let written = self.transfer(|stream| Ok(stream.write_chunks(std::slice::from_mut(&mut block))?.bytes))?;
        Ok((written, offered))
    }

    fn unblock(&mut self) {
        if let Some(state) = self.conn.streams.get_mut(&self.id) {
            state.write_blocked = false;
            state.stats.write_blocked -= 1;
        }
    }

    /// Gives bytes to be sent without copying them, and says how much was taken; a chunk taken in part is advanced.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Written, WriteError> {
        if chunks.iter().all(Bytes::is_empty) {
            return Ok(Written {
                bytes: 0,
                chunks: chunks.len(),
            });
        }
        let mut written = Written::default();
        self.transfer(|stream| {
            let taken = stream.write_chunks(chunks)?;
            written = Written {
                bytes: taken.bytes,
                chunks: taken.chunks,
            };
            Ok(taken.bytes)
        })?;
        Ok(written)
    }

    /// Queues bytes to be sent as soon as the stream takes them, in order with everything else; nothing has to be awaited.
    ///
    /// If they cannot be sent any more, [`Event::SendFailed`] says so.
    ///
    /// # Errors
    /// [`EnqueueError`], with the bytes, when the queue is full ([`Limits::send_queue`](crate::Limits::send_queue)) or the
    /// sending half is over.
    pub fn enqueue(&mut self, bytes: Bytes) -> Result<(), EnqueueError> {
        let closed = self.conn.closed;
        let Some(state) = self.conn.streams.get_mut(&self.id) else {
            return Err(EnqueueError::Closed(bytes));
        };
        if state.send != SendHalf::Open || closed {
            return Err(EnqueueError::Closed(bytes));
        }
        if state.stats.bytes_queued as usize + bytes.len() > self.send_queue_limit {
            return Err(EnqueueError::Full(bytes));
        }
        state.stats.bytes_queued += bytes.len() as u64;
        if !bytes.is_empty() {
            state.queue.push_back(bytes);
        }
        self.conn.flush(self.id, self.queues);
        Ok(())
    }

    /// Ends the sending half once everything given before is sent. [`Event::Delivered`] follows when the peer has it all.
    ///
    /// # Errors
    /// [`ClosedStream`] if the sending half is over already.
    pub fn finish(&mut self) -> Result<(), ClosedStream> {
        let state = self.conn.streams.get_mut(&self.id).ok_or(ClosedStream)?;
        if state.send != SendHalf::Open {
            return Err(ClosedStream);
        }
        state.send = SendHalf::FinishQueued;
        state.write_blocked = false;
        if state.queue.is_empty() {
            self.conn.turns.leave(&mut state.turn);
        }
        self.conn.flush(self.id, self.queues);
        Ok(())
    }

    /// Abandons the sending half: the peer sees the code, and bytes not yet delivered are lost.
    ///
    /// # Errors
    /// [`ClosedStream`] if the sending half is over already.
    pub fn reset(&mut self, code: Code) -> Result<(), ClosedStream> {
        let state = self.conn.streams.get_mut(&self.id).ok_or(ClosedStream)?;
        if matches!(state.send, SendHalf::Closed | SendHalf::Stopped(_)) {
            return Err(ClosedStream);
        }
        state.send = SendHalf::Closed;
        state.write_blocked = false;
        self.conn.turns.leave(&mut state.turn);
        let _ = self.conn.inner.send_stream(self.id.to_quinn()).reset(code_to(code));
        fail_queue(self.conn.handle, self.id, state, self.queues);
        self.after();
        Ok(())
    }

    /// Sets the priority among the streams of the connection; higher goes first, 0 is the default.
    ///
    /// # Errors
    /// [`ClosedStream`] if the sending half is over already.
    pub fn set_priority(&mut self, priority: i32) -> Result<(), ClosedStream> {
        self.check_send()?;
        self.conn
            .inner
            .send_stream(self.id.to_quinn())
            .set_priority(priority)
            .map_err(|_| ClosedStream)
    }

    /// The priority among the streams of the connection.
    ///
    /// # Errors
    /// [`ClosedStream`] if the sending half is over already.
    pub fn priority(&mut self) -> Result<i32, ClosedStream> {
        self.check_send()?;
        self.conn
            .inner
            .send_stream(self.id.to_quinn())
            .priority()
            .map_err(|_| ClosedStream)
    }

    /// Ends both halves at once with the same code: reset what is sent, stop what is received. A half that is over stays
    /// as it is.
    pub fn abort(&mut self, code: Code) {
        let _ = self.reset(code);
        let _ = self.stop(code);
    }

    // ----- ownership -----------------------------------------------------------------------------------------------

    /// Hands the stream over. Everything unread stays in it, in order; events polled from now on are the new owner's.
    pub fn set_owner(&mut self, owner: Owner) {
        if let Some(state) = self.conn.streams.get_mut(&self.id) {
            state.owner = Some(owner);
        }
    }

    /// The owner of the stream; that of the connection unless it was handed over.
    pub fn owner(&self) -> Owner {
        let own = self.conn.streams.get(&self.id).and_then(|state| state.owner);
        own.unwrap_or(self.conn.owner)
    }

    /// Keeps what is known of the stream after its end, until [`release`](Self::release).
    pub fn hold(&mut self) {
        if let Some(state) = self.conn.streams.get_mut(&self.id) {
            state.held = true;
        }
    }

    /// Allows the stream to be forgotten as soon as it is over.
    pub fn release(&mut self) {
        if let Some(state) = self.conn.streams.get_mut(&self.id) {
            state.held = false;
        }
        self.conn.reap(self.id, self.queues);
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    fn take_unread(&mut self, max: usize) -> Option<Bytes> {
        let state = self.conn.streams.get_mut(&self.id)?;
        let front = state.unread.front_mut()?;
        let bytes = front.split_to(max.min(front.len()));
        let emptied = front.is_empty();
        if emptied {
            state.unread.pop_front();
        }
        state.stats.bytes_read += bytes.len() as u64;
        if emptied {
            self.conn.reap(self.id, self.queues);
        }
        Some(bytes)
    }

    /// Runs `take` over what quinn-proto has for this stream, and books the outcome.
    fn pull(
        &mut self,
        take: impl FnOnce(&mut Chunks<'_>) -> Result<(), quinn_proto::ReadError>,
    ) -> Result<Pulled, ReadError> {
        let conn = &mut *self.conn;
        let state = conn.streams.get_mut(&self.id).ok_or(ReadError::Closed)?;
        match state.recv {
            RecvHalf::Open => {}
            RecvHalf::Finished => return Ok(Pulled { finished: true }),
            RecvHalf::Reset(code) => return Err(ReadError::Reset(code)),
            RecvHalf::Closed => return Err(ReadError::Closed),
        }
        let (result, read, finished, should_transmit) = {
            let mut recv = conn.inner.recv_stream(self.id.to_quinn());
            let mut chunks = Chunks {
                inner: recv.read(true).map_err(|_| ReadError::Closed)?,
                read: 0,
                finished: false,
            };
            let result = take(&mut chunks);
            let Chunks { inner, read, finished } = chunks;
            (result, read, finished, inner.finalize().should_transmit())
        };
        state.stats.bytes_read += read;
        let outcome = match result {
            Ok(()) => Ok(Pulled { finished }),
            Err(quinn_proto::ReadError::Blocked) => {
                state.readable = false;
                if conn.closed {
                    Err(ReadError::ConnectionLost)
                } else {
                    Err(ReadError::Blocked)
                }
            }
            Err(quinn_proto::ReadError::Reset(code)) => Err(ReadError::Reset(code_from(code))),
        };
        let ended = match &outcome {
            Ok(Pulled { finished: true }) => Some((
                RecvHalf::Finished,
                Event::Finished {
                    conn: conn.handle,
                    stream: self.id,
                },
            )),
            Err(ReadError::Reset(code)) => {
                let event = Event::Reset {
                    conn: conn.handle,
                    stream: self.id,
                    code: *code,
                };
                Some((RecvHalf::Reset(*code), event))
            }
            _ => None,
        };
        if let Some((half, event)) = ended {
            state.recv = half;
            if !conn.silent {
                self.queues.events.push_back(event);
            }
            conn.reap(self.id, self.queues);
        }
        if should_transmit {
            conn.wants_transmit(self.queues);
        }
        outcome
    }

    fn check_send(&self) -> Result<(), ClosedStream> {
        match self.conn.streams.get(&self.id) {
            Some(state) if !matches!(state.send, SendHalf::Closed | SendHalf::Stopped(_)) => Ok(()),
            _ => Err(ClosedStream),
        }
    }

    /// Whether anything may be written before what quinn-proto says.
    fn check_write(&mut self) -> Result<(), WriteError> {
        let state = self.conn.streams.get_mut(&self.id).ok_or(WriteError::Closed)?;
        match state.send {
            SendHalf::Open => {}
            SendHalf::Stopped(code) => return Err(WriteError::Stopped(code)),
            _ => return Err(WriteError::Closed),
        }
        if self.conn.closed {
            return Err(WriteError::ConnectionLost);
        }
        if !state.queue.is_empty() || !self.conn.turns.may_write(self.id, &mut state.turn) {
            return Err(blocked(state));
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        write: impl FnOnce(&mut quinn_proto::SendStream<'_>) -> Result<usize, quinn_proto::WriteError>,
    ) -> Result<usize, WriteError> {
        self.check_write()?;
        let conn = &mut *self.conn;
        let state = conn.streams.get_mut(&self.id).ok_or(WriteError::Closed)?;
        match write(&mut conn.inner.send_stream(self.id.to_quinn())) {
            Ok(bytes) => {
                state.stats.bytes_written += bytes as u64;
                conn.turns.wrote(&mut state.turn, bytes as u64);
                conn.wants_transmit(self.queues);
                Ok(bytes)
            }
            Err(quinn_proto::WriteError::Blocked) => {
                conn.turns.found_none(&mut state.turn);
                let error = blocked(state);
                // The peer is told that it is what blocks us.
                conn.wants_transmit(self.queues);
                Err(error)
            }
            Err(quinn_proto::WriteError::Stopped(code)) => Err(WriteError::Stopped(code_from(code))),
            Err(quinn_proto::WriteError::ClosedStream) => Err(WriteError::Closed),
        }
    }

    fn after(&mut self) {
        self.conn.reap(self.id, self.queues);
        self.conn.touched(self.queues);
    }
}

fn blocked(state: &mut StreamState) -> WriteError {
    state.write_blocked = true;
    state.stats.write_blocked += 1;
    WriteError::Blocked
}

/// The outcome of a look at what has arrived.
struct Pulled {
    finished: bool,
}

/// quinn-proto's chunks, counted.
struct Chunks<'a> {
    inner: quinn_proto::Chunks<'a>,
    read: u64,
    finished: bool,
}

impl Chunks<'_> {
    fn next(&mut self, max: usize) -> Result<Option<Bytes>, quinn_proto::ReadError> {
        let chunk = self.inner.next(max)?;
        match &chunk {
            Some(chunk) => self.read += chunk.bytes.len() as u64,
            None => self.finished = true,
        }
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

/// How much a write took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Bytes taken.
    pub bytes: usize,
    /// Chunks taken as a whole.
    pub chunks: usize,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing has arrived; [`Event::Readable`] follows.
    #[error("nothing to read yet")]
    Blocked,
    /// The peer abandoned the stream.
    #[error("the peer reset the stream ({0})")]
    Reset(Code),
    /// The receiving half was stopped here, does not exist, or was read to its end before.
    #[error("the stream cannot be read")]
    Closed,
    /// The connection is over and everything that had arrived was read.
    #[error("the connection was lost")]
    ConnectionLost,
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Flow control or the send window allow no byte now, or it is another stream's turn; [`Event::Writable`] follows.
    #[error("the stream is blocked")]
    Blocked,
    /// The peer wants no more.
    #[error("the peer stopped the stream ({0})")]
    Stopped(Code),
    /// The sending half was finished or reset here, or does not exist.
    #[error("the stream cannot be written")]
    Closed,
    /// The connection is over.
    #[error("the connection was lost")]
    ConnectionLost,
}

/// Why bytes were not queued; gives them back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The queue is full.
    #[error("the send queue is full")]
    Full(Bytes),
    /// The sending half is over.
    #[error("the stream cannot be written")]
    Closed(Bytes),
}

/// The half of the stream that the operation needs is over, or does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this half of the stream is over")]
pub struct ClosedStream;
