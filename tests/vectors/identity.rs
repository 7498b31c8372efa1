//! `identity.json`: keys from seeds, puzzle evidence, key files, signatures.

use crate::common::differences::Differences;
use crate::common::tagged::hex_field;
use crate::common::{text, vectors};
use macula_proto::identity::{Identity, NodeId, PublicKey, key_file, puzzle};
use serde_json::Value as Json;

const FILE: &str = "identity.json";

fn array<const N: usize>(vector: &Json, key: &str) -> [u8; N] {
    hex_field(vector, key).as_ref().try_into().expect("of that length")
}

fn named(prefix: &str) -> Vec<Json> {
    let mut vectors = vectors(FILE);
    vectors.retain(|vector| text(vector, "name").starts_with(prefix));
    assert!(!vectors.is_empty());
    vectors
}

#[test]
fn keys_evidence_and_files_follow_from_seeds() {
    let mut compared = 0;
    for vector in vectors(FILE).iter().filter(|vector| !vector["puzzle_valid"].is_null()) {
        let name = text(vector, "name");
        let identity = Identity::from_seed(&array(vector, "secret_key"));
        let id = identity.node_id();
        assert_eq!(id, NodeId::from_bytes(array(vector, "public_key")), "{name}");
        assert_eq!(id.to_string(), text(vector, "public_key"), "{name}");
        assert_eq!(identity.puzzle_evidence(), array(vector, "puzzle_evidence"), "{name}");
        assert_eq!(
            u64::from(puzzle::difficulty(&id)),
            vector["leading_zero_bits"],
            "{name}"
        );
        for (bits, valid) in vector["puzzle_valid"].as_object().expect("verdicts") {
            let bits = bits.parse().expect("a number");
            assert_eq!(puzzle::solves(&id, bits), *valid, "{name}: {bits} bits");
        }
        let file = hex_field(vector, "hex");
        assert_eq!(key_file::encode(&identity)[..], file[..], "{name}");
        let read = key_file::decode(&file).expect("a key file");
        assert_eq!(read.seed(), identity.seed(), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 12);
}

#[test]
fn signatures_byte_for_byte() {
    for vector in named("sign_") {
        let name = text(&vector, "name");
        let identity = Identity::from_seed(&array(&vector, "secret_key"));
        let signature = identity.sign_raw(&hex_field(&vector, "message"));
        assert_eq!(signature, array(&vector, "signature"), "{name}");
    }
}

#[test]
fn verdicts_differ_only_as_listed() {
    let mut differences = Differences::of(FILE);
    for vector in named("keyfile_") {
        let theirs = match text(&vector, "verdict") {
            "ok" => "taken",
            verdict => {
                assert!(verdict.starts_with("error:"), "{verdict}");
                "refused"
            }
        };
        let ours = match key_file::decode(&hex_field(&vector, "hex")) {
            Ok(_) => "taken",
            Err(_) => "refused",
        };
        differences.verdicts(text(&vector, "name"), theirs, ours);
    }
    for vector in named("verify_") {
        let theirs = if text(&vector, "verdict") == "true" {
            "good"
        } else {
            "bad"
        };
        let key = PublicKey::new(&NodeId::from_bytes(array(&vector, "public_key")));
        let (message, signature) = (hex_field(&vector, "message"), hex_field(&vector, "signature"));
        let good = key.is_some_and(|key| key.verify_raw(&message, &signature).is_ok());
        differences.verdicts(text(&vector, "name"), theirs, if good { "good" } else { "bad" });
    }
    differences.finish();
}
