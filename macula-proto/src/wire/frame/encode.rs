//! From a frame to its one canonical encoding, with and without signature.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{
    Body, Frame, MAX_PAYLOAD,
    field::{Put, Text},
    plan::{HEADER, SIGNATURE},
    raw::RawFrame,
};
use crate::{
    identity::{Domain, Identity, SIGNATURE_LENGTH},
    wire::{
        DecodeLimits, EncodeError, Value,
        cbor::{self, det},
        framing::FrameTooLarge,
    },
};

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
        let canonical = self.canonical(Slot::Filled)?;
        check_length(&canonical.payload)?;
        let entries = canonical.count + 1;
        let (payload, at, signature) = canonical.sign(Domain::Frame, identity);
        Ok(RawFrame::from_signed(payload, entries, at, signature))
    }

    /// Encodes the frame without a signature.
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    pub fn encode_unsigned(&self) -> Result<RawFrame, FrameEncodeError> {
        let Canonical { payload, count, .. } = self.canonical(Slot::None)?;
        check_length(&payload)?;
        Ok(RawFrame::from_unsigned(payload.freeze(), count))
    }

    fn canonical(&self, slot: Slot) -> Result<Canonical, FrameEncodeError> {
        if !self.extra.is_empty() {
            return self.merged(slot);
        }
        let (header, frame_type) = (&self.header, self.body.frame_type());
        let planned = self.body.with_fields(|plan, _, fields| {
            let mut canonical = Canonical::start(plan.count(), slot, plan.size(fields));
            let Canonical { payload, signature, .. } = &mut canonical;
            plan.put(header, frame_type, fields, payload, |out| {
                *signature = put_slot(slot, out);
            })?;
            Ok(canonical)
        });
        planned.unwrap_or_else(|| self.merged(slot))
    }

    /// The slower way, for frames with fields that are not known.
    fn merged(&self, slot: Slot) -> Result<Canonical, FrameEncodeError> {
        let mut entries: Vec<(&[u8], &dyn Put)> = Vec::with_capacity(24);
        let frame_type;
        if let Body::Unknown(unknown) = &self.body {
            for (name, value) in &unknown.fields {
                entries.push((text(name)?, value));
            }
            frame_type = unknown.frame_type.clone();
        } else {
            self.body.with_fields(|_, names, fields| {
                let names = names.iter().map(|name| name.as_bytes());
                entries.extend(names.zip(fields.iter().copied()));
            });
            frame_type = Some(Text::from(self.body.frame_type()));
        }
        for (name, value) in &self.extra {
            entries.push((text(name)?, value));
        }
        let given = entries.len();
        // The type has one place only: a second one is a field given twice.
        entries.extend(frame_type.iter().map(|kind| (&b"frame_type"[..], kind as &dyn Put)));
        let header = &self.header;
        let of_header: [(&str, &dyn Put); HEADER.len() - 1] = [
            ("version", &header.version),
            ("frame_id", &header.frame_id),
            ("sent_at_ms", &header.sent_at_ms),
            ("capabilities", &header.capabilities),
            ("realm", &Value::Null),
            ("call_id", &Value::Null),
            ("source_route", &Value::Null),
        ];
        for (name, value) in of_header {
            let name = name.as_bytes();
            if !entries.iter().take(given).any(|(other, _)| *other == name) {
                entries.push((name, value));
            }
        }
        Canonical::new(entries, slot)
    }
}

/// The name of an entry.
pub(super) fn text(name: &Value) -> Result<&[u8], FrameEncodeError> {
    match name {
        Value::Text(name) => Ok(name),
        _ => Err(FrameEncodeError::Key),
    }
}

/// Whether a map gets room for a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    None,
    Filled,
}

/// Appends an entry for a signature that is to be filled in, and says where.
fn put_slot(slot: Slot, out: &mut BytesMut) -> Range<usize> {
    let start = out.len();
    if slot == Slot::Filled {
        put_signature(&[0; SIGNATURE_LENGTH], out);
    }
    start..out.len()
}

pub(super) fn check_length(payload: &[u8]) -> Result<(), FrameTooLarge> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let limit = MAX_PAYLOAD;
    if length > limit {
        return Err(FrameTooLarge { length, limit });
    }
    Ok(())
}

/// A map in its canonical encoding, without signature or with room for one.
pub(super) struct Canonical {
    payload: BytesMut,
    /// Entries without the signature.
    count: usize,
    /// The entry of the signature: where it is, or, of no length, where it belongs.
    signature: Range<usize>,
}

impl Canonical {
    /// The head of the map; the rest takes about `size` bytes.
    fn start(count: usize, slot: Slot, size: usize) -> Self {
        let mut payload = BytesMut::with_capacity(size + 9 + 16 + SIGNATURE_LENGTH);
        det::map_head(count + usize::from(slot == Slot::Filled), &mut payload);
        Self {
            payload,
            count,
            signature: 0..0,
        }
    }

    /// The map of these entries, which are in any order.
    pub(super) fn new(mut entries: Vec<(&[u8], &dyn Put)>, slot: Slot) -> Result<Self, FrameEncodeError> {
        // The encoded form of a text begins with its length, and the shorter length is the smaller one.
        entries.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)));
        let twice = entries
            .windows(2)
            .any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
        if twice || entries.iter().any(|(name, _)| *name == SIGNATURE.as_bytes()) {
            return Err(FrameEncodeError::DuplicateField);
        }
        let size = entries.iter().map(|(name, value)| 9 + name.len() + value.size()).sum();
        let mut canonical = Self::start(entries.len(), slot, size);
        let Self { payload, signature, .. } = &mut canonical;
        let mut signed = false;
        for (name, value) in entries {
            if !signed && rank(name) > rank(SIGNATURE.as_bytes()) {
                *signature = put_slot(slot, payload);
                signed = true;
            }
            cbor::put_text(payload, name);
            value.put(payload, DecodeLimits::DEFAULT.depth)?;
        }
        if !signed {
            *signature = put_slot(slot, payload);
        }
        Ok(canonical)
    }

    /// What is signed, in parts.
    fn with_signing_parts<R>(&self, domain: Domain, parts: impl FnOnce(&[&[u8]; 4]) -> R) -> R {
        let mut head = BytesMut::with_capacity(9);
        det::map_head(self.count, &mut head);
        let (before, _) = self.payload.split_at_checked(self.signature.start).unwrap_or_default();
        let (_, after) = self.payload.split_at_checked(self.signature.end).unwrap_or_default();
        let written = self.count + usize::from(!self.signature.is_empty());
        let before = before.get(det::map_head_length(written)..).unwrap_or_default();
        parts(&[domain.prefix(), &head, before, after])
    }

    /// What is signed.
    pub(super) fn signing_input(&self, domain: Domain) -> Bytes {
        self.with_signing_parts(domain, |parts| parts.concat()).into()
    }

    /// Signs the map, and fills the signature in if there is room for it.
    pub(super) fn sign(mut self, domain: Domain, identity: &Identity) -> (Bytes, Range<usize>, [u8; SIGNATURE_LENGTH]) {
        let signature = self.with_signing_parts(domain, |parts| identity.sign_parts(parts));
        let at = self.fill(&signature);
        (self.payload.freeze(), at, signature)
    }

    /// The map with this signature.
    pub(super) fn with_signature(mut self, signature: &[u8; SIGNATURE_LENGTH]) -> Bytes {
        self.fill(signature);
        self.payload.freeze()
    }

    fn fill(&mut self, signature: &[u8; SIGNATURE_LENGTH]) -> Range<usize> {
        let entry = self.payload.get_mut(self.signature.clone()).unwrap_or_default();
        if let Some(last) = entry.last_chunk_mut() {
            *last = *signature;
        }
        self.signature.clone()
    }

    /// The map as it is.
    pub(super) fn into_payload(self) -> Bytes {
        self.payload.freeze()
    }
}

/// What the order of keys goes by.
pub(super) fn rank(name: &[u8]) -> (usize, &[u8]) {
    (name.len(), name)
}

/// Appends the entry `signature`.
pub(super) fn put_signature(signature: &[u8; SIGNATURE_LENGTH], out: &mut BytesMut) {
    // A text of 9 bytes; a byte string with a length of one byte.
    out.extend_from_slice(&[0x60 | SIGNATURE.len() as u8]);
    out.extend_from_slice(SIGNATURE.as_bytes());
    out.extend_from_slice(&[0x58, SIGNATURE_LENGTH as u8]);
    out.extend_from_slice(signature);
}
