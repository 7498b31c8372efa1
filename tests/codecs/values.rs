//! Values in ordinary CBOR, deterministic CBOR and MessagePack.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::{DecodeError, DecodeErrorKind, DecodeLimits, EncodeError, Encoding, Value, cbor, msgpack};
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

type Encode = fn(&Value, &mut BytesMut) -> Result<(), EncodeError>;
type Decode = fn(&Bytes, &DecodeLimits) -> Result<Value, DecodeError>;

const CODECS: [(&str, Encode, Decode); 3] = [
    ("cbor", cbor::encode, cbor::decode),
    ("cbor::det", cbor::det::encode, cbor::det::decode),
    ("msgpack", msgpack::encode, msgpack::decode),
];

fn integer() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-300..300_i64).prop_map(Value::from)
    ]
}

fn float() -> impl Strategy<Value = Value> {
    let half = (-2048..2048_i32).prop_map(|count| f64::from(count) / 8.0);
    let single = any::<f32>().prop_map(f64::from);
    prop_oneof![any::<f64>(), single, half]
        .prop_filter("finite", |float| float.is_finite())
        .prop_map(Value::Float)
}

fn string() -> impl Strategy<Value = Value> {
    prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(Value::bytes),
        vec(any::<u8>(), 250..700).prop_map(Value::bytes),
        ".{0,20}".prop_map(Value::text),
    ]
}

/// Every kind of value, with maps whose keys Erlang can tell apart.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        integer(),
        float(),
        string()
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        let key = prop_oneof![
            any::<u64>().prop_map(Value::from),
            "[a-z]{0,6}".prop_map(Value::text),
            inner.clone()
        ];
        prop_oneof![
            vec(inner.clone(), 0..30).prop_map(Value::Array),
            vec((key, inner), 0..8).prop_map(Value::Map),
        ]
    })
}

/// The values that deterministic CBOR holds as they are.
fn plain_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<u64>().prop_map(Value::from), string()];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..30).prop_map(Value::Array),
            vec((inner.clone(), inner), 0..8).prop_map(Value::Map),
        ]
    })
}

fn encoded(encode: Encode, value: &Value) -> Option<Bytes> {
    let mut out = BytesMut::new();
    match encode(value, &mut out) {
        Ok(()) => Some(out.freeze()),
        Err(EncodeError::DuplicateKey) => {
            assert!(out.is_empty());
            None
        }
        Err(error) => panic!("{error}: {value:?}"),
    }
}

/// The same value with the entries of its maps in some fixed order.
fn unordered(value: &Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.iter().map(unordered).collect()),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| (unordered(key), unordered(value)))
                .collect();
            entries.sort_by_cached_key(|entry| format!("{entry:?}"));
            Value::Map(entries)
        }
        other => other.clone(),
    }
}

fn items(value: &Value) -> usize {
    1 + match value {
        Value::Array(elements) => elements.iter().map(items).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| items(key) + items(value)).sum(),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn values_survive_ordinary_cbor(value in value()) {
        if let Some(bytes) = encoded(cbor::encode, &value) {
            prop_assert_eq!(cbor::decode(&bytes, &LIMITS), Ok(value));
        }
    }

    #[test]
    fn values_survive_messagepack(value in value()) {
        let bytes = encoded(msgpack::encode, &value).expect("duplicates are fine");
        prop_assert_eq!(msgpack::decode(&bytes, &LIMITS), Ok(value));
    }

    #[test]
    fn values_survive_deterministic_cbor_but_for_the_order_of_maps(value in plain_value()) {
        if let Some(bytes) = encoded(cbor::det::encode, &value) {
            let decoded = cbor::det::decode(&bytes, &LIMITS).expect("canonical");
            prop_assert_eq!(unordered(&decoded), unordered(&value));
            let ordinary = cbor::decode(&bytes, &LIMITS);
            if ordinary != Err(DecodeError { kind: DecodeErrorKind::DuplicateKey, at: ordinary.as_ref().err().map_or(0, |error| error.at) }) {
                prop_assert_eq!(ordinary, Ok(decoded));
            }
        }
    }

    #[test]
    fn what_deterministic_cbor_takes_it_writes_again(bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        if let Ok(value) = cbor::det::decode(&bytes, &LIMITS) {
            prop_assert_eq!(encoded(cbor::det::encode, &value), Some(bytes));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        for (name, _, decode) in CODECS {
            if let Ok(value) = decode(&bytes, &LIMITS) {
                prop_assert!(items(&value) <= bytes.len(), "{}", name);
            }
        }
        let _ = cbor::det::entry_ranges(&bytes, &LIMITS);
        if let Some(encoding) = bytes.first().copied().and_then(Encoding::detect) {
            let _ = encoding.decode(&bytes, &LIMITS);
        }
    }

    #[test]
    fn damaged_values_never_panic_and_stay_bounded(
        value in value(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for (name, encode, decode) in CODECS {
            let mut out = BytesMut::new();
            if encode(&value, &mut out).is_err() {
                continue;
            }
            let cut = Bytes::copy_from_slice(&out[..cut.index(out.len())]);
            prop_assert!(decode(&cut, &LIMITS).is_err(), "{} takes a part for the whole", name);
            for (at, byte) in &damage {
                let at = at.index(out.len());
                out[at] = *byte;
            }
            let damaged = out.freeze();
            if let Ok(value) = decode(&damaged, &LIMITS) {
                prop_assert!(items(&value) <= damaged.len(), "{}", name);
            }
        }
    }

    #[test]
    fn what_a_decoder_takes_it_takes_again_once_written(bytes in vec(any::<u8>(), 0..60)) {
        let bytes = Bytes::from(bytes);
        for (name, encode, decode) in CODECS {
            if let Ok(value) = decode(&bytes, &LIMITS) {
                let again = encoded(encode, &value).expect("no duplicates");
                prop_assert!(again.len() <= bytes.len() + 4 * items(&value), "{}", name);
                prop_assert_eq!(decode(&again, &LIMITS), Ok(value));
            }
        }
    }
}

/// Inputs made to exhaust memory, stack or time.
fn bombs() -> Vec<Vec<u8>> {
    const SIZE: usize = 1 << 20;
    let mut bombs: Vec<Vec<u8>> = Vec::new();
    for byte in [
        0x81, 0x82, 0x9F, 0xA1, 0xBF, 0xC1, 0xC2, 0x91, 0x5F, 0x7F, 0xDC, 0xDD, 0xDE, 0xDF, 0x9B, 0xBB, 0x01,
    ] {
        bombs.push(vec![byte; SIZE]);
    }
    for head in [
        &b"\x9A\xFF\xFF\xFF\xFF"[..],
        b"\xBA\xFF\xFF\xFF\xFF",
        b"\x9B\x00\x00\x00\x00\xFF\xFF\xFF\xFF",
        b"\x5A\xFF\xFF\xFF\xFF",
        b"\xDD\xFF\xFF\xFF\xFF",
        b"\xDF\xFF\xFF\xFF\xFF",
        b"\xC6\xFF\xFF\xFF\xFF",
    ] {
        // Alone, with a few bytes behind, and nested in itself with bytes enough for the first few.
        bombs.push(head.to_vec());
        bombs.push([head, &[0; 5]].concat());
        bombs.push(head.repeat(SIZE / head.len()));
    }
    // A map of a quarter million different keys, ascending and descending.
    let keys = |keys: &mut dyn Iterator<Item = u32>| {
        let mut map = b"\xBA\x00\x01\xFF\x00".to_vec();
        keys.for_each(|key| map.extend([&[0x1A][..], &key.to_be_bytes(), &[0xF6]].concat()));
        map
    };
    bombs.push(keys(&mut (0..0x1FF00).map(|key| key + 0x1_0000)));
    bombs.push(keys(&mut (0..0x1FF00).rev().map(|key| key + 0x1_0000)));
    bombs
}

#[test]
fn bombs_are_defused_quickly() {
    for bomb in bombs() {
        let start: Vec<u8> = bomb.iter().copied().take(10).collect();
        let bomb = Bytes::from(bomb);
        for (name, _, decode) in CODECS {
            let began = Instant::now();
            let decoded = decode(&bomb, &LIMITS);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(2), "{name} took {took:?} for {start:02x?}");
            if let Ok(value) = decoded {
                assert!(items(&value) <= LIMITS.items, "{name} {start:02x?}");
            }
        }
    }
}

#[test]
fn every_input_of_up_to_two_bytes_is_safe() {
    for first in 0..=u8::MAX {
        for second in 0..=u8::MAX {
            let bytes = Bytes::from(vec![first, second]);
            for (_, _, decode) in CODECS {
                let _ = decode(&bytes.slice(..1), &LIMITS);
                let _ = decode(&bytes, &LIMITS);
            }
        }
    }
}
