//! The relay's copy between the two streams of a tunnel, or between one of them and the shard that has the other.
//!
//! Each direction reads only while it has nothing left to write, so what a tunnel holds here is bounded: one block each way
//! besides the windows of its two streams. A receiver that stalls stops its own tunnel and nothing else. Directions that can
//! move take turns, the one served longest ago first.
//!
//! **Memory.** With `T` open tunnels and `C` connections, a relay holds at most this many bytes of payload:
//!
//! ```text
//! T * 2 * (Limits::splice_block + TransportConfig::stream_window) + C * TransportConfig::send_window
//! ```
//!
//! The block was read and cannot be written yet; the stream window is what the sender may have sent and the relay has not
//! read; the send window, of the whole connection, is what the relay has written and the receiver has not acknowledged. With
//! the defaults that is 2.6 MB for a tunnel that is stalled both ways and 10 MB for a connection; a tunnel whose receivers
//! read holds next to nothing. A sender that spreads its bytes over many tiny frames makes QUIC's reassembly keep up to two
//! and a half times its window before it compacts it.
//!
//! A tunnel whose ends are on different shards has a part on each: blocks that were read on one are handed to the other, which
//! says when it has taken them. There the first term is `2 * ((2 + CREDIT) * Limits::splice_block + ...)`, with four blocks of
//! credit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use bytes::Bytes;

use super::{
    bucket::Bucket,
    crossing::{Crossing, Part, RelayMessage, Way},
    direction::{Direction, End, Place, Post, with},
};
use crate::{
    Code, Now,
    quic::{self, ConnectionHandle},
    tunnel::relay::{Rates, TunnelBytes, TunnelKey},
    wire::control::TunnelId,
};

/// Blocks that one direction moves before others have their turn.
const BLOCKS_PER_TURN: usize = 4;

#[derive(Debug)]
struct Splice {
    to_target: Direction,
    to_requester: Direction,
    reset: Option<Code>,
}

/// All tunnels of a relay, or the parts of them on one of its shards.
#[derive(Debug, Default)]
pub(super) struct Splices {
    tunnels: BTreeMap<TunnelKey, Splice>,
    by_end: HashMap<End, TunnelKey>,
    /// Directions that can move, by their turn.
    ready: BTreeMap<u64, Way>,
    next_turn: u64,
    throttled: BTreeSet<(Instant, Way)>,
    buckets: HashMap<ConnectionHandle, Bucket>,
    block: usize,
    pieces: Vec<Bytes>,
    /// For other shards.
    outbox: Vec<(u8, RelayMessage)>,
    posts: Vec<Post>,
    /// The tunnel that was started last. Keys of tunnels only grow.
    latest: Option<TunnelKey>,
    /// What another shard said about tunnels that this one has not been told to start yet.
    early: BTreeMap<TunnelKey, Vec<(Way, Crossing)>>,
}

/// What became of a direction's turn.
enum Turn {
    /// It waits for bytes, for room, or is over.
    Waits,
    /// It used up its turn.
    Again,
    /// A rate limit stops it until then.
    Throttled(Instant),
}

impl Splices {
    pub(super) fn new(block: usize) -> Self {
        Self {
            block: block.max(1),
            ..Self::default()
        }
    }

    /// Starts a tunnel, or the part of it on this shard: the id goes first on both streams.
    pub(super) fn start(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        tunnel: TunnelKey,
        id: &TunnelId,
        (requester, target): (Place, Place),
        rates: Rates,
    ) {
        for (place, rate) in [(requester, rates.requester), (target, rates.target)] {
            if let Place::Here(end) = place {
                self.by_end.insert(end, tunnel);
                self.limit(end.conn, rate, now);
                with(quic, end, |stream| stream.hold());
            }
        }
        let prefix = Bytes::copy_from_slice(id.as_bytes());
        let splice = Splice {
            to_target: Direction::new(requester, target, &prefix),
            to_requester: Direction::new(target, requester, &prefix),
            reset: None,
        };
        self.tunnels.insert(tunnel, splice);
        for to_target in [true, false] {
            self.wake(Way { tunnel, to_target });
        }
        self.latest = self.latest.max(Some(tunnel));
        self.catch_up(quic, tunnel);
    }

    /// Ends a tunnel at once with `code`, and says what it carried.
    pub(super) fn end(&mut self, quic: &mut quic::Endpoint, tunnel: TunnelKey, code: Code) -> Option<Part> {
        let part = self.part(tunnel)?;
        for end in self.forget(tunnel) {
            with(quic, end, |stream| {
                stream.abort(code);
                stream.release();
            });
        }
        Some(part)
    }

    /// What was read of a tunnel so far, on this shard.
    pub(super) fn bytes(&self, tunnel: TunnelKey) -> Option<TunnelBytes> {
        self.part(tunnel).map(|part| part.bytes)
    }

    /// Takes an event of a stream; false if the stream belongs to no tunnel.
    pub(super) fn on_event(&mut self, quic: &mut quic::Endpoint, end: End, event: &quic::Event) -> bool {
        let Some(&tunnel) = self.by_end.get(&end) else {
            return false;
        };
        let Some(splice) = self.tunnels.get_mut(&tunnel) else {
            return false;
        };
        let reads_requester = splice.to_target.source() == Some(end);
        let of_sender = matches!(event, quic::Event::Readable { .. } | quic::Event::Reset { .. });
        let way = Way {
            tunnel,
            to_target: of_sender == reads_requester,
        };
        match *event {
            quic::Event::Readable { .. } | quic::Event::Writable { .. } => {}
            quic::Event::Reset { code, .. } => {
                splice.reset.get_or_insert(code);
                splice.direction(way.to_target).reset(quic, code, &mut self.posts);
            }
            quic::Event::Stopped { code, .. } => {
                splice.reset.get_or_insert(code);
                splice.direction(way.to_target).stop(quic, code, &mut self.posts);
            }
            quic::Event::Delivered { .. } => splice.direction(way.to_target).delivered(&mut self.posts),
            _ => return true,
        }
        self.post(way);
        self.wake(way);
        true
    }

    /// Takes what another shard says about a tunnel.
    pub(super) fn on_crossing(&mut self, quic: &mut quic::Endpoint, way: Way, crossing: Crossing) {
        let Some(splice) = self.tunnels.get_mut(&way.tunnel) else {
            if self.latest < Some(way.tunnel) {
                self.early.entry(way.tunnel).or_default().push((way, crossing));
            }
            return;
        };
        if let Crossing::Reset(code) | Crossing::Stop(code) = crossing {
            splice.reset.get_or_insert(code);
        }
        splice.direction(way.to_target).cross(quic, crossing);
        self.wake(way);
    }

    /// What is to be said to other shards.
    pub(super) fn outbox(&mut self) -> impl Iterator<Item = (u8, RelayMessage)> + '_ {
        self.outbox.drain(..)
    }

    /// Forgets the rate limit of a connection that is gone.
    pub(super) fn connection_lost(&mut self, conn: ConnectionHandle) {
        self.buckets.remove(&conn);
    }

    /// When a throttled direction may move again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.throttled.first().map(|(at, _)| *at)
    }

    /// Gives throttled directions whose time has come their turn.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        while let Some(&(at, way)) = self.throttled.first()
            && at <= now.mono
        {
            self.throttled.pop_first();
            if let Some(direction) = self.direction(way) {
                direction.throttled = None;
            }
            self.wake(way);
        }
    }

    /// Gives the next direction its turn; `None` when nothing can move. Answers a tunnel that is over with it.
    pub(super) fn run(&mut self, quic: &mut quic::Endpoint, now: Now) -> Option<Option<(TunnelKey, Part)>> {
        let (_, way) = self.ready.pop_first()?;
        if let Some(direction) = self.direction(way) {
            direction.turn = None;
        }
        let turn = self.turn(quic, now, way);
        self.post(way);
        match turn {
            Turn::Waits => {}
            Turn::Again => self.wake(way),
            Turn::Throttled(at) => {
                if let Some(direction) = self.direction(way)
                    && direction.throttled.is_none()
                {
                    direction.throttled = Some(at);
                    self.throttled.insert((at, way));
                }
            }
        }
        Some(self.finish_if_over(quic, way.tunnel))
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    fn turn(&mut self, quic: &mut quic::Endpoint, now: Now, way: Way) -> Turn {
        for _ in 0..BLOCKS_PER_TURN {
            let Some(splice) = self.tunnels.get_mut(&way.tunnel) else {
                return Turn::Waits;
            };
            let direction = splice.direction(way.to_target);
            if direction.over || direction.finished || !direction.write(quic, &mut self.posts) {
                return Turn::Waits;
            }
            let ends = [direction.source(), direction.sink()].map(|end| end.map(|end| end.conn));
            let allowed = match self.allowance(ends, now) {
                Ok(bytes) => bytes.min(self.block),
                Err(at) => return Turn::Throttled(at),
            };
            let Some(splice) = self.tunnels.get_mut(&way.tunnel) else {
                return Turn::Waits;
            };
            let direction = splice.direction(way.to_target);
            let Some(bytes) = direction.read(quic, allowed, &mut self.pieces, &mut self.posts) else {
                return Turn::Waits;
            };
            self.spend(ends, bytes);
        }
        Turn::Again
    }

    fn part(&self, tunnel: TunnelKey) -> Option<Part> {
        let splice = self.tunnels.get(&tunnel)?;
        let bytes = TunnelBytes {
            to_target: splice.to_target.bytes,
            to_requester: splice.to_requester.bytes,
        };
        Some(Part {
            reset: splice.reset,
            bytes,
        })
    }

    fn finish_if_over(&mut self, quic: &mut quic::Endpoint, tunnel: TunnelKey) -> Option<(TunnelKey, Part)> {
        let splice = self.tunnels.get(&tunnel)?;
        if !splice.to_target.over || !splice.to_requester.over {
            return None;
        }
        let part = self.part(tunnel)?;
        for end in self.forget(tunnel) {
            with(quic, end, |stream| stream.release());
        }
        Some((tunnel, part))
    }

    /// Forgets a tunnel, and answers its ends on this shard.
    fn forget(&mut self, tunnel: TunnelKey) -> Vec<End> {
        let Some(splice) = self.tunnels.remove(&tunnel) else {
            return Vec::new();
        };
        for (direction, to_target) in [(&splice.to_target, true), (&splice.to_requester, false)] {
            let way = Way { tunnel, to_target };
            if let Some(turn) = direction.turn {
                self.ready.remove(&turn);
            }
            if let Some(at) = direction.throttled {
                self.throttled.remove(&(at, way));
            }
        }
        let ends = [splice.to_target.source(), splice.to_target.sink()];
        let ends: Vec<_> = ends.into_iter().flatten().collect();
        for end in &ends {
            self.by_end.remove(end);
        }
        ends
    }

    /// Takes what was said about a tunnel before it was started. Those before it that were not started never will be.
    fn catch_up(&mut self, quic: &mut quic::Endpoint, tunnel: TunnelKey) {
        while let Some(entry) = self.early.first_entry()
            && *entry.key() <= tunnel
        {
            let (about, said) = entry.remove_entry();
            if about == tunnel {
                for (way, crossing) in said {
                    self.on_crossing(quic, way, crossing);
                }
            }
        }
    }

    fn post(&mut self, way: Way) {
        let messages = self.posts.drain(..);
        let messages = messages.map(|(shard, crossing)| (shard, RelayMessage::Crossing(way, crossing)));
        self.outbox.extend(messages);
    }

    /// Puts a direction at the end of the queue of those that can move.
    fn wake(&mut self, way: Way) {
        let turn = self.next_turn;
        if let Some(direction) = self.direction(way)
            && direction.turn.is_none()
            && direction.throttled.is_none()
        {
            direction.turn = Some(turn);
            self.next_turn += 1;
            self.ready.insert(turn, way);
        }
    }

    fn direction(&mut self, way: Way) -> Option<&mut Direction> {
        Some(self.tunnels.get_mut(&way.tunnel)?.direction(way.to_target))
    }

    fn limit(&mut self, conn: ConnectionHandle, rate: Option<u64>, now: Now) {
        match rate {
            Some(rate) if self.buckets.get(&conn).is_none_or(|bucket| bucket.rate() != rate) => {
                self.buckets.insert(conn, Bucket::new(rate, now.mono));
            }
            Some(_) => {}
            None => {
                self.buckets.remove(&conn);
            }
        }
    }

    fn allowance(&mut self, ends: [Option<ConnectionHandle>; 2], now: Now) -> Result<usize, Instant> {
        let mut allowed = u64::MAX;
        for conn in ends.into_iter().flatten() {
            if let Some(bucket) = self.buckets.get_mut(&conn) {
                allowed = allowed.min(bucket.allowed(now.mono)?);
            }
        }
        Ok(usize::try_from(allowed).unwrap_or(usize::MAX))
    }

    fn spend(&mut self, [from, to]: [Option<ConnectionHandle>; 2], bytes: usize) {
        for conn in [from, to.filter(|_| to != from)].into_iter().flatten() {
            if let Some(bucket) = self.buckets.get_mut(&conn) {
                bucket.take(bytes as u64);
            }
        }
    }
}

impl Splice {
    fn direction(&mut self, to_target: bool) -> &mut Direction {
        if to_target {
            &mut self.to_target
        } else {
            &mut self.to_requester
        }
    }
}
