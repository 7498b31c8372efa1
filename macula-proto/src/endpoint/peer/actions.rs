//! What peering machines ask for, carried out.

use bytes::Bytes;

use super::{
    PeerEvent, PeerId, PeerItem,
    aside::of_link,
    role::{PIECE, PeerRole},
};
use crate::{
    Now,
    endpoint::Event as Out,
    peering::{Action, EndReason, Event, GateEvent, PeerConn, Received, Role, TransportError},
    quic::{self, WriteError},
};

/// What a waiting frame counts beyond its bytes.
const FRAME_COST: usize = 512;

impl PeerRole {
    pub(super) fn feed(&mut self, quic: &mut quic::Endpoint, now: Now, peer: PeerId, event: Event, out: &mut Vec<Out>) {
        self.work.push_back((peer, event));
        self.work(quic, now, out);
    }

    /// Feeds one event after the other. All that is to be done about one is done before the next.
    pub(super) fn work(&mut self, quic: &mut quic::Endpoint, now: Now, out: &mut Vec<Out>) {
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

    pub(super) fn execute(
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

/// What an item that waits to be fetched counts, in bytes.
pub(super) fn cost(item: &PeerItem) -> usize {
    match item {
        PeerItem::Frame(frame) => frame_cost(frame),
        PeerItem::Goodbye { .. } | PeerItem::Ended { .. } => FRAME_COST,
    }
}

pub(super) fn frame_cost(frame: &Received) -> usize {
    frame.decoded.raw.wire_length().saturating_add(FRAME_COST)
}
