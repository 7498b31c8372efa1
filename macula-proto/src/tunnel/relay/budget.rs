//! A rate limit per connection.

use std::time::{Duration, Instant};

/// A bucket of tokens, kept as the moment at which it will be full again.
#[derive(Debug)]
pub(super) struct Budget {
    full_at: Option<Instant>,
    /// Time that one token takes to come back; zero for no limit.
    per_token: Duration,
    /// Time that a whole bucket takes.
    whole: Duration,
}

impl Budget {
    /// `burst` tokens (at least one) that come back at `rate` per second; a rate of 0 means no limit.
    pub(super) fn new(burst: u32, rate: u32) -> Self {
        let per_token = Duration::from_secs(1).checked_div(rate).unwrap_or(Duration::ZERO);
        Self {
            full_at: None,
            per_token,
            whole: per_token.saturating_mul(burst.max(1)),
        }
    }

    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let missing = self
            .full_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let after = missing.saturating_add(self.per_token);
        if after > self.whole {
            return false;
        }
        self.full_at = now.checked_add(after);
        true
    }
}
