//! Connections that peering machines run, and the events they are fed.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;

use super::{
    PeerId, PeerInfo, PeerItem,
    actions::cost,
    door::{Listener, Silent},
};
use crate::{
    Code, Now, Rng,
    deadlines::{Deadlines, earliest},
    endpoint::Event as Out,
    peering::{Action, Event, Outgoing, Peering, PeeringConfig, Received, Role, SendError, TransportError, binding},
    quic::{self, CloseReason, ConnectionHandle, Dir, OpenError, ReadError, Side, StreamId, alpn},
    wire::frame::Text,
};

/// Largest piece that is read or pulled at once, in bytes.
pub(super) const PIECE: usize = 64 << 10;
/// What frames that wait to be fetched may take, in bytes; nothing is read while they take more.
const INBOX: usize = 256 << 10;
/// All peering connections of an endpoint, and those that may become one.
#[derive(Debug)]
pub(in crate::endpoint) struct PeerRole {
    pub(super) rng: Rng,
    pub(super) listener: Option<Listener>,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    next: u64,
    pub(super) conns: HashMap<ConnectionHandle, Slot>,
    pub(super) deadlines: Deadlines<PeerId>,
    pub(super) work: VecDeque<(PeerId, Event)>,
    /// Whose bytes shall leave before something else is pulled.
    pub(super) unflushed: Vec<PeerId>,
    /// Whose bytes have left, and since when.
    flushed: Vec<PeerId>,
    flushed_at: Option<Instant>,
    /// Whose link has something to do.
    pub(super) rpc_news: VecDeque<PeerId>,
}

/// What a connection is to this role.
#[derive(Debug)]
pub(super) enum Slot {
    /// Its first byte is not there yet.
    Silent(Silent),
    Peer(PeerId),
    /// Closed here, and only its end is still to come.
    Refused,
}

/// A connection that a machine runs.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) machine: Peering,
    pub(super) role: Role,
    pub(super) conn: ConnectionHandle,
    pub(super) remote: SocketAddr,
    pub(super) stream: Option<StreamId>,
    /// A stream is wanted, and not granted yet.
    pub(super) opening: bool,
    pub(super) pending: Bytes,
    pub(super) blocked: bool,
    pub(super) write_over: bool,
    pub(super) finish: bool,
    pub(super) tell_flushed: bool,
    pub(super) inbox: VecDeque<PeerItem>,
    pub(super) inbox_bytes: usize,
    /// Frames for its link, if it has one.
    pub(super) rpc: Option<VecDeque<Box<Received>>>,
    /// The user knows of it.
    pub(super) known: bool,
    /// The user wants to hear no more of it.
    pub(super) forgotten: bool,
    /// The user was told that there is something to fetch, and has not fetched everything since.
    pub(super) told: bool,
    pub(super) ended: bool,
    pub(super) deadline: Option<Instant>,
}

impl PeerRole {
    pub(in crate::endpoint) fn new(rng: Rng) -> Self {
        Self {
            rng,
            listener: None,
            peers: BTreeMap::new(),
            next: 0,
            conns: HashMap::new(),
            deadlines: Deadlines::default(),
            work: VecDeque::new(),
            unflushed: Vec::new(),
            flushed: Vec::new(),
            flushed_at: None,
            rpc_news: VecDeque::new(),
        }
    }

    // ----- the edge ------------------------------------------------------------------------------------------------

    /// Whether an event is about a connection of this role, or one that it takes over now.
    pub(in crate::endpoint) fn takes(&self, event: &quic::Event) -> bool {
        let Some(conn) = event.connection() else { return false };
        let arrives = match event {
            quic::Event::Connected { side, alpn, .. } => {
                self.listener.is_some() && *side == Side::Server && alpn.as_deref() == Some(alpn::MACULA)
            }
            _ => false,
        };
        arrives || self.conns.contains_key(&conn)
    }

    pub(in crate::endpoint) fn on_event(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        event: quic::Event,
        out: &mut Vec<Out>,
    ) {
        let Some(conn) = event.connection() else { return };
        match self.conns.get(&conn) {
            None => self.arrived(quic, now, conn, event, out),
            Some(Slot::Silent(_)) => self.silent_event(quic, now, conn, event, out),
            Some(Slot::Peer(peer)) => {
                let peer = *peer;
                if matches!(event, quic::Event::Closed { .. }) {
                    self.conns.remove(&conn);
                }
                self.peer_event(quic, now, peer, event, out);
            }
            Some(Slot::Refused) => {
                if matches!(event, quic::Event::Closed { .. }) {
                    self.conns.remove(&conn);
                }
            }
        }
        self.work(quic, now, out);
    }

    pub(in crate::endpoint) fn poll_timeout(&self) -> Option<Instant> {
        let silent = self.listener.as_ref().and_then(|listener| {
            let (_, (deadline, _)) = listener.silent.first_key_value()?;
            Some(*deadline)
        });
        earliest(earliest(silent, self.deadlines.earliest()), self.flushed_at)
    }

    pub(in crate::endpoint) fn handle_timeout(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Vec<Out>) {
        self.flush(quic, now, out);
        while let Some(peer) = self.deadlines.pop_due(now.mono) {
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.deadline = None;
            }
            self.feed(quic, now, peer, Event::Timeout, out);
        }
        while let Some(listener) = &mut self.listener
            && let Some((_, &(deadline, conn))) = listener.silent.first_key_value()
            && deadline <= now.mono
        {
            listener.stats.unrecognised += 1;
            self.drop_silent(quic, now, conn, Code::TIMEOUT, b"nothing came");
        }
    }

    /// Everything that was to be sent has been handed out.
    pub(in crate::endpoint) fn transmitted(&mut self, now: Now) {
        if !self.unflushed.is_empty() {
            self.flushed.append(&mut self.unflushed);
            self.flushed_at = Some(now.mono);
        }
    }

    /// Tells whose bytes have left. False when there is nobody to tell.
    pub(in crate::endpoint) fn flush(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Vec<Out>) -> bool {
        if self.flushed_at.take().is_none() {
            return false;
        }
        for peer in std::mem::take(&mut self.flushed) {
            self.feed(quic, now, peer, Event::Flushed, out);
        }
        true
    }

    // ----- what the user wants -------------------------------------------------------------------------------------

    #[expect(clippy::too_many_arguments, reason = "a dial has as many sides")]
    pub(super) fn dialled(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        conn: ConnectionHandle,
        remote: SocketAddr,
        config: PeeringConfig,
        rng: Rng,
        out: &mut Vec<Out>,
    ) -> PeerId {
        let peer = self.add(Peering::new(Role::Dialler, config, rng), conn, remote);
        self.feed(quic, now, peer, Event::Dialling, out);
        peer
    }

    pub(in crate::endpoint) fn send(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        frame: Outgoing,
        out: &mut Vec<Out>,
    ) -> Result<u64, SendError> {
        let entry = self.peers.get_mut(&peer).ok_or(SendError::Closing)?;
        let mut actions = Vec::new();
        let number = entry.machine.send(now, frame, &mut actions);
        self.execute(quic, now, peer, actions, out);
        self.work(quic, now, out);
        number
    }

    pub(super) fn next_item(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        out: &mut Vec<Out>,
    ) -> Option<PeerItem> {
        if self.peers.get(&peer)?.inbox.is_empty() {
            self.read(quic, now, peer, false, out);
        }
        let entry = self.peers.get_mut(&peer)?;
        let Some(item) = entry.inbox.pop_front() else {
            entry.told = false;
            return None;
        };
        entry.inbox_bytes = entry.inbox_bytes.saturating_sub(cost(&item));
        if let PeerItem::Ended { .. } = item {
            self.remove(peer);
        }
        Some(item)
    }

    pub(super) fn close(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        reason: Text,
        detail: Option<Bytes>,
        out: &mut Vec<Out>,
    ) {
        self.feed(quic, now, peer, Event::Close { reason, detail }, out);
    }

    pub(super) fn forget(&mut self, quic: &mut quic::Endpoint, now: Now, peer: PeerId, code: Code, out: &mut Vec<Out>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.ended {
            return self.remove(peer);
        }
        entry.forgotten = true;
        entry.inbox.clear();
        self.feed(quic, now, peer, Event::Abort(code), out);
    }

    pub(super) fn info(&self, peer: PeerId) -> Option<PeerInfo> {
        let entry = self.peers.get(&peer)?;
        Some(PeerInfo {
            role: entry.role,
            peer: entry.machine.peer(),
            remote: entry.remote,
            connection: entry.conn,
            queued: entry.machine.queued(),
            waiting: entry.inbox.len(),
            stats: entry.machine.stats(),
        })
    }

    // ----- a peer's connection -------------------------------------------------------------------------------------

    pub(super) fn add(&mut self, machine: Peering, conn: ConnectionHandle, remote: SocketAddr) -> PeerId {
        let id = PeerId(self.next);
        self.next += 1;
        let role = machine.role();
        let peer = Peer {
            machine,
            role,
            conn,
            remote,
            stream: None,
            opening: false,
            pending: Bytes::new(),
            blocked: false,
            write_over: false,
            finish: false,
            tell_flushed: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            rpc: None,
            known: role == Role::Dialler,
            forgotten: false,
            told: false,
            ended: false,
            deadline: None,
        };
        self.peers.insert(id, peer);
        self.conns.insert(conn, Slot::Peer(id));
        id
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        if let Some(gone) = self.peers.remove(&peer) {
            self.deadlines.update(peer, gone.deadline, None);
        }
    }

    pub(super) fn take_stream(&mut self, quic: &mut quic::Endpoint, peer: PeerId, stream: StreamId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.stream = Some(stream);
        entry.opening = false;
        if let Ok(mut connection) = quic.connection(entry.conn)
            && let Ok(mut stream) = connection.stream(stream)
        {
            stream.hold();
        }
    }

    fn peer_event(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        event: quic::Event,
        out: &mut Vec<Out>,
    ) {
        use quic::Event as E;
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let own = event.stream().is_some() && event.stream() == entry.stream;
        match event {
            E::Connected { conn, .. } => {
                let exporter = exporter(quic, conn);
                self.feed(quic, now, peer, Event::Start { exporter }, out);
            }
            E::Closed {
                reason, established, ..
            } => {
                // What had arrived before can still be read, and is bounded by the receive window.
                self.read(quic, now, peer, true, out);
                let why = transport_error(&reason);
                let event = if established {
                    Event::ConnectionLost(why)
                } else {
                    Event::DialFailed(why)
                };
                self.feed(quic, now, peer, event, out);
            }
            E::StreamsAvailable { dir: Dir::Bi, .. } if entry.opening => self.open(quic, peer),
            // Its own may have been seen before it was announced.
            E::StreamOpened { conn, stream } if !own => self.extra_stream(quic, conn, stream),
            E::Readable { .. } | E::Reset { .. } if own => self.read(quic, now, peer, false, out),
            E::Writable { .. } if own => {
                entry.blocked = false;
                self.execute(quic, now, peer, vec![Action::Writable], out);
            }
            E::Stopped { code, .. } if own => {
                entry.write_over = true;
                self.feed(quic, now, peer, Event::WriteFailed(TransportError::Peer(code)), out);
            }
            _ => {}
        }
    }

    pub(super) fn open(&mut self, quic: &mut quic::Endpoint, peer: PeerId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.opening = true;
        let opened = match quic.connection(entry.conn) {
            Ok(mut connection) => connection.open(Dir::Bi),
            Err(_) => Err(OpenError::ConnectionLost),
        };
        match opened {
            Ok(stream) => {
                self.take_stream(quic, peer, stream);
                self.work.push_back((peer, Event::StreamOpened));
            }
            // Until the time of the handshake is over.
            Err(OpenError::Blocked) => {}
            Err(_) => {
                let failed = Event::StreamOpenFailed(TransportError::Closed);
                self.work.push_back((peer, failed));
            }
        }
    }

    /// Reads what there is, until too much waits to be fetched; `all` of it when the connection is over.
    pub(super) fn read(&mut self, quic: &mut quic::Endpoint, now: Now, peer: PeerId, all: bool, out: &mut Vec<Out>) {
        loop {
            let Some(entry) = self.peers.get(&peer) else { return };
            let Some(stream) = entry.stream else { return };
            if entry.ended || !all && entry.inbox_bytes >= INBOX {
                return;
            }
            let Ok(mut connection) = quic.connection(entry.conn) else {
                return;
            };
            let Ok(mut stream) = connection.stream(stream) else {
                return;
            };
            let event = match stream.read_chunk(PIECE) {
                Ok(Some(bytes)) => Event::Received(bytes),
                Ok(None) => Event::Finished,
                Err(ReadError::Reset(code)) => Event::Reset(code),
                Err(_) => return,
            };
            let over = !matches!(event, Event::Received(_));
            self.feed(quic, now, peer, event, out);
            if over {
                return;
            }
        }
    }
}

pub(super) fn exporter(quic: &mut quic::Endpoint, conn: ConnectionHandle) -> Option<[u8; binding::EXPORTER_LENGTH]> {
    let mut bytes = [0; binding::EXPORTER_LENGTH];
    let connection = quic.connection(conn).ok()?;
    connection
        .export_keying_material(&mut bytes, binding::EXPORTER_LABEL, &[])
        .then_some(bytes)
}

fn transport_error(reason: &CloseReason) -> TransportError {
    match reason {
        CloseReason::Peer { code, .. } => TransportError::Peer(*code),
        CloseReason::HandshakeTimeout | CloseReason::TimedOut => TransportError::TimedOut,
        CloseReason::Local { .. } | CloseReason::StatelessReset => TransportError::Closed,
        // 0x100 to 0x1ff are alerts of TLS.
        CloseReason::PeerTransport { code, .. } | CloseReason::Transport { code, .. }
            if (0x100..0x200).contains(code) =>
        {
            TransportError::Tls
        }
        _ => TransportError::Other,
    }
}
