use super::error::{DecodeError, DecodeErrorKind};
use super::reader::{Entries, Reader, Str, Token};
use bytes::Bytes;
use std::cmp::Ordering;

/// Caps of a decoder that builds a [`Value`].
///
/// Besides these, every length is compared with the bytes at hand before anything is allocated for it, so what a
/// decoder allocates is bounded by the caps and the input's own size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeLimits {
    /// Arrays and maps within each other. Default 128; deployed CBOR peers stop at 256, deployed peering at nothing.
    pub depth: usize,
    /// Items of all kinds: elements, keys, values, tags. Each costs about 40 bytes of memory and as little as one byte
    /// of input. Default 262,144.
    pub items: usize,
}

impl DecodeLimits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        depth: 128,
        items: 1 << 18,
    };

    /// The same limits with another nesting allowed. More than a few thousand may exhaust the stack.
    #[must_use]
    pub const fn with_depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// The same limits with another number of items allowed.
    #[must_use]
    pub const fn with_items(mut self, items: usize) -> Self {
        self.items = items;
        self
    }
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Strings of up to this many bytes are copied out of the input; longer ones share its buffer. So a short string never
/// keeps a large receive buffer alive, and a large body is never copied.
pub(super) const COPY_UP_TO: usize = 512;

/// A tree of values in the order of the wire.
///
/// Text need not be UTF-8: Erlang's MessagePack sends lists of small integers as `str`, and deployed peering checks no
/// text. Equality compares maps entry by entry in order, and floats by their bits, so that -0.0 is not 0.0.
#[derive(Debug, Clone)]
pub enum Value {
    /// CBOR null or undefined; MessagePack nil.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer that is not negative.
    Uint(u64),
    /// An integer below zero. (What is not negative belongs into [`Value::Uint`]; `Value::from(i64)` picks the right one.)
    Int(i64),
    /// A float. Encoders refuse infinities and NaN, which Erlang does not have.
    Float(f64),
    /// A byte string.
    Bytes(Bytes),
    /// A text string, UTF-8 as a rule.
    Text(Bytes),
    /// An array.
    Array(Vec<Value>),
    /// The entries of a map in the order of the wire.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// A byte string with a copy of `bytes`.
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bytes(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// A text string with a copy of `text`.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Bytes::copy_from_slice(text.as_ref().as_bytes()))
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// A boolean's value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The value of an integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Uint(value) => Some(value),
            Self::Int(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The value of an integer below 2^63.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Uint(value) => i64::try_from(value).ok(),
            Self::Int(value) => Some(value),
            _ => None,
        }
    }

    /// The contents of a byte string; text does not count.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The contents of a text string that is UTF-8; byte strings do not count.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// The contents of a byte or text string, for fields that peers send as either.
    pub fn as_string(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(string) | Self::Text(string) => Some(string),
            _ => None,
        }
    }

    /// An array's elements.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// A map's entries.
    pub fn as_map(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// What a map holds under a text or byte-string key with these bytes. Of several equal keys the last one counts, as
    /// in Erlang.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Value> {
        let key = key.as_ref();
        let holds = |entry: &&(Value, Value)| entry.0.as_string().is_some_and(|name| name == key);
        self.as_map()?.iter().rev().find(holds).map(|(_, value)| value)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Uint(a), Self::Uint(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Bytes(a), Self::Bytes(b)) | (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Uint(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        u64::try_from(value).map_or(Self::Int(value), Self::Uint)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::bytes(bytes)
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<Value>> for Value {
    fn from(elements: Vec<Value>) -> Self {
        Self::Array(elements)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A string out of `source`, the buffer that `string` lies in: shared when it is long, copied when it is short.
pub(super) fn shared(source: &Bytes, string: Str<'_>) -> Bytes {
    match string.as_whole() {
        Some(whole) => share(source, whole),
        None => string.to_bytes(),
    }
}

/// The same for a string that lies in one piece.
pub(super) fn share(source: &Bytes, string: &[u8]) -> Bytes {
    if string.len() > COPY_UP_TO {
        source.slice_ref(string)
    } else {
        Bytes::copy_from_slice(string)
    }
}

/// Builds one value out of what `reader` reads from `source`.
pub(super) fn build<'a, R: Reader<'a>>(
    reader: &mut R,
    source: &Bytes,
    limits: &DecodeLimits,
) -> Result<Value, DecodeError> {
    let first = reader.token()?;
    build_from(first, reader, source, limits, &mut { limits.items })
}

/// Like [`build`], with the value's first token read already and an account of `items` that are still allowed.
pub(super) fn build_from<'a, R: Reader<'a>>(
    first: Token<'a>,
    reader: &mut R,
    source: &Bytes,
    limits: &DecodeLimits,
    items: &mut usize,
) -> Result<Value, DecodeError> {
    let mut builder = Builder {
        reader,
        source,
        limits,
        items: *items,
    };
    let value = builder.value(first, limits.depth)?;
    *items = builder.items;
    Ok(value)
}

struct Builder<'b, R> {
    reader: &'b mut R,
    source: &'b Bytes,
    limits: &'b DecodeLimits,
    /// Items still allowed.
    items: usize,
}

impl<'a, R: Reader<'a>> Builder<'_, R> {
    fn value(&mut self, token: Token<'a>, depth: usize) -> Result<Value, DecodeError> {
        self.count()?;
        Ok(match token {
            Token::Null => Value::Null,
            Token::Bool(value) => Value::Bool(value),
            Token::Uint(value) => Value::Uint(value),
            Token::Negative(value) => self.negative(value)?,
            Token::Float(value) => Value::Float(value),
            Token::Bytes(string) => Value::Bytes(shared(self.source, string)),
            Token::Text(string) => Value::Text(shared(self.source, string)),
            Token::Array(length) => {
                let depth = self.deeper(depth)?;
                Value::Array(self.elements(length, depth)?)
            }
            Token::Map(length) => {
                let depth = self.deeper(depth)?;
                Value::Map(self.entries(length, depth)?)
            }
            Token::Tag(tag) => self.tagged(tag, depth)?,
            Token::Break => return Err(self.reader.error(DecodeErrorKind::Invalid)),
            Token::Extension => return Err(self.reader.error(DecodeErrorKind::Unsupported)),
        })
    }

    fn elements(&mut self, length: Option<u64>, depth: usize) -> Result<Vec<Value>, DecodeError> {
        let mut entries = Entries::new(self.reader, length, 1)?;
        let mut elements = Vec::new();
        while let Some(token) = entries.next_tagged(self.reader)? {
            elements.push(self.value(token, depth)?);
        }
        Ok(elements)
    }

    fn entries(&mut self, length: Option<u64>, depth: usize) -> Result<Vec<(Value, Value)>, DecodeError> {
        let start = self.reader.position();
        let mut entries = Entries::new(self.reader, length, 2)?;
        let mut map = Vec::new();
        while let Some(token) = entries.next_tagged(self.reader)? {
            let key = self.value(token, depth)?;
            let token = self.reader.token()?;
            map.push((key, self.value(token, depth)?));
        }
        if !R::DUPLICATE_KEYS && has_duplicate_keys(&map) {
            return Err(DecodeError::new(DecodeErrorKind::DuplicateKey, start));
        }
        Ok(map)
    }

    /// Tags mean nothing here and are taken off, except for the two that make an integer out of a byte string.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value, DecodeError> {
        const POSITIVE_BIGNUM: u64 = 2;
        const NEGATIVE_BIGNUM: u64 = 3;
        let mut tag = tag;
        loop {
            match (self.reader.token()?, tag) {
                (Token::Tag(inner), _) => {
                    self.count()?;
                    tag = inner;
                }
                (Token::Bytes(string), POSITIVE_BIGNUM) => return Ok(Value::Uint(self.bignum(string)?)),
                (Token::Bytes(string), NEGATIVE_BIGNUM) => {
                    let magnitude = self.bignum(string)?;
                    return self.negative(magnitude);
                }
                (token, _) => return self.value(token, depth),
            }
        }
    }

    fn bignum(&self, string: Str<'a>) -> Result<u64, DecodeError> {
        let mut digits = string.chunks().flatten();
        let value = digits.try_fold(0u64, |sum, &byte| Some(sum.checked_mul(256)? | u64::from(byte)));
        value.ok_or_else(|| self.reader.error(DecodeErrorKind::IntegerRange))
    }

    fn negative(&self, complement: u64) -> Result<Value, DecodeError> {
        match i64::try_from(complement) {
            Ok(complement) => Ok(Value::Int(!complement)),
            Err(_) => Err(self.reader.error(DecodeErrorKind::IntegerRange)),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, DecodeError> {
        let limit = self.limits.depth;
        let deeper = depth.checked_sub(1);
        deeper.ok_or_else(|| self.reader.error(DecodeErrorKind::TooDeep { limit }))
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        let limit = self.limits.items;
        match self.items.checked_sub(1) {
            Some(left) => {
                self.items = left;
                Ok(())
            }
            None => Err(self.reader.error(DecodeErrorKind::TooManyItems { limit })),
        }
    }
}

/// Whether two keys of a map are the same to Erlang, for which text and byte strings are one thing.
pub(super) fn has_duplicate_keys(map: &[(Value, Value)]) -> bool {
    let mut keys: Vec<&Value> = map.iter().map(|(key, _)| key).collect();
    keys.sort_unstable_by(|a, b| compare_keys(a, b));
    keys.windows(2)
        .any(|pair| matches!(pair, [a, b] if compare_keys(a, b) == Ordering::Equal))
}

/// Some total order in which exactly the keys that are the same to Erlang are equal.
fn compare_keys(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Bytes(a) | Value::Text(a), Value::Bytes(b) | Value::Text(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let unequal = a
                .iter()
                .zip(b)
                .map(|(a, b)| compare_keys(a, b))
                .find(|order| order.is_ne());
            unequal.unwrap_or(a.len().cmp(&b.len()))
        }
        (Value::Map(a), Value::Map(b)) => {
            let entry = |((a_key, a_value), (b_key, b_value)): (&(Value, Value), &(Value, Value))| {
                compare_keys(a_key, b_key).then_with(|| compare_keys(a_value, b_value))
            };
            let unequal = a.iter().zip(b).map(entry).find(|order| order.is_ne());
            unequal.unwrap_or(a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Uint(_) => 2,
        Value::Int(_) => 3,
        Value::Float(_) => 4,
        Value::Bytes(_) | Value::Text(_) => 5,
        Value::Array(_) => 6,
        Value::Map(_) => 7,
    }
}
