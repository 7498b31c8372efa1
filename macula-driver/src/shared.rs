//! What all handles of one endpoint and its driver share.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as TaskContext, Poll, Waker},
};

use bytes::Bytes;
use macula_proto::{
    Code, Now, WallClock,
    quic::{self, CloseReason, ConnectionHandle, Dir, IncomingHandle, StreamId},
};

use crate::{
    clock,
    extension::Extension,
    rpc::Outgoing,
    socket::Family,
    waiters::{Wait, Waiters},
};

/// One endpoint behind one lock. Handles call it directly; the driver feeds it.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) local: SocketAddr,
    pub(crate) family: Family,
    pub(crate) clock: WallClock,
}

/// How far the endpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Takes and makes no connections any more.
    Closed,
    /// The driver is gone: nothing will ever happen again.
    Dead,
}

pub(crate) struct State {
    pub(crate) endpoint: macula_proto::Endpoint,
    /// The last reading of the clock.
    pub(crate) now: Now,
    pub(crate) phase: Phase,
    /// Handles of the endpoint itself.
    pub(crate) handles: usize,
    /// Boxed, so that the room for more that a map keeps is small.
    pub(crate) conns: HashMap<ConnectionHandle, Box<ConnEntry>>,
    /// Established, and to be accepted by the program.
    pub(crate) accepted: VecDeque<ConnectionHandle>,
    pub(crate) accept_limit: usize,
    pub(crate) incoming: VecDeque<(IncomingHandle, SocketAddr, bool)>,
    /// Streams of connections whose handshake is still going on (early data).
    pub(crate) early: BTreeMap<ConnectionHandle, Vec<StreamId>>,
    pub(crate) waiters: Waiters,
    pub(crate) extensions: Vec<Box<dyn Extension>>,
    /// Calls whose handles have gathered chunks for the driver.
    pub(crate) outgoing: Vec<Arc<Outgoing>>,
    pub(crate) stats: DriverStats,
    /// The driver while it sleeps.
    pub(crate) driver: Option<Waker>,
    /// To be woken, and to be dropped, as soon as the lock is free.
    wake_driver: Option<Waker>,
    pub(crate) wake: Vec<Waker>,
    displaced: Vec<Waker>,
}

/// What the driver keeps for a connection in the hands of the program.
#[derive(Debug, Default)]
pub(crate) struct ConnEntry {
    /// Handles that keep the entry.
    pub(crate) refs: usize,
    pub(crate) established: bool,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) opened: [VecDeque<StreamId>; 2],
    pub(crate) streams: HashMap<StreamId, StreamEntry>,
}

/// What the driver keeps for a stream in the hands of the program.
#[derive(Debug, Default)]
pub(crate) struct StreamEntry {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Handles of halves that exist.
    pub(crate) halves: u8,
    pub(crate) delivered: bool,
    pub(crate) stopped: Option<Code>,
}

/// Counters of a driver, for tests and for curiosity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverStats {
    /// Times that the driver task ran. It does not run while nothing happens.
    pub runs: u64,
    /// Receive calls that brought datagrams.
    pub receives: u64,
    /// Send calls.
    pub sends: u64,
    /// Sends that the system refused; the datagrams count as lost.
    pub send_errors: u64,
    /// Receive calls that failed.
    pub receive_errors: u64,
    /// Connections closed because too many waited to be accepted.
    pub refused_unaccepted: u64,
    /// Datagrams for another endpoint on the port that were dropped because too much waits there.
    pub strays_dropped: u64,
}

impl Shared {
    pub(crate) fn new(state: State, local: SocketAddr, family: Family, clock: WallClock) -> Self {
        Self {
            state: Mutex::new(state),
            local,
            family,
            clock,
        }
    }

    /// Runs `operation` under the lock, then wakes whoever it woke.
    pub(crate) fn locked<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = operation(&mut state);
        let driver = state.wake_driver.take();
        let wake = std::mem::take(&mut state.wake);
        let displaced = std::mem::take(&mut state.displaced);
        drop(state);
        // Wakers run code of the executor, which may come back to us.
        wake.into_iter().chain(driver).for_each(Waker::wake);
        drop(displaced);
        result
    }

    /// As [`until`](Self::until), for a task that keeps its place (`key`) itself, and gives it back with
    /// [`stop_waiting`](Self::stop_waiting).
    pub(crate) fn poll_until<T>(
        &self,
        wait: Wait,
        key: &mut Option<u64>,
        cx: &TaskContext<'_>,
        check: impl FnOnce(&mut State) -> Poll<T>,
    ) -> Poll<T> {
        self.locked(|state| {
            let outcome = check(state);
            if outcome.is_pending() {
                let old = state.waiters.register(wait, key, cx.waker());
                state.displace(old);
            } else if let Some(key) = key.take() {
                let old = state.waiters.forget(wait, key);
                state.displace(old);
            }
            outcome
        })
    }

    /// Gives a place among those who wait back.
    pub(crate) fn stop_waiting(&self, wait: Wait, key: &mut Option<u64>) {
        if let Some(key) = key.take() {
            let old = self.locked(|state| state.waiters.forget(wait, key));
            drop(old);
        }
    }

    /// Waits until `check` is ready; looks again whenever `wait` is signalled.
    pub(crate) fn until<F>(&self, wait: Wait, check: F) -> Until<'_, F> {
        Until {
            shared: self,
            wait,
            key: None,
            check,
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(
        endpoint: macula_proto::Endpoint,
        accept_limit: usize,
        extensions: Vec<Box<dyn Extension>>,
    ) -> Self {
        Self {
            endpoint,
            now: clock::now(),
            phase: Phase::Open,
            handles: 0,
            conns: HashMap::new(),
            accepted: VecDeque::new(),
            accept_limit,
            incoming: VecDeque::new(),
            early: BTreeMap::new(),
            waiters: Waiters::default(),
            extensions,
            outgoing: Vec::new(),
            stats: DriverStats::default(),
            driver: None,
            wake_driver: None,
            wake: Vec::new(),
            displaced: Vec::new(),
        }
    }

    /// Reads the clock.
    pub(crate) fn tick(&mut self) -> Now {
        self.now = clock::now();
        self.now
    }

    /// Wakes the driver if it sleeps: there is something for it to do.
    pub(crate) fn kick(&mut self) {
        if let Some(driver) = self.driver.take() {
            self.wake_driver = Some(driver);
        }
    }

    /// Wakes the driver if the endpoint has something for it.
    pub(crate) fn kick_if_due(&mut self) {
        if self.driver.is_none() {
            return;
        }
        if self.endpoint.has_news() || self.endpoint.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.kick();
        }
    }

    /// Whether somebody is woken as soon as the lock is free.
    pub(crate) fn wakes_somebody(&self) -> bool {
        !self.wake.is_empty()
    }

    pub(crate) fn signal(&mut self, wait: Wait) {
        self.waiters.take(wait, &mut self.wake);
    }

    pub(crate) fn displace(&mut self, waker: Option<Waker>) {
        self.displaced.extend(waker);
    }

    /// Puts `waker` where an event of the stream finds it. False if nobody keeps the stream.
    pub(crate) fn park(&mut self, conn: ConnectionHandle, stream: StreamId, reader: bool, waker: &Waker) -> bool {
        let Some(entry) = self.conns.get_mut(&conn).and_then(|conn| conn.streams.get_mut(&stream)) else {
            return false;
        };
        let slot = if reader { &mut entry.reader } else { &mut entry.writer };
        match slot {
            Some(old) if old.will_wake(waker) => {}
            slot => {
                let old = slot.replace(waker.clone());
                self.displaced.extend(old);
            }
        }
        true
    }

    /// Why a connection is over. A connection that nobody knows any more was closed here.
    pub(crate) fn reason(&self, conn: ConnectionHandle) -> CloseReason {
        let known = self.conns.get(&conn).and_then(|entry| entry.closed.clone());
        known.unwrap_or(CloseReason::Local {
            code: Code::CLOSED,
            reason: Bytes::new(),
        })
    }

    pub(crate) fn is_closed(&self, conn: ConnectionHandle) -> bool {
        self.conns.get(&conn).is_none_or(|entry| entry.closed.is_some())
    }

    /// Starts to keep a connection.
    pub(crate) fn keep(&mut self, conn: ConnectionHandle) {
        let entry = self.conns.entry(conn).or_default();
        entry.refs += 1;
        if entry.refs == 1
            && let Ok(mut connection) = self.endpoint.quic().connection(conn)
        {
            connection.hold();
        }
    }

    /// One handle less. The last one lets the connection be forgotten, and closes it if `close` says so.
    pub(crate) fn let_go(&mut self, conn: ConnectionHandle, close: bool) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.refs = entry.refs.saturating_sub(1);
        if entry.refs > 0 {
            return;
        }
        self.conns.remove(&conn);
        if close {
            let now = self.tick();
            if let Ok(mut connection) = self.endpoint.quic().connection(conn) {
                connection.close(now, Code::CLOSED, Bytes::new());
            }
        }
        self.endpoint.quic().release(conn);
        self.kick();
    }

    /// Starts to keep a stream for `halves` handles.
    pub(crate) fn keep_stream(&mut self, conn: ConnectionHandle, stream: StreamId, halves: u8) {
        if let Ok(mut connection) = self.endpoint.quic().connection(conn)
            && let Ok(mut stream) = connection.stream(stream)
        {
            stream.hold();
        }
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.streams.entry(stream).or_default().halves += halves;
        }
    }

    /// One handle of a half less. The last one lets the stream be forgotten.
    pub(crate) fn let_go_stream(&mut self, conn: ConnectionHandle, stream: StreamId) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if let Some(state) = entry.streams.get_mut(&stream) {
            state.halves = state.halves.saturating_sub(1);
            if state.halves > 0 {
                return;
            }
        }
        if !self.forget_stream(conn, stream) {
            // A machine took it over.
            return;
        }
        if let Ok(mut connection) = self.endpoint.quic().connection(conn)
            && let Ok(mut stream) = connection.stream(stream)
        {
            stream.release();
        }
        self.kick();
    }

    /// Keeps nothing of a stream for handles any more. False if nothing was kept.
    pub(crate) fn forget_stream(&mut self, conn: ConnectionHandle, stream: StreamId) -> bool {
        let entry = self.conns.get_mut(&conn);
        let Some(state) = entry.and_then(|entry| entry.streams.remove(&stream)) else {
            return false;
        };
        self.displaced.extend(state.reader);
        self.displaced.extend(state.writer);
        true
    }

    /// Runs `operation` on a connection, and lets the driver send what comes of it. `None` if it is forgotten.
    pub(crate) fn on_connection<T>(
        &mut self,
        conn: ConnectionHandle,
        operation: impl FnOnce(&mut quic::Connection<'_>) -> T,
    ) -> Option<T> {
        let mut connection = self.endpoint.quic().connection(conn).ok()?;
        let result = operation(&mut connection);
        self.kick_if_due();
        Some(result)
    }

    /// The next stream of the peer.
    pub(crate) fn next_stream(&mut self, conn: ConnectionHandle, dir: Dir) -> Option<StreamId> {
        if let Some(entry) = self.conns.get_mut(&conn)
            && let Some(stream) = entry.opened[dir as usize].pop_front()
        {
            return Some(stream);
        }
        self.endpoint.quic().connection(conn).ok()?.accept(dir)
    }

    /// Whether nothing is left to be driven, now or ever.
    pub(crate) fn is_over(&mut self) -> bool {
        self.handles == 0 && self.conns.is_empty() && self.endpoint.quic().is_idle()
    }
}

/// The future of [`Shared::until`].
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Until<'a, F> {
    shared: &'a Shared,
    wait: Wait,
    key: Option<u64>,
    check: F,
}

// Nothing in it is ever pinned.
impl<F> Unpin for Until<'_, F> {}

impl<T, F: FnMut(&mut State) -> Poll<T>> Future for Until<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<T> {
        let this = &mut *self;
        this.shared.poll_until(this.wait, &mut this.key, cx, &mut this.check)
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        self.shared.stop_waiting(self.wait, &mut self.key);
    }
}
