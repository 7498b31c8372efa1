//! Chunks on their way from a handle to the endpoint.
//!
//! A chunk takes the endpoint's lock, and a walk to its call. Small ones that follow each other closely do not need that each for
//! itself: behind one that went the long way, and has woken the driver, others wait here until the driver runs, or until there are too
//! many. Whatever else is done to the call comes behind them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use macula_proto::rpc::{Chunk, session::CallId};

use crate::shared::State;

/// What the chunks that wait may cost, in bytes.
const MAX_COST: usize = 64 << 10;
/// A larger one goes the long way: what that costs does not show.
const MAX_CHUNK: usize = 2 << 10;

/// Chunks of one call that were taken from the program.
pub(crate) struct Outgoing {
    call: CallId,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    cost: usize,
    /// The driver will come for what waits here.
    open: bool,
}

impl Outgoing {
    pub(super) fn new(call: CallId) -> Arc<Self> {
        Arc::new(Self {
            call,
            queue: Mutex::default(),
        })
    }

    /// Takes a chunk, or gives it back if it has to go the long way.
    pub(super) fn push(&self, chunk: Chunk) -> Result<(), Chunk> {
        let mut queue = self.lock();
        let cost = chunk.cost();
        if !queue.open || cost > MAX_CHUNK || queue.cost >= MAX_COST {
            return Err(chunk);
        }
        queue.cost += cost;
        queue.chunks.push_back(chunk);
        Ok(())
    }

    /// A chunk has gone the long way, and the driver comes: those behind it may wait here.
    pub(super) fn open(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut self.lock().open, true) {
            state.outgoing.push(Arc::clone(self));
        }
    }

    /// Hands over what waits. `shut`: nothing more is to wait here.
    pub(crate) fn hand_over(&self, state: &mut State, shut: bool) {
        let mut queue = self.lock();
        queue.open &= !shut;
        if queue.chunks.is_empty() {
            return;
        }
        let now = state.now;
        // What a call that is over does not take, nobody misses: its end says so.
        let _ = state.endpoint.call_send_all(now, self.call, &mut queue.chunks);
        queue.chunks.clear();
        queue.cost = 0;
        if shut {
            // It may be long until there is more.
            queue.chunks = VecDeque::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
