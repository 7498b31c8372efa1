//! Runs of small raw chunks: what follows each other in a stream of bytes is taken out body by body.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{HEADER, Kind, data, data::Run};

/// Longest body that is taken here, in bytes: those that are copied out of what they came in. Around longer ones the cost of
/// reading a head does not show.
const SMALL: usize = 512;
/// Bodies of a run share buffers of at most this many bytes.
const SHARED: usize = 4 << 10;
/// Bytes of a head and a small body, at most.
const MESSAGE: usize = 90 + SMALL;

/// Where the next bodies of a run are copied to. What the handed out ones share is given up with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Copies(BytesMut);

impl Copies {
    /// A copy, in a buffer with room for bodies that come in `more` bytes.
    fn copy(&mut self, body: &[u8], more: usize) -> Bytes {
        if self.0.capacity() < body.len() {
            self.0 = BytesMut::with_capacity(more.min(SHARED).max(body.len()));
        }
        self.0.put_slice(body);
        self.0.split().freeze()
    }
}

/// The body of the message that `bytes` begin with and the length of that message, if it is the chunk of this number, and small.
fn small(run: Run, seq: u64, bytes: &[u8], max_payload: u32) -> Option<(&[u8], usize)> {
    let payload = data::payload(bytes, max_payload)?;
    let body = run.body(seq, payload).filter(|body| body.len() <= SMALL)?;
    Some((body, HEADER + payload.len()))
}

/// What the decoder does for runs.
impl super::Decoder {
    /// Whether the next message seems to be one that [`next_chunk`](Self::next_chunk) may take.
    pub(crate) fn may_be_chunk(&self) -> bool {
        let start = if self.partial.is_empty() {
            self.pieces.front().map(|piece| &**piece)
        } else {
            Some(&*self.partial)
        };
        start.and_then(|start| start.get(1)) == Some(&Kind::StreamData.as_u8())
    }

    /// The body of the next message, if that is a raw chunk of this number, small, and written as expected. `None` says nothing
    /// about the next message: [`next`](Self::next) does.
    pub(crate) fn next_chunk(&mut self, run: Run, seq: u64, copies: &mut Copies) -> Option<Bytes> {
        if self.partial.is_empty() {
            let piece = self.pieces.front()?;
            if let Some((body, length)) = small(run, seq, piece, self.max_payload) {
                let body = copies.copy(body, piece.len());
                self.skip(length);
                return Some(body);
            }
            let begins = match piece.first_chunk::<HEADER>() {
                Some(header) => data::payload_length(header) as usize > piece.len() - HEADER,
                None => true,
            };
            // If it is whole, it is something else. If it is not, the rest may be there.
            if !begins || piece.len() >= MESSAGE || self.pieces.len() < 2 {
                return None;
            }
            self.partial.reserve(MESSAGE / 2);
        }
        self.next_split_chunk(run, seq, copies)
    }

    /// The same for a message that came in several pieces.
    fn next_split_chunk(&mut self, run: Run, seq: u64, copies: &mut Copies) -> Option<Bytes> {
        self.gather(HEADER)?;
        let header = self.partial.first_chunk::<HEADER>()?;
        let length = HEADER.checked_add(data::payload_length(header) as usize)?;
        if length > MESSAGE || self.partial.len() > length {
            return None;
        }
        self.gather(length)?;
        let body = small(run, seq, &self.partial, self.max_payload);
        let body = body.map(|(body, _)| copies.copy(body, MESSAGE));
        if body.is_some() {
            self.partial.clear();
        } else {
            // It is something else, and lies ready for `next`.
            let message = std::mem::take(&mut self.partial);
            self.pieces.push_front(message.into());
        }
        body
    }

    /// Moves bytes from pieces to `partial` until it has so many; `None` if they are not there.
    fn gather(&mut self, length: usize) -> Option<()> {
        while self.partial.len() < length {
            let piece = self.pieces.front()?;
            let taken = piece.len().min(length - self.partial.len());
            self.partial.extend_from_slice(piece.get(..taken)?);
            self.skip(taken);
        }
        Some(())
    }

    /// Drops bytes of the first piece.
    pub(super) fn skip(&mut self, length: usize) {
        if let Some(piece) = self.pieces.front_mut() {
            piece.advance(length.min(piece.len()));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        DecodeLimits, Encoding,
        rpc::{Chunk, Decoder, Message, StreamData, StreamId, encode_data_head_within},
    };

    const STREAM: StreamId = StreamId([0xA5; 16]);
    const BOTH: [Encoding; 2] = [Encoding::MessagePack, Encoding::Cbor];
    const MAX: u32 = 1 << 20;

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|at| at as u8).collect()
    }

    const fn run(encoding: Encoding) -> Run {
        Run {
            stream: STREAM,
            encoding,
        }
    }

    fn written(encoding: Encoding, seq: u64, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        encode_data_head_within(STREAM, seq, body.len(), encoding, MAX, &mut out).unwrap();
        out.put_slice(body);
        out
    }

    /// All messages of a stream of bytes, as the decoder alone reads them, and with runs taken first; `at_once` so many pieces
    /// come together.
    fn read_both_ways(encoding: Encoding, pieces: &[Bytes], at_once: usize) -> [Vec<Chunk>; 2] {
        [false, true].map(|runs| {
            let mut decoder = Decoder::new(MAX, DecodeLimits::DEFAULT);
            let mut copies = Copies::default();
            let mut read = Vec::new();
            for pieces in pieces.chunks(at_once) {
                pieces.iter().cloned().for_each(|piece| decoder.push(piece));
                loop {
                    if runs
                        && decoder.may_be_chunk()
                        && let Some(body) = decoder.next_chunk(run(encoding), read.len() as u64, &mut copies)
                    {
                        read.push(Chunk::Raw(body));
                        continue;
                    }
                    match decoder.next() {
                        Some(Ok((Message::StreamData(StreamData { seq, chunk, .. }), _))) => {
                            assert_eq!(seq, read.len() as u64);
                            read.push(chunk);
                        }
                        Some(other) => panic!("{other:?}"),
                        None => break,
                    }
                }
            }
            assert_eq!(decoder.buffered(), 0);
            read
        })
    }

    #[test]
    fn runs_are_read_as_one_by_one_however_they_are_cut() {
        for encoding in BOTH {
            let mut all = BytesMut::new();
            let mut chunks = Vec::new();
            for seq in 0..300 {
                let body = body([64, 0, 300, 511, 512, 513, 2_000][seq % 7]);
                all.unsplit(written(encoding, seq as u64, &body));
                chunks.push(Chunk::Raw(body.into()));
            }
            let all = all.freeze();
            for size in [1, 3, 7, 64, 131, 600, 1_400, 70_000] {
                let pieces: Vec<Bytes> = all.chunks(size).map(Bytes::copy_from_slice).collect();
                for at_once in [1, 2, 30] {
                    let [alone, runs] = read_both_ways(encoding, &pieces, at_once);
                    assert_eq!(alone, chunks, "{encoding:?} {size}");
                    assert_eq!(runs, chunks, "{encoding:?} {size}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_expected_chunk_is_left_to_the_decoder() {
        for encoding in BOTH {
            let good = written(encoding, 300, b"body");
            let read = |bytes: &[u8]| {
                let found = small(run(encoding), 300, bytes, MAX);
                found.map(|(body, length)| (body.to_vec(), length))
            };
            assert_eq!(read(&good), Some((b"body".to_vec(), good.len())));
            // With more behind it.
            assert_eq!(
                read(&[&good[..], b"more"].concat()),
                Some((b"body".to_vec(), good.len()))
            );
            // Cut off anywhere.
            for length in 0..good.len() {
                assert_eq!(read(&good[..length]), None, "{length}");
            }
            // Changed anywhere but in the body.
            for at in 0..good.len() - 4 {
                let mut bad = good.to_vec();
                bad[at] ^= 1;
                assert_eq!(read(&bad), None, "{at}");
            }
            assert_eq!(read(&written(encoding, 299, b"body")), None);
            assert_eq!(read(&written(encoding, 300, &[0; SMALL + 1])), None);
            let payload = (good.len() - HEADER) as u32;
            assert!(small(run(encoding), 300, &good, payload).is_some());
            assert_eq!(small(run(encoding), 300, &good, payload - 1), None);
            let other = Run {
                stream: StreamId([0xA6; 16]),
                encoding,
            };
            assert_eq!(small(other, 300, &good, MAX), None);
        }
    }

    #[test]
    fn the_bodies_of_a_run_share_small_buffers() {
        let mut all = BytesMut::new();
        for seq in 0..1_000 {
            all.unsplit(written(Encoding::MessagePack, seq, &[seq as u8; 64]));
        }
        let piece = all.freeze();
        let (begin, end) = (piece.as_ptr() as usize, piece.as_ptr() as usize + piece.len());
        let mut decoder = Decoder::default();
        decoder.push(piece);
        let mut copies = Copies::default();
        let mut bodies = Vec::new();
        while let Some(body) = decoder.next_chunk(run(Encoding::MessagePack), bodies.len() as u64, &mut copies) {
            bodies.push(body);
        }
        assert_eq!(bodies.len(), 1_000);
        let follows = |pair: &[Bytes]| pair[0].as_ptr() as usize + 64 == pair[1].as_ptr() as usize;
        let runs = bodies.windows(2).filter(|pair| !follows(pair)).count() + 1;
        assert!((16..=32).contains(&runs), "{runs}");
        // What they came in is not kept by any of them.
        let inside = |body: &Bytes| (begin..end).contains(&(body.as_ptr() as usize));
        assert!(!bodies.iter().any(inside));
    }
}
