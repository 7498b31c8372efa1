//! The clocks of the operating system.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use macula_proto::Now;

/// One reading of both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now::new(Instant::now(), u64::try_from(unix.as_millis()).unwrap_or(u64::MAX))
}
