//! Where the entries of a frame lie in its canonical encoding, worked out when this is compiled.

use std::ops::Range;

use super::{
    Header,
    encode::{FrameEncodeError, Slot, put_slot},
    field::{Put, put_word},
};
use crate::wire::{DecodeLimits, cbor::Pen};

/// What every frame has besides the fields of its type, which may define some of these for itself.
pub(super) const HEADER: [&str; 8] = [
    "version",
    "frame_id",
    "frame_type",
    "sent_at_ms",
    "capabilities",
    "realm",
    "call_id",
    "source_route",
];

pub(super) const SIGNATURE: &str = "signature";

/// Longest encoded key: its length in one byte, and up to 23 bytes of text.
const KEY: usize = 24;

/// Most entries of a frame of a known type, its signature included.
pub(super) const MOST: usize = 21;

/// Sources from here on are positions in [`HEADER`].
const OF_HEADER: u8 = 128;
/// The source of the signature.
const OF_SIGNATURE: u8 = 255;

/// An encoded key, and where the value comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    key: [u8; KEY],
    /// Ones where `key` counts.
    mask: [u8; KEY],
    length: usize,
    source: u8,
}

/// The entries of a type of frame in the order of the wire, the signature included.
#[derive(Debug)]
pub(super) struct Plan {
    steps: [Step; MOST],
    count: usize,
    /// Where the version, the id, the time of sending and the capabilities are.
    pub(super) header: [usize; 4],
}

impl Plan {
    /// The plan of a type with these fields.
    pub(super) const fn new(fields: &[&str]) -> Self {
        let step = Step {
            key: [0; KEY],
            mask: [0; KEY],
            length: 0,
            source: 0,
        };
        let mut plan = Self {
            steps: [step; MOST],
            count: 0,
            header: [
                position(fields, "version"),
                position(fields, "frame_id"),
                position(fields, "sent_at_ms"),
                position(fields, "capabilities"),
            ],
        };
        plan.add(position(fields, SIGNATURE), SIGNATURE, OF_SIGNATURE);
        let mut at = 0;
        while at < fields.len() {
            plan.add(position(fields, fields[at]), fields[at], at as u8);
            at += 1;
        }
        at = 0;
        while at < HEADER.len() {
            if !contains(fields, HEADER[at]) {
                plan.add(position(fields, HEADER[at]), HEADER[at], OF_HEADER + at as u8);
            }
            at += 1;
        }
        plan
    }

    const fn add(&mut self, at: usize, name: &str, source: u8) {
        let name = name.as_bytes();
        let mut key = [0; KEY];
        let mut mask = [0; KEY];
        key[0] = 0x60 | name.len() as u8;
        mask[0] = 0xFF;
        let mut byte = 0;
        while byte < name.len() {
            key[byte + 1] = name[byte];
            mask[byte + 1] = 0xFF;
            byte += 1;
        }
        self.steps[at] = Step {
            key,
            mask,
            length: name.len() + 1,
            source,
        };
        self.count += 1;
    }

    /// Number of entries, the signature included.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The entries in the order of the wire.
    pub(super) fn steps(&self) -> &[Step] {
        self.steps.get(..self.count).unwrap_or_default()
    }

    /// Appends the entries, and answers where the one of the signature is, or belongs.
    pub(super) fn put(
        &self,
        header: &Header,
        frame_type: &str,
        fields: &[&dyn Put],
        slot: Slot,
        out: &mut Pen<'_>,
    ) -> Result<Range<usize>, FrameEncodeError> {
        let mut signature = 0..0;
        for step in self.steps() {
            if step.is_signature() {
                signature = put_slot(slot, out);
                continue;
            }
            out.put(&step.key, step.length);
            match fields.get(usize::from(step.source)) {
                Some(field) => field.put(out, DecodeLimits::DEFAULT.depth)?,
                None => match step.source.wrapping_sub(OF_HEADER) {
                    0 => out.uint(header.version),
                    1 => out.bytes(&header.frame_id.0),
                    2 => put_word(out, frame_type),
                    3 => out.uint(header.sent_at_ms),
                    4 => out.uint(header.capabilities),
                    _ => out.null(),
                },
            }
        }
        Ok(signature)
    }
}

impl Step {
    pub(super) fn is_signature(&self) -> bool {
        self.source == OF_SIGNATURE
    }

    /// What a frame of this very type has here: its name, or null under a key that its type does not use. `None` where the
    /// value is free.
    #[inline]
    pub(super) fn fixed(&self) -> Option<Fixed> {
        match self.source.wrapping_sub(OF_HEADER) {
            2 => Some(Fixed::FrameType),
            5..=7 => Some(Fixed::Null),
            _ => None,
        }
    }

    /// What follows the key, if `rest` begins with it.
    #[inline]
    pub(super) fn strip_key<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        let Some(begins) = rest.first_chunk::<KEY>() else {
            // Close to the end.
            return rest.strip_prefix(self.key.get(..self.length)?);
        };
        // Whole words, which are few instructions; a comparison of any length is a call.
        let mut differs = 0;
        for ((ours, mask), theirs) in words(&self.key).zip(words(&self.mask)).zip(words(begins)) {
            differs |= (ours ^ theirs) & mask;
        }
        if differs == 0 { rest.get(self.length..) } else { None }
    }
}

/// A value that is the same in all frames of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fixed {
    FrameType,
    Null,
}

#[inline]
fn words(bytes: &[u8; KEY]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word))
}

/// Where the entry `name` lies in a signed frame of a type with these fields.
pub(super) const fn position(fields: &[&str], name: &str) -> usize {
    let mut smaller = 0;
    let mut at = 0;
    while at < fields.len() {
        if is_less(fields[at], name) {
            smaller += 1;
        }
        at += 1;
    }
    at = 0;
    while at < HEADER.len() {
        if is_less(HEADER[at], name) && !contains(fields, HEADER[at]) {
            smaller += 1;
        }
        at += 1;
    }
    if is_less(SIGNATURE, name) {
        smaller += 1;
    }
    smaller
}

const fn contains(fields: &[&str], name: &str) -> bool {
    let mut at = 0;
    while at < fields.len() {
        if !is_less(fields[at], name) && !is_less(name, fields[at]) {
            return true;
        }
        at += 1;
    }
    false
}

/// The order of keys: by their length, and then by their bytes.
const fn is_less(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return a.len() < b.len();
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    false
}
