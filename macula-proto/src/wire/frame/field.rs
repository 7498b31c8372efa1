//! Typed fields out of values, and back.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use super::encode::FrameEncodeError;
use crate::{
    identity::NodeId,
    wire::{
        DecodeLimits, EncodeError, Value,
        cbor::{
            Pen,
            det::{self, Item, Source},
        },
    },
};

/// Text that need not be UTF-8: deployed peers do not check it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    /// The text with these bytes.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// A text that costs no allocation.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// What is not UTF-8 shows as replacement characters.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The entries of a map whose keys are up to its users: addresses, sites, options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Map(pub Vec<(Value, Value)>);

impl Map {
    /// What the map holds under a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        lookup(&self.0, key)
    }
}

/// A field that is missing or not of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("field {field}: {fault}")]
pub struct FieldError {
    /// The name of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: FieldFault,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FieldFault {
    /// It is not there.
    #[error("missing")]
    Missing,
    /// It has another type.
    #[error("of another type")]
    Type,
    /// It has another length.
    #[error("of another length")]
    Length,
    /// A number too large, or a text that is none of those defined.
    #[error("out of range")]
    Range,
}

/// What can be written as the value of an entry.
pub(super) trait Put {
    /// Appends the value, nested no deeper than `depth`; after an error also some of it.
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError>;
}

/// A type that a field can have.
pub(super) trait Field: Put + Sized {
    /// The field out of an item that lies in `source`.
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault>;

    /// The field out of the item that `rest`, which lies in `source`, begins with, and which was checked.
    #[inline]
    fn scan(rest: &[u8], source: Source<'_>) -> Option<Self> {
        Self::read(det::checked(rest)?, source).ok()
    }

    /// What stands for a field that is not there.
    fn absent() -> Result<Self, FieldFault> {
        Err(FieldFault::Missing)
    }
}

/// What the fields of a frame are taken out of.
pub(super) trait Fields {
    /// The field of this name, which is most likely at `position` of a signed frame, or one in front of it if something is not
    /// there that could be.
    fn take<F: Field>(&mut self, field: &'static str, position: usize) -> Result<F, FieldError>;
}

/// The entries of a map, taken out one by one by name.
pub(super) struct Taker<'a> {
    source: Source<'a>,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    key: Item<'a>,
    value: Item<'a>,
    taken: bool,
}

impl<'a> Taker<'a> {
    pub(super) fn new(source: Source<'a>, capacity: usize) -> Self {
        let entries = Vec::with_capacity(capacity);
        Self { source, entries }
    }

    pub(super) fn add(&mut self, key: Item<'a>, value: Item<'a>) {
        let taken = false;
        self.entries.push(Entry { key, value, taken });
    }

    /// The field if it is there and fits; otherwise it stays.
    pub(super) fn take_fitting<F: Field>(&mut self, field: &str) -> Option<F> {
        let source = self.source;
        let entry = self.find(field, 0)?;
        let read = F::read(entry.value, source).ok()?;
        entry.taken = true;
        Some(read)
    }

    /// The text under a key.
    pub(super) fn take_text(&mut self, field: &'static str) -> Result<&'a [u8], FieldError> {
        let error = |fault| FieldError { field, fault };
        let entry = self.find(field, 0).ok_or(error(FieldFault::Missing))?;
        let Item::Text(text) = entry.value else {
            return Err(error(FieldFault::Type));
        };
        entry.taken = true;
        Ok(text)
    }

    fn find(&mut self, field: &str, position: usize) -> Option<&mut Entry<'a>> {
        let is = |entry: &Entry<'_>| matches!(entry.key, Item::Text(key) if key == field.as_bytes());
        let near = position.saturating_sub(1);
        let at = [position, near]
            .into_iter()
            .find(|&at| self.entries.get(at).is_some_and(is));
        let at = at.or_else(|| self.entries.iter().position(is))?;
        self.entries.get_mut(at)
    }

    /// Forgets what was taken.
    pub(super) fn reset(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.taken = false);
    }

    /// What was not taken.
    pub(super) fn rest(&self) -> Vec<(Value, Value)> {
        self.rest_but(|_, _| false)
    }

    /// What was not taken, but for what `skip` picks.
    pub(super) fn rest_but(&self, skip: impl Fn(Item<'_>, Item<'_>) -> bool) -> Vec<(Value, Value)> {
        let left = |entry: &&Entry<'_>| !entry.taken && !skip(entry.key, entry.value);
        let values = |entry: &Entry<'_>| (entry.key.to_value(self.source), entry.value.to_value(self.source));
        self.entries.iter().filter(left).map(values).collect()
    }
}

impl Fields for Taker<'_> {
    fn take<F: Field>(&mut self, field: &'static str, position: usize) -> Result<F, FieldError> {
        let source = self.source;
        let read = match self.find(field, position) {
            Some(entry) => {
                entry.taken = true;
                F::read(entry.value, source)
            }
            None => F::absent(),
        };
        read.map_err(|fault| FieldError { field, fault })
    }
}

pub(super) fn is_text(value: &Value, text: &str) -> bool {
    matches!(value, Value::Text(bytes) if bytes == text.as_bytes())
}

pub(super) fn lookup<'a>(entries: &'a [(Value, Value)], key: &str) -> Option<&'a Value> {
    entries
        .iter()
        .find(|(name, _)| is_text(name, key))
        .map(|(_, value)| value)
}

/// Appends a text that is not `undefined`.
pub(super) fn put_word(out: &mut Pen<'_>, word: &str) {
    out.text(word.as_bytes());
}

/// One level down.
pub(super) fn deeper(depth: usize) -> Result<usize, EncodeError> {
    let limit = DecodeLimits::DEFAULT.depth;
    depth.checked_sub(1).ok_or(EncodeError::TooDeep { limit })
}

/// Refuses what deployed peers would read as something else.
fn check(value: &Value, depth: usize) -> Result<(), FrameEncodeError> {
    match value {
        Value::Text(text) if text == "undefined" => Err(FrameEncodeError::Undefined),
        Value::Array(elements) => {
            let depth = deeper(depth)?;
            elements.iter().try_for_each(|element| check(element, depth))
        }
        Value::Map(entries) => check_entries(entries, depth),
        _ => Ok(()),
    }
}

fn check_entries(entries: &[(Value, Value)], depth: usize) -> Result<(), FrameEncodeError> {
    let depth = deeper(depth)?;
    entries.iter().try_for_each(|(key, value)| match key {
        Value::Text(_) => check(value, depth),
        _ => Err(FrameEncodeError::Key),
    })
}

impl Put for Value {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        check(self, depth)?;
        Ok(det::put(self, out, depth)?)
    }
}

impl Field for Value {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        Ok(item.to_value(source))
    }
}

impl Put for u64 {
    fn put(&self, out: &mut Pen<'_>, _: usize) -> Result<(), FrameEncodeError> {
        out.uint(*self);
        Ok(())
    }
}

impl Field for u64 {
    fn read(item: Item<'_>, _: Source<'_>) -> Result<Self, FieldFault> {
        match item {
            Item::Uint(value) => Ok(value),
            _ => Err(FieldFault::Type),
        }
    }

    #[inline]
    fn scan(rest: &[u8], _: Source<'_>) -> Option<Self> {
        det::uint(rest)
    }
}

impl Put for u8 {
    fn put(&self, out: &mut Pen<'_>, _: usize) -> Result<(), FrameEncodeError> {
        out.uint(u64::from(*self));
        Ok(())
    }
}

impl Field for u8 {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        u64::read(item, source)?.try_into().map_err(|_| FieldFault::Range)
    }
}

/// The texts `true` and `false`.
impl Put for bool {
    fn put(&self, out: &mut Pen<'_>, _: usize) -> Result<(), FrameEncodeError> {
        put_word(out, if *self { "true" } else { "false" });
        Ok(())
    }
}

impl Field for bool {
    fn read(item: Item<'_>, _: Source<'_>) -> Result<Self, FieldFault> {
        match item {
            Item::Text(b"true") => Ok(true),
            Item::Text(b"false") => Ok(false),
            Item::Text(_) => Err(FieldFault::Range),
            _ => Err(FieldFault::Type),
        }
    }
}

/// A string as a value; `None` for anything else.
fn string(item: Item<'_>, source: Source<'_>) -> Option<Value> {
    matches!(item, Item::Bytes(_) | Item::Text(_)).then(|| item.to_value(source))
}

impl Put for Bytes {
    fn put(&self, out: &mut Pen<'_>, _: usize) -> Result<(), FrameEncodeError> {
        out.bytes(self);
        Ok(())
    }
}

impl Field for Bytes {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        match string(item, source) {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => Err(FieldFault::Type),
        }
    }
}

impl Put for Text {
    fn put(&self, out: &mut Pen<'_>, _: usize) -> Result<(), FrameEncodeError> {
        if self.0 == "undefined" {
            return Err(FrameEncodeError::Undefined);
        }
        out.text(&self.0);
        Ok(())
    }
}

impl Field for Text {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        match string(item, source) {
            Some(Value::Text(text)) => Ok(Self(text)),
            _ => Err(FieldFault::Type),
        }
    }
}

impl<const N: usize> Put for [u8; N] {
    fn put(&self, out: &mut Pen<'_>, _: usize) -> Result<(), FrameEncodeError> {
        out.bytes(self);
        Ok(())
    }
}

impl<const N: usize> Field for [u8; N] {
    fn read(item: Item<'_>, _: Source<'_>) -> Result<Self, FieldFault> {
        match item {
            Item::Bytes(bytes) => bytes.try_into().map_err(|_| FieldFault::Length),
            _ => Err(FieldFault::Type),
        }
    }

    #[inline]
    fn scan(rest: &[u8], _: Source<'_>) -> Option<Self> {
        // As long as its length says, so that only the head has to be looked at.
        let (fits, bytes) = if N < 24 {
            let (&head, bytes) = rest.split_first()?;
            (usize::from(head) == 0x40 | N, bytes)
        } else {
            let (&[head, length], bytes) = rest.split_first_chunk()?;
            (head == 0x58 && usize::from(length) == N, bytes)
        };
        bytes.first_chunk().filter(|_| fits).copied()
    }
}

impl Put for NodeId {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        self.as_bytes().put(out, depth)
    }
}

impl Field for NodeId {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        Field::read(item, source).map(Self::from_bytes)
    }

    #[inline]
    fn scan(rest: &[u8], source: Source<'_>) -> Option<Self> {
        Field::scan(rest, source).map(Self::from_bytes)
    }
}

impl Put for Map {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        check_entries(&self.0, depth)?;
        Ok(det::put_map(&self.0, out, depth)?)
    }
}

impl Field for Map {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        match item {
            Item::Map(_) => match item.to_value(source) {
                Value::Map(entries) => Ok(Self(entries)),
                _ => Err(FieldFault::Type),
            },
            _ => Err(FieldFault::Type),
        }
    }
}

/// Null stands for `None`, and so does a field that is not there.
impl<F: Field> Put for Option<F> {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        match self {
            Some(field) => field.put(out, depth),
            None => {
                out.null();
                Ok(())
            }
        }
    }
}

impl<F: Field> Field for Option<F> {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        match item {
            Item::Null => Ok(None),
            item => F::read(item, source).map(Some),
        }
    }

    #[inline]
    fn scan(rest: &[u8], source: Source<'_>) -> Option<Self> {
        match rest.first() {
            Some(0xF6) => Some(None),
            _ => F::scan(rest, source).map(Some),
        }
    }

    fn absent() -> Result<Self, FieldFault> {
        Ok(None)
    }
}

impl<F: Field> Put for Vec<F> {
    fn put(&self, out: &mut Pen<'_>, depth: usize) -> Result<(), FrameEncodeError> {
        let depth = deeper(depth)?;
        out.array(self.len());
        self.iter().try_for_each(|element| element.put(out, depth))
    }
}

impl<F: Field> Field for Vec<F> {
    fn read(item: Item<'_>, source: Source<'_>) -> Result<Self, FieldFault> {
        match item {
            Item::Array(nested) => nested.elements().map(|element| F::read(element, source)).collect(),
            _ => Err(FieldFault::Type),
        }
    }
}
