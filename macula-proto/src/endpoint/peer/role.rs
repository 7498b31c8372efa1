//! Connections that peering machines run: their actions carried out, their events fed.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;

use super::{
    PeerEvent, PeerId, PeerInfo, PeerItem,
    door::{Listener, Silent},
};
use crate::{
    Code, Now, Rng,
    deadlines::{Deadlines, earliest},
    endpoint::{Event as Out, rpc::is_rpc},
    identity::NodeId,
    peering::{
        Action, EndReason, Event, GateEvent, Outgoing, PeerConn, Peering, PeeringConfig, Received, Role, SendError,
        TransportError, Verdict, binding,
    },
    quic::{self, CloseReason, ConnectionHandle, Dir, OpenError, ReadError, Side, StreamId, WriteError, alpn},
    wire::frame::Text,
};

/// Largest piece that is read or pulled at once, in bytes.
const PIECE: usize = 64 << 10;
/// What frames that wait to be fetched may take, in bytes; nothing is read while they take more.
const INBOX: usize = 256 << 10;
/// What a waiting frame counts beyond its bytes.
const FRAME_COST: usize = 512;

/// All peering connections of an endpoint, and those that may become one.
#[derive(Debug)]
pub(in crate::endpoint) struct PeerRole {
    pub(super) rng: Rng,
    pub(super) listener: Option<Listener>,
    peers: BTreeMap<PeerId, Peer>,
    next: u64,
    pub(super) conns: HashMap<ConnectionHandle, Slot>,
    deadlines: Deadlines<PeerId>,
    pub(super) work: VecDeque<(PeerId, Event)>,
    /// Whose bytes shall leave before something else is pulled.
    unflushed: Vec<PeerId>,
    /// Whose bytes have left, and since when.
    flushed: Vec<PeerId>,
    flushed_at: Option<Instant>,
    /// Whose link has something to do.
    rpc_news: VecDeque<PeerId>,
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

#[derive(Debug)]
struct Peer {
    machine: Peering,
    role: Role,
    conn: ConnectionHandle,
    remote: SocketAddr,
    stream: Option<StreamId>,
    /// A stream is wanted, and not granted yet.
    opening: bool,
    pending: Bytes,
    blocked: bool,
    write_over: bool,
    finish: bool,
    tell_flushed: bool,
    inbox: VecDeque<PeerItem>,
    inbox_bytes: usize,
    /// Frames for its link, if it has one.
    rpc: Option<VecDeque<Box<Received>>>,
    /// The user knows of it.
    known: bool,
    /// The user wants to hear no more of it.
    forgotten: bool,
    /// The user was told that there is something to fetch, and has not fetched everything since.
    told: bool,
    ended: bool,
    deadline: Option<Instant>,
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

    // ----- for its link --------------------------------------------------------------------------------------------

    /// From now on frames of calls that the peer signed are set aside. Answers who this node is; `None` if the handshake is not
    /// complete or it is over.
    pub(in crate::endpoint) fn attach_rpc(&mut self, peer: PeerId) -> Option<NodeId> {
        let entry = self.peers.get_mut(&peer)?;
        entry.machine.peer()?;
        if entry.ended || entry.rpc.is_some() {
            return None;
        }
        let mut aside = VecDeque::new();
        let mut rest = VecDeque::new();
        for item in std::mem::take(&mut entry.inbox) {
            match item {
                PeerItem::Frame(frame) if of_link(&frame) => aside.push_back(frame),
                item => rest.push_back(item),
            }
        }
        entry.inbox = rest;
        entry.rpc = Some(aside);
        Some(entry.machine.node_id())
    }

    pub(in crate::endpoint) fn detach_rpc(&mut self, peer: PeerId) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && let Some(aside) = entry.rpc.take()
        {
            let bytes: usize = aside.iter().map(|frame| frame_cost(frame)).sum();
            entry.inbox_bytes = entry.inbox_bytes.saturating_sub(bytes);
        }
    }

    /// Whose link has something to do.
    pub(in crate::endpoint) fn next_rpc_news(&mut self) -> Option<PeerId> {
        self.rpc_news.pop_front()
    }

    pub(in crate::endpoint) fn is_connected(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|entry| !entry.ended)
    }

    /// The next frame that was set aside.
    pub(in crate::endpoint) fn take_rpc(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        out: &mut Vec<Out>,
    ) -> Option<Box<Received>> {
        if self.peers.get(&peer)?.rpc.as_ref()?.is_empty() {
            self.read(quic, now, peer, false, out);
        }
        let entry = self.peers.get_mut(&peer)?;
        let frame = entry.rpc.as_mut()?.pop_front()?;
        entry.inbox_bytes = entry.inbox_bytes.saturating_sub(frame_cost(&frame));
        Some(frame)
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

    fn remove(&mut self, peer: PeerId) {
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

    fn open(&mut self, quic: &mut quic::Endpoint, peer: PeerId) {
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

    // ----- the machines --------------------------------------------------------------------------------------------

    pub(super) fn feed(&mut self, quic: &mut quic::Endpoint, now: Now, peer: PeerId, event: Event, out: &mut Vec<Out>) {
        self.work.push_back((peer, event));
        self.work(quic, now, out);
    }

    /// Feeds one event after the other. All that is to be done about one is done before the next.
    fn work(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Vec<Out>) {
        while let Some((peer, event)) = self.work.pop_front() {
            let Some(entry) = self.peers.get_mut(&peer) else {
                continue;
            };
            let mut actions = Vec::new();
            entry.machine.handle(now, event, &mut actions);
            let deadline = entry.machine.poll_timeout();
            self.deadlines.update(peer, entry.deadline, deadline);
            entry.deadline = deadline;
            self.execute(quic, now, peer, actions, out);
        }
    }

    fn execute(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        mut actions: Vec<Action>,
        out: &mut Vec<Out>,
    ) {
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                self.execute_one(quic, now, peer, action, &mut more, out);
            }
            actions = more;
        }
    }

    fn execute_one(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        action: Action,
        more: &mut Vec<Action>,
        out: &mut Vec<Out>,
    ) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        match action {
            Action::OpenStream => self.open(quic, peer),
            Action::Writable => self.write(quic, peer, more),
            Action::FinishStream => {
                entry.finish = true;
                self.write(quic, peer, more);
            }
            Action::TellWhenFlushed => {
                entry.tell_flushed = true;
                self.write(quic, peer, more);
            }
            Action::Authorize { peer: node } => self.gate(GateEvent::Identified(PeerConn(peer.0), node)),
            Action::Connected(connected) => {
                entry.known = true;
                let (role, remote) = (entry.role, entry.remote);
                if !entry.forgotten {
                    let event = PeerEvent::Connected {
                        role,
                        remote,
                        connected,
                    };
                    out.push(Out::Peer { peer, event });
                }
            }
            Action::Frame(frame) => self.deliver(peer, PeerItem::Frame(frame), out),
            Action::Goodbye { reason, detail } => self.deliver(peer, PeerItem::Goodbye { reason, detail }, out),
            Action::SendReady if !entry.forgotten => {
                if entry.rpc.is_some() {
                    self.rpc_news.push_back(peer);
                }
                let event = PeerEvent::SendReady;
                out.push(Out::Peer { peer, event });
            }
            Action::SendReady => {}
            Action::CloseConnection { code, reason } => {
                if let Ok(mut connection) = quic.connection(entry.conn) {
                    connection.close(now, code, Bytes::from_static(reason.as_bytes()));
                }
            }
            Action::Ended { reason, unsent } => self.ended(peer, reason, unsent, out),
        }
    }

    fn deliver(&mut self, peer: PeerId, item: PeerItem, out: &mut Vec<Out>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.forgotten {
            return;
        }
        let item = match (item, &mut entry.rpc) {
            (PeerItem::Frame(frame), Some(aside)) if of_link(&frame) => {
                entry.inbox_bytes = entry.inbox_bytes.saturating_add(frame_cost(&frame));
                if aside.is_empty() {
                    self.rpc_news.push_back(peer);
                }
                aside.push_back(frame);
                return;
            }
            (item, _) => item,
        };
        entry.inbox_bytes = entry.inbox_bytes.saturating_add(cost(&item));
        entry.inbox.push_back(item);
        if !entry.told {
            entry.told = true;
            let event = PeerEvent::Readable;
            out.push(Out::Peer { peer, event });
        }
    }

    fn ended(&mut self, peer: PeerId, reason: EndReason, unsent: std::ops::Range<u64>, out: &mut Vec<Out>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.ended = true;
        entry.pending = Bytes::new();
        if entry.rpc.is_some() {
            self.rpc_news.push_back(peer);
        }
        let (role, hidden) = (entry.role, !entry.known || entry.forgotten);
        if role == Role::Acceptor {
            self.gate(GateEvent::Gone(PeerConn(peer.0)));
        }
        if hidden {
            tracing::debug!(%reason, "a peering connection that nobody knows of is over");
            self.remove(peer);
        } else {
            self.deliver(peer, PeerItem::Ended { reason, unsent }, out);
        }
    }

    /// Writes as much as the stream takes, and does what is to be done behind it.
    fn write(&mut self, quic: &mut quic::Endpoint, peer: PeerId, more: &mut Vec<Action>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let (false, false, Some(id)) = (entry.blocked, entry.write_over || entry.ended, entry.stream) else {
            return;
        };
        let Ok(mut connection) = quic.connection(entry.conn) else {
            return;
        };
        let Ok(mut stream) = connection.stream(id) else { return };
        loop {
            if entry.pending.is_empty() {
                if std::mem::take(&mut entry.tell_flushed) {
                    self.unflushed.push(peer);
                }
                match entry.machine.poll_output(PIECE, more) {
                    Some(piece) => entry.pending = piece,
                    None => break,
                }
            }
            match stream.write_chunks(std::slice::from_mut(&mut entry.pending)) {
                Ok(_) => {}
                Err(WriteError::Blocked) => {
                    entry.blocked = true;
                    return;
                }
                // The end of the connection is told by itself.
                Err(WriteError::ConnectionLost) => return,
                Err(error) => {
                    entry.write_over = true;
                    let why = match error {
                        WriteError::Stopped(code) => TransportError::Peer(code),
                        _ => TransportError::Closed,
                    };
                    return self.work.push_back((peer, Event::WriteFailed(why)));
                }
            }
        }
        if std::mem::take(&mut entry.finish) {
            let _ = stream.finish();
            entry.write_over = true;
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

fn cost(item: &PeerItem) -> usize {
    match item {
        PeerItem::Frame(frame) => frame_cost(frame),
        PeerItem::Goodbye { .. } | PeerItem::Ended { .. } => FRAME_COST,
    }
}

fn frame_cost(frame: &Received) -> usize {
    frame.decoded.raw.wire_length().saturating_add(FRAME_COST)
}

/// Whether a frame is for the link of its connection: one of a call, and the peer's own.
fn of_link(frame: &Received) -> bool {
    frame.verdict == Verdict::Verified && is_rpc(&frame.decoded.frame.body)
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
