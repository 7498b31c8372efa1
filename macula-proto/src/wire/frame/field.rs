//! Typed fields out of values, and back.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::{identity::NodeId, wire::Value};

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

/// A type that a field can have.
pub(super) trait Field: Sized {
    fn read(value: Value) -> Result<Self, FieldFault>;

    fn write(&self) -> Value;

    /// What stands for a field that is not there.
    fn absent() -> Result<Self, FieldFault> {
        Err(FieldFault::Missing)
    }
}

/// The entries of a map, taken out one by one by name.
pub(super) struct Taker {
    entries: Vec<(Value, Value)>,
    taken: Vec<usize>,
}

impl Taker {
    pub(super) fn new(entries: Vec<(Value, Value)>) -> Self {
        Self {
            entries,
            taken: Vec::new(),
        }
    }

    pub(super) fn take<F: Field>(&mut self, field: &'static str) -> Result<F, FieldError> {
        let found = self.entries.iter().position(|(key, _)| is_text(key, field));
        let read = match found.and_then(|at| self.entries.get_mut(at).map(|(_, value)| (at, value))) {
            Some((at, value)) => {
                self.taken.push(at);
                F::read(std::mem::replace(value, Value::Null))
            }
            None => F::absent(),
        };
        read.map_err(|fault| FieldError { field, fault })
    }

    /// What was not taken.
    pub(super) fn rest(self) -> Vec<(Value, Value)> {
        let Self { mut entries, mut taken } = self;
        taken.sort_unstable();
        let mut taken = taken.into_iter().peekable();
        let mut at = 0;
        entries.retain(|_| {
            let keep = taken.next_if_eq(&at).is_none();
            at += 1;
            keep
        });
        entries
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

/// A key of a map, without an allocation.
pub(super) const fn key(name: &'static str) -> Value {
    Value::Text(Bytes::from_static(name.as_bytes()))
}

impl Field for Value {
    fn read(value: Value) -> Result<Self, FieldFault> {
        Ok(value)
    }

    fn write(&self) -> Value {
        self.clone()
    }
}

impl Field for u64 {
    fn read(value: Value) -> Result<Self, FieldFault> {
        match value {
            Value::Uint(value) => Ok(value),
            _ => Err(FieldFault::Type),
        }
    }

    fn write(&self) -> Value {
        Value::Uint(*self)
    }
}

impl Field for u8 {
    fn read(value: Value) -> Result<Self, FieldFault> {
        u64::read(value)?.try_into().map_err(|_| FieldFault::Range)
    }

    fn write(&self) -> Value {
        Value::Uint(u64::from(*self))
    }
}

/// The texts `true` and `false`.
impl Field for bool {
    fn read(value: Value) -> Result<Self, FieldFault> {
        if is_text(&value, "true") {
            Ok(true)
        } else if is_text(&value, "false") {
            Ok(false)
        } else if matches!(value, Value::Text(_)) {
            Err(FieldFault::Range)
        } else {
            Err(FieldFault::Type)
        }
    }

    fn write(&self) -> Value {
        key(if *self { "true" } else { "false" })
    }
}

impl Field for Bytes {
    fn read(value: Value) -> Result<Self, FieldFault> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(FieldFault::Type),
        }
    }

    fn write(&self) -> Value {
        Value::Bytes(self.clone())
    }
}

impl Field for Text {
    fn read(value: Value) -> Result<Self, FieldFault> {
        match value {
            Value::Text(text) => Ok(Self(text)),
            _ => Err(FieldFault::Type),
        }
    }

    fn write(&self) -> Value {
        Value::Text(self.0.clone())
    }
}

impl<const N: usize> Field for [u8; N] {
    fn read(value: Value) -> Result<Self, FieldFault> {
        Bytes::read(value)?.as_ref().try_into().map_err(|_| FieldFault::Length)
    }

    fn write(&self) -> Value {
        Value::bytes(self)
    }
}

impl Field for NodeId {
    fn read(value: Value) -> Result<Self, FieldFault> {
        Field::read(value).map(Self::from_bytes)
    }

    fn write(&self) -> Value {
        self.as_bytes().write()
    }
}

impl Field for Map {
    fn read(value: Value) -> Result<Self, FieldFault> {
        match value {
            Value::Map(entries) => Ok(Self(entries)),
            _ => Err(FieldFault::Type),
        }
    }

    fn write(&self) -> Value {
        Value::Map(self.0.clone())
    }
}

/// Null stands for `None`, and so does a field that is not there.
impl<F: Field> Field for Option<F> {
    fn read(value: Value) -> Result<Self, FieldFault> {
        match value {
            Value::Null => Ok(None),
            value => F::read(value).map(Some),
        }
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, F::write)
    }

    fn absent() -> Result<Self, FieldFault> {
        Ok(None)
    }
}

impl<F: Field> Field for Vec<F> {
    fn read(value: Value) -> Result<Self, FieldFault> {
        match value {
            Value::Array(elements) => elements.into_iter().map(F::read).collect(),
            _ => Err(FieldFault::Type),
        }
    }

    fn write(&self) -> Value {
        Value::Array(self.iter().map(F::write).collect())
    }
}
