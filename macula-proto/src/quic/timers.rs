//! Deadlines of many connections, the earliest first.

use std::{collections::BTreeSet, time::Instant};

use super::ConnectionHandle;

/// An ordered index of deadlines. Looking at the earliest costs the same for one connection and for many.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, ConnectionHandle)>,
}

impl Timers {
    /// Moves the deadline of `handle` from `old` to `new`.
    pub(super) fn update(&mut self, handle: ConnectionHandle, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.queue.remove(&(old, handle));
        }
        if let Some(new) = new {
            self.queue.insert((new, handle));
        }
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline out if it is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<ConnectionHandle> {
        let (at, handle) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        Some(handle)
    }
}
