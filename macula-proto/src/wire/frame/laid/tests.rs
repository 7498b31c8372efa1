//! The short way and the general way, side by side.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::wire::{
    DecodeError,
    frame::{
        DecodedFrame,
        encode::Slot,
        raw::{RawFrame, general},
    },
};

/// Payloads of frames that deployed peers wrote, with their signature and without.
fn golden() -> Vec<Bytes> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/peering_frames.json");
    let text = std::fs::read_to_string(path).expect("the vectors");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let mut payloads = Vec::new();
    for vector in vectors {
        let digits = vector["hex"].as_str().expect("digits");
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
        let bytes: Bytes = (0..digits.len()).step_by(2).map(byte).collect::<Vec<_>>().into();
        // Some are lone updates and records, without a length in front.
        let Ok(decoded) = DecodedFrame::decode(bytes.slice(4..), &DecodeLimits::DEFAULT) else {
            continue;
        };
        payloads.push(decoded.raw.payload().clone());
        payloads.extend(decoded.frame.encode_unsigned().map(|raw| raw.payload().clone()));
    }
    payloads
}

/// Whether the short way takes these bytes; it has to say the same as the general one, and both together what each says.
fn agree(payload: &Bytes, limits: &DecodeLimits) -> bool {
    let general = general(Source::foreign(payload), limits);
    let decoded = DecodedFrame::decode(payload.clone(), limits);
    match (&general, &decoded) {
        (Ok((frame, ..)), Ok(decoded)) => {
            assert_eq!(&decoded.frame, frame);
            assert_eq!(decoded.raw.payload(), payload);
            assert_eq!(verdict(payload, limits), Ok(()), "{payload:?}");
        }
        (Err(expected), Err(error)) => assert_eq!(error, expected, "{payload:?}"),
        _ => panic!("{general:?} and {decoded:?} for {payload:?}"),
    }
    let taken = read(Source::foreign(payload), limits);
    let is_taken = taken.is_some();
    if let Some(taken) = taken {
        assert_eq!(Ok(taken), general, "{payload:?}");
    }
    is_taken
}

/// Whether the bytes are canonical, as the walk that builds nothing says.
fn verdict(payload: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    det::for_each_entry(payload, limits, |_, _, _, _| {})
}

#[test]
fn what_deployed_peers_write_goes_the_short_way() {
    let mut types = BTreeSet::new();
    for payload in golden() {
        let decoded = DecodedFrame::decode(payload.clone(), &DecodeLimits::DEFAULT).expect("a frame");
        let plain = decoded.frame.extra.is_empty() && !matches!(decoded.frame.body, Body::Unknown(_));
        assert_eq!(agree(&payload, &DecodeLimits::DEFAULT), plain, "{:?}", decoded.frame);
        types.insert(decoded.frame.frame_type().to_owned());
    }
    let all: BTreeSet<String> = Body::TYPES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(types, all);
}

#[test]
fn what_is_cut_off_or_has_a_bit_changed_is_read_the_same_both_ways() {
    for payload in golden().into_iter().filter(|payload| payload.len() < 600).step_by(3) {
        for length in 0..payload.len() {
            assert!(!agree(&payload.slice(..length), &DecodeLimits::DEFAULT));
        }
        for at in 0..payload.len() {
            let mut changed = payload.to_vec();
            changed[at] ^= 1 << (at % 8);
            agree(&changed.into(), &DecodeLimits::DEFAULT);
        }
    }
}

#[test]
fn limits_are_the_same_both_ways() {
    for payload in golden().into_iter().step_by(5) {
        for depth in 0..8 {
            agree(&payload, &DecodeLimits::DEFAULT.with_depth(depth));
        }
        for items in 0..80 {
            agree(&payload, &DecodeLimits::DEFAULT.with_items(items));
        }
    }
}

#[test]
fn both_ways_of_writing_write_the_same() {
    let mut written = 0;
    for payload in golden() {
        let frame = DecodedFrame::decode(payload, &DecodeLimits::DEFAULT)
            .expect("a frame")
            .frame;
        for slot in [Slot::None, Slot::Filled] {
            let [usual, general] = [frame.canonical(slot), frame.merged(slot)]
                .map(|canonical| canonical.map(|canonical| (canonical.signature.clone(), canonical.into_payload())));
            assert_eq!(usual, general);
            written += usize::from(usual.is_ok());
        }
    }
    assert!(written > 400, "{written}");
}

/// A change to the bytes of a frame, or to its entries.
#[derive(Debug, Clone)]
enum Change {
    Byte(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index),
    Cut(Index),
    Append(Vec<u8>),
    /// An entry is left out.
    Drop(Index),
    /// An entry is there twice.
    Twice(Index),
    /// Two entries change places.
    Swap(Index, Index),
    /// An entry gets the value of another one.
    Value(Index, Index),
    /// An entry gets another value.
    Other(Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let item = prop_oneof![
        Just(b"\xF6".to_vec()),
        Just(b"\x00".to_vec()),
        Just(b"\x18\x17".to_vec()),
        Just(b"\x18\x18".to_vec()),
        Just(b"\x1B\0\0\0\0\xFF\xFF\xFF\xFF".to_vec()),
        Just(b"\x1B\0\0\0\x01\0\0\0\0".to_vec()),
        Just(b"\x58\x01a".to_vec()),
        Just(b"\x60".to_vec()),
        Just(b"\x6Aframe_type".to_vec()),
        Just(b"\xA2\x61b\x01\x61a\x02".to_vec()),
        Just(b"\xA2\x61a\x01\x61b\x02".to_vec()),
        Just(b"\x83\x01\x02\x03".to_vec()),
        Just(b"\x9F\xFF".to_vec()),
        Just(b"\x20".to_vec()),
        vec(any::<u8>(), 0..20),
    ];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (at(), vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        at().prop_map(Change::Remove),
        at().prop_map(Change::Cut),
        vec(any::<u8>(), 1..4).prop_map(Change::Append),
        at().prop_map(Change::Drop),
        at().prop_map(Change::Twice),
        (at(), at()).prop_map(|(a, b)| Change::Swap(a, b)),
        (at(), at()).prop_map(|(a, b)| Change::Value(a, b)),
        (at(), item).prop_map(|(at, item)| Change::Other(at, item)),
    ]
}

impl Change {
    fn apply(self, payload: &Bytes) -> Bytes {
        let mut bytes = payload.to_vec();
        if bytes.is_empty() {
            return payload.clone();
        }
        let length = bytes.len();
        match self {
            Self::Byte(at, byte) => bytes[at.index(length)] = byte,
            Self::Insert(at, inserted) => {
                let at = at.index(length);
                bytes.splice(at..at, inserted);
            }
            Self::Remove(at) => {
                bytes.remove(at.index(length));
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Append(more) => bytes.extend(more),
            of_entries => return of_entries.apply_to_entries(payload),
        }
        bytes.into()
    }

    fn apply_to_entries(self, payload: &Bytes) -> Bytes {
        let Ok(ranges) = det::entry_ranges(payload, &DecodeLimits::DEFAULT) else {
            return payload.clone();
        };
        let mut entries: Vec<(Bytes, Bytes)> = ranges
            .into_iter()
            .map(|entry| (payload.slice(entry.key_range), payload.slice(entry.value_range)))
            .collect();
        if entries.is_empty() {
            return payload.clone();
        }
        let count = entries.len();
        match self {
            Self::Drop(at) => {
                entries.remove(at.index(count));
            }
            Self::Twice(at) => {
                let at = at.index(count);
                entries.insert(at, entries[at].clone());
            }
            Self::Swap(a, b) => entries.swap(a.index(count), b.index(count)),
            Self::Value(to, from) => entries[to.index(count)].1 = entries[from.index(count)].1.clone(),
            Self::Other(at, value) => entries[at.index(count)].1 = value.into(),
            _ => {}
        }
        let mut out = BytesMut::new();
        det::map_head(entries.len(), &mut out);
        for (key, value) in entries {
            out.extend_from_slice(&key);
            out.extend_from_slice(&value);
        }
        out.freeze()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn changed_frames_are_read_the_same_both_ways(
        which in any::<Index>(),
        changes in vec(change(), 0..4),
        items in prop_oneof![9 => Just(1 << 18), 1 => 0..60usize],
        depth in prop_oneof![9 => Just(128), 1 => 0..5usize],
    ) {
        thread_local! {
            static GOLDEN: Vec<Bytes> = golden();
        }
        let payload = GOLDEN.with(|golden| which.get(golden).clone());
        let payload = changes.into_iter().fold(payload, |payload, change| change.apply(&payload));
        agree(&payload, &DecodeLimits::DEFAULT.with_items(items).with_depth(depth));
    }
}

#[test]
fn a_frame_signed_later_is_read_the_same_both_ways() {
    let identity = crate::identity::Identity::from_seed(&[9; 32]);
    for payload in golden().into_iter().step_by(4) {
        let raw: RawFrame = DecodedFrame::decode(payload, &DecodeLimits::DEFAULT)
            .expect("a frame")
            .raw;
        let signed = raw.signed(&identity).expect("short enough");
        agree(signed.payload(), &DecodeLimits::DEFAULT);
    }
}
