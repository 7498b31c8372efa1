//! One direction of a tunnel: where its bytes come from, where they go, and what is in between.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::crossing::{CREDIT, Crossing};
use crate::{
    Code,
    quic::{self, ConnectionHandle, ReadError, StreamId, WriteError},
};

/// A single piece this large is written on as it is instead of being copied into a block.
const LARGE_PIECE: usize = 16 << 10;

/// One end of a tunnel on this shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) conn: ConnectionHandle,
    pub(super) stream: StreamId,
}

/// Where one end of a tunnel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here(End),
    /// On the shard with this index.
    There(u8),
}

#[derive(Debug)]
enum Source {
    Stream(End),
    /// The usual tunnel has none of it.
    Shard(Box<Arrivals>),
}

/// What came from another shard.
#[derive(Debug)]
struct Arrivals {
    shard: u8,
    blocks: VecDeque<Bytes>,
    /// Its stream has ended behind them.
    ended: bool,
}

#[derive(Debug)]
enum Sink {
    Stream(End),
    /// Blocks that the other shard still takes.
    Shard {
        shard: u8,
        credit: usize,
    },
}

/// What a direction is asked to do to the other shard, if it crosses between two.
pub(super) type Post = (u8, Crossing);

#[derive(Debug)]
pub(super) struct Direction {
    from: Source,
    to: Sink,
    /// Read and not written yet.
    pending: Bytes,
    finishing: bool,
    pub(super) finished: bool,
    /// Its end was delivered, or it was reset or stopped. Only then may its connection be closed without losing bytes.
    pub(super) over: bool,
    /// Read from a stream of this shard.
    pub(super) bytes: u64,
    /// Its place in the queue of those that can move.
    pub(super) turn: Option<u64>,
    pub(super) throttled: Option<Instant>,
}

impl Direction {
    /// What goes first is written by the shard that has the stream.
    pub(super) fn new(from: Place, to: Place, prefix: &Bytes) -> Self {
        let from = match from {
            Place::Here(end) => Source::Stream(end),
            Place::There(shard) => Source::Shard(Box::new(Arrivals {
                shard,
                blocks: VecDeque::new(),
                ended: false,
            })),
        };
        let (to, pending) = match to {
            Place::Here(end) => (Sink::Stream(end), prefix.clone()),
            Place::There(shard) => (Sink::Shard { shard, credit: CREDIT }, Bytes::new()),
        };
        Self {
            from,
            to,
            pending,
            finishing: false,
            finished: false,
            over: false,
            bytes: 0,
            turn: None,
            throttled: None,
        }
    }

    /// The stream that is read here.
    pub(super) fn source(&self) -> Option<End> {
        match self.from {
            Source::Stream(end) => Some(end),
            Source::Shard(_) => None,
        }
    }

    /// The stream that is written here.
    pub(super) fn sink(&self) -> Option<End> {
        match self.to {
            Sink::Stream(end) => Some(end),
            Sink::Shard { .. } => None,
        }
    }

    // ----- moving --------------------------------------------------------------------------------------------------

    /// Writes what is pending, and the end; true if more can be read.
    pub(super) fn write(&mut self, quic: &mut quic::Endpoint, posts: &mut impl Extend<Post>) -> bool {
        match &mut self.to {
            Sink::Stream(end) => {
                let end = *end;
                self.write_stream(quic, end)
            }
            Sink::Shard { shard, credit } => {
                if !self.pending.is_empty() {
                    if *credit == 0 {
                        return false;
                    }
                    *credit -= 1;
                    posts.extend([(*shard, Crossing::Block(std::mem::take(&mut self.pending)))]);
                }
                if self.finishing && !self.finished {
                    self.finished = true;
                    posts.extend([(*shard, Crossing::Finish)]);
                }
                !self.finished && *credit > 0
            }
        }
    }

    fn write_stream(&mut self, quic: &mut quic::Endpoint, end: End) -> bool {
        let mut pending = std::mem::take(&mut self.pending);
        let finishing = self.finishing;
        let mut result = Err(WriteError::Closed);
        let known = with(quic, end, |stream| {
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

    /// Reads the next block, `max` bytes at most, and says how large it is. 0 is the end; `None`: there is nothing now.
    pub(super) fn read(
        &mut self,
        quic: &mut quic::Endpoint,
        max: usize,
        pieces: &mut Vec<Bytes>,
        posts: &mut impl Extend<Post>,
    ) -> Option<usize> {
        match &mut self.from {
            Source::Stream(end) => {
                let end = *end;
                self.read_stream(quic, end, max, pieces)
            }
            Source::Shard(arrivals) => {
                let Some(first) = arrivals.blocks.front_mut() else {
                    self.finishing |= arrivals.ended;
                    return arrivals.ended.then_some(0);
                };
                self.pending = first.split_to(max.min(first.len()));
                if first.is_empty() {
                    arrivals.blocks.pop_front();
                    posts.extend([(arrivals.shard, Crossing::Credit)]);
                }
                Some(self.pending.len())
            }
        }
    }

    fn read_stream(
        &mut self,
        quic: &mut quic::Endpoint,
        end: End,
        max: usize,
        pieces: &mut Vec<Bytes>,
    ) -> Option<usize> {
        pieces.clear();
        let mut result = Err(ReadError::Closed);
        with(quic, end, |stream| {
            result = stream.read_with(max, |piece| pieces.push(piece));
        });
        // A reset arrives as an event; the end of a connection ends its tunnels.
        let bytes = result.ok()?;
        if bytes == 0 {
            self.finishing = true;
        } else {
            self.bytes += bytes as u64;
            self.pending = gather(quic, pieces, bytes);
        }
        pieces.clear();
        Some(bytes)
    }

    // ----- ends ----------------------------------------------------------------------------------------------------

    /// The stream that is read was reset by its sender: so is the one that is written.
    pub(super) fn reset(&mut self, quic: &mut quic::Endpoint, code: Code, posts: &mut impl Extend<Post>) {
        self.abandon();
        match self.to {
            Sink::Stream(end) => {
                with(quic, end, |stream| {
                    let _ = stream.reset(code);
                });
            }
            Sink::Shard { shard, .. } => posts.extend([(shard, Crossing::Reset(code))]),
        }
    }

    /// The receiver of the stream that is written wants no more: no more is wanted of the one that is read.
    pub(super) fn stop(&mut self, quic: &mut quic::Endpoint, code: Code, posts: &mut impl Extend<Post>) {
        self.abandon();
        match self.from {
            Source::Stream(end) => {
                with(quic, end, |stream| {
                    let _ = stream.stop(code);
                });
            }
            Source::Shard(ref arrivals) => posts.extend([(arrivals.shard, Crossing::Stop(code))]),
        }
    }

    /// Everything that was written has arrived, the end too.
    pub(super) fn delivered(&mut self, posts: &mut impl Extend<Post>) {
        self.over = true;
        if let Source::Shard(arrivals) = &self.from {
            posts.extend([(arrivals.shard, Crossing::Delivered)]);
        }
    }

    /// Takes what the other shard says.
    pub(super) fn cross(&mut self, quic: &mut quic::Endpoint, crossing: Crossing) {
        match crossing {
            Crossing::Block(bytes) => {
                if let Source::Shard(arrivals) = &mut self.from
                    && !self.over
                {
                    arrivals.blocks.push_back(bytes);
                }
            }
            Crossing::Finish => {
                if let Source::Shard(arrivals) = &mut self.from {
                    arrivals.ended = true;
                }
            }
            Crossing::Credit => {
                if let Sink::Shard { credit, .. } = &mut self.to {
                    *credit += 1;
                }
            }
            Crossing::Delivered => self.over = true,
            // It knows already, so nothing is posted.
            Crossing::Reset(code) => self.reset(quic, code, &mut Vec::new()),
            Crossing::Stop(code) => self.stop(quic, code, &mut Vec::new()),
        }
    }

    fn abandon(&mut self) {
        self.over = true;
        self.pending = Bytes::new();
        if let Source::Shard(arrivals) = &mut self.from {
            arrivals.blocks.clear();
        }
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
pub(super) fn with(quic: &mut quic::Endpoint, end: End, operation: impl FnOnce(&mut quic::Stream<'_>)) -> bool {
    let Ok(mut conn) = quic.connection(end.conn) else {
        return false;
    };
    let Ok(mut stream) = conn.stream(end.stream) else {
        return false;
    };
    operation(&mut stream);
    true
}
