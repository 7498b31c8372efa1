//! Proof of work on a node id: how many zero bits the SHA-256 of the public key begins with.
//!
//! Making an id of difficulty *n* takes 2^n key pairs on average, checking it one hash. Deployed peers have a default
//! difficulty of 8, and neither grind keys nor check the evidence unless told to.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{Identity, NodeId};
use crate::Rng;

/// Length of the evidence in bytes.
pub const EVIDENCE_LENGTH: usize = 32;

/// The difficulty that deployed peers grind for by default, in bits.
pub const DEFAULT_DIFFICULTY: u16 = 8;

/// The puzzle evidence of an id: the SHA-256 of its 32 bytes.
pub fn evidence(id: &NodeId) -> [u8; EVIDENCE_LENGTH] {
    Sha256::digest(id.as_bytes()).into()
}

/// Number of zero bits that the evidence of `id` begins with, 0 to 256.
pub fn difficulty(id: &NodeId) -> u16 {
    let mut zeros = 0;
    for byte in evidence(id) {
        zeros += byte.leading_zeros() as u16;
        if byte != 0 {
            break;
        }
    }
    zeros
}

/// Whether the evidence of `id` begins with at least `bits` zero bits. Nothing reaches more than 256.
pub fn solves(id: &NodeId, bits: u16) -> bool {
    difficulty(id) >= bits
}

/// A search for an identity of some difficulty, done in steps, so that whoever runs it can show progress, run several on
/// threads of its own, or give up.
pub struct Grinder {
    rng: Rng,
    bits: u16,
    attempts: u64,
}

impl Grinder {
    /// A search for at least `bits` zero bits. `rng` must have been seeded by the operating system and be used for nothing
    /// else: the keys follow from it.
    pub fn new(bits: u16, rng: Rng) -> Self {
        Self { rng, bits, attempts: 0 }
    }

    /// Tries up to `attempts` key pairs and returns the first that is good enough. A further call searches for another one.
    pub fn step(&mut self, attempts: u32) -> Option<Identity> {
        for _ in 0..attempts {
            let identity = Identity::generate(&mut self.rng);
            self.attempts = self.attempts.saturating_add(1);
            if solves(&identity.node_id(), self.bits) {
                return Some(identity);
            }
        }
        None
    }

    /// Key pairs tried so far.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Key pairs that the search takes on average: 2^bits, at most `u64::MAX`.
    pub fn expected_attempts(&self) -> u64 {
        1u64.checked_shl(u32::from(self.bits)).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Grinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grinder")
            .field("bits", &self.bits)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
