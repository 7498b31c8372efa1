//! Both sides of a streaming call, joined by a carrier that is late, full, lost and rude.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use macula_proto::{
    rpc::{
        Chunk, EndRole, Fault, Mode, Outcome, StreamId,
        stream::{Action, Config, Event, Loss, Output, Role, Stream, WaiterId},
    },
    wire::Value,
};

use crate::script::{ms, operations, start};

#[derive(Debug, Arbitrary)]
struct Setup {
    mode: u8,
    inbox: [u16; 2],
    waiters: [u8; 2],
    deadline: [Option<u8>; 2],
    idle: [Option<u8>; 2],
    attached: bool,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Send {
        side: bool,
        size: u8,
        term: bool,
    },
    Deliver(bool),
    Recv(bool, Option<u8>),
    AwaitReply(bool, Option<u8>),
    CancelWait(bool, u8),
    CloseSend(bool),
    Close(bool),
    SetReply(bool),
    SetError(bool),
    Abort(bool),
    OwnerDown(bool),
    Attach(bool),
    Writable(bool, bool),
    Lose(bool),
    Sleep(u8),
    Due,
    /// What no peer said: a chunk so far from the one that is due, an end, an error, a reply.
    RudeData(bool, i8),
    RudeEnd(bool, bool),
    RudeError(bool),
    RudeReply(bool),
}

struct Side {
    stream: Stream,
    wire: VecDeque<Output>,
    sent: Vec<Chunk>,
    received: usize,
    waiting: BTreeSet<u64>,
    finished: bool,
    /// Ends, errors and replies that it said.
    words: usize,
    silent: bool,
}

struct Call {
    now: Instant,
    sides: [Side; 2],
    waiters: u64,
    chunks: u64,
    lost: bool,
    rude: bool,
}

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Chunks arrive in the order in which they were sent and none twice, unless somebody was rude; each receive has one answer; a
/// side says at most three words and nothing behind an error; it finishes once; what waits is bounded; nothing is due for ever.
pub fn rpc_stream(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(setup) = data.arbitrary::<Setup>() else { return };
    let mut call = Call::new(&setup);
    for op in operations::<Op>(data, 400) {
        call.apply(op);
    }
    call.finish();
}

impl Call {
    fn new(setup: &Setup) -> Self {
        let now = start().mono;
        let mode = [Mode::Bidi, Mode::ServerStream, Mode::ClientStream][usize::from(setup.mode % 3)];
        let side = |side: usize| {
            let config = Config {
                inbox_limit: usize::from(setup.inbox[side]),
                waiters: u32::from(setup.waiters[side] % 8),
                deadline: setup.deadline[side].map(|after| now + ms(u64::from(after) * 20)),
                idle: setup.idle[side].map(|idle| ms(u64::from(idle) * 10)),
            };
            Side {
                stream: Stream::new(StreamId([7; 16]), ROLES[side], mode, config, now),
                wire: VecDeque::new(),
                sent: Vec::new(),
                received: 0,
                waiting: BTreeSet::new(),
                finished: false,
                words: 0,
                silent: false,
            }
        };
        let mut call = Self {
            now,
            sides: [side(0), side(1)],
            waiters: 0,
            chunks: 0,
            lost: false,
            rude: false,
        };
        if setup.attached {
            call.event(0, Event::Attached);
            call.event(1, Event::Attached);
        }
        call
    }

    fn apply(&mut self, op: Op) {
        let until = |now: Instant, after: Option<u8>| after.map(|after| now + ms(u64::from(after) * 4));
        match op {
            Op::Send { side, size, term } => {
                let chunk = self.chunk(size.into(), term);
                self.event(side.into(), Event::Send(chunk));
            }
            Op::Deliver(from) => self.deliver(from.into()),
            Op::Recv(side, after) => {
                let waiter = self.waiter(side.into());
                let until = until(self.now, after);
                self.event(side.into(), Event::Recv { waiter, until });
            }
            Op::AwaitReply(side, after) => {
                let waiter = self.waiter(side.into());
                let until = until(self.now, after);
                self.event(side.into(), Event::AwaitReply { waiter, until });
            }
            Op::CancelWait(side, back) => {
                let waiter = self.waiters.saturating_sub(back.into());
                self.sides[usize::from(side)].waiting.remove(&waiter);
                self.event(side.into(), Event::CancelWait(WaiterId(waiter)));
            }
            Op::CloseSend(side) => self.event(side.into(), Event::CloseSend),
            Op::Close(side) => self.event(side.into(), Event::Close),
            Op::SetReply(side) => self.event(side.into(), Event::SetReply(Value::Uint(1))),
            Op::SetError(side) => self.event(side.into(), Event::SetError(Fault::new("bad", "words"))),
            Op::Abort(side) => self.event(side.into(), Event::Abort(Fault::cancelled())),
            Op::OwnerDown(side) => self.event(side.into(), Event::OwnerDown),
            Op::Attach(side) => self.event(side.into(), Event::Attached),
            Op::Writable(side, writable) => self.event(side.into(), Event::Writable(writable)),
            Op::Lose(process) => {
                self.lost = true;
                for side in [0, 1] {
                    self.sides[side].wire.clear();
                    let loss = if process {
                        Loss::PeerDown
                    } else {
                        Loss::Connection(Fault::disconnected())
                    };
                    self.event(side, Event::CarrierLost(loss));
                }
            }
            Op::Sleep(steps) => self.wait(self.now + ms(u64::from(steps) * 5)),
            Op::Due => {
                let due = self.sides.iter().filter_map(|side| side.stream.poll_timeout()).min();
                self.wait(due.unwrap_or(self.now).max(self.now));
            }
            Op::RudeData(side, off) => {
                let seq = self.sides[usize::from(side)]
                    .stream
                    .info()
                    .seq_in
                    .wrapping_add_signed((off / 32).into());
                let chunk = self.chunk(10, false);
                self.rude(side.into(), Event::PeerData { seq, chunk });
            }
            Op::RudeEnd(side, both) => {
                let role = if both { EndRole::Both } else { EndRole::Send };
                self.rude(side.into(), Event::PeerEnd(role));
            }
            Op::RudeError(side) => self.rude(side.into(), Event::PeerError(Fault::cancelled())),
            Op::RudeReply(side) => self.rude(side.into(), Event::PeerReply(Outcome::Ok(Value::Null))),
        }
    }

    fn rude(&mut self, side: usize, event: Event) {
        self.rude = true;
        self.event(side, event);
    }

    fn chunk(&mut self, size: usize, term: bool) -> Chunk {
        self.chunks += 1;
        let mut bytes = self.chunks.to_be_bytes().to_vec();
        bytes.resize(size.max(8), 0);
        if term {
            Chunk::Term(Value::Array(vec![Value::bytes(bytes), Value::Null]))
        } else {
            Chunk::Raw(Bytes::from(bytes))
        }
    }

    fn waiter(&mut self, side: usize) -> WaiterId {
        self.waiters += 1;
        self.sides[side].waiting.insert(self.waiters);
        WaiterId(self.waiters)
    }

    fn deliver(&mut self, from: usize) {
        let to = 1 - from;
        let data = matches!(self.sides[from].wire.front(), Some(Output::Data { .. }));
        if self.lost || data && !self.sides[to].stream.inbox_has_room() {
            return;
        }
        if let Some(output) = self.sides[from].wire.pop_front() {
            self.event(to, output.into_event());
        }
    }

    fn wait(&mut self, until: Instant) {
        self.now = until;
        for side in [0, 1] {
            self.event(side, Event::Timeout);
            let due = self.sides[side].stream.poll_timeout();
            assert!(due.is_none_or(|due| due > until), "a deadline that is over");
        }
    }

    fn event(&mut self, side: usize, event: Event) {
        let mut actions = Vec::new();
        self.sides[side].stream.handle(self.now, event, &mut actions);
        for action in actions {
            self.act(side, action);
        }
        let (stream, rude) = (&self.sides[side].stream, self.rude);
        let info = stream.info();
        assert_eq!(stream.is_finished(), self.sides[side].finished);
        assert!(self.sides[side].finished || self.sides[side].waiting.len() == info.recv_waiters + info.reply_waiters);
        assert!(rude || info.seq_out as usize == self.sides[side].sent.len());
    }

    fn act(&mut self, side: usize, action: Action) {
        let finished = self.sides[side].finished;
        match action {
            Action::Emit(output) => {
                let state = &mut self.sides[side];
                assert!(!state.silent, "words behind the error: {output:?}");
                match &output {
                    Output::Data { seq, chunk } => {
                        assert_eq!(*seq as usize, state.sent.len(), "a chunk is missing");
                        state.sent.push(chunk.clone());
                    }
                    Output::Error(_) => {
                        state.words += 1;
                        state.silent = true;
                    }
                    Output::End(_) | Output::Reply(_) => state.words += 1,
                }
                assert!(state.words <= 3, "too many words");
                if !self.lost {
                    state.wire.push_back(output);
                }
            }
            Action::Received { waiter, result } => {
                assert!(self.sides[side].waiting.remove(&waiter.0), "a second answer");
                if let Ok(chunk) = result {
                    let place = self.sides[side].received;
                    self.sides[side].received += 1;
                    assert!(
                        self.rude || self.sides[1 - side].sent[place] == chunk,
                        "lost, doubled or out of order"
                    );
                }
            }
            Action::Replied { waiter, .. } => {
                assert!(self.sides[side].waiting.remove(&waiter.0), "a second answer");
            }
            Action::Finished => {
                assert!(!finished, "finished twice");
                self.sides[side].finished = true;
            }
            Action::SendRefused { .. }
            | Action::ReplyRefused
            | Action::Readable
            | Action::ReplyReady
            | Action::SendReady
            | Action::InboxFull
            | Action::InboxRoom => {}
        }
    }

    /// The owners let go: then nobody waits and nothing is due.
    fn finish(&mut self) {
        for side in [false, true] {
            self.apply(Op::OwnerDown(side));
            self.apply(Op::Lose(false));
        }
        for side in &self.sides {
            let info = side.stream.info();
            assert!(side.finished, "never finished: {info:?}");
            assert_eq!((info.recv_waiters, info.reply_waiters, info.inbox_bytes), (0, 0, 0));
            assert_eq!(side.stream.poll_timeout(), None);
        }
    }
}
