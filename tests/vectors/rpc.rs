//! `rpc_frames.json`: messages both ways, byte for byte wherever deployed peers have one way to write them, and the deployed
//! verdict on odd and bad ones.

use crate::common::differences::Differences;
use crate::common::tagged::{from_json, hex_field, meaning};
use crate::common::{text, vectors};
use bytes::{Bytes, BytesMut};
use macula_proto::wire::rpc::{Chunk, Decoder, Fault, Kind, Message, Outcome, RpcError, StreamData, encode_data_head};
use macula_proto::wire::{DecodeLimits, Encoding, Value};
use serde_json::Value as Json;

const FILE: &str = "rpc_frames.json";

/// Messages that deployed encoders were given with the other kind of keys, or in another order, than deployed clients use.
const WRITTEN_OTHERWISE: [&str; 4] = [
    "cbor_connect_binary_keys_identity",
    "cbor_pong_binary_keys",
    "cbor_publish_retain_qos1",
    // A client writes the empty list as a list, where Erlang's MessagePack makes an empty `str` of it.
    "msgpack_subscribe_none",
];
/// The same in MessagePack, where only the order differs.
const ORDERED_OTHERWISE: [&str; 3] = [
    "msgpack_connect_binary_keys_identity",
    "msgpack_pong_binary_keys",
    "msgpack_publish_retain_qos1",
];

fn encoding_of(name: &str) -> Encoding {
    if name.starts_with("cbor_") {
        Encoding::Cbor
    } else {
        Encoding::MessagePack
    }
}

fn encode(message: &Message, encoding: Encoding) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(encoding, &mut out).expect("encodes");
    out.freeze()
}

/// What came out of a stream of bytes.
#[derive(Debug, PartialEq)]
struct Decoded {
    messages: Vec<Result<(Message, Encoding), RpcError>>,
    buffered: usize,
}

fn decode_pieces(pieces: impl IntoIterator<Item = Bytes>) -> Decoded {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(message) = decoder.next() {
            messages.push(message.map_err(|bad| bad.error));
        }
    }
    let buffered = decoder.buffered();
    Decoded { messages, buffered }
}

fn decode(bytes: Bytes) -> Message {
    let mut decoded = decode_pieces([bytes]);
    assert_eq!((decoded.messages.len(), decoded.buffered), (1, 0));
    decoded.messages.remove(0).expect("decodes").0
}

/// The fields of a message, as a generic decoder sees them once the message is written again.
fn fields_of(message: &Message, encoding: Encoding) -> Value {
    let payload = encode(message, encoding).slice(8..);
    meaning(&encoding.decode(&payload, &DecodeLimits::DEFAULT).expect("well-formed"))
}

/// Empty lists that Erlang's MessagePack turned into empty text, as the deployed decoder hands them on.
fn with_empty_lists(value: Value) -> Value {
    match value {
        Value::Map(entries) => {
            let entry = |(key, value): (Value, Value)| match (key.as_string(), value) {
                (Some(name), Value::Bytes(list)) if name == "topics" && list.is_empty() => (key, Value::Array(vec![])),
                (_, value) => (key, value),
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
        other => other,
    }
}

#[test]
fn messages_mean_the_same_and_are_written_the_same() {
    let (mut compared, mut identical) = (0, 0);
    for vector in vectors(FILE).iter().filter(|vector| !vector["value"].is_null()) {
        let name = text(vector, "name");
        let bytes = hex_field(vector, "hex");
        let encoding = encoding_of(name);
        let message = decode(bytes.clone());
        assert_eq!(message.kind().as_str(), text(vector, "type"), "{name}");
        let expected = with_empty_lists(meaning(&from_json(&vector["value"])));
        assert_eq!(fields_of(&message, encoding), expected, "{name}");
        let again = encode(&message, encoding);
        assert_eq!(decode(again.clone()), message, "{name}");
        if WRITTEN_OTHERWISE.contains(&name) || ORDERED_OTHERWISE.contains(&name) {
            assert_ne!(again, bytes, "{name}: need not be listed");
        } else {
            assert_eq!(again, bytes, "{name}");
            identical += 1;
        }
        compared += 1;
    }
    assert_eq!((compared, identical), (68, 61));
}

#[test]
fn messages_mean_the_same_in_the_other_encoding() {
    for vector in vectors(FILE).iter().filter(|vector| !vector["value"].is_null()) {
        let name = text(vector, "name");
        let message = decode(hex_field(vector, "hex"));
        for encoding in [Encoding::MessagePack, Encoding::Cbor] {
            assert_eq!(decode(encode(&message, encoding)), message, "{name}");
        }
    }
}

#[test]
fn a_chunk_behind_its_head_is_the_vector() {
    let mut compared = 0;
    for vector in vectors(FILE).iter().filter(|vector| vector["type"] == "stream_data") {
        let name = text(vector, "name");
        let bytes = hex_field(vector, "hex");
        let Message::StreamData(StreamData { stream, seq, chunk }) = decode(bytes.clone()) else {
            panic!("{name}: not data");
        };
        assert_eq!(matches!(chunk, Chunk::Raw(_)), name.contains("raw"), "{name}");
        if let Chunk::Raw(body) = chunk {
            let mut head = BytesMut::new();
            encode_data_head(stream, seq, body.len(), encoding_of(name), &mut head).expect("fits");
            head.extend_from_slice(&body);
            assert_eq!(head, bytes, "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}

#[test]
fn errors_are_faults() {
    for prefix in ["cbor", "msgpack"] {
        let find = |name: &str| {
            let name = format!("{prefix}_{name}");
            let vectors = vectors(FILE);
            let vector = vectors.iter().find(|vector| vector["name"] == name.as_str());
            decode(hex_field(vector.expect("a vector"), "hex"))
        };
        let outcome = |message| match message {
            Message::Reply(reply) => reply.outcome,
            Message::StreamReply { outcome, .. } => outcome,
            other => panic!("no reply: {other:?}"),
        };
        assert_eq!(
            outcome(find("reply_not_found")),
            Outcome::Err(Fault::from_code("not_found"))
        );
        let expected = Fault::new("handler_error", "badarg");
        assert_eq!(outcome(find("reply_handler_error")), Outcome::Err(expected));
        assert_eq!(
            outcome(find("stream_reply_error")),
            Outcome::Err(Fault::new("error", "oops"))
        );
        assert_eq!(outcome(find("stream_reply_result")), Outcome::Ok(Value::Uint(42)));
        let Message::StreamError { fault, .. } = find("stream_error") else {
            panic!("no error");
        };
        assert_eq!(fault, Fault::new("not_found", "procedure not advertised"));
    }
}

#[test]
fn verdicts_differ_only_as_listed() {
    let mut differences = Differences::of(FILE);
    for vector in &vectors(FILE) {
        let name = text(vector, "name");
        let ours = our_verdict(&decode_pieces([hex_field(vector, "hex")]));
        differences.verdicts(name, &their_verdict(vector), &ours);
    }
    differences.finish();
}

/// The deployed verdict in the words of the table. The deployed decoder is given one buffer, waits when it is not complete,
/// and ignores what follows.
fn their_verdict(vector: &Json) -> String {
    let kind = || text(vector, "type").to_owned();
    let Some(verdict) = vector["verdict"].as_str() else {
        return kind();
    };
    match verdict.strip_prefix("error:") {
        None => kind(),
        Some("invalid_header" | "incomplete_payload") => "waits".to_owned(),
        Some(error) if error.starts_with("{unsupported_version") => "other version".to_owned(),
        Some(error) if error.starts_with("{unknown_type") => "unknown type".to_owned(),
        Some(_) => "bad payload".to_owned(),
    }
}

fn our_verdict(ours: &Decoded) -> String {
    match ours.messages.first() {
        None => "waits".to_owned(),
        Some(Ok((message, _))) => message.kind().to_string(),
        Some(Err(RpcError::Version(_))) => "other version".to_owned(),
        Some(Err(RpcError::UnknownType(_))) => "unknown type".to_owned(),
        Some(Err(RpcError::TooLarge(_))) => "stream lost".to_owned(),
        Some(Err(RpcError::Missing(field))) => format!("{field} is missing"),
        Some(Err(_)) => "bad payload".to_owned(),
    }
}

#[test]
fn every_split_gives_the_same_messages() {
    for vector in &vectors(FILE) {
        let name = text(vector, "name");
        let bytes = hex_field(vector, "hex");
        let whole = decode_pieces([bytes.clone()]);
        for split in 0..=bytes.len() {
            let pieces = [bytes.slice(..split), bytes.slice(split..)];
            assert_eq!(decode_pieces(pieces), whole, "{name} split at {split}");
        }
        let pieces = (0..bytes.len()).map(|at| bytes.slice(at..=at));
        assert_eq!(decode_pieces(pieces), whole, "{name} byte by byte");
    }
}

#[test]
fn all_messages_of_one_stream_come_out_in_their_order() {
    let vectors = vectors(FILE);
    let good: Vec<&Json> = vectors.iter().filter(|vector| !vector["value"].is_null()).collect();
    let all: Vec<u8> = good.iter().flat_map(|vector| hex_field(vector, "hex")).collect();
    let all = Bytes::from(all);
    for size in [7, 1200, 65_536, all.len()] {
        let pieces = (0..all.len())
            .step_by(size)
            .map(|at| all.slice(at..all.len().min(at + size)));
        let decoded = decode_pieces(pieces);
        assert_eq!(decoded.buffered, 0);
        let kinds: Vec<&str> = decoded
            .messages
            .iter()
            .map(|message| kind_of(message).as_str())
            .collect();
        let expected: Vec<&str> = good.iter().map(|vector| text(vector, "type")).collect();
        assert_eq!(kinds, expected, "in pieces of {size}");
    }
}

fn kind_of(message: &Result<(Message, Encoding), RpcError>) -> Kind {
    message.as_ref().expect("a message").0.kind()
}
