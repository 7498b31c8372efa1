//! A rate limit.

use std::time::{Duration, Instant};

/// A token bucket of bytes that holds at most one quarter of a second's worth.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second, at least 1.
    rate: u64,
    tokens: u64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            tokens: Self::depth(rate),
            filled: now,
        }
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// How many bytes may pass now; if none, when some may again.
    pub(super) fn allowed(&mut self, now: Instant) -> Result<u64, Instant> {
        self.fill(now);
        if self.tokens > 0 {
            return Ok(self.tokens);
        }
        // Long enough for a useful amount, so that a slow tunnel does not wake for single bytes.
        let batch = (Self::depth(self.rate) / 8).max(1);
        let micros = batch.saturating_mul(1_000_000).div_ceil(self.rate);
        Err(self.filled + Duration::from_micros(micros.max(1000)))
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(bytes);
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let more = u128::from(micros) * u128::from(self.rate) / 1_000_000;
        if more > 0 {
            let more = u64::try_from(more).unwrap_or(u64::MAX);
            self.tokens = self.tokens.saturating_add(more).min(Self::depth(self.rate));
            self.filled = now;
        }
    }

    fn depth(rate: u64) -> u64 {
        (rate / 4).max(1)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need an instant to count from")]
mod tests {
    use std::time::{Duration, Instant};

    use super::Bucket;

    #[test]
    fn passes_its_rate_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1_000_000, start);
        let mut now = start;
        let mut passed = 0;
        while now < start + Duration::from_secs(10) {
            match bucket.allowed(now) {
                Ok(bytes) => {
                    bucket.take(bytes);
                    passed += bytes;
                }
                Err(at) => {
                    assert!(at > now, "the wait ends later than it begins");
                    now = at;
                }
            }
        }
        assert!(
            (10_000_000..=10_300_000).contains(&passed),
            "{passed} bytes in 10 s at 1 MB/s"
        );
    }

    #[test]
    fn a_tiny_rate_still_passes_something() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1, start);
        assert_eq!(bucket.allowed(start), Ok(1));
        bucket.take(1);
        let at = bucket.allowed(start).expect_err("empty");
        assert_eq!(bucket.allowed(at), Ok(1));
    }
}
