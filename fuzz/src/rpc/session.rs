//! Both ends of a link with all its calls, over streams, one stream or frames, and a peer that says what it should not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    rpc::{
        Chunk, Fault, Kind, Mode, Outcome, RecvError, RpcConfig, SendError,
        session::{Action, CallId, EndReason, Event, Lane, LaneEnd, Medium, OpenError, Request, Session, Shared, Side},
    },
    wire::{
        Encoding, Value,
        rpc::{EndRole, Message, StreamData, StreamId},
    },
};

use crate::script::{at, ms, operations, pick, start};

#[derive(Debug, Arbitrary)]
struct Setup {
    medium: u8,
    per_call: [bool; 2],
    inbox: [u8; 2],
    calls: [u8; 2],
    ping: [Option<u8>; 2],
}

#[derive(Debug, Arbitrary)]
enum Op {
    /// Everything that is written arrives.
    Settle,
    Open {
        end: bool,
        procedure: u8,
        deadline: Option<u8>,
    },
    Send {
        end: bool,
        call: u8,
        size: u8,
    },
    Recv {
        end: bool,
        call: u8,
    },
    Finish {
        end: bool,
        call: u8,
    },
    Reply {
        end: bool,
        call: u8,
    },
    SetReply {
        end: bool,
        call: u8,
        error: bool,
    },
    Close {
        end: bool,
        call: u8,
    },
    Abort {
        end: bool,
        call: u8,
    },
    Forget {
        end: bool,
        call: u8,
    },
    /// Bytes of one lane leave, and arrive.
    Write {
        end: bool,
        lane: u8,
        most: u16,
    },
    Deliver {
        end: bool,
        lane: u8,
        most: u8,
    },
    /// Streams that were asked for are there, or not.
    Lanes {
        end: bool,
        open: bool,
    },
    /// A message that the machine across did not write.
    Forge {
        end: bool,
        lane: u8,
        kind: u8,
        call: u8,
    },
    Raw {
        end: bool,
        lane: u8,
        bytes: Vec<u8>,
    },
    EndLane {
        end: bool,
        lane: u8,
        how: u8,
    },
    Ping(bool),
    Sleep(u8),
    Due,
    Disconnect(bool),
    Lose,
}

#[derive(Debug, Default)]
struct Wire {
    bytes: BytesMut,
    fin: bool,
}

struct End {
    session: Session,
    shared: Shared,
    calls: Vec<CallId>,
    open: BTreeSet<CallId>,
    finished: BTreeSet<CallId>,
    wanted: Vec<CallId>,
    lanes: BTreeSet<Lane>,
    /// Lanes that it is done with. Whatever is still on its way there is dropped.
    gone: BTreeSet<Lane>,
    over: bool,
}

impl End {
    fn leave(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
        self.gone.insert(lane);
    }
}

struct Link {
    now: Now,
    medium: Medium,
    ends: [End; 2],
    /// By the end that wrote.
    wires: BTreeMap<(usize, Lane), Wire>,
    frames: [VecDeque<Message>; 2],
    actions: VecDeque<(usize, Action)>,
    next_lane: u64,
    forged: bool,
}

const PROCEDURES: [(&[u8], Kind); 4] = [
    (b"echo", Kind::Stream(Mode::Bidi)),
    (b"sum", Kind::Stream(Mode::ClientStream)),
    (b"count", Kind::Stream(Mode::ServerStream)),
    (b"add", Kind::Unary),
];

/// Calls are made, answered and given up at both ends while bytes are cut, lanes end, and messages are made up. Each call
/// finishes at most once; a session ends once, says nothing afterwards and keeps nothing; what waits is bounded; and on a link
/// where nothing was made up, no end finds fault with what the other says.
pub fn rpc_session(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(setup) = data.arbitrary::<Setup>() else { return };
    let mut link = Link::new(&setup);
    for op in operations::<Op>(data, 300) {
        link.apply(op);
        link.work();
        link.check();
    }
    link.lose();
    for end in [0, 1] {
        // A call is finished once all that came of it was fetched.
        for call in link.ends[end].open.clone() {
            while link
                .with(end, |session, now, shared, actions| {
                    session.recv(now, call, shared, actions)
                })
                .is_ok()
            {}
            link.with(end, |session, now, _, actions| session.reply(now, call, actions));
        }
        link.work();
        let end = &link.ends[end];
        assert!(end.over, "never told of its end");
        assert_eq!(end.session.poll_timeout(), None);
        assert!(end.open.is_subset(&end.finished), "calls that never finish");
    }
}

impl Link {
    fn new(setup: &Setup) -> Self {
        let medium = [Medium::Streams, Medium::Single, Medium::Frames][usize::from(setup.medium % 3)];
        let end = |end: usize| {
            let mut config = RpcConfig::new([end as u8 + 1; 32]);
            config.stream_per_call = setup.per_call[end];
            config.limits.inbox = usize::from(setup.inbox[end]) * 8;
            config.limits.calls = usize::from(setup.calls[end] % 16) + 1;
            config.limits.waiting = 4096;
            config.limits.outbox = 2048;
            config.limits.message = 4096;
            config.limits.malformed = 2;
            config.ping_interval = setup.ping[end].map(|interval| ms(u64::from(interval) * 50 + 50));
            let mut shared = Shared::default();
            for (name, kind) in PROCEDURES {
                shared.registry.advertise(Bytes::from_static(name), kind);
            }
            let side = [Side::Dialler, Side::Acceptor][end];
            End {
                session: Session::new(side, medium, config, Rng::from_seed(end as u64)),
                shared,
                calls: Vec::new(),
                open: BTreeSet::new(),
                finished: BTreeSet::new(),
                wanted: Vec::new(),
                lanes: BTreeSet::from([Lane::SHARED]),
                gone: BTreeSet::new(),
                over: false,
            }
        };
        let mut link = Self {
            now: start(),
            medium,
            ends: [end(0), end(1)],
            wires: BTreeMap::new(),
            frames: Default::default(),
            actions: VecDeque::new(),
            next_lane: 1,
            forged: false,
        };
        for end in [0, 1] {
            link.event(end, Event::Start);
            link.work();
        }
        link
    }

    fn event(&mut self, end: usize, event: Event) {
        self.with(end, |session, now, shared, actions| {
            session.handle(now, event, shared, actions)
        });
    }

    fn with<T>(&mut self, end: usize, run: impl FnOnce(&mut Session, Now, &mut Shared, &mut Vec<Action>) -> T) -> T {
        let mut actions = Vec::new();
        let state = &mut self.ends[end];
        let result = run(&mut state.session, self.now, &mut state.shared, &mut actions);
        self.actions.extend(actions.into_iter().map(|action| (end, action)));
        result
    }

    fn lane(&self, end: usize, lane: u8) -> Lane {
        let lanes: Vec<_> = self.ends[end].lanes.iter().copied().collect();
        pick(&lanes, lane).copied().unwrap_or(Lane::SHARED)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Settle => self.settle(),
            Op::Open {
                end,
                procedure,
                deadline,
            } => self.open(end.into(), procedure, deadline),
            Op::Lanes { end, open } => self.answer(end.into(), open),
            Op::Write { end, lane, most } => {
                let lane = self.lane(end.into(), lane);
                self.write(end.into(), lane, usize::from(most));
            }
            Op::Deliver { end, lane, most } => {
                let lane = self.lane(end.into(), lane);
                self.deliver(end.into(), lane, usize::from(most) + 1);
            }
            Op::Forge { end, lane, kind, call } => self.forge(end.into(), lane, kind, call),
            Op::Raw { end, lane, bytes } => {
                let lane = self.lane(end.into(), lane);
                if self.medium != Medium::Frames && self.ends[usize::from(end)].session.wants(lane) {
                    self.forged = true;
                    self.event(end.into(), Event::Received(lane, bytes.into()));
                }
            }
            Op::EndLane { end, lane, how } => {
                self.forged = true;
                let lane = self.lane(end.into(), lane);
                let code = Code::CANCELLED;
                let how = [LaneEnd::Finished, LaneEnd::Reset(code), LaneEnd::Stopped(code)][usize::from(how % 3)];
                self.event(end.into(), Event::LaneEnded(lane, how));
            }
            Op::Ping(end) => {
                self.with(end.into(), |session, now, _, actions| session.ping(now, actions));
            }
            Op::Sleep(steps) => self.wait(self.now.after(ms(u64::from(steps) * 40))),
            Op::Due => {
                let due = self.ends.iter().filter_map(|end| end.session.poll_timeout()).min();
                self.wait(at(self.now, due));
            }
            Op::Disconnect(end) => {
                self.with(end.into(), |session, now, _, actions| {
                    session.disconnect(now, Code::CLOSED, actions)
                });
            }
            Op::Lose => self.lose(),
            op => self.call(op),
        }
    }

    /// What the user does with one of the calls there were.
    fn call(&mut self, op: Op) {
        let (Op::Send { end, call, .. }
        | Op::Recv { end, call }
        | Op::Finish { end, call }
        | Op::Reply { end, call }
        | Op::SetReply { end, call, .. }
        | Op::Close { end, call }
        | Op::Abort { end, call }
        | Op::Forget { end, call }) = op
        else {
            return;
        };
        let end = usize::from(end);
        let Some(&call) = pick(&self.ends[end].calls, call) else {
            return;
        };
        let forgotten = self.with(end, |session, now, shared, actions| {
            match op {
                Op::Send { size, .. } => {
                    let chunk = Chunk::Raw(vec![b'x'; usize::from(size) * 4].into());
                    let sent = session.send(now, call, chunk, actions);
                    if let Err((error @ (SendError::NoPeer | SendError::WouldBlock), _)) = sent {
                        assert!(!session.call_info(call).is_some_and(|info| info.finished), "{error}");
                    }
                }
                Op::Recv { .. } => {
                    let received = session.recv(now, call, shared, actions);
                    let waits = matches!(received, Err(RecvError::Timeout | RecvError::TooManyWaiters));
                    assert!(!waits, "it does not wait");
                }
                Op::Finish { .. } => session.finish(now, call, actions),
                Op::Reply { .. } => drop(session.reply(now, call, actions)),
                Op::SetReply { error, .. } => {
                    let outcome = if error {
                        Outcome::Err(Fault::cancelled())
                    } else {
                        Outcome::Ok(Value::Uint(1))
                    };
                    session.set_reply(now, call, outcome, actions);
                }
                Op::Close { .. } => session.close(now, call, actions),
                Op::Abort { .. } => session.abort(now, call, Fault::cancelled(), actions),
                Op::Forget { .. } => {
                    session.forget(now, call, shared, actions);
                    return true;
                }
                _ => {}
            }
            false
        });
        if forgotten {
            self.work();
            let state = &mut self.ends[end];
            state.open.remove(&call);
            state.calls.retain(|known| *known != call);
        }
    }

    fn open(&mut self, end: usize, procedure: u8, deadline: Option<u8>) {
        let (name, kind) = PROCEDURES[usize::from(procedure % 4)];
        let name = if procedure > 250 { b"nobody" } else { name };
        let mut request = Request::new(Bytes::from_static(name), kind);
        request.deadline = deadline.map(|deadline| ms(u64::from(deadline) * 30));
        match self.with(end, |session, now, shared, actions| {
            session.open(now, request, shared, actions)
        }) {
            Ok(call) => {
                assert!(self.ends[end].session.is_up());
                self.ends[end].calls.push(call);
                self.ends[end].open.insert(call);
            }
            Err(OpenError::NotUp | OpenError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn answer(&mut self, end: usize, open: bool) {
        for call in std::mem::take(&mut self.ends[end].wanted) {
            if open && self.medium == Medium::Streams {
                let lane = Lane(self.next_lane);
                self.next_lane += 1;
                self.ends[end].lanes.insert(lane);
                self.event(end, Event::LaneOpened(call, lane));
            } else {
                self.event(end, Event::LaneOpenFailed(call));
            }
        }
    }

    fn write(&mut self, end: usize, lane: Lane, most: usize) {
        if self.medium == Medium::Frames {
            let message = self.with(end, |session, now, _, actions| session.next_frame(now, actions));
            self.frames[end].extend(message);
            return;
        }
        let mut left = most;
        let wire = self.wires.entry((end, lane)).or_default();
        for block in self.ends[end].session.output(lane) {
            let piece = block.split_to(block.len().min(left));
            left -= piece.len();
            wire.bytes.extend_from_slice(&piece);
        }
        let finished = self.with(end, |session, now, _, actions| session.wrote(now, lane, actions));
        self.wires.entry((end, lane)).or_default().fin |= finished;
    }

    fn deliver(&mut self, from: usize, lane: Lane, most: usize) {
        let to = 1 - from;
        if self.medium == Medium::Frames {
            if self.ends[to].session.wants(Lane::SHARED)
                && let Some(message) = self.frames[from].pop_front()
            {
                self.event(to, Event::Message(Box::new(message)));
            }
            return;
        }
        let Some(wire) = self.wires.get_mut(&(from, lane)) else {
            return;
        };
        let (piece, fin) = (wire.bytes.split_to(most.min(wire.bytes.len())).freeze(), wire.fin);
        let empty = wire.bytes.is_empty();
        if self.ends[to].gone.contains(&lane) {
            return;
        }
        if !self.ends[to].lanes.contains(&lane) && (!piece.is_empty() || fin) {
            self.ends[to].lanes.insert(lane);
            self.event(to, Event::LaneArrived(lane));
            self.work();
        }
        if !piece.is_empty() {
            if !self.ends[to].session.wants(lane) && self.ends[to].lanes.contains(&lane) && !self.ends[to].over {
                // Not read for now: it stays where it is.
                let mut back = BytesMut::from(&piece[..]);
                if let Some(wire) = self.wires.get_mut(&(from, lane)) {
                    back.unsplit(std::mem::take(&mut wire.bytes));
                    wire.bytes = back;
                }
                return;
            }
            self.event(to, Event::Received(lane, piece));
        }
        if fin && empty {
            self.wires.remove(&(from, lane));
            self.event(to, Event::LaneEnded(lane, LaneEnd::Finished));
        }
    }

    fn forge(&mut self, end: usize, lane: u8, kind: u8, call: u8) {
        let stream = StreamId([call % 4; 16]);
        let known = pick(&self.ends[end].calls, call).and_then(|call| self.ends[end].session.call_info(*call));
        let stream = known.map_or(stream, |info| info.id);
        let message = match kind % 6 {
            0 => Message::StreamEnd {
                stream,
                role: EndRole::Send,
            },
            1 => Message::StreamEnd {
                stream,
                role: EndRole::Both,
            },
            2 => Message::StreamError {
                stream,
                fault: Fault::cancelled(),
            },
            3 => Message::StreamReply {
                stream,
                outcome: Outcome::Ok(Value::Null),
            },
            4 => Message::Disconnect {
                reason: None,
                message: None,
            },
            _ => Message::StreamData(StreamData {
                stream,
                seq: known.map_or(0, |info| info.seq_in),
                chunk: Chunk::Raw(vec![b'y'; usize::from(kind)].into()),
            }),
        };
        self.forged = true;
        if self.medium == Medium::Frames {
            self.event(end, Event::Message(Box::new(message)));
            return;
        }
        let lane = self.lane(end, lane);
        let mut bytes = BytesMut::new();
        message
            .encode(Encoding::MessagePack, &mut bytes)
            .expect("can be written");
        if self.ends[end].session.wants(lane) {
            self.event(end, Event::Received(lane, bytes.freeze()));
        }
    }

    fn settle(&mut self) {
        for _ in 0..8 {
            for end in [0, 1] {
                self.answer(end, true);
                for lane in self.ends[end].lanes.clone() {
                    self.write(end, lane, usize::MAX);
                    self.work();
                    self.deliver(end, lane, usize::MAX);
                    self.work();
                }
            }
        }
    }

    fn wait(&mut self, until: Now) {
        self.now = until;
        for end in [0, 1] {
            if self.ends[end]
                .session
                .poll_timeout()
                .is_some_and(|due| due <= until.mono)
            {
                self.event(end, Event::Timeout);
                let due = self.ends[end].session.poll_timeout();
                assert!(due.is_none_or(|due| due > until.mono), "a deadline that is over");
            }
        }
    }

    fn lose(&mut self) {
        for end in [0, 1] {
            self.event(end, Event::Lost(EndReason::Lost(String::new())));
        }
        self.wires.clear();
        self.frames = Default::default();
        self.work();
    }

    fn work(&mut self) {
        while let Some((end, action)) = self.actions.pop_front() {
            self.act(end, action);
        }
    }

    fn act(&mut self, end: usize, action: Action) {
        let state = &mut self.ends[end];
        // Behind the end comes only what follows from fetching and writing what was there before.
        let late = matches!(
            action,
            Action::Finished(_) | Action::Readable(_) | Action::Replied(_) | Action::Read(_) | Action::Release(_)
        );
        assert!(late || !state.over, "after the end: {action:?}");
        match action {
            Action::OpenLane(call) => state.wanted.push(call),
            Action::Incoming(incoming) => {
                state.calls.push(incoming.call);
                assert!(state.open.insert(incoming.call), "came in twice");
            }
            Action::Finished(call) => assert!(state.finished.insert(call), "finished twice"),
            Action::Abandon(lane, code) => {
                assert!(lane != Lane::SHARED, "the shared lane is closed, never abandoned");
                state.leave(lane);
                self.wires.remove(&(end, lane));
                if self.ends[1 - end].lanes.contains(&lane) {
                    self.event(1 - end, Event::LaneEnded(lane, LaneEnd::Reset(code)));
                    self.event(1 - end, Event::LaneEnded(lane, LaneEnd::Stopped(code)));
                }
            }
            Action::Stop(lane, code) => self.event(1 - end, Event::LaneEnded(lane, LaneEnd::Stopped(code))),
            Action::Release(lane) => state.leave(lane),
            Action::Ended(_) => {
                state.over = true;
                state.wanted.clear();
            }
            Action::Close { code, .. } => {
                let reason = EndReason::PeerClosed(code);
                self.event(1 - end, Event::Lost(reason));
            }
            Action::Write(_)
            | Action::Read(_)
            | Action::Up(_)
            | Action::Readable(_)
            | Action::SendReady(_)
            | Action::Replied(_)
            | Action::Pong(_) => {}
        }
    }

    fn check(&self) {
        for end in &self.ends {
            let stats = end.session.stats();
            assert!(end.session.waiting() <= 4096 + 16 * 5000, "too much waits");
            assert!(end.session.calls() <= 256, "too many calls");
            if !self.forged {
                assert_eq!(stats.malformed, 0, "one end finds fault with what the other says");
            }
        }
    }
}
