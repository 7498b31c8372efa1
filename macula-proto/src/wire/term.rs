//! Values from and to types of serde.
//!
//! | Type | Value |
//! |---|---|
//! | numbers, booleans | the same; an integer has to fit into 64 bits, a float has to be finite |
//! | `char`, strings, unit variants | text |
//! | `serialize_bytes` (the crate `serde_bytes`) | a byte string |
//! | `()`, `None`, unit structs | null |
//! | sequences, tuples | arrays |
//! | maps, structs | maps; the names of fields are text |
//! | other variants | a map with one entry: the name, and what is in it |
//!
//! Reading is laxer, because deployed peers write atoms, strings and what they have no type for as byte strings, and lists of small
//! integers as text: where a string is asked for, byte strings that are UTF-8 count too; where bytes or a list are asked for,
//! both kinds of string do; and `true` and `false` may be strings.

mod de;
mod ser;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::Value;

/// A value is not what it was to be converted to, or what was to be converted has no form on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl serde::ser::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl serde::de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Makes a value of anything that serde serialises.
///
/// # Errors
/// [`ValueError`] for an integer beyond 64 bits and a float that is not finite, and what the type itself objects to.
pub fn to_value<T: Serialize + ?Sized>(from: &T) -> Result<Value, ValueError> {
    from.serialize(ser::ToValue)
}

/// Makes a type of serde of a value.
///
/// # Errors
/// [`ValueError`] says what was expected.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ValueError> {
    T::deserialize(de::FromValue(value))
}
