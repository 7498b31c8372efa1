use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Messages of up to this many bytes are gathered in blocks; longer ones go out as they are, without a copy.
const COPY_UP_TO: usize = 4 << 10;
/// Bytes of a block.
const BLOCK: usize = 16 << 10;
/// Bytes of a length.
const PREFIX: usize = 4;

/// What waits to be written on one stream.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    messages: VecDeque<Message>,
    bytes: usize,
    pub(super) open: bool,
}

#[derive(Debug)]
struct Message {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that were pulled.
    pulled: usize,
    body: Bytes,
}

/// What came out of a pull.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) bytes: Bytes,
    /// Messages whose last byte is in it.
    pub(super) complete: u64,
}

impl Outgoing {
    pub(super) fn push(&mut self, length: u32, body: Bytes) {
        self.bytes += PREFIX + body.len();
        self.messages.push_back(Message {
            prefix: length.to_be_bytes(),
            pulled: 0,
            body,
        });
    }

    /// Bytes that wait, lengths included.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn pull(&mut self, room: usize) -> Option<Pulled> {
        if room == 0 {
            return None;
        }
        let limit = room.min(BLOCK).min(self.bytes);
        let mut block = BytesMut::new();
        let mut complete = 0;
        while let Some(message) = self.messages.front_mut() {
            let is_long = message.body.len() > COPY_UP_TO;
            if block.capacity() == 0 {
                // Only a length, if a long message is first.
                block.reserve(if is_long {
                    PREFIX.saturating_sub(message.pulled)
                } else {
                    limit
                });
            }
            let left = message.prefix.get(message.pulled..).unwrap_or_default();
            let left = left.get(..limit.saturating_sub(block.len())).unwrap_or(left);
            block.extend_from_slice(left);
            message.pulled += left.len();
            if message.pulled == PREFIX && is_long {
                if block.is_empty() {
                    let bytes = message.body.split_to(room.min(message.body.len()));
                    complete += u64::from(message.body.is_empty());
                    return Some(self.pulled(bytes, complete));
                }
                break;
            }
            let length = message.body.len().min(limit.saturating_sub(block.len()));
            block.extend_from_slice(&message.body.split_to(length));
            if !message.body.is_empty() || message.pulled < PREFIX {
                break;
            }
            complete += 1;
            self.messages.pop_front();
        }
        (!block.is_empty()).then(|| self.pulled(block.freeze(), complete))
    }

    fn pulled(&mut self, bytes: Bytes, complete: u64) -> Pulled {
        self.bytes = self.bytes.saturating_sub(bytes.len());
        while self
            .messages
            .front()
            .is_some_and(|message| message.pulled == PREFIX && message.body.is_empty())
        {
            self.messages.pop_front();
        }
        Pulled { bytes, complete }
    }
}
