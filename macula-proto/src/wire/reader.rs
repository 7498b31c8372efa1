//! One pull reader per encoding, both speaking the same tokens: what is read through them needs no value tree.

use super::cbor::Chunks;
use super::error::{DecodeError, DecodeErrorKind};
use bytes::Bytes;

/// One item's head. Strings come whole; arrays and maps are followed by their elements.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token<'a> {
    Null,
    Bool(bool),
    Uint(u64),
    /// The integer -1 - n.
    Negative(u64),
    Float(f64),
    Bytes(Str<'a>),
    Text(Str<'a>),
    /// Number of elements; `None`: until [`Token::Break`].
    Array(Option<u64>),
    /// Number of entries; `None`: until [`Token::Break`].
    Map(Option<u64>),
    /// CBOR only: the tag of the item that follows.
    Tag(u64),
    /// CBOR only: the end of an array or map without a stated length.
    Break,
    /// MessagePack only: an extension value, already skipped.
    Extension,
}

/// A string as it lies in the input, possibly in chunks (CBOR strings without a stated length).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Str<'a> {
    raw: &'a [u8],
    chunked: Option<usize>,
}

impl<'a> Str<'a> {
    pub(crate) fn whole(raw: &'a [u8]) -> Self {
        Self { raw, chunked: None }
    }

    /// `raw` holds definite chunks, already checked, that together have `len` bytes.
    pub(crate) fn chunked(raw: &'a [u8], len: usize) -> Self {
        Self {
            raw,
            chunked: Some(len),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.chunked.unwrap_or(self.raw.len())
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (whole, chunks) = match self.chunked {
            None => (Some(self.raw), None),
            Some(_) => (None, Some(Chunks::new(self.raw))),
        };
        whole.into_iter().chain(chunks.into_iter().flatten())
    }

    /// The bytes where they lie, if they lie together.
    pub(crate) fn as_whole(&self) -> Option<&'a [u8]> {
        match self.chunked {
            None => Some(self.raw),
            Some(_) => None,
        }
    }

    #[inline]
    pub(crate) fn is(&self, expected: &[u8]) -> bool {
        if let Some(whole) = self.as_whole() {
            return whole == expected;
        }
        if self.len() != expected.len() {
            return false;
        }
        let mut rest = expected;
        for chunk in self.chunks() {
            match rest.strip_prefix(chunk) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// A copy of its own, so that nothing of the input stays pinned.
    pub(crate) fn to_bytes(self) -> Bytes {
        match self.as_whole() {
            Some(raw) => Bytes::copy_from_slice(raw),
            None => {
                let mut out = Vec::with_capacity(self.len());
                self.chunks().for_each(|chunk| out.extend_from_slice(chunk));
                out.into()
            }
        }
    }

    /// A copy, if it has exactly `N` bytes.
    pub(crate) fn to_array<const N: usize>(self) -> Option<[u8; N]> {
        if self.len() != N {
            return None;
        }
        if let Some(whole) = self.as_whole() {
            return whole.try_into().ok();
        }
        let mut out = [0; N];
        let mut at = 0;
        for chunk in self.chunks() {
            let end = at + chunk.len();
            out.get_mut(at..end)?.copy_from_slice(chunk);
            at = end;
        }
        Some(out)
    }
}

/// Reads tokens one after the other from a slice, never past its end and never allocating.
pub(crate) trait Reader<'a> {
    /// Whether a map may hold a key twice (the last entry then counts); deployed CBOR refuses it, deployed MessagePack
    /// does not.
    const DUPLICATE_KEYS: bool;

    fn token(&mut self) -> Result<Token<'a>, DecodeError>;

    /// The next item if it is a byte string that lies together, its length in one byte, as nearly all strings of control
    /// messages are; otherwise `None`, and nothing was read. [`token`](Self::token) reads the same, and all others.
    fn short_bytes(&mut self) -> Option<&'a [u8]>;

    /// Offset of the next byte.
    fn position(&self) -> usize;

    /// Number of bytes not read yet.
    fn remaining(&self) -> usize;

    fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(kind, self.position())
    }

    /// The next token behind any tags, where something has to come.
    fn item(&mut self) -> Result<Token<'a>, DecodeError> {
        loop {
            let start = self.position();
            match self.token()? {
                Token::Tag(_) => {}
                Token::Break => return Err(DecodeError::new(DecodeErrorKind::Invalid, start)),
                token => return Ok(token),
            }
        }
    }

    /// Refuses bytes that were not read.
    fn finish(&self) -> Result<(), DecodeError> {
        if self.remaining() == 0 {
            Ok(())
        } else {
            Err(self.error(DecodeErrorKind::Trailing))
        }
    }

    /// Skips what belongs to `token`, which has just been read, nested at most `limit` deep.
    fn skip(&mut self, token: Token<'a>, limit: usize) -> Result<(), DecodeError>
    where
        Self: Sized,
    {
        skip(self, token, limit, limit)
    }
}

fn skip<'a>(reader: &mut impl Reader<'a>, token: Token<'a>, left: usize, limit: usize) -> Result<(), DecodeError> {
    let (length, per_entry) = match token {
        Token::Array(length) => (length, 1),
        Token::Map(length) => (length, 2),
        _ => return Ok(()),
    };
    let Some(left) = left.checked_sub(1) else {
        return Err(reader.error(DecodeErrorKind::TooDeep { limit }));
    };
    let mut entries = Entries::new(reader, length, per_entry)?;
    while let Some(first) = entries.next(reader)? {
        skip(reader, first, left, limit)?;
        for _ in 1..per_entry {
            let token = reader.item()?;
            skip(reader, token, left, limit)?;
        }
    }
    Ok(())
}

/// Walks the entries of an array or map, whose head has just been read, to its end.
#[derive(Debug)]
pub(crate) struct Entries {
    left: Option<u64>,
}

impl Entries {
    /// `per_entry` is 1 for arrays and 2 for maps. Each item takes a byte at least, so a length that the rest of the
    /// input cannot hold is refused at once.
    pub(crate) fn new<'a>(reader: &impl Reader<'a>, length: Option<u64>, per_entry: u64) -> Result<Self, DecodeError> {
        match length {
            Some(length) if length.saturating_mul(per_entry) > reader.remaining() as u64 => {
                Err(reader.error(DecodeErrorKind::Truncated))
            }
            left => Ok(Self { left }),
        }
    }

    /// The next entry's first item if it can be had from [`Reader::short_bytes`]; otherwise nothing was read.
    #[inline]
    pub(crate) fn next_short_bytes<'a>(&mut self, reader: &mut impl Reader<'a>) -> Option<&'a [u8]> {
        let left = self.left.as_mut()?;
        let fewer = left.checked_sub(1)?;
        let bytes = reader.short_bytes()?;
        *left = fewer;
        Some(bytes)
    }

    /// The first token of the next entry, possibly a tag; `None` behind the last entry.
    pub(crate) fn next_tagged<'a>(&mut self, reader: &mut impl Reader<'a>) -> Result<Option<Token<'a>>, DecodeError> {
        match &mut self.left {
            Some(0) => Ok(None),
            Some(left) => {
                *left -= 1;
                Ok(Some(reader.token()?))
            }
            None => match reader.token()? {
                Token::Break => Ok(None),
                token => Ok(Some(token)),
            },
        }
    }

    /// The first token of the next entry, tags taken off; `None` behind the last entry.
    pub(crate) fn next<'a>(&mut self, reader: &mut impl Reader<'a>) -> Result<Option<Token<'a>>, DecodeError> {
        match self.next_tagged(reader)? {
            Some(Token::Tag(_)) => Ok(Some(reader.item()?)),
            Some(Token::Break) => Err(reader.error(DecodeErrorKind::Invalid)),
            token => Ok(token),
        }
    }
}
