use super::float::f16_to_f64;
use crate::wire::error::{DecodeError, DecodeErrorKind};
use crate::wire::reader::{Reader, Str, Token};

pub(super) const UINT: u8 = 0;
pub(super) const NEGATIVE: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const TEXT: u8 = 3;
pub(super) const ARRAY: u8 = 4;
pub(super) const MAP: u8 = 5;
pub(super) const TAG: u8 = 6;
pub(super) const SIMPLE: u8 = 7;

/// The initial byte of an item and the argument that goes with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) major: u8,
    /// The low five bits of the initial byte; 31 means a length that is not stated, or a break.
    pub(super) info: u8,
    pub(super) argument: u64,
}

impl Head {
    pub(super) fn is_indefinite(self) -> bool {
        self.info == 31
    }

    /// Whether no shorter head says the same.
    pub(super) fn is_shortest(self) -> bool {
        match self.info {
            0..=23 => true,
            24 => self.argument > 23,
            25 => self.argument > 0xFF,
            26 => self.argument > 0xFFFF,
            27 => self.argument > 0xFFFF_FFFF,
            _ => false,
        }
    }
}

/// Reads CBOR items from a slice.
#[derive(Debug)]
pub(crate) struct CborReader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> CborReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length);
        match end.and_then(|end| self.data.get(self.at..end)) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.error(DecodeErrorKind::Truncated)),
        }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    /// Goes on behind the first bytes of [`rest`](Self::rest), no more than it has.
    pub(super) fn skip_bytes(&mut self, length: usize) {
        self.at = self.at.saturating_add(length).min(self.data.len());
    }

    /// The string of the stated length behind a head.
    pub(super) fn string(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(self.error(DecodeErrorKind::Truncated)),
        }
    }

    /// The input between two offsets that were positions of this reader.
    pub(super) fn between(&self, from: usize, to: usize) -> &'a [u8] {
        self.data.get(from..to).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        match rest.first_chunk() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => Err(self.error(DecodeErrorKind::Truncated)),
        }
    }

    #[inline]
    pub(super) fn head(&mut self) -> Result<Head, DecodeError> {
        let start = self.at;
        let initial = match self.data.get(start) {
            Some(&initial) => initial,
            None => return Err(self.error(DecodeErrorKind::Truncated)),
        };
        self.at += 1;
        let (major, info) = (initial >> 5, initial & 0x1F);
        let argument = match info {
            0..=23 => u64::from(info),
            24 => u64::from(u8::from_be_bytes(self.array()?)),
            25 => u64::from(u16::from_be_bytes(self.array()?)),
            26 => u64::from(u32::from_be_bytes(self.array()?)),
            27 => u64::from_be_bytes(self.array()?),
            31 if matches!(major, BYTES | TEXT | ARRAY | MAP | SIMPLE) => 0,
            _ => return Err(DecodeError::new(DecodeErrorKind::Invalid, start)),
        };
        Ok(Head { major, info, argument })
    }

    fn whole_or_chunked(&mut self, head: Head) -> Result<Str<'a>, DecodeError> {
        if !head.is_indefinite() {
            let start = self.at;
            let raw = self.string(head.argument)?;
            check_text(head.major, raw, start)?;
            return Ok(Str::whole(raw));
        }
        let first = self.at;
        let mut length = 0;
        loop {
            let start = self.at;
            let chunk = self.head()?;
            if chunk.major == SIMPLE && chunk.is_indefinite() {
                return Ok(Str::chunked(self.between(first, start), length));
            }
            if chunk.major != head.major || chunk.is_indefinite() {
                return Err(DecodeError::new(DecodeErrorKind::Invalid, start));
            }
            let raw = self.string(chunk.argument)?;
            check_text(head.major, raw, start)?;
            length += raw.len();
        }
    }

    fn simple(&mut self, head: Head, start: usize) -> Result<Token<'a>, DecodeError> {
        let float = match head.info {
            20 => return Ok(Token::Bool(false)),
            21 => return Ok(Token::Bool(true)),
            // `undefined` is what deployed peers read as null.
            22 | 23 => return Ok(Token::Null),
            25 => f16_to_f64(head.argument as u16),
            26 => f64::from(f32::from_bits(head.argument as u32)),
            27 => f64::from_bits(head.argument),
            31 => return Ok(Token::Break),
            _ => return Err(DecodeError::new(DecodeErrorKind::Unsupported, start)),
        };
        if float.is_finite() {
            Ok(Token::Float(float))
        } else {
            Err(DecodeError::new(DecodeErrorKind::NotFinite, start))
        }
    }
}

fn check_text(major: u8, raw: &[u8], at: usize) -> Result<(), DecodeError> {
    if major == TEXT && std::str::from_utf8(raw).is_err() {
        return Err(DecodeError::new(DecodeErrorKind::NotUtf8, at));
    }
    Ok(())
}

impl<'a> Reader<'a> for CborReader<'a> {
    const DUPLICATE_KEYS: bool = false;

    #[inline]
    fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        let start = self.at;
        let head = self.head()?;
        let length = if head.is_indefinite() {
            None
        } else {
            Some(head.argument)
        };
        Ok(match head.major {
            UINT => Token::Uint(head.argument),
            NEGATIVE => Token::Negative(head.argument),
            BYTES => Token::Bytes(self.whole_or_chunked(head)?),
            TEXT => Token::Text(self.whole_or_chunked(head)?),
            ARRAY => Token::Array(length),
            MAP => Token::Map(length),
            TAG => Token::Tag(head.argument),
            _ => self.simple(head, start)?,
        })
    }

    #[inline]
    fn short_bytes(&mut self) -> Option<&'a [u8]> {
        const SHORT: u8 = BYTES << 5;
        let rest = self.data.get(self.at..)?;
        let (length, head) = match *rest {
            [head @ SHORT..=0x57, ..] => (head - SHORT, 1),
            [0x58, length, ..] => (length, 2),
            _ => return None,
        };
        let end = head + usize::from(length);
        let bytes = rest.get(head..end)?;
        self.at += end;
        Some(bytes)
    }

    fn position(&self) -> usize {
        self.at
    }

    fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }
}

/// The chunks of a string without a stated length, after the reader has checked them.
#[derive(Debug, Clone)]
pub(crate) struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    pub(crate) fn new(raw: &'a [u8]) -> Self {
        Self(raw)
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut reader = CborReader::new(self.0);
        let head = reader.head().ok()?;
        let chunk = reader.string(head.argument).ok()?;
        self.0 = self.0.get(reader.at..)?;
        Some(chunk)
    }
}
