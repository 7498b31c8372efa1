//! The corpora begin with the golden vectors.
//!
//! Each vector is a file of the corpus of the target that reads its kind, behind the byte or two with which that target's input
//! begins. With `MACULA_WRITE_SEEDS=1` in the environment this test writes the files that are missing:
//!
//! ```sh
//! MACULA_WRITE_SEEDS=1 cargo test -p macula-tests --test fuzz_replay seeds
//! ```

use std::fs;

use crate::{
    common::{text, vectors},
    folder,
};

struct Kind {
    vectors: &'static str,
    target: &'static str,
    /// What the names of the files begin with.
    prefix: &'static str,
    /// What the input begins with.
    head: &'static [u8],
}

const KINDS: [Kind; 8] = [
    kind("cbor.json", "cbor", "cbor_", &[]),
    kind("cbor_nif.json", "cbor", "cbor_nif_", &[]),
    kind("relay_control.json", "control", "", &[3]),
    kind("rpc_frames.json", "rpc", "", &[7]),
    kind("dist_framing.json", "dist", "", &[0xF4]),
    kind("peering_frames.json", "frame", "", &[0x83]),
    kind("peering_reject.json", "frame", "reject_", &[0x81]),
    kind("identity.json", "identity", "", &[1]),
];

const fn kind(vectors: &'static str, target: &'static str, prefix: &'static str, head: &'static [u8]) -> Kind {
    Kind {
        vectors,
        target,
        prefix,
        head,
    }
}

/// Longer ones would make the corpus large, and are in the tests of the vectors.
const LONGEST: usize = 4096;

#[test]
fn every_golden_vector_is_a_seed() {
    let write = std::env::var_os("MACULA_WRITE_SEEDS").is_some();
    for kind in &KINDS {
        for vector in vectors(kind.vectors) {
            let bytes = bytes(vector["hex"].as_str().unwrap_or_default());
            if bytes.is_empty() || bytes.len() > LONGEST {
                continue;
            }
            let path = folder(kind.target).join(format!("{}{}", kind.prefix, text(&vector, "name")));
            if write && !path.exists() {
                fs::create_dir_all(folder(kind.target)).expect("a folder");
                fs::write(&path, [kind.head, &bytes].concat()).expect("can be written");
            }
            let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(found.ends_with(&bytes), "{} is another vector", path.display());
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}
