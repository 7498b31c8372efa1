//! The relay's copy between the two streams of a tunnel, inside one endpoint.
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

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use bytes::Bytes;

use super::bucket::Bucket;
use crate::{
    Code, Now,
    quic::{self, ConnectionHandle, ReadError, StreamId, WriteError},
    tunnel::relay::{Rates, SpliceEnd, TunnelBytes, TunnelKey},
    wire::control::TunnelId,
};

/// Blocks that one direction moves before others have their turn.
const BLOCKS_PER_TURN: usize = 4;
/// A single piece this large is written on as it is instead of being copied into a block.
const LARGE_PIECE: usize = 16 << 10;

/// One end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) conn: ConnectionHandle,
    pub(super) stream: StreamId,
}

/// One direction of a tunnel: towards its target, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Way {
    tunnel: TunnelKey,
    to_target: bool,
}

#[derive(Debug)]
struct Direction {
    from: End,
    to: End,
    /// Read and not written yet.
    pending: Bytes,
    finishing: bool,
    finished: bool,
    /// Its end was delivered, or it was reset or stopped. Only then may its connection be closed without losing bytes.
    over: bool,
    bytes: u64,
    /// Its place in the queue of those that can move.
    turn: Option<u64>,
    throttled: Option<Instant>,
}

#[derive(Debug)]
struct Splice {
    to_target: Direction,
    to_requester: Direction,
    reset: Option<Code>,
}

/// All tunnels of a relay.
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

    /// Starts a tunnel: the id goes first on both streams.
    pub(super) fn start(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        tunnel: TunnelKey,
        id: &TunnelId,
        ends: (End, End),
        rates: Rates,
    ) {
        let (requester, target) = ends;
        for (end, rate) in [(requester, rates.requester), (target, rates.target)] {
            self.by_end.insert(end, tunnel);
            self.limit(end.conn, rate, now);
            with(quic, end, |stream| stream.hold());
        }
        let prefix = Bytes::copy_from_slice(id.as_bytes());
        let direction = |from, to| Direction {
            from,
            to,
            pending: prefix.clone(),
            finishing: false,
            finished: false,
            over: false,
            bytes: 0,
            turn: None,
            throttled: None,
        };
        let splice = Splice {
            to_target: direction(requester, target),
            to_requester: direction(target, requester),
            reset: None,
        };
        self.tunnels.insert(tunnel, splice);
        for to_target in [true, false] {
            self.wake(Way { tunnel, to_target });
        }
    }

    /// Ends a tunnel at once with `code`, and says what it carried.
    pub(super) fn end(&mut self, quic: &mut quic::Endpoint, tunnel: TunnelKey, code: Code) -> Option<TunnelBytes> {
        let bytes = self.bytes(tunnel)?;
        for end in self.forget(tunnel) {
            with(quic, end, |stream| {
                stream.abort(code);
                stream.release();
            });
        }
        Some(bytes)
    }

    /// What a tunnel has carried so far.
    pub(super) fn bytes(&self, tunnel: TunnelKey) -> Option<TunnelBytes> {
        let splice = self.tunnels.get(&tunnel)?;
        Some(TunnelBytes {
            to_target: splice.to_target.bytes,
            to_requester: splice.to_requester.bytes,
        })
    }

    /// Takes an event of a stream; false if the stream belongs to no tunnel.
    pub(super) fn on_event(&mut self, quic: &mut quic::Endpoint, end: End, event: &quic::Event) -> bool {
        let Some(&tunnel) = self.by_end.get(&end) else {
            return false;
        };
        let Some(splice) = self.tunnels.get_mut(&tunnel) else {
            return false;
        };
        let reads_requester = splice.to_target.from == end;
        let reading = Way {
            tunnel,
            to_target: reads_requester,
        };
        let writing = Way {
            tunnel,
            to_target: !reads_requester,
        };
        match *event {
            quic::Event::Readable { .. } => self.wake(reading),
            quic::Event::Writable { .. } => self.wake(writing),
            quic::Event::Reset { code, .. } => {
                splice.reset.get_or_insert(code);
                let direction = splice.direction(reading.to_target);
                direction.abandon();
                with(quic, direction.to, |stream| {
                    let _ = stream.reset(code);
                });
                self.wake(reading);
            }
            quic::Event::Stopped { code, .. } => {
                splice.reset.get_or_insert(code);
                let direction = splice.direction(writing.to_target);
                direction.abandon();
                with(quic, direction.from, |stream| {
                    let _ = stream.stop(code);
                });
                self.wake(writing);
            }
            quic::Event::Delivered { .. } => {
                splice.direction(writing.to_target).over = true;
                self.wake(writing);
            }
            _ => {}
        }
        true
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
    pub(super) fn run(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
    ) -> Option<Option<(TunnelKey, SpliceEnd, TunnelBytes)>> {
        let (_, way) = self.ready.pop_first()?;
        if let Some(direction) = self.direction(way) {
            direction.turn = None;
        }
        match self.turn(quic, now, way) {
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
            let Some(direction) = self.direction(way) else {
                return Turn::Waits;
            };
            if direction.over || direction.finished || !direction.write(quic) {
                return Turn::Waits;
            }
            let (from, to) = (direction.from.conn, direction.to.conn);
            let allowed = match self.allowance(from, to, now) {
                Ok(bytes) => bytes,
                Err(at) => return Turn::Throttled(at),
            };
            match self.read(quic, way, allowed) {
                Ok(bytes) => self.spend(from, to, bytes),
                Err(turn) => return turn,
            }
        }
        Turn::Again
    }

    /// Gathers the next block, `max` bytes at most, and says how large it is.
    fn read(&mut self, quic: &mut quic::Endpoint, way: Way, max: usize) -> Result<usize, Turn> {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.clear();
        let max = max.min(self.block);
        let Some(direction) = self.direction(way) else {
            return Err(Turn::Waits);
        };
        let mut result = Err(ReadError::Closed);
        with(quic, direction.from, |stream| {
            result = stream.read_with(max, |piece| pieces.push(piece));
        });
        let outcome = match result {
            Ok(0) => {
                direction.finishing = true;
                Ok(0)
            }
            Ok(bytes) => {
                direction.bytes += bytes as u64;
                direction.pending = gather(quic, &mut pieces, bytes);
                Ok(bytes)
            }
            // A reset arrives as an event; the end of a connection ends its tunnels.
            Err(_) => Err(Turn::Waits),
        };
        pieces.clear();
        self.pieces = pieces;
        outcome
    }

    fn finish_if_over(
        &mut self,
        quic: &mut quic::Endpoint,
        tunnel: TunnelKey,
    ) -> Option<(TunnelKey, SpliceEnd, TunnelBytes)> {
        let splice = self.tunnels.get(&tunnel)?;
        if !splice.to_target.over || !splice.to_requester.over {
            return None;
        }
        let end = splice.reset.map_or(SpliceEnd::Finished, SpliceEnd::Reset);
        let bytes = self.bytes(tunnel)?;
        for end in self.forget(tunnel) {
            with(quic, end, |stream| stream.release());
        }
        Some((tunnel, end, bytes))
    }

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
        let ends = vec![splice.to_target.from, splice.to_target.to];
        for end in &ends {
            self.by_end.remove(end);
        }
        ends
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

    fn allowance(&mut self, from: ConnectionHandle, to: ConnectionHandle, now: Now) -> Result<usize, Instant> {
        let mut allowed = u64::MAX;
        for conn in [from, to] {
            if let Some(bucket) = self.buckets.get_mut(&conn) {
                allowed = allowed.min(bucket.allowed(now.mono)?);
            }
        }
        Ok(usize::try_from(allowed).unwrap_or(usize::MAX))
    }

    fn spend(&mut self, from: ConnectionHandle, to: ConnectionHandle, bytes: usize) {
        for conn in [Some(from), (to != from).then_some(to)].into_iter().flatten() {
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

impl Direction {
    /// Writes what is pending, and the end; true if more can be read.
    fn write(&mut self, quic: &mut quic::Endpoint) -> bool {
        let mut pending = std::mem::take(&mut self.pending);
        let finishing = self.finishing;
        let mut result = Err(WriteError::Closed);
        let known = with(quic, self.to, |stream| {
            result = loop {
                if pending.is_empty() {
                    break Ok(());
                }
                if let Err(error) = stream.write_chunks(std::slice::from_mut(&mut pending)) {
                    break Err(error);
                }
            };
            if finishing && result.is_ok() {
                let _ = stream.finish();
            }
        });
        self.pending = pending;
        self.finished = finishing && result.is_ok();
        if !known {
            self.abandon();
        }
        result.is_ok() && !self.finished
    }

    fn abandon(&mut self) {
        self.over = true;
        self.pending = Bytes::new();
    }
}

/// One block from what was read: small pieces are copied together, because the send buffer searches its pieces one by one.
fn gather(quic: &mut quic::Endpoint, pieces: &mut [Bytes], bytes: usize) -> Bytes {
    match pieces {
        [piece] if piece.len() >= LARGE_PIECE => std::mem::take(piece),
        pieces => quic.gather(pieces, bytes),
    }
}

/// Runs `operation` on a stream, if it is still there.
fn with(quic: &mut quic::Endpoint, end: End, operation: impl FnOnce(&mut quic::Stream<'_>)) -> bool {
    let Ok(mut conn) = quic.connection(end.conn) else {
        return false;
    };
    let Ok(mut stream) = conn.stream(end.stream) else {
        return false;
    };
    operation(&mut stream);
    true
}
