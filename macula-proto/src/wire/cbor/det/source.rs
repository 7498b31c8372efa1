use crate::wire::reader::Str;
use crate::wire::value::{COPY_UP_TO, shared};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;

/// Input of up to this many bytes is copied as a whole, and all strings that are read out of it share that one copy.
pub(crate) const SMALL: usize = 1024;

/// What strings are read out of.
#[derive(Clone, Copy)]
pub(crate) struct Source<'s> {
    pub(crate) bytes: &'s Bytes,
    keep: Keep<'s>,
}

/// How strings outlive what they are read out of.
#[derive(Clone, Copy)]
enum Keep<'s> {
    /// They share it.
    All,
    /// Long ones share it, short ones are copied.
    Long,
    /// As `Long`, and the copies share buffers of up to [`SMALL`] bytes. This is what is left of the last one.
    Gathered(&'s Cell<BytesMut>),
}

impl<'s> Source<'s> {
    /// A buffer that holds these bytes and nothing else, and is small.
    pub(crate) fn own(bytes: &'s Bytes) -> Self {
        let keep = Keep::All;
        Self { bytes, keep }
    }

    /// A buffer that may be part of a large one.
    pub(crate) fn foreign(bytes: &'s Bytes) -> Self {
        let keep = Keep::Long;
        Self { bytes, keep }
    }

    pub(super) fn gathered(bytes: &'s Bytes, copies: &'s Cell<BytesMut>) -> Self {
        let keep = Keep::Gathered(copies);
        Self { bytes, keep }
    }

    pub(super) fn string(self, string: &[u8]) -> Bytes {
        match self.keep {
            Keep::All if string.is_empty() => Bytes::new(),
            Keep::All => {
                // What `slice_ref` does, with half of its checks.
                let start = (string.as_ptr() as usize).wrapping_sub(self.bytes.as_ptr() as usize);
                self.bytes.slice(start..start.saturating_add(string.len()))
            }
            Keep::Gathered(copies) if string.len() <= COPY_UP_TO => {
                let mut room = copies.take();
                if room.capacity() < string.len() {
                    room = BytesMut::with_capacity(SMALL);
                }
                room.extend_from_slice(string);
                let copy = room.split().freeze();
                copies.set(room);
                copy
            }
            Keep::Long | Keep::Gathered(_) => shared(self.bytes, Str::whole(string)),
        }
    }
}
