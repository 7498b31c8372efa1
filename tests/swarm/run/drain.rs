//! Relays that are told to take nothing new: what was begun goes on, and they say when they are done.

use std::{collections::BTreeMap, time::Duration};

use macula_proto::{sim::HostId, tunnel::relay::Report};

use super::{Run, Start};

#[derive(Debug, Default)]
pub(super) struct Drains {
    /// When each was told, and whether it has said that it is done.
    relays: BTreeMap<Start, (Duration, bool)>,
}

impl Drains {
    /// Whether a node may have lost its relay to one that drains.
    pub(super) fn any(&self) -> bool {
        !self.relays.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        self.relays.values().filter(|(_, done)| *done).count() as u64
    }

    pub(super) fn gone(&mut self, start: Start) {
        self.relays.remove(&start);
    }

    /// One that has not said that it is done though nobody is there any more.
    pub(super) fn unfinished(&self) -> Option<String> {
        let mut relays = self.relays.iter();
        let (start, (at, _)) = relays.find(|(_, (_, done))| !done)?;
        Some(format!(
            "{}: told to drain after {at:?}, and not done at the end",
            start.0
        ))
    }
}

impl Run {
    pub(super) fn drain(&mut self, relay: HostId) {
        let start = self.start_of(relay);
        let told = self.world.with(relay, |endpoint, now| {
            endpoint.drain_relay(now);
            if endpoint.is_router() {
                endpoint.drain_router(now);
            }
        });
        if told.is_ok() {
            let now = self.world.elapsed();
            self.drains.relays.entry(start).or_insert((now, false));
        }
    }

    pub(super) fn on_report(&mut self, start: Start, report: &Report) {
        let draining = self.drains.relays.get(&start).copied();
        match report {
            Report::Drained => {
                let tunnels = self
                    .world
                    .endpoint_of(start.0)
                    .and_then(|endpoint| endpoint.relay_status())
                    .map_or(0, |status| status.tunnels.len());
                if tunnels > 0 || !matches!(draining, Some((_, false))) {
                    self.fail(format!("{}: done with {tunnels} tunnels, {draining:?}", start.0));
                }
                if let Some((_, done)) = self.drains.relays.get_mut(&start) {
                    *done = true;
                }
            }
            Report::TunnelOpened { .. } if draining.is_some_and(|(_, done)| done) => {
                self.fail(format!("{}: a tunnel through a relay that is done", start.0));
            }
            _ => {}
        }
    }
}
