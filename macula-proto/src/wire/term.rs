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
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{
    Serialize,
    de::{DeserializeOwned, Expected, Unexpected},
};

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

/// Errors end up in logs, where what a peer sent does not belong: they tell kinds, not contents.
impl serde::de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("found {}, expected {expected}", kind(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("found {} that does not fit, expected {expected}", kind(&found)))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("found an unknown variant, expected one of {expected:?}"))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("found an unknown field, expected one of {expected:?}"))
    }
}

fn kind<'a>(found: &Unexpected<'a>) -> &'a str {
    match *found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Char(_) | Unexpected::Str(_) => "text",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        Unexpected::Map => "a map",
        Unexpected::Other(other) => other,
        _ => "something else",
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
