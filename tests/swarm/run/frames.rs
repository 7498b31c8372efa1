//! Frames between peers: in order, none left out, and all of them before a good end.

use std::collections::BTreeMap;

use bytes::Bytes;
use macula_proto::{
    Endpoint, Now,
    endpoint::{PeerEvent, PeerId, PeerItem},
    peering::{EndReason, SendError, Verdict},
    quic::alpn,
    sim::HostId,
    wire::{
        Value,
        frame::{Body, Id32, Publish, Text},
    },
};

use super::{Run, Start, boot};

#[derive(Debug, Default)]
pub(super) struct Frames {
    peers: BTreeMap<(Start, PeerId), Peer>,
    /// Frames that each side of a connection has sent: the dialler's first.
    sent: Vec<[u64; 2]>,
    received: u64,
}

#[derive(Debug)]
struct Peer {
    /// Known to the acceptor from the first frame on.
    connection: Option<usize>,
    dialled: bool,
    to: Option<HostId>,
    connected: bool,
    /// Sizes of frames to be sent.
    waiting: Vec<usize>,
    received: u64,
    leaving: bool,
    goodbye: bool,
}

impl Frames {
    pub(super) fn count(&self) -> u64 {
        self.received
    }

    pub(super) fn is_content(&self) -> bool {
        let mut peers = self.peers.values();
        peers.all(|peer| peer.connected && !peer.leaving && (peer.waiting.is_empty() || peer.connection.is_none()))
    }

    pub(super) fn open(&self) -> Vec<String> {
        self.peers.iter().map(|peer| format!("{peer:?}")).collect()
    }

    pub(super) fn incomplete(&self) -> Option<String> {
        let mut peers = self.peers.iter();
        let short = peers.find(|(_, peer)| {
            let sent = peer.connection.map(|number| self.sent[number][usize::from(peer.dialled)]);
            peer.connected && sent.is_some_and(|sent| sent != peer.received)
        });
        short.map(|peer| format!("frames are missing: {peer:?}"))
    }

    pub(super) fn all(&self) -> Vec<(Start, PeerId)> {
        self.peers.keys().copied().collect()
    }

    pub(super) fn gone(&mut self, start: Start) {
        self.peers.retain(|(at, _), _| *at != start);
    }
}

fn frame(host: HostId, connection: usize, seq: u64, size: usize) -> Body {
    let mut bytes = (connection as u64).to_be_bytes().to_vec();
    bytes.resize(8 + size, seq as u8);
    Body::Publish(Publish {
        topic: Bytes::from_static(b"swarm"),
        realm: Id32([1; 32]),
        publisher: boot::peering(host).identity.node_id(),
        seq,
        payload: Value::bytes(bytes),
        published_at_ms: 1,
        ttl_ms: None,
    })
}

fn send(endpoint: &mut Endpoint, now: Now, host: HostId, id: PeerId, peer: &mut Peer, sent: &mut [u64; 2]) {
    let Some(connection) = peer.connection else {
        return;
    };
    let count = &mut sent[usize::from(!peer.dialled)];
    while let Some(size) = peer.waiting.last() {
        match endpoint.peer_send(now, id, frame(host, connection, *count, *size)) {
            Ok(_) => *count += 1,
            Err(SendError::Full { .. }) => return,
            Err(_) => return peer.waiting.clear(),
        }
        peer.waiting.pop();
    }
}

impl Run {
    pub(super) fn dial_peer(&mut self, from: HostId, to: HostId) {
        let start = self.start_of(from);
        let there = |(at, peer): (&(Start, PeerId), &Peer)| at.0 == start && peer.to == Some(to);
        if self.frames.peers.iter().any(there) {
            return;
        }
        let remote = self.world.address(to);
        let dial = self.dial_config(from, alpn::MACULA);
        let dialled = self.world.with(from, |endpoint, now| {
            endpoint.connect_peer(now, &dial?, remote, "host", boot::peering(from)).ok()
        });
        if let Ok(Some(id)) = dialled {
            let connection = self.frames.sent.len();
            self.frames.sent.push([0; 2]);
            let peer = Peer {
                connection: Some(connection),
                to: Some(to),
                ..Peer::new(true)
            };
            self.frames.peers.insert((start, id), peer);
        }
    }

    pub(super) fn send_frames(&mut self, from: HostId, count: u64, size: usize) {
        let start = self.start_of(from);
        let peers = self.frames.all();
        for (at, id) in peers.into_iter().filter(|(at, _)| *at == start) {
            if let Some(peer) = self.frames.peers.get_mut(&(at, id))
                && peer.connected
                && !peer.leaving
            {
                peer.waiting.extend((0..count).map(|_| size));
            }
            self.push_frames(at, id);
        }
    }

    fn push_frames(&mut self, start: Start, id: PeerId) {
        let Some(peer) = self.frames.peers.get_mut(&(start, id)) else {
            return;
        };
        if let Some(sent) = peer.connection.and_then(|number| self.frames.sent.get_mut(number)) {
            // Its host may be down.
            let _ = self.world.with(start.0, |endpoint, now| send(endpoint, now, start.0, id, peer, sent));
        }
    }

    pub(super) fn leave_peer(&mut self, from: HostId) {
        let start = self.start_of(from);
        let found = self.frames.peers.iter_mut().find(|((at, _), peer)| *at == start && peer.connected);
        if let Some(((_, id), peer)) = found {
            peer.leaving = true;
            peer.waiting.clear();
            let id = *id;
            let reason = Text::from("operator_stop");
            let _ = self.world.with(from, |endpoint, now| endpoint.peer_close(now, id, reason, None));
        }
    }

    pub(super) fn on_peer(&mut self, start: Start, id: PeerId, event: PeerEvent) {
        match event {
            PeerEvent::Connected { .. } => {
                let peer = self.frames.peers.entry((start, id)).or_insert_with(|| Peer::new(false));
                if std::mem::replace(&mut peer.connected, true) {
                    return self.fail(format!("{}: {id:?} connected twice", start.0));
                }
                if peer.dialled {
                    // Tells the other side which connection this is.
                    peer.waiting.push(1);
                    self.push_frames(start, id);
                }
                if self.plan.calls_over_peers {
                    self.link_over_peer(start, id);
                }
            }
            PeerEvent::Readable => self.fetch_items(start, id),
            PeerEvent::SendReady => self.push_frames(start, id),
            _ => {}
        }
    }

    fn fetch_items(&mut self, start: Start, id: PeerId) {
        while let Ok(Some(item)) = self.world.with(start.0, |endpoint, now| endpoint.next_peer_item(now, id)) {
            let Some(peer) = self.frames.peers.get_mut(&(start, id)) else {
                return self.fail(format!("{}: {id:?} is over and says {item:?}", start.0));
            };
            match item {
                PeerItem::Frame(received) => {
                    let Body::Publish(body) = &received.decoded.frame.body else {
                        return self.fail(format!("{}: another frame: {received:?}", start.0));
                    };
                    let number = body.payload.as_bytes().and_then(|bytes| bytes.first_chunk::<8>().copied());
                    let number = number.map(u64::from_be_bytes).and_then(|number| usize::try_from(number).ok());
                    peer.connection = peer.connection.or(number);
                    let good = peer.connection == number
                        && body.seq == peer.received
                        && received.verdict == Verdict::Verified;
                    if !good {
                        let what = format!("{}: frame {} of {number:?} for {peer:?}", start.0, body.seq);
                        return self.fail(what);
                    }
                    peer.received += 1;
                    self.frames.received += 1;
                    self.push_frames(start, id);
                }
                PeerItem::Goodbye { .. } => {
                    peer.goodbye = true;
                    let sent = peer.connection.map(|number| self.frames.sent[number][usize::from(peer.dialled)]);
                    if sent.is_some_and(|sent| sent != peer.received) {
                        let what = format!("{}: goodbye after {} of {sent:?} frames", start.0, peer.received);
                        return self.fail(what);
                    }
                }
                PeerItem::Ended { reason, .. } => {
                    self.frames.peers.remove(&(start, id));
                    if is_wrong(&reason) {
                        self.fail(format!("{}: {id:?} ended: {reason:?}", start.0));
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn close_peers(&mut self) {
        for (start, id) in self.frames.all() {
            let reason = Text::from("operator_stop");
            // Its host may be down.
            let _ = self.world.with(start.0, |endpoint, now| endpoint.peer_close(now, id, reason, None));
        }
    }
}

impl Peer {
    fn new(dialled: bool) -> Self {
        Self {
            connection: None,
            dialled,
            to: None,
            connected: false,
            waiting: Vec::new(),
            received: 0,
            leaving: false,
            goodbye: false,
        }
    }
}

/// Ends that no fault of the network explains.
fn is_wrong(reason: &EndReason) -> bool {
    matches!(
        reason,
        EndReason::ConnectVerifyFailed(_)
            | EndReason::HelloVerifyFailed(_)
            | EndReason::UnexpectedConnectOnClient
            | EndReason::UnexpectedHelloOnServer
            | EndReason::HandshakeFlood
            | EndReason::BadFrame(_)
    )
}
