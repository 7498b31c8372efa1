//! Two sessions and the bytes between them: whatever their users do, and however the bytes are cut, each chunk arrives once and in
//! order, each call ends once at both ends, and neither end finds fault with the other.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    rpc::{
        Chunk, Fault, Kind, Mode, Outcome, RecvError, RpcConfig,
        session::{Action, CallId, EndReason, Event, Lane, LaneEnd, Medium, Request, Session, Shared, Side},
    },
    wire::Value,
};
use proptest::{collection::vec, prelude::*};

/// Ends are numbered, and calls by their places among all those of an end.
#[derive(Debug, Clone)]
enum Op {
    Open { end: usize, kind: usize },
    Send { end: usize, call: usize, size: usize },
    Recv { end: usize, call: usize },
    Finish { end: usize, call: usize },
    SetReply { end: usize, call: usize, error: bool },
    Abort { end: usize, call: usize },
    Move { end: usize, most: usize },
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let (end, call) = (0..2_usize, 0..8_usize);
    prop_oneof![
        4 => (end.clone(), 0..4_usize).prop_map(|(end, kind)| Op::Open { end, kind }),
        12 => (end.clone(), call.clone(), 0..900_usize).prop_map(|(end, call, size)| Op::Send { end, call, size }),
        12 => (end.clone(), call.clone()).prop_map(|(end, call)| Op::Recv { end, call }),
        3 => (end.clone(), call.clone()).prop_map(|(end, call)| Op::Finish { end, call }),
        3 => (end.clone(), call.clone(), any::<bool>()).prop_map(|(end, call, error)| Op::SetReply { end, call, error }),
        1 => (end.clone(), call).prop_map(|(end, call)| Op::Abort { end, call }),
        20 => (end, 1..3000_usize).prop_map(|(end, most)| Op::Move { end, most }),
        1 => (0..800_u64).prop_map(Op::Wait),
    ]
}

const KINDS: [(&[u8], Kind); 4] = [
    (b"echo", Kind::Stream(Mode::Bidi)),
    (b"sum", Kind::Stream(Mode::ClientStream)),
    (b"count", Kind::Stream(Mode::ServerStream)),
    (b"add", Kind::Unary),
];

struct End {
    session: Session,
    shared: Shared,
    calls: Vec<CallId>,
    finished: Vec<CallId>,
    /// Chunks by the stream of their call.
    sent: BTreeMap<[u8; 16], Vec<Bytes>>,
    got: BTreeMap<[u8; 16], Vec<Bytes>>,
    wanted: Vec<CallId>,
    lanes: Vec<Lane>,
    over: bool,
}

struct Link {
    now: Now,
    ends: [End; 2],
    wires: BTreeMap<(usize, Lane), (BytesMut, bool)>,
    /// Directions that were stopped or abandoned, by the end that writes.
    dead: BTreeSet<(usize, Lane)>,
    actions: VecDeque<(usize, Action)>,
    next_lane: u64,
    chunks: u32,
}

impl Link {
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn new(medium: Medium) -> Self {
        let end = |side: Side, id: u8| {
            let mut config = RpcConfig::new([id; 32]);
            config.limits.inbox = 2000;
            config.limits.outbox = 3000;
            // Nobody is cut off for being slow.
            config.limits.stall = Duration::from_secs(1_000_000);
            let mut shared = Shared::default();
            for (name, kind) in KINDS {
                shared.registry.advertise(Bytes::from_static(name), kind);
            }
            End {
                session: Session::new(side, medium, config, Rng::from_seed(id.into())),
                shared,
                calls: Vec::new(),
                finished: Vec::new(),
                sent: BTreeMap::new(),
                got: BTreeMap::new(),
                wanted: Vec::new(),
                lanes: vec![Lane::SHARED],
                over: false,
            }
        };
        let mut link = Self {
            now: Now::new(Instant::now(), 1_750_000_000_000),
            ends: [end(Side::Dialler, 1), end(Side::Acceptor, 2)],
            wires: BTreeMap::new(),
            dead: BTreeSet::new(),
            actions: VecDeque::new(),
            next_lane: 1,
            chunks: 0,
        };
        for end in [0, 1] {
            link.event(end, Event::Start);
        }
        link.settle();
        link
    }

    fn with<T>(&mut self, end: usize, run: impl FnOnce(&mut Session, Now, &mut Shared, &mut Vec<Action>) -> T) -> T {
        let mut actions = Vec::new();
        let state = &mut self.ends[end];
        let result = run(&mut state.session, self.now, &mut state.shared, &mut actions);
        self.actions.extend(actions.into_iter().map(|action| (end, action)));
        while let Some((end, action)) = self.actions.pop_front() {
            self.act(end, action);
        }
        result
    }

    fn event(&mut self, end: usize, event: Event) {
        self.with(end, |session, now, shared, actions| {
            session.handle(now, event, shared, actions)
        });
    }

    fn act(&mut self, end: usize, action: Action) {
        let state = &mut self.ends[end];
        match action {
            Action::OpenLane(call) => state.wanted.push(call),
            Action::Incoming(incoming) => state.calls.push(incoming.call),
            Action::Finished(call) => {
                assert!(!state.finished.contains(&call), "finished twice");
                state.finished.push(call);
            }
            Action::Abandon(lane, code) => {
                state.lanes.retain(|known| *known != lane);
                self.die(end, lane);
                self.die(1 - end, lane);
                for how in [LaneEnd::Reset(code), LaneEnd::Stopped(code)] {
                    self.event(1 - end, Event::LaneEnded(lane, how));
                }
            }
            Action::Stop(lane, code) => {
                self.die(1 - end, lane);
                self.event(1 - end, Event::LaneEnded(lane, LaneEnd::Stopped(code)));
            }
            Action::Release(lane) => state.lanes.retain(|known| *known != lane),
            Action::Close { code, .. } => {
                let reason = EndReason::PeerClosed(code);
                self.event(1 - end, Event::Lost(reason));
            }
            Action::Ended(_) => assert!(!std::mem::replace(&mut state.over, true), "ended twice"),
            _ => {}
        }
    }

    /// What this end still writes on the lane arrives nowhere.
    fn die(&mut self, end: usize, lane: Lane) {
        self.wires.remove(&(end, lane));
        self.dead.insert((end, lane));
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Open { end, kind } => {
                let (name, kind) = KINDS[kind];
                let request = Request::new(Bytes::from_static(name), kind);
                let opened = self.with(end, |session, now, shared, actions| {
                    session.open(now, request, shared, actions)
                });
                self.ends[end].calls.push(opened.expect("the link is up"));
            }
            Op::Move { end, most } => self.carry(end, most),
            Op::Wait(time) => {
                self.now = self.now.after(Duration::from_millis(time));
                for end in [0, 1] {
                    self.event(end, Event::Timeout);
                    let due = self.ends[end].session.poll_timeout();
                    assert!(due.is_none_or(|due| due > self.now.mono));
                }
            }
            Op::Send { end, call, size } => self.send(end, call, size),
            Op::Recv { end, call } => {
                if let Some(call) = self.call(end, call) {
                    let _ = self.recv(end, call);
                }
            }
            Op::Finish { end, call } => {
                if let Some(call) = self.call(end, call) {
                    self.with(end, |session, now, _, actions| session.finish(now, call, actions));
                }
            }
            Op::SetReply { end, call, error } => {
                if let Some(call) = self.call(end, call) {
                    let outcome = if error {
                        Outcome::Err(Fault::cancelled())
                    } else {
                        Outcome::Ok(Value::Uint(1))
                    };
                    self.with(end, |session, now, _, actions| {
                        session.set_reply(now, call, outcome, actions)
                    });
                }
            }
            Op::Abort { end, call } => {
                if let Some(call) = self.call(end, call) {
                    self.with(end, |session, now, _, actions| {
                        session.abort(now, call, Fault::cancelled(), actions)
                    });
                }
            }
        }
    }

    fn call(&self, end: usize, call: usize) -> Option<CallId> {
        let calls = &self.ends[end].calls;
        calls.get(call % calls.len().max(1)).copied()
    }

    fn stream(&self, end: usize, call: CallId) -> Option<[u8; 16]> {
        self.ends[end].session.call_info(call).map(|info| info.id.0)
    }

    fn send(&mut self, end: usize, call: usize, size: usize) {
        let Some(call) = self.call(end, call) else { return };
        let Some(stream) = self.stream(end, call) else { return };
        self.chunks += 1;
        let mut bytes = self.chunks.to_be_bytes().to_vec();
        bytes.resize(4 + size, 7);
        let bytes = Bytes::from(bytes);
        let chunk = Chunk::Raw(bytes.clone());
        if self
            .with(end, |session, now, _, actions| session.send(now, call, chunk, actions))
            .is_ok()
        {
            self.ends[end].sent.entry(stream).or_default().push(bytes);
        }
    }

    fn recv(&mut self, end: usize, call: CallId) -> Result<(), RecvError> {
        let Some(stream) = self.stream(end, call) else {
            return Err(RecvError::Eof);
        };
        let received = self.with(end, |session, now, shared, actions| {
            session.recv(now, call, shared, actions)
        })?;
        let Chunk::Raw(bytes) = received else {
            panic!("another kind of chunk")
        };
        self.ends[end].got.entry(stream).or_default().push(bytes);
        Ok(())
    }

    /// What one end has to write leaves, and up to `most` bytes of each lane arrive.
    fn carry(&mut self, from: usize, most: usize) {
        for call in std::mem::take(&mut self.ends[from].wanted) {
            let lane = Lane(self.next_lane);
            self.next_lane += 1;
            self.ends[from].lanes.push(lane);
            self.event(from, Event::LaneOpened(call, lane));
        }
        for lane in self.ends[from].lanes.clone() {
            let mut out = BytesMut::new();
            for block in self.ends[from].session.output(lane) {
                out.extend_from_slice(&std::mem::take(block));
            }
            let finished = self.with(from, |session, now, _, actions| session.wrote(now, lane, actions));
            if !self.dead.contains(&(from, lane)) {
                let wire = self.wires.entry((from, lane)).or_default();
                wire.0.unsplit(out);
                wire.1 |= finished;
            }
        }
        let lanes: Vec<_> = self
            .wires
            .keys()
            .filter(|(end, _)| *end == from)
            .map(|(_, lane)| *lane)
            .collect();
        lanes.into_iter().for_each(|lane| self.deliver(from, lane, most));
    }

    fn deliver(&mut self, from: usize, lane: Lane, most: usize) {
        let to = 1 - from;
        let pending = |link: &Self| link.wires.get(&(from, lane)).map(|wire| (wire.0.len(), wire.1));
        let Some((length, finished)) = pending(self) else {
            return;
        };
        if length > 0 && !self.ends[to].lanes.contains(&lane) {
            self.ends[to].lanes.push(lane);
            self.event(to, Event::LaneArrived(lane));
        }
        let mut left = most.min(length);
        while left > 0 && (self.ends[to].session.wants(lane) || !self.ends[to].lanes.contains(&lane)) {
            let Some(wire) = self.wires.get_mut(&(from, lane)) else {
                return;
            };
            let piece = wire.0.split_to(left.min(700).min(wire.0.len())).freeze();
            if piece.is_empty() {
                break;
            }
            left -= piece.len();
            self.event(to, Event::Received(lane, piece));
        }
        if finished && pending(self).is_some_and(|(length, _)| length == 0) {
            self.wires.remove(&(from, lane));
            self.event(to, Event::LaneEnded(lane, LaneEnd::Finished));
        }
    }

    fn settle(&mut self) {
        for _ in 0..30 {
            self.carry(0, usize::MAX);
            self.carry(1, usize::MAX);
            for end in [0, 1] {
                for call in self.ends[end].calls.clone() {
                    while self.recv(end, call).is_ok() {}
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn chunks_arrive_once_in_order_and_calls_end_once(ops in vec(op(), 0..150), single in any::<bool>()) {
        let mut link = Link::new(if single { Medium::Single } else { Medium::Streams });
        prop_assert!(link.ends.iter().all(|end| end.session.is_up()));
        for op in &ops {
            link.run(op);
        }
        link.settle();
        for end in [0, 1] {
            prop_assert_eq!(link.ends[end].session.stats().malformed, 0);
            prop_assert!(!link.ends[end].over, "one end found fault with the other");
            for (stream, got) in &link.ends[end].got {
                let sent = link.ends[1 - end].sent.get(stream).map_or(&[][..], |sent| sent);
                prop_assert!(sent.starts_with(got), "lost, doubled or out of order");
            }
        }
        for end in [0, 1] {
            link.with(end, |session, now, _, actions| session.disconnect(now, Code::CLOSED, actions));
        }
        for end in [0, 1] {
            for call in link.ends[end].calls.clone() {
                while link.recv(end, call).is_ok() {}
                link.with(end, |session, now, _, actions| session.reply(now, call, actions));
            }
            let end = &link.ends[end];
            prop_assert!(end.over && end.session.poll_timeout().is_none());
            prop_assert!(end.calls.iter().all(|call| end.finished.contains(call)), "a call without an end");
        }
    }
}
