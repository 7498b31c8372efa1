//! `cbor.json` and `cbor_nif.json`: deterministic and ordinary CBOR.

use crate::common::differences::Differences;
use crate::common::tagged::{from_json, hex_field, meaning};
use crate::common::{text, vectors};
use bytes::BytesMut;
use macula_proto::wire::{DecodeError, DecodeLimits, Value, cbor};
use serde_json::Value as Json;

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

fn theirs(vector: &Json) -> &'static str {
    match text(vector, "verdict") {
        "ok" => "taken",
        verdict => {
            assert!(
                verdict.starts_with("error:") || verdict.starts_with("crash:"),
                "{verdict}"
            );
            "refused"
        }
    }
}

fn ours(decoded: &Result<Value, DecodeError>, vector: &Json) -> &'static str {
    match decoded {
        Err(_) => "refused",
        Ok(_) if vector["decoded"].is_null() => "taken",
        Ok(value) if meaning(value) == meaning(&from_json(&vector["decoded"])) => "taken",
        Ok(_) => "taken as another value",
    }
}

fn of_direction(file: &str, direction: &str) -> Vec<Json> {
    let mut vectors = vectors(file);
    vectors.retain(|vector| vector["direction"] == direction);
    assert!(!vectors.is_empty());
    vectors
}

#[test]
fn deterministic_values_both_ways() {
    for vector in of_direction("cbor.json", "encode") {
        let name = text(&vector, "name");
        let bytes = hex_field(&vector, "hex");
        let value = from_json(&vector["value"]);
        assert_eq!(cbor::det::decode(&bytes, &LIMITS).as_ref(), Ok(&value), "{name}");
        let mut out = BytesMut::new();
        cbor::det::encode(&value, &mut out).expect("encodes");
        assert_eq!(out, bytes, "{name}");
    }
}

#[test]
fn deterministic_maps_are_sorted_whatever_their_order() {
    for vector in of_direction("cbor.json", "encode") {
        let Value::Map(mut entries) = from_json(&vector["value"]) else {
            continue;
        };
        entries.reverse();
        let mut out = BytesMut::new();
        cbor::det::encode(&Value::Map(entries), &mut out).expect("encodes");
        assert_eq!(out, hex_field(&vector, "hex"), "{}", vector["name"]);
    }
}

#[test]
fn deterministic_verdicts_differ_only_as_listed() {
    let mut differences = Differences::of("cbor.json");
    for vector in of_direction("cbor.json", "decode") {
        let decoded = cbor::det::decode(&hex_field(&vector, "hex"), &LIMITS);
        differences.verdicts(text(&vector, "name"), theirs(&vector), ours(&decoded, &vector));
    }
    differences.finish();
}

#[test]
fn ordinary_values_both_ways() {
    for vector in of_direction("cbor_nif.json", "encode") {
        let name = text(&vector, "name");
        let bytes = hex_field(&vector, "hex");
        let value = from_json(&vector["value"]);
        let mut out = BytesMut::new();
        cbor::encode(&value, &mut out).expect("encodes");
        assert_eq!(out, bytes, "{name}");
        let decoded = cbor::decode(&bytes, &LIMITS).expect("decodes");
        assert_eq!(decoded, value, "{name}");
        assert_eq!(meaning(&decoded), meaning(&from_json(&vector["decoded"])), "{name}");
    }
}

#[test]
fn ordinary_verdicts_differ_only_as_listed() {
    let mut differences = Differences::of("cbor_nif.json");
    for vector in of_direction("cbor_nif.json", "decode") {
        let decoded = cbor::decode(&hex_field(&vector, "hex"), &LIMITS);
        differences.verdicts(text(&vector, "name"), theirs(&vector), ours(&decoded, &vector));
    }
    differences.finish();
}

#[test]
fn a_prefix_can_be_read_where_more_follows() {
    let bytes = bytes::Bytes::from_static(&[0x01, 0x02]);
    assert_eq!(cbor::decode_prefix(&bytes, &LIMITS), Ok((Value::Uint(1), 1)));
}
