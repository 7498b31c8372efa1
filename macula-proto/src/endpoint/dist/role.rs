//! All distribution connections of an endpoint, and which of two with the same node stays.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;

use super::{
    Cx, DistConfig, DistConnectError, DistEvent, DistId,
    link::{Bounds, Link},
};
use crate::{
    Code, Now, Rng,
    deadlines::Deadlines,
    dist::{
        controller::{Action, Controller, EndReason, Event, LinkState},
        handshake::Established,
        nodes::Nodes,
        pool::SendError,
        streams::StreamClass,
    },
    quic::{
        self, CloseReason, ConnectionHandle, DialConfig, Dir, Side, StreamId, alpn,
        tls::{ClientCrypto, TlsError},
    },
    wire::etf::Atom,
};

/// Streams of users that wait until the program was told of their connection. More are refused.
const EARLY_STREAMS: usize = 64;

/// The node that an endpoint is, and its connections.
#[derive(Debug)]
pub(in crate::endpoint) struct DistRole {
    rng: Rng,
    pub(super) node: Option<Node>,
    pub(super) links: BTreeMap<DistId, Link>,
    next: u64,
    conns: HashMap<ConnectionHandle, DistId>,
    /// Accepted connections in their handshake.
    pub(super) handshaking: usize,
    deadlines: Deadlines<DistId>,
    /// Events to be fed, in order.
    pub(super) work: VecDeque<(DistId, Event)>,
    /// Connections that wait to be written.
    pub(super) dirty: VecDeque<DistId>,
    /// Connections whose producer waits for its next turn.
    wake: VecDeque<DistId>,
    /// Links that the program hears are up, and has not had time to say anything about.
    pub(super) fresh: Vec<DistId>,
}

/// What the endpoint is as a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) config: DistConfig,
    pub(super) table: Nodes<DistId>,
    /// How each node is dialled: with sessions of its own. The number says when it was first.
    sessions: BTreeMap<Atom, (u64, ClientCrypto)>,
    dials: u64,
}

impl Node {
    /// Takes over the name that another node gave, if this one had none. False if this one is called otherwise by now.
    pub(super) fn takes_name(&mut self, established: &Established) -> bool {
        let handshake = &mut self.config.controller.handshake;
        if handshake.is_nameless() {
            handshake.adopt(established.own.clone(), established.own_creation);
            self.table.set_own(established.own.clone());
        }
        handshake.name == established.own
    }

    /// What a node is dialled with: always the same as long as it is remembered, so that its sessions are resumed.
    fn crypto(&mut self, peer: &Atom, quic: &quic::Endpoint) -> Result<ClientCrypto, TlsError> {
        if let Some((_, crypto)) = self.sessions.get(peer) {
            return Ok(crypto.clone());
        }
        let crypto = self.config.dial.clone().alpn([alpn::ERLANG_DIST]).build(quic.clock())?;
        if self.sessions.len() >= self.config.remembered.max(1) {
            let oldest = self.sessions.iter().min_by_key(|(_, (number, _))| *number);
            let oldest = oldest.map(|(peer, _)| peer.clone());
            oldest.map(|peer| self.sessions.remove(&peer));
        }
        self.dials += 1;
        self.sessions.insert(peer.clone(), (self.dials, crypto.clone()));
        Ok(crypto)
    }
}

impl DistRole {
    pub(in crate::endpoint) fn new(rng: Rng) -> Self {
        Self {
            rng,
            node: None,
            links: BTreeMap::new(),
            next: 0,
            conns: HashMap::new(),
            handshaking: 0,
            deadlines: Deadlines::default(),
            work: VecDeque::new(),
            dirty: VecDeque::new(),
            wake: VecDeque::new(),
            fresh: Vec::new(),
        }
    }

    // ----- the edge ------------------------------------------------------------------------------------------------

    /// Whether an event is about a connection of this role, or one that it takes over now.
    pub(in crate::endpoint) fn takes(&self, event: &quic::Event) -> bool {
        let Some(conn) = event.connection() else { return false };
        if let quic::Event::Connected { side, alpn, .. } = event
            && self.node.is_some()
            && *side == Side::Server
            && alpn.as_deref() == Some(alpn::ERLANG_DIST)
        {
            return true;
        }
        self.conns.contains_key(&conn)
    }

    pub(in crate::endpoint) fn on_event(&mut self, cx: &mut Cx<'_>, now: Now, event: quic::Event) {
        let Some(conn) = event.connection() else { return };
        match self.conns.get(&conn).copied() {
            Some(id) => self.link_event(cx, now, id, event),
            None => self.arrived(cx, now, conn, &event),
        }
    }

    pub(in crate::endpoint) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.earliest()
    }

    pub(in crate::endpoint) fn handle_timeout(&mut self, cx: &mut Cx<'_>, now: Now) {
        while let Some(id) = self.deadlines.pop_due(now.mono) {
            if let Some(link) = self.links.get_mut(&id) {
                link.deadline = None;
            }
            self.feed(cx, now, id, Event::Timeout);
        }
    }

    /// Whether [`run`](Self::run) has something to do.
    pub(in crate::endpoint) fn has_output(&self) -> bool {
        !self.dirty.is_empty() || !self.wake.is_empty() || !self.fresh.is_empty()
    }

    /// Writes what waits, and gives producers their next turn. False when there was nothing.
    pub(in crate::endpoint) fn run(&mut self, cx: &mut Cx<'_>, now: Now) -> bool {
        let mut moved = false;
        // This is called when there are no more events: the program was told that these are up.
        for id in std::mem::take(&mut self.fresh) {
            moved = true;
            let early = self.links.get_mut(&id).and_then(|link| link.early.take());
            for stream in early.unwrap_or_default() {
                self.feed(cx, now, id, Event::Arrived(stream.get()));
            }
        }
        while let Some(id) = self.dirty.pop_front() {
            moved = true;
            let Some(link) = self.links.get_mut(&id) else { continue };
            link.dirty = false;
            let mut actions = Vec::new();
            link.flush(cx.quic, now, &mut actions);
            self.execute(cx, now, id, actions);
        }
        for id in std::mem::take(&mut self.wake) {
            moved = true;
            if let Some(link) = self.links.get_mut(&id) {
                link.wake = false;
            }
            self.feed(cx, now, id, Event::Wakeup);
        }
        moved
    }

    // ----- what the program wants ----------------------------------------------------------------------------------

    pub(super) fn serve(&mut self, config: DistConfig) {
        match &mut self.node {
            Some(node) => {
                node.config = config;
                node.sessions.clear();
            }
            None => {
                self.node = Some(Node {
                    table: Nodes::new(config.controller.handshake.name.clone()),
                    config,
                    sessions: BTreeMap::new(),
                    dials: 0,
                });
            }
        }
    }

    pub(super) fn name(&self) -> Option<(&Atom, u32)> {
        let handshake = &self.node.as_ref()?.config.controller.handshake;
        Some((&handshake.name, handshake.creation))
    }

    pub(super) fn allow(&mut self, nodes: Option<BTreeSet<Atom>>) {
        if let Some(node) = &mut self.node {
            node.config.allowed = nodes;
        }
    }

    pub(super) fn connect(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        peer: Atom,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<DistId, DistConnectError> {
        let node = self.node.as_mut().ok_or(DistConnectError::NotServing)?;
        let id = DistId(self.next);
        node.table.dial(&peer, id).map_err(DistConnectError::Present)?;
        let mut dial = || {
            let mut dial = DialConfig::new(node.crypto(&peer, cx.quic)?);
            dial.transport = node.config.transport.clone();
            dial.handshake_timeout = node.config.dial_timeout;
            Ok(cx.quic.connect(now, &dial, remote, server_name)?)
        };
        let conn = match dial() {
            Ok(conn) => conn,
            Err(error) => {
                node.table.gone(peer.as_str(), id);
                return Err(error);
            }
        };
        self.add(conn, remote, Some(peer));
        if let Some(link) = self.links.get_mut(&id) {
            link.known = true;
        }
        Ok(id)
    }

    pub(super) fn send(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        id: DistId,
        message: Bytes,
        key: u64,
    ) -> Result<(), SendError> {
        let link = self.links.get_mut(&id).ok_or(SendError::Failed)?;
        let mut actions = Vec::new();
        let sent = link.controller.send(message, key, &mut actions);
        if !std::mem::replace(&mut link.wake, true) {
            self.wake.push_back(id);
        }
        self.execute(cx, now, id, actions);
        sent
    }

    pub(super) fn next_message(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId) -> Option<Bytes> {
        let link = self.links.get_mut(&id)?;
        let mut actions = Vec::new();
        let message = link.controller.next_message(&mut actions);
        link.told_messages &= message.is_some();
        self.execute(cx, now, id, actions);
        self.tell_down(cx, id);
        message
    }

    pub(super) fn tick(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId) {
        self.feed(cx, now, id, Event::Tick);
    }

    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, code: Code) {
        self.feed(cx, now, id, Event::Leave(code));
        self.touch(id);
    }

    pub(super) fn forget(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, code: Code) {
        if let Some(link) = self.links.get_mut(&id) {
            link.known = false;
            self.feed(cx, now, id, Event::Close(code));
            self.tell_down(cx, id);
        }
    }

    // ----- connections ---------------------------------------------------------------------------------------------

    fn add(&mut self, conn: ConnectionHandle, remote: SocketAddr, peer: Option<Atom>) -> Option<DistId> {
        let config = &self.node.as_ref()?.config;
        let id = DistId(self.next);
        self.next += 1;
        let bounds = Bounds {
            most: config
                .send_window
                .min(config.controller.pool.in_flight.unwrap_or(u64::MAX)),
            windows: config.controller.pool.windows,
        };
        let controller = Controller::new(peer.clone(), config.controller.clone(), &mut self.rng);
        let mut link = Link::new(controller, conn, remote, bounds);
        link.peer = peer;
        self.links.insert(id, link);
        self.conns.insert(conn, id);
        Some(id)
    }

    fn arrived(&mut self, cx: &mut Cx<'_>, now: Now, conn: ConnectionHandle, event: &quic::Event) {
        let quic::Event::Connected { remote, .. } = event else {
            return;
        };
        let Some(id) = self.add(conn, *remote, None) else {
            return;
        };
        let most = self.node.as_ref().map_or(0, |node| node.config.handshaking);
        if self.handshaking >= most {
            return self.feed(cx, now, id, Event::Close(Code::LIMIT));
        }
        self.handshaking += 1;
        if let Some(link) = self.links.get_mut(&id) {
            link.counted = true;
        }
        self.feed(cx, now, id, Event::Connected);
        // With early data its streams can be there already.
        let there = |number: &u64| {
            let stream = StreamId::new(*number)?;
            let mut connection = cx.quic.connection(conn).ok()?;
            connection.stream(stream).is_ok().then_some(stream)
        };
        let early: Vec<StreamId> = [0, 4, 8, 12, 16].iter().filter_map(there).collect();
        for stream in early {
            self.stream_arrived(cx, now, id, stream);
        }
    }

    fn link_event(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, event: quic::Event) {
        use quic::Event as E;
        match event {
            E::Connected { .. } => self.feed(cx, now, id, Event::Connected),
            E::Closed { reason, .. } => self.connection_gone(cx, now, id, &reason),
            E::PathChanged { remote, .. } => {
                let Some(link) = self.links.get_mut(&id) else { return };
                link.remote = remote;
                if link.known {
                    cx.tell(id, DistEvent::PathChanged(remote));
                }
            }
            E::StreamOpened { stream, .. } => self.stream_arrived(cx, now, id, stream),
            E::Readable { stream, .. } => match StreamClass::of(stream.get()) {
                StreamClass::User(_) => self.feed(cx, now, id, Event::Readable(stream.get())),
                _ => self.read(cx, now, id, stream, false),
            },
            E::Writable { stream, .. } => {
                let Some(link) = self.links.get_mut(&id) else { return };
                match link.purpose(stream) {
                    Some(purpose) => {
                        link.unblocked(purpose);
                        self.touch(id);
                    }
                    None => self.feed(cx, now, id, Event::Writable(stream.get())),
                }
            }
            E::Reset { stream, code, .. } => self.feed(cx, now, id, Event::Reset(stream.get(), code)),
            E::Stopped { stream, code, .. } => self.feed(cx, now, id, Event::Stopped(stream.get(), code)),
            E::Delivered { stream, .. } => self.feed(cx, now, id, Event::Delivered(stream.get())),
            E::StreamsAvailable { dir: Dir::Bi, .. } => {
                self.open_streams(cx, now, id);
                if let Some(link) = self.links.get_mut(&id)
                    && std::mem::take(&mut link.wants_stream)
                    && link.known
                {
                    cx.tell(id, DistEvent::StreamsAvailable);
                }
            }
            _ => {}
        }
    }

    fn stream_arrived(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, stream: StreamId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match StreamClass::of(stream.get()) {
            StreamClass::Control => {
                link.control_arrived(stream);
                self.touch(id);
                self.read(cx, now, id, stream, false);
            }
            StreamClass::Data(..) => self.read(cx, now, id, stream, false),
            StreamClass::User(_) => match &mut link.early {
                Some(early) if early.len() < EARLY_STREAMS => early.push(stream),
                _ => self.feed(cx, now, id, Event::Arrived(stream.get())),
            },
            StreamClass::Unknown => {
                if let Ok(mut connection) = cx.quic.connection(link.conn)
                    && let Ok(mut stream) = connection.stream(stream)
                {
                    stream.abort(Code::REFUSED);
                }
            }
        }
    }

    fn connection_gone(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, reason: &CloseReason) {
        // What had arrived before can still be read.
        if let Some(link) = self.links.get(&id)
            && !matches!(reason, CloseReason::Local { .. })
        {
            let streams = link.controller.peer_streams();
            for stream in std::iter::once(0).chain(streams).filter_map(StreamId::new) {
                self.read(cx, now, id, stream, true);
            }
        }
        self.feed(cx, now, id, Event::Lost(end_reason(reason)));
        if let Some(link) = self.links.get_mut(&id) {
            link.gone = true;
        }
        self.reap(id);
    }

    /// Reads a stream of the control lane or of data, as far as the controller takes it.
    pub(super) fn read(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, stream: StreamId, all: bool) {
        while let Some(link) = self.links.get(&id)
            && link.controller.state() != LinkState::Over
            && let Some(event) = link.read(cx.quic, stream, all)
        {
            let over = !matches!(event, Event::Received { .. });
            self.feed(cx, now, id, event);
            if over {
                return;
            }
        }
    }

    pub(super) fn open_streams(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId) {
        while let Some(link) = self.links.get_mut(&id)
            && let Some(purpose) = link.open_next(cx.quic)
        {
            self.feed(cx, now, id, Event::Opened(purpose));
        }
    }

    /// Has a connection written.
    pub(super) fn touch(&mut self, id: DistId) {
        if let Some(link) = self.links.get_mut(&id)
            && !std::mem::replace(&mut link.dirty, true)
        {
            self.dirty.push_back(id);
        }
    }

    /// A connection that is gone, and whose end was told, is forgotten.
    pub(super) fn reap(&mut self, id: DistId) {
        let Some(link) = self.links.get(&id) else { return };
        if link.gone {
            self.conns.remove(&link.conn);
        }
        if link.gone && link.over && link.ended.is_none() {
            self.deadlines.update(id, link.deadline, None);
            self.links.remove(&id);
        }
    }

    pub(super) fn feed(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, event: Event) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut actions: Vec<Action> = Vec::new();
        link.controller.handle(now, event, &mut actions);
        self.execute(cx, now, id, actions);
    }

    pub(super) fn set_deadline(&mut self, id: DistId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let deadline = link.controller.poll_timeout();
        self.deadlines.update(id, link.deadline, deadline);
        link.deadline = deadline;
    }
}

fn end_reason(reason: &CloseReason) -> EndReason {
    match reason {
        CloseReason::Peer { code, .. } => EndReason::PeerClosed(*code),
        CloseReason::Local { .. } => EndReason::Closed,
        reason => EndReason::Lost(reason.to_string()),
    }
}
