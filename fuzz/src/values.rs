//! Values in both encodings, against decoders that others wrote.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::{DecodeErrorKind, DecodeLimits, Value, cbor as ours_cbor, msgpack as ours_msgpack};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

/// Ordinary and deterministic CBOR. Whatever is taken means the same to `ciborium`, and survives being written again;
/// whatever `ciborium` takes is taken, but for what is refused on purpose; deterministic bytes come out as they went in.
pub fn cbor(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut rest = data;
    let theirs = ciborium::from_reader::<ciborium::Value, _>(&mut rest).ok();
    let theirs = theirs.filter(|_| rest.is_empty());
    match ours_cbor::decode(&bytes, &LIMITS) {
        Ok(value) => {
            let theirs = theirs.expect("taken by us alone");
            assert_eq!(from_ciborium(&theirs).as_ref(), Some(&value), "not what it means");
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

/// `None` for what we do not take: integers beyond 64 bits, floats that are not finite.
fn from_ciborium(value: &ciborium::Value) -> Option<Value> {
    use ciborium::Value as V;
    Some(match value {
        V::Null => Value::Null,
        V::Bool(value) => Value::Bool(*value),
        V::Integer(value) => {
            let value = i128::from(*value);
            let positive = u64::try_from(value).map(Value::from);
            positive.or_else(|_| i64::try_from(value).map(Value::from)).ok()?
        }
        V::Float(value) => Value::Float(Some(*value).filter(|value| value.is_finite())?),
        V::Bytes(bytes) => Value::bytes(bytes),
        V::Text(text) => Value::text(text),
        // ciborium makes integers of bignums only if they are small and in one piece.
        V::Tag(tag @ (2 | 3), inner) if inner.is_bytes() => {
            let bytes = inner.as_bytes()?;
            let mut digits = bytes.iter();
            let magnitude = digits.try_fold(0u64, |number, byte| Some(number.checked_mul(256)? | u64::from(*byte)))?;
            match tag {
                2 => Value::from(magnitude),
                _ => Value::from(-1 - i64::try_from(magnitude).ok()?),
            }
        }
        V::Tag(_, inner) => from_ciborium(inner)?,
        V::Array(elements) => Value::Array(elements.iter().map(from_ciborium).collect::<Option<_>>()?),
        V::Map(entries) => {
            let entry = |(key, value): &(V, V)| Some((from_ciborium(key)?, from_ciborium(value)?));
            Value::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// `None` for what we do not take: extensions, floats that are not finite.
fn from_rmpv(value: &rmpv::Value) -> Option<Value> {
    use rmpv::Value as V;
    Some(match value {
        V::Nil => Value::Null,
        V::Boolean(value) => Value::Bool(*value),
        V::Integer(value) => value
            .as_u64()
            .map(Value::from)
            .or_else(|| value.as_i64().map(Value::from))?,
        V::F32(value) => Value::Float(Some(f64::from(*value)).filter(|value| value.is_finite())?),
        V::F64(value) => Value::Float(Some(*value).filter(|value| value.is_finite())?),
        V::String(text) => Value::Text(Bytes::copy_from_slice(text.as_bytes())),
        V::Binary(bytes) => Value::bytes(bytes),
        V::Array(elements) => Value::Array(elements.iter().map(from_rmpv).collect::<Option<_>>()?),
        V::Map(entries) => {
            let entry = |(key, value): &(V, V)| Some((from_rmpv(key)?, from_rmpv(value)?));
            Value::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
        V::Ext(..) => return None,
    })
}
