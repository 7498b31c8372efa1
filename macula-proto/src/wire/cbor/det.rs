//! Deterministic CBOR.
