//! Active mode: what arrives on a stream comes as events.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use macula_proto::{Code, quic::CloseReason};

pub use macula_proto::quic::Active;

use crate::{error::ReadError, stream::RecvStream};

/// Something that happened on a stream in active mode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// Bytes, in order.
    Data(Bytes),
    /// The allowance is used up: nothing more comes before [`ActiveStream::set_active`].
    Passive,
    /// The peer finished the stream, and everything was read.
    Finished,
    /// The peer abandoned the stream.
    Reset(Code),
    /// The stream was stopped here, or the server did not take its early data.
    Closed,
    /// The connection is over, and everything that had arrived was read.
    ConnectionLost(CloseReason),
}

/// The receiving half of a stream in active mode: [`next`](Self::next) gives one event after the other.
///
/// Nothing is taken from the transport before it is asked for, so a slow owner still slows the sender down. Handing the
/// stream over is moving it; [`into_passive`](Self::into_passive) gives the half back with nothing lost.
#[derive(Debug)]
pub struct ActiveStream {
    stream: RecvStream,
    mode: Active,
    /// `Passive` is to be said.
    announce: bool,
    over: bool,
}

impl ActiveStream {
    pub(crate) fn new(stream: RecvStream, mode: Active) -> Self {
        Self {
            stream,
            mode,
            announce: false,
            over: false,
        }
    }

    /// The next event; `None` after the last, and in passive mode. Cancellation-safe.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// See [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        if std::mem::take(&mut self.announce) {
            return Poll::Ready(Some(StreamEvent::Passive));
        }
        if self.over || matches!(self.mode, Active::Passive | Active::Times(0)) {
            return Poll::Ready(None);
        }
        let event = match ready!(self.stream.poll_read_chunk(cx, usize::MAX)) {
            Ok(Some(bytes)) => {
                self.mode = match self.mode {
                    Active::Always => Active::Always,
                    Active::Times(n) if n > 1 => Active::Times(n - 1),
                    _ => Active::Passive,
                };
                self.announce = self.mode == Active::Passive;
                return Poll::Ready(Some(StreamEvent::Data(bytes)));
            }
            Ok(None) => StreamEvent::Finished,
            Err(ReadError::Reset(code)) => StreamEvent::Reset(code),
            Err(ReadError::ConnectionLost(reason)) => StreamEvent::ConnectionLost(reason),
            Err(ReadError::Closed | ReadError::EarlyDataRejected) => StreamEvent::Closed,
        };
        self.over = true;
        Poll::Ready(Some(event))
    }

    /// How many more pieces come.
    pub fn mode(&self) -> Active {
        self.mode
    }

    /// Changes how many more pieces come.
    pub fn set_active(&mut self, mode: Active) {
        self.mode = mode;
        self.announce = false;
    }

    /// The receiving half itself, to be read from again.
    pub fn into_passive(self) -> RecvStream {
        self.stream
    }

    /// The receiving half itself.
    pub fn stream(&mut self) -> &mut RecvStream {
        &mut self.stream
    }
}
