//! Memory for bytes that wait to be acknowledged, used again and again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes that one block takes.
pub(super) const BLOCK: usize = 64 << 10;

/// Shorter pieces are left to the allocator: they would leave most of their block unused.
pub(super) const WORTH_A_BLOCK: usize = 32 << 10;

/// Blocks kept for the next time: what one stream with the usual window has on its way.
const MAX_LENT: usize = 24;

/// Blocks of one endpoint. Those whose bytes were acknowledged are filled anew: an allocator gives pieces of this size back to the
/// operating system, and takes them from it again page by page.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    lent: VecDeque<BytesMut>,
}

impl Blocks {
    /// Copies up to [`BLOCK`] bytes from the front of `data`.
    pub(super) fn copy(&mut self, data: &[u8]) -> Bytes {
        let mut block = self.take();
        block.extend_from_slice(data.get(..BLOCK).unwrap_or(data));
        self.lend(block)
    }

    /// Copies pieces of [`BLOCK`] bytes at most all together into one.
    pub(super) fn gather(&mut self, pieces: &[Bytes]) -> Bytes {
        let mut block = self.take();
        for piece in pieces {
            block.extend_from_slice(piece);
        }
        self.lend(block)
    }

    fn lend(&mut self, mut block: BytesMut) -> Bytes {
        let filled = block.split().freeze();
        if self.lent.len() < MAX_LENT {
            self.lent.push_back(block);
        }
        filled
    }

    /// The block that was lent first if it came back, or a new one.
    fn take(&mut self) -> BytesMut {
        if let Some(mut block) = self.lent.pop_front() {
            if block.try_reclaim(BLOCK) {
                return block;
            }
            // Whoever keeps it may keep it for long: it goes behind those that come back sooner.
            self.lent.push_back(block);
        }
        BytesMut::with_capacity(BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_filled_anew_once_its_bytes_are_gone() {
        let mut blocks = Blocks::default();
        let first = blocks.copy(&[1; 100]);
        let place = first.as_ptr();
        let second = blocks.copy(&[2; BLOCK + 1]);
        assert_eq!(first, [1; 100][..]);
        assert_eq!(second, [2; BLOCK][..]);
        assert_ne!(place, second.as_ptr());
        drop(first);
        // The second is still in use, and was tried first or last.
        let again = [blocks.copy(&[3; BLOCK]), blocks.copy(&[4; BLOCK])];
        assert!(again.iter().any(|bytes| bytes.as_ptr() == place));
        assert_eq!(second, [2; BLOCK][..]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut blocks = Blocks::default();
        let held: Vec<_> = (0..200).map(|_| blocks.copy(&[0; BLOCK])).collect();
        assert_eq!(blocks.lent.len(), MAX_LENT);
        drop(held);
    }
}
