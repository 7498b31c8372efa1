//! Time as an argument.

use std::time::{Duration, Instant};

/// One reading of both clocks, taken by the driver and handed in with every input.
///
/// `mono` orders events and paces timers; `unix_ms` is only ever written into frames, compared with times that peers
/// state, and used to check certificate validity. The core reads no clock of its own, so a simulation may hand in any
/// values as long as `mono` never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now {
    /// Monotonic instant.
    pub mono: Instant,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Now {
    /// Pairs a monotonic instant with wall-clock milliseconds.
    pub fn new(mono: Instant, unix_ms: u64) -> Self {
        Self { mono, unix_ms }
    }

    /// The same moment moved `by` forward on both clocks.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self {
            mono: self.mono + by,
            unix_ms: self.unix_ms.saturating_add(ms),
        }
    }
}
