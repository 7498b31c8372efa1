//! Frames laid out as their type says: every field there, in its place, and nothing besides. All that deployed peers and this
//! library send are, but for fields that somebody added. They can be read without looking for fields or comparing keys with one
//! another; whatever else there is, even a fault, is for the general way to find.

use super::{
    Body, Frame, Header,
    encode::SIGNATURE_HEAD,
    field::{Field, FieldError, FieldFault, Fields},
    plan::{Fixed, MOST, Plan},
    raw::Signed,
};
use crate::{
    identity::SIGNATURE_LENGTH,
    wire::{
        DecodeLimits,
        cbor::det::{self, Item, Source},
    },
};

/// Null, encoded.
const NULL: u8 = 0xF6;

/// The entry in front of which most others of a frame are.
const FRAME_TYPE: &[u8; 11] = b"\x6Aframe_type";

/// The values of a frame, by their positions in a signed one.
pub(super) struct Laid<'a> {
    /// Each value and all behind it.
    values: [&'a [u8]; MOST],
    source: Source<'a>,
    signature: Signed,
    entries: usize,
}

/// The frame, its signature and its number of entries, if `source` is a canonical map within `limits` and laid out as expected.
pub(super) fn read(source: Source<'_>, limits: &DecodeLimits) -> Option<(Frame, Signed, usize)> {
    let frame_type = frame_type(source.bytes)?;
    // Filled in where it is: it is too large to be handed around.
    let mut laid = Laid {
        values: [&[]; MOST],
        source,
        signature: Signed::No,
        entries: 0,
    };
    let (header, body) = Body::read_laid(frame_type, &mut laid, limits)?;
    let extra = Vec::new();
    Some((Frame { header, body, extra }, laid.signature, laid.entries))
}

/// The type that these bytes give, if they are a map so far; nothing else is checked.
fn frame_type(bytes: &[u8]) -> Option<&[u8]> {
    let (_, mut rest) = bytes.split_first()?;
    loop {
        if let Some(value) = rest.strip_prefix(FRAME_TYPE) {
            return match det::short(value)? {
                (Item::Text(frame_type), _) => Some(frame_type),
                _ => None,
            };
        }
        rest = det::behind(det::behind(rest)?)?;
    }
}

impl<'a> Laid<'a> {
    /// Takes the values of a frame with this plan, and answers its header.
    pub(super) fn fill(&mut self, plan: &Plan, frame_type: &[u8], limits: &DecodeLimits) -> Option<Header> {
        let source = self.source.bytes;
        let (&head, mut rest) = source.split_first()?;
        let entries = usize::from(head.checked_sub(0xA0)?);
        let signed = entries == plan.count();
        if !signed && entries + 1 != plan.count() {
            return None;
        }
        self.entries = entries;
        let mut items = limits.items.checked_sub(2 * entries)?;
        let depth = limits.depth.checked_sub(1)?;
        for (step, slot) in plan.steps().iter().zip(&mut self.values) {
            if step.is_signature() {
                if signed {
                    let start = source.len() - rest.len();
                    let (signature, after) = rest.strip_prefix(SIGNATURE_HEAD)?.split_first_chunk()?;
                    let signature = *signature;
                    rest = after;
                    let entry = start..start + SIGNATURE_HEAD.len() + SIGNATURE_LENGTH;
                    self.signature = Signed::Yes { entry, signature };
                }
                continue;
            }
            rest = step.strip_key(rest)?;
            *slot = rest;
            rest = match det::behind_short(rest) {
                Some(rest) => rest,
                None => {
                    // The entry itself has been counted.
                    let mut left = items.checked_add(1)?;
                    let (_, length) = det::first(rest, depth, &mut left)?;
                    items = left;
                    rest.get(length..)?
                }
            };
            let fits = match step.fixed() {
                None => true,
                Some(Fixed::Null) => slot.first() == Some(&NULL),
                Some(Fixed::FrameType) => matches!(det::short(slot), Some((Item::Text(text), _)) if text == frame_type),
            };
            if !fits {
                return None;
            }
        }
        if !rest.is_empty() {
            return None;
        }
        let [version, frame_id, sent_at_ms, capabilities] = plan.header.map(|at| self.values.get(at).copied());
        Some(Header {
            version: Field::scan(version?, self.source)?,
            frame_id: Field::scan(frame_id?, self.source)?,
            sent_at_ms: Field::scan(sent_at_ms?, self.source)?,
            capabilities: Field::scan(capabilities?, self.source)?,
        })
    }
}

impl Fields for Laid<'_> {
    #[inline]
    fn take<F: Field>(&mut self, field: &'static str, position: usize) -> Result<F, FieldError> {
        let value = self.values.get(position);
        // Which fault it is, the general way says.
        let fault = FieldFault::Type;
        value
            .and_then(|value| F::scan(value, self.source))
            .ok_or(FieldError { field, fault })
    }
}

#[cfg(test)]
mod tests;
