//! Who a node is: an Ed25519 key pair, its public half being the node's id.
//!
//! - [`Identity`] is the key pair: made from a seed, signs, is written to and read from a key file ([`key_file`]).
//! - [`NodeId`] is the public key as a name; [`PublicKey`] is the same key unpacked, ready to check many signatures.
//! - [`Domain`] is what a signature is for. Its bytes come first in what is signed, so that a signature made for one purpose
//!   is worth nothing for another.
//! - [`puzzle`] is the proof of work that a node id can carry.
//!
//! Nothing here draws randomness of its own: seeds are handed in. Secrets are wiped from memory when they are dropped, and no
//! `Debug` output shows them.

pub mod key_file;
mod node_id;
mod public_key;
pub mod puzzle;

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, ed25519::signature::MultipartSigner};
use zeroize::Zeroizing;

pub use node_id::{NodeId, ParseNodeIdError};
pub use public_key::{BadSignature, PublicKey};
pub use puzzle::Grinder;

use crate::Rng;

/// Length of a signature in bytes.
pub const SIGNATURE_LENGTH: usize = 64;

/// Length of a secret seed in bytes.
pub const SEED_LENGTH: usize = 32;

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A peering frame: signed is the deterministic CBOR of its map without the entry `signature`.
    Frame,
    /// One SWIM membership update: signed is the deterministic CBOR of its map without the entry `signature`.
    SwimUpdate,
    /// A DHT record.
    Record,
    /// The binding of a peering connection to its TLS session: signed are one byte for the role and 32 bytes of the TLS
    /// exporter.
    Binding,
}

impl Domain {
    /// The bytes that come first in what is signed, the zero at their end included.
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Frame => b"macula-v2-frame\0",
            Self::SwimUpdate => b"macula-v2-swim-update\0",
            Self::Record => b"macula-v2-record\0",
            Self::Binding => b"macula-v2-binding\0",
        }
    }
}

/// A node's key pair.
///
/// Clones are cheap enough to hand one to every connection; each wipes its copy of the secret when it is dropped.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The key pair that follows from a secret seed. The seed must be unpredictable: whoever knows it is this node.
    pub fn from_seed(seed: &[u8; SEED_LENGTH]) -> Self {
        let key = SigningKey::from_bytes(seed);
        Self { key }
    }

    /// A new key pair, its seed drawn from `rng`, which must have been seeded by the operating system.
    pub fn generate(rng: &mut Rng) -> Self {
        let seed = Zeroizing::new(rng.bytes());
        Self::from_seed(&seed)
    }

    /// The public half.
    pub fn node_id(&self) -> NodeId {
        NodeId::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// The secret seed, for whoever stores it. It is wiped when the returned value is dropped.
    pub fn seed(&self) -> Zeroizing<[u8; SEED_LENGTH]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The puzzle evidence of the public half, which a CONNECT frame carries: see [`puzzle::evidence`].
    pub fn puzzle_evidence(&self) -> [u8; puzzle::EVIDENCE_LENGTH] {
        puzzle::evidence(&self.node_id())
    }

    /// Signs `message` for one purpose: the signature covers the domain's prefix and then the message.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.sign_raw(&[domain.prefix(), message].concat())
    }

    /// Signs `message` as it stands. Only for messages that begin with a domain of their own: a signature over bytes that
    /// somebody else chose could be used as one over a frame.
    pub fn sign_raw(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.key.sign(message).to_bytes()
    }

    /// As [`sign_raw`](Self::sign_raw), the message in parts.
    pub(crate) fn sign_parts(&self, message: &[&[u8]]) -> [u8; SIGNATURE_LENGTH] {
        self.key.multipart_sign(message).to_bytes()
    }
}

/// Shows the public half only.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        // The public half is a function of the secret one, and comparing it leaks nothing.
        self.node_id() == other.node_id()
    }
}

impl Eq for Identity {}

#[cfg(test)]
mod tests;
