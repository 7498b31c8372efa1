//! What waits to be sent to a node.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::wire::{
    Encoding,
    rpc::{Chunk, EncodeError, Message, encode_data_head_within},
};

/// Messages are gathered in blocks of this many bytes.
const BLOCK: usize = 16 << 10;
/// What has this many bytes or more is not copied into a block. It has a buffer of its own then, or nearly so.
const OWN_BLOCK: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    blocks: VecDeque<Bytes>,
    tail: BytesMut,
    queued: usize,
    /// Whoever writes was told that there is something.
    pub(super) told: bool,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Queues bytes as they are; returns their number.
    pub(super) fn push_bytes(&mut self, bytes: Bytes) -> usize {
        let length = bytes.len();
        self.queued += length;
        if length < OWN_BLOCK {
            self.tail.extend_from_slice(&bytes);
            self.seal(BLOCK);
        } else {
            self.seal(1);
            self.blocks.push_back(bytes);
        }
        length
    }

    /// Queues a message; returns the number of its bytes. A large chunk of bytes is not copied.
    pub(super) fn push(&mut self, message: &Message, encoding: Encoding, max: u32) -> Result<usize, EncodeError> {
        let before = self.tail.len();
        let mut body = None;
        match message {
            Message::StreamData(data) if matches!(&data.chunk, Chunk::Raw(raw) if raw.len() >= OWN_BLOCK) => {
                if let Chunk::Raw(raw) = &data.chunk {
                    encode_data_head_within(data.stream, data.seq, raw.len(), encoding, max, &mut self.tail)?;
                    body = Some(raw.clone());
                }
            }
            _ => message.encode_within(encoding, max, &mut self.tail)?,
        }
        let length = self.tail.len() - before;
        self.queued += length;
        self.seal(BLOCK);
        Ok(length + body.map_or(0, |body| self.push_bytes(body)))
    }

    /// What waits, in order. The writer cuts off what it has written, and says so with [`wrote`](Self::wrote).
    pub(super) fn blocks(&mut self) -> &mut [Bytes] {
        self.seal(1);
        self.blocks.make_contiguous()
    }

    /// Whether any bytes left.
    pub(super) fn wrote(&mut self) -> bool {
        while self.blocks.front().is_some_and(Bytes::is_empty) {
            self.blocks.pop_front();
        }
        let before = self.queued;
        self.queued = self.blocks.iter().map(Bytes::len).sum::<usize>() + self.tail.len();
        self.told = self.queued > 0;
        self.queued < before
    }

    fn seal(&mut self, above: usize) {
        if self.tail.len() >= above {
            self.blocks.push_back(self.tail.split().freeze());
        }
    }
}
