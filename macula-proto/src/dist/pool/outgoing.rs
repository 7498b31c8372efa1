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
    /// What was not pulled of the length.
    prefix: Bytes,
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
        let prefix = Bytes::copy_from_slice(&length.to_be_bytes());
        self.messages.push_back(Message { prefix, body });
    }

    /// Bytes that wait, lengths included.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn pull(&mut self, room: usize) -> Option<Pulled> {
        if room == 0 {
            return None;
        }
        let limit = room.min(BLOCK);
        let mut block = BytesMut::new();
        let mut complete = 0;
        while let Some(message) = self.messages.front_mut() {
            take(&mut message.prefix, &mut block, limit);
            if message.prefix.is_empty() && message.body.len() > COPY_UP_TO {
                if block.is_empty() {
                    let bytes = message.body.split_to(room.min(message.body.len()));
                    complete += u64::from(message.body.is_empty());
                    return Some(self.pulled(bytes, complete));
                }
                break;
            }
            take(&mut message.body, &mut block, limit);
            if !message.body.is_empty() || !message.prefix.is_empty() {
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
            .is_some_and(|message| message.prefix.is_empty() && message.body.is_empty())
        {
            self.messages.pop_front();
        }
        Pulled { bytes, complete }
    }
}

/// Moves bytes to `block`, up to `limit` bytes in it.
fn take(from: &mut Bytes, block: &mut BytesMut, limit: usize) {
    let length = from.len().min(limit.saturating_sub(block.len()));
    if length > 0 {
        block.extend_from_slice(&from.split_to(length));
    }
}
