//! Tasks that wait for something.

use std::{collections::BTreeMap, task::Waker};

use macula_proto::quic::{ConnectionHandle, Dir};

/// What a task can wait for, apart from one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// A connection to accept.
    Accepted,
    /// A connection to decide about.
    Incoming,
    /// All connections to be over.
    Idle,
    /// A handshake.
    Connected(ConnectionHandle),
    /// The end of a connection.
    Closed(ConnectionHandle),
    /// A stream of the peer.
    Accept(ConnectionHandle, Dir),
    /// Leave to open a stream.
    Open(ConnectionHandle, Dir),
    /// Something of an extension.
    Custom(u64),
}

/// Any number of tasks for each thing to wait for. Who stops waiting is taken out, so nothing piles up.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    tasks: BTreeMap<(Wait, u64), Waker>,
    next: u64,
}

impl Waiters {
    /// Puts a task down, or keeps it; answers the waker that it displaces, to be dropped outside of the lock.
    pub(crate) fn register(&mut self, wait: Wait, key: &mut Option<u64>, waker: &Waker) -> Option<Waker> {
        let key = *key.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        match self.tasks.get_mut(&(wait, key)) {
            Some(old) if old.will_wake(waker) => None,
            Some(old) => Some(std::mem::replace(old, waker.clone())),
            None => self.tasks.insert((wait, key), waker.clone()),
        }
    }

    pub(crate) fn forget(&mut self, wait: Wait, key: u64) -> Option<Waker> {
        self.tasks.remove(&(wait, key))
    }

    pub(crate) fn is_waiting(&self, wait: Wait) -> bool {
        self.tasks.range((wait, 0)..=(wait, u64::MAX)).next().is_some()
    }

    /// Takes all tasks that wait for this.
    pub(crate) fn take(&mut self, wait: Wait, out: &mut Vec<Waker>) {
        while let Some((&key, _)) = self.tasks.range((wait, 0)..=(wait, u64::MAX)).next() {
            out.extend(self.tasks.remove(&key));
        }
    }

    /// Takes everybody.
    pub(crate) fn take_all(&mut self, out: &mut Vec<Waker>) {
        out.extend(std::mem::take(&mut self.tasks).into_values());
    }
}
