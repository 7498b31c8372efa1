//! Streams of bytes as what a connection between nodes goes over: with 16-bit lengths in the handshake and 32-bit lengths behind
//! it, as Erlang nodes do it over TCP.

use std::{collections::VecDeque, future::Future, io};

use bytes::{BufMut, Bytes, BytesMut};
use macula_proto::wire::dist::{Frame, MessageFraming, TICK};

/// The receiving half of a stream of bytes on some runtime.
pub trait ByteReader: Send + 'static {
    /// Appends bytes that have arrived, and says how many; waits until there are any. 0 is the end. Cancellation-safe.
    fn read(&mut self, into: &mut BytesMut) -> impl Future<Output = io::Result<usize>> + Send;
}

/// The sending half of a stream of bytes on some runtime.
pub trait ByteWriter: Send + 'static {
    /// Writes all of it, and has it sent. What was written is gone from `bytes`, also when the future is dropped.
    fn write(&mut self, bytes: &mut Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// Bytes asked for at once.
const READ: usize = 64 << 10;

/// Messages up to this length are put together before they are written.
const JOIN: usize = 16 << 10;

/// Writes messages, each behind its length.
#[derive(Debug)]
pub(super) struct Sender<W> {
    pub(super) writer: W,
    buffer: BytesMut,
    /// What is being written.
    pieces: VecDeque<Bytes>,
}

impl<W: ByteWriter> Sender<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            writer,
            buffer: BytesMut::new(),
            pieces: VecDeque::new(),
        }
    }

    /// Sends messages, in order. Cancellation-safe: what was not written is written first the next time.
    pub(super) async fn send(&mut self, messages: &mut VecDeque<Bytes>) -> io::Result<()> {
        for message in messages.drain(..) {
            let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            self.buffer.put_u32(length);
            if message.len() <= JOIN {
                self.buffer.put_slice(&message);
            } else {
                self.pieces.push_back(self.buffer.split().freeze());
                self.pieces.push_back(message);
            }
        }
        self.flush().await
    }

    pub(super) async fn tick(&mut self) -> io::Result<()> {
        self.buffer.put_slice(&TICK);
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.pieces.push_back(self.buffer.split().freeze());
        }
        while let Some(piece) = self.pieces.front_mut() {
            self.writer.write(piece).await?;
            self.pieces.pop_front();
        }
        Ok(())
    }
}

/// Reads messages.
#[derive(Debug)]
pub(super) struct Receiver<R> {
    reader: R,
    buffer: BytesMut,
    input: Bytes,
    framing: MessageFraming,
}

impl<R: ByteReader> Receiver<R> {
    pub(super) fn new(reader: R, max_message: u32) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            input: Bytes::new(),
            framing: MessageFraming::new(max_message),
        }
    }

    /// The next bytes of the handshake, in whatever pieces; none at the end. Cancellation-safe.
    pub(super) async fn bytes(&mut self) -> io::Result<Bytes> {
        self.buffer.reserve(READ);
        self.reader.read(&mut self.buffer).await?;
        Ok(self.buffer.split().freeze())
    }

    /// Messages begin, the first of them with these bytes.
    pub(super) fn begin(&mut self, rest: Bytes) {
        self.input = rest;
    }

    /// What has arrived complete, if anything.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        let frame = self.framing.next(&mut self.input).transpose();
        frame.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Waits until something arrives, complete or not; `false` at the end. Cancellation-safe.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.input = self.bytes().await?;
        Ok(!self.input.is_empty())
    }
}
