//! From a frame to its one canonical encoding, with and without signature.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{
    Frame, MAX_PAYLOAD,
    field::{Field, key},
    raw::RawFrame,
};
use crate::{
    identity::{Domain, Identity, SIGNATURE_LENGTH},
    wire::{DecodeLimits, EncodeError, Value, cbor::det, framing::FrameTooLarge},
};

const SIGNATURE: &[u8] = b"signature";

/// Why a frame cannot be written. Nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameEncodeError {
    /// A value that deterministic CBOR does not have.
    #[error(transparent)]
    Value(#[from] EncodeError),
    /// The text `undefined` as a value: deployed peers read it as null, and the signature then fails there.
    #[error("the text `undefined` as a value, which deployed peers read as null")]
    Undefined,
    /// A key of a map that is not text: deployed peers read byte strings as text and null as `null`, and crash on others.
    #[error("a key of a map that is not text")]
    Key,
    /// A field given twice, or the field `signature`, which only signing adds.
    #[error("a field given twice")]
    DuplicateField,
    /// The frame is longer than the 16 MiB - 1 that receivers take.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
}

impl Frame {
    /// Encodes the frame and signs it.
    ///
    /// # Errors
    /// [`FrameEncodeError`] if no deployed peer could verify it.
    pub fn sign(&self, identity: &Identity) -> Result<RawFrame, FrameEncodeError> {
        let canonical = self.canonical()?;
        let signature = identity.sign_raw(&canonical.signing_input(Domain::Frame));
        let (payload, at) = canonical.signed(&signature);
        check_length(&payload)?;
        Ok(RawFrame::from_signed(payload, canonical.count + 1, at, signature))
    }

    /// Encodes the frame without a signature.
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    pub fn encode_unsigned(&self) -> Result<RawFrame, FrameEncodeError> {
        let canonical = self.canonical()?;
        let payload = canonical.unsigned();
        check_length(&payload)?;
        Ok(RawFrame::from_unsigned(payload, canonical.count))
    }

    fn canonical(&self) -> Result<Canonical, FrameEncodeError> {
        let mut entries = Vec::with_capacity(24);
        self.body.write(&mut entries);
        entries.extend_from_slice(&self.extra);
        let header = &self.header;
        match &self.body {
            super::Body::Unknown(unknown) => {
                let kind = unknown.frame_type.as_ref().map(Field::write);
                entries.extend(kind.map(|kind| (key("frame_type"), kind)));
            }
            known => entries.push((key("frame_type"), Value::text(known.frame_type()))),
        }
        let given = entries.len();
        for (name, value) in [
            ("version", Value::Uint(header.version)),
            ("frame_id", header.frame_id.write()),
            ("sent_at_ms", Value::Uint(header.sent_at_ms)),
            ("capabilities", Value::Uint(header.capabilities)),
            ("realm", Value::Null),
            ("call_id", Value::Null),
            ("source_route", Value::Null),
        ] {
            let name = key(name);
            if !entries.iter().take(given).any(|(other, _)| *other == name) {
                entries.push((name, value));
            }
        }
        Canonical::new(entries)
    }
}

pub(super) fn check_length(payload: &Bytes) -> Result<(), FrameTooLarge> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let limit = MAX_PAYLOAD;
    if length > limit {
        return Err(FrameTooLarge { length, limit });
    }
    Ok(())
}

/// A map in its canonical encoding, without signature.
pub(super) struct Canonical {
    /// The entries, without the head of the map.
    entries: BytesMut,
    count: usize,
    /// Where the signature belongs.
    signature_at: usize,
}

impl Canonical {
    pub(super) fn new(entries: Vec<(Value, Value)>) -> Result<Self, FrameEncodeError> {
        let mut named = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let Value::Text(name) = name else {
                return Err(FrameEncodeError::Key);
            };
            check(&value, DecodeLimits::DEFAULT.depth)?;
            named.push((name, value));
        }
        // The encoded form of a text begins with its length, and the shorter length is the smaller one.
        named.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)));
        let twice = named.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
        if twice || named.iter().any(|(name, _)| name == SIGNATURE) {
            return Err(FrameEncodeError::DuplicateField);
        }
        let count = named.len();
        let mut out = BytesMut::with_capacity(512);
        let mut signature_at = 0;
        for (name, value) in named {
            let before = rank(&name) < rank(SIGNATURE);
            det::encode(&Value::Text(name), &mut out)?;
            det::encode(&value, &mut out)?;
            if before {
                signature_at = out.len();
            }
        }
        Ok(Self {
            entries: out,
            count,
            signature_at,
        })
    }

    /// What is signed.
    pub(super) fn signing_input(&self, domain: Domain) -> Bytes {
        let prefix = domain.prefix();
        let mut out = BytesMut::with_capacity(prefix.len() + 9 + self.entries.len());
        out.extend_from_slice(prefix);
        det::map_head(self.count, &mut out);
        out.extend_from_slice(&self.entries);
        out.freeze()
    }

    pub(super) fn unsigned(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + self.entries.len());
        det::map_head(self.count, &mut out);
        out.extend_from_slice(&self.entries);
        out.freeze()
    }

    /// The map with its signature, and where the entry of the signature begins and ends.
    pub(super) fn signed(&self, signature: &[u8; SIGNATURE_LENGTH]) -> (Bytes, std::ops::Range<usize>) {
        let mut out = BytesMut::with_capacity(96 + self.entries.len());
        det::map_head(self.count + 1, &mut out);
        let (before, after) = self.entries.split_at_checked(self.signature_at).unwrap_or_default();
        out.extend_from_slice(before);
        let start = out.len();
        put_signature(signature, &mut out);
        let end = out.len();
        out.extend_from_slice(after);
        (out.freeze(), start..end)
    }
}

/// What the order of keys goes by.
fn rank(name: &[u8]) -> (usize, &[u8]) {
    (name.len(), name)
}

/// Appends the entry `signature`.
pub(super) fn put_signature(signature: &[u8; SIGNATURE_LENGTH], out: &mut BytesMut) {
    // A text of 9 bytes; a byte string with a length of one byte.
    out.extend_from_slice(&[0x60 | SIGNATURE.len() as u8]);
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0x58, SIGNATURE_LENGTH as u8]);
    out.extend_from_slice(signature);
}

/// Refuses what deployed peers would read as something else.
fn check(value: &Value, depth: usize) -> Result<(), FrameEncodeError> {
    let deeper = || {
        let limit = DecodeLimits::DEFAULT.depth;
        depth.checked_sub(1).ok_or(EncodeError::TooDeep { limit })
    };
    match value {
        Value::Text(text) if text == "undefined" => Err(FrameEncodeError::Undefined),
        Value::Array(elements) => {
            let depth = deeper()?;
            elements.iter().try_for_each(|element| check(element, depth))
        }
        Value::Map(entries) => {
            let depth = deeper()?;
            entries.iter().try_for_each(|(key, value)| match key {
                Value::Text(_) => check(value, depth),
                _ => Err(FrameEncodeError::Key),
            })
        }
        _ => Ok(()),
    }
}
