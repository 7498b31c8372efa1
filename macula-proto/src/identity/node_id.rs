use std::{fmt, str::FromStr};

use thiserror::Error;

/// A node's name: its Ed25519 public key, 32 bytes.
///
/// Any 32 bytes are taken as an id; whether they are a usable key shows when a signature is to be checked with them
/// ([`PublicKey::new`](super::PublicKey::new)). Written and read as 64 hexadecimal digits, lower case when written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; Self::LENGTH]);

impl NodeId {
    /// Length in bytes.
    pub const LENGTH: usize = 32;

    /// The id that consists of these bytes.
    pub const fn from_bytes(id: [u8; Self::LENGTH]) -> Self {
        Self(id)
    }

    /// The bytes as they go over the wire.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl AsRef<[u8]> for NodeId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; NodeId::LENGTH]> for NodeId {
    fn from(id: [u8; Self::LENGTH]) -> Self {
        Self(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// A text is no node id: it has not exactly 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a node id has 64 hexadecimal digits")]
pub struct ParseNodeIdError;

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, ParseNodeIdError> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != Self::LENGTH || !rest.is_empty() {
            return Err(ParseNodeIdError);
        }
        let mut id = [0; Self::LENGTH];
        for (byte, [high, low]) in id.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(id))
    }
}

fn digit(digit: u8) -> Result<u8, ParseNodeIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(ParseNodeIdError),
    }
}
