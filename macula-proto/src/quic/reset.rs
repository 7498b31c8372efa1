//! Stateless resets: how a restarted endpoint ends connections that it does not know any more (RFC 9000 §10.3).

use std::{fmt, sync::Arc};

use quinn_proto::{
    ConnectionIdGenerator as _, RandomConnectionIdGenerator,
    crypto::{CryptoError, HmacKey},
};
use sha2::{Digest, Sha256};

use super::{Shard, cids::Cids};

/// Bytes of a block of SHA-256, which HMAC pads its key to (RFC 2104).
const BLOCK: usize = 64;

/// The secret that stateless resets follow from. Whoever knows it can end connections of the endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKey([u8; 32]);

impl ResetKey {
    /// A key from 32 secret bytes.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// A key that follows from some secret that outlasts the process, such as a private key, and does not give it away.
    pub fn derive(secret: &[u8]) -> Self {
        Self::new(Sha256::digest(secret).into()).separate()
    }

    /// A key that nobody knows.
    pub(super) fn random() -> Self {
        let mut secret = Sha256::new();
        let mut random = RandomConnectionIdGenerator::new(16);
        for _ in 0..2 {
            secret.update(&random.generate_cid()[..]);
        }
        Self::new(secret.finalize().into())
    }

    /// Another key than one used for anything else that is derived from the same secret.
    fn separate(&self) -> Self {
        Self(self.mac(b"macula stateless reset"))
    }

    /// Settings of an endpoint that recognises its own connection ids, and resets the connections of unknown ones, in every
    /// process that has this key.
    pub(super) fn endpoint_config(&self, shard: Shard) -> quinn_proto::EndpointConfig {
        let mut config = quinn_proto::EndpointConfig::new(self.to_quinn());
        let ids = self.of_ids();
        config.cid_generator(move || Box::new(Cids::new(ids.clone(), shard)));
        config
    }

    /// The key of the authentication code in connection ids.
    pub(super) fn of_ids(&self) -> Self {
        Self::new(self.mac(b"connection ids"))
    }

    pub(super) fn to_quinn(&self) -> Arc<dyn HmacKey> {
        Arc::new(self.clone())
    }

    /// HMAC-SHA-256 (RFC 2104).
    pub(super) fn mac(&self, data: &[u8]) -> [u8; 32] {
        let keyed = |pad: u8| {
            let mut block = [pad; BLOCK];
            for (byte, key) in block.iter_mut().zip(self.0) {
                *byte ^= key;
            }
            Sha256::new().chain_update(block)
        };
        let inner = keyed(0x36).chain_update(data).finalize();
        keyed(0x5c).chain_update(inner).finalize().into()
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        for (to, from) in out.iter_mut().zip(self.mac(data)) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mac = self.mac(data);
        let differ = mac.iter().zip(signature).fold(0, |differ, (a, b)| differ | (a ^ b));
        if signature.len() == mac.len() && differ == 0 {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::crypto::HmacKey;

    use super::ResetKey;

    #[test]
    fn the_mac_is_hmac_sha_256() {
        // RFC 4231, test case 2: its key is padded with zeros by HMAC itself.
        let mut secret = [0; 32];
        secret[..4].copy_from_slice(b"Jefe");
        let key = ResetKey::new(secret);
        let mac = key.mac(b"what do ya want for nothing?");
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let mut signed = [0; 32];
        key.sign(b"data", &mut signed);
        assert!(key.verify(b"data", &signed).is_ok());
        assert!(key.verify(b"other", &signed).is_err());
        assert!(key.verify(b"data", &signed[..31]).is_err());
        assert_eq!(format!("{key:?}"), "ResetKey(..)");
    }
}
