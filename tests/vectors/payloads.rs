//! The values inside messages of other vector files, through the value codecs.

use crate::common::tagged::{from_json, hex_field};
use crate::common::{text, vectors};
use bytes::BytesMut;
use macula_proto::wire::cbor::det;
use macula_proto::wire::{DecodeLimits, Encoding, Value};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;

#[test]
fn rpc_payloads_both_ways() {
    const HEADER: usize = 8;
    let mut compared = 0;
    for vector in vectors("rpc_frames.json")
        .iter()
        .filter(|vector| !vector["value"].is_null())
    {
        let name = text(vector, "name");
        let payload = hex_field(vector, "hex").slice(HEADER..);
        let encoding = Encoding::detect(payload[0]).expect("a map");
        let expected = if name.starts_with("cbor_") {
            Encoding::Cbor
        } else {
            Encoding::MessagePack
        };
        assert_eq!(encoding, expected, "{name}");
        let value = from_json(&vector["value"]);
        assert_eq!(encoding.decode(&payload, &LIMITS).as_ref(), Ok(&value), "{name}");
        let mut out = BytesMut::new();
        encoding.encode(&value, &mut out).expect("encodes");
        assert_eq!(out, payload, "{name}");
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn peering_frames_both_ways() {
    let mut compared = 0;
    for vector in vectors("peering_frames.json") {
        let name = text(&vector, "name");
        let bytes = hex_field(&vector, "hex");
        // Records and lone SWIM updates have no length in front.
        let prefix = u32::try_from(bytes.len() - 4).expect("small").to_be_bytes();
        let map = if bytes.starts_with(&prefix) {
            bytes.slice(4..)
        } else {
            bytes
        };
        let value = from_json(&vector["value"]);
        assert_eq!(det::decode(&map, &LIMITS).as_ref(), Ok(&value), "{name}");
        let mut out = BytesMut::new();
        det::encode(&value, &mut out).expect("encodes");
        assert_eq!(out, map, "{name}");
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn what_was_signed_comes_out_of_the_ranges() {
    for vector in vectors("peering_frames.json") {
        let name = text(&vector, "name");
        let bytes = hex_field(&vector, "hex");
        let prefix = u32::try_from(bytes.len() - 4).expect("small").to_be_bytes();
        let map = if bytes.starts_with(&prefix) {
            bytes.slice(4..)
        } else {
            bytes
        };
        let entries = det::entry_ranges(&map, &LIMITS).expect("canonical");
        // Records, which are no frames, have short keys.
        let signature = if name.starts_with("record") { "s" } else { "signature" };
        let mut covered = entries.clone();
        covered.retain(|entry| entry.key.as_text() != Some(signature));
        assert_eq!(covered.len() + 1, entries.len(), "{name}");
        let mut signed = BytesMut::new();
        det::map_head(covered.len(), &mut signed);
        for entry in covered {
            signed.extend_from_slice(&map[entry.key_range]);
            signed.extend_from_slice(&map[entry.value_range]);
        }
        let input = hex_field(&vector, "signing_input");
        let domain = input.iter().position(|byte| *byte == 0).expect("a domain") + 1;
        assert_eq!(signed, input.slice(domain..), "{name}");
    }
}

#[test]
fn floats_as_text_are_rounded_as_deployed_peers_round_them() {
    let expected = [
        (51.05, "51.05"),
        (1.0, "1.0"),
        (-0.5, "-0.5"),
        (-0.0, "-0.0"),
        (-1.0e-9, "-0.0"),
        (4.9e-7, "0.0"),
        (5.0e-7, "0.000001"),
        (-5.0e-7, "-0.000001"),
        (1.5e-6, "0.000002"),
        (2.5e-6, "0.000003"),
        (0.1234565, "0.123457"),
        (0.999_999_5, "1.0"),
        (1.000_000_5, "1.000001"),
        (1_234_567.890_123_5, "1234567.890124"),
        (999_999_999.999_999_9, "1000000000.0"),
        (4_503_599_627_370_497.5, "4503599627370498.0"),
        (9_007_199_254_740_991.0, "9007199254740991.0"),
        (9_007_199_254_740_992.0, "9007199254740992.0"),
        (1.0e16, "10000000000000000.0"),
        (1.0e21, "1000000000000000000000.0"),
    ];
    for (float, text) in expected {
        assert_eq!(det::float_text(float), text);
        let mut out = BytesMut::new();
        det::encode(&Value::Float(float), &mut out).expect("encodes");
        assert_eq!(det::decode(&out.freeze(), &LIMITS), Ok(Value::text(text)));
    }
}
