//! Connections that the relay machine runs: its actions carried out, its events fed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{
    lane::{Lane, refuse},
    splice::{End, Splices},
};
use crate::{
    Code, Now, Rng,
    deadlines::earliest,
    quic::{self, ConnectionHandle, Dir, OpenError, Side, StreamId},
    tunnel::{
        ConnKey, StreamKey,
        relay::{
            AccessRules, Action, Event, Relay, RelayConfig, RelayStats, RelayStatus, Report, TunnelBytes, TunnelKey,
        },
    },
};

/// A relay inside an endpoint.
#[derive(Debug)]
pub(super) struct RelayRole {
    machine: Relay,
    splices: Splices,
    /// The control streams, once they are there.
    lanes: BTreeMap<ConnectionHandle, Option<Lane>>,
    actions: Vec<Action>,
    backlog: usize,
    /// What tunnels carried that the machine ended itself, until it reports them.
    ended: BTreeMap<TunnelKey, TunnelBytes>,
}

impl RelayRole {
    pub(super) fn new(config: RelayConfig, rng: Rng) -> Self {
        Self {
            splices: Splices::new(config.limits.splice_block),
            backlog: config.limits.control_backlog,
            machine: Relay::new(config, rng),
            lanes: BTreeMap::new(),
            actions: Vec::new(),
            ended: BTreeMap::new(),
        }
    }

    pub(super) fn runs(&self, conn: ConnectionHandle) -> bool {
        self.lanes.contains_key(&conn)
    }

    pub(super) fn status(&self) -> RelayStatus {
        self.machine.status()
    }

    pub(super) fn stats(&self) -> RelayStats {
        self.machine.stats()
    }

    pub(super) fn tunnel_bytes(&self, tunnel: TunnelKey) -> Option<TunnelBytes> {
        self.splices.bytes(tunnel)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.machine.poll_timeout(), self.splices.next_deadline())
    }

    pub(super) fn handle_timeout(&mut self, quic: &mut quic::Endpoint, now: Now, reports: &mut impl Extend<Report>) {
        if self.machine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.feed(quic, now, Event::Timeout, reports);
        }
        self.splices.handle_timeout(now);
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
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.set_access(now, access, &mut actions);
        self.actions = actions;
        self.execute(quic, now, reports);
    }

    /// Takes over a connection whose handshake is complete.
    pub(super) fn connected(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        handle: ConnectionHandle,
        reports: &mut impl Extend<Report>,
    ) {
        let Ok(conn) = quic.connection(handle) else { return };
        let event = Event::Connected {
            conn: key(handle),
            pin: conn.handshake().peer_pin.map(|pin| pin.0),
            remote: conn.remote_address(),
        };
        self.lanes.insert(handle, None);
        self.feed(quic, now, event, reports);
    }

    /// Takes an event of a connection that the relay runs.
    pub(super) fn on_event(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        event: &quic::Event,
        reports: &mut impl Extend<Report>,
    ) {
        let Some(conn) = event.connection() else { return };
        if let quic::Event::Closed { .. } = event {
            self.lanes.remove(&conn);
            self.splices.connection_lost(conn);
            return self.feed(quic, now, Event::ConnectionLost { conn: key(conn) }, reports);
        }
        if let quic::Event::StreamsAvailable { dir: Dir::Bi, .. } = event {
            return self.feed(quic, now, Event::StreamsAvailable { conn: key(conn) }, reports);
        }
        let Some(stream) = event.stream() else { return };
        if let quic::Event::StreamOpened { .. } = event {
            return self.stream_opened(quic, now, conn, stream, reports);
        }
        if self.splices.on_event(quic, End { conn, stream }, event) {
            return;
        }
        let Some(Some(lane)) = self.lanes.get_mut(&conn) else {
            return;
        };
        if lane.stream() != stream {
            return;
        }
        match event {
            quic::Event::Writable { .. } => lane.flush(quic),
            quic::Event::Readable { .. } | quic::Event::Reset { .. } => self.read_control(quic, now, conn, reports),
            _ => {}
        }
    }

    /// Moves tunnel bytes; false when nothing can move.
    pub(super) fn run(&mut self, quic: &mut quic::Endpoint, now: Now, reports: &mut impl Extend<Report>) -> bool {
        let Some(over) = self.splices.run(quic, now) else {
            return false;
        };
        if let Some((tunnel, end, bytes)) = over {
            self.feed(quic, now, Event::TunnelEnded { tunnel, end, bytes }, reports);
        }
        true
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    fn stream_opened(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        stream: StreamId,
        reports: &mut impl Extend<Report>,
    ) {
        let is_control = stream.dir() == Dir::Bi && stream.initiator() == Side::Client && stream.index() == 0;
        if !is_control {
            refuse(quic, conn, stream, Code::REFUSED);
            return self.feed(quic, now, Event::ExtraStream { conn: key(conn) }, reports);
        }
        let lane = Lane::new(quic, conn, stream, self.backlog);
        self.lanes.insert(conn, Some(lane));
        self.read_control(quic, now, conn, reports);
    }

    fn read_control(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        reports: &mut impl Extend<Report>,
    ) {
        while let Some(Some(lane)) = self.lanes.get_mut(&conn)
            && let Some(read) = lane.read(quic)
        {
            let conn = key(conn);
            match read {
                Ok(bytes) => self.feed(quic, now, Event::ControlBytes { conn, bytes: &bytes }, reports),
                Err(end) => self.feed(quic, now, Event::ControlEnded { conn, end }, reports),
            }
        }
    }

    fn feed(&mut self, quic: &mut quic::Endpoint, now: Now, event: Event<'_>, reports: &mut impl Extend<Report>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.handle(now, event, &mut actions);
        self.actions = actions;
        self.execute(quic, now, reports);
    }

    /// Carries out actions until there are none. What the machine wants to know of one is told once all of its list are
    /// carried out, so that messages leave in the order of their causes.
    fn execute(&mut self, quic: &mut quic::Endpoint, now: Now, reports: &mut impl Extend<Report>) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut answers = VecDeque::new();
        loop {
            for action in actions.drain(..) {
                answers.extend(self.execute_one(quic, now, action, reports));
            }
            let Some(answer) = answers.pop_front() else { break };
            self.machine.handle(now, answer, &mut actions);
        }
        self.actions = actions;
        self.ended.clear();
    }

    fn execute_one(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        action: Action,
        reports: &mut impl Extend<Report>,
    ) -> Option<Event<'static>> {
        match action {
            Action::SendControl { conn, bytes } => {
                let lane = self.lanes.get_mut(&handle(conn))?.as_mut()?;
                return lane.send(quic, &bytes).err().map(|_| Event::ControlStalled { conn });
            }
            Action::OpenStream { conn, ticket } => {
                return match quic.connection(handle(conn)).ok()?.open(Dir::Bi) {
                    Ok(stream) => Some(Event::StreamOpened {
                        ticket,
                        stream: StreamKey(stream.get()),
                    }),
                    Err(OpenError::Blocked) => Some(Event::StreamUnavailable { ticket }),
                    // The loss of the connection settles the ticket.
                    Err(_) => None,
                };
            }
            Action::Splice {
                tunnel,
                id,
                requester,
                target,
                rates,
            } => {
                if let (Some(requester), Some(target)) = (end(requester), end(target)) {
                    self.splices.start(quic, now, tunnel, &id, (requester, target), rates);
                }
            }
            Action::DropStream { conn, stream, code } => {
                if let Some(End { conn, stream }) = end((conn, stream)) {
                    refuse(quic, conn, stream, code);
                }
            }
            Action::EndTunnel { tunnel, code } => {
                if let Some(bytes) = self.splices.end(quic, tunnel, code) {
                    self.ended.insert(tunnel, bytes);
                }
            }
            Action::CloseConnection { conn, code, reason } => {
                if let Ok(mut conn) = quic.connection(handle(conn)) {
                    conn.close(now, code, Bytes::from_static(reason.as_bytes()));
                }
            }
            Action::Report(report) => reports.extend([self.with_bytes(report)]),
        }
        None
    }

    /// Adds what a tunnel carried to the report of its end.
    fn with_bytes(&mut self, mut report: Report) -> Report {
        if let Report::TunnelClosed { tunnel, bytes, .. } = &mut report
            && bytes.is_none()
        {
            *bytes = self.ended.remove(tunnel);
        }
        report
    }
}

fn key(conn: ConnectionHandle) -> ConnKey {
    ConnKey(conn.to_bits())
}

fn handle(conn: ConnKey) -> ConnectionHandle {
    ConnectionHandle::from_bits(conn.0)
}

fn end((conn, stream): (ConnKey, StreamKey)) -> Option<End> {
    Some(End {
        conn: handle(conn),
        stream: StreamId::new(stream.0)?,
    })
}
