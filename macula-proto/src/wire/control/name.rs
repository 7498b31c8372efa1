use bytes::Bytes;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// The name of a node as a control message carries it: any bytes, by custom an Erlang node name such as `alice@host1`.
///
/// Names of up to [`NodeName::INLINE`] bytes lie in the value itself and cost no allocation, neither when they are read nor when
/// they are cloned. None keeps the buffer alive that it was read out of.
#[derive(Clone)]
pub struct NodeName(Repr);

#[derive(Clone)]
enum Repr {
    Inline {
        length: u8,
        bytes: [u8; NodeName::INLINE],
    },
    /// Longer than that.
    Shared(Bytes),
}

impl NodeName {
    /// Longest name, in bytes, that is not allocated.
    pub const INLINE: usize = 62;

    /// A name with a copy of these bytes.
    #[inline]
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; Self::INLINE];
        match bytes.get_mut(..name.len()) {
            Some(slot) => {
                slot.copy_from_slice(name);
                let length = name.len() as u8;
                Self(Repr::Inline { length, bytes })
            }
            None => Self(Repr::Shared(Bytes::copy_from_slice(name))),
        }
    }

    /// Its bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl Deref for NodeName {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for NodeName {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<&[u8]> for NodeName {
    fn from(name: &[u8]) -> Self {
        Self::new(name)
    }
}

impl<const N: usize> From<&[u8; N]> for NodeName {
    fn from(name: &[u8; N]) -> Self {
        Self::new(name)
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self::new(name.as_bytes())
    }
}

impl From<Vec<u8>> for NodeName {
    fn from(name: Vec<u8>) -> Self {
        Bytes::from(name).into()
    }
}

/// A long name shares the buffer.
impl From<Bytes> for NodeName {
    fn from(name: Bytes) -> Self {
        if name.len() <= Self::INLINE {
            Self::new(&name)
        } else {
            Self(Repr::Shared(name))
        }
    }
}

impl From<NodeName> for Bytes {
    fn from(name: NodeName) -> Self {
        match name.0 {
            Repr::Shared(bytes) => bytes,
            Repr::Inline { .. } => Self::copy_from_slice(name.as_bytes()),
        }
    }
}

impl PartialEq for NodeName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for NodeName {}

impl PartialEq<[u8]> for NodeName {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl Hash for NodeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// The bytes themselves where they are printable ASCII; other bytes as `\x..`.
impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
