//! Where the entries of a frame lie in its canonical encoding, worked out when this is compiled.

use bytes::{BufMut, BytesMut};

use super::{
    Header,
    encode::FrameEncodeError,
    field::{Put, put_word},
};
use crate::wire::{DecodeLimits, cbor};

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

/// Most entries of a frame of a known type, its signature not counted.
const MOST: usize = 20;

/// Sources from here on are positions in [`HEADER`].
const OF_HEADER: u8 = 128;

/// An encoded key, and where the value comes from.
#[derive(Debug, Clone, Copy)]
struct Step {
    key: [u8; KEY],
    length: usize,
    source: u8,
}

/// The entries of a type of frame in the order of the wire, without the signature.
#[derive(Debug)]
pub(super) struct Plan {
    steps: [Step; MOST],
    count: usize,
    /// Entries in front of the signature.
    before: usize,
}

impl Plan {
    /// The plan of a type with these fields.
    pub(super) const fn new(fields: &[&str]) -> Self {
        let step = Step {
            key: [0; KEY],
            length: 0,
            source: 0,
        };
        let mut plan = Self {
            steps: [step; MOST],
            count: 0,
            before: position(fields, SIGNATURE),
        };
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

    const fn add(&mut self, position: usize, name: &str, source: u8) {
        // The position counts the signature, too.
        let at = if position > self.before { position - 1 } else { position };
        let name = name.as_bytes();
        let mut key = [0; KEY];
        key[0] = 0x60 | name.len() as u8;
        let mut byte = 0;
        while byte < name.len() {
            key[byte + 1] = name[byte];
            byte += 1;
        }
        self.steps[at] = Step {
            key,
            length: name.len() + 1,
            source,
        };
        self.count += 1;
    }

    /// Number of entries.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// About as many bytes as the entries take, besides what `fields` say about themselves.
    pub(super) fn size(&self, fields: &[&dyn Put]) -> usize {
        let keys = self.steps.iter().map(|step| step.length).sum::<usize>();
        // The values of a header, and what a key is too long while it is written.
        let rest = 64 + KEY;
        keys + rest + fields.iter().map(|field| field.size()).sum::<usize>()
    }

    /// Appends the entries; `signature` is called where the signature belongs.
    pub(super) fn put(
        &self,
        header: &Header,
        frame_type: &str,
        fields: &[&dyn Put],
        out: &mut BytesMut,
        signature: impl FnOnce(&mut BytesMut),
    ) -> Result<(), FrameEncodeError> {
        let steps = self.steps.get(..self.count).unwrap_or_default();
        let (before, after) = steps.split_at_checked(self.before).unwrap_or_default();
        put_steps(before, header, frame_type, fields, out)?;
        signature(out);
        put_steps(after, header, frame_type, fields, out)
    }
}

fn put_steps(
    steps: &[Step],
    header: &Header,
    frame_type: &str,
    fields: &[&dyn Put],
    out: &mut BytesMut,
) -> Result<(), FrameEncodeError> {
    for step in steps {
        // A copy of a fixed length is a few instructions, one of any length a call.
        let end = out.len() + step.length;
        out.put_slice(&step.key);
        out.truncate(end);
        match fields.get(usize::from(step.source)) {
            Some(field) => field.put(out, DecodeLimits::DEFAULT.depth)?,
            None => match step.source.wrapping_sub(OF_HEADER) {
                0 => cbor::put_uint(out, header.version),
                1 => cbor::put_bytes(out, &header.frame_id.0),
                2 => put_word(out, frame_type),
                3 => cbor::put_uint(out, header.sent_at_ms),
                4 => cbor::put_uint(out, header.capabilities),
                _ => cbor::put_null(out),
            },
        }
    }
    Ok(())
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
