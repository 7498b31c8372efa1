//! Where a relay decides: the machine, and what it is told of tunnels whose ends are on different shards.

use std::{collections::BTreeMap, time::Instant};

use super::{crossing::Part, keys::Keys};
use crate::{
    Now, Rng,
    quic::Shard,
    tunnel::relay::{
        AccessRules, Action, Event, Relay, RelayConfig, RelayStats, RelayStatus, Report, SpliceEnd, TunnelKey,
    },
};

/// The machine of a relay, and which shards carry out what it wants.
#[derive(Debug)]
pub(super) struct Desk {
    machine: Relay,
    keys: Keys,
    tunnels: BTreeMap<TunnelKey, Parts>,
}

/// The parts of a tunnel on the shards of its two ends.
#[derive(Debug)]
struct Parts {
    /// The shards where they are not over, a bit for each.
    open: u64,
    all: Part,
    /// The machine ended it: it hears no more of it.
    ended: bool,
    /// Waits for what the tunnel carried. Few have one, so it takes little room in the others.
    closed: Option<Box<Report>>,
}

/// What becomes of an action.
#[derive(Debug)]
pub(super) enum Errand {
    /// To be carried out by the shard with this index.
    Do(u8, Action),
    Report(Report),
}

impl Desk {
    pub(super) fn new(config: RelayConfig, rng: Rng, shard: Shard) -> Self {
        Self {
            machine: Relay::new(config, rng),
            keys: Keys(shard),
            tunnels: BTreeMap::new(),
        }
    }

    pub(super) fn status(&self) -> RelayStatus {
        self.machine.status()
    }

    pub(super) fn stats(&self) -> RelayStats {
        self.machine.stats()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Tells the machine something.
    pub(super) fn handle(&mut self, now: Now, event: Event<'_>, actions: &mut Vec<Action>) {
        self.machine.handle(now, event, actions);
    }

    pub(super) fn set_access(&mut self, now: Now, access: AccessRules, actions: &mut Vec<Action>) {
        self.machine.set_access(now, access, actions);
    }

    /// Says who carries out an action.
    pub(super) fn assign(&mut self, action: Action, errands: &mut Vec<Errand>) {
        let shard = match &action {
            Action::SendControl { conn, .. }
            | Action::OpenStream { conn, .. }
            | Action::DropStream { conn, .. }
            | Action::CloseConnection { conn, .. } => self.keys.shard(*conn),
            Action::Splice {
                tunnel,
                requester,
                target,
                ..
            } => {
                let open = bit(self.keys.shard(requester.0)) | bit(self.keys.shard(target.0));
                self.tunnels.insert(*tunnel, Parts::new(open));
                errands.extend(shards(open).map(|shard| Errand::Do(shard, action.clone())));
                return;
            }
            Action::EndTunnel { tunnel, .. } => {
                if let Some(parts) = self.tunnels.get_mut(tunnel) {
                    parts.ended = true;
                    errands.extend(shards(parts.open).map(|shard| Errand::Do(shard, action.clone())));
                }
                return;
            }
            Action::Report(report) => {
                errands.extend(self.report(report.clone()).map(Errand::Report));
                return;
            }
        };
        errands.push(Errand::Do(shard, action));
    }

    /// Takes what a shard says of its part of a tunnel. Answers what the machine has to be told, or a report that waited for
    /// this.
    pub(super) fn part_ended(
        &mut self,
        shard: u8,
        tunnel: TunnelKey,
        part: Part,
    ) -> Option<Result<Event<'static>, Report>> {
        let parts = self.tunnels.get_mut(&tunnel)?;
        if parts.open & bit(shard) != 0 {
            parts.open ^= bit(shard);
            parts.all.add(part);
        }
        if parts.open != 0 {
            return None;
        }
        if parts.ended {
            return self.settle(tunnel).map(Err);
        }
        let Part { reset, bytes } = parts.all;
        self.tunnels.remove(&tunnel);
        let end = reset.map_or(SpliceEnd::Finished, SpliceEnd::Reset);
        Some(Ok(Event::TunnelEnded { tunnel, end, bytes }))
    }

    /// A report, unless it waits for what its tunnel carried.
    fn report(&mut self, report: Report) -> Option<Report> {
        if let Report::TunnelClosed {
            tunnel, bytes: None, ..
        } = &report
            && let Some(parts) = self.tunnels.get_mut(tunnel)
        {
            let tunnel = *tunnel;
            parts.closed = Some(Box::new(report));
            return if parts.open == 0 { self.settle(tunnel) } else { None };
        }
        Some(report)
    }

    /// The report of the end of a tunnel all of whose parts are over, if it is there.
    fn settle(&mut self, tunnel: TunnelKey) -> Option<Report> {
        let parts = self.tunnels.get_mut(&tunnel)?;
        let mut report = *parts.closed.take()?;
        if let Report::TunnelClosed { bytes, .. } = &mut report {
            *bytes = Some(parts.all.bytes);
        }
        self.tunnels.remove(&tunnel);
        Some(report)
    }
}

impl Parts {
    fn new(open: u64) -> Self {
        Self {
            open,
            all: Part::default(),
            ended: false,
            closed: None,
        }
    }
}

fn bit(shard: u8) -> u64 {
    1_u64.checked_shl(shard.into()).unwrap_or_default()
}

fn shards(bits: u64) -> impl Iterator<Item = u8> {
    (0..Shard::MAX).filter(move |shard| bits & bit(*shard) != 0)
}

impl Part {
    fn add(&mut self, other: Self) {
        self.reset = self.reset.or(other.reset);
        self.bytes.to_target += other.bytes.to_target;
        self.bytes.to_requester += other.bytes.to_requester;
    }
}
