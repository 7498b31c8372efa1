//! The streams of a distribution connection over QUIC that belong to programs, not to the distribution itself.
//!
//! Each has an owner, at this side, and an urgency from 16 to 255, lower being more urgent; 128 unless asked otherwise. Streams
//! of the client have the ids from 20 on, those of the server from 17 on. A stream that the peer opens goes to one of the owners
//! that accept them, each in turn; if nobody does it is reset with [`Code::REFUSED`]. Only its owner does anything with
//! a stream, and may hand it to another one. The streams of an owner that is gone are reset.
//!
//! This table knows who owns what and how far each stream is; the bytes stay with the transport.

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

use super::streams::{DEFAULT_USER_URGENCY, Side, StreamClass, USER_URGENCY};
use crate::Code;

/// Whoever owns streams: a number that means something to the program only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u64);

/// How urgent a stream is; lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The urgency nearest to what is asked for: 16 to 255.
    pub fn clamped(asked: i64) -> Self {
        let (least, most) = (i64::from(*USER_URGENCY.start()), i64::from(*USER_URGENCY.end()));
        Self(u8::try_from(asked.clamp(least, most)).unwrap_or(DEFAULT_USER_URGENCY))
    }

    /// As a number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(DEFAULT_USER_URGENCY)
    }
}

/// How many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserConfig {
    /// Streams, of both sides together, that are not over. Default 4096.
    pub streams: usize,
    /// Streams of the peer that are kept until the node is up. Default 64; more are refused.
    pub early: usize,
    /// Owners that accept streams. Default 1024.
    pub acceptors: usize,
}

impl Default for UserConfig {
    fn default() -> Self {
        Self {
            streams: 4096,
            early: 64,
            acceptors: 1024,
        }
    }
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Give the stream this priority.
    Prioritise {
        /// The stream.
        stream: u64,
        /// How urgent it is.
        priority: Priority,
    },
    /// Finish this side of the stream, behind what was written.
    Finish(u64),
    /// Read no more of the stream: the peer is told with the code.
    Stop {
        /// The stream.
        stream: u64,
        /// Why.
        code: Code,
    },
    /// Abandon this side's direction of the stream: the peer is told with the code.
    Abandon {
        /// The stream.
        stream: u64,
        /// Why.
        code: Code,
    },
    /// End both directions of the stream at once.
    Abort {
        /// The stream.
        stream: u64,
        /// Why.
        code: Code,
    },
    /// Tell the owner.
    Tell {
        /// Whom.
        owner: Owner,
        /// Of which stream.
        stream: u64,
        /// What.
        event: UserEvent,
    },
}

/// What an owner is told about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserEvent {
    /// The peer opened it; this owner has it now. There may be something to read.
    Accepted,
    /// Its owner handed it over; this one has it now. There may be something to read.
    HandedOver,
    /// There is something to read: bytes, the end, or a reset.
    Readable,
    /// It takes bytes again, after it took none.
    Writable,
    /// The peer abandoned its direction.
    Reset(Code),
    /// The peer wants no more bytes.
    Stopped(Code),
}

/// Why an operation on a stream was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UserError {
    /// There is no such stream, or it is over.
    #[error("there is no such stream")]
    Unknown,
    /// Somebody else owns it.
    #[error("another owner has the stream")]
    NotOwner,
    /// This side has finished it, or the peer wants no more.
    #[error("nothing can be sent on the stream any more")]
    SendClosed,
    /// The node is not up, or the connection is over.
    #[error("the node is not up")]
    NotUp,
    /// There are as many as there may be.
    #[error("too many")]
    Limit,
}

/// A stream at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserStream {
    /// Its id.
    pub stream: u64,
    /// Who owns it.
    pub owner: Owner,
    /// How urgent it is.
    pub priority: Priority,
    /// Nothing more comes: the peer finished its direction and everything was read, or it was reset.
    pub recv_fin: bool,
    /// Nothing more goes: this side has finished its direction, or the peer stopped it.
    pub send_fin: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UserStats {
    /// Streams opened here.
    pub opened: u64,
    /// Streams of the peer that somebody took.
    pub accepted: u64,
    /// Those that nobody took.
    pub refused: u64,
    /// Streams that were reset or abandoned here, by their owners or because these were gone.
    pub reset: u64,
}

/// The user streams of one connection. See the [module](self).
#[derive(Debug)]
pub struct Users {
    config: UserConfig,
    side: Side,
    up: bool,
    streams: BTreeMap<u64, UserStream>,
    /// The next stream goes to the first one, who then goes to the end.
    acceptors: VecDeque<Owner>,
    early: Vec<u64>,
    stats: UserStats,
}

impl Users {
    /// No streams, of this end of a connection.
    pub fn new(side: Side, config: UserConfig) -> Self {
        Self {
            config,
            side,
            up: false,
            streams: BTreeMap::new(),
            acceptors: VecDeque::new(),
            early: Vec::new(),
            stats: UserStats::default(),
        }
    }

    /// The node is up: streams that the peer opened before find their owners now.
    pub fn up(&mut self, actions: &mut Vec<Action>) {
        self.up = true;
        for stream in std::mem::take(&mut self.early) {
            self.arrived(stream, actions);
        }
    }

    /// The connection is over: nothing is left, and nobody is told of each stream.
    pub fn ended(&mut self) {
        self.up = false;
        self.streams.clear();
        self.early.clear();
        self.acceptors.clear();
    }

    // ----- what owners want ----------------------------------------------------------------------------------------

    /// Whether one more stream may be opened here.
    ///
    /// # Errors
    /// [`UserError::NotUp`], [`UserError::Limit`].
    pub fn may_open(&self) -> Result<(), UserError> {
        if !self.up {
            return Err(UserError::NotUp);
        }
        if self.streams.len() >= self.config.streams {
            return Err(UserError::Limit);
        }
        Ok(())
    }

    /// The transport opened a stream for `owner`.
    ///
    /// # Errors
    /// As [`may_open`](Self::may_open); [`UserError::Unknown`] for a stream whose id is no user stream's of this side.
    pub fn opened(
        &mut self,
        stream: u64,
        owner: Owner,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) -> Result<(), UserError> {
        self.may_open()?;
        if StreamClass::of(stream) != StreamClass::User(self.side) || self.streams.contains_key(&stream) {
            return Err(UserError::Unknown);
        }
        self.insert(stream, owner, priority);
        self.stats.opened += 1;
        actions.push(Action::Prioritise { stream, priority });
        Ok(())
    }

    /// An owner takes streams that the peer opens, in turn with the others who do. Once is enough.
    ///
    /// # Errors
    /// [`UserError::Limit`].
    pub fn accept(&mut self, owner: Owner) -> Result<(), UserError> {
        if self.acceptors.contains(&owner) {
            return Ok(());
        }
        if self.acceptors.len() >= self.config.acceptors {
            return Err(UserError::Limit);
        }
        self.acceptors.push_back(owner);
        Ok(())
    }

    /// An owner takes no more streams; it keeps those that it has.
    pub fn stop_accepting(&mut self, owner: Owner) {
        self.acceptors.retain(|acceptor| *acceptor != owner);
    }

    /// Whether `owner` may send on a stream now.
    ///
    /// # Errors
    /// [`UserError`] says why not.
    pub fn may_send(&self, stream: u64, owner: Owner) -> Result<(), UserError> {
        let stream = self.owned(stream, owner)?;
        if stream.send_fin {
            return Err(UserError::SendClosed);
        }
        Ok(())
    }

    /// Whether `owner` may read a stream.
    ///
    /// # Errors
    /// [`UserError`] says why not.
    pub fn may_read(&self, stream: u64, owner: Owner) -> Result<(), UserError> {
        self.owned(stream, owner).map(|_| ())
    }

    /// The owner sends no more; the other direction goes on. Idempotent.
    ///
    /// # Errors
    /// [`UserError`]: it is not the owner's, or over.
    pub fn finish(&mut self, stream: u64, owner: Owner, actions: &mut Vec<Action>) -> Result<(), UserError> {
        let entry = self.owned_mut(stream, owner)?;
        if !std::mem::replace(&mut entry.send_fin, true) {
            actions.push(Action::Finish(stream));
        }
        self.reap(stream);
        Ok(())
    }

    /// The owner is done with it: what it sent arrives, and nothing more is read.
    ///
    /// # Errors
    /// [`UserError`]: it is not the owner's, or over.
    pub fn close(&mut self, stream: u64, owner: Owner, actions: &mut Vec<Action>) -> Result<(), UserError> {
        let entry = *self.owned(stream, owner)?;
        if !entry.send_fin {
            actions.push(Action::Finish(stream));
        }
        if !entry.recv_fin {
            let code = Code::CLOSED;
            actions.push(Action::Stop { stream, code });
        }
        self.streams.remove(&stream);
        Ok(())
    }

    /// The owner reads no more: what comes is dropped, and the peer is told with the code. The other direction goes on.
    /// Idempotent.
    ///
    /// # Errors
    /// [`UserError`]: it is not the owner's, or over.
    pub fn stop(&mut self, stream: u64, owner: Owner, code: Code, actions: &mut Vec<Action>) -> Result<(), UserError> {
        let entry = self.owned_mut(stream, owner)?;
        if !std::mem::replace(&mut entry.recv_fin, true) {
            actions.push(Action::Stop { stream, code });
        }
        self.reap(stream);
        Ok(())
    }

    /// The owner gives up its direction, unless it has finished it: the peer sees the code, and what has not arrived is lost. The
    /// other direction goes on. Idempotent.
    ///
    /// # Errors
    /// [`UserError`]: it is not the owner's, or over.
    pub fn abandon(
        &mut self,
        stream: u64,
        owner: Owner,
        code: Code,
        actions: &mut Vec<Action>,
    ) -> Result<(), UserError> {
        let entry = self.owned_mut(stream, owner)?;
        if !std::mem::replace(&mut entry.send_fin, true) {
            actions.push(Action::Abandon { stream, code });
            self.stats.reset += 1;
        }
        self.reap(stream);
        Ok(())
    }

    /// The owner ends both directions at once; the peer sees the code.
    ///
    /// # Errors
    /// [`UserError`]: it is not the owner's, or over.
    pub fn reset(&mut self, stream: u64, owner: Owner, code: Code, actions: &mut Vec<Action>) -> Result<(), UserError> {
        self.owned(stream, owner)?;
        self.streams.remove(&stream);
        self.stats.reset += 1;
        actions.push(Action::Abort { stream, code });
        Ok(())
    }

    /// The owner hands it to another one, who is told.
    ///
    /// # Errors
    /// [`UserError`]: it is not the owner's, or over.
    pub fn hand_over(
        &mut self,
        stream: u64,
        owner: Owner,
        to: Owner,
        actions: &mut Vec<Action>,
    ) -> Result<(), UserError> {
        self.owned_mut(stream, owner)?.owner = to;
        if to != owner {
            let event = UserEvent::HandedOver;
            let owner = to;
            actions.push(Action::Tell { owner, stream, event });
        }
        Ok(())
    }

    /// An owner is gone: it accepts no more, and its streams are reset with `code`.
    pub fn owner_gone(&mut self, owner: Owner, code: Code, actions: &mut Vec<Action>) {
        self.stop_accepting(owner);
        let before = self.streams.len();
        self.streams.retain(|&stream, entry| {
            let stays = entry.owner != owner;
            if !stays {
                actions.push(Action::Abort { stream, code });
            }
            stays
        });
        self.stats.reset += (before - self.streams.len()) as u64;
    }

    // ----- what the peer does --------------------------------------------------------------------------------------

    /// The peer opened a stream.
    pub fn arrived(&mut self, stream: u64, actions: &mut Vec<Action>) {
        if !self.up && self.early.len() < self.config.early {
            return self.early.push(stream);
        }
        let full = self.streams.len() >= self.config.streams;
        let acceptor = if self.up && !full {
            self.acceptors.pop_front()
        } else {
            None
        };
        match acceptor {
            Some(owner) => {
                self.acceptors.push_back(owner);
                self.insert(stream, owner, Priority::default());
                self.stats.accepted += 1;
                let (priority, event) = (Priority::default(), UserEvent::Accepted);
                actions.push(Action::Prioritise { stream, priority });
                actions.push(Action::Tell { owner, stream, event });
            }
            None => {
                self.stats.refused += 1;
                let code = if full { Code::LIMIT } else { Code::REFUSED };
                actions.push(Action::Abort { stream, code });
            }
        }
    }

    /// There is something to read.
    pub fn readable(&mut self, stream: u64, actions: &mut Vec<Action>) {
        self.tell(stream, UserEvent::Readable, actions);
    }

    /// It takes bytes again.
    pub fn writable(&mut self, stream: u64, actions: &mut Vec<Action>) {
        self.tell(stream, UserEvent::Writable, actions);
    }

    /// The owner has read the end that the peer set.
    pub fn peer_finished(&mut self, stream: u64) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.recv_fin = true;
            self.reap(stream);
        }
    }

    /// The peer abandoned its direction.
    pub fn peer_reset(&mut self, stream: u64, code: Code, actions: &mut Vec<Action>) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        if !std::mem::replace(&mut entry.recv_fin, true) {
            self.tell(stream, UserEvent::Reset(code), actions);
        }
        self.reap(stream);
    }

    /// The peer wants no more bytes.
    pub fn peer_stopped(&mut self, stream: u64, code: Code, actions: &mut Vec<Action>) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        // One that was finished is told as well: what was sent last did not arrive.
        entry.send_fin = true;
        self.tell(stream, UserEvent::Stopped(code), actions);
        self.reap(stream);
    }

    // ----- what is there -------------------------------------------------------------------------------------------

    /// All streams that are not over, by id.
    pub fn list(&self) -> impl Iterator<Item = UserStream> + '_ {
        self.streams.values().copied()
    }

    /// One stream, unless it is over.
    pub fn get(&self, stream: u64) -> Option<UserStream> {
        self.streams.get(&stream).copied()
    }

    /// Who accepts streams, the one whose turn it is first.
    pub fn acceptors(&self) -> impl Iterator<Item = Owner> + '_ {
        self.acceptors.iter().copied()
    }

    /// What was done.
    pub fn stats(&self) -> UserStats {
        self.stats
    }

    fn insert(&mut self, stream: u64, owner: Owner, priority: Priority) {
        let entry = UserStream {
            stream,
            owner,
            priority,
            recv_fin: false,
            send_fin: false,
        };
        self.streams.insert(stream, entry);
    }

    fn tell(&self, stream: u64, event: UserEvent, actions: &mut Vec<Action>) {
        if let Some(entry) = self.streams.get(&stream) {
            let owner = entry.owner;
            actions.push(Action::Tell { owner, stream, event });
        }
    }

    /// A stream of which both directions are over is forgotten.
    fn reap(&mut self, stream: u64) {
        if self
            .streams
            .get(&stream)
            .is_some_and(|entry| entry.recv_fin && entry.send_fin)
        {
            self.streams.remove(&stream);
        }
    }

    fn owned(&self, stream: u64, owner: Owner) -> Result<&UserStream, UserError> {
        let entry = self.streams.get(&stream).ok_or(UserError::Unknown)?;
        if entry.owner == owner {
            Ok(entry)
        } else {
            Err(UserError::NotOwner)
        }
    }

    fn owned_mut(&mut self, stream: u64, owner: Owner) -> Result<&mut UserStream, UserError> {
        let entry = self.streams.get_mut(&stream).ok_or(UserError::Unknown)?;
        if entry.owner == owner {
            Ok(entry)
        } else {
            Err(UserError::NotOwner)
        }
    }
}

#[cfg(test)]
mod tests;
