//! Frames as they came: the exact bytes, and whether their signature holds.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{
    Body, Frame, Header, Unknown,
    encode::{FrameEncodeError, SIGNATURE_HEAD, check_length, signature_entry},
    field::{Field, FieldError, Fields, Taker, Text, is_text},
    laid,
    types::FrameId,
};
use crate::{
    identity::{Domain, Identity, PublicKey, SIGNATURE_LENGTH},
    wire::{
        DecodeError, DecodeErrorKind, DecodeLimits, Value,
        cbor::det::{self, Item, Source},
        framing::PREFIX,
    },
};

/// Room for the entries of a frame as they are sent: more is made for others.
const USUAL_ENTRIES: usize = 20;

/// The exact bytes of a frame.
///
/// What was received is verified and forwarded as it is, so that fields nobody here knows survive. Its bytes are one canonical
/// map; clones share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    payload: Bytes,
    /// Number of entries of the map.
    entries: usize,
    signature: Signed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signed {
    No,
    /// There is an entry `signature` that is none.
    Malformed,
    Yes {
        /// The whole entry, key and value.
        entry: Range<usize>,
        signature: [u8; SIGNATURE_LENGTH],
    },
}

/// A frame that was read: its bytes and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedFrame {
    /// Its bytes.
    pub raw: RawFrame,
    /// What they say.
    pub frame: Frame,
}

/// A frame does not have a good signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It has none.
    #[error("there is no signature")]
    Unsigned,
    /// It has one that is not a string of 64 bytes.
    #[error("the signature is not 64 bytes")]
    Malformed,
    /// The signature is not one of this key over these bytes.
    #[error("the signature does not fit")]
    Bad,
}

impl DecodedFrame {
    /// Reads the payload of a frame, that is, what follows its length.
    ///
    /// A payload of up to 1,024 bytes is copied, so that a small frame that somebody keeps does not keep the buffer alive in which
    /// it came, and all that is read out of it shares that copy: a topic that is kept costs the memory of its frame. Out of longer
    /// payloads strings of up to 512 bytes are copied, and longer ones share them.
    ///
    /// Besides `payload` itself, memory for at most 256 bytes per byte of it is in use while this runs and for the result; and
    /// never more than 256 bytes per item that `limits` allow, plus the length of the payload once more.
    ///
    /// # Errors
    /// [`DecodeError`] if these bytes are not exactly one canonical map within `limits`, its own keys all text.
    pub fn decode(payload: Bytes, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let small = payload.len() <= det::SMALL;
        let payload = if small {
            Bytes::copy_from_slice(&payload)
        } else {
            payload
        };
        let source = if small {
            Source::own(&payload)
        } else {
            Source::foreign(&payload)
        };
        let (frame, signature, entries) = match laid::read(source, limits) {
            Some(read) => read,
            None => general(source, limits)?,
        };
        let raw = RawFrame {
            payload,
            entries,
            signature,
        };
        Ok(Self { raw, frame })
    }
}

/// The frame, its signature and its number of entries, however its map is laid out.
pub(super) fn general(source: Source<'_>, limits: &DecodeLimits) -> Result<(Frame, Signed, usize), DecodeError> {
    let payload = source.bytes;
    let mut fields = Taker::new(source, USUAL_ENTRIES);
    let mut entries = 0;
    let mut signature = Signed::No;
    let mut odd_key = None;
    det::for_each_entry(payload, limits, |key, value, key_range, value_range| {
        entries += 1;
        match key {
            Item::Text(b"signature") => {
                let entry = key_range.start..value_range.end;
                signature = match <[u8; SIGNATURE_LENGTH]>::read(value, source) {
                    Ok(signature) => Signed::Yes { entry, signature },
                    Err(_) => Signed::Malformed,
                };
            }
            Item::Text(_) => fields.add(key, value),
            // Deployed peers read a byte string as the text of these bytes and null as `null`: another frame than this.
            _ => odd_key = odd_key.or(Some(key_range.start)),
        }
    })?;
    if let Some(at) = odd_key {
        return Err(DecodeError::new(DecodeErrorKind::Unsupported, at));
    }
    let frame = typed(&mut fields).unwrap_or_else(|fault| unfit(&mut fields, fault));
    Ok((frame, signature, entries))
}

/// The frame that these fields are.
fn typed(fields: &mut Taker<'_>) -> Result<Frame, FieldError> {
    let header = Header {
        version: fields.take("version", 0)?,
        frame_id: fields.take("frame_id", 0)?,
        sent_at_ms: fields.take("sent_at_ms", 0)?,
        capabilities: fields.take("capabilities", 0)?,
    };
    let frame_type = fields.take_text("frame_type")?;
    let Some(body) = Body::read(frame_type, fields) else {
        let body = Body::Unknown(Unknown {
            frame_type: Some(Text::from_bytes(Bytes::copy_from_slice(frame_type))),
            fields: fields.rest(),
            fault: None,
        });
        let extra = Vec::new();
        return Ok(Frame { header, body, extra });
    };
    let body = body?;
    let unused = |key: Item<'_>, value: Item<'_>| {
        matches!(value, Item::Null) && matches!(key, Item::Text(b"realm" | b"call_id" | b"source_route"))
    };
    let extra = fields.rest_but(unused);
    Ok(Frame { header, body, extra })
}

/// A frame whose fields do not fit, with all of them.
fn unfit(fields: &mut Taker<'_>, fault: FieldError) -> Frame {
    fields.reset();
    let header = Header {
        version: fields.take_fitting("version").unwrap_or_default(),
        frame_id: fields.take_fitting("frame_id").unwrap_or(FrameId([0; 16])),
        sent_at_ms: fields.take_fitting("sent_at_ms").unwrap_or_default(),
        capabilities: fields.take_fitting("capabilities").unwrap_or_default(),
    };
    let frame_type = fields.take_fitting("frame_type");
    let body = Body::Unknown(Unknown {
        frame_type,
        fields: fields.rest(),
        fault: Some(fault),
    });
    Frame {
        header,
        body,
        extra: Vec::new(),
    }
}

impl RawFrame {
    pub(super) fn from_signed(
        payload: Bytes,
        entries: usize,
        entry: Range<usize>,
        signature: [u8; SIGNATURE_LENGTH],
    ) -> Self {
        Self {
            payload,
            entries,
            signature: Signed::Yes { entry, signature },
        }
    }

    pub(super) fn from_unsigned(payload: Bytes, entries: usize) -> Self {
        Self {
            payload,
            entries,
            signature: Signed::No,
        }
    }

    /// The payload: one canonical map, without the length in front of it.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Bytes that the frame takes on the wire, its length included.
    pub fn wire_length(&self) -> usize {
        PREFIX + self.payload.len()
    }

    /// Appends the frame as it goes over the wire.
    pub fn put(&self, out: &mut BytesMut) {
        // What was decoded or encoded here is far below 2^32 bytes long.
        out.reserve(self.wire_length());
        out.put_u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&self.payload);
    }

    /// The frame as it goes over the wire.
    pub fn to_wire(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.wire_length());
        self.put(&mut out);
        out.freeze()
    }

    /// The signature, if there is one of 64 bytes.
    pub fn signature(&self) -> Option<&[u8; SIGNATURE_LENGTH]> {
        match &self.signature {
            Signed::Yes { signature, .. } => Some(signature),
            Signed::No | Signed::Malformed => None,
        }
    }

    /// Whether there is an entry `signature`, be it a good one or not.
    pub fn is_signed(&self) -> bool {
        self.signature != Signed::No
    }

    /// Checks the signature over the very bytes received, without the entry of the signature itself.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, key: &PublicKey) -> Result<(), VerifyError> {
        let signature = match &self.signature {
            Signed::No => return Err(VerifyError::Unsigned),
            Signed::Malformed => return Err(VerifyError::Malformed),
            Signed::Yes { signature, .. } => signature,
        };
        let input = self.signing_input();
        key.verify_raw(&input, signature).map_err(|_| VerifyError::Bad)
    }

    /// What its signature covers: the domain, and the map without the entry of a signature.
    pub fn signing_input(&self) -> Bytes {
        let prefix = Domain::Frame.prefix();
        let mut out = BytesMut::with_capacity(prefix.len() + self.payload.len() + 9);
        out.extend_from_slice(prefix);
        let (entry, entries) = match &self.signature {
            Signed::Yes { entry, .. } => (entry.clone(), self.entries.saturating_sub(1)),
            Signed::No | Signed::Malformed => (self.payload.len()..self.payload.len(), self.entries),
        };
        det::map_head(entries, &mut out);
        let part = |range: Range<usize>| self.payload.get(range).unwrap_or_default();
        out.extend_from_slice(part(head_length(self.entries)..entry.start));
        out.extend_from_slice(part(entry.end..self.payload.len()));
        out.freeze()
    }

    /// The same frame with a signature, if it has no entry of that name yet; otherwise the frame as it is.
    ///
    /// # Errors
    /// [`FrameEncodeError::TooLarge`] if the frame is too long with a signature.
    pub fn signed(&self, identity: &Identity) -> Result<Self, FrameEncodeError> {
        if self.is_signed() {
            return Ok(self.clone());
        }
        let signature = identity.sign_raw(&self.signing_input());
        let at = self.signature_position();
        let mut out = BytesMut::with_capacity(self.payload.len() + 96);
        det::map_head(self.entries.saturating_add(1), &mut out);
        let (before, after) = self.payload.split_at_checked(at).unwrap_or_default();
        out.extend_from_slice(before.get(head_length(self.entries)..).unwrap_or_default());
        let start = out.len();
        out.extend_from_slice(&signature_entry(&signature));
        let entry = start..out.len();
        out.extend_from_slice(after);
        let payload = out.freeze();
        check_length(&payload)?;
        Ok(Self::from_signed(
            payload,
            self.entries.saturating_add(1),
            entry,
            signature,
        ))
    }

    /// Where the entry of a signature belongs.
    fn signature_position(&self) -> usize {
        let name = SIGNATURE_HEAD.get(..10).unwrap_or_default();
        let mut at = head_length(self.entries);
        let checked = det::for_each_entry(&self.payload, &DecodeLimits::DEFAULT, |_, _, key_range, value_range| {
            let smaller = self.payload.get(key_range).is_some_and(|key| key < name);
            if smaller {
                at = value_range.end;
            }
        });
        debug_assert!(checked.is_ok(), "a frame is a canonical map");
        at
    }

    /// The entries of its map in the order of the wire, without its signature.
    pub fn fields(&self, limits: &DecodeLimits) -> Vec<(Value, Value)> {
        let decoded = det::decode(&self.payload, limits);
        let Ok(Value::Map(mut fields)) = decoded else {
            return Vec::new();
        };
        fields.retain(|(key, _)| !is_text(key, "signature"));
        fields
    }
}

/// Length of the shortest head of a map with this many entries.
fn head_length(entries: usize) -> usize {
    det::head_length(entries)
}
