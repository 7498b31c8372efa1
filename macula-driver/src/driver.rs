//! The task that drives an endpoint: the only one that touches its socket.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use macula_proto::endpoint::ShardMessage;
use quinn_udp::UdpSockRef;

use crate::{
    shards::Roads,
    shared::{Phase, Shared, State},
    udp::Udp,
};

/// Rounds of receiving and sending before other tasks get their turn.
const MAX_ROUNDS: usize = 8;

/// Datagrams received before something is done about them, and at most one more receive call's worth.
const MAX_INBOX: usize = 512;

/// The same where they are passed on: the next hop should not have to wait for more than a send call's worth or two.
const MAX_PASSED_ON: usize = 96;

/// Datagrams handed to the endpoint before others get at the lock.
const MAX_DATAGRAMS: usize = 128;

/// Bytes taken from the endpoint before they are sent. Less wakes the receiver more often for less.
const MAX_BYTES: usize = 512 << 10;

/// A receive call that brings at least this many datagrams is followed by others before anything is done about them, so that
/// they are acknowledged and passed on together. Where each of its buffers has as many, their sender has gathered them already: what
/// is passed on goes on at once.
const MANY: usize = 32;

/// Receive calls failing in a row that end the endpoint.
const MAX_ERRORS: u32 = 100;

/// A UDP socket and a timer on some runtime.
pub trait Socket: Unpin + Send + 'static {
    /// Ready when there may be something to receive.
    ///
    /// # Errors
    /// When the runtime is gone.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when there may be room to send.
    ///
    /// # Errors
    /// When the runtime is gone.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Runs a receive call on the socket, and notes that it is not readable if the call would block.
    ///
    /// # Errors
    /// Those of the call.
    fn try_recv<T>(&mut self, call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T>;

    /// Runs a send call on the socket, and notes that it is not writable if the call would block.
    ///
    /// # Errors
    /// Those of the call.
    fn try_send<T>(&mut self, call: impl FnMut(UdpSockRef<'_>) -> io::Result<T>) -> io::Result<T>;

    /// The socket itself, for receive calls that do not ask first whether it is readable.
    fn as_udp(&self) -> UdpSockRef<'_>;

    /// Ready at this moment; never without one.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()>;
}

/// Drives one endpoint; to be spawned on a runtime.
///
/// It ends when all handles of the endpoint, its connections and its streams are gone and the last connection is over on
/// both sides. Dropping it earlier ends everything at once: waiting handles fail, and peers are not told.
#[must_use = "nothing happens unless the driver runs"]
#[derive(Debug)]
pub struct Driver<S> {
    shared: Arc<Shared>,
    socket: S,
    udp: Udp,
    errors: u32,
    spin: Duration,
    seat: Option<Seat>,
}

/// A driver's place among those that share a port.
#[derive(Debug)]
pub(crate) struct Seat {
    roads: Arc<Roads>,
    index: u8,
    incoming: Vec<(u8, ShardMessage)>,
    outgoing: Vec<Vec<ShardMessage>>,
    /// Datagrams for others that were dropped because those are too slow.
    dropped: u64,
}

/// What is left to do after a step.
enum Next {
    /// Something that is ready now.
    More,
    /// Nothing until then.
    Sleep(Option<Instant>),
    /// Nothing at all.
    Over,
}

/// What a step came to.
struct Step {
    next: Next,
    /// Somebody waited for what it brought.
    woke: bool,
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl<S: Socket> Driver<S> {
    pub(crate) fn new(shared: Arc<Shared>, socket: S, udp: Udp, spin: Duration, seat: Option<Seat>) -> Self {
        Self {
            shared,
            socket,
            udp,
            errors: 0,
            spin,
            seat,
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seat.as_ref().is_some_and(|seat| seat.roads.is_broken()) {
            return Poll::Ready(Err(io::Error::other("another socket of the same port has failed")));
        }
        let mut step = Step {
            next: Next::More,
            woke: false,
        };
        let mut active = false;
        for round in 0..MAX_ROUNDS {
            let received = self.receive(cx)?;
            if received || matches!(step.next, Next::More) {
                step = self.step(cx, round == 0);
            }
            active |= received || !self.udp.outbox.is_empty();
            let sent = self.send(cx)?;
            match step.next {
                Next::Over => return Poll::Ready(Ok(())),
                // What blocks sending wakes us.
                Next::More if !sent && !received => return Poll::Pending,
                Next::Sleep(at) if !received => {
                    if self.socket.poll_deadline(cx, at).is_pending() && !(active && self.spin(&step, at, cx)) {
                        return Poll::Pending;
                    }
                    step.next = Next::More;
                }
                // With nothing left to do, on to the point where the socket says that it is empty: from then on it wakes us.
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Receives a batch, or several if they are large. False when there is nothing; then what comes wakes the task.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        loop {
            let before = self.udp.inbox.len();
            match self.socket.poll_readable(cx) {
                Poll::Pending => return Ok(before > 0),
                Poll::Ready(ready) => ready?,
            }
            let udp = &mut self.udp;
            match self.socket.try_recv(|socket| udp.receive(socket)) {
                Ok(buffers) => {
                    self.errors = 0;
                    if self.is_enough(before, buffers) {
                        return Ok(true);
                    }
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    // Some systems report what became of earlier sends here; that is no reason to end.
                    self.shared.locked(|state| state.stats.receive_errors += 1);
                    self.errors += 1;
                    tracing::debug!(%error, "receive failed");
                    if self.errors >= MAX_ERRORS {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Whether there is enough to do, after a receive call that filled `buffers` and before which there were `before` datagrams.
    fn is_enough(&self, before: usize, buffers: usize) -> bool {
        let all = self.udp.inbox.len();
        let new = all - before;
        let most = if self.udp.passes_on() { MAX_PASSED_ON } else { MAX_INBOX };
        new < MANY || all >= most || (self.udp.passes_on() && new >= MANY * buffers)
    }

    /// Looks for datagrams and for work of the handles for a while before the thread may sleep. True if there is something.
    fn spin(&mut self, step: &Step, deadline: Option<Instant>, cx: &Context<'_>) -> bool {
        if self.spin.is_zero() {
            return false;
        }
        if step.woke {
            // Whoever was woken may be waiting for this very thread.
            cx.waker().wake_by_ref();
            return false;
        }
        let began = Instant::now();
        let until = deadline.map_or(began + self.spin, |at| at.min(began + self.spin));
        while Instant::now() < until {
            match self.udp.receive(self.socket.as_udp()) {
                Ok(_) => return true,
                Err(error) if is_transient(&error) => {}
                // It is told of, and counted, when it comes again.
                Err(_) => return false,
            }
            if self.shared.locked(|state| state.driver.is_none()) || self.seat.as_ref().is_some_and(Seat::has_mail) {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Feeds the endpoint, takes out what it has, and says when to come back.
    fn step(&mut self, cx: &mut Context<'_>, counts: bool) -> Step {
        let shared = Arc::clone(&self.shared);
        let mut first = true;
        let mut woke = false;
        self.seat.iter_mut().for_each(Seat::take);
        loop {
            let next = shared.locked(|state| {
                state.driver = None;
                if std::mem::take(&mut first) {
                    state.tick();
                    state.stats.runs += u64::from(counts);
                    state.stats.receives += u64::from(!self.udp.inbox.is_empty());
                }
                self.hear(state);
                self.feed(state);
                if !self.udp.inbox.is_empty() {
                    woke |= state.wakes_somebody();
                    return None;
                }
                let next = self.harvest(state, cx);
                woke |= state.wakes_somebody();
                Some(next)
            });
            if let Some(next) = next {
                self.seat.iter_mut().for_each(Seat::give);
                return Step { next, woke };
            }
        }
    }

    /// Takes out what the endpoint has for others on the port.
    fn collect(&mut self, state: &mut State) {
        self.seat.iter_mut().for_each(|seat| seat.collect(state));
    }

    /// Takes what other endpoints on the port have said.
    fn hear(&mut self, state: &mut State) {
        for (from, message) in self.seat.iter_mut().flat_map(|seat| seat.incoming.drain(..)) {
            state.endpoint.handle_shard(state.now, from, message);
        }
    }

    fn feed(&mut self, state: &mut State) {
        for (meta, data) in self.udp.inbox.drain(..self.udp.inbox.len().min(MAX_DATAGRAMS)) {
            state.endpoint.handle_datagram(state.now, meta, data);
        }
        state.drain_events();
    }

    fn harvest(&mut self, state: &mut State, cx: &mut Context<'_>) -> Next {
        let now = state.now;
        if state.endpoint.poll_timeout().is_some_and(|at| at <= now.mono) {
            state.endpoint.handle_timeout(now);
            state.drain_events();
        }
        state.stats.send_errors = self.udp.send_errors;
        if !self.udp.outbox.is_empty() {
            self.collect(state);
            return Next::More;
        }
        let segments = self.udp.max_segments();
        let mut taken = 0;
        while taken < MAX_BYTES {
            let mut buffer = self.udp.spare.pop().unwrap_or_default();
            buffer.clear();
            let Some(transmit) = state.endpoint.poll_transmit(now, segments, &mut buffer) else {
                self.udp.spare.push(buffer);
                break;
            };
            taken += transmit.size.max(1200);
            self.udp.outbox.push_back((transmit, buffer));
            state.stats.sends += 1;
        }
        // Sending may have had consequences, such as new connection ids.
        state.drain_events();
        self.collect(state);
        if state.is_over() {
            return Next::Over;
        }
        if self.seat.as_ref().is_some_and(|seat| !seat.roads.sleep(seat.index, cx)) {
            return Next::More;
        }
        match state.endpoint.poll_timeout() {
            Some(at) if at <= now.mono => Next::More,
            at => {
                state.driver = Some(cx.waker().clone());
                Next::Sleep(at)
            }
        }
    }

    /// Sends what was taken out. False when the socket takes no more for now.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        loop {
            if self.udp.outbox.is_empty() {
                return Ok(true);
            }
            match self.socket.poll_writable(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(ready) => ready?,
            }
            let udp = &mut self.udp;
            match self.socket.try_send(|socket| udp.send(socket)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Seat {
    pub(crate) fn new(roads: Arc<Roads>, index: u8) -> Self {
        Self {
            outgoing: (0..roads.len()).map(|_| Vec::new()).collect(),
            roads,
            index,
            incoming: Vec::new(),
            dropped: 0,
        }
    }

    fn has_mail(&self) -> bool {
        self.roads.has_mail(self.index)
    }

    fn take(&mut self) {
        self.roads.take(self.index, &mut self.incoming);
    }

    fn collect(&mut self, state: &mut State) {
        while let Some((to, message)) = state.endpoint.poll_shard() {
            if let Some(outgoing) = self.outgoing.get_mut(usize::from(to)) {
                outgoing.push(message);
            }
        }
        state.stats.strays_dropped = self.dropped;
    }

    fn give(&mut self) {
        for (to, messages) in (0..).zip(&mut self.outgoing) {
            if !messages.is_empty() {
                self.dropped += self.roads.give(self.index, to, messages);
            }
        }
    }
}

impl<S: Socket> Future for Driver<S> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.drive(cx);
        match &outcome {
            Poll::Ready(Ok(())) => {
                self.shared.locked(|state| state.phase = Phase::Dead);
                // The others end by themselves.
                self.seat = None;
            }
            Poll::Ready(Err(error)) => {
                tracing::error!(%error, "the socket failed: the endpoint ends");
                let why = format!("the socket failed: {error}");
                self.shared.locked(|state| state.stop(&why));
            }
            Poll::Pending => {}
        }
        outcome
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.shared.locked(|state| state.stop("the driver was stopped"));
        if let Some(seat) = &self.seat {
            seat.roads.break_up();
        }
    }
}
