//! Frames cut out of a stream of bytes, and who signed them.

use bytes::{Bytes, BytesMut};
use macula_proto::{
    identity::{Identity, PublicKey},
    wire::{
        DecodeLimits,
        cbor::det,
        frame::{Body, DecodedFrame, FrameError, FrameParser},
    },
};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;
const MAX_PAYLOAD: u32 = 1 << 16;

/// The first byte says in which pieces the rest arrives, or that the rest is the payload of one frame. However it is cut, the
/// same frames come out; each keeps its bytes, can be written again and read as the same, and is signed by nobody who did not.
pub fn frame(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else {
        return;
    };
    if first < 0x80 {
        payload(Bytes::copy_from_slice(stream));
        return;
    }
    let stream = Bytes::copy_from_slice(stream);
    let whole = parse(&stream, stream.len().max(1));
    let pieces = parse(&stream, usize::from(first & 0x7F) + 1);
    assert_eq!(whole, pieces, "the cuts show");
    for decoded in whole.into_iter().flatten() {
        payload(decoded.raw.payload().clone());
    }
}

fn parse(stream: &Bytes, piece: usize) -> Vec<Option<DecodedFrame>> {
    let mut parser = FrameParser::new(MAX_PAYLOAD, LIMITS);
    let mut frames = Vec::new();
    let mut over = false;
    for start in (0..stream.len()).step_by(piece) {
        let mut input = stream.slice(start..stream.len().min(start + piece));
        while let Some(result) = parser.next(&mut input) {
            assert!(!over, "something comes after the end");
            over = matches!(result, Err(FrameError::TooLarge(_)));
            frames.push(result.ok());
        }
        assert!(over || input.is_empty(), "bytes are left lying");
        assert!(
            parser.buffered() < MAX_PAYLOAD as usize + 4,
            "a complete frame is held back"
        );
    }
    frames
}

fn payload(bytes: Bytes) {
    let Ok(decoded) = DecodedFrame::decode(bytes.clone(), &LIMITS) else {
        return;
    };
    assert_eq!(decoded.raw.payload(), &bytes, "its bytes are not kept");
    // A frame is deterministic CBOR, and its fields are those of the map, without the signature.
    let value = det::decode(&bytes, &LIMITS).expect("deterministic");
    let map = value.as_map().expect("a map");
    let fields = decoded.raw.fields(&LIMITS);
    let unsigned: Vec<_> = map
        .iter()
        .filter(|(key, _)| key.as_text() != Some("signature"))
        .cloned()
        .collect();
    assert_eq!(fields, unsigned);

    let signer = Identity::from_seed(b"a key that nothing else uses ...");
    let key = PublicKey::new(&signer.node_id()).expect("a key");
    // No input can have been signed with it.
    assert!(decoded.raw.verify(&key).is_err(), "signed by somebody who did not");
    let Ok(raw) = decoded.frame.sign(&signer) else {
        return;
    };
    assert_eq!(raw.verify(&key), Ok(()));
    let again = DecodedFrame::decode(raw.payload().clone(), &LIMITS).expect("what was written can be read");
    assert_eq!(again.raw, raw);
    let second = again.frame.sign(&signer).expect("what was read can be written");
    // What lacked a field of every header gets it when it is written, and may fit its type only then.
    if !matches!(decoded.frame.body, Body::Unknown(_)) {
        assert_eq!(second, raw, "not one form");
    }
    let again = DecodedFrame::decode(second.payload().clone(), &LIMITS).expect("what was written can be read");
    assert_eq!(again.frame.sign(&signer), Ok(second), "never one form");
    let mut wire = BytesMut::new();
    raw.put(&mut wire);
    assert_eq!(wire.freeze(), raw.to_wire());
    // One flipped bit anywhere, and it is nobody's.
    let at = bytes.len() % raw.payload().len();
    let mut damaged = raw.payload().to_vec();
    damaged[at] ^= 1 << (bytes.len() % 8);
    if let Ok(damaged) = DecodedFrame::decode(damaged.into(), &LIMITS) {
        assert!(damaged.raw.verify(&key).is_err(), "a changed frame verifies");
    }
}
