//! Links that sessions run: their actions carried out, their events fed.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Cx, IncomingCall, RpcEvent, RpcId, RpcInfo, UnknownLink, carrier::Carrier, frames::Speaker, local::Local};
use crate::{
    Code, Now, Rng,
    deadlines::{Deadlines, earliest},
    endpoint::PeerId,
    identity::NodeId,
    quic::{self, CloseReason, ConnectionHandle, Dir, StreamId, alpn},
    rpc::{
        Kind, RpcConfig,
        session::{Action, CallId, EndReason, Event, Lane, LaneEnd, Medium, Session, Shared, Side},
    },
    wire::frame::Id32,
};

/// How long a link that is closed in good order waits for its last words to arrive.
const LINGER: Duration = Duration::from_secs(1);

/// All links of an endpoint.
#[derive(Debug)]
pub(in crate::endpoint) struct RpcRole {
    rng: Rng,
    config: Option<RpcConfig>,
    pub(super) shared: Shared,
    pub(super) links: BTreeMap<RpcId, Link>,
    next: u64,
    pub(super) local: Local,
    conns: HashMap<ConnectionHandle, RpcId>,
    tunnels: HashMap<(ConnectionHandle, StreamId), RpcId>,
    peers: HashMap<PeerId, RpcId>,
    /// Which link a call belongs to.
    pub(super) calls: HashMap<CallId, RpcId>,
    pub(super) incoming: VecDeque<IncomingCall>,
    pub(super) told_incoming: bool,
    deadlines: Deadlines<RpcId>,
    /// What waits to be written.
    dirty: VecDeque<(RpcId, Lane)>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: Session,
    carrier: Carrier,
    deadline: Option<Instant>,
    /// Calls that wait for a stream.
    opening: VecDeque<CallId>,
    /// The program knows of it.
    known: bool,
    /// The session has ended.
    ended: bool,
    /// The carrier is gone, or is nothing of the link's any more.
    gone: bool,
    /// It is to be closed with this when its last words have arrived, or at this time.
    linger: Option<(Code, &'static str, Instant)>,
}

impl RpcRole {
    pub(in crate::endpoint) fn new(rng: Rng) -> Self {
        Self {
            rng,
            config: None,
            shared: Shared::default(),
            links: BTreeMap::new(),
            next: 1,
            local: Local::default(),
            conns: HashMap::new(),
            tunnels: HashMap::new(),
            peers: HashMap::new(),
            calls: HashMap::new(),
            incoming: VecDeque::new(),
            told_incoming: false,
            deadlines: Deadlines::default(),
            dirty: VecDeque::new(),
        }
    }

    // ----- the edge ------------------------------------------------------------------------------------------------

    /// Whether an event is about a connection or stream of this role, or about one that it takes over now.
    pub(in crate::endpoint) fn takes(&self, event: &quic::Event) -> bool {
        let Some(conn) = event.connection() else { return false };
        if let quic::Event::Connected { side, alpn, .. } = event
            && self.config.is_some()
            && *side == quic::Side::Server
            && alpn.as_deref() == Some(alpn::MACULA)
        {
            return true;
        }
        self.conns.contains_key(&conn)
            || event
                .stream()
                .is_some_and(|stream| self.tunnels.contains_key(&(conn, stream)))
    }

    pub(in crate::endpoint) fn on_event(&mut self, cx: &mut Cx<'_>, now: Now, event: quic::Event) {
        let Some(conn) = event.connection() else { return };
        let tunnel = event.stream().and_then(|stream| self.tunnels.get(&(conn, stream)));
        match tunnel.or_else(|| self.conns.get(&conn)).copied() {
            Some(link) => self.link_event(cx, now, link, event),
            None => self.arrived(cx, now, conn, &event),
        }
    }

    /// A connection that carries tunnels is gone.
    pub(in crate::endpoint) fn connection_closed(&mut self, cx: &mut Cx<'_>, now: Now, conn: ConnectionHandle) {
        if self.tunnels.is_empty() {
            return;
        }
        let mut lost: Vec<RpcId> = Vec::new();
        for (&id, link) in &self.links {
            if matches!(link.carrier, Carrier::Tunnel { conn: other, .. } if other == conn) {
                lost.push(id);
            }
        }
        for link in lost {
            self.carrier_gone(
                cx,
                now,
                link,
                EndReason::Lost("the connection to the relay ended".into()),
            );
        }
    }

    /// Whether something waits to be written.
    pub(in crate::endpoint) fn has_output(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(in crate::endpoint) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.deadlines.earliest(), self.local.poll_timeout())
    }

    pub(in crate::endpoint) fn handle_timeout(&mut self, cx: &mut Cx<'_>, now: Now) {
        while let Some(id) = self.deadlines.pop_due(now.mono) {
            let Some(link) = self.links.get_mut(&id) else { continue };
            link.deadline = None;
            if link.linger.is_some_and(|(_, _, at)| at <= now.mono) {
                self.part(cx, now, id);
            }
            self.feed(cx, now, id, Event::Timeout);
        }
        self.local.handle_timeout(now, &mut cx.out);
    }

    /// Writes what waits, and reads what peering connections set aside. False when there was nothing.
    pub(in crate::endpoint) fn run(&mut self, cx: &mut Cx<'_>, now: Now) -> bool {
        let mut moved = false;
        while let Some(peer) = cx.peers.next_rpc_news() {
            moved = true;
            let Some(&link) = self.peers.get(&peer) else { continue };
            if !cx.peers.is_connected(peer) {
                self.carrier_gone(cx, now, link, EndReason::Lost("the peering connection ended".into()));
                continue;
            }
            self.read(cx, now, link, Lane::SHARED);
            self.dirty.push_back((link, Lane::SHARED));
        }
        while let Some((id, lane)) = self.dirty.pop_front() {
            moved = true;
            let Some(link) = self.links.get_mut(&id) else { continue };
            let mut actions = Vec::new();
            link.carrier.write(cx, now, &mut link.session, lane, &mut actions);
            self.execute(cx, now, id, actions);
        }
        moved
    }

    // ----- what the program wants ----------------------------------------------------------------------------------

    pub(super) fn serve(&mut self, config: RpcConfig) {
        self.config = Some(config);
    }

    pub(super) fn advertise(&mut self, procedure: Bytes, kind: Kind) -> bool {
        self.shared.registry.advertise(procedure, kind)
    }

    pub(super) fn unadvertise(&mut self, procedure: &[u8]) -> bool {
        self.shared.registry.unadvertise(procedure)
    }

    pub(super) fn dialled(&mut self, conn: ConnectionHandle, remote: SocketAddr, config: RpcConfig) -> RpcId {
        let session = Session::new(Side::Dialler, Medium::Streams, config, self.rng.fork());
        let id = self.add(session, Carrier::Connection { conn, remote }, true);
        self.conns.insert(conn, id);
        id
    }

    pub(super) fn over_tunnel(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        conn: ConnectionHandle,
        stream: StreamId,
        dialler: bool,
        config: RpcConfig,
    ) -> RpcId {
        let side = if dialler { Side::Dialler } else { Side::Acceptor };
        let session = Session::new(side, Medium::Single, config, self.rng.fork());
        let id = self.add(session, Carrier::Tunnel { conn, stream }, true);
        self.tunnels.insert((conn, stream), id);
        self.start(cx, now, id);
        id
    }

    pub(super) fn over_peer(&mut self, cx: &mut Cx<'_>, now: Now, peer: PeerId, config: RpcConfig) -> RpcId {
        let realm = Id32(config.realm.as_ref().try_into().unwrap_or_default());
        let attached = cx.peers.attach_rpc(peer);
        let node = attached.unwrap_or(NodeId::from_bytes([0; 32]));
        let session = Session::new(Side::Dialler, Medium::Frames, config, self.rng.fork());
        let speaker = Speaker { node, realm };
        let id = self.add(session, Carrier::Peer { peer, speaker }, true);
        if attached.is_some() {
            self.peers.insert(peer, id);
            self.start(cx, now, id);
        } else {
            self.carrier_gone(cx, now, id, EndReason::Lost("there is no such peer".into()));
        }
        id
    }

    pub(super) fn register(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        link: RpcId,
        procedure: &[u8],
    ) -> Result<(), UnknownLink> {
        self.on_link(cx, now, link, |session, _, actions| {
            session.register(procedure, actions)
        })
        .filter(|done| *done)
        .map(|_| ())
        .ok_or(UnknownLink)
    }

    pub(super) fn ping(&mut self, cx: &mut Cx<'_>, now: Now, link: RpcId) -> Result<(), UnknownLink> {
        self.on_link(cx, now, link, |session, _, actions| session.ping(now, actions))
            .filter(|done| *done)
            .map(|_| ())
            .ok_or(UnknownLink)
    }

    pub(super) fn close(&mut self, cx: &mut Cx<'_>, now: Now, link: RpcId, code: Code) {
        self.on_link(cx, now, link, |session, _, actions| {
            session.disconnect(now, code, actions)
        });
    }

    pub(super) fn info(&self, link: RpcId) -> Option<RpcInfo> {
        let link = self.links.get(&link)?;
        Some(RpcInfo {
            remote: match link.carrier {
                Carrier::Connection { remote, .. } => Some(remote),
                _ => None,
            },
            connection: link.carrier.connection(),
            calls: link.session.calls(),
            queued: link.session.queued(),
            waiting: link.session.waiting(),
            per_call: link.session.is_per_call(),
            stats: link.session.stats(),
        })
    }

    // ----- links ---------------------------------------------------------------------------------------------------

    fn add(&mut self, session: Session, carrier: Carrier, known: bool) -> RpcId {
        let id = RpcId(self.next);
        self.next += 1;
        let link = Link {
            session,
            carrier,
            deadline: None,
            opening: VecDeque::new(),
            known,
            ended: false,
            gone: false,
            linger: None,
        };
        self.links.insert(id, link);
        id
    }

    /// Bytes can flow, and there may be some already.
    fn start(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId) {
        if let Some(link) = self.links.get(&id) {
            link.carrier.hold(cx, Lane::SHARED);
        }
        self.feed(cx, now, id, Event::Start);
        self.read(cx, now, id, Lane::SHARED);
    }

    fn arrived(&mut self, cx: &mut Cx<'_>, now: Now, conn: ConnectionHandle, event: &quic::Event) {
        let (Some(config), quic::Event::Connected { remote, .. }) = (self.config.clone(), event) else {
            return;
        };
        let session = Session::new(Side::Acceptor, Medium::Streams, config, self.rng.fork());
        let id = self.add(session, Carrier::Connection { conn, remote: *remote }, false);
        self.conns.insert(conn, id);
        self.start(cx, now, id);
    }

    fn link_event(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId, event: quic::Event) {
        use quic::Event as E;
        let Some(link) = self.links.get_mut(&id) else { return };
        let shared = link.carrier.stream(Lane::SHARED).map(|(_, stream)| stream);
        let lane = |stream: StreamId| {
            if Some(stream) == shared {
                Lane::SHARED
            } else {
                Lane(stream.get())
            }
        };
        match event {
            E::Connected { .. } => {
                // A server that grants no stream is no peer.
                if link.carrier.open(cx) != Ok(Some(Lane::SHARED)) {
                    return link.carrier.close(cx, now, Code::PROTOCOL, "no stream is granted");
                }
                self.start(cx, now, id);
            }
            E::Closed { reason, .. } => self.carrier_gone(cx, now, id, end_reason(&reason)),
            E::StreamOpened { stream, .. } if lane(stream) == Lane::SHARED => self.read(cx, now, id, Lane::SHARED),
            E::StreamOpened { stream, .. } => {
                let lane = lane(stream);
                link.carrier.hold(cx, lane);
                self.feed(cx, now, id, Event::LaneArrived(lane));
            }
            E::Readable { stream, .. } | E::Reset { stream, .. } => self.read(cx, now, id, lane(stream)),
            E::Writable { stream, .. } => self.dirty.push_back((id, lane(stream))),
            E::Stopped { stream, code, .. } => {
                self.feed(cx, now, id, Event::LaneEnded(lane(stream), LaneEnd::Stopped(code)));
            }
            E::StreamsAvailable { dir: Dir::Bi, .. } => self.open_lanes(cx, now, id),
            E::Delivered { stream, .. } if lane(stream) == Lane::SHARED => self.part(cx, now, id),
            _ => {}
        }
    }

    /// The carrier is no more.
    fn carrier_gone(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId, reason: EndReason) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if std::mem::replace(&mut link.gone, true) {
            return;
        }
        match link.carrier {
            Carrier::Connection { conn, .. } => _ = self.conns.remove(&conn),
            Carrier::Tunnel { conn, stream } => _ = self.tunnels.remove(&(conn, stream)),
            Carrier::Peer { peer, .. } => _ = self.peers.remove(&peer),
        }
        // What had arrived before can still be read.
        self.read(cx, now, id, Lane::SHARED);
        self.feed(cx, now, id, Event::Lost(reason));
        self.reap(id);
    }

    /// The last words have arrived, or it took too long.
    fn part(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some((code, reason, _)) = link.linger.take() else {
            return;
        };
        link.carrier.close(cx, now, code, reason);
        if !matches!(link.carrier, Carrier::Connection { .. }) {
            self.carrier_gone(cx, now, id, EndReason::Closed);
        }
    }

    /// Reads a lane as far as the session takes it.
    fn read(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId, lane: Lane) {
        while let Some(link) = self.links.get_mut(&id)
            && link.session.wants(lane)
            && let Some(event) = link.carrier.read(cx, now, &mut link.session, lane)
        {
            let over = matches!(event, Event::LaneEnded(..));
            self.feed(cx, now, id, event);
            if over {
                return;
            }
        }
    }

    /// Opens streams for the calls that wait for one, in order.
    fn open_lanes(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId) {
        while let Some(link) = self.links.get_mut(&id)
            && let Some(call) = link.opening.pop_front()
        {
            let event = match link.carrier.open(cx) {
                Ok(Some(lane)) => Event::LaneOpened(call, lane),
                Ok(None) => return link.opening.push_front(call),
                Err(()) => Event::LaneOpenFailed(call),
            };
            self.feed(cx, now, id, event);
        }
    }

    /// A link whose end was told, whose carrier is gone and whose calls are forgotten is of no more use.
    pub(super) fn reap(&mut self, id: RpcId) {
        let Some(link) = self.links.get(&id) else { return };
        if link.ended && link.gone && link.session.calls() == 0 {
            self.deadlines.update(id, link.deadline, None);
            self.links.remove(&id);
        }
    }

    // ----- sessions ------------------------------------------------------------------------------------------------

    fn feed(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId, event: Event) {
        self.on_link(cx, now, id, |session, shared, actions| {
            session.handle(now, event, shared, actions)
        });
    }

    pub(super) fn on_link<T>(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        id: RpcId,
        run: impl FnOnce(&mut Session, &mut Shared, &mut Vec<Action>) -> T,
    ) -> Option<T> {
        let link = self.links.get_mut(&id)?;
        let mut actions = Vec::new();
        let result = run(&mut link.session, &mut self.shared, &mut actions);
        self.execute(cx, now, id, actions);
        Some(result)
    }

    fn execute(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId, actions: Vec<Action>) {
        let mut reads = Vec::new();
        let mut opens = false;
        for action in actions {
            opens |= matches!(action, Action::OpenLane(_));
            self.execute_one(cx, now, id, action, &mut reads);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let deadline = earliest(link.session.poll_timeout(), link.linger.map(|(_, _, at)| at));
        self.deadlines.update(id, link.deadline, deadline);
        link.deadline = deadline;
        if opens {
            self.open_lanes(cx, now, id);
        }
        for lane in reads {
            self.read(cx, now, id, lane);
        }
    }

    fn execute_one(&mut self, cx: &mut Cx<'_>, now: Now, id: RpcId, action: Action, reads: &mut Vec<Lane>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match action {
            Action::Write(lane) => self.dirty.push_back((id, lane)),
            Action::Read(lane) => reads.push(lane),
            Action::OpenLane(call) => link.opening.push_back(call),
            Action::Stop(lane, code) => link.carrier.stop(cx, lane, code),
            Action::Abandon(lane, code) => link.carrier.abandon(cx, lane, code),
            Action::Release(lane) => link.carrier.release(cx, lane),
            Action::Up(hello) => {
                link.known = true;
                cx.tell(RpcEvent::Up { link: id, hello });
            }
            Action::Incoming(incoming) => {
                self.calls.insert(incoming.call, id);
                self.arrives(
                    cx,
                    IncomingCall {
                        link: id,
                        incoming: *incoming,
                    },
                );
            }
            Action::Readable(call) => cx.tell(RpcEvent::Readable(call)),
            Action::SendReady(call) => cx.tell(RpcEvent::SendReady(call)),
            Action::Replied(call) => cx.tell(RpcEvent::Replied(call)),
            Action::Finished(call) => cx.tell(RpcEvent::Finished(call)),
            Action::Pong(rtt) => cx.tell(RpcEvent::Pong { link: id, rtt }),
            Action::Close { code, reason, linger } => {
                if !linger || matches!(link.carrier, Carrier::Peer { .. }) {
                    return link.carrier.close(cx, now, code, reason);
                }
                link.carrier
                    .write(cx, now, &mut link.session, Lane::SHARED, &mut Vec::new());
                link.carrier.finish(cx);
                link.linger = Some((code, reason, now.mono + LINGER));
            }
            Action::Ended(reason) => {
                link.ended = true;
                if link.known {
                    cx.tell(RpcEvent::Down { link: id, reason });
                }
                // A tunnel or peering connection goes on without the link, or is gone.
                if link.linger.is_none() && !matches!(link.carrier, Carrier::Connection { .. }) {
                    self.carrier_gone(cx, now, id, EndReason::Closed);
                }
                self.reap(id);
            }
        }
    }

    /// A call has come in, from whichever link.
    pub(super) fn arrives(&mut self, cx: &mut Cx<'_>, incoming: IncomingCall) {
        self.incoming.push_back(incoming);
        if !std::mem::replace(&mut self.told_incoming, true) {
            cx.tell(RpcEvent::Incoming);
        }
    }
}

fn end_reason(reason: &CloseReason) -> EndReason {
    match reason {
        CloseReason::Peer { code, .. } => EndReason::PeerClosed(*code),
        CloseReason::Local { .. } => EndReason::Closed,
        reason => EndReason::Lost(reason.to_string()),
    }
}
