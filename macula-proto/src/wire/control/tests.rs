use super::*;
use crate::wire::Value;
use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};

fn encoded(message: &Message, encoding: Encoding) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(encoding, &mut out);
    out.to_vec()
}

fn drain(decoder: &mut Decoder) -> Vec<Result<(Encoding, Message), ControlError>> {
    std::iter::from_fn(|| decoder.next()).collect()
}

#[test]
fn a_tunnel_id_is_upper_case_hex_of_its_random_bytes() {
    let id = TunnelId::from_random([
        0xBE, 0xD9, 0xA3, 0x7A, 0x6C, 0x38, 0xE3, 0xC2, 0x55, 0xCB, 0xB0, 0xED, 0x6A, 0x22, 0xA8, 0x0F,
    ]);
    assert_eq!(id.to_string(), "BED9A37A6C38E3C255CBB0ED6A22A80F");
    assert_eq!("BED9A37A6C38E3C255CBB0ED6A22A80F".parse(), Ok(id));
    assert_eq!("BED9".parse::<TunnelId>(), Err(TunnelIdError { length: 4 }));
    assert_eq!(TunnelId::from_bytes([0xFF; 32]).to_string(), r"\xff".repeat(32));
}

#[test]
fn known_reasons_are_recognised_and_others_kept() {
    let known = [
        Reason::TargetNotConnected,
        Reason::NotIdentified,
        Reason::StreamLimit,
        Reason::TargetGone,
        Reason::Busy,
        Reason::NotAllowed,
        Reason::Draining,
        Reason::BadRequest,
    ];
    for known in known {
        assert_eq!(Reason::new(Bytes::copy_from_slice(known.as_bytes())), known);
    }
    assert_eq!(Reason::from("{weird,term}").as_bytes(), b"{weird,term}");
    assert_eq!(Reason::from("no\nline").to_string(), r"no\nline");
}

#[test]
fn a_message_split_anywhere_comes_once() {
    let name = NodeName::from("alice@host1");
    for encoding in [Encoding::MessagePack, Encoding::Cbor] {
        let bytes = encoded(&Message::Identify { name: name.clone() }, encoding);
        for split in 0..bytes.len() {
            let (head, tail) = bytes.split_at(split);
            let mut decoder = Decoder::new(4096);
            decoder.push(head);
            assert_eq!(drain(&mut decoder), []);
            assert_eq!(decoder.buffered(), split);
            decoder.push(tail);
            assert_eq!(
                drain(&mut decoder),
                [Ok((encoding, Message::Identify { name: name.clone() }))]
            );
            assert_eq!(decoder.buffered(), 0);
        }
    }
}

#[test]
fn a_malformed_payload_costs_one_error_and_nothing_else() {
    let mut decoder = Decoder::new(4096);
    decoder.push(&[0, 0, 0, 0]);
    decoder.push(&[0, 0, 0, 1, 0x1C]);
    decoder.push(&encoded(&Message::Identified, Encoding::Cbor));
    let got = drain(&mut decoder);
    assert_eq!(
        got,
        [
            Err(ControlError::Empty),
            Err(ControlError::NotAMap),
            Ok((Encoding::Cbor, Message::Identified))
        ]
    );
    assert!(
        got.iter()
            .flat_map(|result| result.as_ref().err())
            .all(|error| !error.is_fatal())
    );
}

#[test]
fn an_absurd_length_is_fatal_as_soon_as_it_is_there() {
    let mut decoder = Decoder::new(100);
    decoder.push(&encoded(&Message::Identified, Encoding::Cbor));
    decoder.push(&[0, 0, 0]);
    assert_eq!(drain(&mut decoder).len(), 1);
    decoder.push(&[101]);
    let error = ControlError::TooLarge(FrameTooLarge {
        length: 101,
        limit: 100,
    });
    assert!(error.is_fatal());
    assert_eq!(drain(&mut decoder), [Err(error)]);
    decoder.push(&encoded(&Message::Identified, Encoding::Cbor));
    assert_eq!(drain(&mut decoder), []);
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn what_is_wrong_with_a_field_is_said() {
    let decode = |payload: &[u8]| Message::decode(payload).map(|(_, message)| message);
    assert_eq!(decode(b"\xA1\x41n\x41a"), Err(ControlError::Missing("t")));
    assert_eq!(decode(b"\xA1\x41t\x42id"), Err(ControlError::Missing("n")));
    assert_eq!(decode(b"\xA2\x41t\x42id\x41n\x05"), Err(ControlError::NotAString("n")));
    assert_eq!(
        decode(b"\xA3\x41t\x42id\x41n\x41a\x61n\x41b"),
        Err(ControlError::Duplicate("n"))
    );
    assert_eq!(
        decode(b"\xA2\x41t\x46tun_ok\x43tid\x41a"),
        Err(ControlError::TunnelId(1))
    );
    assert_eq!(decode(b"\xA1\x41t\x44nope"), Err(ControlError::UnknownType));
    assert_eq!(decode(b"\xC1\x80"), Err(ControlError::NotAMap));
    let too_long = ControlError::NameTooLong {
        field: "n",
        length: 3,
        limit: 2,
    };
    assert_eq!(Message::decode_within(b"\xA2\x41t\x42id\x41n\x43bob", 2), Err(too_long));
}

#[test]
fn unknown_keys_of_any_type_are_skipped() {
    let identified = Ok((Encoding::Cbor, Message::Identified));
    // An array with a map in it as a key; nested arrays, a tagged one without a length, as a value.
    assert_eq!(
        Message::decode(b"\xA3\x81\xA1\x01\x02\xF6\x41t\x45id_ok\x07\xC1\x9F\x81\x80\x5F\x41a\xFF\xFF"),
        identified
    );
    // An extension value in MessagePack.
    assert_eq!(
        Message::decode(b"\x82\xC4\x01x\xD5\x07ab\xC4\x01t\xC4\x05id_ok"),
        Ok((Encoding::MessagePack, Message::Identified))
    );
    let mut bomb = b"\xA2\x41t\x45id_ok\x41x".to_vec();
    bomb.extend([0x81; 2000]);
    assert!(matches!(Message::decode(&bomb), Err(ControlError::Malformed(_))));
    bomb.extend([0x80]);
    assert!(matches!(Message::decode(&bomb), Err(ControlError::Malformed(_))));
}

/// A message, and the map that it is.
fn drawn() -> impl Strategy<Value = (Message, Vec<(&'static str, Bytes)>)> {
    let string = || {
        let lengths = prop_oneof![0..30usize, 60..66usize, 250..260usize, Just(70_000)];
        lengths.prop_flat_map(|length| vec(any::<u8>(), length).prop_map(Bytes::from))
    };
    let reasons = prop_oneof![
        string(),
        Just(Bytes::from_static(b"busy")),
        Just(Bytes::from_static(b"target_not_connected")),
    ];
    (0..7, string(), any::<[u8; 32]>(), reasons).prop_map(|(kind, string, id, reason)| {
        let (name, tunnel) = (NodeName::from(string.clone()), TunnelId::from_bytes(id));
        let id = Bytes::copy_from_slice(&id);
        let kind_of = |kind: &'static str| ("t", Bytes::from_static(kind.as_bytes()));
        match kind {
            0 => (Message::Identify { name }, vec![("n", string), kind_of("id")]),
            1 => (Message::Identified, vec![kind_of("id_ok")]),
            2 => {
                let target = name;
                let fields = vec![kind_of("tun_req"), ("target", string)];
                (Message::TunnelRequest { target }, fields)
            }
            3 => (Message::TunnelOk { tunnel }, vec![kind_of("tun_ok"), ("tid", id)]),
            4 => {
                let fields = vec![("r", reason.clone()), kind_of("tun_err")];
                let reason = Reason::new(reason);
                (Message::TunnelError { reason }, fields)
            }
            5 => {
                let source = name;
                let fields = vec![("src", string), kind_of("tun_notify"), ("tid", id)];
                (Message::TunnelNotify { tunnel, source }, fields)
            }
            _ => (Message::TunnelClose { tunnel }, vec![kind_of("tun_close"), ("tid", id)]),
        }
    })
}

fn encodings() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::MessagePack), Just(Encoding::Cbor)]
}

/// The message, read both ways; they have to say the same.
fn read_both_ways(payload: &[u8], max_name: usize) -> Result<Message, ControlError> {
    let read = Message::decode_within(payload, max_name);
    if let Some(encoding) = payload.first().and_then(|first| Encoding::detect(*first)) {
        let general = Message::decode_any(encoding, payload, max_name);
        assert_eq!(read, general.map(|message| (encoding, message)), "{payload:?}");
    }
    read.map(|(_, message)| message)
}

proptest! {
    #[test]
    fn messages_are_written_as_the_maps_that_they_are((message, fields) in drawn(), encoding in encodings()) {
        let map = fields.into_iter().map(|(key, value)| (Value::bytes(key), Value::Bytes(value)));
        let mut expected = BytesMut::new();
        encoding.encode(&Value::Map(map.collect()), &mut expected).expect("encodes");
        let out = encoded(&message, encoding);
        prop_assert_eq!(&out[..4], (expected.len() as u32).to_be_bytes());
        prop_assert_eq!(&out[4..], &expected[..]);
        prop_assert_eq!(read_both_ways(&out[4..], usize::MAX), Ok(message));
    }

    #[test]
    fn whatever_is_changed_is_read_the_same_both_ways(
        (message, _) in drawn().prop_filter("small", |(_, fields)| fields.iter().all(|(_, value)| value.len() < 300)),
        encoding in encodings(),
        changes in vec((any::<Index>(), any::<u8>(), 0..4u8), 0..4),
        cut in proptest::option::weighted(0.2, any::<Index>()),
        max_name in prop_oneof![Just(MAX_NAME), 0..300usize],
    ) {
        let mut payload = encoded(&message, encoding)[4..].to_vec();
        for (at, byte, kind) in changes {
            if payload.is_empty() {
                break;
            }
            let at = at.index(payload.len());
            match kind {
                0 => payload.insert(at, byte),
                1 => drop(payload.remove(at)),
                2 => payload[at] = byte,
                _ => payload[at] ^= 1 << (byte % 8),
            }
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len() + 1));
        }
        let _ = read_both_ways(&payload, max_name);
    }
}

#[test]
fn every_bit_and_every_cut_of_a_message_is_read_the_same_both_ways() {
    let tunnel = TunnelId::from_bytes([7; 32]);
    let messages = [
        Message::Identify { name: "alice".into() },
        Message::Identified,
        Message::TunnelRequest { target: "bob".into() },
        Message::TunnelOk { tunnel },
        Message::TunnelError { reason: Reason::Busy },
        Message::TunnelNotify {
            tunnel,
            source: "carol".into(),
        },
        Message::TunnelClose { tunnel },
    ];
    for (message, encoding) in messages
        .iter()
        .flat_map(|m| [(m, Encoding::MessagePack), (m, Encoding::Cbor)])
    {
        let payload = &encoded(message, encoding)[4..];
        for length in 0..payload.len() {
            assert!(read_both_ways(&payload[..length], MAX_NAME).is_err());
        }
        for bit in 0..payload.len() * 8 {
            let mut changed = payload.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let _ = read_both_ways(&changed, MAX_NAME);
        }
    }
}

#[test]
fn names_are_what_they_were_made_of_whatever_their_length() {
    for length in [0, 1, NodeName::INLINE - 1, NodeName::INLINE, NodeName::INLINE + 1, 300] {
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let name = NodeName::new(&bytes);
        assert_eq!(name.as_bytes(), bytes);
        assert_eq!(name, NodeName::from(bytes.clone()));
        assert_eq!(name, NodeName::from(Bytes::from(bytes.clone())));
        assert_eq!(Bytes::from(name.clone()), bytes);
        assert_eq!(name.clone(), name);
        assert_ne!(name, NodeName::new(&[&bytes[..], b"x"].concat()));
    }
    assert_eq!(format!("{:?}", NodeName::from("a\nb")), r#""a\nb""#);
}
