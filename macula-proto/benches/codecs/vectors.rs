//! The frames and messages of the golden vectors.

use std::{collections::BTreeSet, path::Path};

use bytes::Bytes;
use macula_proto::{
    identity::Identity,
    wire::{
        DecodeLimits,
        frame::{Body, DecodedFrame},
    },
};
use serde_json::Value as Json;

use crate::Result;

/// A frame, as it came and signed by whom.
pub(crate) struct Golden {
    /// Its name among the vectors.
    pub(crate) name: String,
    pub(crate) decoded: DecodedFrame,
    pub(crate) signer: Identity,
}

/// The entries of a file of vectors.
fn read(file: &str) -> Result<Vec<Json>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

fn unhex(json: &Json) -> Result<Vec<u8>> {
    let digits = json.as_str().ok_or("no hex digits")?;
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16);
    Ok((0..digits.len())
        .step_by(2)
        .map(byte)
        .collect::<std::result::Result<_, _>>()?)
}

/// The first frame of every type, and those named in `besides`.
pub(crate) fn frames(besides: &[&str]) -> Result<Vec<Golden>> {
    let mut types = BTreeSet::new();
    let mut frames = Vec::new();
    for vector in read("peering_frames.json")? {
        let name = vector["name"].as_str().unwrap_or_default().to_owned();
        let bytes = Bytes::from(unhex(&vector["hex"])?);
        let Ok(decoded) = DecodedFrame::decode(bytes.slice(4..), &DecodeLimits::DEFAULT) else {
            // A lone update or record.
            continue;
        };
        let known = !matches!(decoded.frame.body, Body::Unknown(_));
        let first = known && types.insert(decoded.frame.frame_type().to_owned());
        if first || besides.contains(&name.as_str()) {
            let seed = unhex(&vector["secret_key"])?;
            let seed = seed.as_slice().try_into()?;
            frames.push(Golden {
                name,
                decoded,
                signer: Identity::from_seed(seed),
            });
        }
    }
    Ok(frames)
}

/// Payloads of control messages, the first of every name.
pub(crate) fn control() -> Result<Vec<(String, Bytes)>> {
    let mut payloads = Vec::new();
    for vector in read("relay_control.json")? {
        let name = vector["name"].as_str().unwrap_or_default().to_owned();
        let bytes = Bytes::from(unhex(&vector["hex"])?);
        payloads.push((name, bytes));
    }
    Ok(payloads)
}
