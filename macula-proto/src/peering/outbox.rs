//! Frames on their way out, in order, bounded, pulled piece by piece.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;

/// What a queued frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// CONNECT, HELLO or GOODBYE.
    Own,
    /// HELLO to a peer that may lose what comes right behind it.
    LonelyHello,
    /// A frame of the user's.
    User,
}

/// What is to be done after a piece was pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pulled {
    /// A frame was pulled whole.
    pub(super) whole: bool,
    /// Nothing more can be pulled until the pulled bytes have left.
    pub(super) hold: bool,
    /// There is room for a send that was refused.
    pub(super) room: bool,
    /// Everything is pulled, and the stream is to be finished.
    pub(super) finish: bool,
}

#[derive(Debug)]
pub(super) struct Outbox {
    frames: VecDeque<(Bytes, Kind)>,
    /// Bytes of the user's frames in it.
    queued: usize,
    limit: usize,
    /// Whether a part of the first frame was pulled.
    begun: bool,
    hold: bool,
    finish: bool,
    /// The least that a refused send needs.
    wanted: Option<usize>,
    pulled_user: u64,
    taken_user: u64,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            queued: 0,
            limit,
            begun: false,
            hold: false,
            finish: false,
            wanted: None,
            pulled_user: 0,
            taken_user: 0,
        }
    }

    /// Whether there is room for a user's frame of this length: always, if nothing waits.
    pub(super) fn has_room(&mut self, length: usize) -> bool {
        let room = self.fits(length);
        if !room {
            self.wanted = Some(self.wanted.map_or(length, |wanted| wanted.min(length)));
        }
        room
    }

    fn fits(&self, length: usize) -> bool {
        self.queued == 0 || self.queued.saturating_add(length) <= self.limit
    }

    /// Appends a frame; whether pulling has become possible by it.
    pub(super) fn push(&mut self, frame: Bytes, kind: Kind) -> bool {
        let idle = !self.can_pull();
        if kind == Kind::User {
            self.queued = self.queued.saturating_add(frame.len());
            self.taken_user += 1;
        }
        self.frames.push_back((frame, kind));
        idle && self.can_pull()
    }

    /// The number of the frame that was pushed last.
    pub(super) fn last_number(&self) -> u64 {
        self.taken_user.saturating_sub(1)
    }

    pub(super) fn can_pull(&self) -> bool {
        !self.hold && !self.frames.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Up to `max` bytes from the front.
    pub(super) fn pull(&mut self, max: usize) -> Option<(Bytes, Pulled)> {
        if self.hold || max == 0 {
            return None;
        }
        let (frame, kind) = self.frames.front_mut()?;
        let kind = *kind;
        let piece = frame.split_to(frame.len().min(max));
        let whole = frame.is_empty();
        self.begun = !whole;
        let mut pulled = Pulled {
            whole,
            ..Pulled::default()
        };
        if kind == Kind::User {
            self.queued = self.queued.saturating_sub(piece.len());
        }
        if whole {
            self.frames.pop_front();
            self.pulled_user += u64::from(kind == Kind::User);
            self.hold = kind == Kind::LonelyHello;
            pulled.hold = self.hold;
        }
        if self.wanted.is_some_and(|wanted| self.fits(wanted)) {
            self.wanted = None;
            pulled.room = true;
        }
        pulled.finish = self.take_finish();
        Some((piece, pulled))
    }

    /// Lets frames out again; whether pulling has become possible by it.
    pub(super) fn release(&mut self) -> bool {
        let held = std::mem::take(&mut self.hold);
        held && self.can_pull()
    }

    /// Asks for the stream to be finished behind the last frame; whether that is now.
    pub(super) fn finish(&mut self) -> bool {
        self.finish = true;
        self.take_finish()
    }

    fn take_finish(&mut self) -> bool {
        self.frames.is_empty() && std::mem::take(&mut self.finish)
    }

    /// Drops all frames of which nothing was pulled yet.
    pub(super) fn drop_unbegun(&mut self) {
        self.frames.truncate(usize::from(self.begun));
        let user = self.frames.iter().filter(|(_, kind)| *kind == Kind::User);
        self.queued = user.map(|(frame, _)| frame.len()).sum();
    }

    /// Empties it, and names the user's frames that were not pulled whole.
    pub(super) fn clear(&mut self) -> Range<u64> {
        self.frames.clear();
        self.queued = 0;
        self.wanted = None;
        self.finish = false;
        self.pulled_user..self.taken_user
    }

    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }
}
