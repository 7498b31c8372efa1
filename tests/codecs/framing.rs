//! Length-prefixed frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use macula_proto::wire::framing::{FrameTooLarge, LengthPrefixed, put_frame};
use proptest::collection::vec;
use proptest::prelude::*;

fn pieces(stream: &Bytes, cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| stream.slice(cut[0]..cut[1])).collect()
}

/// The plain way to do the same: on the whole stream at once.
fn model(mut stream: Bytes, limit: u32) -> (Vec<Result<Bytes, FrameTooLarge>>, usize) {
    let mut frames = Vec::new();
    while stream.len() >= 4 {
        let length = stream.slice(..4).get_u32();
        if length > limit {
            frames.push(Err(FrameTooLarge { length, limit }));
            return (frames, 0);
        }
        let end = 4 + length as usize;
        if stream.len() < end {
            break;
        }
        frames.push(Ok(stream.split_to(end).slice(4..)));
    }
    (frames, stream.len())
}

fn split(pieces: Vec<Bytes>, limit: u32) -> (Vec<Result<Bytes, FrameTooLarge>>, usize) {
    let mut framing = LengthPrefixed::new(limit);
    let mut frames = Vec::new();
    for mut piece in pieces {
        while let Some(frame) = framing.next(&mut piece) {
            frames.push(frame);
        }
        assert!(piece.is_empty());
    }
    (frames, framing.buffered())
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in(
        payloads in vec(vec(any::<u8>(), 0..300), 0..10),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = BytesMut::new();
        for payload in &payloads {
            let write = |out: &mut BytesMut| { out.put_slice(payload); Ok::<_, FrameTooLarge>(()) };
            put_frame(&mut stream, 300, write).expect("small enough");
        }
        let (frames, rest) = split(pieces(&stream.freeze(), &cuts), 300);
        let expected: Vec<_> = payloads.into_iter().map(|payload| Ok(Bytes::from(payload))).collect();
        prop_assert_eq!(frames, expected);
        prop_assert_eq!(rest, 0);
    }

    #[test]
    fn any_bytes_in_any_pieces_are_split_as_the_model_does(
        lengths in vec(prop_oneof![Just(0u32), 0..40u32, any::<u32>()], 0..8),
        filler in vec(any::<u8>(), 0..100),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = BytesMut::new();
        for length in lengths {
            stream.put_u32(length);
            stream.extend(filler.iter().cycle().take((length as usize).min(40)));
        }
        stream.extend_from_slice(&filler);
        let stream = stream.freeze();
        prop_assert_eq!(split(pieces(&stream, &cuts), 40), model(stream, 40));
    }
}
