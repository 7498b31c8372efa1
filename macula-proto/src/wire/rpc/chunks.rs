//! Runs of raw chunks: what all chunks of a call have in common is written, and recognised, as a whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{EncodeError, HEADER, Kind, StreamId, data};
use crate::wire::{Encoding, cbor, msgpack};

/// Longest body that is taken here, in bytes: those that are copied out of what they came in. Around longer ones the cost of
/// reading a head does not show.
const SMALL: usize = 512;
/// Bodies of a run share buffers of at most this many bytes.
const SHARED: usize = 4 << 10;
/// Bytes of a head and a small body, at most.
const MESSAGE: usize = 90 + SMALL;

/// What the raw chunks of a call begin with, in the form in which this library writes them. Only the number of the chunk and
/// lengths differ from one to the next.
#[derive(Debug)]
pub(crate) struct ChunkHead {
    encoding: Encoding,
    /// The header without its length, then everything up to the length of the body, with the number of the last chunk.
    ready: BytesMut,
    /// Where the number is, and how many bytes it takes.
    at: usize,
    width: usize,
}

impl ChunkHead {
    pub(crate) fn new(stream: StreamId, encoding: Encoding) -> Self {
        let mut ready = BytesMut::with_capacity(96);
        let at = data::put_start(stream, encoding, &mut ready);
        Self {
            encoding,
            ready,
            at,
            width: 1,
        }
    }

    /// Appends a chunk: the same bytes as [`encode_data_head_within`](super::encode_data_head_within) and the body.
    pub(crate) fn put(
        &mut self,
        seq: u64,
        body: &[u8],
        max_payload: u32,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        self.number(seq);
        out.reserve(self.ready.len() + 5 + body.len());
        out.put_slice(&self.ready);
        match (self.encoding, u8::try_from(body.len())) {
            (Encoding::MessagePack, Ok(length)) => out.put_slice(&[0xC4, length]),
            (Encoding::MessagePack, _) => msgpack::put_bytes_head(out, body.len() as u32),
            (Encoding::Cbor, _) => cbor::put_bytes_head(out, body.len()),
        }
        let length = out.len() - start - HEADER + body.len();
        if length > max_payload as usize {
            out.truncate(start);
            let limit = max_payload;
            return Err(EncodeError::TooLarge { length, limit });
        }
        if let Some(field) = out.get_mut(start + HEADER - 4..start + HEADER) {
            field.copy_from_slice(&(length as u32).to_be_bytes());
        }
        out.put_slice(body);
        Ok(())
    }

    /// The body of the message that `bytes` begin with and the length of that message, if it is whole, a small raw chunk with
    /// this number, and written as [`put`](Self::put) does. Anything else may be as good; it is not for this to say.
    fn read<'a>(&mut self, bytes: &'a [u8], seq: u64, max_payload: u32) -> Option<(&'a [u8], usize)> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let length = payload_length(header);
        if length > max_payload {
            return None;
        }
        let message = bytes.get(..HEADER.checked_add(length as usize)?)?;
        self.number(seq);
        let (ready, head) = self.ready.split_first_chunk::<HEADER>()?;
        if header.first_chunk::<4>() != ready.first_chunk::<4>() {
            return None;
        }
        let body = self.string(message.get(HEADER..)?.strip_prefix(head)?)?;
        Some((body, message.len()))
    }

    /// Makes the head that of the chunk with this number.
    fn number(&mut self, seq: u64) {
        let small = match self.encoding {
            Encoding::MessagePack => 0x80,
            Encoding::Cbor => 0x18,
        };
        let width = match seq {
            _ if seq < small => 1,
            0..=0xFF => 2,
            0x100..=0xFFFF => 3,
            0x1_0000..=0xFFFF_FFFF => 5,
            _ => 9,
        };
        if width != self.width {
            let behind = self.ready.split_off((self.at + self.width).min(self.ready.len()));
            self.ready.truncate(self.at);
            match self.encoding {
                Encoding::MessagePack => msgpack::put_uint(&mut self.ready, seq),
                Encoding::Cbor => cbor::put_uint(&mut self.ready, seq),
            }
            self.ready.put_slice(&behind);
            self.width = width;
            return;
        }
        // A small one is its own first byte, others stand behind theirs.
        let digits = if width == 1 { 1 } else { width - 1 };
        let number = seq.to_be_bytes();
        let end = self.at + width;
        if let (Some(field), Some(number)) = (
            self.ready.get_mut(end - digits..end),
            number.get(number.len() - digits..),
        ) {
            field.copy_from_slice(number);
        }
    }

    /// The string that is all of `bytes`.
    fn string<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (&first, rest) = bytes.split_first()?;
        let (length, body) = match (self.encoding, first) {
            (Encoding::Cbor, 0x40..0x58) => (usize::from(first - 0x40), rest),
            (Encoding::MessagePack, 0xC4) | (Encoding::Cbor, 0x58) => {
                let (&length, body) = rest.split_first()?;
                (usize::from(length), body)
            }
            (Encoding::MessagePack, 0xC5) | (Encoding::Cbor, 0x59) => {
                let (length, body) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), body)
            }
            _ => return None,
        };
        (body.len() == length && length <= SMALL).then_some(body)
    }
}

fn payload_length(header: &[u8; HEADER]) -> u32 {
    let [.., a, b, c, d] = *header;
    u32::from_be_bytes([a, b, c, d])
}

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
    pub(crate) fn next_chunk(&mut self, head: &mut ChunkHead, seq: u64, copies: &mut Copies) -> Option<Bytes> {
        if self.partial.is_empty() {
            let piece = self.pieces.front_mut()?;
            if let Some((body, length)) = head.read(piece, seq, self.max_payload) {
                let body = copies.copy(body, piece.len());
                self.skip(length);
                return Some(body);
            }
            let begins = match piece.first_chunk::<HEADER>() {
                Some(header) => payload_length(header) as usize > piece.len() - HEADER,
                None => true,
            };
            // If it is whole, it is something else. If it is not, the rest may be there.
            if !begins || piece.len() >= MESSAGE || self.pieces.len() < 2 {
                return None;
            }
            self.partial.reserve(MESSAGE / 2);
        }
        self.next_split_chunk(head, seq, copies)
    }

    /// The same for a message that came in several pieces.
    fn next_split_chunk(&mut self, head: &mut ChunkHead, seq: u64, copies: &mut Copies) -> Option<Bytes> {
        self.gather(HEADER)?;
        let header = self.partial.first_chunk::<HEADER>()?;
        let length = HEADER.checked_add(payload_length(header) as usize)?;
        if length > MESSAGE || self.partial.len() > length {
            return None;
        }
        self.gather(length)?;
        let body = head.read(&self.partial, seq, self.max_payload);
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
        DecodeLimits,
        rpc::{Chunk, Decoder, Message, StreamData, encode_data_head_within},
    };

    const STREAM: StreamId = StreamId([0xA5; 16]);
    const BOTH: [Encoding; 2] = [Encoding::MessagePack, Encoding::Cbor];
    const MAX: u32 = 1 << 20;
    const NUMBERS: [u64; 14] = [
        0,
        1,
        23,
        24,
        127,
        128,
        255,
        256,
        65_535,
        65_536,
        u32::MAX as u64,
        u32::MAX as u64 + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    const LENGTHS: [usize; 12] = [0, 1, 22, 23, 24, 64, 255, 256, 511, 512, 513, 70_000];

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|at| at as u8).collect()
    }

    fn written(encoding: Encoding, seq: u64, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        ChunkHead::new(STREAM, encoding).put(seq, body, MAX, &mut out).unwrap();
        out
    }

    #[test]
    fn a_chunk_is_written_as_the_encoder_writes_it() {
        for encoding in BOTH {
            let mut head = ChunkHead::new(STREAM, encoding);
            for seq in NUMBERS {
                for length in LENGTHS {
                    let body = body(length);
                    let mut expected = BytesMut::from(&b"before"[..]);
                    let mut out = expected.clone();
                    encode_data_head_within(STREAM, seq, length, encoding, MAX, &mut expected).unwrap();
                    expected.put_slice(&body);
                    head.put(seq, &body, MAX, &mut out).unwrap();
                    assert_eq!(out, expected, "{encoding:?} {seq} {length}");
                }
            }
        }
    }

    #[test]
    fn a_chunk_above_the_limit_is_not_written() {
        for encoding in BOTH {
            let mut head = ChunkHead::new(STREAM, encoding);
            let mut out = BytesMut::from(&b"before"[..]);
            let mut reference = BytesMut::new();
            let error = head.put(7, &[0; 100], 99, &mut out).unwrap_err();
            let expected = encode_data_head_within(STREAM, 7, 100, encoding, 99, &mut reference).unwrap_err();
            assert!(matches!(error, EncodeError::TooLarge { limit: 99, .. }));
            assert!(matches!(expected, EncodeError::TooLarge { limit: 99, .. }));
            assert_eq!(out, b"before"[..]);
            // At the limit, it is.
            let payload = (written(encoding, 7, &[0; 100]).len() - HEADER) as u32;
            head.put(7, &[0; 100], payload, &mut out).unwrap();
            head.put(7, &[0; 100], payload - 1, &mut out).unwrap_err();
        }
    }

    /// All messages of a stream of bytes, as the decoder alone reads them, and with runs taken first; `at_once` so many pieces
    /// come together.
    fn read_both_ways(encoding: Encoding, pieces: &[Bytes], at_once: usize) -> [Vec<Chunk>; 2] {
        let mut head = ChunkHead::new(STREAM, encoding);
        [false, true].map(|runs| {
            let mut decoder = Decoder::new(MAX, DecodeLimits::DEFAULT);
            let mut copies = Copies::default();
            let mut read = Vec::new();
            for pieces in pieces.chunks(at_once) {
                pieces.iter().cloned().for_each(|piece| decoder.push(piece));
                loop {
                    if runs
                        && decoder.may_be_chunk()
                        && let Some(body) = decoder.next_chunk(&mut head, read.len() as u64, &mut copies)
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
            let mut head = ChunkHead::new(STREAM, encoding);
            let good = written(encoding, 300, b"body");
            let mut read = |bytes: &[u8]| {
                let found = head.read(bytes, 300, MAX);
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
            let mut head = ChunkHead::new(STREAM, encoding);
            assert_eq!(head.read(&good, 300, (good.len() - HEADER - 1) as u32), None);
            let mut other = BytesMut::new();
            ChunkHead::new(StreamId([0xA6; 16]), encoding)
                .put(300, b"body", MAX, &mut other)
                .unwrap();
            assert_eq!(read(&other), None);
        }
    }

    #[test]
    fn the_bodies_of_a_run_share_small_buffers() {
        let mut head = ChunkHead::new(STREAM, Encoding::MessagePack);
        let mut all = BytesMut::new();
        for seq in 0..1_000 {
            head.put(seq, &[seq as u8; 64], MAX, &mut all).unwrap();
        }
        let piece = all.freeze();
        let (begin, end) = (piece.as_ptr() as usize, piece.as_ptr() as usize + piece.len());
        let mut decoder = Decoder::default();
        decoder.push(piece);
        let mut copies = Copies::default();
        let mut bodies = Vec::new();
        while let Some(body) = decoder.next_chunk(&mut head, bodies.len() as u64, &mut copies) {
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
