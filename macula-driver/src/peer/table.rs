//! What is kept for the handles of peers, under the lock.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Poll,
};

use macula_proto::{
    Code, Event,
    endpoint::{PeerEvent, PeerId, PeerItem},
    peering::{Connected, EndReason, Received, Role},
};

use super::{
    DROPPED, PeerEnd,
    key::{self, What},
};
use crate::{Context, Endpoint, Extension};

/// All peers of an endpoint that have a handle, or wait for one.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: BTreeMap<PeerId, Slot>,
    accepted: VecDeque<PeerId>,
    pub(super) backlog: usize,
    pub(super) serving: bool,
    pub(super) closed: bool,
}

/// What is kept for a peer.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Until the handle takes it.
    connected: Option<Box<Connected>>,
    goodbye: Option<(macula_proto::wire::frame::Text, Option<bytes::Bytes>)>,
    end: Option<PeerEnd>,
}

impl Peers {
    pub(super) fn install(endpoint: &Endpoint) {
        if endpoint.with_extension(|_: &mut Self, _| ()).is_none() {
            endpoint.add_extension(Self::default());
        }
    }

    pub(super) fn add(&mut self, peer: PeerId) {
        self.slots.insert(peer, Slot::default());
    }

    pub(super) fn next_accepted(&mut self, _: &mut Context<'_>) -> Poll<Option<(PeerId, Box<Connected>)>> {
        while let Some(peer) = self.accepted.pop_front() {
            let connected = self.slots.get_mut(&peer).and_then(|slot| slot.connected.take());
            if let Some(connected) = connected {
                return Poll::Ready(Some((peer, connected)));
            }
        }
        if self.serving { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Whether a dial has come to something.
    pub(super) fn dialled(&mut self, cx: &mut Context<'_>, peer: PeerId) -> Poll<Result<Box<Connected>, PeerEnd>> {
        if let Some(connected) = self.slots.get_mut(&peer).and_then(|slot| slot.connected.take()) {
            return Poll::Ready(Ok(connected));
        }
        match self.receive(cx, peer) {
            Poll::Ready(Err(end)) => Poll::Ready(Err(end)),
            // No frame comes before the handshake is complete.
            _ => Poll::Pending,
        }
    }

    /// The next frame, or the end.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, peer: PeerId) -> Poll<Result<Box<Received>, PeerEnd>> {
        let Some(slot) = self.slots.get_mut(&peer) else {
            return Poll::Ready(Err(PeerEnd::stopped()));
        };
        if let Some(end) = &slot.end {
            return Poll::Ready(Err(end.clone()));
        }
        let now = cx.now();
        while let Some(item) = cx.endpoint().next_peer_item(now, peer) {
            match item {
                PeerItem::Frame(frame) => return Poll::Ready(Ok(frame)),
                PeerItem::Goodbye { reason, detail } => slot.goodbye = Some((reason, detail)),
                PeerItem::Ended { reason, unsent } => {
                    let end = PeerEnd {
                        reason,
                        goodbye: slot.goodbye.take(),
                        unsent,
                    };
                    slot.end = Some(end.clone());
                    // For whoever waits beside this one.
                    cx.wake(key::peer(peer, What::Receive));
                    cx.wake(key::peer(peer, What::Send));
                    return Poll::Ready(Err(end));
                }
                _ => {}
            }
        }
        Poll::Pending
    }

    /// Ends a connection at once, and lets its handles know.
    pub(super) fn abort(&mut self, cx: &mut Context<'_>, peer: PeerId, code: Code) {
        let Some(slot) = self.slots.get_mut(&peer) else { return };
        if slot.end.is_none() {
            let now = cx.now();
            cx.endpoint().forget_peer(now, peer, code);
            slot.end = Some(PeerEnd {
                reason: EndReason::Aborted(code),
                goodbye: slot.goodbye.take(),
                unsent: 0..0,
            });
            cx.wake(key::peer(peer, What::Receive));
            cx.wake(key::peer(peer, What::Send));
        }
    }

    /// The handle is gone.
    pub(super) fn forget(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        self.slots.remove(&peer);
        let now = cx.now();
        cx.endpoint().forget_peer(now, peer, DROPPED);
    }

    fn came_in(&mut self, cx: &mut Context<'_>, peer: PeerId, connected: Box<Connected>) {
        if !self.serving || self.accepted.len() >= self.backlog {
            let now = cx.now();
            let code = if self.serving { Code::LIMIT } else { Code::SHUTDOWN };
            return cx.endpoint().forget_peer(now, peer, code);
        }
        let connected = Some(connected);
        let slot = Slot {
            connected,
            ..Slot::default()
        };
        self.slots.insert(peer, slot);
        self.accepted.push_back(peer);
        cx.wake(key::ACCEPT);
    }
}

impl Extension for Peers {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> Option<Event> {
        let Event::Peer { peer, event } = event else {
            return Some(event);
        };
        match event {
            PeerEvent::Connected {
                role: Role::Acceptor,
                connected,
                ..
            } => self.came_in(cx, peer, connected),
            PeerEvent::Connected { connected, .. } => {
                if let Some(slot) = self.slots.get_mut(&peer) {
                    slot.connected = Some(connected);
                }
                cx.wake(key::peer(peer, What::Receive));
            }
            PeerEvent::Readable => {
                cx.wake(key::peer(peer, What::Receive));
                // The end may be among it, after which nothing can be sent.
                cx.wake(key::peer(peer, What::Send));
            }
            PeerEvent::SendReady => cx.wake(key::peer(peer, What::Send)),
            _ => {}
        }
        None
    }

    fn on_closed(&mut self, cx: &mut Context<'_>) {
        self.closed = true;
        self.serving = false;
        cx.endpoint().stop_serving_peers();
        let now = cx.now();
        for peer in std::mem::take(&mut self.accepted) {
            self.slots.remove(&peer);
            cx.endpoint().forget_peer(now, peer, Code::SHUTDOWN);
        }
        cx.wake(key::ACCEPT);
    }
}
