//! What quinn-proto draws from global randomness, fixed for simulations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use crate::Rng;

/// Endpoint settings whose keys and connection ids follow from `rng` alone.
pub(super) fn endpoint_config(rng: &mut Rng) -> quinn_proto::EndpointConfig {
    let reset_key: [u8; 32] = rng.bytes();
    let first = u64::from_be_bytes(rng.bytes());
    let mut config = quinn_proto::EndpointConfig::new(Arc::new(FixedHmac(reset_key)));
    config.cid_generator(move || Box::new(Counter(AtomicU64::new(first))));
    config
}

/// Gives a dial its first destination connection id.
pub(super) fn fix_initial_cid(config: &mut quinn_proto::ClientConfig, rng: &mut Rng) {
    let id: [u8; 16] = rng.bytes();
    config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&id)));
}

/// Connection ids that count up.
#[derive(Debug)]
struct Counter(AtomicU64);

impl ConnectionIdGenerator for Counter {
    fn generate_cid(&mut self) -> ConnectionId {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        ConnectionId::new(&n.to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A keyed hash for stateless reset tokens; predictable, so only for simulations.
struct FixedHmac([u8; 32]);

impl quinn_proto::crypto::HmacKey for FixedHmac {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let digest = self.digest(data);
        for (to, from) in out.iter_mut().zip(digest) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn_proto::crypto::CryptoError> {
        if self.digest(data) == signature {
            Ok(())
        } else {
            Err(quinn_proto::crypto::CryptoError)
        }
    }
}

impl FixedHmac {
    fn digest(&self, data: &[u8]) -> [u8; 32] {
        use sha2::Digest;
        let mut hash = sha2::Sha256::new();
        hash.update(self.0);
        hash.update(data);
        hash.finalize().into()
    }
}
