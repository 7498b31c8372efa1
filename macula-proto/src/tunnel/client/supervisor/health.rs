//! How well each relay is.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use super::RelayIndex;

#[derive(Debug, Clone, Default)]
struct Health {
    /// Failures in a row.
    failures: u32,
    last_failure: Option<Instant>,
    retry_at: Option<Instant>,
    /// Until when another relay is to be preferred.
    avoid_until: Option<Instant>,
}

impl Health {
    fn is_avoided(&self, now: Instant) -> bool {
        self.avoid_until.is_some_and(|until| until > now)
    }
}

/// The relays, at least one.
#[derive(Debug)]
pub(super) struct Relays(Vec<Health>);

impl Relays {
    pub(super) fn new(count: NonZeroUsize) -> Self {
        Self(vec![Health::default(); count.get()])
    }

    pub(super) fn failures(&self, relay: RelayIndex) -> u32 {
        self.0.get(relay.0).map_or(0, |health| health.failures)
    }

    /// Counts a failure; returns how many there are in a row.
    pub(super) fn fail(&mut self, relay: RelayIndex, now: Instant) -> u32 {
        self.0.get_mut(relay.0).map_or(0, |health| {
            health.failures = health.failures.saturating_add(1);
            health.last_failure = Some(now);
            health.failures
        })
    }

    pub(super) fn clear_failures(&mut self, relay: RelayIndex) {
        if let Some(health) = self.0.get_mut(relay.0) {
            *health = Health::default();
        }
    }

    pub(super) fn retry_after(&mut self, relay: RelayIndex, now: Instant, wait: Duration) {
        if let Some(health) = self.0.get_mut(relay.0) {
            health.retry_at = now.checked_add(wait);
        }
    }

    pub(super) fn avoid(&mut self, relay: RelayIndex, now: Instant, wait: Duration) {
        if let Some(health) = self.0.get_mut(relay.0) {
            health.avoid_until = now.checked_add(wait);
        }
    }

    /// The relay to dial next, and from when on.
    ///
    /// The one that may be dialled first; among those that may be dialled now, the one with the fewest failures, then the
    /// one whose last failure is longest ago, then the first of the list. A relay to be avoided counts only from the end
    /// of that time on, unless all of them are.
    pub(super) fn best(&self, now: Instant) -> (RelayIndex, Instant) {
        let all_avoided = self.0.iter().all(|health| health.is_avoided(now));
        let ready_at = |health: &Health| {
            let avoid_until = health.avoid_until.filter(|_| !all_avoided);
            health.retry_at.max(avoid_until).map_or(now, |at| at.max(now))
        };
        let best = self
            .0
            .iter()
            .enumerate()
            .min_by_key(|&(index, health)| (ready_at(health), health.failures, health.last_failure, index));
        best.map_or((RelayIndex(0), now), |(index, health)| {
            (RelayIndex(index), ready_at(health))
        })
    }
}
