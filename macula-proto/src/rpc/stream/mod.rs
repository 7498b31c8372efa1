//! One side of one streaming call.
//!
//! ```text
//!                  CloseSend, or the mode                  its peer's end(send), or the mode
//!   sends chunks ──────────────────────▶ sends no more   receives ──────────────▶ drains ──▶ eof
//!        │                                    │               │                     │
//!        └────────────────────────────────────┴───────┬───────┴─────────────────────┘
//!            Close, the peer's end(both) or error,    │   Abort, OwnerDown, a time-out, a fault of the peer,
//!            the loss of the way to the peer          ▼   both of them: the peer sees an error
//!                                                   Over: no reply will come, every waiter has its answer
//! ```
//!
//! **Chunks** are numbered per direction. A gap or a repeat is a fault of the peer: the call ends with `bad_seq`. What has
//! arrived before an end, an error or a loss can still be received, in order, and the end is seen behind it: `eof` after an
//! end, the fault after an error. After the loss of a connection it is the loss, unless the peer had ended its direction
//! before: then nothing of it is missing, and it is `eof`.
//!
//! **Back-pressure.** The inbox is bounded in bytes. When it is [full](Action::InboxFull) the carrier keeps further chunks with
//! the peer, until there is [room](Action::InboxRoom); one that does not is cut off with `limit`. In the other direction the
//! carrier says whether it [takes chunks](Event::Writable), and a chunk that does not fit goes back to its sender.
//!
//! **The reply** is apart from the end of the data: the server settles it once, before or after its last chunk, and an end is
//! none. The first one counts. [`Event::SetError`] settles the call with the server's word that it failed, which leaves both
//! directions open; [`Event::Abort`] gives the whole call up.
//!
//! **The mode** binds chunks alone. This side's own are refused; the peer's are counted and dropped, and use up their number.
//! A side that is not to get chunks may receive all the same, and learns the end that way.
//!
//! **Time.** The deadline and the idle time-out end a call with `timeout`, seen by both sides. A call that is complete has no
//! time-outs any more, whoever still has to receive from its inbox.
//!
//! **Complete** is a call that needs nothing more from either side: both directions are closed, by an end or by the mode, and
//! the reply is settled. A server that gives no reply therefore has to [close](Event::Close) the call.

mod ends;
mod types;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use types::{
    Action, Config, Event, Info, Loss, Output, RecvError, ReplyError, ReplyState, Role, SendError, Stats, WaiterId,
};

use crate::{
    deadlines::earliest,
    rpc::{Chunk, EndRole, Fault, Mode, Outcome, StreamId},
};

/// One side of one call. See the [module](self) for how it behaves.
///
/// It is small while nothing waits in it, so that there may be very many.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    deadline: Option<Instant>,
    idle: Option<Duration>,
    /// When the call has been idle for too long.
    idle_at: Option<Instant>,
    inbox: VecDeque<Entry>,
    inbox_bytes: usize,
    inbox_limit: usize,
    /// Receives that wait, while the inbox is empty, and awaited replies that do, while there is none. Oldest first.
    waiters: Vec<Waiter>,
    max_waiters: u32,
    seq_out: u64,
    seq_in: u64,
    /// The server's word.
    reply: Option<Box<Outcome>>,
    over: Over,
    stats: Option<Box<Stats>>,
    role: Role,
    mode: Mode,
    carrier: Carrier,
    owed: Owed,
    flags: Flags,
}

/// A chunk in the inbox, and what it counts there.
#[derive(Debug)]
struct Entry {
    cost: usize,
    chunk: Chunk,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    id: WaiterId,
    until: Option<Instant>,
    wants: Wants,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Chunk,
    Reply,
}

/// Whether and how the call is over.
#[derive(Debug)]
enum Over {
    Not,
    /// This side closed it.
    Closed,
    /// The peer did.
    PeerClosed,
    /// Either side gave it up.
    Failed(Box<Fault>),
    /// The way to the peer was lost; without a fault, the peer itself.
    Lost(Option<Box<Fault>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Awaited,
    Attached,
    Lost,
}

/// What the peer has to be told as soon as there is a way to it.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    reply: bool,
    end: Option<EndRole>,
    error: bool,
}

#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Flags {
    /// The carrier takes chunks.
    writable: bool,
    /// A chunk was refused for now.
    refused: bool,
    closed_send: bool,
    closed_recv: bool,
    /// The peer ended its direction.
    peer_ended: bool,
    /// The inbox was full and is not down to half.
    full: bool,
    finished: bool,
}

impl Stream {
    /// One side of a call that has just begun and is not attached to its peer.
    pub fn new(id: StreamId, role: Role, mode: Mode, config: Config, now: Instant) -> Self {
        // A configured zero must not make a call that nobody can begin.
        let idle = config.idle.map(|idle| idle.max(Duration::from_millis(1)));
        Self {
            id,
            deadline: config.deadline,
            idle,
            idle_at: idle.and_then(|idle| now.checked_add(idle)),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            inbox_limit: config.inbox_limit.max(1),
            waiters: Vec::new(),
            max_waiters: config.waiters,
            seq_out: 0,
            seq_in: 0,
            reply: None,
            over: Over::Not,
            stats: None,
            role,
            mode,
            carrier: Carrier::Awaited,
            owed: Owed::default(),
            flags: Flags {
                writable: true,
                refused: false,
                closed_send: false,
                closed_recv: false,
                peer_ended: false,
                full: false,
                finished: false,
            },
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Send(chunk) => return self.send(now, chunk, actions),
            Event::Recv { waiter, until } => self.recv(now, waiter, until, actions),
            Event::PeerData { seq, chunk } => self.peer_data(now, seq, chunk, actions),
            Event::AwaitReply { waiter, until } => return self.await_reply(now, waiter, until, actions),
            Event::CancelWait(waiter) => return self.waiters.retain(|waits| waits.id != waiter),
            Event::Writable(writable) => return self.writable(writable, actions),
            Event::Attached => self.attached(actions),
            Event::CloseSend => self.close_send(now, actions),
            Event::Close => self.close(actions),
            Event::SetReply(value) => self.set_reply(now, Outcome::Ok(value), actions),
            Event::SetError(fault) => self.set_reply(now, Outcome::Err(fault), actions),
            Event::Abort(fault) => self.abort(fault, actions),
            Event::OwnerDown => self.owner_down(actions),
            Event::PeerEnd(role) => self.peer_end(now, role, actions),
            Event::PeerError(fault) => self.peer_error(fault, actions),
            Event::PeerReply(outcome) => self.peer_reply(now, outcome, actions),
            Event::CarrierLost(loss) => self.carrier_lost(loss, actions),
            Event::Timeout => self.timeout(now, actions),
        }
        self.settle_down(actions);
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiters = self.waiters.iter().map(|waiter| waiter.until);
        waiters.fold(self.call_timeout(), earliest)
    }

    /// This side at a glance.
    pub fn info(&self) -> Info {
        let waiters = |wants| self.waiters.iter().filter(|waiter| waiter.wants == wants).count();
        Info {
            id: self.id,
            role: self.role,
            mode: self.mode,
            attached: self.carrier == Carrier::Attached,
            inbox_chunks: self.inbox.len(),
            inbox_bytes: self.inbox_bytes,
            recv_waiters: waiters(Wants::Chunk),
            reply_waiters: waiters(Wants::Reply),
            closed_recv: self.flags.closed_recv,
            closed_send: self.flags.closed_send,
            seq_out: self.seq_out,
            seq_in: self.seq_in,
            reply: match self.reply.as_deref() {
                Some(Outcome::Ok(_)) => ReplyState::Ok,
                Some(Outcome::Err(_)) => ReplyState::Err,
                None if self.is_over() => ReplyState::Never,
                None => ReplyState::Unset,
            },
            finished: self.flags.finished,
        }
    }

    /// What was passed over.
    pub fn stats(&self) -> Stats {
        self.stats.as_deref().copied().unwrap_or_default()
    }

    /// Why the call was given up or lost, if it was and there are words for it.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.over {
            Over::Failed(fault) | Over::Lost(Some(fault)) => Some(fault),
            _ => None,
        }
    }

    /// The call.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// What the chunks in the inbox cost, in bytes: see [`Chunk::cost`].
    pub fn inbox_bytes(&self) -> usize {
        self.inbox_bytes
    }

    /// Whether chunks may be handed in: the inbox has room, or takes none anyhow, so that they cost nothing.
    pub fn inbox_has_room(&self) -> bool {
        !self.flags.full
    }

    /// Whether a chunk would be taken now.
    pub fn can_send(&self) -> bool {
        self.check_send().is_ok()
    }

    /// Whether [`Action::Finished`] was asked for.
    pub fn is_finished(&self) -> bool {
        self.flags.finished
    }

    // ----- chunks --------------------------------------------------------------------------------------------------

    fn send(&mut self, now: Instant, chunk: Chunk, actions: &mut Vec<Action>) {
        if let Err(error) = self.check_send() {
            if matches!(error, SendError::NoPeer | SendError::WouldBlock) {
                self.flags.refused = true;
            }
            actions.push(Action::SendRefused { chunk, error });
            return;
        }
        let seq = self.next_number(now);
        actions.push(Action::Emit(Output::Data { seq, chunk }));
    }

    /// The number of a chunk that is sent by whoever carries it out, without an event. It is for chunks that were promised to be
    /// taken, so that [`Event::Writable`] does not count.
    pub(crate) fn number(&mut self, now: Instant) -> Result<u64, SendError> {
        match self.check_send() {
            Ok(()) | Err(SendError::WouldBlock) => Ok(self.next_number(now)),
            Err(error) => Err(error),
        }
    }

    fn next_number(&mut self, now: Instant) -> u64 {
        let seq = self.seq_out;
        self.seq_out = seq.wrapping_add(1);
        self.touch(now);
        seq
    }

    fn check_send(&self) -> Result<(), SendError> {
        if !self.role.may_send(self.mode) {
            Err(SendError::WrongMode)
        } else if self.flags.closed_send {
            Err(SendError::SendClosed)
        } else if self.carrier != Carrier::Attached {
            Err(SendError::NoPeer)
        } else if !self.flags.writable {
            Err(SendError::WouldBlock)
        } else {
            Ok(())
        }
    }

    fn peer_data(&mut self, now: Instant, seq: u64, chunk: Chunk, actions: &mut Vec<Action>) {
        if self.flags.closed_recv {
            self.stats_mut().late += 1;
            return;
        }
        if seq != self.seq_in {
            let message = format!("chunk {seq} came where {} was due", self.seq_in);
            return self.abort(Fault::new("bad_seq", message), actions);
        }
        if self.inbox_bytes >= self.inbox_limit {
            return self.abort(
                Fault::from_static("limit", "more chunks than the receiver has room for"),
                actions,
            );
        }
        self.seq_in = seq.wrapping_add(1);
        self.touch(now);
        if !self.role.other().may_send(self.mode) {
            self.stats_mut().against_mode += 1;
            return;
        }
        match self.next_waiter(Wants::Chunk) {
            Some(waiter) => actions.push(Action::Received {
                waiter,
                result: Ok(chunk),
            }),
            None => self.enqueue(chunk, actions),
        }
    }

    /// The number that the peer's next chunk has to have, if chunks would only be put into the inbox: several can then be
    /// [taken](Self::take_next), without an event for each.
    pub(crate) fn takes_run(&self) -> Option<u64> {
        let takes = !self.flags.closed_recv && self.waiters.is_empty() && self.role.other().may_send(self.mode);
        takes.then_some(self.seq_in)
    }

    /// Takes the peer's next chunk; as [`Event::PeerData`] with the right number. Answers the number of the one behind it.
    pub(crate) fn take_next(&mut self, now: Instant, chunk: Chunk, actions: &mut Vec<Action>) -> u64 {
        self.seq_in = self.seq_in.wrapping_add(1);
        self.touch(now);
        self.enqueue(chunk, actions);
        self.seq_in
    }

    /// Moves chunks from the inbox to `out`: at most `chunks`, and no more once they cost `bytes` ([`Chunk::cost`]). As so many
    /// [`Event::Recv`].
    pub(crate) fn fetch(
        &mut self,
        now: Instant,
        chunks: usize,
        bytes: usize,
        out: &mut VecDeque<Chunk>,
        actions: &mut Vec<Action>,
    ) {
        let (mut fetched, mut cost) = (0, 0);
        while fetched < chunks
            && cost < bytes
            && let Some(entry) = self.inbox.pop_front()
        {
            fetched += 1;
            cost += entry.cost;
            out.push_back(entry.chunk);
        }
        if fetched > 0 {
            self.inbox_bytes = self.inbox_bytes.saturating_sub(cost);
            self.touch(now);
            self.fetched(actions);
            self.settle_down(actions);
        }
    }

    fn enqueue(&mut self, chunk: Chunk, actions: &mut Vec<Action>) {
        if self.inbox.is_empty() {
            actions.push(Action::Readable);
        }
        let cost = chunk.cost();
        self.inbox_bytes = self.inbox_bytes.saturating_add(cost);
        self.inbox.push_back(Entry { cost, chunk });
        if self.inbox_bytes >= self.inbox_limit && !self.flags.full {
            self.flags.full = true;
            actions.push(Action::InboxFull);
        }
    }

    fn recv(&mut self, now: Instant, waiter: WaiterId, until: Option<Instant>, actions: &mut Vec<Action>) {
        let result = if let Some(entry) = self.inbox.pop_front() {
            self.inbox_bytes = self.inbox_bytes.saturating_sub(entry.cost);
            self.touch(now);
            Ok(entry.chunk)
        } else if self.flags.closed_recv {
            Err(self.end_of_data())
        } else if until.is_some_and(|until| until <= now) {
            Err(RecvError::WouldBlock)
        } else if self.wait(waiter, until, Wants::Chunk) {
            return;
        } else {
            Err(RecvError::TooManyWaiters)
        };
        actions.push(Action::Received { waiter, result });
        self.fetched(actions);
    }

    /// There is less in the inbox than before.
    fn fetched(&mut self, actions: &mut Vec<Action>) {
        if self.flags.full && self.inbox_bytes <= self.inbox_limit / 2 {
            self.make_room(actions);
        }
        // What an emptied queue holds on to is worth more elsewhere.
        if self.inbox.is_empty() && self.inbox.capacity() > KEPT_ENTRIES {
            self.inbox = VecDeque::new();
        }
    }

    /// What a receive finds behind the last chunk.
    fn end_of_data(&self) -> RecvError {
        match &self.over {
            Over::Failed(fault) => RecvError::Fault((**fault).clone()),
            Over::Lost(_) if self.flags.peer_ended => RecvError::Eof,
            Over::Lost(Some(fault)) => RecvError::Fault((**fault).clone()),
            Over::Lost(None) => RecvError::PeerDown,
            Over::Not | Over::Closed | Over::PeerClosed => RecvError::Eof,
        }
    }

    // ----- the reply -----------------------------------------------------------------------------------------------

    fn await_reply(&mut self, now: Instant, waiter: WaiterId, until: Option<Instant>, actions: &mut Vec<Action>) {
        let result = if let Some(result) = self.settled() {
            result
        } else if until.is_some_and(|until| until <= now) {
            Err(ReplyError::WouldBlock)
        } else if self.wait(waiter, until, Wants::Reply) {
            return;
        } else {
            Err(ReplyError::TooManyWaiters)
        };
        actions.push(Action::Replied { waiter, result });
    }

    /// The reply, or why there will be none.
    fn settled(&self) -> Option<Result<Outcome, ReplyError>> {
        if let Some(outcome) = self.reply.as_deref() {
            return Some(Ok(outcome.clone()));
        }
        Some(Err(match &self.over {
            Over::Not => return None,
            Over::Closed => ReplyError::Closed,
            Over::PeerClosed => ReplyError::PeerClosed,
            Over::Failed(fault) | Over::Lost(Some(fault)) => ReplyError::Fault((**fault).clone()),
            Over::Lost(None) => ReplyError::PeerDown,
        }))
    }

    fn set_reply(&mut self, now: Instant, outcome: Outcome, actions: &mut Vec<Action>) {
        if self.role == Role::Client {
            actions.push(Action::ReplyRefused);
            return;
        }
        if self.reply.is_some() || self.is_over() {
            return;
        }
        self.touch(now);
        match self.carrier {
            Carrier::Attached => actions.push(Action::Emit(Output::Reply(outcome.clone()))),
            Carrier::Awaited => self.owed.reply = true,
            Carrier::Lost => {}
        }
        self.reply = Some(Box::new(outcome));
        self.answer_reply_waiters(actions);
    }

    fn peer_reply(&mut self, now: Instant, outcome: Outcome, actions: &mut Vec<Action>) {
        if self.role == Role::Server || self.reply.is_some() {
            self.stats_mut().extra_replies += 1;
        } else if self.is_over() {
            self.stats_mut().late += 1;
        } else {
            self.touch(now);
            self.reply = Some(Box::new(outcome));
            self.answer_reply_waiters(actions);
        }
    }

    /// The reply is settled, or will not come.
    fn answer_reply_waiters(&mut self, actions: &mut Vec<Action>) {
        let mut waited = false;
        while let Some(waiter) = self.next_waiter(Wants::Reply) {
            let Some(result) = self.settled() else { return };
            actions.push(Action::Replied { waiter, result });
            waited = true;
        }
        if !waited {
            actions.push(Action::ReplyReady);
        }
    }

    // ----- waiters and time ----------------------------------------------------------------------------------------

    /// Lets one wait, if there are not too many.
    fn wait(&mut self, id: WaiterId, until: Option<Instant>, wants: Wants) -> bool {
        let room = self.waiters.len() < self.max_waiters as usize;
        if room {
            self.waiters.push(Waiter { id, until, wants });
        }
        room
    }

    fn next_waiter(&mut self, wants: Wants) -> Option<WaiterId> {
        let at = self.waiters.iter().position(|waiter| waiter.wants == wants)?;
        Some(self.waiters.remove(at).id)
    }

    fn touch(&mut self, now: Instant) {
        if let Some(idle) = self.idle {
            self.idle_at = now.checked_add(idle);
        }
    }

    /// When the whole call is given up.
    fn call_timeout(&self) -> Option<Instant> {
        if self.is_complete() {
            return None;
        }
        earliest(self.deadline, self.idle_at)
    }

    fn timeout(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let call = self.call_timeout().filter(|at| *at <= now);
        // What was due before the call's own time-out, or with it, comes first.
        let due = call.unwrap_or(now);
        self.waiters.retain(|waiter| {
            let waits = waiter.until.is_none_or(|until| until > due);
            if !waits {
                actions.push(waiter.timed_out());
            }
            waits
        });
        if let Some(at) = call {
            let fault = match self.deadline {
                Some(deadline) if deadline <= at => {
                    Fault::from_static("timeout", "the deadline of the call has passed")
                }
                _ => Fault::from_static("timeout", "the call was idle for too long"),
            };
            self.abort(fault, actions);
        }
    }

    fn stats_mut(&mut self) -> &mut Stats {
        self.stats.get_or_insert_default()
    }
}

/// Entries an empty inbox may keep room for.
const KEPT_ENTRIES: usize = 8;

impl Waiter {
    fn timed_out(&self) -> Action {
        let waiter = self.id;
        match self.wants {
            Wants::Chunk => Action::Received {
                waiter,
                result: Err(RecvError::Timeout),
            },
            Wants::Reply => Action::Replied {
                waiter,
                result: Err(ReplyError::Timeout),
            },
        }
    }
}
