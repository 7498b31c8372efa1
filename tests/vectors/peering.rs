//! `peering_frames.json` and `peering_reject.json`: every type of frame both ways, and whole buffers with the deployed verdict.

use crate::common::differences::Differences;
use crate::common::tagged::{from_json, hex_field, meaning};
use crate::common::{text, vectors};
use bytes::{Bytes, BytesMut};
use macula_proto::identity::{Domain, Identity, NodeId, PublicKey};
use macula_proto::wire::frame::{
    Body, DecodedFrame, ErrorCode, FrameEncodeError, FrameError, FrameParser, SwimUpdate, VerifyError,
};
use macula_proto::wire::{DecodeLimits, Value, cbor};
use serde_json::Value as Json;
use std::collections::BTreeSet;

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

fn identity(vector: &Json) -> Identity {
    let seed = hex_field(vector, "secret_key");
    Identity::from_seed(seed.as_ref().try_into().expect("32 bytes"))
}

fn key(vector: &Json, field: &str) -> Option<PublicKey> {
    let id = hex_field(vector, field);
    PublicKey::new(&NodeId::from_bytes(id.as_ref().try_into().expect("32 bytes")))
}

/// The vectors that are whole frames; the others are lone SWIM updates and records.
fn frames() -> Vec<Json> {
    let mut frames = vectors("peering_frames.json");
    frames.retain(|vector| !vector["value"]["map"].is_null() && hex_field(vector, "hex")[0] == 0);
    assert_eq!(frames.len(), 145);
    frames
}

#[test]
fn every_frame_is_read_written_and_signed_to_the_byte() {
    let mut types = BTreeSet::new();
    for vector in frames() {
        let name = text(&vector, "name");
        let bytes = hex_field(&vector, "hex");
        let DecodedFrame { raw, frame } = DecodedFrame::decode(bytes.slice(4..), &LIMITS).expect("a frame");
        assert!(!matches!(frame.body, Body::Unknown(_)), "{name}: {frame:?}");
        assert_eq!(frame.extra, [], "{name}");
        assert_eq!(frame.header.version, 2, "{name}");
        types.insert(frame.frame_type().to_owned());

        assert_eq!(raw.to_wire(), bytes, "{name}");
        assert_eq!(raw.signing_input(), hex_field(&vector, "signing_input"), "{name}");
        assert_eq!(
            raw.signature().expect("signed")[..],
            hex_field(&vector, "signature")[..],
            "{name}"
        );

        // Through the ordered value codec.
        let value = from_json(&vector["value"]);
        assert_eq!(cbor::det::decode(raw.payload(), &LIMITS).as_ref(), Ok(&value), "{name}");
        let mut out = BytesMut::new();
        cbor::det::encode(&value, &mut out).expect("encodes");
        assert_eq!(out, raw.payload(), "{name}");

        // From the typed frame, signed anew.
        let signed = frame.sign(&identity(&vector));
        if name.starts_with("quirk_text_undefined") {
            assert_eq!(signed, Err(FrameEncodeError::Undefined), "{name}");
        } else {
            assert_eq!(signed, Ok(raw.clone()), "{name}");
            let unsigned = frame.encode_unsigned().expect("encodes");
            assert_eq!(
                unsigned.verify(&key(&vector, "public_key").expect("a key")),
                Err(VerifyError::Unsigned)
            );
            assert_eq!(unsigned.signed(&identity(&vector)), Ok(raw), "{name}");
        }
        if let Body::CallError(error) = &frame.body {
            assert_eq!(error.code.name(), error.name.to_str(), "{name}");
        }
        for update in piggyback(&frame.body) {
            assert_eq!(update.verify(), Ok(()), "{name}");
        }
    }
    let known: BTreeSet<_> = Body::TYPES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(types, known, "every type is in the vectors");
    assert_eq!(ErrorCode(16).name(), None);
}

fn piggyback(body: &Body) -> &[SwimUpdate] {
    match body {
        Body::SwimPing(ping) => &ping.piggyback,
        Body::SwimAck(ack) => &ack.piggyback,
        _ => &[],
    }
}

#[test]
fn signatures_of_frames_differ_only_as_listed() {
    let mut differences = Differences::of("peering_frames.json");
    for vector in frames() {
        let decoded = DecodedFrame::decode(hex_field(&vector, "hex").slice(4..), &LIMITS).expect("a frame");
        let ours = verdict(decoded.raw.verify(&key(&vector, "public_key").expect("a key")));
        differences.verdicts(text(&vector, "name"), text(&vector, "verify"), ours);
    }
    differences.finish();
}

fn verdict(verified: Result<(), VerifyError>) -> &'static str {
    match verified {
        Ok(()) => "ok",
        Err(VerifyError::Unsigned | VerifyError::Malformed) => "error:bad_frame",
        Err(_) => "error:signature_invalid",
    }
}

#[test]
fn lone_swim_updates_and_records() {
    let mut compared = 0;
    for vector in vectors("peering_frames.json") {
        let name = text(&vector, "name");
        let bytes = hex_field(&vector, "hex");
        let (input, signature) = (hex_field(&vector, "signing_input"), hex_field(&vector, "signature"));
        let domain = if name.starts_with("swim_update_") {
            Domain::SwimUpdate
        } else if name.starts_with("record_") {
            Domain::Record
        } else {
            continue;
        };
        compared += 1;
        let message = input.strip_prefix(domain.prefix()).expect("its domain");
        assert_eq!(identity(&vector).sign(domain, message)[..], signature[..], "{name}");
        let key = key(&vector, "public_key").expect("a key");
        assert_eq!(key.verify(domain, message, &signature), Ok(()), "{name}");
        if domain == Domain::SwimUpdate {
            let mut update = lone_update(&bytes);
            assert_eq!(update.verify(), Ok(()), "{name}");
            assert_eq!(update.encode().as_ref(), Ok(&bytes), "{name}");
            update.signature = None;
            assert_eq!(update.verify(), Err(VerifyError::Unsigned), "{name}");
            update.sign(&identity(&vector)).expect("signs");
            assert_eq!(update.encode().as_ref(), Ok(&bytes), "{name}");
            update.incarnation += 1;
            assert_eq!(update.verify(), Err(VerifyError::Bad), "{name}");
        }
    }
    assert_eq!(compared, 6);
}

/// Reads a lone update as one that came in the piggyback of a ping.
fn lone_update(bytes: &Bytes) -> SwimUpdate {
    SwimUpdate::decode(bytes, &LIMITS).expect("an update")
}

/// What comes out of a stream of bytes: frames and errors in order, and how much is held back.
#[derive(Debug, PartialEq)]
struct Outcome {
    frames: Vec<Result<DecodedFrame, FrameError>>,
    buffered: usize,
}

fn parse(pieces: impl IntoIterator<Item = Bytes>) -> Outcome {
    let mut parser = FrameParser::default();
    let mut frames = Vec::new();
    for mut piece in pieces {
        while let Some(frame) = parser.next(&mut piece) {
            frames.push(frame);
        }
        assert!(piece.is_empty(), "input left over without a frame");
    }
    Outcome {
        frames,
        buffered: parser.buffered(),
    }
}

/// The deployed verdict on a buffer, as a list of what came out of it.
fn theirs(vector: &Json) -> String {
    match text(vector, "verdict") {
        "more" => "waits".to_owned(),
        "ok" => {
            let verify = match text(vector, "verify") {
                crash if crash.starts_with("crash:") => "crash",
                verdict => verdict,
            };
            format!("frame, verify {verify}")
        }
        "parse_stream" => {
            let frames = vector["frames"].as_array().expect("frames");
            let mut out: Vec<_> = frames
                .iter()
                .map(|frame| frame.as_str().expect("a type").to_owned())
                .collect();
            if !text(vector, "rest").is_empty() {
                out.push("waits".to_owned());
            }
            out.join(", ")
        }
        crash if crash.starts_with("crash:") => "crash".to_owned(),
        error => error.to_owned(),
    }
}

fn ours(vector: &Json, outcome: &Outcome) -> String {
    let single = text(vector, "verdict") != "parse_stream" && !text(vector, "name").starts_with("parse_");
    let mut out = Vec::new();
    for frame in &outcome.frames {
        match frame {
            Ok(frame) if single => {
                let meant = meaning(&Value::Map(fields(frame)));
                let decoded = &vector["decoded"];
                let same = decoded.is_null() || decoded.is_string() || meant == meaning(&from_json(decoded));
                let what = if same { "frame" } else { "another frame" };
                let verified = match vector["verify_public_key"].is_null() {
                    true => Err(VerifyError::Unsigned),
                    false => match key(vector, "verify_public_key") {
                        Some(key) => frame.raw.verify(&key),
                        None => Err(frame
                            .raw
                            .signature()
                            .map_or(VerifyError::Unsigned, |_| VerifyError::Bad)),
                    },
                };
                out.push(format!("{what}, verify {}", verdict(verified)));
            }
            Ok(frame) if frame.frame.frame_type().is_empty() => out.push("frame without type".to_owned()),
            Ok(frame) => out.push(frame.frame.frame_type().to_owned()),
            Err(error) => out.push(format!("error:{}", error.name())),
        }
        if single {
            // The vector is about the first frame; what the deployed decoder leaves in the buffer is not looked at.
            return out.join(", ");
        }
    }
    if outcome.buffered > 0 || outcome.frames.is_empty() && single {
        out.push("waits".to_owned());
    }
    out.join(", ")
}

/// All entries of a frame, its signature included.
fn fields(frame: &DecodedFrame) -> Vec<(Value, Value)> {
    match cbor::det::decode(frame.raw.payload(), &LIMITS) {
        Ok(Value::Map(fields)) => fields,
        other => panic!("{other:?}"),
    }
}

#[test]
fn verdicts_on_odd_input_differ_only_as_listed() {
    let mut differences = Differences::of("peering_reject.json");
    for vector in &vectors("peering_reject.json") {
        let outcome = parse([hex_field(vector, "hex")]);
        differences.verdicts(text(vector, "name"), &theirs(vector), &ours(vector, &outcome));
    }
    differences.finish();
}

#[test]
fn every_split_gives_the_same_frames() {
    let all = vectors("peering_reject.json").into_iter().chain(frames());
    for vector in all {
        let name = text(&vector, "name");
        let bytes = hex_field(&vector, "hex");
        let whole = parse([bytes.clone()]);
        for split in 0..=bytes.len() {
            let pieces = [bytes.slice(..split), bytes.slice(split..)];
            assert_eq!(parse(pieces), whole, "{name} split at {split}");
        }
        assert_eq!(
            parse((0..bytes.len()).map(|at| bytes.slice(at..=at))),
            whole,
            "{name} byte by byte"
        );
    }
}

#[test]
fn an_absurd_length_is_refused_with_its_fourth_byte() {
    let mut parser = FrameParser::default();
    for byte in [1, 0, 0] {
        assert_eq!(parser.next(&mut Bytes::copy_from_slice(&[byte])), None);
    }
    let refused = parser.next(&mut Bytes::from_static(&[0]));
    assert!(matches!(refused, Some(Err(FrameError::TooLarge(_)))), "{refused:?}");
    assert_eq!(
        parser.next(&mut Bytes::from_static(&[0, 0, 0, 1, 0xA0])),
        None,
        "nothing after it"
    );
}
