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
        cbor::{Pen, det},
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

    pub(super) fn canonical(&self, slot: Slot) -> Result<Canonical, FrameEncodeError> {
        if !self.extra.is_empty() {
            return self.merged(slot);
        }
        let (header, frame_type) = (&self.header, self.body.frame_type());
        let planned = self.body.with_fields(|plan, _, fields| {
            Canonical::write(plan.count() - 1, slot, |out| {
                plan.put(header, frame_type, fields, slot, out)
            })
        });
        planned.unwrap_or_else(|| self.merged(slot))
    }

    /// The slower way, for frames with fields that are not known.
    pub(super) fn merged(&self, slot: Slot) -> Result<Canonical, FrameEncodeError> {
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
pub(super) fn put_slot(slot: Slot, out: &mut Pen<'_>) -> Range<usize> {
    let start = out.position();
    if slot == Slot::Filled {
        out.put_slice(&signature_entry(&[0; SIGNATURE_LENGTH]));
    }
    start..out.position()
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
    pub(super) signature: Range<usize>,
}

impl Canonical {
    /// The map of `count` entries that `entries` puts; it answers where the entry of the signature is, or belongs.
    fn write(
        count: usize,
        slot: Slot,
        entries: impl FnOnce(&mut Pen<'_>) -> Result<Range<usize>, FrameEncodeError>,
    ) -> Result<Self, FrameEncodeError> {
        let mut payload = BytesMut::new();
        let mut pen = Pen::new(&mut payload);
        pen.map(count + usize::from(slot == Slot::Filled));
        let signature = entries(&mut pen)?;
        pen.flush();
        Ok(Self {
            payload,
            count,
            signature,
        })
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
        Self::write(entries.len(), slot, |out| {
            let mut signature = None;
            for (name, value) in entries {
                if signature.is_none() && rank(name) > rank(SIGNATURE.as_bytes()) {
                    signature = Some(put_slot(slot, out));
                }
                out.text(name);
                value.put(out, DecodeLimits::DEFAULT.depth)?;
            }
            Ok(signature.unwrap_or_else(|| put_slot(slot, out)))
        })
    }

    /// What is signed, in parts.
    fn with_signing_parts<R>(&self, domain: Domain, parts: impl FnOnce(&[&[u8]; 4]) -> R) -> R {
        let mut head = BytesMut::with_capacity(9);
        det::map_head(self.count, &mut head);
        let (before, _) = self.payload.split_at_checked(self.signature.start).unwrap_or_default();
        let (_, after) = self.payload.split_at_checked(self.signature.end).unwrap_or_default();
        let written = self.count + usize::from(!self.signature.is_empty());
        let before = before.get(det::head_length(written)..).unwrap_or_default();
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

/// What the entry `signature` begins with: a text of 9 bytes; the head of a byte string with a length of one byte.
pub(super) const SIGNATURE_HEAD: &[u8; 12] = b"\x69signature\x58\x40";

/// The entry `signature`.
pub(super) fn signature_entry(signature: &[u8; SIGNATURE_LENGTH]) -> [u8; 12 + SIGNATURE_LENGTH] {
    let mut entry = [0; 12 + SIGNATURE_LENGTH];
    let (head, rest) = entry.split_at_mut(SIGNATURE_HEAD.len());
    head.copy_from_slice(SIGNATURE_HEAD);
    rest.copy_from_slice(signature);
    entry
}
