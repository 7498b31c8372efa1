//! `relay_control.json`: single messages both ways byte for byte, and whole buffers with the deployed verdict.

use crate::common::differences::Differences;
use crate::common::tagged::{from_json, hex_field};
use crate::common::{text, vectors};
use bytes::{Bytes, BytesMut};
use macula_proto::wire::control::{Decoder, Message, Reason, TunnelId};
use macula_proto::wire::framing::LengthPrefixed;
use macula_proto::wire::{DecodeLimits, Encoding, Value};
use serde_json::Value as Json;

const FILE: &str = "relay_control.json";
const MAX_PAYLOAD: u32 = 4096;

fn encoding_of(name: &str) -> Encoding {
    if name.starts_with("cbor_") {
        Encoding::Cbor
    } else {
        Encoding::MessagePack
    }
}

fn string(json: &Json, key: &str) -> Bytes {
    from_json(&json[key]).as_string().expect("a string").clone()
}

/// The message a vector describes; `None` when a field is no string, as only deployed decoders take it.
fn message_of(json: &Json) -> Option<Message> {
    let string_of = |key: &str| Some(from_json(&json[key]).as_string()?.clone());
    let tunnel = || TunnelId::try_from(string(json, "tunnel_id").as_ref()).expect("32 bytes");
    Some(match text(json, "type") {
        "identify" => Message::Identify {
            name: string_of("node_name")?.into(),
        },
        "identified" => {
            assert_eq!(text(json, "status"), "ok");
            Message::Identified
        }
        "tunnel_request" => Message::TunnelRequest {
            target: string_of("target")?.into(),
        },
        "tunnel_ok" => Message::TunnelOk { tunnel: tunnel() },
        "tunnel_error" => Message::TunnelError {
            reason: Reason::new(string_of("reason")?),
        },
        "tunnel_notify" => Message::TunnelNotify {
            tunnel: tunnel(),
            source: string_of("source")?.into(),
        },
        "tunnel_close" => Message::TunnelClose { tunnel: tunnel() },
        other => panic!("unknown type {other}"),
    })
}

/// What came out of a stream of bytes: messages, and how the stream was left.
#[derive(Debug, PartialEq)]
struct Outcome {
    messages: Vec<(Encoding, Message)>,
    errors: usize,
    lost: bool,
    buffered: usize,
}

fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(MAX_PAYLOAD as usize);
    let mut outcome = Outcome {
        messages: Vec::new(),
        errors: 0,
        lost: false,
        buffered: 0,
    };
    for piece in pieces {
        decoder.push(piece);
        while let Some(result) = decoder.next() {
            match result {
                Ok(message) => outcome.messages.push(message),
                Err(error) => {
                    outcome.errors += 1;
                    outcome.lost |= error.is_fatal();
                }
            }
        }
    }
    outcome.buffered = decoder.buffered();
    outcome
}

fn frames(pieces: &[Bytes]) -> Vec<Result<Bytes, u32>> {
    let mut framing = LengthPrefixed::new(MAX_PAYLOAD);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut piece = piece.clone();
        while let Some(frame) = framing.next(&mut piece) {
            frames.push(frame.map_err(|error| error.length));
        }
        assert!(piece.is_empty(), "input left over without a frame");
    }
    frames
}

/// The words of the difference table for a list of messages and the state of the stream behind them.
fn verdict(messages: &[String], state: &str) -> String {
    let messages = match messages {
        [] => "nothing".to_owned(),
        messages => messages.join(", "),
    };
    format!("{messages}{state}")
}

fn describe(kind: &str, fields: &[&[u8]]) -> String {
    let shorten = |field: &&[u8]| {
        let field = field.escape_ascii().to_string();
        if field.len() > 24 {
            format!("{}…", &field[..24])
        } else {
            field
        }
    };
    let fields: Vec<String> = fields.iter().map(shorten).collect();
    format!("{kind}({})", fields.join(", "))
}

fn describe_ours(message: &Message) -> String {
    let fields: &[&[u8]] = match message {
        Message::Identify { name } => &[name],
        Message::Identified => &[],
        Message::TunnelRequest { target } => &[target],
        Message::TunnelOk { tunnel } | Message::TunnelClose { tunnel } => &[tunnel.as_bytes()],
        Message::TunnelError { reason } => &[reason.as_bytes()],
        Message::TunnelNotify { tunnel, source } => &[tunnel.as_bytes(), source],
    };
    describe(message.kind(), fields)
}

fn describe_theirs(json: &Json) -> String {
    message_of(json).map_or_else(
        || format!("{}({})", text(json, "type"), json["node_name"]),
        |message| describe_ours(&message),
    )
}

#[test]
fn single_messages_byte_for_byte() {
    let mut compared = 0;
    for vector in vectors(FILE).iter().filter(|vector| !vector["message"].is_null()) {
        let name = text(vector, "name");
        let bytes = hex_field(vector, "hex");
        let encoding = encoding_of(name);
        let expected = message_of(&vector["message"]).expect("strings");
        assert_eq!(Message::decode(&bytes[4..]), Ok((encoding, expected.clone())), "{name}");
        let mut out = BytesMut::new();
        expected.encode(encoding, &mut out);
        if name.starts_with("msgpack_str_") {
            // The same message with `str`, which deployed peers do not understand: read, but never written.
            assert_ne!(out, bytes, "{name}");
        } else {
            assert_eq!(out, bytes, "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 39);
}

#[test]
fn single_messages_through_the_value_codec() {
    for vector in vectors(FILE).iter().filter(|vector| !vector["value"].is_null()) {
        let name = text(vector, "name");
        let payload = hex_field(vector, "hex").slice(4..);
        let encoding = encoding_of(name);
        let value: Value = from_json(&vector["value"]);
        assert_eq!(
            encoding.decode(&payload, &DecodeLimits::DEFAULT).as_ref(),
            Ok(&value),
            "{name}"
        );
        let mut out = BytesMut::new();
        encoding.encode(&value, &mut out).expect("encodes");
        assert_eq!(out, payload, "{name}");
    }
}

#[test]
fn verdicts_differ_only_as_listed() {
    let mut differences = Differences::of(FILE);
    for vector in &vectors(FILE) {
        let name = text(vector, "name");
        let bytes = hex_field(vector, "hex");
        let ours = decode_pieces([&bytes[..]]);
        assert!(ours.messages.iter().all(|(encoding, _)| *encoding == encoding_of(name)));
        let ours_waits = match (ours.lost, ours.buffered) {
            (true, _) => ", stream lost",
            (false, 0) => "",
            (false, _) => ", waits",
        };
        let messages: Vec<String> = ours
            .messages
            .iter()
            .map(|(_, message)| describe_ours(message))
            .collect();
        let ours = verdict(&messages, ours_waits);
        let theirs = match vector["messages"].as_array() {
            Some(messages) => {
                let messages: Vec<String> = messages.iter().map(describe_theirs).collect();
                let waits = if text(vector, "rest").is_empty() { "" } else { ", waits" };
                verdict(&messages, waits)
            }
            None if vector["real_decoder"] == "skipped" => verdict(&[], ""),
            None => verdict(&[describe_theirs(&vector["message"])], ""),
        };
        differences.verdicts(name, &theirs, &ours);
    }
    differences.finish();
}

#[test]
fn the_rest_of_a_buffer_stays_buffered() {
    for vector in vectors(FILE).iter().filter(|vector| !vector["messages"].is_null()) {
        let bytes = hex_field(vector, "hex");
        let ours = decode_pieces([&bytes[..]]);
        if !ours.lost {
            assert_eq!(ours.buffered, hex_field(vector, "rest").len(), "{}", vector["name"]);
        }
    }
}

#[test]
fn every_split_gives_the_same_messages() {
    for vector in &vectors(FILE) {
        let name = text(vector, "name");
        let bytes = hex_field(vector, "hex");
        let whole = decode_pieces([&bytes[..]]);
        let whole_frames = frames(std::slice::from_ref(&bytes));
        for split in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(split);
            assert_eq!(decode_pieces([head, tail]), whole, "{name} split at {split}");
            let pieces = [bytes.slice(..split), bytes.slice(split..)];
            assert_eq!(frames(&pieces), whole_frames, "{name} split at {split}");
        }
        assert_eq!(decode_pieces(bytes.chunks(1)), whole, "{name} byte by byte");
        let pieces: Vec<Bytes> = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
        assert_eq!(frames(&pieces), whole_frames, "{name} byte by byte");
    }
}
