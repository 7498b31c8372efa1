use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A tunnel's id: 32 bytes, which also come first on each of the tunnel's two streams.
///
/// Relays make it from 16 random bytes as upper-case hex; any 32 bytes are a valid id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId([u8; Self::LENGTH]);

impl TunnelId {
    /// Length in bytes.
    pub const LENGTH: usize = 32;

    /// The id made of 16 random bytes: their upper-case hex digits.
    pub fn from_random(random: [u8; 16]) -> Self {
        let mut id = [0; Self::LENGTH];
        for (digits, byte) in id.chunks_exact_mut(2).zip(random) {
            digits.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0xF)]);
        }
        Self(id)
    }

    /// The id that consists of these bytes.
    pub const fn from_bytes(id: [u8; Self::LENGTH]) -> Self {
        Self(id)
    }

    /// The bytes as they go over the wire.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        0..=9 => b'0' + digit,
        _ => b'A' - 10 + digit,
    }
}

/// The bytes themselves where they are printable ASCII, as relays make them; other bytes as `\x..`.
impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TunnelId({self})")
    }
}

impl AsRef<[u8]> for TunnelId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A tunnel id has exactly 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a tunnel id of {length} bytes instead of 32")]
pub struct TunnelIdError {
    /// The length found, in bytes.
    pub length: usize,
}

impl TryFrom<&[u8]> for TunnelId {
    type Error = TunnelIdError;

    fn try_from(id: &[u8]) -> Result<Self, TunnelIdError> {
        let length = id.len();
        id.try_into().map(Self).map_err(|_| TunnelIdError { length })
    }
}

impl FromStr for TunnelId {
    type Err = TunnelIdError;

    fn from_str(id: &str) -> Result<Self, TunnelIdError> {
        id.as_bytes().try_into()
    }
}
