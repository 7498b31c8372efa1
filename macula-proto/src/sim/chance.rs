//! Probabilities and where random draws come from.

use sha2::{Digest, Sha256};

use crate::Rng;

const WHOLE: u32 = 1_000_000;

/// How likely something is, in millionths.
///
/// ```
/// use macula_proto::sim::Chance;
///
/// assert_eq!(Chance::percent(1.0), Chance::one_in(100));
/// assert_eq!(Chance::percent(250.0), Chance::ALWAYS);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Chance(u32);

impl Chance {
    /// It does not happen.
    pub const NEVER: Self = Self(0);
    /// It happens every time.
    pub const ALWAYS: Self = Self(WHOLE);

    /// So many times in a million, at most every time.
    pub const fn per_million(times: u32) -> Self {
        Self(if times > WHOLE { WHOLE } else { times })
    }

    /// So many times in a hundred; rounded to millionths, and to what is possible.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates"
    )]
    pub fn percent(percent: f64) -> Self {
        Self::per_million((percent * 10_000.0).round() as u32)
    }

    /// Once in so many times; 0 stands for never.
    pub const fn one_in(times: u32) -> Self {
        match times {
            0 => Self::NEVER,
            times => Self(WHOLE / times),
        }
    }

    /// The chance in millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    pub(super) fn happens(self, rng: &mut Rng) -> bool {
        rng.below(u64::from(WHOLE)) < u64::from(self.0)
    }
}

/// Everything random of a world, split by purpose: what is drawn for one purpose does not change what is drawn for any other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(pub(super) u64);

impl Seed {
    /// The generator for a purpose and those concerned.
    pub(super) fn stream(self, purpose: &str, of: &[u64]) -> Rng {
        let mut digest = Sha256::new()
            .chain_update(b"macula simulation")
            .chain_update(self.0.to_be_bytes())
            .chain_update((purpose.len() as u64).to_be_bytes())
            .chain_update(purpose);
        for number in of {
            digest.update(number.to_be_bytes());
        }
        Rng::from_entropy(digest.finalize().into())
    }

    pub(super) fn number(self, purpose: &str, of: &[u64]) -> u64 {
        u64::from_be_bytes(self.stream(purpose, of).bytes())
    }
}
