use bytes::{BufMut, Bytes, BytesMut};

use super::{
    EncodeMessageError, Form, Message,
    header::{FIRST_FRAGMENT, FRAGMENT as LATER_FRAGMENT},
    message::encode_parts,
};
use crate::wire::etf;

/// Bytes of terms in a fragment: 64 KiB, as OTP nodes cut theirs.
pub const FRAGMENT: usize = 64 << 10;

/// Bytes in front of the terms of a message: version, tag, and the number of atoms, which is 0.
const HEADER: usize = 3;

/// A message on its way, cut into fragments if it is long and both nodes can do
/// [fragments](super::Flags::FRAGMENTS) and [headers](super::Flags::DIST_HDR_ATOM_CACHE).
///
/// Each fragment is a message of its own for the framing, so that others can pass between two of them. The control term lies in the
/// first one as a whole, as receivers want it; the others have [`FRAGMENT`] bytes, but for the last one.
#[derive(Debug, Clone)]
pub struct FragmentedMessage {
    /// The whole message; in fragments, what is left of its terms.
    bytes: Bytes,
    sequence: u64,
    /// Bytes of the terms in the next fragment.
    next: usize,
    /// How many fragments are left. 0: the message is not cut.
    left: u64,
    is_first: bool,
}

impl FragmentedMessage {
    /// A message that is not cut, in either form.
    ///
    /// # Errors
    /// [`EncodeMessageError`].
    pub fn whole(message: &Message, form: Form) -> Result<Self, EncodeMessageError> {
        let mut out = BytesMut::new();
        encode_parts(message, form, &mut out)?;
        Ok(Self::uncut(out))
    }

    /// A message in [`Form::Header`], cut if its terms have more than [`FRAGMENT`] bytes. Only what has a payload is cut. No two messages
    /// that are on their way at once on a connection may have the same `sequence`.
    ///
    /// # Errors
    /// [`EncodeMessageError`].
    pub fn encode(message: &Message, sequence: u64) -> Result<Self, EncodeMessageError> {
        let mut out = BytesMut::new();
        let control = encode_parts(message, Form::Header, &mut out)?.saturating_sub(HEADER);
        let next = control.max(FRAGMENT);
        let terms = out.len().saturating_sub(HEADER);
        if message.payload.is_none() || terms <= next {
            return Ok(Self::uncut(out));
        }
        let _ = out.split_to(HEADER);
        Ok(Self {
            bytes: out.freeze(),
            sequence,
            next,
            left: 1 + (terms - next).div_ceil(FRAGMENT) as u64,
            is_first: true,
        })
    }

    fn uncut(out: BytesMut) -> Self {
        Self {
            bytes: out.freeze(),
            sequence: 0,
            next: 0,
            left: 0,
            is_first: true,
        }
    }

    /// Bytes that are left, without the headers of fragments.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it goes in more than one piece.
    pub fn is_cut(&self) -> bool {
        self.left > 0
    }
}

/// The fragments, or the message if it is not cut, as they go into the framing.
impl Iterator for FragmentedMessage {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.bytes.is_empty() {
            return None;
        }
        if self.left == 0 {
            return Some(std::mem::take(&mut self.bytes));
        }
        let terms = self.bytes.split_to(self.next.min(self.bytes.len()));
        let mut out = BytesMut::with_capacity(terms.len() + 19);
        let first = std::mem::replace(&mut self.is_first, false);
        out.put_u8(etf::VERSION);
        out.put_u8(if first { FIRST_FRAGMENT } else { LATER_FRAGMENT });
        out.put_u64(self.sequence);
        out.put_u64(self.left);
        if first {
            out.put_u8(0);
        }
        out.put_slice(&terms);
        self.next = FRAGMENT;
        self.left = self.left.saturating_sub(1);
        Some(out.freeze())
    }
}
