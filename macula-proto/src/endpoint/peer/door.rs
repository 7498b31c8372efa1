//! The way in: who may serve, whom, and connections whose first byte is not there yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;

use super::{
    PeerId, PeerListenConfig, PeerServiceStats,
    role::{PeerRole, Slot, exporter},
};
use crate::{
    Code, Now,
    endpoint::{Event as Out, lane::refuse},
    identity::NodeId,
    peering::{Duplicates, Event, Gate, GateAction, GateEvent, PeerConn, Peering, PeeringConfig, Role},
    quic::{self, ConnectionHandle, ReadError, StreamId},
};

/// Events kept for a connection whose first byte is not there yet. More are a connection that plays with streams.
const MAX_HELD: usize = 512;
/// The first byte of a peering connection: the high byte of a frame's length.
const PEERING: u8 = 0;
/// The first byte of an RPC connection: the version of a message.
const RPC: u8 = 1;

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) config: PeeringConfig,
    pub(super) gate: Gate,
    /// How many connections may wait for their first byte.
    pub(super) max_silent: usize,
    /// These, in the order in which they came.
    pub(super) silent: BTreeMap<u64, (Instant, ConnectionHandle)>,
    pub(super) arrivals: u64,
    pub(super) stats: PeerServiceStats,
}

#[derive(Debug)]
pub(super) struct Silent {
    pub(super) arrival: u64,
    pub(super) remote: SocketAddr,
    pub(super) stream: Option<StreamId>,
    /// For the embedding program, should it get the connection.
    pub(super) held: Vec<quic::Event>,
}

impl PeerRole {
    // ----- the door ------------------------------------------------------------------------------------------------

    pub(super) fn serve(&mut self, config: PeerListenConfig) {
        if let Some(listener) = &mut self.listener {
            listener.config = config.peering;
            listener.max_silent = config.gate.handshaking.max(1);
            return self.gate(GateEvent::Open(config.gate));
        }
        self.listener = Some(Listener {
            config: config.peering,
            max_silent: config.gate.handshaking.max(1),
            gate: Gate::new(config.gate),
            silent: BTreeMap::new(),
            arrivals: 0,
            stats: PeerServiceStats::default(),
        });
    }

    pub(super) fn serves(&self) -> bool {
        self.listener.is_some()
    }

    pub(super) fn allow(&mut self, list: Option<BTreeSet<NodeId>>) {
        self.gate(GateEvent::AllowOnly(list));
    }

    pub(super) fn set_duplicates(&mut self, policy: Duplicates) {
        self.gate(GateEvent::Duplicates(policy));
    }

    pub(super) fn shut(&mut self) {
        self.gate(GateEvent::ShutDown);
    }

    pub(super) fn stats(&self) -> PeerServiceStats {
        let Some(listener) = &self.listener else {
            return PeerServiceStats::default();
        };
        let mut stats = listener.stats;
        stats.gate = listener.gate.stats();
        stats.silent = listener.silent.len();
        stats.handshaking = listener.gate.handshaking();
        stats.connected = listener.gate.connected();
        stats
    }

    /// Tells the gate; what it wants done to connections is queued.
    pub(super) fn gate(&mut self, event: GateEvent) {
        let Some(listener) = &mut self.listener else { return };
        let mut actions = Vec::new();
        listener.gate.handle(event, &mut actions);
        self.work.extend(actions.into_iter().map(|action| match action {
            GateAction::Admit(conn) => (PeerId(conn.0), Event::Admit),
            GateAction::Refuse(conn, why) => (PeerId(conn.0), Event::Refuse(why)),
            GateAction::Close(conn, code) => (PeerId(conn.0), Event::Abort(code)),
        }));
    }

    // ----- before the first byte -----------------------------------------------------------------------------------

    pub(super) fn arrived(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        event: quic::Event,
        out: &mut Vec<Out>,
    ) {
        let (Some(listener), quic::Event::Connected { remote, .. }) = (&mut self.listener, &event) else {
            return;
        };
        let remote = *remote;
        let arrival = listener.arrivals;
        listener.arrivals += 1;
        let timeout = listener.config.limits.peering_handshake_timeout;
        let deadline = now.mono.checked_add(timeout).unwrap_or(now.mono);
        // More than one when the cap was lowered meanwhile.
        while let Some(listener) = &mut self.listener
            && listener.silent.len() >= listener.max_silent
            && let Some((_, (_, oldest))) = listener.silent.pop_first()
        {
            listener.stats.displaced_silent += 1;
            self.drop_silent(quic, now, oldest, Code::LIMIT, b"too many connections");
        }
        if let Some(listener) = &mut self.listener {
            listener.silent.insert(arrival, (deadline, conn));
        }
        // Its first stream can be there already, with its announcement given before (early data) or still to come.
        let first = first_stream();
        let stream = quic.connection(conn).ok().and_then(|mut conn| {
            let first = first?;
            conn.stream(first).is_ok().then_some(first)
        });
        let silent = Silent {
            arrival,
            remote,
            stream,
            held: vec![event],
        };
        self.conns.insert(conn, Slot::Silent(silent));
        if stream.is_some() {
            self.look(quic, now, conn, out);
        }
    }

    pub(super) fn silent_event(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        event: quic::Event,
        out: &mut Vec<Out>,
    ) {
        let Some(Slot::Silent(silent)) = self.conns.get_mut(&conn) else {
            return;
        };
        if let quic::Event::Closed { .. } = event {
            let arrival = silent.arrival;
            self.conns.remove(&conn);
            self.listener.as_mut().map(|listener| listener.silent.remove(&arrival));
            return;
        }
        if let quic::Event::StreamOpened { stream, .. } = event
            && Some(stream) == first_stream()
        {
            silent.stream = Some(stream);
        }
        let first = silent.stream.is_some() && event.stream() == silent.stream;
        // What is read here to look at it is announced again when it is put back.
        if !(first && matches!(event, quic::Event::Readable { .. })) {
            silent.held.push(event);
        }
        if silent.held.len() > MAX_HELD {
            return self.drop_silent(quic, now, conn, Code::LIMIT, b"too many streams");
        }
        if first {
            self.look(quic, now, conn, out);
        }
    }

    /// Looks at the first byte, if it is there.
    fn look(&mut self, quic: &mut quic::Endpoint, now: Now, conn: ConnectionHandle, out: &mut Vec<Out>) {
        let Some(Slot::Silent(Silent {
            stream: Some(stream), ..
        })) = self.conns.get(&conn)
        else {
            return;
        };
        let stream = *stream;
        let Ok(mut connection) = quic.connection(conn) else {
            return;
        };
        let Ok(mut borrowed) = connection.stream(stream) else {
            return;
        };
        let mut byte = [0];
        let first = match borrowed.read(&mut byte) {
            Err(ReadError::Blocked | ReadError::ConnectionLost) => return,
            Ok(1) => {
                borrowed.unread(Bytes::copy_from_slice(&byte));
                Some(byte[0])
            }
            Ok(_) | Err(_) => None,
        };
        match first {
            Some(PEERING) => self.is_peer(quic, now, conn, stream, out),
            Some(RPC) => {
                let Some(Slot::Silent(silent)) = self.conns.remove(&conn) else {
                    return;
                };
                if let Some(listener) = &mut self.listener {
                    listener.silent.remove(&silent.arrival);
                    listener.stats.rpc += 1;
                }
                out.extend(silent.held.into_iter().map(Out::Quic));
            }
            _ => {
                if let Some(listener) = &mut self.listener {
                    listener.stats.unrecognised += 1;
                }
                self.drop_silent(quic, now, conn, Code::PROTOCOL, b"neither peering nor rpc");
            }
        }
    }

    fn is_peer(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        stream: StreamId,
        out: &mut Vec<Out>,
    ) {
        let Some(Slot::Silent(silent)) = self.conns.remove(&conn) else {
            return;
        };
        let Some(listener) = &mut self.listener else { return };
        listener.silent.remove(&silent.arrival);
        let machine = Peering::new(Role::Acceptor, listener.config.clone(), self.rng.fork());
        let peer = self.add(machine, conn, silent.remote);
        for event in silent.held {
            if let quic::Event::StreamOpened { stream: other, .. } = event
                && other != stream
            {
                self.extra_stream(quic, conn, other);
            }
        }
        self.take_stream(quic, peer, stream);
        self.gate(GateEvent::Arrived(PeerConn(peer.0)));
        let exporter = exporter(quic, conn);
        self.feed(quic, now, peer, Event::Start { exporter }, out);
        self.read(quic, now, peer, false, out);
    }

    pub(super) fn drop_silent(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        code: Code,
        words: &'static [u8],
    ) {
        if let Some(Slot::Silent(silent)) = self.conns.insert(conn, Slot::Refused)
            && let Some(listener) = &mut self.listener
        {
            listener.silent.remove(&silent.arrival);
        }
        match quic.connection(conn) {
            Ok(mut connection) => connection.close(now, code, Bytes::from_static(words)),
            Err(_) => _ = self.conns.remove(&conn),
        }
    }

    pub(super) fn extra_stream(&mut self, quic: &mut quic::Endpoint, conn: ConnectionHandle, stream: StreamId) {
        if let Some(listener) = &mut self.listener {
            listener.stats.extra_streams += 1;
        }
        refuse(quic, conn, stream, Code::REFUSED);
    }
}

/// The only stream that can carry a peering connection.
fn first_stream() -> Option<StreamId> {
    StreamId::new(0)
}
