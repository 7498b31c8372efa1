//! Values in both encodings, against decoders that others wrote.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::{DecodeErrorKind, DecodeLimits, cbor as ours_cbor, msgpack as ours_msgpack};

use crate::oracles::{from_ciborium, from_minicbor, from_rmpv};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

/// Ordinary and deterministic CBOR. Whatever is taken means the same to `ciborium` and
/// `minicbor`, and survives being written again;
/// whatever `ciborium` takes is taken, but for what is refused on purpose; deterministic bytes come out as they went in.
pub fn cbor(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut rest = data;
    let theirs = ciborium::from_reader::<ciborium::Value, _>(&mut rest);
    // Tags in tags cost us no stack and have no limit but that of all items.
    let tags_too_deep = matches!(theirs, Err(ciborium::de::Error::RecursionLimitExceeded));
    let theirs = theirs.ok().filter(|_| rest.is_empty());
    match ours_cbor::decode(&bytes, &LIMITS) {
        Ok(value) => {
            if !tags_too_deep {
                let theirs = theirs.expect("taken by us alone");
                assert_eq!(from_ciborium(&theirs).as_ref(), Some(&value), "not what it means");
            }
            let third = from_minicbor(data).expect("taken by us, not by minicbor");
            assert_eq!(third, value, "not what it means to minicbor");
            let mut again = BytesMut::new();
            ours_cbor::encode(&value, &mut again).expect("what was read can be written");
            assert_eq!(
                ours_cbor::decode(&again.freeze(), &LIMITS),
                Ok(value),
                "not the same again"
            );
        }
        Err(error) => {
            let on_purpose = laxer_ciborium(error.kind, data)
                || matches!(
                    error.kind,
                    DecodeErrorKind::DuplicateKey | DecodeErrorKind::TooManyItems { .. }
                );
            let theirs = theirs.filter(|_| !on_purpose && !too_deep(error.kind));
            assert_eq!(
                theirs.as_ref().and_then(from_ciborium),
                None,
                "refused by us alone: {error}"
            );
        }
    }
    if let Ok(value) = ours_cbor::det::decode(&bytes, &LIMITS) {
        let mut again = BytesMut::new();
        ours_cbor::det::encode(&value, &mut again).expect("what was read can be written");
        assert_eq!(again, bytes, "two encodings of one value");
    }
}

/// MessagePack, in the same way against `rmpv`.
pub fn msgpack(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut rest = data;
    let theirs = rmpv::decode::read_value(&mut rest).ok().filter(|_| rest.is_empty());
    match ours_msgpack::decode(&bytes, &LIMITS) {
        Ok(value) => {
            let theirs = theirs.expect("taken by us alone");
            assert_eq!(from_rmpv(&theirs).as_ref(), Some(&value), "not what it means");
            let mut again = BytesMut::new();
            ours_msgpack::encode(&value, &mut again).expect("what was read can be written");
            assert_eq!(
                ours_msgpack::decode(&again.freeze(), &LIMITS),
                Ok(value),
                "not the same again"
            );
        }
        Err(error) => {
            // The marker that is never used is nil to rmpv.
            let never_used = error.kind == DecodeErrorKind::Invalid && data.contains(&0xc1);
            let on_purpose = never_used || matches!(error.kind, DecodeErrorKind::TooManyItems { .. });
            let theirs = theirs.filter(|_| !on_purpose && !too_deep(error.kind));
            assert_eq!(
                theirs.as_ref().and_then(from_rmpv),
                None,
                "refused by us alone: {error}"
            );
        }
    }
}

/// Whether `data` may be one of the things that RFC 8949 calls not well-formed and ciborium takes: simple values below 32 in
/// two bytes (section 3.3), and chunks of a string that have no stated length themselves (section 3.2.3).
fn laxer_ciborium(kind: DecodeErrorKind, data: &[u8]) -> bool {
    let simple = data.windows(2).any(|pair| pair[0] == 0xf8 && pair[1] < 32);
    let nested = data.iter().filter(|byte| matches!(byte, 0x5f | 0x7f)).count() > 1;
    matches!(kind, DecodeErrorKind::Unsupported | DecodeErrorKind::Invalid) && (simple || nested)
}

fn too_deep(kind: DecodeErrorKind) -> bool {
    matches!(kind, DecodeErrorKind::TooDeep { .. })
}
