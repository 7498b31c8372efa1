//! Streaming calls: their machines driven, their actions carried out.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{
    MAX_PROCEDURE, Phase, Session,
    lane::{LaneState, SMALL},
    types::{Action, CallId, Lane, Medium, OpenError, Request, Room, Shared, Side},
    unary::Unary,
};
use crate::{
    Code, Now,
    rpc::{
        Chunk, Fault, Info, Kind, Mode, Outcome, RecvError, ReplyError, Role, SendError, StreamId,
        stream::{self, Config, Output, Stream, WaiterId},
    },
    wire::rpc::{Message, StreamData, StreamOpen},
};

/// What is kept for one side of a call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) body: Body,
    pub(super) lane: Option<Lane>,
    pub(super) deadline: Option<Instant>,
    /// It was refused a chunk, and waits to be told that there is room.
    pub(super) blocked: bool,
    /// Bytes of its inbox.
    pub(super) inbox: usize,
    /// Its first message, as long as there is no lane for it.
    pub(super) unsent: Option<Box<Message>>,
}

#[derive(Debug)]
pub(super) enum Body {
    Stream(Box<Stream>),
    Unary(Unary),
}

impl Call {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            lane: None,
            deadline: None,
            blocked: false,
            inbox: 0,
            unsent: None,
        }
    }

    pub(super) fn info(&self) -> Option<Info> {
        match &self.body {
            Body::Stream(stream) => Some(stream.info()),
            Body::Unary(_) => None,
        }
    }
}

/// Answers of a stream machine to the one who asked.
#[derive(Debug, Default)]
struct Answers {
    refused: Option<(SendError, Chunk)>,
    received: Option<Result<Chunk, RecvError>>,
    replied: Option<Result<Outcome, ReplyError>>,
}

/// Lanes of calls that are being refused.
const REFUSALS: usize = 64;
/// The owner polls, so that there is only one who waits, and never for long.
const POLL: WaiterId = WaiterId(0);

impl Session {
    // ----- what the owner wants ------------------------------------------------------------------------------------

    pub(super) fn open_call(
        &mut self,
        now: Now,
        request: Request,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) -> Result<CallId, OpenError> {
        if self.phase != Phase::Up {
            return Err(OpenError::NotUp);
        }
        if self.calls.len() >= self.config.limits.calls {
            return Err(OpenError::Busy);
        }
        if request.procedure.is_empty() || request.procedure.len() > MAX_PROCEDURE {
            return Err(OpenError::BadProcedure);
        }
        let mut call;
        let first;
        let id = shared.next_call();
        match request.kind {
            Kind::Stream(mode) => {
                let stream = StreamId(self.rng.bytes());
                let config = self.stream_config(now, request.deadline, request.idle);
                let machine = Stream::new(stream, Role::Client, mode, config, now.mono);
                call = Call::new(Body::Stream(Box::new(machine)));
                first = Message::StreamOpen(StreamOpen {
                    stream,
                    procedure: request.procedure,
                    mode,
                    args: request.args,
                });
                self.by_stream.insert(stream, id);
            }
            Kind::Unary => {
                let (unary, message) = self.unary_call(now, request);
                self.by_call.insert(unary.id.clone(), id);
                call = Call::new(Body::Unary(unary));
                first = message;
            }
        }
        self.stats.calls_out += 1;
        if self.per_call {
            call.unsent = Some(Box::new(first));
            self.calls.insert(id, call);
            self.schedule(id);
            actions.push(Action::OpenLane(id));
            return Ok(id);
        }
        call.lane = Some(Lane::SHARED);
        self.calls.insert(id, call);
        if !self.write(Lane::SHARED, first, actions) {
            self.stats.calls_out -= 1;
            self.drop_call(id);
            return Err(OpenError::BadArgs);
        }
        self.drive(now, id, stream::Event::Attached, actions);
        self.schedule(id);
        Ok(id)
    }

    pub(super) fn send_chunk(
        &mut self,
        now: Now,
        call: CallId,
        chunk: Chunk,
        actions: &mut Vec<Action>,
    ) -> Result<(), (SendError, Chunk)> {
        if let Some(entry) = self.calls.get_mut(&call)
            && let Some(lane) = entry.lane
            && !entry.blocked
            && let Some(state) = self.lanes.get_mut(&lane)
            && state.out.queued() >= self.config.limits.outbox
        {
            entry.blocked = true;
            state.waiting.push_back(call);
            self.drive(now, call, stream::Event::Writable(false), actions);
        }
        if !matches!(self.calls.get(&call).map(|call| &call.body), Some(Body::Stream(_))) {
            return Err((SendError::SendClosed, chunk));
        }
        match self.ask(now, call, stream::Event::Send(chunk), actions).refused {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    /// Sends chunks that were promised to be taken, whether there is room or not. On an error those that were not sent are left.
    pub(super) fn send_chunks(
        &mut self,
        now: Now,
        call: CallId,
        chunks: &mut VecDeque<Chunk>,
        actions: &mut Vec<Action>,
    ) -> Result<(), SendError> {
        let (encoding, max) = (self.encoding, self.config.limits.message);
        let frames = self.medium == Medium::Frames;
        let Some(entry) = self.calls.get_mut(&call) else {
            return Err(SendError::SendClosed);
        };
        let (Body::Stream(machine), Some(lane)) = (&mut entry.body, entry.lane) else {
            return Err(SendError::SendClosed);
        };
        let stream = machine.id();
        let mut sent = Ok(());
        while let Some(state) = self.lanes.get_mut(&lane)
            && let Some(chunk) = chunks.pop_front()
        {
            let seq = match machine.number(now.mono) {
                Ok(seq) => seq,
                Err(error) => {
                    chunks.push_front(chunk);
                    sent = Err(error);
                    break;
                }
            };
            let pushed = match chunk {
                Chunk::Raw(body) if !frames && body.len() <= SMALL => {
                    state.out.push_small(stream, seq, &body, encoding, max)
                }
                chunk if frames => {
                    let data = StreamData { stream, seq, chunk };
                    state.out.push_frame(Message::StreamData(data));
                    Ok(())
                }
                chunk => state.out.push_data(stream, seq, chunk, encoding, max),
            };
            if pushed.is_err() {
                self.give_up(lane, stream, actions);
                break;
            }
            self.stats.messages_out += 1;
        }
        self.tell(lane, actions);
        let todo = std::mem::take(&mut self.scratch);
        self.applied(call, todo, actions);
        sent
    }

    /// A chunk cannot be written. A hole in the numbers would look like a fault of this side, so that the call is given up instead.
    fn give_up(&mut self, lane: Lane, stream: StreamId, actions: &mut Vec<Action>) {
        let fault = Fault::from_static("bad_chunk", "a chunk cannot be encoded");
        self.write(lane, Message::StreamError { stream, fault }, actions);
    }

    /// Fetches several chunks at once; see [`Stream::fetch`].
    pub(super) fn recv_chunks(
        &mut self,
        now: Now,
        call: CallId,
        room: Room,
        out: &mut VecDeque<Chunk>,
        actions: &mut Vec<Action>,
    ) -> Result<(), RecvError> {
        if let Some(entry) = self.calls.get_mut(&call)
            && let Body::Stream(machine) = &mut entry.body
        {
            let before = out.len();
            let mut todo = std::mem::take(&mut self.scratch);
            machine.fetch(now.mono, room.chunks, room.bytes, out, &mut todo);
            self.applied(call, todo, actions);
            if out.len() > before {
                return Ok(());
            }
        }
        let last = self.recv_chunk(now, call, actions)?;
        out.push_back(last);
        Ok(())
    }

    pub(super) fn recv_chunk(&mut self, now: Now, call: CallId, actions: &mut Vec<Action>) -> Result<Chunk, RecvError> {
        let recv = stream::Event::Recv {
            waiter: POLL,
            until: Some(now.mono),
        };
        // A call that is not known has nothing to give.
        self.ask(now, call, recv, actions)
            .received
            .unwrap_or(Err(RecvError::Eof))
    }

    pub(super) fn take_reply(
        &mut self,
        now: Now,
        call: CallId,
        actions: &mut Vec<Action>,
    ) -> Option<Result<Outcome, ReplyError>> {
        let Some(entry) = self.calls.get(&call) else {
            return Some(Err(ReplyError::Closed));
        };
        if let Body::Unary(unary) = &entry.body {
            return unary.reply.clone();
        }
        let ask = stream::Event::AwaitReply {
            waiter: POLL,
            until: Some(now.mono),
        };
        match self.ask(now, call, ask, actions).replied {
            Some(Err(ReplyError::WouldBlock)) => None,
            replied => replied,
        }
    }

    pub(super) fn settle(&mut self, now: Now, call: CallId, outcome: Outcome, actions: &mut Vec<Action>) -> bool {
        match self.calls.get(&call).map(|call| &call.body) {
            None => false,
            Some(Body::Unary(_)) => self.answer(call, outcome, actions),
            Some(Body::Stream(machine)) => {
                let open = machine.info().reply == stream::ReplyState::Unset;
                let event = match outcome {
                    Outcome::Ok(value) => stream::Event::SetReply(value),
                    Outcome::Err(fault) => stream::Event::SetError(fault),
                };
                self.drive(now, call, event, actions);
                open
            }
        }
    }

    pub(super) fn abort_call(&mut self, now: Now, call: CallId, fault: Fault, actions: &mut Vec<Action>) {
        match self.calls.get(&call).map(|call| &call.body) {
            Some(Body::Stream(_)) => self.drive(now, call, stream::Event::Abort(fault), actions),
            Some(Body::Unary(_)) => self.cancel_unary(call, fault, actions),
            None => {}
        }
    }

    pub(super) fn forget_call(&mut self, now: Now, call: CallId, actions: &mut Vec<Action>) {
        let event = match self.calls.get(&call).map(|call| &call.body) {
            None => return,
            Some(Body::Unary(_)) => {
                self.cancel_unary(call, Fault::owner_down(), actions);
                return self.drop_call(call);
            }
            Some(Body::Stream(machine)) => match machine.info().role {
                Role::Client => stream::Event::Abort(Fault::cancelled()),
                Role::Server => stream::Event::OwnerDown,
            },
        };
        let mut unheard = Vec::new();
        self.drive(now, call, event, &mut unheard);
        // Nobody wants to hear of the call, but what its lane needs is to be done.
        unheard.retain(|action| {
            matches!(
                action,
                Action::Write(_) | Action::Read(_) | Action::Abandon(..) | Action::Stop(..) | Action::Release(_)
            )
        });
        actions.append(&mut unheard);
        self.release_lane(call, actions);
        self.drop_call(call);
    }

    // ----- the machine ---------------------------------------------------------------------------------------------

    /// Gives an event to the machine of a streaming call, and does what it says.
    pub(super) fn drive(&mut self, now: Now, call: CallId, event: stream::Event, actions: &mut Vec<Action>) {
        self.ask(now, call, event, actions);
    }

    fn ask(&mut self, now: Now, call: CallId, event: stream::Event, actions: &mut Vec<Action>) -> Answers {
        let mut answers = Answers::default();
        let Some(entry) = self.calls.get_mut(&call) else {
            return answers;
        };
        let Body::Stream(machine) = &mut entry.body else {
            return answers;
        };
        let mut todo = std::mem::take(&mut self.scratch);
        machine.handle(now.mono, event, &mut todo);
        self.carry_out(call, todo, &mut answers, actions);
        answers
    }

    /// Books what has become of a machine, and does what it says.
    fn carry_out(
        &mut self,
        call: CallId,
        mut todo: Vec<stream::Action>,
        answers: &mut Answers,
        actions: &mut Vec<Action>,
    ) {
        if let Some(entry) = self.calls.get_mut(&call)
            && let Body::Stream(machine) = &entry.body
        {
            let inbox = machine.inbox_bytes();
            self.waiting = self.waiting.saturating_sub(entry.inbox).saturating_add(inbox);
            entry.inbox = inbox;
            let deadline = machine.poll_timeout();
            if deadline != entry.deadline {
                self.deadlines.update(call, entry.deadline, deadline);
                entry.deadline = deadline;
            }
        }
        for action in todo.drain(..) {
            self.apply(call, action, answers, actions);
        }
        self.scratch = todo;
    }

    /// The same where nobody asked for anything.
    pub(super) fn applied(&mut self, call: CallId, todo: Vec<stream::Action>, actions: &mut Vec<Action>) {
        self.carry_out(call, todo, &mut Answers::default(), actions);
    }

    fn apply(&mut self, call: CallId, action: stream::Action, answers: &mut Answers, actions: &mut Vec<Action>) {
        use stream::Action as A;
        match action {
            A::Emit(output) => self.emit(call, output, actions),
            A::Received { result, .. } => answers.received = Some(result),
            A::Replied { result, .. } => answers.replied = Some(result),
            A::SendRefused { chunk, error } => answers.refused = Some((error, chunk)),
            A::Readable => actions.push(Action::Readable(call)),
            A::ReplyReady => actions.push(Action::Replied(call)),
            A::SendReady => actions.push(Action::SendReady(call)),
            A::Finished => {
                self.release_lane(call, actions);
                actions.push(Action::Finished(call));
            }
            // The inbox is asked before a chunk is handed in.
            A::InboxFull | A::InboxRoom | A::ReplyRefused => {}
        }
    }

    fn emit(&mut self, call: CallId, output: Output, actions: &mut Vec<Action>) {
        let Some(entry) = self.calls.get(&call) else { return };
        let (Body::Stream(machine), Some(lane)) = (&entry.body, entry.lane) else {
            return;
        };
        let stream = machine.id();
        let message = match output {
            Output::Data { seq, chunk } => return self.emit_data(lane, stream, seq, chunk, actions),
            Output::End(role) => Message::StreamEnd { stream, role },
            Output::Error(fault) => {
                self.write(lane, Message::StreamError { stream, fault }, actions);
                return self.stop_reading(lane, actions);
            }
            Output::Reply(outcome) => Message::StreamReply { stream, outcome },
        };
        if !self.write(lane, message, actions) {
            // A reply that cannot be written is an error that can.
            let fault = Fault::from_static("bad_reply", "the reply cannot be encoded");
            self.write(lane, Message::StreamError { stream, fault }, actions);
        }
    }

    fn emit_data(&mut self, lane: Lane, stream: StreamId, seq: u64, chunk: Chunk, actions: &mut Vec<Action>) {
        let (encoding, max) = (self.encoding, self.config.limits.message);
        let frames = self.medium == Medium::Frames;
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if frames {
            let data = crate::wire::rpc::StreamData { stream, seq, chunk };
            state.out.push_frame(Message::StreamData(data));
        } else if state.out.push_data(stream, seq, chunk, encoding, max).is_err() {
            return self.give_up(lane, stream, actions);
        }
        self.stats.messages_out += 1;
        self.tell(lane, actions);
    }

    // ----- lanes ---------------------------------------------------------------------------------------------------

    pub(super) fn lane_opened(&mut self, now: Now, call: CallId, lane: Lane, actions: &mut Vec<Action>) {
        let decoder = self.decoder();
        let Some(entry) = self.calls.get_mut(&call) else {
            return actions.push(Action::Abandon(lane, Code::CANCELLED));
        };
        let Some(first) = entry.unsent.take() else {
            return actions.push(Action::Abandon(lane, Code::INTERNAL));
        };
        entry.lane = Some(lane);
        self.lanes.insert(lane, LaneState::new(decoder, Some(call)));
        if !self.write(lane, *first, actions) {
            self.lanes.remove(&lane);
            actions.push(Action::Abandon(lane, Code::INTERNAL));
            return self.lose(now, call, actions);
        }
        self.drive(now, call, stream::Event::Attached, actions);
    }

    /// Nothing more is sent for this call: its own lane ends behind what was written.
    pub(super) fn release_lane(&mut self, call: CallId, actions: &mut Vec<Action>) {
        let Some(lane) = self.calls.get(&call).and_then(|call| call.lane) else {
            return;
        };
        if lane == Lane::SHARED {
            return;
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.out.finish = true;
            self.tell(lane, actions);
        }
    }

    /// What else the peer sends for this call is of no interest.
    pub(super) fn stop_reading(&mut self, lane: Lane, actions: &mut Vec<Action>) {
        if lane == Lane::SHARED {
            return;
        }
        let over = self.phase == Phase::Over;
        if let Some(state) = self.lanes.get_mut(&lane)
            && !std::mem::replace(&mut state.read_over, true)
        {
            state.held = None;
            if over {
                return;
            }
            actions.push(Action::Stop(lane, Code::CANCELLED));
        }
    }

    /// All of a lane was written, up to its end.
    pub(super) fn finished_writing(&mut self, lane: Lane, actions: &mut Vec<Action>) {
        if self.lanes.get(&lane).is_some_and(|state| state.read_over) {
            self.remove_lane(lane, actions);
        }
    }

    /// There may be room on a lane for those that were refused.
    pub(super) fn room(&mut self, now: Now, lane: Lane, actions: &mut Vec<Action>) {
        let low = self.config.limits.outbox / 2;
        while let Some(state) = self.lanes.get_mut(&lane)
            && state.out.queued() <= low
            && let Some(call) = state.waiting.pop_front()
        {
            if let Some(entry) = self.calls.get_mut(&call) {
                entry.blocked = false;
                self.drive(now, call, stream::Event::Writable(true), actions);
            }
        }
    }

    // ----- the table -----------------------------------------------------------------------------------------------

    pub(super) fn stream_config(
        &self,
        now: Now,
        deadline: Option<std::time::Duration>,
        idle: Option<std::time::Duration>,
    ) -> Config {
        Config {
            inbox_limit: self.config.limits.inbox,
            deadline: deadline.and_then(|after| now.mono.checked_add(after)),
            idle,
            ..Config::default()
        }
    }

    /// Keeps the deadline of a call where it is found.
    pub(super) fn schedule(&mut self, call: CallId) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        let deadline = match &entry.body {
            Body::Stream(machine) => machine.poll_timeout(),
            Body::Unary(unary) => unary.deadline(),
        };
        self.deadlines.update(call, entry.deadline, deadline);
        entry.deadline = deadline;
    }

    pub(super) fn drop_call(&mut self, call: CallId) {
        let Some(gone) = self.calls.remove(&call) else { return };
        self.deadlines.update(call, gone.deadline, None);
        self.waiting = self.waiting.saturating_sub(gone.inbox);
        match &gone.body {
            Body::Stream(machine) => _ = self.by_stream.remove(&machine.id()),
            Body::Unary(unary) => _ = self.by_call.remove(&unary.id),
        }
        if let Some(lane) = gone.lane
            && let Some(state) = self.lanes.get_mut(&lane)
            && lane != Lane::SHARED
        {
            state.call = None;
            state.held = None;
        }
    }

    /// Where a stream of this kind is in the table, for a message that came on `lane`.
    pub(super) fn find(&self, lane: Lane, stream: StreamId) -> Option<CallId> {
        if let Some(call) = self.lanes.get(&lane).and_then(|state| state.call)
            && let Some(Body::Stream(machine)) = self.calls.get(&call).map(|call| &call.body)
            && machine.id() == stream
        {
            return Some(call);
        }
        let call = *self.by_stream.get(&stream)?;
        // A call with a lane of its own is not to be reached on another.
        (self.calls.get(&call)?.lane == Some(lane)).then_some(call)
    }

    /// A streaming call that came in.
    pub(super) fn incoming_stream(
        &mut self,
        now: Now,
        lane: Lane,
        stream: StreamId,
        mode: Mode,
        shared: &mut Shared,
    ) -> CallId {
        let id = shared.next_call();
        let machine = Stream::new(
            stream,
            Role::Server,
            mode,
            self.stream_config(now, None, None),
            now.mono,
        );
        let mut call = Call::new(Body::Stream(Box::new(machine)));
        call.lane = Some(lane);
        self.calls.insert(id, call);
        self.by_stream.insert(stream, id);
        if lane != Lane::SHARED
            && let Some(state) = self.lanes.get_mut(&lane)
        {
            state.call = Some(id);
        }
        id
    }

    pub(super) fn lane_arrived(&mut self, lane: Lane, actions: &mut Vec<Action>) {
        let able = self.medium == Medium::Streams && self.config.stream_per_call;
        let welcome = able && (self.per_call || self.side == Side::Dialler && self.phase == Phase::Greeting);
        if !welcome || lane == Lane::SHARED {
            return actions.push(Action::Abandon(lane, Code::REFUSED));
        }
        // Some more than there may be calls, so that those above can be refused by name.
        if self.lanes.len() > self.config.limits.calls.saturating_add(REFUSALS) {
            return actions.push(Action::Abandon(lane, Code::LIMIT));
        }
        let state = LaneState::new(self.decoder(), None);
        self.lanes.insert(lane, state);
        actions.push(Action::Read(lane));
    }

    /// Bytes are of no use for a call that is over; they are for one that is known.
    pub(super) fn deliverable(&self, call: CallId) -> bool {
        let Some(entry) = self.calls.get(&call) else {
            return true;
        };
        match &entry.body {
            Body::Stream(machine) => {
                machine.inbox_has_room() && (entry.inbox == 0 || self.waiting < self.config.limits.waiting)
            }
            Body::Unary(_) => true,
        }
    }
}

/// The bytes of an error that a peer gets for a call that nobody serves.
pub(super) fn not_found() -> Fault {
    Fault::from_static("not_found", "procedure not advertised")
}

/// A name that costs nothing.
pub(super) const fn name(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
