//! Waiting, without a runtime.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ----- one waits ---------------------------------------------------------------------------------------------------

/// A flag that one task waits for. Raised while nobody waits, it is kept.
#[derive(Debug, Default)]
pub(super) struct Flag(Mutex<(bool, Option<Waker>)>);

impl Flag {
    pub(super) fn raise(&self) {
        let waker = {
            let mut state = lock(&self.0);
            state.0 = true;
            state.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Waits until it is raised, and takes it down.
    pub(super) async fn raised(&self) {
        poll_fn(|cx| self.poll_raised(cx)).await;
    }

    fn poll_raised(&self, cx: &Context<'_>) -> Poll<()> {
        let old;
        {
            let mut state = lock(&self.0);
            if std::mem::take(&mut state.0) {
                old = state.1.take();
            } else {
                old = state.1.replace(cx.waker().clone());
                drop(state);
                drop(old);
                return Poll::Pending;
            }
        }
        drop(old);
        Poll::Ready(())
    }
}

// ----- many wait ---------------------------------------------------------------------------------------------------

/// Changes that any number of tasks wait for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    count: AtomicU64,
    waiting: Mutex<(u64, BTreeMap<u64, Waker>)>,
}

impl Changes {
    /// The number of changes until now: to be asked for before looking at what changes.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn tell(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        let wakers = std::mem::take(&mut lock(&self.waiting).1);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Waits until there are other changes than those counted.
    pub(super) async fn after(&self, count: u64) {
        let mut place = Place {
            changes: self,
            key: None,
        };
        poll_fn(|cx| place.poll(cx, count)).await;
    }
}

/// Who waits, and is taken out when it does no more.
struct Place<'a> {
    changes: &'a Changes,
    key: Option<u64>,
}

impl Place<'_> {
    fn poll(&mut self, cx: &Context<'_>, count: u64) -> Poll<()> {
        let mut waiting = lock(&self.changes.waiting);
        // Looked at under the lock that the wakers are taken under: none comes too late.
        if self.changes.count() != count {
            return Poll::Ready(());
        }
        let key = *self.key.get_or_insert_with(|| {
            waiting.0 += 1;
            waiting.0
        });
        let old = waiting.1.insert(key, cx.waker().clone());
        drop(waiting);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = lock(&self.changes.waiting).1.remove(&key);
            drop(waker);
        }
    }
}

// ----- one outcome -------------------------------------------------------------------------------------------------

/// Where somebody waits for one outcome, and somebody tells it. Whoever drops the telling end unused tells `None`.
pub(super) fn outcome<T>() -> (Teller<T>, Outcome<T>) {
    let shared = Arc::new((Mutex::new(None), Flag::default()));
    (Teller(Arc::clone(&shared)), Outcome(shared))
}

type Cell<T> = Arc<(Mutex<Option<T>>, Flag)>;

pub(super) struct Teller<T>(Cell<T>);

impl<T> Teller<T> {
    pub(super) fn tell(self, value: T) {
        *lock(&self.0.0) = Some(value);
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        self.0.1.raise();
    }
}

pub(super) struct Outcome<T>(Cell<T>);

impl<T> Outcome<T> {
    pub(super) async fn told(self) -> Option<T> {
        self.0.1.raised().await;
        lock(&self.0.0).take()
    }
}

// ----- events for all ----------------------------------------------------------------------------------------------

/// Sends everything to everybody who has subscribed.
#[derive(Debug)]
pub(super) struct Broadcast<T> {
    subscribers: Mutex<Vec<Weak<Queue<T>>>>,
    limit: usize,
}

#[derive(Debug)]
struct Queue<T> {
    state: Mutex<QueueState<T>>,
    wake: Flag,
}

#[derive(Debug)]
struct QueueState<T> {
    items: VecDeque<T>,
    missed: u64,
    closed: bool,
}

impl<T: Clone> Broadcast<T> {
    /// Who is behind by more than `limit` misses the oldest.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            subscribers: Mutex::new(Vec::new()),
            limit,
        }
    }

    pub(super) fn send(&self, item: &T) {
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            {
                let mut state = lock(&queue.state);
                state.items.push_back(item.clone());
                if state.items.len() > self.limit {
                    state.items.pop_front();
                    state.missed += 1;
                }
            }
            queue.wake.raise();
            true
        });
    }

    pub(super) fn subscribe(&self) -> Subscriber<T> {
        let state = QueueState {
            items: VecDeque::new(),
            missed: 0,
            closed: false,
        };
        let queue = Arc::new(Queue {
            state: Mutex::new(state),
            wake: Flag::default(),
        });
        lock(&self.subscribers).push(Arc::downgrade(&queue));
        Subscriber(queue)
    }
}

impl<T> Drop for Broadcast<T> {
    fn drop(&mut self) {
        for queue in lock(&self.subscribers).iter().filter_map(Weak::upgrade) {
            lock(&queue.state).closed = true;
            queue.wake.raise();
        }
    }
}

#[derive(Debug)]
pub(super) struct Subscriber<T>(Arc<Queue<T>>);

impl<T> Subscriber<T> {
    /// The next item, or how many were missed; `None` once there will be none. Cancellation-safe.
    pub(super) async fn next(&mut self) -> Option<Result<T, u64>> {
        loop {
            if let Some(next) = self.try_next() {
                return Some(next);
            }
            if lock(&self.0.state).closed {
                // Nothing comes after the end, but something may have come before it.
                return self.try_next();
            }
            self.0.wake.raised().await;
        }
    }

    /// As [`next`](Self::next), if it is there.
    pub(super) fn try_next(&mut self) -> Option<Result<T, u64>> {
        let mut state = lock(&self.0.state);
        match std::mem::take(&mut state.missed) {
            0 => state.items.pop_front().map(Ok),
            missed => Some(Err(missed)),
        }
    }
}
