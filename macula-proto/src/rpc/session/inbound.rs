//! What the peer says, message by message.

use bytes::Bytes;

use super::{
    Phase, Session,
    calls::{Body, not_found},
    types::{Action, CallId, EndReason, Incoming, Lane, LaneEnd, Medium, Shared},
};
use crate::{
    Code, Now,
    rpc::{
        Chunk, Fault, Kind, Outcome, StreamId,
        stream::{self, Loss},
    },
    wire::{
        DecodeLimits, Encoding, Value,
        rpc::{Bad, Call as CallMessage, Copies, Message, Run, StreamOpen, unpack_args},
    },
};

impl Session {
    pub(super) fn received(
        &mut self,
        now: Now,
        lane: Lane,
        bytes: Bytes,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        state.decoder.push(bytes);
        self.pump(now, lane, shared, actions);
    }

    /// Takes messages of a lane until there is none, or one finds no room.
    fn pump(&mut self, now: Now, lane: Lane, shared: &mut Shared, actions: &mut Vec<Action>) {
        while self.phase != Phase::Over
            && let Some(state) = self.lanes.get(&lane)
            && state.held.is_none()
        {
            if state.decoder.may_be_chunk() {
                self.take_run(now, lane, actions);
            }
            let next = self.lanes.get_mut(&lane).and_then(|state| state.decoder.next());
            let Some(next) = next else { return };
            self.stats.messages_in += 1;
            match next {
                Ok((message, encoding)) => self.message(now, lane, message, encoding, shared, actions),
                Err(bad) => self.bad(now, lane, &bad, actions),
            }
        }
    }

    /// Takes raw chunks of the call that the last one was for, as long as they are small, in order, and find room. Where that ends,
    /// [`pump`](Self::pump) goes on message by message.
    fn take_run(&mut self, now: Now, lane: Lane, actions: &mut Vec<Action>) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        let Some(call) = state.latest else { return };
        let Some(entry) = self.calls.get_mut(&call) else { return };
        let Body::Stream(machine) = &mut entry.body else { return };
        let Some(mut number) = machine.takes_run() else { return };
        if self.phase != Phase::Up || entry.lane != Some(lane) {
            return;
        }
        let run = Run {
            stream: machine.id(),
            encoding: self.encoding,
        };
        let mut copies = Copies::default();
        let mut todo = std::mem::take(&mut self.scratch);
        let others = self.waiting.saturating_sub(entry.inbox);
        let mut taken = 0;
        while machine.inbox_has_room()
            && (machine.inbox_bytes() == 0 || others + machine.inbox_bytes() < self.config.limits.waiting)
            && let Some(body) = state.decoder.next_chunk(run, number, &mut copies)
        {
            number = machine.take_next(now.mono, Chunk::Raw(body), &mut todo);
            taken += 1;
        }
        if taken > 0 {
            self.stats.messages_in += taken;
            self.greeting.heard = true;
        }
        self.applied(call, todo, actions);
    }

    /// A message of a carrier of frames.
    pub(super) fn frame(&mut self, now: Now, message: Message, shared: &mut Shared, actions: &mut Vec<Action>) {
        self.stats.messages_in += 1;
        let encoding = self.encoding;
        self.message(now, Lane::SHARED, message, encoding, shared, actions);
    }

    /// Goes on where a call held up its lane, if it does no more.
    pub(super) fn resume(&mut self, now: Now, call: CallId, shared: &mut Shared, actions: &mut Vec<Action>) {
        let own = self.calls.get(&call).and_then(|call| call.lane);
        if let Some(lane) = own {
            self.release(now, lane, shared, actions);
        }
        if own != Some(Lane::SHARED) {
            self.release(now, Lane::SHARED, shared, actions);
        }
        if self.waiting < self.config.limits.waiting {
            while let Some(lane) = self.starved.pop_front() {
                if let Some(state) = self.lanes.get_mut(&lane) {
                    state.starved = false;
                }
                self.release(now, lane, shared, actions);
                if self.waiting >= self.config.limits.waiting {
                    break;
                }
            }
        }
    }

    /// Delivers the message that holds up a lane, if it finds room now.
    fn release(&mut self, now: Now, lane: Lane, shared: &mut Shared, actions: &mut Vec<Action>) {
        let ready = match self.lanes.get(&lane).map(|state| &state.held) {
            Some(Some((call, _))) => self.deliverable(*call),
            _ => return,
        };
        if !ready {
            return;
        }
        let Some((call, message)) = self.lanes.get_mut(&lane).and_then(|state| state.held.take()) else {
            return;
        };
        if lane == Lane::SHARED {
            self.stalled = None;
        }
        self.deliver(now, call, message, actions);
        self.pump(now, lane, shared, actions);
        if self.wants(lane) {
            actions.push(Action::Read(lane));
        }
    }

    /// A call held up the shared lane for too long.
    pub(super) fn unstall(&mut self, now: Now, shared: &mut Shared, actions: &mut Vec<Action>) {
        self.stalled = None;
        let Some((call, _)) = self.lanes.get(&Lane::SHARED).and_then(|state| state.held.as_ref()) else {
            return;
        };
        let call = *call;
        self.stats.stalled += 1;
        let fault = Fault::from_static("limit", "the call was not read and held up others");
        self.abort_call(now, call, fault, actions);
        self.release(now, Lane::SHARED, shared, actions);
    }

    fn bad(&mut self, now: Now, lane: Lane, bad: &Bad, actions: &mut Vec<Action>) {
        self.stats.malformed += 1;
        if bad.is_fatal() || self.stats.malformed > u64::from(self.config.limits.malformed) {
            return self.fail(now, bad.error.to_string(), actions);
        }
        let Some(stream) = bad.stream else { return };
        let fault = Fault::new("bad_message", bad.error.to_string());
        match self.find(lane, stream) {
            Some(call) => self.abort_call(now, call, fault, actions),
            None => _ = self.write(lane, Message::StreamError { stream, fault }, actions),
        }
    }

    fn message(
        &mut self,
        now: Now,
        lane: Lane,
        message: Message,
        encoding: Encoding,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) {
        if self.medium != Medium::Frames {
            self.heard(now, encoding, matches!(message, Message::Connect(_)), actions);
        }
        match message {
            Message::StreamData(ref data) => self.for_stream(now, lane, data.stream, message, actions),
            Message::StreamEnd { stream, .. }
            | Message::StreamError { stream, .. }
            | Message::StreamReply { stream, .. } => self.for_stream(now, lane, stream, message, actions),
            Message::StreamOpen(open) => self.stream_opened(now, lane, open, shared, actions),
            Message::Call(call) => self.called(now, lane, call, shared, actions),
            Message::Reply(reply) => self.unary_reply(reply, actions),
            Message::Cast { procedure, args } => {
                let cast = CallMessage {
                    call_id: Bytes::new(),
                    procedure,
                    args,
                    target: None,
                    timeout: None,
                    trace: None,
                };
                self.called(now, lane, cast, shared, actions);
            }
            Message::Ping { timestamp } => {
                let server_time = Some(now.unix_ms);
                self.write(lane, Message::Pong { timestamp, server_time }, actions);
            }
            Message::Pong { timestamp, .. } => self.ponged(now, timestamp, actions),
            Message::Connect(connect) => self.connected(now, connect, actions),
            Message::Disconnect { reason, .. } => {
                actions.push(Action::Close {
                    code: Code::CLOSED,
                    reason: "bye",
                    linger: false,
                });
                self.end(now, EndReason::Disconnected(reason.unwrap_or_default()), actions);
            }
            _ => self.stats.ignored += 1,
        }
    }

    /// A message of a call that should be known.
    fn for_stream(&mut self, now: Now, lane: Lane, stream: StreamId, message: Message, actions: &mut Vec<Action>) {
        let Some(call) = self.find(lane, stream) else {
            self.stats.stray += 1;
            return;
        };
        let data = matches!(message, Message::StreamData(_));
        if data && let Some(state) = self.lanes.get_mut(&lane) {
            state.latest = Some(call);
        }
        if data && !self.deliverable(call) {
            let starves = self.waiting >= self.config.limits.waiting;
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.held = Some((call, message));
                if starves && !std::mem::replace(&mut state.starved, true) {
                    self.starved.push_back(lane);
                }
            }
            if lane == Lane::SHARED {
                self.stalled = Some(now.mono);
            }
            return;
        }
        self.deliver(now, call, message, actions);
    }

    fn deliver(&mut self, now: Now, call: CallId, message: Message, actions: &mut Vec<Action>) {
        let event = match message {
            Message::StreamData(data) => stream::Event::PeerData {
                seq: data.seq,
                chunk: data.chunk,
            },
            Message::StreamEnd { role, .. } => stream::Event::PeerEnd(role),
            Message::StreamError { fault, .. } => stream::Event::PeerError(fault),
            Message::StreamReply { outcome, .. } => stream::Event::PeerReply(outcome),
            _ => return,
        };
        self.drive(now, call, event, actions);
    }

    // ----- calls that come in --------------------------------------------------------------------------------------

    fn stream_opened(
        &mut self,
        now: Now,
        lane: Lane,
        open: StreamOpen,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) {
        let stream = open.stream;
        let refused = match shared.registry.kind(&open.procedure) {
            _ if self.by_stream.contains_key(&stream) || self.lane_taken(lane) => {
                self.stats.stray += 1;
                Some(Fault::from_static("duplicate", "there is a call of this id"))
            }
            _ if self.calls.len() >= self.config.limits.calls => {
                self.stats.over_limit += 1;
                Some(Fault::from_static("limit", "too many calls"))
            }
            Some(Kind::Stream(mode)) => {
                self.stats.calls_in += 1;
                let call = self.incoming_stream(now, lane, stream, mode, shared);
                self.announce(call, open.procedure, Kind::Stream(mode), open.args, None, actions);
                self.drive(now, call, stream::Event::Attached, actions);
                self.schedule(call);
                None
            }
            _ => {
                self.stats.not_found += 1;
                Some(not_found())
            }
        };
        if let Some(fault) = refused {
            self.write(lane, Message::StreamError { stream, fault }, actions);
            self.close_refused(lane, actions);
        }
    }

    fn called(&mut self, now: Now, lane: Lane, call: CallMessage, shared: &mut Shared, actions: &mut Vec<Action>) {
        let refused = match shared.registry.kind(&call.procedure) {
            _ if self.lane_taken(lane) => {
                self.stats.stray += 1;
                return;
            }
            _ if self.calls.len() >= self.config.limits.calls => {
                self.stats.over_limit += 1;
                Fault::from_static("limit", "too many calls")
            }
            Some(Kind::Unary) => {
                self.stats.calls_in += 1;
                let timeout = call.timeout;
                let id = self.incoming_unary(now, lane, call.call_id, call.trace, timeout, shared);
                return self.announce(id, call.procedure, Kind::Unary, call.args, timeout, actions);
            }
            _ => {
                self.stats.not_found += 1;
                not_found()
            }
        };
        if !call.call_id.is_empty() {
            self.send_reply(lane, call.call_id, Outcome::Err(refused), call.trace, actions);
        }
        self.close_refused(lane, actions);
    }

    fn announce(
        &mut self,
        call: CallId,
        procedure: Bytes,
        kind: Kind,
        args: Value,
        timeout: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        let term = unpack_args(&args, self.encoding, &DecodeLimits::default());
        actions.push(Action::Incoming(Box::new(Incoming {
            call,
            procedure,
            kind,
            args,
            term,
            timeout: timeout.map(std::time::Duration::from_millis),
        })));
    }

    /// A lane of its own carries one call.
    fn lane_taken(&self, lane: Lane) -> bool {
        lane != Lane::SHARED && self.lanes.get(&lane).is_some_and(|state| state.call.is_some())
    }

    /// A lane of its own has no use when its call was refused.
    fn close_refused(&mut self, lane: Lane, actions: &mut Vec<Action>) {
        if lane == Lane::SHARED || self.lane_taken(lane) {
            return;
        }
        self.stop_reading(lane, actions);
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.out.finish = true;
        }
        self.tell(lane, actions);
    }

    // ----- ends of lanes -------------------------------------------------------------------------------------------

    pub(super) fn lane_ended(&mut self, now: Now, lane: Lane, end: LaneEnd, actions: &mut Vec<Action>) {
        if lane == Lane::SHARED {
            let code = match end {
                LaneEnd::Finished => Code::CLOSED,
                LaneEnd::Reset(code) | LaneEnd::Stopped(code) => code,
            };
            actions.push(Action::Close {
                code: Code::CLOSED,
                reason: "bye",
                linger: false,
            });
            return self.end(now, EndReason::PeerClosed(code), actions);
        }
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        let call = state.call;
        match end {
            LaneEnd::Stopped(_) => {
                // What waits will not be taken. Why, is said on the other direction.
                state.out.clear();
                state.out.finish = true;
                if state.read_over {
                    self.remove_lane(lane, actions);
                }
            }
            LaneEnd::Finished | LaneEnd::Reset(_) => {
                state.read_over = true;
                state.held = None;
                let written = state.out.finish && state.out.is_empty() && !state.out.told;
                if let Some(call) = call {
                    self.cut_off(now, call, end, actions);
                }
                if written {
                    self.remove_lane(lane, actions);
                }
            }
        }
    }

    /// No more can come for a call. If it is not over by what came, it was cut off.
    fn cut_off(&mut self, now: Now, call: CallId, end: LaneEnd, actions: &mut Vec<Action>) {
        let fault = match end {
            LaneEnd::Reset(Code::LIMIT) => Fault::from_static("limit", "too many calls"),
            LaneEnd::Reset(Code::CANCELLED) => Fault::cancelled(),
            LaneEnd::Reset(Code::TIMEOUT) => Fault::from_static("timeout", "no reply in time"),
            _ => Fault::from_static("disconnected", "the stream of the call ended"),
        };
        let loss = Loss::Connection(fault.clone());
        self.drive(now, call, stream::Event::CarrierLost(loss), actions);
        // One who asks has said everything with the first message, and may end its direction behind it.
        if !(end == LaneEnd::Finished && self.is_asked(call)) {
            self.lose_unary(call, fault, actions);
        }
    }
}
