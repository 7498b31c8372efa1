//! What all targets that are lists of operations have in common.

use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use macula_proto::Now;

/// The operations that the bytes spell, until they are used up, and at most so many.
pub(crate) fn operations<'a, T: Arbitrary<'a>>(mut data: Unstructured<'a>, most: usize) -> impl Iterator<Item = T> {
    let next = move || if data.is_empty() { None } else { data.arbitrary().ok() };
    std::iter::from_fn(next).take(most)
}

/// The how-manieth of those there are, counted round.
pub(crate) fn pick<T>(items: &[T], index: u8) -> Option<&T> {
    items.get(usize::from(index) % items.len().max(1))
}

/// Some moment to start from; only differences count.
pub(crate) fn start() -> Now {
    Now::new(Instant::now(), 1_777_000_000_000)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The moment of a deadline, or this one if it is over or there is none.
pub(crate) fn at(now: Now, due: Option<Instant>) -> Now {
    match due {
        Some(due) => now.after(due.saturating_duration_since(now.mono)),
        None => now,
    }
}
