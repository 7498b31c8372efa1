//! Sessions: all calls of one link, over whatever carries it.
//!
//! A session turns calls into messages and messages into calls. It knows streams of bytes only as numbered [`Lane`]s: whoever runs
//! it hands in what was read of them, and pulls what is to be written. One lane is always there; on it the dialler introduces
//! itself, and all calls travel, unless both ends can give each call a lane of its own.
//!
//! ```text
//!   Fresh ── Start ──> Greeting ── the first answer ──> Up ── calls
//!                         │ (a dialler)                  │
//!                         └──────── Lost, close ─────────┴──> Over: one `Ended`
//! ```
//!
//! **Back-pressure.** A chunk for a call whose inbox is full stays where it is, and its lane is not read before there is room: the
//! windows of QUIC do the rest. Where calls share a lane, that holds them all up; a call that does so for longer than
//! [`RpcLimits::stall`](crate::rpc::RpcLimits::stall) is aborted with the code `limit`.

mod calls;
mod greeting;
mod inbound;
mod lane;
mod types;
mod unary;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use crate::{
    Code, Now, Rng,
    deadlines::{Deadlines, earliest},
    rpc::{
        Chunk, Fault, Info, Outcome, RecvError, ReplyError, RpcConfig, SendError, StreamId,
        stream::{self, Loss},
    },
    wire::{
        DecodeLimits, Encoding,
        rpc::{Decoder, Message},
    },
};
use calls::Call;
use greeting::Greeting;
use lane::LaneState;
pub use types::{
    Action, CallId, EndReason, Event, Incoming, Lane, LaneEnd, Medium, OpenError, PeerHello, Request, Room,
    SessionStats, Shared, Side,
};

/// Longest name of a procedure, in bytes.
const MAX_PROCEDURE: usize = 1024;

/// All calls of one link.
#[derive(Debug)]
pub struct Session {
    side: Side,
    medium: Medium,
    config: RpcConfig,
    rng: Rng,
    phase: Phase,
    greeting: Greeting,
    encoding: Encoding,
    per_call: bool,
    lanes: BTreeMap<Lane, LaneState>,
    calls: BTreeMap<CallId, Call>,
    by_stream: HashMap<StreamId, CallId>,
    by_call: HashMap<Bytes, CallId>,
    /// Bytes that wait to be fetched.
    waiting: usize,
    deadlines: Deadlines<CallId>,
    /// Lanes that are held up because too much waits to be fetched.
    starved: VecDeque<Lane>,
    /// Since when the shared lane is held up.
    stalled: Option<Instant>,
    stats: SessionStats,
    scratch: Vec<stream::Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fresh,
    Greeting,
    Up,
    Over,
}

impl Session {
    /// A session that waits for [`Event::Start`].
    pub fn new(side: Side, medium: Medium, config: RpcConfig, rng: Rng) -> Self {
        let mut session = Self {
            side,
            medium,
            encoding: greeting::first_encoding(&config),
            config,
            rng,
            phase: Phase::Fresh,
            greeting: Greeting::default(),
            per_call: false,
            lanes: BTreeMap::new(),
            calls: BTreeMap::new(),
            by_stream: HashMap::new(),
            by_call: HashMap::new(),
            waiting: 0,
            deadlines: Deadlines::default(),
            starved: VecDeque::new(),
            stalled: None,
            stats: SessionStats::default(),
            scratch: Vec::new(),
        };
        let shared = LaneState::new(session.decoder(), None);
        session.lanes.insert(Lane::SHARED, shared);
        session
    }

    // ----- what happens below --------------------------------------------------------------------------------------

    /// Takes an event, and appends what is to be done about it.
    pub fn handle(&mut self, now: Now, event: Event, shared: &mut Shared, actions: &mut Vec<Action>) {
        if self.phase == Phase::Over {
            return;
        }
        match event {
            Event::Start => self.start(now, actions),
            Event::Received(lane, bytes) => self.received(now, lane, bytes, shared, actions),
            Event::LaneEnded(lane, end) => self.lane_ended(now, lane, end, actions),
            Event::LaneOpened(call, lane) => self.lane_opened(now, call, lane, actions),
            Event::LaneOpenFailed(call) => self.lose(now, call, actions),
            Event::LaneArrived(lane) => self.lane_arrived(lane, actions),
            Event::Message(message) => self.frame(now, *message, shared, actions),
            Event::Lost(reason) => self.end(now, reason, actions),
            Event::Timeout => self.timeout(now, shared, actions),
        }
    }

    /// Whether bytes of this lane can be taken now. [`Action::Read`] says when they can again.
    pub fn wants(&self, lane: Lane) -> bool {
        self.phase != Phase::Over
            && self
                .lanes
                .get(&lane)
                .is_some_and(|lane| lane.held.is_none() && !lane.read_over)
    }

    /// What waits to be written on a lane, in order. Cut off what was written, and call [`wrote`](Self::wrote).
    pub fn output(&mut self, lane: Lane) -> &mut [Bytes] {
        match self.lanes.get_mut(&lane) {
            Some(lane) => lane.out.blocks(),
            None => &mut [],
        }
    }

    /// Some of the [`output`](Self::output) of a lane was written. True when all was, and the direction shall be finished.
    pub fn wrote(&mut self, now: Now, lane: Lane, actions: &mut Vec<Action>) -> bool {
        let Some(state) = self.lanes.get_mut(&lane) else {
            return false;
        };
        state.out.wrote();
        state.out.told = !state.out.is_empty();
        let finish = state.out.is_empty() && state.out.finish;
        self.room(now, lane, actions);
        if finish {
            self.finished_writing(lane, actions);
        }
        finish
    }

    /// The next message for [`Medium::Frames`].
    pub fn next_frame(&mut self, now: Now, actions: &mut Vec<Action>) -> Option<Message> {
        let state = self.lanes.get_mut(&Lane::SHARED)?;
        let message = state.out.next_frame();
        if message.is_none() {
            state.out.told = false;
        }
        self.room(now, Lane::SHARED, actions);
        message
    }

    /// Gives back a message that the carrier had no room for; it comes first when [`next_frame`](Self::next_frame) is asked again.
    pub fn unsent_frame(&mut self, message: Message) {
        if let Some(state) = self.lanes.get_mut(&Lane::SHARED) {
            state.out.unshift_frame(message);
        }
    }

    /// A message of [`Medium::Frames`] cannot be written: its call is given up.
    pub fn unsendable(&mut self, now: Now, message: &Message, actions: &mut Vec<Action>) {
        let fault = Fault::from_static("bad_value", "a value of the call cannot be sent in a signed frame");
        let call = match message {
            Message::Call(call) => self.by_call.get(&call.call_id).copied(),
            message => message.stream().and_then(|stream| self.by_stream.get(&stream).copied()),
        };
        if let Message::Reply(reply) = message {
            let call_id = reply.call_id.clone();
            self.send_reply(Lane::SHARED, call_id, Outcome::Err(fault), None, actions);
        } else if let Some(call) = call {
            self.abort_call(now, call, fault, actions);
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Over {
            return None;
        }
        let stall = self
            .stalled
            .and_then(|since| since.checked_add(self.config.limits.stall));
        earliest(earliest(self.deadlines.earliest(), self.greeting.deadline()), stall)
    }

    // ----- what the owner wants ------------------------------------------------------------------------------------

    /// Whether calls can be made.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether each call has a lane of its own.
    pub fn is_per_call(&self) -> bool {
        self.per_call
    }

    /// Calls that are known here: those that are not over, and those that are and were not forgotten.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        self.lanes.values().map(|lane| lane.out.queued()).sum()
    }

    /// Bytes of chunks that wait to be fetched.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Counters.
    pub fn stats(&self) -> SessionStats {
        self.stats
    }

    /// Makes a call.
    ///
    /// # Errors
    /// [`OpenError`]: it was not made.
    pub fn open(
        &mut self,
        now: Now,
        request: Request,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) -> Result<CallId, OpenError> {
        self.open_call(now, request, shared, actions)
    }

    /// Sends a chunk.
    ///
    /// # Errors
    /// [`SendError`]: it was not taken.
    pub fn send(
        &mut self,
        now: Now,
        call: CallId,
        chunk: Chunk,
        actions: &mut Vec<Action>,
    ) -> Result<(), (SendError, Chunk)> {
        self.send_chunk(now, call, chunk, actions)
    }

    /// Sends chunks in one go, all of them, even if more wait to be written than may: whoever uses it bounds how many there are.
    ///
    /// # Errors
    /// [`SendError`], never [`SendError::WouldBlock`]. The chunks that were not sent are left.
    pub fn send_all(
        &mut self,
        now: Now,
        call: CallId,
        chunks: &mut VecDeque<Chunk>,
        actions: &mut Vec<Action>,
    ) -> Result<(), SendError> {
        self.send_chunks(now, call, chunks, actions)
    }

    /// Appends the next chunks to `out`, as many as are there and `room` allows, at least one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), with nothing appended.
    pub fn recv_many(
        &mut self,
        now: Now,
        call: CallId,
        room: Room,
        out: &mut VecDeque<Chunk>,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) -> Result<(), RecvError> {
        let received = self.recv_chunks(now, call, room, out, actions);
        self.resume(now, call, shared, actions);
        received
    }

    /// The next chunk.
    ///
    /// # Errors
    /// [`RecvError::WouldBlock`] when there is none now; [`RecvError::Eof`] behind the last; what went wrong otherwise.
    pub fn recv(
        &mut self,
        now: Now,
        call: CallId,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) -> Result<Chunk, RecvError> {
        let received = self.recv_chunk(now, call, actions);
        self.resume(now, call, shared, actions);
        received
    }

    /// No more chunks will be sent. Idempotent.
    pub fn finish(&mut self, now: Now, call: CallId, actions: &mut Vec<Action>) {
        self.drive(now, call, stream::Event::CloseSend, actions);
    }

    /// The reply; `None` while there is none.
    pub fn reply(&mut self, now: Now, call: CallId, actions: &mut Vec<Action>) -> Option<Result<Outcome, ReplyError>> {
        self.take_reply(now, call, actions)
    }

    /// Settles the reply of a call that came in. `false` if it was settled or over before, or is not of that kind.
    pub fn set_reply(&mut self, now: Now, call: CallId, outcome: Outcome, actions: &mut Vec<Action>) -> bool {
        self.settle(now, call, outcome, actions)
    }

    /// Ends both directions of a call in good order. Idempotent.
    pub fn close(&mut self, now: Now, call: CallId, actions: &mut Vec<Action>) {
        self.drive(now, call, stream::Event::Close, actions);
    }

    /// Ends a call with an error that the peer sees.
    pub fn abort(&mut self, now: Now, call: CallId, fault: Fault, actions: &mut Vec<Action>) {
        self.abort_call(now, call, fault, actions);
    }

    /// Forgets a call: nothing more is heard of it. One that is not over is given up.
    pub fn forget(&mut self, now: Now, call: CallId, shared: &mut Shared, actions: &mut Vec<Action>) {
        self.forget_call(now, call, actions);
        self.resume(now, call, shared, actions);
    }

    /// A streaming call at a glance.
    pub fn call_info(&self, call: CallId) -> Option<Info> {
        self.calls.get(&call).and_then(Call::info)
    }

    /// Registers a procedure at a router across. `false` when the session is not up.
    pub fn register(&mut self, procedure: &[u8], actions: &mut Vec<Action>) -> bool {
        let procedure = Bytes::copy_from_slice(procedure);
        self.is_up() && self.write(Lane::SHARED, Message::RegisterProcedure { procedure }, actions)
    }

    /// Sends a ping; [`Action::Pong`] follows. `false` when the session is not up or has no pings.
    pub fn ping(&mut self, now: Now, actions: &mut Vec<Action>) -> bool {
        self.is_up() && self.medium != Medium::Frames && self.send_ping(now, actions)
    }

    /// Ends the session in good order: the peer is told, all calls end.
    pub fn disconnect(&mut self, now: Now, code: Code, actions: &mut Vec<Action>) {
        if self.phase == Phase::Over {
            return;
        }
        if self.phase == Phase::Up && self.medium != Medium::Frames {
            let farewell = Message::Disconnect {
                reason: Some(Bytes::from_static(b"normal")),
                message: Some(Bytes::new()),
            };
            self.write(Lane::SHARED, farewell, actions);
        }
        actions.push(Action::Close {
            code,
            reason: "closed",
            linger: true,
        });
        self.end(now, EndReason::Closed, actions);
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    /// A lane is over both ways.
    fn remove_lane(&mut self, lane: Lane, actions: &mut Vec<Action>) {
        if self.lanes.remove(&lane).is_some() {
            actions.push(Action::Release(lane));
        }
    }

    fn decoder(&self) -> Decoder {
        Decoder::new(self.config.limits.message, DecodeLimits::default())
    }

    /// Queues a message on a lane; `false` when it cannot be written.
    fn write(&mut self, lane: Lane, message: Message, actions: &mut Vec<Action>) -> bool {
        let (encoding, max) = (self.encoding, self.config.limits.message);
        let frames = self.medium == Medium::Frames;
        let Some(state) = self.lanes.get_mut(&lane) else {
            return false;
        };
        if frames {
            state.out.push_frame(message);
        } else if state.out.push(&message, encoding, max).is_err() {
            return false;
        }
        self.stats.messages_out += 1;
        self.tell(lane, actions);
        true
    }

    /// Tells that there is something to write, once, and not when it is over: nothing comes behind the end.
    fn tell(&mut self, lane: Lane, actions: &mut Vec<Action>) {
        if self.phase == Phase::Over {
            return;
        }
        if let Some(state) = self.lanes.get_mut(&lane)
            && !std::mem::replace(&mut state.out.told, true)
        {
            actions.push(Action::Write(lane));
        }
    }

    /// The peer broke the protocol.
    fn fail(&mut self, now: Now, why: String, actions: &mut Vec<Action>) {
        actions.push(Action::Close {
            code: Code::PROTOCOL,
            reason: "protocol",
            linger: false,
        });
        self.end(now, EndReason::Protocol(why), actions);
    }

    /// It is over, for all calls too.
    fn end(&mut self, now: Now, reason: EndReason, actions: &mut Vec<Action>) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for call in calls {
            self.lose(now, call, actions);
        }
        for lane in self.lanes.values_mut() {
            lane.held = None;
            lane.waiting.clear();
        }
        actions.push(Action::Ended(reason));
    }

    /// The way to the peer is gone for this call.
    fn lose(&mut self, now: Now, call: CallId, actions: &mut Vec<Action>) {
        let loss = Loss::Connection(Fault::disconnected());
        self.drive(now, call, stream::Event::CarrierLost(loss), actions);
        self.lose_unary(call, Fault::disconnected(), actions);
    }

    fn timeout(&mut self, now: Now, shared: &mut Shared, actions: &mut Vec<Action>) {
        while let Some(call) = self.deadlines.pop_due(now.mono) {
            if let Some(call) = self.calls.get_mut(&call) {
                call.deadline = None;
            }
            self.drive(now, call, stream::Event::Timeout, actions);
            self.expire_unary(now, call, actions);
        }
        let limit = self.config.limits.stall;
        if self
            .stalled
            .is_some_and(|since| now.mono.saturating_duration_since(since) >= limit)
        {
            self.unstall(now, shared, actions);
        }
        self.greeting_timeout(now, actions);
    }
}
