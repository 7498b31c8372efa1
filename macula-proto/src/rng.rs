//! The one source of randomness, seeded by whoever builds an endpoint.

use std::{fmt, time::Duration};

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

/// A seeded, cryptographically strong generator (ChaCha with 12 rounds).
///
/// Adapters seed it from the operating system; simulations from a number, so that the same seed gives the same ids, the
/// same jitter and the same trace. It is never printed.
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// A generator for real use: `entropy` must come from the operating system.
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(entropy))
    }

    /// A generator for simulations and tests, from a small number.
    pub fn from_seed(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }

    /// Another generator with a stream of its own, drawn from this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::from_entropy(self.bytes())
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }

    /// Fills `buf` with random bytes.
    pub fn fill(&mut self, buf: &mut [u8]) {
        self.0.fill_bytes(buf);
    }

    /// A random number below `bound`; 0 if `bound` is 0. The bias is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// A random duration from zero up to, and without, `max`, in whole microseconds.
    pub fn duration_below(&mut self, max: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(max.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng(..)")
    }
}
