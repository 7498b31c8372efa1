//! `dist_framing.json`: framing, handshake and messages of the deployed distribution controller.

use bytes::{Bytes, BytesMut};
use macula_proto::dist::streams::{self, Side, Slot, StreamClass};
use macula_proto::wire::{
    DecodeLimits,
    dist::{
        Flags, Form, FragmentLimits, Frame, Message, MessageDecoder, MessageFraming, TICK, encode_message,
        handshake::{Carrier, Digest, Message as Handshake, Parser, Sender},
        put_message,
    },
};
use serde_json::Value as Json;

use crate::common::{differences::Differences, tagged::hex_field, text, vectors};

const FILE: &str = "dist_framing.json";
const MAX_MESSAGE: u32 = 64 << 20;

/// Frames, whether the stream is lost, and the number of bytes held back.
fn deframe<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, bool, usize) {
    let mut framing = MessageFraming::new(MAX_MESSAGE);
    let (mut frames, mut lost) = (Vec::new(), false);
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(frame) = framing.next(&mut input) {
            match frame {
                Ok(frame) => frames.push(frame),
                Err(_) => lost = true,
            }
        }
    }
    (frames, lost, framing.buffered())
}

fn bytes_of(json: &Json) -> Vec<Bytes> {
    let messages = json.as_array().expect("messages");
    messages.iter().map(|message| hex_field(message, "bytes")).collect()
}

fn messages(frames: Vec<Frame>) -> Vec<Bytes> {
    let messages = frames.into_iter().filter_map(|frame| match frame {
        Frame::Tick => None,
        Frame::Message(message) => Some(message),
    });
    messages.collect()
}

fn verdict(messages: &[Bytes], waits: bool, lost: bool) -> String {
    let state = if lost {
        ", stream lost"
    } else if waits {
        ", waits"
    } else {
        ""
    };
    let messages: String = messages
        .iter()
        .map(|message| format!("{} bytes ", message.len()))
        .collect();
    format!(
        "{}{state}",
        if messages.is_empty() {
            "nothing"
        } else {
            messages.trim_end()
        }
    )
}

#[test]
fn verdicts_differ_only_as_listed() {
    let mut differences = Differences::of(FILE);
    for vector in vectors(FILE)
        .iter()
        .filter(|vector| text(vector, "name").starts_with("deframe_"))
    {
        let name = text(vector, "name");
        let bytes = hex_field(vector, "hex");
        let (frames, lost, held) = deframe([&bytes[..]]);
        let ours = messages(frames);
        let mut theirs = bytes_of(&vector["messages"]);
        let rest = hex_field(vector, "rest");
        let mut waits = !rest.is_empty();
        if vector["yield"] == true {
            // The deployed one takes 32 at a time and comes back for the rest.
            let (frames, _, held) = deframe([&rest[..]]);
            theirs.extend(messages(frames));
            waits = held > 0;
        }
        assert_eq!(ours, theirs, "{name}");
        if !lost && vector["yield"] == false {
            assert_eq!(held, rest.len(), "{name}");
        }
        differences.verdicts(name, &verdict(&theirs, waits, false), &verdict(&ours, held > 0, lost));
    }
    differences.finish();
}

#[test]
fn every_split_gives_the_same_messages() {
    for vector in vectors(FILE)
        .iter()
        .filter(|vector| text(vector, "name").starts_with("deframe_"))
    {
        let bytes = hex_field(vector, "hex");
        let whole = deframe([&bytes[..]]);
        for cut in 0..=bytes.len() {
            assert_eq!(
                deframe([&bytes[..cut], &bytes[cut..]]),
                whole,
                "{}: {cut}",
                vector["name"]
            );
        }
        assert_eq!(deframe(bytes.chunks(1)), whole, "{}", vector["name"]);
    }
}

#[test]
fn framing_of_tunnelled_distribution() {
    let mut compared = 0;
    for vector in &vectors(FILE) {
        let name = text(vector, "name");
        if name.starts_with("macula_dist_parse") {
            let (frames, lost, held) = deframe([&hex_field(vector, "hex")[..]]);
            let ours: Vec<Bytes> = frames
                .into_iter()
                .map(|frame| match frame {
                    Frame::Tick => Bytes::new(),
                    Frame::Message(message) => message,
                })
                .collect();
            assert_eq!((ours, lost), (bytes_of(&vector["messages"]), false), "{name}");
            assert_eq!(held, hex_field(vector, "rest").len(), "{name}");
        } else if name.starts_with("macula_dist_packet4") {
            let mut out = BytesMut::new();
            put_message(&mut out, MAX_MESSAGE, &hex_field(vector, "payload")).expect("below the limit");
            assert_eq!(out, hex_field(vector, "hex"), "{name}");
        } else if name.starts_with("macula_dist_packet2") {
            let payload = hex_field(vector, "payload");
            if let Ok(message) = Handshake::decode(Sender::Acceptor, &payload) {
                assert_eq!(Carrier::Tcp.frame(&message), hex_field(vector, "hex"), "{name}");
            }
        } else {
            continue;
        }
        compared += 1;
    }
    assert_eq!(compared, 11);
}

/// The captured handshake messages of one side.
fn captured(direction: &str) -> Vec<Bytes> {
    let vectors = vectors(FILE);
    let of_side = |vector: &&Json| text(vector, "name").starts_with("hs_") && vector["direction"] == direction;
    vectors
        .iter()
        .filter(of_side)
        .map(|vector| hex_field(vector, "hex"))
        .collect()
}

const DIALLER: &str = "dialer_to_listener";
const ACCEPTOR: &str = "listener_to_dialer";

fn sender(direction: &str) -> Sender {
    if direction == DIALLER {
        Sender::Dialler
    } else {
        Sender::Acceptor
    }
}

#[test]
fn the_captured_handshake_byte_for_byte() {
    let mut kinds = Vec::new();
    for direction in [DIALLER, ACCEPTOR] {
        for bytes in captured(direction) {
            let message = Handshake::decode(sender(direction), &bytes).expect("a message");
            assert_eq!(Carrier::Quic.frame(&message), bytes);
            kinds.push(message.kind());
            if let Handshake::Name(name) = &message {
                assert_eq!((name.name.as_str(), name.creation), ("a@127.0.0.1", 4));
                assert!(
                    name.flags
                        .contains(Flags::MANDATORY_25 | Flags::MANDATORY_26 | Flags::PUBLISHED)
                );
            }
            if let Handshake::Challenge(challenge) = &message {
                assert_eq!((challenge.name.as_str(), challenge.creation), ("b@127.0.0.1", 4));
            }
        }
    }
    assert_eq!(kinds, ["name", "reply", "status", "challenge", "ack"]);
}

#[test]
fn the_captured_digests() {
    let vectors = vectors(FILE);
    let digests = vectors
        .iter()
        .find(|vector| vector["name"] == "hs_digests")
        .expect("the digests");
    let number = |key: &str| u32::try_from(digests[key].as_u64().expect("a number")).expect("32 bits");
    let digest = |challenge: &str| Digest::of(&text(digests, "cookie").into(), number(challenge));
    assert_eq!(
        digest("listener_challenge").as_bytes()[..],
        hex_field(digests, "dialer_digest")
    );
    assert_eq!(
        digest("dialer_challenge").as_bytes()[..],
        hex_field(digests, "listener_digest")
    );
    let [_, reply] = &captured(DIALLER)[..] else {
        panic!("two messages")
    };
    let Ok(Handshake::Reply(reply)) = Handshake::decode(Sender::Dialler, reply) else {
        panic!("a reply")
    };
    assert_eq!(
        (reply.challenge, reply.digest),
        (number("dialer_challenge"), digest("listener_challenge"))
    );
}

#[test]
fn the_captured_handshake_in_all_pieces_with_ticks() {
    for direction in [DIALLER, ACCEPTOR] {
        let from = sender(direction);
        let pieces = captured(direction);
        let expected: Vec<_> = pieces.iter().map(|piece| Handshake::decode(from, piece)).collect();
        for tick in [&[][..], &TICK] {
            let stream = pieces.join(tick);
            for cut in 0..=stream.len() {
                let mut parser = Parser::new(from, Carrier::Quic);
                let mut got = Vec::new();
                for piece in [&stream[..cut], &stream[cut..]] {
                    let mut input = Bytes::copy_from_slice(piece);
                    got.extend(std::iter::from_fn(|| parser.next(&mut input)));
                }
                assert_eq!(got, expected, "{direction} cut at {cut}");
            }
        }
    }
}

fn describe(message: &Message) -> String {
    let control = message.control.to_term();
    match &message.payload {
        Some(payload) => format!("{control} {payload}"),
        None => control.to_string(),
    }
}

#[test]
fn the_captured_messages() {
    let mut seen = Vec::new();
    for direction in [DIALLER, ACCEPTOR] {
        let mut framing = MessageFraming::new(MAX_MESSAGE);
        let mut decoder = MessageDecoder::new(DecodeLimits::DEFAULT, FragmentLimits::default(), MAX_MESSAGE);
        for vector in &vectors(FILE) {
            let on_data_stream = vector["stream"] == 13 || vector["stream"] == 16;
            if !on_data_stream || vector["direction"] != direction {
                continue;
            }
            let mut input = hex_field(vector, "hex");
            let Some(Ok(Frame::Message(bytes))) = framing.next(&mut input) else {
                panic!("{vector}")
            };
            assert!(input.is_empty());
            let message = decoder
                .decode(&bytes)
                .expect("a good message")
                .expect("a complete message");
            for form in [Form::PassThrough, Form::Header] {
                let mut again = BytesMut::new();
                encode_message(&message, form, &mut again).expect("encodes");
                let mut fresh = MessageDecoder::new(DecodeLimits::DEFAULT, FragmentLimits::default(), MAX_MESSAGE);
                assert_eq!(fresh.decode(&again.freeze()), Ok(Some(message.clone())), "{vector}");
            }
            seen.push(format!("{} {}", &text(vector, "name")[..7], describe(&message)));
        }
    }
    assert_eq!(seen.len(), 30);
    seen.sort();
    let listed: Vec<&str> = include_str!("dist_messages.txt").lines().collect();
    assert_eq!(seen, listed);
}

#[test]
fn captured_ticks() {
    let mut ticks = 0;
    for vector in vectors(FILE)
        .iter()
        .filter(|vector| text(vector, "name").starts_with("tick_"))
    {
        assert_eq!(hex_field(vector, "hex"), TICK[..]);
        ticks += 1;
    }
    assert_eq!(ticks, 4);
}

#[test]
fn streams_are_where_the_deployed_node_has_them() {
    let vectors = vectors(FILE);
    let named = |name: &str| {
        vectors
            .iter()
            .find(|vector| vector["name"] == name)
            .expect("the vector")
    };
    let layout = named("stream_layout");
    for (side, of_side) in [(Side::Client, "client"), (Side::Server, "server")] {
        let data = &layout[format!("{of_side}_data_streams")];
        assert_eq!(
            data["opened_in_order"],
            serde_json::json!(Slot::ALL.map(|slot| slot.stream_id(side)))
        );
        assert_eq!(data["carries_all_distribution_data"], Slot::SINGLE.stream_id(side));
        assert_eq!(data["urgency"], streams::DATA_URGENCY);
        let first = layout["user_streams"][format!("{of_side}_first")]
            .as_u64()
            .expect("an id");
        assert_eq!(StreamClass::of(first), StreamClass::User(side));
        assert_ne!(StreamClass::of(first - 4), StreamClass::User(side));
    }
    let control = &layout["control_stream"];
    assert_eq!(
        StreamClass::of(control["id"].as_u64().expect("an id")),
        StreamClass::Control
    );
    assert_eq!(control["urgency"], streams::CONTROL_URGENCY);
    let user = &layout["user_streams"];
    assert_eq!(user["default_urgency"], streams::DEFAULT_USER_URGENCY);
    assert_eq!(user["min_urgency"], *streams::USER_URGENCY.start());
    assert_eq!(user["max_urgency"], *streams::USER_URGENCY.end());
    assert_eq!(user["refused_error_code"], macula_proto::Code::REFUSED.get());
    for class in named("user_stream_classification")["classes"]
        .as_array()
        .expect("classes")
    {
        let id = class["stream_id"].as_u64().expect("an id");
        assert_eq!(
            matches!(StreamClass::of(id), StreamClass::User(_)),
            class["user"] == true,
            "{id}"
        );
    }
}
