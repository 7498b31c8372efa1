//! The wall clock that certificates and tokens are checked against.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Unix milliseconds shared by everything that checks a validity period, and set from outside.
///
/// TLS asks for the time in the middle of a handshake, where no `now` can be passed along. An endpoint therefore stores
/// the wall-clock part of every [`Now`](crate::Now) it is given here, and its TLS configurations read it back: whether
/// a certificate has expired, and how old a ticket or an address-validation token is, then follow from the caller's
/// clock, in a simulation too. Clones share one value.
///
/// The time may move in both directions. A clock left at 0 stands in 1970, where an ordinary certificate is not valid
/// yet, so a clock that nobody sets refuses rather than accepts.
#[derive(Clone, Default)]
pub struct WallClock {
    unix_ms: Arc<AtomicU64>,
    /// Whether what is built with this clock is for a simulation, and draws its randomness there.
    #[cfg(feature = "sim")]
    simulated: bool,
}

impl WallClock {
    /// A clock that shows `unix_ms` milliseconds since the Unix epoch until it is set.
    pub fn new(unix_ms: u64) -> Self {
        Self {
            unix_ms: Arc::new(AtomicU64::new(unix_ms)),
            #[cfg(feature = "sim")]
            simulated: false,
        }
    }

    /// The clock of a simulated endpoint.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated() -> Self {
        Self {
            simulated: true,
            ..Self::default()
        }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// Moves this clock and all its clones to `unix_ms`.
    pub fn set(&self, unix_ms: u64) {
        // A lone number that orders nothing else.
        self.unix_ms.store(unix_ms, Ordering::Relaxed);
    }

    /// The time last set, in milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        self.unix_ms.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.unix_ms()).finish()
    }
}
