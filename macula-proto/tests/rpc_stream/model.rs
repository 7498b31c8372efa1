//! What one side of a call must do, told from its history.
//!
//! The machine keeps a state; this keeps what happened, and asks it anew each time. What is to be answered, signalled and told
//! follows from comparing the history before an event with that behind it, not from the kind of the event.

use std::{collections::BTreeSet, time::Instant};

use macula_proto::rpc::{
    Chunk, EndRole, Fault, Mode, Outcome,
    stream::{
        Action, Config, Event, Info, Loss, Output, RecvError, ReplyError, ReplyState, Role, SendError, Stats, WaiterId,
    },
};

use crate::ID;

/// Something that changed the call for good.
#[derive(Debug, Clone)]
enum Fact {
    Attached,
    CloseSend,
    Close,
    GivenUp(Fault),
    PeerEnd,
    PeerClosed,
    PeerError(Fault),
    Reply(Outcome),
    Lost(Loss),
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    role: Role,
    mode: Mode,
    config: Config,
    history: Vec<Fact>,
    /// All chunks that came in, and how many of them the owner has.
    arrived: Vec<Chunk>,
    taken: usize,
    seq_in: u64,
    seq_out: u64,
    waiting: Vec<Waiting>,
    active: Instant,
    writable: bool,
    refused: bool,
    full: bool,
    finished: bool,
    stats: Stats,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: WaiterId,
    until: Option<Instant>,
    reply: bool,
}

/// What an event must lead to. The order between the kinds is not the model's business; within each it is.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expected {
    pub(crate) emitted: Vec<Output>,
    received: Vec<Action>,
    replied: Vec<Action>,
    refused: Vec<Action>,
    signals: BTreeSet<String>,
}

impl Expected {
    pub(crate) fn of(actions: &[Action]) -> Self {
        let expected = Self::of_many(actions);
        let others = [&expected.received, &expected.replied, &expected.refused];
        let count = expected.emitted.len() + expected.signals.len() + others.map(Vec::len).iter().sum::<usize>();
        assert_eq!(count, actions.len(), "a signal twice: {actions:?}");
        expected
    }

    /// Of several events in a row, which may signal the same.
    pub(crate) fn of_many(actions: &[Action]) -> Self {
        let mut expected = Self::default();
        for action in actions.iter().cloned() {
            match action {
                Action::Emit(output) => expected.emitted.push(output),
                Action::Received { .. } => expected.received.push(action),
                Action::Replied { .. } => expected.replied.push(action),
                Action::SendRefused { .. } | Action::ReplyRefused => expected.refused.push(action),
                signal => {
                    expected.signals.insert(format!("{signal:?}"));
                }
            }
        }
        expected
    }

    /// What is expected of this and then of another.
    pub(crate) fn join(&mut self, other: &Self) {
        self.emitted.extend_from_slice(&other.emitted);
        self.received.extend_from_slice(&other.received);
        self.replied.extend_from_slice(&other.replied);
        self.refused.extend_from_slice(&other.refused);
        self.signals.extend(other.signals.iter().cloned());
    }

    /// Without the signals that are the carrier's.
    pub(crate) fn without_room(mut self) -> Self {
        for action in [Action::InboxFull, Action::InboxRoom] {
            self.signals.remove(&format!("{action:?}"));
        }
        self
    }

    fn signal(&mut self, condition: bool, action: &Action) {
        if condition {
            self.signals.insert(format!("{action:?}"));
        }
    }
}

impl Model {
    pub(crate) fn new(role: Role, mode: Mode, config: Config, now: Instant) -> Self {
        Self {
            role,
            mode,
            config,
            history: Vec::new(),
            arrived: Vec::new(),
            taken: 0,
            seq_in: 0,
            seq_out: 0,
            waiting: Vec::new(),
            active: now,
            writable: true,
            refused: false,
            full: false,
            finished: false,
            stats: Stats::default(),
        }
    }

    pub(crate) fn step(&mut self, now: Instant, event: Event) -> Expected {
        let before = self.clone();
        let mut expected = Expected::default();
        self.take(now, event, &mut expected);
        self.answer(&mut expected);
        self.signals(&before, &mut expected);
        if self.is_attached() {
            expected.emitted.extend(self.told(&before));
        }
        expected
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.until);
        waiting.chain(self.call_due()).min()
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.full
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }

    pub(crate) fn received(&self) -> &[Chunk] {
        &self.arrived[..self.taken]
    }

    pub(crate) fn info(&self) -> Info {
        let waiting = |reply| self.waiting.iter().filter(|waiting| waiting.reply == reply).count();
        Info {
            id: ID,
            role: self.role,
            mode: self.mode,
            attached: self.is_attached(),
            inbox_chunks: self.queue().len(),
            inbox_bytes: self.queued(),
            recv_waiters: waiting(false),
            reply_waiters: waiting(true),
            closed_recv: self.closed_recv(),
            closed_send: self.closed_send(),
            seq_out: self.seq_out,
            seq_in: self.seq_in,
            reply: match reply(&self.history) {
                Some(Outcome::Ok(_)) => ReplyState::Ok,
                Some(Outcome::Err(_)) => ReplyState::Err,
                None if self.end().is_some() => ReplyState::Never,
                None => ReplyState::Unset,
            },
            finished: self.finished,
        }
    }

    // ----- what follows from the history -----------------------------------------------------------------------------

    /// How the call ended, if it was not simply complete.
    fn end(&self) -> Option<&Fact> {
        self.end_within(&self.history)
    }

    fn end_within<'a>(&self, history: &'a [Fact]) -> Option<&'a Fact> {
        (0..history.len())
            .map(|at| (&history[at], &history[..at]))
            .find_map(|(fact, before)| match fact {
                Fact::Close | Fact::PeerClosed => Some(fact),
                Fact::GivenUp(_) | Fact::PeerError(_) | Fact::Lost(_) => (!self.fulfilled(before)).then_some(fact),
                _ => None,
            })
    }

    /// Whether everything that the call is for has been done.
    fn fulfilled(&self, history: &[Fact]) -> bool {
        let sent = !self.role.may_send(self.mode) || history.iter().any(|fact| matches!(fact, Fact::CloseSend));
        let received =
            !self.role.other().may_send(self.mode) || history.iter().any(|fact| matches!(fact, Fact::PeerEnd));
        sent && received && reply(history).is_some()
    }

    fn complete(&self) -> bool {
        self.end().is_some() || self.fulfilled(&self.history)
    }

    fn closed_send(&self) -> bool {
        self.end().is_some() || self.has(|fact| matches!(fact, Fact::CloseSend))
    }

    fn closed_recv(&self) -> bool {
        self.complete() || self.has(|fact| matches!(fact, Fact::PeerEnd))
    }

    fn has(&self, what: impl Fn(&Fact) -> bool) -> bool {
        self.history.iter().any(what)
    }

    /// Whether there is a way to the peer: what came first decides, and a loss is for good.
    fn is_attached(&self) -> bool {
        let lost = self.has(|fact| matches!(fact, Fact::Lost(_)));
        !lost && self.has(|fact| matches!(fact, Fact::Attached))
    }

    fn queue(&self) -> &[Chunk] {
        &self.arrived[self.taken..]
    }

    fn queued(&self) -> usize {
        self.queue().iter().map(Chunk::cost).sum()
    }

    fn limit(&self) -> usize {
        self.config.inbox_limit.max(1)
    }

    fn call_due(&self) -> Option<Instant> {
        let idle = self.config.idle.map(|idle| self.active + idle);
        let due = self.config.deadline.into_iter().chain(idle).min();
        due.filter(|_| !self.complete())
    }

    /// What a receive would answer now.
    fn answer_recv(&self) -> Option<Result<Chunk, RecvError>> {
        if let Some(chunk) = self.queue().first() {
            return Some(Ok(chunk.clone()));
        }
        let ended = self.has(|fact| matches!(fact, Fact::PeerEnd));
        let error = match self.end() {
            Some(Fact::GivenUp(fault) | Fact::PeerError(fault)) => RecvError::Fault(fault.clone()),
            Some(Fact::Lost(Loss::Connection(fault))) if !ended => RecvError::Fault(fault.clone()),
            Some(Fact::Lost(Loss::PeerDown)) if !ended => RecvError::PeerDown,
            _ => RecvError::Eof,
        };
        self.closed_recv().then_some(Err(error))
    }

    fn answer_reply(&self) -> Option<Result<Outcome, ReplyError>> {
        if let Some(outcome) = reply(&self.history) {
            return Some(Ok(outcome.clone()));
        }
        Some(Err(match self.end()? {
            Fact::Close => ReplyError::Closed,
            Fact::PeerClosed => ReplyError::PeerClosed,
            Fact::Lost(Loss::PeerDown) => ReplyError::PeerDown,
            Fact::GivenUp(fault) | Fact::PeerError(fault) | Fact::Lost(Loss::Connection(fault)) => {
                ReplyError::Fault(fault.clone())
            }
            other => unreachable!("{other:?} ends nothing"),
        }))
    }

    /// What this side has said besides chunks, in the order in which a late peer hears it, unless that is not wanted any more.
    fn said(&self) -> Vec<Output> {
        let mut said = Vec::new();
        let closed = self.has(|fact| matches!(fact, Fact::Close));
        if let (Role::Server, Some(outcome)) = (self.role, reply(&self.history)) {
            said.push(Output::Reply(outcome.clone()));
        }
        if !closed && self.has(|fact| matches!(fact, Fact::CloseSend)) {
            said.push(Output::End(EndRole::Send));
        }
        if closed {
            said.push(Output::End(EndRole::Both));
        }
        if let Some(Fact::GivenUp(fault)) = self.end() {
            said.push(Output::Error(fault.clone()));
        }
        said
    }

    /// What of it this step has to tell.
    fn told(&self, before: &Self) -> Vec<Output> {
        if !before.is_attached() {
            let unwanted = matches!(before.end(), Some(Fact::PeerClosed | Fact::PeerError(_)));
            return if unwanted { Vec::new() } else { self.said() };
        }
        let known = before.said();
        self.said()
            .into_iter()
            .filter(|output| !known.contains(output))
            .collect()
    }

    fn owes(&self) -> bool {
        let waits = !self.has(|fact| matches!(fact, Fact::Attached | Fact::Lost(_)));
        let unwanted = matches!(self.end(), Some(Fact::PeerClosed | Fact::PeerError(_)));
        waits && !unwanted && !self.said().is_empty()
    }

    // ----- one event --------------------------------------------------------------------------------------------------

    fn take(&mut self, now: Instant, event: Event, expected: &mut Expected) {
        match event {
            Event::Attached => self.history.push(Fact::Attached),
            Event::Writable(writable) => self.writable = writable,
            Event::Send(chunk) => self.send(now, chunk, expected),
            Event::CloseSend if !self.closed_send() => {
                self.history.push(Fact::CloseSend);
                self.active = now;
            }
            Event::CloseSend => {}
            Event::Close if self.end().is_none() => self.history.push(Fact::Close),
            Event::Close => {}
            Event::SetReply(value) => self.set_reply(now, Outcome::Ok(value), expected),
            Event::SetError(fault) => self.set_reply(now, Outcome::Err(fault), expected),
            Event::Abort(fault) => self.give_up(fault),
            Event::OwnerDown => {
                self.give_up(Fault::owner_down());
                self.arrived.truncate(self.taken);
            }
            Event::Recv { waiter, until } => self.wait(now, waiter, until, false, expected),
            Event::AwaitReply { waiter, until } => self.wait(now, waiter, until, true, expected),
            Event::CancelWait(waiter) => self.waiting.retain(|waiting| waiting.id != waiter),
            Event::PeerData { seq, chunk } => self.data(now, seq, chunk),
            Event::PeerEnd(EndRole::Both) if self.end().is_none() => self.history.push(Fact::PeerClosed),
            Event::PeerEnd(EndRole::Send)
                if self.end().is_none() && !self.has(|fact| matches!(fact, Fact::PeerEnd)) =>
            {
                self.history.push(Fact::PeerEnd);
                self.active = now;
            }
            Event::PeerEnd(_) => self.stats.late += 1,
            Event::PeerError(fault) if !self.complete() => self.history.push(Fact::PeerError(fault)),
            Event::PeerError(_) => self.stats.late += 1,
            Event::PeerReply(_) if self.role == Role::Server || reply(&self.history).is_some() => {
                self.stats.extra_replies += 1;
            }
            Event::PeerReply(_) if self.end().is_some() => self.stats.late += 1,
            Event::PeerReply(outcome) => {
                self.history.push(Fact::Reply(outcome));
                self.active = now;
            }
            Event::CarrierLost(loss) => self.history.push(Fact::Lost(loss)),
            Event::Timeout => self.timeout(now, expected),
        }
    }

    fn send(&mut self, now: Instant, chunk: Chunk, expected: &mut Expected) {
        let attached = self.is_attached();
        let error = match () {
            () if !self.role.may_send(self.mode) => SendError::WrongMode,
            () if self.closed_send() => SendError::SendClosed,
            () if !attached => SendError::NoPeer,
            () if !self.writable => SendError::WouldBlock,
            () => {
                let seq = self.seq_out;
                expected.emitted.push(Output::Data { seq, chunk });
                self.seq_out += 1;
                self.active = now;
                return;
            }
        };
        self.refused |= matches!(error, SendError::NoPeer | SendError::WouldBlock);
        expected.refused.push(Action::SendRefused { chunk, error });
    }

    fn set_reply(&mut self, now: Instant, outcome: Outcome, expected: &mut Expected) {
        if self.role == Role::Client {
            expected.refused.push(Action::ReplyRefused);
        } else if self.answer_reply().is_none() {
            self.history.push(Fact::Reply(outcome));
            self.active = now;
        }
    }

    fn give_up(&mut self, fault: Fault) {
        if !self.complete() {
            self.history.push(Fact::GivenUp(fault));
        }
    }

    fn data(&mut self, now: Instant, seq: u64, chunk: Chunk) {
        let allowed = self.role.other().may_send(self.mode);
        if self.closed_recv() {
            self.stats.late += 1;
        } else if seq != self.seq_in {
            let due = self.seq_in;
            self.give_up(Fault::new("bad_seq", format!("chunk {seq} came where {due} was due")));
        } else if allowed && self.queued() >= self.limit() {
            self.give_up(Fault::new("limit", "more chunks than the receiver has room for"));
        } else {
            self.seq_in += 1;
            self.active = now;
            if allowed {
                self.arrived.push(chunk);
            } else {
                self.stats.against_mode += 1;
            }
        }
    }

    fn wait(&mut self, now: Instant, id: WaiterId, until: Option<Instant>, reply: bool, expected: &mut Expected) {
        if !reply && !self.queue().is_empty() {
            self.active = now;
        }
        let answered = if reply {
            self.answer_reply().is_some()
        } else {
            self.answer_recv().is_some()
        };
        let at_once = until.is_some_and(|until| until <= now);
        let too_many = self.waiting.len() >= self.config.waiters as usize;
        if answered || !(at_once || too_many) {
            self.waiting.push(Waiting { id, until, reply });
            return;
        }
        let (recv, repl) = if at_once {
            (RecvError::WouldBlock, ReplyError::WouldBlock)
        } else {
            (RecvError::TooManyWaiters, ReplyError::TooManyWaiters)
        };
        expected.fail(id, reply, recv, repl);
    }

    fn timeout(&mut self, now: Instant, expected: &mut Expected) {
        let call = self.call_due().filter(|due| *due <= now);
        let due = call.unwrap_or(now);
        let (late, waiting) = self
            .waiting
            .iter()
            .partition(|waiting| waiting.until.is_some_and(|until| until <= due));
        let late: Vec<Waiting> = late;
        self.waiting = waiting;
        for waiting in late {
            expected.fail(waiting.id, waiting.reply, RecvError::Timeout, ReplyError::Timeout);
        }
        if let Some(call) = call {
            let words = if self.config.deadline == Some(call) {
                "the deadline of the call has passed"
            } else {
                "the call was idle for too long"
            };
            self.give_up(Fault::new("timeout", words));
        }
    }

    /// Gives everybody who waits what there is.
    fn answer(&mut self, expected: &mut Expected) {
        for waiting in std::mem::take(&mut self.waiting) {
            let waiter = waiting.id;
            if waiting.reply {
                match self.answer_reply() {
                    Some(result) => expected.replied.push(Action::Replied { waiter, result }),
                    None => self.waiting.push(waiting),
                }
            } else {
                match self.answer_recv() {
                    Some(result) => {
                        self.taken += usize::from(result.is_ok());
                        expected.received.push(Action::Received { waiter, result });
                    }
                    None => self.waiting.push(waiting),
                }
            }
        }
    }

    fn signals(&mut self, before: &Self, expected: &mut Expected) {
        let nobody = |reply| {
            !before
                .waiting
                .iter()
                .any(|waiting| waiting.reply == reply && !expected.timed_out(waiting))
        };
        let readable = before.answer_recv().is_none() && self.answer_recv().is_some() && nobody(false);
        let settled = before.answer_reply().is_none() && self.answer_reply().is_some() && nobody(true);
        expected.signal(readable, &Action::Readable);
        expected.signal(settled, &Action::ReplyReady);

        let worth_a_try = self.closed_send() || (self.is_attached() && self.writable);
        expected.signal(self.refused && worth_a_try, &Action::SendReady);
        self.refused &= !worth_a_try;

        let (full, room) = (self.queued() >= self.limit(), self.queued() <= self.limit() / 2);
        expected.signal(!self.full && full && !self.closed_recv(), &Action::InboxFull);
        expected.signal(self.full && (room || self.closed_recv()), &Action::InboxRoom);
        self.full = !self.closed_recv() && if self.full { !room } else { full };

        let finished = self.complete() && self.queue().is_empty() && !self.owes();
        expected.signal(finished && !self.finished, &Action::Finished);
        self.finished |= finished;
    }
}

impl Expected {
    fn fail(&mut self, waiter: WaiterId, reply: bool, recv: RecvError, repl: ReplyError) {
        if reply {
            let result = Err(repl);
            self.replied.push(Action::Replied { waiter, result });
        } else {
            let result = Err(recv);
            self.received.push(Action::Received { waiter, result });
        }
    }

    /// Whether one that waited gave up by itself in this step.
    fn timed_out(&self, waiting: &Waiting) -> bool {
        self.received.iter().chain(&self.replied).any(|action| match action {
            Action::Received { waiter, result } => *waiter == waiting.id && *result == Err(RecvError::Timeout),
            Action::Replied { waiter, result } => *waiter == waiting.id && *result == Err(ReplyError::Timeout),
            _ => false,
        })
    }
}

/// The server's word.
fn reply(history: &[Fact]) -> Option<&Outcome> {
    history.iter().find_map(|fact| match fact {
        Fact::Reply(outcome) => Some(outcome),
        _ => None,
    })
}
