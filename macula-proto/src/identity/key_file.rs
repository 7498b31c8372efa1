//! The contents of a key file, in the format that deployed nodes read and write.
//!
//! ```text
//! "macula-v2-key\0" | public key (32) | secret seed (32)
//! ```
//!
//! 78 bytes, nothing behind them. The file belongs to its owner alone (mode 0600) and is written under a temporary name and
//! renamed; both are up to whoever has a file system.

use thiserror::Error;
use zeroize::Zeroizing;

use super::{Identity, NodeId, SEED_LENGTH};

const MAGIC: &[u8; 14] = b"macula-v2-key\0";

/// Length of a key file in bytes.
pub const LENGTH: usize = MAGIC.len() + NodeId::LENGTH + SEED_LENGTH;

/// Bytes that are no key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Not exactly [`LENGTH`] bytes.
    #[error("a key file has 78 bytes, this one has {length}")]
    Length {
        /// The length found, in bytes.
        length: usize,
    },
    /// The bytes do not begin as a key file does.
    #[error("not a key file of version 2")]
    Magic,
    /// The public key is not the one that follows from the seed: the file was damaged or put together by hand. (Deployed nodes
    /// take such a file, and then sign what nobody can verify.)
    #[error("the public key does not belong to the secret seed")]
    Mismatch,
}

/// The bytes of the key file of an identity. They hold its secret, and are wiped when they are dropped.
pub fn encode(identity: &Identity) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(identity.node_id().as_bytes());
    bytes.extend_from_slice(&*identity.seed());
    bytes
}

/// The identity in the bytes of a key file.
///
/// # Errors
/// [`KeyFileError`] for anything else.
pub fn decode(bytes: &[u8]) -> Result<Identity, KeyFileError> {
    let length = bytes.len();
    if length != LENGTH {
        return Err(KeyFileError::Length { length });
    }
    let keys = bytes.strip_prefix(MAGIC).ok_or(KeyFileError::Magic)?;
    let (public, seed) = keys
        .split_first_chunk::<{ NodeId::LENGTH }>()
        .ok_or(KeyFileError::Length { length })?;
    let seed: &[u8; SEED_LENGTH] = seed.try_into().map_err(|_| KeyFileError::Length { length })?;
    let identity = Identity::from_seed(seed);
    if identity.node_id() != NodeId::from_bytes(*public) {
        return Err(KeyFileError::Mismatch);
    }
    Ok(identity)
}
