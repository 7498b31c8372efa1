//! What can be sent as a value.

use macula_proto::wire::{Value, ValueError, to_value};
use serde::Serialize;

/// Something that is a value of the wire, or can be made one: a [`Value`] itself, a reference to anything that serde
/// serialises, or `()` for null.
pub trait IntoValue {
    /// Makes the value.
    ///
    /// # Errors
    /// [`ValueError`] for what has no form on the wire, such as an integer beyond 64 bits.
    fn into_value(self) -> Result<Value, ValueError>;
}

impl IntoValue for Value {
    fn into_value(self) -> Result<Value, ValueError> {
        Ok(self)
    }
}

impl IntoValue for () {
    fn into_value(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }
}

impl<T: Serialize + ?Sized> IntoValue for &T {
    fn into_value(self) -> Result<Value, ValueError> {
        to_value(self)
    }
}
