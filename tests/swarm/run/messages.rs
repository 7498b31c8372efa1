//! Messages between nodes of Erlang distribution: in order, none left out while the node is up.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use macula_proto::{
    Code, Endpoint, Now,
    dist::pool::SendError,
    endpoint::{DistEnd, DistEvent, DistId},
    sim::HostId,
};

use super::{Run, Start, boot};

/// Messages with the same key stay in order.
const KEYS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Messages {
    links: BTreeMap<(Start, DistId), Link>,
    received: u64,
}

#[derive(Debug, Default)]
struct Link {
    up: bool,
    waiting: Vec<usize>,
    sent: [u64; KEYS],
    /// The other end, known from its first message on.
    other: Option<(Start, u64)>,
    received: [u64; KEYS],
    leaving: bool,
}

impl Messages {
    pub(super) fn count(&self) -> u64 {
        self.received
    }

    pub(super) fn is_content(&self) -> bool {
        self.links
            .values()
            .all(|link| link.up && !link.leaving && link.waiting.is_empty())
    }

    pub(super) fn open(&self) -> Vec<String> {
        self.links.iter().map(|link| format!("{link:?}")).collect()
    }

    pub(super) fn incomplete(&self) -> Option<String> {
        let mut links = self.links.iter();
        let short = links.find(|(_, link)| {
            let other = link.other.and_then(|(start, id)| {
                let mut links = self.links.iter();
                links.find(|((at, dist), _)| *at == start && dist.get() == id)
            });
            other.is_some_and(|(_, other)| other.sent != link.received)
        });
        short.map(|link| format!("messages are missing: {link:?}"))
    }

    pub(super) fn all(&self) -> Vec<(Start, DistId)> {
        self.links.keys().copied().collect()
    }

    /// A connection of a host that is up and stays so.
    pub(super) fn usable(&self, start: Start) -> Option<DistId> {
        let mut links = self.links.iter();
        let found = links.find(|((at, _), link)| *at == start && link.up && !link.leaving);
        found.map(|((_, dist), _)| *dist)
    }

    pub(super) fn gone(&mut self, start: Start) {
        self.links.retain(|(at, _), _| *at != start);
    }
}

fn message(start: Start, dist: DistId, key: usize, seq: u64, size: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(40 + size);
    for number in [u64::from(start.0.get()), start.1, dist.get(), key as u64, seq] {
        bytes.put_u64(number);
    }
    bytes.put_bytes(seq as u8, size);
    bytes.freeze()
}

fn send(endpoint: &mut Endpoint, now: Now, start: Start, dist: DistId, link: &mut Link) {
    while let Some(size) = link.waiting.last() {
        let key = size % KEYS;
        let next = message(start, dist, key, link.sent[key], *size);
        match endpoint.dist_send(now, dist, next, key as u64) {
            Ok(()) => link.sent[key] += 1,
            Err(SendError::Later | SendError::Congested) => return,
            Err(_) => return link.waiting.clear(),
        }
        link.waiting.pop();
    }
}

impl Run {
    pub(super) fn dial_dist(&mut self, from: HostId, to: HostId) {
        let (start, remote) = (self.start_of(from), self.world.address(to));
        let dialled = self.world.with(from, |endpoint, now| {
            // The node may be up already.
            endpoint.connect_dist(now, boot::atom(to), remote, "host").ok()
        });
        if let Ok(Some(dist)) = dialled {
            self.messages.links.insert((start, dist), Link::default());
        }
    }

    pub(super) fn send_messages(&mut self, from: HostId, count: u64, size: usize) {
        let start = self.start_of(from);
        for (at, dist) in self.messages.all() {
            if at != start {
                continue;
            }
            if let Some(link) = self.messages.links.get_mut(&(at, dist))
                && link.up
                && !link.leaving
            {
                link.waiting.extend((0..count).map(|n| size + n as usize));
            }
            self.push_messages(at, dist);
        }
    }

    fn push_messages(&mut self, start: Start, dist: DistId) {
        if let Some(link) = self.messages.links.get_mut(&(start, dist)).filter(|link| link.up) {
            // Its host may be down.
            let _ = self
                .world
                .with(start.0, |endpoint, now| send(endpoint, now, start, dist, link));
        }
    }

    pub(super) fn leave_dist(&mut self, from: HostId) {
        let start = self.start_of(from);
        let found = self
            .messages
            .links
            .iter_mut()
            .find(|((at, _), link)| *at == start && link.up);
        if let Some(((_, dist), link)) = found {
            link.leaving = true;
            link.waiting.clear();
            let dist = *dist;
            let _ = self
                .world
                .with(from, |endpoint, now| endpoint.dist_close(now, dist, Code::CLOSED));
        }
    }

    pub(super) fn on_dist(&mut self, start: Start, dist: DistId, event: DistEvent) {
        match event {
            DistEvent::PreNodeUp { .. } => self.accept_dist_streams(start, dist),
            DistEvent::Stream { stream, owner, event } => self.on_dist_stream((start, dist, stream), owner, event),
            DistEvent::Over(_) => self.dist_streams.connection_over(start, dist),
            DistEvent::Up { .. } => {
                let link = self.messages.links.entry((start, dist)).or_default();
                if std::mem::replace(&mut link.up, true) {
                    self.fail(format!("{}: {dist:?} came up twice", start.0));
                }
            }
            DistEvent::Readable => self.fetch_messages(start, dist),
            DistEvent::SendReady => self.push_messages(start, dist),
            DistEvent::Down { reason, .. } => {
                self.dist_streams.connection_over(start, dist);
                if self.messages.links.remove(&(start, dist)).is_none() {
                    self.fail(format!("{}: {dist:?} went down and was not there", start.0));
                }
                if matches!(reason, DistEnd::Control(_) | DistEnd::Data(_)) {
                    self.fail(format!("{}: {dist:?} went down: {reason}", start.0));
                }
            }
            _ => {}
        }
    }

    fn fetch_messages(&mut self, start: Start, dist: DistId) {
        while let Ok(Some(got)) = self
            .world
            .with(start.0, |endpoint, now| endpoint.next_dist_message(now, dist))
        {
            let Some(link) = self.messages.links.get_mut(&(start, dist)) else {
                return self.fail(format!("{}: {dist:?} is over and sends a message", start.0));
            };
            let word = |n: usize| {
                let word = got.get(n * 8..).and_then(|rest| rest.first_chunk::<8>());
                word.map_or(u64::MAX, |word| u64::from_be_bytes(*word))
            };
            let from = (HostId::new(word(0) as u32), word(1));
            let other = *link.other.get_or_insert((from, word(2)));
            let key = word(3) as usize % KEYS;
            let body = got.get(40..).unwrap_or_default();
            let good = other == (from, word(2))
                && word(4) == link.received[key]
                && body.iter().all(|byte| *byte == word(4) as u8)
                && body.len() % KEYS == key;
            if !good {
                let what = format!("{}: message {} of {from:?} for {link:?}", start.0, word(4));
                return self.fail(what);
            }
            link.received[key] += 1;
            self.messages.received += 1;
        }
    }

    pub(super) fn close_dist(&mut self) {
        for (start, dist) in self.messages.all() {
            // Its host may be down.
            let _ = self
                .world
                .with(start.0, |endpoint, now| endpoint.dist_close(now, dist, Code::CLOSED));
        }
    }
}
