//! Named deadlines with the earliest one at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// A set of deadlines, at most one per key.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
    next: Option<Instant>,
}

impl<K: Copy + Ord> Timers<K> {
    pub(super) fn new() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
            next: None,
        }
    }

    /// Arms `key` to fire `after` from `now`, instead of when it would have fired before.
    ///
    /// At least one millisecond lies between `now` and the deadline, so that a configured zero cannot make a busy loop. A
    /// deadline that the clock cannot express never fires.
    pub(super) fn arm(&mut self, now: Instant, key: K, after: Duration) {
        self.remove(key);
        if let Some(at) = now.checked_add(after.max(Duration::from_millis(1))) {
            self.by_time.insert((at, key));
            self.by_key.insert(key, at);
        }
        self.refresh();
    }

    pub(super) fn clear(&mut self, key: K) {
        self.remove(key);
        self.refresh();
    }

    pub(super) fn clear_all(&mut self) {
        *self = Self::new();
    }

    /// Takes out one deadline that is due, the earliest first.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(key);
        Some(key)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn remove(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    fn refresh(&mut self) {
        self.next = self.by_time.first().map(|&(at, _)| at);
    }
}
