//! Raw chunks in the form in which deployed peers, and this library, write them: they are most of what a link carries, so they are
//! put together from a few pieces, and recognised as such.
//!
//! ```text
//!   header | front: map head, "encoding", "raw", "seq" | the number | "stream_id", its id | "body", its length | the body
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::{Chunk, EncodeError, HEADER, Kind, StreamData, StreamId, VERSION};
use crate::wire::{DecodeLimits, Encoding, value::share};

/// More items than a raw chunk has.
const ITEMS: usize = 16;

/// What is the same in every chunk. Its lengths are known, so that the pieces are copied and compared a few words at a time.
struct Form<const F: usize, const S: usize, const B: usize> {
    front: &'static [u8; F],
    stream: &'static [u8; S],
    body: &'static [u8; B],
    numbers: Widths,
    lengths: Widths,
}

/// A number in its shortest form.
struct Widths {
    /// Less than this is its own first byte, added to `base`.
    small: u64,
    base: u8,
    /// What stands in front of others, by the bytes that follow: 1, 2, 4 or 8.
    first: [u8; 4],
}

const MSGPACK: Form<21, 13, 6> = Form {
    front: b"\x84\xC4\x08encoding\xC4\x03raw\xC4\x03seq",
    stream: b"\xC4\x09stream_id\xC4\x10",
    body: b"\xC4\x04body",
    numbers: Widths {
        small: 0x80,
        base: 0,
        first: [0xCC, 0xCD, 0xCE, 0xCF],
    },
    // No length is its own first byte, and none takes 8.
    lengths: Widths {
        small: 0,
        base: 0,
        first: [0xC4, 0xC5, 0xC6, 0xC6],
    },
};

const CBOR: Form<18, 11, 5> = Form {
    front: b"\xA4\x68encoding\x63raw\x63seq",
    stream: b"\x69stream_id\x50",
    body: b"\x64body",
    numbers: Widths {
        small: 24,
        base: 0,
        first: [0x18, 0x19, 0x1A, 0x1B],
    },
    lengths: Widths {
        small: 24,
        base: 0x40,
        first: [0x58, 0x59, 0x5A, 0x5B],
    },
};

// ----- writing ---------------------------------------------------------------------------------------------------------

/// Appends everything of a raw chunk but its body, for which there is room then.
pub(super) fn put_head(
    stream: StreamId,
    seq: u64,
    body_len: usize,
    encoding: Encoding,
    limit: u32,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    match encoding {
        Encoding::MessagePack => MSGPACK.put(stream, seq, body_len, limit, out),
        Encoding::Cbor => CBOR.put(stream, seq, body_len, limit, out),
    }
}

impl<const F: usize, const S: usize, const B: usize> Form<F, S, B> {
    /// Piece by piece straight to its place: a head that is put together elsewhere and copied has to wait for its own bytes.
    #[inline]
    fn put(
        &self,
        stream: StreamId,
        seq: u64,
        body_len: usize,
        limit: u32,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let head = F + self.numbers.width(seq) + S + StreamId::LENGTH + B + self.lengths.width(body_len as u64);
        let length = head.saturating_add(body_len);
        if length > limit as usize {
            return Err(EncodeError::TooLarge { length, limit });
        }
        out.reserve(HEADER + length);
        let [a, b, c, d] = (length as u32).to_be_bytes();
        out.put_slice(&[VERSION, Kind::StreamData.as_u8(), 0, 0, a, b, c, d]);
        out.put_slice(self.front);
        self.numbers.put(seq, out);
        out.put_slice(self.stream);
        out.put_slice(&stream.0);
        out.put_slice(self.body);
        self.lengths.put(body_len as u64, out);
        Ok(())
    }
}

impl Widths {
    #[inline]
    fn width(&self, number: u64) -> usize {
        match number {
            _ if number < self.small => 1,
            0..=0xFF => 2,
            0x100..=0xFFFF => 3,
            0x1_0000..=0xFFFF_FFFF => 5,
            _ => 9,
        }
    }

    #[inline]
    fn put(&self, number: u64, out: &mut BytesMut) {
        let [one, two, four, eight] = self.first;
        match number {
            _ if number < self.small => out.put_u8(self.base | number as u8),
            0..=0xFF => out.put_slice(&[one, number as u8]),
            0x100..=0xFFFF => {
                let [a, b] = (number as u16).to_be_bytes();
                out.put_slice(&[two, a, b]);
            }
            0x1_0000..=0xFFFF_FFFF => {
                let [a, b, c, d] = (number as u32).to_be_bytes();
                out.put_slice(&[four, a, b, c, d]);
            }
            _ => {
                out.put_u8(eight);
                out.put_u64(number);
            }
        }
    }
}

// ----- reading ---------------------------------------------------------------------------------------------------------

/// The raw chunks of a call in one encoding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) stream: StreamId,
    pub(crate) encoding: Encoding,
}

impl Run {
    /// The body of the chunk with this number, if the payload is that.
    #[inline]
    pub(super) fn body(self, seq: u64, payload: &[u8]) -> Option<&[u8]> {
        let found = read(payload, self.encoding)?;
        (found.stream == self.stream && found.seq == seq).then_some(found.body)
    }
}

/// The payload of the message that `bytes` begin with, if that is a chunk without flags, all of it is there, and it is not too long.
#[inline]
pub(super) fn payload(bytes: &[u8], max_payload: u32) -> Option<&[u8]> {
    const KIND: u8 = Kind::StreamData.as_u8();
    let header @ &[VERSION, KIND, 0, 0, ..] = bytes.first_chunk::<HEADER>()? else {
        return None;
    };
    let length = payload_length(header);
    if length > max_payload {
        return None;
    }
    bytes.get(HEADER..HEADER.checked_add(length as usize)?)
}

pub(super) fn payload_length(header: &[u8; HEADER]) -> u32 {
    let [.., a, b, c, d] = *header;
    u32::from_be_bytes([a, b, c, d])
}

/// What a payload of this form says.
struct RawData<'a> {
    stream: StreamId,
    seq: u64,
    body: &'a [u8],
}

/// What `source` has at `payload`, if that is a raw chunk of this form.
#[inline]
pub(super) fn chunk(source: &Bytes, payload: &[u8], limits: &DecodeLimits) -> Option<(StreamData, Encoding)> {
    let encoding = Encoding::detect(*payload.first()?)?;
    let RawData { stream, seq, body } = read(payload, encoding)?;
    if limits.items < ITEMS {
        return None;
    }
    let chunk = Chunk::Raw(share(source, body));
    Some((StreamData { stream, seq, chunk }, encoding))
}

/// The payload of a raw chunk, if it is all there and has this form. Anything else may be as good; it is not for this to say.
fn read(payload: &[u8], encoding: Encoding) -> Option<RawData<'_>> {
    match encoding {
        Encoding::MessagePack => MSGPACK.read(payload),
        Encoding::Cbor => CBOR.read(payload),
    }
}

impl<const F: usize, const S: usize, const B: usize> Form<F, S, B> {
    #[inline]
    fn read<'a>(&self, payload: &'a [u8]) -> Option<RawData<'a>> {
        let (seq, rest) = number(behind(payload, self.front)?, &self.numbers)?;
        let (stream, rest) = behind(rest, self.stream)?.split_first_chunk()?;
        let (length, body) = number(behind(rest, self.body)?, &self.lengths)?;
        (body.len() as u64 == length).then_some(RawData {
            stream: StreamId(*stream),
            seq,
            body,
        })
    }
}

#[inline]
fn behind<'a, const N: usize>(bytes: &'a [u8], piece: &[u8; N]) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_first_chunk()?;
    (first == piece).then_some(rest)
}

/// A number, if it has its shortest form, and what follows.
#[inline]
fn number<'a>(bytes: &'a [u8], widths: &Widths) -> Option<(u64, &'a [u8])> {
    let (&first, rest) = bytes.split_first()?;
    let small = u64::from(first.wrapping_sub(widths.base));
    if small < widths.small {
        return Some((small, rest));
    }
    let [one, two, four, eight] = widths.first;
    let (number, least, rest) = if first == one {
        let (&number, rest) = rest.split_first()?;
        (u64::from(number), widths.small, rest)
    } else if first == two {
        let (number, rest) = rest.split_first_chunk()?;
        (u64::from(u16::from_be_bytes(*number)), 0x100, rest)
    } else if first == four {
        let (number, rest) = rest.split_first_chunk()?;
        (u64::from(u32::from_be_bytes(*number)), 0x1_0000, rest)
    } else if first == eight {
        let (number, rest) = rest.split_first_chunk()?;
        (u64::from_be_bytes(*number), 0x1_0000_0000, rest)
    } else {
        return None;
    };
    (number >= least).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Decoder, Message, decode};
    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::MessagePack, Encoding::Cbor];

    fn edges() -> impl Strategy<Value = u64> {
        let edge = prop::sample::select(vec![0, 24, 0x80, 0x100, 0x1_0000, 0x1_0000_0000, u64::MAX]);
        prop_oneof![
            any::<u64>(),
            (edge, -2..=2_i64).prop_map(|(edge, by)| edge.saturating_add_signed(by))
        ]
    }

    fn message(encoding: Encoding, stream: StreamId, seq: u64, body: &[u8]) -> Bytes {
        let mut out = BytesMut::from(&b"before"[..]);
        put_head(stream, seq, body.len(), encoding, u32::MAX, &mut out).unwrap();
        out.put_slice(body);
        out.freeze().slice(6..)
    }

    proptest! {
        #[test]
        fn both_ways_agree_with_the_general_ones(
            stream: [u8; 16], seq in edges(), length in prop_oneof![0..300_usize, 65_530..65_540_usize],
        ) {
            let (stream, body) = (StreamId(stream), vec![7; length]);
            for encoding in BOTH {
                let written = message(encoding, stream, seq, &body);
                let chunk = Chunk::Raw(body.clone().into());
                let data = Message::StreamData(StreamData { stream, seq, chunk });
                let mut general = BytesMut::new();
                data.encode_generally(encoding, u32::MAX, &mut general).unwrap();
                prop_assert_eq!(&written, &general.freeze());

                let payload = written.slice(HEADER..);
                let found = read(&payload, encoding).expect("our own form");
                prop_assert_eq!((found.stream, found.seq, found.body), (stream, seq, &body[..]));
                let generally = decode::message(Kind::StreamData, &payload, &DecodeLimits::DEFAULT).unwrap();
                let mut decoder = Decoder::default();
                decoder.push(written);
                prop_assert_eq!(decoder.next(), Some(Ok(generally)));
            }
        }

        /// What is changed by a byte, cut, or longer is either not taken, or taken for the same as in general.
        #[test]
        fn what_is_taken_means_the_same_in_general(
            seq in edges(), length in 0..40_usize, at: prop::sample::Index, byte: u8, cut: prop::sample::Index, more: bool,
        ) {
            for encoding in BOTH {
                let written = message(encoding, StreamId([0xC4; 16]), seq, &vec![0x18; length]);
                let payload = &written[HEADER..];
                let mut changed = payload.to_vec();
                changed[at.index(payload.len())] = byte;
                let mut longer = payload[..cut.index(payload.len())].to_vec();
                if more {
                    longer = [payload, b"x"].concat();
                }
                for payload in [changed, longer] {
                    let Some(found) = read(&payload, encoding) else { continue };
                    let chunk = Chunk::Raw(Bytes::copy_from_slice(found.body));
                    let data = StreamData { stream: found.stream, seq: found.seq, chunk };
                    let generally = decode::message(Kind::StreamData, &payload.clone().into(), &DecodeLimits::DEFAULT);
                    prop_assert_eq!(generally, Ok((Message::StreamData(data), encoding)));
                }
            }
        }
    }

    #[test]
    fn a_chunk_above_the_limit_is_not_written() {
        for encoding in BOTH {
            let mut out = BytesMut::from(&b"before"[..]);
            let length = message(encoding, StreamId([1; 16]), 5, &[0; 100]).len() - HEADER;
            let limit = length as u32 - 1;
            let refused = put_head(StreamId([1; 16]), 5, 100, encoding, limit, &mut out);
            assert_eq!(refused, Err(EncodeError::TooLarge { length, limit }));
            assert_eq!(out, b"before"[..]);
            put_head(StreamId([1; 16]), 5, 100, encoding, limit + 1, &mut out).unwrap();
        }
    }
}
