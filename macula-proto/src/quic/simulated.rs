//! What quinn-proto and TLS draw from global randomness, fixed for simulations.
//!
//! A simulated endpoint owns its randomness and lends it to TLS for the length of each call, because rustls asks for
//! random bytes through a `static` and knows no context. Configurations that are built with the clock of a simulated
//! endpoint ask here; outside of such a call they get an error instead of bytes, so none of it can be used by accident.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn_proto::{
    ConnectionId, ConnectionIdGenerator,
    crypto::{AeadKey, CryptoError, HandshakeTokenKey},
};
use rustls::{
    Error, NamedGroup, ProtocolVersion,
    crypto::{ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup},
    ffdhe_groups::FfdheGroup,
};
use sha2::{Digest, Sha256};

use super::ResetKey;
use crate::Rng;

/// Endpoint settings whose keys and connection ids follow from `rng` alone, and from `reset_key` if there is one.
pub(super) fn endpoint_config(reset_key: Option<&ResetKey>, rng: &mut Rng) -> quinn_proto::EndpointConfig {
    let drawn = ResetKey::new(rng.bytes());
    let first = u64::from_be_bytes(rng.bytes());
    let mut config = quinn_proto::EndpointConfig::new(reset_key.unwrap_or(&drawn).to_quinn());
    config.cid_generator(move || Box::new(Counter(AtomicU64::new(first))));
    config
}

/// Gives a dial its first destination connection id.
pub(super) fn fix_initial_cid(config: &mut quinn_proto::ClientConfig, rng: &mut Rng) {
    let id: [u8; 16] = rng.bytes();
    config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&id)));
}

/// The key of address tokens.
pub(super) fn token_key(rng: &mut Rng) -> Arc<dyn HandshakeTokenKey> {
    Arc::new(TokenKey(rng.bytes()))
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

/// A key of address tokens that shows tampering and hides nothing.
struct TokenKey([u8; 32]);

impl HandshakeTokenKey for TokenKey {
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn AeadKey> {
        let digest = Sha256::new().chain_update(self.0).chain_update(random_bytes).finalize();
        Box::new(Self(digest.into()))
    }
}

/// Bytes of the mark behind a token, as of an ordinary one.
const MARK: usize = 16;

impl TokenKey {
    fn mark(&self, data: &[u8], additional: &[u8]) -> [u8; 32] {
        let digest = Sha256::new().chain_update(self.0).chain_update(additional);
        digest.chain_update(data).finalize().into()
    }
}

impl AeadKey for TokenKey {
    fn seal(&self, data: &mut Vec<u8>, additional: &[u8]) -> Result<(), CryptoError> {
        let mark = self.mark(data, additional);
        data.extend(mark.iter().take(MARK));
        Ok(())
    }

    fn open<'a>(&self, data: &'a mut [u8], additional: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let length = data.len().checked_sub(MARK).ok_or(CryptoError)?;
        let (plain, mark) = data.split_at_mut_checked(length).ok_or(CryptoError)?;
        let good = self.mark(plain, additional).iter().zip(mark).all(|(a, b)| a == b);
        good.then_some(plain).ok_or(CryptoError)
    }
}

// ----- TLS -----------------------------------------------------------------------------------------------------------

/// Randomness of an endpoint that it lends to TLS.
pub(super) type Shared = Arc<Mutex<Rng>>;

thread_local! {
    static LENT: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// As long as this lives, TLS on this thread draws from the endpoint that made it.
pub(super) struct Lent(Option<Shared>);

pub(super) fn lend(rng: &Shared) -> Lent {
    Lent(LENT.replace(Some(rng.clone())))
}

impl Drop for Lent {
    fn drop(&mut self) {
        let before = self.0.take();
        // The thread may be going away with the endpoint.
        let _ = LENT.try_with(|lent| lent.replace(before));
    }
}

/// The same cryptography with other randomness, and a key exchange that keeps nothing secret and no real peer speaks.
pub(super) fn provider(mut provider: CryptoProvider) -> CryptoProvider {
    provider.secure_random = &LentRandom;
    provider.kx_groups = vec![&OpenExchange];
    provider
}

#[derive(Debug)]
struct LentRandom;

impl SecureRandom for LentRandom {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        LENT.with_borrow(|lent| {
            let rng = lent.as_ref().ok_or(GetRandomFailed)?;
            rng.lock().unwrap_or_else(PoisonError::into_inner).fill(buf);
            Ok(())
        })
    }
}

/// A number for private use (RFC 8446, section 4.2.7).
const GROUP: NamedGroup = NamedGroup::Unknown(0xFE5A);
const SHARE: usize = 32;

/// The key shares of both sides, mixed, are the secret.
#[derive(Debug)]
struct OpenExchange;

impl SupportedKxGroup for OpenExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut share = [0; SHARE];
        LentRandom.fill(&mut share).map_err(|_| Error::FailedToGetRandomBytes)?;
        Ok(Box::new(OpenShare(share)))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        GROUP
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

struct OpenShare([u8; SHARE]);

impl ActiveKeyExchange for OpenShare {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        if peer.len() != SHARE {
            return Err(rustls::PeerMisbehaved::InvalidKeyShare.into());
        }
        let mixed: Vec<u8> = self.0.iter().zip(peer).map(|(own, peer)| own ^ peer).collect();
        Ok(SharedSecret::from(Sha256::digest(mixed).as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        GROUP
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent(..)")
    }
}
