//! Deadlines of many things, the earliest first.

use std::{collections::BTreeSet, time::Instant};

/// An ordered index of deadlines. Looking at the earliest costs the same for one thing and for many.
///
/// Whoever owns a thing keeps its deadline beside it and says what it was when it changes: nothing has to be looked up.
#[derive(Debug)]
pub(crate) struct Deadlines<K> {
    queue: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { queue: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Deadlines<K> {
    /// Moves the deadline of `key` from `old` to `new`.
    pub(crate) fn update(&mut self, key: K, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.queue.remove(&(old, key));
        }
        if let Some(new) = new {
            self.queue.insert((new, key));
        }
    }

    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline out if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        Some(key)
    }
}

/// The earlier of two deadlines, where there are any.
pub(crate) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
