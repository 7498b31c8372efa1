//! What is kept for the handles of connections and streams, under the lock.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Weak,
    task::Poll,
};

use macula_proto::{
    Code, Event,
    dist::{
        streams::Side,
        user::{Owner, UserEvent},
    },
    endpoint::{DistEnd, DistEvent, DistId},
    quic::StreamId,
    wire::{dist::Flags, etf::Atom},
};

use super::{
    connection::Inner,
    key::{self, Link as OfLink, Stream as OfStream},
};
use crate::{Context, Endpoint, Extension};

/// All connections and streams of an endpoint that have a handle, or wait for one.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<DistId, Link>,
    streams: BTreeMap<(DistId, StreamId), StreamSlot>,
    acceptors: BTreeMap<u64, Acceptor>,
    accepted: VecDeque<DistId>,
    pub(super) backlog: usize,
    pub(super) closed: bool,
    /// Owners of streams are numbered, and never twice the same.
    owners: u64,
}

/// What is kept for a connection.
#[derive(Debug, Default)]
struct Link {
    up: Option<Box<Up>>,
    /// Nothing more can be sent.
    end: Option<DistEnd>,
    handle: Weak<Inner>,
    dialled: bool,
}

/// What is known of a connection from its beginning.
#[derive(Debug, Clone)]
pub(super) struct Up {
    pub(super) node: Atom,
    pub(super) creation: u32,
    pub(super) flags: Flags,
    pub(super) side: Side,
    pub(super) remote: SocketAddr,
}

/// What is kept for a stream.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct StreamSlot {
    /// The number of its owner, once it has a handle, and of those who wait for it.
    pub(super) number: u64,
    pub(super) opened_here: bool,
    /// The halves that were over when it was handed over.
    pub(super) read: bool,
    pub(super) written: bool,
    reset: Option<Code>,
    stopped: Option<Code>,
}

/// Who takes streams.
#[derive(Debug)]
struct Acceptor {
    /// The connection, if it is only one.
    of: Option<DistId>,
    waiting: VecDeque<(DistId, StreamId)>,
}

/// A stream for an acceptor, whose handle is still to be made.
pub(super) struct Taken {
    pub(super) inner: std::sync::Arc<Inner>,
    pub(super) id: StreamId,
    /// `None`: it is over already.
    pub(super) slot: Option<StreamSlot>,
}

impl Links {
    pub(super) fn install(endpoint: &Endpoint) {
        if endpoint.with_extension(|_: &mut Self, _| ()).is_none() {
            endpoint.add_extension(Self::default());
        }
    }

    // ----- connections ---------------------------------------------------------------------------------------------

    pub(super) fn dialled(&mut self, cx: &mut Context<'_>, dist: DistId) {
        self.links.entry(dist).or_default().dialled = true;
        self.offer(cx, dist);
    }

    /// Whether a dial has come to something.
    pub(super) fn dial_up(&self, dist: DistId) -> Poll<Result<Box<Up>, DistEnd>> {
        let Some(link) = self.links.get(&dist) else {
            return Poll::Ready(Err(DistEnd::Closed));
        };
        match (&link.up, &link.end) {
            (Some(up), _) => Poll::Ready(Ok(up.clone())),
            (None, Some(end)) => Poll::Ready(Err(end.clone())),
            (None, None) => Poll::Pending,
        }
    }

    /// The next connection that a peer made.
    pub(super) fn next_accepted(&mut self) -> Poll<Option<(DistId, Box<Up>)>> {
        while let Some(dist) = self.accepted.pop_front() {
            if let Some(up) = self.links.get(&dist).and_then(|link| link.up.clone()) {
                return Poll::Ready(Some((dist, up)));
            }
        }
        if self.closed { Poll::Ready(None) } else { Poll::Pending }
    }

    /// There is a handle: streams of the connection can be taken.
    pub(super) fn handled(&mut self, cx: &mut Context<'_>, dist: DistId, handle: Weak<Inner>) {
        if let Some(link) = self.links.get_mut(&dist) {
            link.handle = handle;
        }
        for owner in self.acceptors.keys() {
            cx.wake(key::stream(*owner, OfStream::Accept));
        }
    }

    /// How a connection ended, as far as sending and streams go.
    pub(super) fn end(&self, dist: DistId) -> Option<DistEnd> {
        match self.links.get(&dist) {
            Some(link) => link.end.clone(),
            None => Some(DistEnd::Closed),
        }
    }

    /// Ends a connection at once, and lets its handles know.
    pub(super) fn abort(&mut self, cx: &mut Context<'_>, dist: DistId, code: Code) {
        let now = cx.now();
        cx.endpoint().forget_dist(now, dist, code);
        self.over(cx, dist, DistEnd::Closed);
    }

    /// The last handle of a connection and its streams is gone.
    pub(super) fn forget(&mut self, cx: &mut Context<'_>, dist: DistId) {
        let now = cx.now();
        cx.endpoint().forget_dist(now, dist, Code::CLOSED);
        self.remove(cx, dist);
    }

    fn remove(&mut self, cx: &mut Context<'_>, dist: DistId) {
        self.links.remove(&dist);
        self.accepted.retain(|accepted| *accepted != dist);
        let streams: Vec<StreamId> = self.streams_of(dist).map(|(stream, _)| stream).collect();
        for stream in streams {
            self.streams.remove(&(dist, stream));
        }
        for (owner, acceptor) in &mut self.acceptors {
            acceptor.waiting.retain(|(of, _)| *of != dist);
            if acceptor.of == Some(dist) {
                cx.wake(key::stream(*owner, OfStream::Accept));
            }
        }
    }

    fn streams_of(&self, dist: DistId) -> impl Iterator<Item = (StreamId, &StreamSlot)> {
        let streams = self.streams.iter();
        streams.filter_map(move |((of, stream), slot)| (*of == dist).then_some((*stream, slot)))
    }

    fn came_up(&mut self, cx: &mut Context<'_>, dist: DistId, up: Box<Up>) {
        let link = self.links.entry(dist).or_default();
        link.up = Some(up);
        if !link.dialled {
            if self.closed || self.accepted.len() >= self.backlog {
                let now = cx.now();
                let code = if self.closed { Code::SHUTDOWN } else { Code::LIMIT };
                self.links.remove(&dist);
                return cx.endpoint().forget_dist(now, dist, code);
            }
            self.accepted.push_back(dist);
        }
        self.offer(cx, dist);
        cx.wake(key::link(dist, OfLink::State));
        cx.wake(key::ACCEPT);
    }

    /// Nothing more can be done with a connection, but for messages to be fetched.
    fn over(&mut self, cx: &mut Context<'_>, dist: DistId, end: DistEnd) {
        let Some(link) = self.links.get_mut(&dist) else { return };
        link.end.get_or_insert(end);
        for what in [OfLink::State, OfLink::Recv, OfLink::Send, OfLink::Open] {
            cx.wake(key::link(dist, what));
        }
        for (_, slot) in self.streams_of(dist) {
            for what in [OfStream::Read, OfStream::Write] {
                cx.wake(key::stream(slot.number, what));
            }
        }
        for owner in self.acceptors.keys() {
            cx.wake(key::stream(*owner, OfStream::Accept));
        }
    }

    // ----- streams -------------------------------------------------------------------------------------------------

    pub(super) fn next_owner(&mut self) -> u64 {
        self.owners += 1;
        self.owners
    }

    /// Begins to keep a stream that was opened here.
    pub(super) fn opened(&mut self, dist: DistId, stream: StreamId, number: u64) -> StreamSlot {
        let slot = StreamSlot {
            number,
            opened_here: true,
            ..StreamSlot::default()
        };
        self.streams.insert((dist, stream), slot);
        slot
    }

    pub(super) fn forget_stream(&mut self, dist: DistId, stream: StreamId) {
        self.streams.remove(&(dist, stream));
    }

    /// The code that the peer has reset a stream with.
    pub(super) fn reset(&self, dist: DistId, stream: StreamId) -> Option<Code> {
        self.streams.get(&(dist, stream))?.reset
    }

    /// The code that the peer has stopped a stream with.
    pub(super) fn stopped(&self, dist: DistId, stream: StreamId) -> Option<Code> {
        self.streams.get(&(dist, stream))?.stopped
    }

    // ----- who takes streams ---------------------------------------------------------------------------------------

    pub(super) fn add_acceptor(&mut self, cx: &mut Context<'_>, of: Option<DistId>) -> u64 {
        let owner = self.next_owner();
        let waiting = VecDeque::new();
        self.acceptors.insert(owner, Acceptor { of, waiting });
        let links = self.links.keys().filter(|dist| of.is_none_or(|of| of == **dist));
        for dist in links {
            // Above the limit of those who accept there is one less.
            let _ = cx.endpoint().dist_accept_streams(*dist, Owner(owner));
        }
        owner
    }

    /// Has streams of a connection given to everybody who takes them.
    fn offer(&self, cx: &mut Context<'_>, dist: DistId) {
        for (owner, _) in self.acceptors.iter().filter(|(_, acceptor)| acceptor.of.is_none()) {
            let _ = cx.endpoint().dist_accept_streams(dist, Owner(*owner));
        }
    }

    /// Takes no more; what waits to be taken is reset.
    pub(super) fn remove_acceptor(&mut self, cx: &mut Context<'_>, owner: u64) {
        let now = cx.now();
        cx.endpoint().dist_owner_gone(now, Owner(owner));
        if let Some(acceptor) = self.acceptors.remove(&owner) {
            for place in acceptor.waiting {
                self.streams.remove(&place);
            }
        }
    }

    /// The next stream for an acceptor.
    pub(super) fn next_stream(&mut self, cx: &mut Context<'_>, owner: u64) -> Poll<Option<Taken>> {
        let Some(acceptor) = self.acceptors.get_mut(&owner) else {
            return Poll::Ready(None);
        };
        // Those of connections that the program has not accepted yet have to wait.
        let found = acceptor.waiting.iter().enumerate().find_map(|(index, (dist, _))| {
            let inner = self.links.get(dist)?.handle.upgrade()?;
            Some((index, inner))
        });
        if let Some((index, inner)) = found
            && let Some((dist, id)) = acceptor.waiting.remove(index)
        {
            let slot = self.streams.get(&(dist, id)).copied();
            let now = cx.now();
            let slot = slot.filter(|slot| {
                let (from, to) = (Owner(owner), Owner(slot.number));
                cx.endpoint().dist_hand_over(now, dist, id, from, to).is_ok()
            });
            if slot.is_none() {
                self.streams.remove(&(dist, id));
            }
            return Poll::Ready(Some(Taken { inner, id, slot }));
        }
        let over = match acceptor.of {
            Some(dist) => self.end(dist).is_some(),
            None => self.closed,
        };
        if over { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Takes note of how far a stream is that is handed over.
    pub(super) fn handing_over(&mut self, dist: DistId, stream: StreamId, read: bool, written: bool) {
        if let Some(slot) = self.streams.get_mut(&(dist, stream)) {
            (slot.read, slot.written) = (read, written);
        }
    }

    fn stream_event(&mut self, cx: &mut Context<'_>, dist: DistId, stream: StreamId, owner: Owner, event: UserEvent) {
        if matches!(event, UserEvent::Accepted | UserEvent::HandedOver) {
            if !self.acceptors.contains_key(&owner.0) {
                return;
            }
            let number = self.next_owner();
            let fresh = StreamSlot {
                number,
                ..StreamSlot::default()
            };
            self.streams.entry((dist, stream)).or_insert(fresh);
            if let Some(acceptor) = self.acceptors.get_mut(&owner.0) {
                acceptor.waiting.push_back((dist, stream));
            }
            return cx.wake(key::stream(owner.0, OfStream::Accept));
        }
        let Some(slot) = self.streams.get_mut(&(dist, stream)) else {
            return;
        };
        let what = match event {
            UserEvent::Reset(code) => {
                slot.reset = Some(code);
                OfStream::Read
            }
            UserEvent::Stopped(code) => {
                slot.stopped = Some(code);
                OfStream::Write
            }
            UserEvent::Writable => OfStream::Write,
            _ => OfStream::Read,
        };
        cx.wake(key::stream(slot.number, what));
        // One that the peer has given up whole before anybody took it: it must not pile up.
        if slot.reset.is_some()
            && slot.stopped.is_some()
            && let Some(acceptor) = self.acceptors.get_mut(&owner.0)
        {
            acceptor.waiting.retain(|place| *place != (dist, stream));
            self.streams.remove(&(dist, stream));
        }
    }
}

impl Extension for Links {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> Option<Event> {
        let Event::Dist { dist, event } = event else {
            return Some(event);
        };
        match event {
            DistEvent::Up {
                node,
                creation,
                flags,
                side,
                remote,
                ..
            } => {
                let up = Up {
                    node,
                    creation,
                    flags,
                    side,
                    remote,
                };
                self.came_up(cx, dist, Box::new(up));
            }
            DistEvent::Over(end) => self.over(cx, dist, end),
            DistEvent::Down { reason, .. } => {
                self.over(cx, dist, reason);
                let link = self.links.get(&dist);
                if link.is_some_and(|link| !link.dialled && link.handle.strong_count() == 0) {
                    self.remove(cx, dist);
                }
            }
            DistEvent::Readable => cx.wake(key::link(dist, OfLink::Recv)),
            DistEvent::SendReady => cx.wake(key::link(dist, OfLink::Send)),
            DistEvent::StreamsAvailable => cx.wake(key::link(dist, OfLink::Open)),
            DistEvent::Stream { stream, owner, event } => self.stream_event(cx, dist, stream, owner, event),
            _ => {}
        }
        None
    }

    fn on_closed(&mut self, cx: &mut Context<'_>) {
        self.closed = true;
        let now = cx.now();
        for dist in std::mem::take(&mut self.accepted) {
            self.remove(cx, dist);
            cx.endpoint().forget_dist(now, dist, Code::SHUTDOWN);
        }
        cx.wake(key::ACCEPT);
        for owner in self.acceptors.keys() {
            cx.wake(key::stream(*owner, OfStream::Accept));
        }
    }
}
