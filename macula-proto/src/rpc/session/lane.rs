//! One stream of bytes: messages parsed out of it, and messages written for it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::types::CallId;
use crate::{
    rpc::{Chunk, StreamId},
    wire::{
        Encoding,
        rpc::{Decoder, EncodeError, Message, StreamData, encode_data_head_within},
    },
};

/// Messages are gathered in blocks of this many bytes.
const BLOCK: usize = 16 << 10;
/// A raw chunk of this many bytes or more is not copied into a block.
const OWN_BLOCK: usize = 4 << 10;

/// A raw chunk of no more bytes goes the shorter way when several are sent.
pub(super) const SMALL: usize = 1 << 10;

/// What is kept for a lane.
#[derive(Debug)]
pub(super) struct LaneState {
    /// The only call on it; `None` for the shared lane, and before the first message.
    pub(super) call: Option<CallId>,
    /// The call that the last chunk on it was for: the next may be too.
    pub(super) latest: Option<CallId>,
    pub(super) decoder: Decoder,
    pub(super) out: Outbox,
    /// A message for a call without room. Nothing is read before it has found some.
    pub(super) held: Option<(CallId, Message)>,
    /// It is among those that wait for others to fetch something.
    pub(super) starved: bool,
    /// The peer sends no more.
    pub(super) read_over: bool,
    /// Calls that were refused a chunk because this is full.
    pub(super) waiting: VecDeque<CallId>,
}

impl LaneState {
    pub(super) fn new(decoder: Decoder, call: Option<CallId>) -> Self {
        Self {
            call,
            latest: None,
            decoder,
            out: Outbox::default(),
            held: None,
            starved: false,
            read_over: false,
            waiting: VecDeque::new(),
        }
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    blocks: VecDeque<Bytes>,
    tail: BytesMut,
    frames: VecDeque<Message>,
    queued: usize,
    /// Nothing follows.
    pub(super) finish: bool,
    /// Whoever writes was told that there is something.
    pub(super) told: bool,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn push(&mut self, message: &Message, encoding: Encoding, max: u32) -> Result<(), EncodeError> {
        let before = self.tail.len();
        message.encode_within(encoding, max, &mut self.tail)?;
        self.queued += self.tail.len() - before;
        self.seal(BLOCK);
        Ok(())
    }

    /// Writes a chunk; a large raw one is not copied.
    pub(super) fn push_data(
        &mut self,
        stream: StreamId,
        seq: u64,
        chunk: Chunk,
        encoding: Encoding,
        max: u32,
    ) -> Result<(), EncodeError> {
        let before = self.tail.len();
        match chunk {
            Chunk::Raw(body) => {
                encode_data_head_within(stream, seq, body.len(), encoding, max, &mut self.tail)?;
                self.queued += self.tail.len() - before + body.len();
                if body.len() < OWN_BLOCK {
                    self.tail.extend_from_slice(&body);
                } else {
                    self.seal(1);
                    self.blocks.push_back(body);
                }
            }
            chunk @ Chunk::Term(_) => {
                let data = Message::StreamData(StreamData { stream, seq, chunk });
                data.encode_within(encoding, max, &mut self.tail)?;
                self.queued += self.tail.len() - before;
            }
        }
        self.seal(BLOCK);
        Ok(())
    }

    /// Writes a small raw chunk of those that follow each other.
    pub(super) fn push_small(
        &mut self,
        stream: StreamId,
        seq: u64,
        body: &[u8],
        encoding: Encoding,
        max: u32,
    ) -> Result<(), EncodeError> {
        let before = self.tail.len();
        if self.tail.capacity() - before < SMALL {
            // There are more to come.
            self.tail.reserve(BLOCK);
        }
        encode_data_head_within(stream, seq, body.len(), encoding, max, &mut self.tail)?;
        self.tail.extend_from_slice(body);
        self.queued += self.tail.len() - before;
        self.seal(BLOCK);
        Ok(())
    }

    /// Queues a message for a carrier that takes whole ones.
    pub(super) fn push_frame(&mut self, message: Message) {
        self.queued += frame_cost(&message);
        self.frames.push_back(message);
    }

    pub(super) fn next_frame(&mut self) -> Option<Message> {
        let message = self.frames.pop_front()?;
        self.queued = self.queued.saturating_sub(frame_cost(&message));
        Some(message)
    }

    /// Takes back what the carrier had no room for.
    pub(super) fn unshift_frame(&mut self, message: Message) {
        self.queued += frame_cost(&message);
        self.frames.push_front(message);
    }

    /// What waits, in order. The writer cuts off what it has written, and says so with [`wrote`](Self::wrote).
    pub(super) fn blocks(&mut self) -> &mut [Bytes] {
        self.seal(1);
        self.blocks.make_contiguous()
    }

    pub(super) fn wrote(&mut self) {
        while self.blocks.front().is_some_and(Bytes::is_empty) {
            self.blocks.pop_front();
        }
        self.queued = self.blocks.iter().map(Bytes::len).sum::<usize>() + self.tail.len();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued == 0 && self.frames.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.tail.clear();
        self.frames.clear();
        self.queued = 0;
    }

    fn seal(&mut self, above: usize) {
        if self.tail.len() >= above {
            self.blocks.push_back(self.tail.split().freeze());
        }
    }
}

fn frame_cost(message: &Message) -> usize {
    const FRAME: usize = 256;
    match message {
        Message::StreamData(data) => FRAME + data.chunk.cost(),
        _ => FRAME,
    }
}
