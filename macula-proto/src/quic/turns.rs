//! Whose turn it is to fill the send window that the streams of a connection share.
//!
//! quinn-proto tells every stream that waits for room whenever there is any, the one first that came last, and does not say
//! how much there is. Told like that, a thousand streams wake up for room that a few of them use up, and some are never among
//! the few. Here they stand in a queue instead. Those in front are told, a few at a time; who was told and has filled its share
//! goes to the back while others wait; and once somebody who was told finds no room, nobody else is told before there is some.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{StreamId, stream_state::StreamState};

/// Bytes that a stream may write before others that wait have their turn: so much, or a part of a window that is small.
const SHARE: u64 = 64 << 10;
const SMALLEST_SHARE: u64 = 1 << 10;
const SHARES_IN_WINDOW: u64 = 32;
/// So many have their turn at once, so that nobody waits for one that is slow to use it.
const AT_ONCE: usize = 4;
/// Who does nothing with its turn for so long has had it.
const PATIENCE: Duration = Duration::from_millis(2);

type Streams = BTreeMap<StreamId, StreamState>;

/// The queue of a connection.
#[derive(Debug)]
pub(super) struct Turns {
    /// Those that have room in their own windows, by their places.
    queue: BTreeMap<u64, StreamId>,
    last_place: u64,
    /// Those whose turn it is, and some that have used it.
    told: Vec<StreamId>,
    /// Until when the first of those told may hold up the others.
    until: Option<Instant>,
    /// Whether there may be room in what all share.
    room: bool,
    share: u64,
    /// Counts the times that everybody had a turn.
    round: u64,
    /// The last place that belongs to this round.
    round_end: u64,
}

/// What a stream has to do with it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Its place in the queue, kept until it has written its share: whoever finds too little room waits in front for the rest. 0 is
    /// none.
    place: u64,
    /// It is in the queue.
    queued: bool,
    /// It was told of room and has not acted since.
    told: bool,
    /// It has room in its own window for certain: if it finds none, it is that of all.
    has_own_room: bool,
    /// Bytes written in `round`.
    bytes: u64,
    round: u64,
}

impl Turns {
    pub(super) fn new(send_window: u64) -> Self {
        let mut turns = Self {
            queue: BTreeMap::new(),
            last_place: 0,
            told: Vec::new(),
            until: None,
            room: true,
            share: 0,
            round: 0,
            round_end: 0,
        };
        turns.set_send_window(send_window);
        turns
    }

    pub(super) fn set_send_window(&mut self, bytes: u64) {
        self.share = (bytes / SHARES_IN_WINDOW).clamp(SMALLEST_SHARE, SHARE);
    }

    /// There are no streams any more.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.told.clear();
        self.room = true;
    }

    /// Whether a stream may write. Whoever may not is in the queue.
    pub(super) fn may_write(&mut self, id: StreamId, turn: &mut Turn) -> bool {
        if !turn.queued && !self.queue.is_empty() && turn.round == self.round && turn.bytes >= self.share {
            turn.place = 0;
            self.enter(id, turn, false);
        }
        !turn.queued
    }

    /// A stream has written.
    pub(super) fn wrote(&mut self, turn: &mut Turn, bytes: u64) {
        if turn.round != self.round {
            (turn.round, turn.bytes) = (self.round, 0);
        }
        turn.bytes += bytes;
        if turn.bytes >= self.share {
            turn.place = 0;
        }
        turn.act();
    }

    /// A stream found no room. It is told by quinn-proto when there is some.
    pub(super) fn found_none(&mut self, turn: &mut Turn) {
        if turn.has_own_room {
            self.room = false;
        }
        turn.act();
        self.take_place(turn);
    }

    /// A stream wants no room any more, and perhaps gave some back. quinn-proto will not tell it when there is some, and it may be
    /// the only one that it would have told.
    pub(super) fn leave(&mut self, turn: &mut Turn) {
        if std::mem::take(&mut turn.queued) {
            self.queue.remove(&turn.place);
        }
        turn.place = 0;
        turn.act();
        self.room = true;
    }

    /// quinn-proto has told a stream that there is room.
    pub(super) fn there_is_room(&mut self, id: StreamId, state: &mut StreamState) {
        self.room = true;
        if state.wants_room() && !state.turn.queued {
            self.enter(id, &mut state.turn, true);
        }
    }

    /// The next one whose turn it is, if it is somebody's.
    pub(super) fn next(&mut self, now: Option<Instant>, streams: &mut Streams) -> Option<StreamId> {
        let first = self.queue.first_entry().filter(|_| self.room);
        let Some(first) = first else {
            self.until = None;
            return None;
        };
        let (place, id) = (*first.key(), *first.get());
        // One that sends what it has queued would do so at once, and leave nothing to those that were told before it.
        let sends_itself = streams.get(&id).is_some_and(|state| !state.queue.is_empty());
        let others = if sends_itself { 0 } else { AT_ONCE - 1 };
        if self.told.len() > others {
            self.told
                .retain(|id| streams.get(id).is_some_and(|state| state.turn.told));
        }
        if self.told.len() > others {
            self.until = self.until.or(now.map(|now| now + PATIENCE));
            return None;
        }
        self.until = None;
        self.queue.pop_first();
        if place > self.round_end {
            self.next_round();
        }
        if let Some(state) = streams.get_mut(&id) {
            let turn = &mut state.turn;
            turn.queued = false;
            (turn.round, turn.bytes) = (self.round, 0);
        }
        Some(id)
    }

    /// A stream was told.
    pub(super) fn told(&mut self, id: StreamId, turn: &mut Turn) {
        turn.told = true;
        self.told.push(id);
    }

    /// When somebody has had its turn without using it.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.until.take_if(|until| *until <= now).is_some() {
            self.told.clear();
        }
    }

    fn enter(&mut self, id: StreamId, turn: &mut Turn, has_own_room: bool) {
        if self.queue.is_empty() {
            self.next_round();
        }
        self.take_place(turn);
        turn.queued = true;
        turn.told = false;
        turn.has_own_room = has_own_room;
        self.queue.insert(turn.place, id);
    }

    fn take_place(&mut self, turn: &mut Turn) {
        if turn.place == 0 {
            self.last_place += 1;
            turn.place = self.last_place;
        }
    }

    fn next_round(&mut self) {
        self.round += 1;
        self.round_end = self.last_place;
    }
}

impl Turn {
    fn act(&mut self) {
        self.told = false;
        self.has_own_room = false;
    }
}
