//! Certificate pins.

use std::{fmt, str::FromStr};

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// The SHA-256 of a leaf certificate's DER encoding: the certificate's fingerprint.
///
/// A pin says *this certificate and no other*, whoever signed it, whatever names and dates it holds. It is written as
/// 64 lower-case hex digits and read in either case, optionally with colons between pairs, as OpenSSL prints a SHA-256
/// fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of `certificate`.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }

    /// The 32 bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Why a text is not a [`Pin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePinError {
    /// The text does not have 64 hex digits.
    #[error("a pin has 64 hex digits, not {digits}")]
    Length {
        /// The digits found; counting stops at 65.
        digits: usize,
    },
    /// A character is neither a hex digit nor a colon.
    #[error("a pin has hex digits and colons only, not {found:?} at character {position}")]
    Character {
        /// The character.
        found: char,
        /// Its place, counted in characters from 1.
        position: usize,
    },
    /// A colon stands elsewhere than between two pairs of digits.
    #[error("misplaced colon at character {position} of a pin")]
    Colon {
        /// Its place, counted in characters from 1.
        position: usize,
    },
}

impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        let mut pin = [0; 32];
        let mut digits = 0;
        let mut after_colon = false;
        for (at, found) in text.chars().enumerate() {
            let position = at.saturating_add(1);
            if found == ':' {
                if after_colon || digits == 0 || digits % 2 == 1 || digits >= 64 {
                    return Err(ParsePinError::Colon { position });
                }
                after_colon = true;
                continue;
            }
            let value = found.to_digit(16).and_then(|value| u8::try_from(value).ok());
            let Some(value) = value else {
                return Err(ParsePinError::Character { found, position });
            };
            let Some(byte) = pin.get_mut(digits / 2) else {
                return Err(ParsePinError::Length { digits: 65 });
            };
            *byte = (*byte << 4) | value;
            digits += 1;
            after_colon = false;
        }
        if digits == 64 {
            Ok(Self(pin))
        } else {
            Err(ParsePinError::Length { digits })
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl From<[u8; 32]> for Pin {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}
