use super::*;

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
    for known in Reason::KNOWN {
        assert_eq!(Reason::new(Bytes::copy_from_slice(known.as_bytes())), known);
    }
    assert_eq!(Reason::from("{weird,term}").as_bytes(), b"{weird,term}");
    assert_eq!(Reason::from("no\nline").to_string(), r"no\nline");
}

#[test]
fn a_message_split_anywhere_comes_once() {
    let name = Bytes::from_static(b"alice@host1");
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
