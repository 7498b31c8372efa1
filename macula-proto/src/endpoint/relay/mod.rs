//! Connections that the relay machine runs.
//!
//! Where several endpoints share a port, the one with index 0 *decides*: the machine is there. All of them *carry*: each has
//! connections, their control streams, and the tunnels that begin or end there. What a shard sees is told to the one that decides,
//! what that wants is done by the shard that has the connection, and the bytes of a tunnel go straight from the shard of one
//! end to that of the other:
//!
//! ```text
//!   datagrams ──> carrier 0 ──> desk ──> carrier 0 ──> datagrams
//!                    │           │ ▲
//!              blocks │   actions │ │ events
//!                    ▼           ▼ │
//!   datagrams ──> carrier 1 ───────┘
//! ```

mod bucket;
mod carrier;
mod crossing;
mod desk;
mod direction;
mod keys;
mod splice;

use std::{collections::VecDeque, time::Instant};

pub(crate) use crossing::RelayMessage;

use crate::{
    Now, Rng,
    deadlines::earliest,
    quic::{self, ConnectionHandle, Shard},
    tunnel::{
        ConnKey,
        relay::{AccessRules, Action, Event, RelayConfig, RelayStats, RelayStatus, Report, TunnelBytes, TunnelKey},
    },
};
use carrier::{Carrier, Seen};
use crossing::Told;
use desk::{Desk, Errand};
use keys::Keys;

/// The shard that decides.
const DECIDES: u8 = 0;

/// A relay inside an endpoint, or its part on one of several.
#[derive(Debug)]
pub(super) struct RelayRole {
    shard: Shard,
    desk: Option<Desk>,
    carrier: Carrier,
    actions: Vec<Action>,
    errands: Vec<Errand>,
    /// For other shards.
    posts: VecDeque<(u8, RelayMessage)>,
}

impl RelayRole {
    pub(super) fn new(config: RelayConfig, rng: Rng, shard: Shard) -> Self {
        Self {
            shard,
            carrier: Carrier::new(shard, &config.limits),
            desk: (shard.index() == DECIDES).then(|| Desk::new(config, rng, shard)),
            actions: Vec::new(),
            errands: Vec::new(),
            posts: VecDeque::new(),
        }
    }

    pub(super) fn runs(&self, conn: ConnectionHandle) -> bool {
        self.carrier.runs(conn)
    }

    pub(super) fn status(&self) -> Option<RelayStatus> {
        self.desk.as_ref().map(Desk::status)
    }

    pub(super) fn stats(&self) -> Option<RelayStats> {
        self.desk.as_ref().map(Desk::stats)
    }

    pub(super) fn tunnel_bytes(&self, tunnel: TunnelKey) -> Option<TunnelBytes> {
        self.carrier.tunnel_bytes(tunnel)
    }

    /// The shard of a connection.
    pub(super) fn shard_of(&self, conn: ConnKey) -> u8 {
        Keys(self.shard).shard(conn)
    }

    /// The handle of a connection of this shard.
    pub(super) fn handle(&self, conn: ConnKey) -> Option<ConnectionHandle> {
        Keys(self.shard).handle(conn)
    }

    // ----- what happens --------------------------------------------------------------------------------------------

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let desk = self.desk.as_ref().and_then(Desk::poll_timeout);
        earliest(desk, self.carrier.poll_timeout())
    }

    pub(super) fn handle_timeout(&mut self, quic: &mut quic::Endpoint, now: Now, reports: &mut impl Extend<Report>) {
        let due = self.desk.as_ref().and_then(Desk::poll_timeout);
        if due.is_some_and(|at| at <= now.mono) {
            self.feed(quic, now, Event::Timeout, reports);
        }
        self.carrier.handle_timeout(now);
    }

    pub(super) fn drain(&mut self, quic: &mut quic::Endpoint, now: Now, reports: &mut impl Extend<Report>) {
        self.feed(quic, now, Event::Drain, reports);
    }

    pub(super) fn set_access(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        access: AccessRules,
        reports: &mut impl Extend<Report>,
    ) {
        if let Some(desk) = &mut self.desk {
            desk.set_access(now, access, &mut self.actions);
            self.execute(quic, now, reports);
        }
    }

    /// Takes over a connection whose handshake is complete.
    pub(super) fn connected(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        handle: ConnectionHandle,
        reports: &mut impl Extend<Report>,
    ) {
        if let Some(told) = self.carrier.connected(quic, handle) {
            self.tell(quic, now, told, reports);
        }
    }

    /// Takes an event of a connection that the relay runs.
    pub(super) fn on_event(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        event: &quic::Event,
        reports: &mut impl Extend<Report>,
    ) {
        match self.carrier.on_event(quic, event) {
            Seen::Nothing => {}
            Seen::Told(told) => self.tell(quic, now, told, reports),
            Seen::Control(conn) => self.read_control(quic, now, conn, reports),
        }
    }

    /// Moves tunnel bytes; false when nothing can move.
    pub(super) fn run(&mut self, quic: &mut quic::Endpoint, now: Now, reports: &mut impl Extend<Report>) -> bool {
        let Some(over) = self.carrier.run(quic, now) else {
            return false;
        };
        if let Some(told) = over {
            self.tell(quic, now, told, reports);
        }
        true
    }

    // ----- other shards --------------------------------------------------------------------------------------------

    /// What is to be said to another shard.
    pub(super) fn poll_post(&mut self) -> Option<(u8, RelayMessage)> {
        self.posts.extend(self.carrier.outbox());
        self.posts.pop_front()
    }

    /// Takes what another shard says.
    pub(super) fn on_message(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        from: u8,
        message: RelayMessage,
        reports: &mut impl Extend<Report>,
    ) {
        match message {
            RelayMessage::Told(told) => {
                if let Told::ControlBytes { conn, bytes } = &told {
                    let (conn, bytes) = (*conn, bytes.len());
                    self.posts.push_back((from, RelayMessage::Heard { conn, bytes }));
                }
                self.hear(quic, now, from, told, reports);
            }
            RelayMessage::Do(action) => {
                if let Some(told) = self.carrier.carry(quic, now, action) {
                    self.tell(quic, now, told, reports);
                }
            }
            RelayMessage::Heard { conn, bytes } => {
                if let Some(conn) = self.carrier.heard(conn, bytes) {
                    self.read_control(quic, now, conn, reports);
                }
            }
            RelayMessage::Crossing(way, crossing) => self.carrier.on_crossing(quic, way, crossing),
        }
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    fn read_control(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        reports: &mut impl Extend<Report>,
    ) {
        while let Some(told) = self.carrier.read_control(quic, conn) {
            self.tell(quic, now, told, reports);
        }
    }

    /// Tells the shard that decides what this one has seen.
    fn tell(&mut self, quic: &mut quic::Endpoint, now: Now, told: Told, reports: &mut impl Extend<Report>) {
        if self.desk.is_some() {
            self.hear(quic, now, self.shard.index(), told, reports);
        } else {
            self.posts.push_back((DECIDES, RelayMessage::Told(told)));
        }
    }

    fn hear(&mut self, quic: &mut quic::Endpoint, now: Now, from: u8, told: Told, reports: &mut impl Extend<Report>) {
        let Some(desk) = &mut self.desk else { return };
        if note(desk, now, from, told, &mut self.actions, reports) {
            self.execute(quic, now, reports);
        }
    }

    fn feed(&mut self, quic: &mut quic::Endpoint, now: Now, event: Event<'_>, reports: &mut impl Extend<Report>) {
        let Some(desk) = &mut self.desk else { return };
        desk.handle(now, event, &mut self.actions);
        self.execute(quic, now, reports);
    }

    /// Carries out actions until there are none. What the machine wants to know of one is told once all of its list are
    /// carried out, so that messages leave in the order of their causes.
    fn execute(&mut self, quic: &mut quic::Endpoint, now: Now, reports: &mut impl Extend<Report>) {
        let Some(desk) = &mut self.desk else { return };
        let own = self.shard.index();
        let mut answers = VecDeque::new();
        loop {
            for action in self.actions.drain(..) {
                desk.assign(action, &mut self.errands);
                for errand in self.errands.drain(..) {
                    match errand {
                        Errand::Report(report) => reports.extend([report]),
                        Errand::Do(shard, action) if shard != own => {
                            self.posts.push_back((shard, RelayMessage::Do(action)));
                        }
                        Errand::Do(_, action) => match self.carrier.carry(quic, now, action) {
                            // The report of its end is next, and wants to know.
                            Some(Told::PartEnded(tunnel, part)) => {
                                reports.extend(desk.part_ended(own, tunnel, part).and_then(Result::err));
                            }
                            answer => answers.extend(answer),
                        },
                    }
                }
            }
            let Some(answer) = answers.pop_front() else { break };
            note(desk, now, own, answer, &mut self.actions, reports);
        }
    }
}

/// Tells the desk something; true if actions came of it.
fn note(
    desk: &mut Desk,
    now: Now,
    from: u8,
    told: Told,
    actions: &mut Vec<Action>,
    reports: &mut impl Extend<Report>,
) -> bool {
    match told {
        Told::ControlBytes { conn, bytes } => desk.handle(now, Event::ControlBytes { conn, bytes: &bytes }, actions),
        Told::Event(event) => desk.handle(now, event, actions),
        Told::PartEnded(tunnel, part) => match desk.part_ended(from, tunnel, part) {
            Some(Ok(event)) => desk.handle(now, event, actions),
            Some(Err(report)) => reports.extend([report]),
            None => {}
        },
    }
    !actions.is_empty()
}
