//! Virtual time: nanoseconds since the world began.

use std::time::{Duration, Instant};

use crate::Now;

pub(super) type Nanos = u64;

const SECOND: u128 = 1_000_000_000;

/// Where the wall clocks of a world begin if nothing else is said: 2027-01-15 08:00:00 UTC.
pub(super) const UNIX_MS: u64 = 1_800_000_000_000;

pub(super) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long a wire of this many bytes per second is busy with these.
pub(super) fn transmission(length: usize, bandwidth: u64) -> Nanos {
    let time = (length as u128 * SECOND).checked_div(u128::from(bandwidth));
    time.and_then(|time| u64::try_from(time).ok()).unwrap_or(u64::MAX / 4)
}

/// The clock of a world.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    pub(super) now: Nanos,
    pub(super) unix_ms: u64,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant to count from, as there is no other way to have one; nothing depends on which it is"
    )]
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            now: 0,
            unix_ms: UNIX_MS,
        }
    }

    /// Now, on a host whose wall clock is off by so many milliseconds.
    pub(super) fn at(&self, offset_ms: i64) -> Now {
        let unix_ms = self.unix_ms.saturating_add(self.now / 1_000_000);
        let mono = self.start + Duration::from_nanos(self.now);
        Now::new(mono, unix_ms.saturating_add_signed(offset_ms))
    }

    /// An instant as time since the world began.
    pub(super) fn since_start(&self, at: Instant) -> Nanos {
        nanos(at.saturating_duration_since(self.start))
    }
}
