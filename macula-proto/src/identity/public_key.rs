use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use thiserror::Error;

use super::{Domain, NodeId};

/// A signature is not one of this key over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature does not fit the key and the message")]
pub struct BadSignature;

/// A public key unpacked into a point of the curve, which is a tenth of the work of checking a signature and needs to be done
/// only once for many.
///
/// Checking is strict: keys of small order, keys in a form that is not canonical, and signatures whose second half is not
/// reduced are refused. Signatures of honest peers are none of these; deployed peers take the first two.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
}

impl PublicKey {
    /// The key that `id` is; `None` if these bytes are no point of the curve, or one of small order, under which some
    /// signatures fit every message.
    pub fn new(id: &NodeId) -> Option<Self> {
        let key = VerifyingKey::from_bytes(id.as_bytes()).ok()?;
        // Two encodings of one point would be two names of one node.
        let canonical = key.to_edwards().compress().as_bytes() == id.as_bytes();
        (canonical && !key.is_weak()).then_some(Self { key })
    }

    /// The key as a name.
    pub fn node_id(&self) -> NodeId {
        NodeId::from_bytes(self.key.to_bytes())
    }

    /// Checks a signature over the domain's prefix followed by `message`.
    ///
    /// # Errors
    /// [`BadSignature`], also when `signature` has not 64 bytes.
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.verify_raw(&[domain.prefix(), message].concat(), signature)
    }

    /// Checks a signature over `message` as it stands.
    ///
    /// # Errors
    /// [`BadSignature`], also when `signature` has not 64 bytes.
    pub fn verify_raw(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let signature = Signature::from_slice(signature).map_err(|_| BadSignature)?;
        self.key.verify_strict(message, &signature).map_err(|_| BadSignature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.node_id())
    }
}
