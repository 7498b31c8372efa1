//! What quinn-proto draws from global randomness, fixed for simulations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use super::ResetKey;
use crate::Rng;

/// Endpoint settings whose keys and connection ids follow from `rng` alone.
pub(super) fn endpoint_config(rng: &mut Rng) -> quinn_proto::EndpointConfig {
    let reset_key = ResetKey::new(rng.bytes());
    let first = u64::from_be_bytes(rng.bytes());
    let mut config = quinn_proto::EndpointConfig::new(reset_key.to_quinn());
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
