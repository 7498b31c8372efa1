use std::{borrow::Borrow, fmt};

use bytes::Bytes;

/// The name of a node: any bytes, by custom an Erlang node name such as `alice@host1`.
///
/// Cloning is cheap. Displayed with everything but printable ASCII escaped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Bytes);

impl Name {
    /// A name with a copy of these bytes, so that it does not keep a receive buffer alive.
    pub fn new(name: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(name))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::new(name.as_bytes())
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
