//! What a connection between nodes goes over.

use std::{future::Future, io};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use macula_proto::wire::dist::{Frame, MessageFraming, TICK, handshake};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// A connection that a handshake can begin on.
pub(super) trait Carrier: Sized + Send + 'static {
    type Sender: MessageSender;
    type Receiver: MessageReceiver;

    /// How it frames the messages of the handshake.
    const HANDSHAKE: handshake::Carrier;

    /// The next bytes of the handshake, in whatever pieces; none at the end. Cancellation-safe.
    fn read(&mut self) -> impl Future<Output = io::Result<Bytes>> + Send;

    /// Sends one message of the handshake.
    fn write(&mut self, message: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// The handshake is complete. `rest`: bytes that came behind it.
    fn into_messages(self, rest: Bytes, max_message: u32) -> (Self::Sender, Self::Receiver);
}

/// The sending half of a connection that is up.
pub(super) trait MessageSender: Send + 'static {
    /// Sends messages, in order.
    fn send(&mut self, messages: &mut Vec<Bytes>) -> impl Future<Output = io::Result<()>> + Send;

    fn tick(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// The receiving half of a connection that is up.
pub(super) trait MessageReceiver: Send + 'static {
    /// What has arrived complete, if anything.
    fn next(&mut self) -> io::Result<Option<Frame>>;

    /// Waits until something arrives, complete or not; `false` at the end. Cancellation-safe.
    fn fill(&mut self) -> impl Future<Output = io::Result<bool>> + Send;
}

/// Bytes read at once.
const READ: usize = 64 << 10;

/// Messages up to this length are put together before they are written.
const JOIN: usize = 16 << 10;

/// The carrier that Erlang nodes speak by themselves: a stream of bytes, such as TCP, with 16-bit lengths in the handshake and
/// 32-bit lengths behind it.
#[derive(Debug)]
pub(super) struct ByteStream<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S> ByteStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Carrier for ByteStream<S> {
    type Sender = ByteSender<S>;
    type Receiver = ByteReceiver<S>;

    const HANDSHAKE: handshake::Carrier = handshake::Carrier::Tcp;

    async fn read(&mut self) -> io::Result<Bytes> {
        self.buffer.reserve(READ);
        self.stream.read_buf(&mut self.buffer).await?;
        Ok(self.buffer.split().freeze())
    }

    async fn write(&mut self, message: Bytes) -> io::Result<()> {
        self.stream.write_all(&message).await?;
        self.stream.flush().await
    }

    fn into_messages(self, rest: Bytes, max_message: u32) -> (Self::Sender, Self::Receiver) {
        let (recv, send) = tokio::io::split(self.stream);
        let sender = ByteSender {
            send,
            buffer: BytesMut::new(),
        };
        let receiver = ByteReceiver {
            recv,
            buffer: self.buffer,
            input: rest,
            framing: MessageFraming::new(max_message),
        };
        (sender, receiver)
    }
}

#[derive(Debug)]
pub(super) struct ByteSender<S> {
    send: WriteHalf<S>,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MessageSender for ByteSender<S> {
    async fn send(&mut self, messages: &mut Vec<Bytes>) -> io::Result<()> {
        for message in messages.drain(..) {
            let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            self.buffer.put_u32(length);
            if message.len() <= JOIN {
                self.buffer.put_slice(&message);
            } else {
                let mut both = (&mut self.buffer).chain(message);
                self.send.write_all_buf(&mut both).await?;
            }
        }
        self.send.write_all_buf(&mut self.buffer).await?;
        self.send.flush().await
    }

    async fn tick(&mut self) -> io::Result<()> {
        self.send.write_all(&TICK).await?;
        self.send.flush().await
    }
}

#[derive(Debug)]
pub(super) struct ByteReceiver<S> {
    recv: ReadHalf<S>,
    buffer: BytesMut,
    input: Bytes,
    framing: MessageFraming,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MessageReceiver for ByteReceiver<S> {
    fn next(&mut self) -> io::Result<Option<Frame>> {
        let frame = self.framing.next(&mut self.input).transpose();
        frame.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ);
        let read = self.recv.read_buf(&mut self.buffer).await?;
        self.input = self.buffer.split().freeze();
        Ok(read > 0)
    }
}
