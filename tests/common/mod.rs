//! Shared by the test targets of this crate.

#![allow(dead_code, reason = "each test target uses its share")]

pub(crate) mod differences;
pub(crate) mod tagged;

use serde_json::Value as Json;
use std::path::Path;

/// The entries of one vector file.
pub(crate) fn vectors(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The string under `key`.
pub(crate) fn text<'a>(vector: &'a Json, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("no {key} in {vector}"))
}
