//! Relay control messages.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::control::{Decoder, MAX_NAME, Message, NodeName, Reason, TunnelId};
use macula_proto::wire::{DecodeLimits, Encoding, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const MAX_PAYLOAD: usize = 4096;

fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::MessagePack), Just(Encoding::Cbor)]
}

fn name() -> impl Strategy<Value = NodeName> {
    prop_oneof![vec(any::<u8>(), 0..=40), vec(any::<u8>(), 200..=MAX_NAME)].prop_map(NodeName::from)
}

fn tunnel() -> impl Strategy<Value = TunnelId> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(TunnelId::from_random),
        any::<[u8; 32]>().prop_map(TunnelId::from_bytes)
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        Just(Reason::TargetNotConnected),
        Just(Reason::Busy),
        vec(any::<u8>(), 0..1000).prop_map(|reason| Reason::new(reason.into()))
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        name().prop_map(|name| Message::Identify { name }),
        Just(Message::Identified),
        name().prop_map(|target| Message::TunnelRequest { target }),
        tunnel().prop_map(|tunnel| Message::TunnelOk { tunnel }),
        reason().prop_map(|reason| Message::TunnelError { reason }),
        (tunnel(), name()).prop_map(|(tunnel, source)| Message::TunnelNotify { tunnel, source }),
        tunnel().prop_map(|tunnel| Message::TunnelClose { tunnel }),
    ]
}

fn encoded(message: &Message, encoding: Encoding) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(encoding, &mut out);
    out.freeze()
}

fn drain(decoder: &mut Decoder) -> Vec<Option<(Encoding, Message)>> {
    std::iter::from_fn(|| decoder.next()).map(Result::ok).collect()
}

proptest! {
    #[test]
    fn messages_survive_both_encodings(message in message(), encoding in encoding()) {
        let bytes = encoded(&message, encoding);
        prop_assert_eq!(Message::decode(&bytes[4..]), Ok((encoding, message)));
    }

    #[test]
    fn keys_are_written_in_ascending_order_as_byte_strings(message in message(), encoding in encoding()) {
        let payload = encoded(&message, encoding).slice(4..);
        let value = encoding.decode(&payload, &DecodeLimits::DEFAULT).expect("well-formed");
        let entries = value.as_map().expect("a map");
        let keys: Vec<&Bytes> = entries.iter().filter_map(|(key, _)| key.as_bytes()).collect();
        prop_assert_eq!(keys.len(), entries.len());
        prop_assert!(keys.is_sorted());
        prop_assert!(entries.iter().all(|(_, value)| value.as_bytes().is_some()));
    }

    #[test]
    fn order_of_keys_kind_of_string_and_extra_keys_do_not_matter(
        message in message(),
        encoding in encoding(),
        extra in vec((0..1000u64, any::<bool>()), 0..3),
        reverse in any::<bool>(),
    ) {
        let payload = encoded(&message, encoding).slice(4..);
        let Ok(Value::Map(mut entries)) = encoding.decode(&payload, &DecodeLimits::DEFAULT) else {
            panic!("not a map");
        };
        for (key, value) in &mut entries {
            let as_text = |value: &Value| Value::Text(value.as_string().expect("a string").clone());
            *key = as_text(key);
            // CBOR text has to be UTF-8, which names and ids need not be.
            if value.as_bytes().is_some_and(|bytes| std::str::from_utf8(bytes).is_ok()) {
                *value = as_text(value);
            }
        }
        for (key, nested) in extra {
            let value = if nested { Value::Array(vec![Value::Null, Value::Map(vec![])]) } else { Value::Float(0.5) };
            if entries.iter().all(|(other, _)| *other != Value::Uint(key)) {
                entries.push((Value::Uint(key), value));
            }
        }
        if reverse {
            entries.reverse();
        }
        let mut out = BytesMut::new();
        encoding.encode(&Value::Map(entries), &mut out).expect("encodes");
        prop_assert_eq!(Message::decode(&out), Ok((encoding, message)));
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages(
        messages in vec((message(), encoding()), 1..6),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(message, encoding)| encoded(message, *encoding)).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut decoder = Decoder::new(MAX_PAYLOAD);
        let mut decoded = Vec::new();
        for cut in cuts.windows(2) {
            decoder.push(&stream[cut[0]..cut[1]]);
            decoded.extend(drain(&mut decoder));
            prop_assert!(decoder.buffered() < MAX_PAYLOAD + 4);
        }
        let expected: Vec<_> = messages.into_iter().map(|(message, encoding)| Some((encoding, message))).collect();
        prop_assert_eq!(decoded, expected);
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn garbage_in_sound_frames_does_not_hide_later_messages(
        garbage in vec(vec(any::<u8>(), 0..60), 0..4),
        message in message(),
        encoding in encoding(),
    ) {
        let mut decoder = Decoder::new(MAX_PAYLOAD);
        for payload in &garbage {
            decoder.push(&(payload.len() as u32).to_be_bytes());
            decoder.push(payload);
        }
        decoder.push(&encoded(&message, encoding));
        let decoded = drain(&mut decoder);
        prop_assert_eq!(decoded.len(), garbage.len() + 1);
        prop_assert_eq!(decoded.last(), Some(&Some((encoding, message))));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pile_up(pieces in vec(vec(any::<u8>(), 0..100), 0..20)) {
        let mut decoder = Decoder::new(MAX_PAYLOAD);
        let mut fatal = 0;
        for piece in &pieces {
            decoder.push(piece);
            while let Some(result) = decoder.next() {
                fatal += usize::from(result.is_err_and(|error| error.is_fatal()));
            }
            prop_assert!(decoder.buffered() < MAX_PAYLOAD + 4);
        }
        prop_assert!(fatal <= 1);
        let _ = Message::decode(&pieces.concat());
    }

    #[test]
    fn damaged_messages_never_panic(
        message in message(),
        encoding in encoding(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = encoded(&message, encoding)[4..].to_vec();
        prop_assert!(Message::decode(&payload[..cut.index(payload.len())]).is_err());
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Ok((encoding, message)) = Message::decode(&payload) {
            let again = encoded(&message, encoding);
            prop_assert_eq!(Message::decode(&again[4..]), Ok((encoding, message)));
        }
    }
}

#[test]
fn names_are_bounded() {
    for encoding in [Encoding::MessagePack, Encoding::Cbor] {
        let long = Message::Identify {
            name: vec![b'n'; MAX_NAME].into(),
        };
        assert!(Message::decode(&encoded(&long, encoding)[4..]).is_ok());
        let too_long = Message::Identify {
            name: vec![b'n'; MAX_NAME + 1].into(),
        };
        let refused = Message::decode(&encoded(&too_long, encoding)[4..]).expect_err("too long");
        assert_eq!(
            refused.to_string(),
            "a name of 256 bytes in field \"n\" exceeds the limit of 255"
        );
        assert!(!refused.is_fatal());
        assert!(Message::decode_within(&encoded(&too_long, encoding)[4..], 256).is_ok());
    }
}

#[test]
fn decoded_names_do_not_pin_the_buffer_they_came_in() {
    let bytes = encoded(
        &Message::Identify {
            name: vec![b'n'; 200].into(),
        },
        Encoding::Cbor,
    );
    let Ok((_, Message::Identify { name })) = Message::decode(&bytes[4..]) else {
        panic!("not decoded");
    };
    let within = bytes.as_ptr_range();
    assert!(!within.contains(&name.as_ptr()));
    let name = Bytes::from(name);
    assert!(name.is_unique());
}

#[test]
fn nesting_bombs_in_extra_keys_are_defused() {
    for (head, bomb) in [
        (&b"\xA2\x41t\x45id_ok\x41x"[..], [0x81, 0x9F, 0xA1, 0xBF, 0xC1]),
        (b"\x82\xC4\x01t\xC4\x05id_ok\xC4\x01x", [0x91, 0x81, 0x82, 0x92, 0x9F]),
    ] {
        for byte in bomb {
            let payload = [head, &vec![byte; 1 << 20]].concat();
            let began = Instant::now();
            assert!(Message::decode(&payload).is_err());
            assert!(began.elapsed() < Duration::from_secs(1));
        }
    }
}
