//! Two peering machines, and whatever happens between them.

use std::{collections::VecDeque, sync::Arc};

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    identity::{Identity, NodeId},
    peering::{
        Action, BindingMode, Deliver, Event, Peering, PeeringConfig, RealmRule, Refusal, Role, SendError,
        TransportError, Verdict,
    },
    wire::frame::{Body, Id16, Id32, Ping, Publish, Text},
};

use crate::script::{at, ms, operations, start};

const OPERATIONS: usize = 300;
/// Frames that may wait, in bytes.
const QUEUE: usize = 2048;

#[derive(Debug, Arbitrary)]
struct Setup {
    binding: [u8; 2],
    exporters: [u8; 2],
    expects: u8,
    skew: [Option<u8>; 2],
    /// How far the acceptor's wall clock is ahead, in seconds.
    ahead: i8,
    realms: [u8; 2],
    shared: [bool; 2],
    verified_only: [bool; 2],
    same_identity: bool,
    late: [bool; 2],
}

#[derive(Debug, Arbitrary)]
enum Op {
    /// Everything moves, until nothing does.
    Settle,
    Pull {
        end: bool,
        max: u16,
    },
    Deliver {
        end: bool,
        most: u8,
    },
    Send {
        end: bool,
        size: u16,
    },
    Flushed(bool),
    Decide {
        admit: bool,
        why: u8,
    },
    Sleep(u8),
    Due,
    Start(bool),
    Flip {
        end: bool,
        at: u16,
        bit: u8,
    },
    Drop(bool),
    Duplicate(bool),
    Swap(bool),
    Inject {
        end: bool,
        bytes: Vec<u8>,
    },
    Close(bool),
    Abort(bool),
    Finish(bool),
    Reset(bool),
    WriteFailed(bool),
    Cut,
    /// Events that nobody asked for.
    Stray(bool, u8),
}

struct End {
    peering: Peering,
    id: NodeId,
    pipe: VecDeque<Bytes>,
    opening: bool,
    flush: bool,
    asked: bool,
    finished: bool,
    connected: bool,
    admitted: bool,
    ended: bool,
    /// Nonces of the pings that it sent, and of those that it was told are the peer's own.
    sent: Vec<u16>,
    got: Vec<u16>,
}

struct Link {
    now: Now,
    ahead: i64,
    ends: [End; 2],
    /// Bytes were changed, lost, doubled or made up, or events were.
    spoilt: bool,
    exporters: [Option<[u8; 32]>; 2],
    same: bool,
}

fn config(setup: &Setup, end: usize, ids: [u8; 2]) -> PeeringConfig {
    let mut config = PeeringConfig::new(Arc::new(Identity::from_seed(&[ids[end]; 32])));
    config.binding = [BindingMode::Off, BindingMode::Send, BindingMode::Require][usize::from(setup.binding[end] % 3)];
    config.clock_skew = setup.skew[end].map(|skew| ms(u64::from(skew) * 1000));
    config.realms = (0..setup.realms[end] % 3)
        .map(|realm| Id32([realm + setup.realms[end] / 128; 32]))
        .collect();
    if setup.shared[end] {
        config.realm_rule = RealmRule::Shared;
    }
    if setup.verified_only[end] {
        config.deliver = Deliver::VerifiedOnly;
    }
    if setup.expects == 255 && end == 0 {
        config.expected_peer = Some(Identity::from_seed(&[9; 32]).node_id());
    } else if setup.expects > 128 && end == 0 {
        config.expected_peer = Some(Identity::from_seed(&[ids[1]; 32]).node_id());
    }
    config.limits.send_queue = QUEUE;
    config.limits.peering_frame = 4096;
    config.limits.peering_handshake_frame = 2048;
    config.limits.peering_skipped = 2;
    config
}

/// Two ends that come together, talk and part, while bytes are damaged, made up and lost, and events come that make no sense.
/// Each end ends once and says nothing afterwards; who is connected is who it says; a frame that is told to be the peer's own
/// is one that the peer sent, and on a sound connection all of them arrive in order; nothing waits without a deadline.
pub fn peering(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(setup) = data.arbitrary::<Setup>() else { return };
    let mut link = Link::new(&setup);
    for end in [false, true] {
        if !setup.late[usize::from(end)] {
            link.apply(Op::Start(end));
        }
    }
    for op in operations::<Op>(data, OPERATIONS) {
        link.apply(op);
    }
    link.finish();
}

impl Link {
    fn new(setup: &Setup) -> Self {
        let ids = [1, if setup.same_identity { 1 } else { 2 }];
        let end = |end: usize| {
            let role = [Role::Dialler, Role::Acceptor][end];
            let peering = Peering::new(role, config(setup, end, ids), Rng::from_seed(end as u64));
            End {
                id: peering.node_id(),
                peering,
                pipe: VecDeque::new(),
                opening: false,
                flush: false,
                asked: false,
                finished: false,
                connected: false,
                admitted: false,
                ended: false,
                sent: Vec::new(),
                got: Vec::new(),
            }
        };
        Self {
            now: start(),
            ahead: i64::from(setup.ahead) * 1000,
            ends: [end(0), end(1)],
            spoilt: false,
            exporters: setup
                .exporters
                .map(|exporter| (exporter % 4 != 0).then_some([exporter % 4 / 2; 32])),
            same: setup.same_identity,
        }
    }

    /// The time at one end: the wall clocks differ.
    fn now(&self, end: usize) -> Now {
        let ahead = if end == 1 { self.ahead } else { 0 };
        Now::new(self.now.mono, self.now.unix_ms.saturating_add_signed(ahead))
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Settle => self.settle(),
            Op::Pull { end, max } => self.pull(end.into(), usize::from(max)),
            Op::Deliver { end, most } => self.deliver(end.into(), usize::from(most)),
            Op::Send { end, size } => self.send(end.into(), size),
            Op::Flushed(end) => {
                if std::mem::take(&mut self.ends[usize::from(end)].flush) {
                    self.feed(end.into(), Event::Flushed);
                }
            }
            Op::Decide { admit, why } => self.decide(admit, why),
            Op::Sleep(steps) => self.wait(self.now.after(ms(u64::from(steps) * 100))),
            Op::Due => self.wait(at(self.now, self.due())),
            Op::Start(end) => {
                let exporter = self.exporters[usize::from(end)];
                self.feed(end.into(), Event::Start { exporter });
                if std::mem::take(&mut self.ends[usize::from(end)].opening) {
                    self.feed(end.into(), Event::StreamOpened);
                }
            }
            Op::Flip { end, at, bit } => self.change(end.into(), |pipe| {
                if let Some(first) = pipe.front_mut() {
                    let mut bytes = BytesMut::from(&first[..]);
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= 1 << (bit % 8);
                    *first = bytes.freeze();
                }
            }),
            Op::Drop(end) => self.change(end.into(), |pipe| drop(pipe.pop_front())),
            Op::Duplicate(end) => self.change(end.into(), |pipe| pipe.extend(pipe.front().cloned())),
            Op::Swap(end) => self.change(end.into(), |pipe| {
                if pipe.len() > 1 {
                    pipe.swap(0, 1);
                }
            }),
            Op::Inject { end, bytes } if !bytes.is_empty() => {
                self.change(end.into(), |pipe| pipe.push_back(bytes.into()));
            }
            Op::Inject { .. } => {}
            Op::Close(end) => {
                let (reason, detail) = (Text::from("operator_stop"), Some(Bytes::from_static(b"enough")));
                self.feed(end.into(), Event::Close { reason, detail });
            }
            Op::Abort(end) => self.feed(end.into(), Event::Abort(Code::DISPLACED)),
            Op::Finish(end) => self.spoil(end, Event::Finished),
            Op::Reset(end) => self.spoil(end, Event::Reset(Code::CANCELLED)),
            Op::WriteFailed(end) => self.spoil(end, Event::WriteFailed(TransportError::Peer(Code::CANCELLED))),
            Op::Cut => self.cut(),
            Op::Stray(end, kind) => self.spoil(end, stray(kind)),
        }
    }

    fn settle(&mut self) {
        let mut before = None;
        loop {
            for end in [false, true] {
                self.pull(end.into(), 1 << 16);
                self.deliver(end.into(), 1 << 16);
                self.apply(Op::Flushed(end));
            }
            self.decide(true, 0);
            let after = [0, 1].map(|end| {
                let stats = self.ends[end].peering.stats();
                (stats.bytes_sent, stats.bytes_received, self.ends[end].finished)
            });
            if before.replace(after) == Some(after) {
                return;
            }
        }
    }

    fn spoil(&mut self, end: bool, event: Event) {
        self.spoilt = true;
        self.feed(end.into(), event);
    }

    fn change(&mut self, end: usize, change: impl FnOnce(&mut VecDeque<Bytes>)) {
        self.spoilt = true;
        change(&mut self.ends[end].pipe);
    }

    fn pull(&mut self, end: usize, max: usize) {
        let mut actions = Vec::new();
        if let Some(piece) = self.ends[end].peering.poll_output(max, &mut actions) {
            assert!(!piece.is_empty() && piece.len() <= max);
            self.ends[end].pipe.push_back(piece);
        }
        self.act(end, actions);
    }

    fn deliver(&mut self, from: usize, most: usize) {
        let Some(mut piece) = self.ends[from].pipe.pop_front() else {
            if self.ends[from].finished && !self.ends[from].peering.has_output() {
                self.ends[from].finished = false;
                self.feed(1 - from, Event::Finished);
            }
            return;
        };
        let head = piece.split_to((most + 1).min(piece.len()));
        if !piece.is_empty() {
            self.ends[from].pipe.push_front(piece);
        }
        self.feed(1 - from, Event::Received(head));
    }

    fn send(&mut self, end: usize, size: u16) {
        let number = self.ends[end].sent.len() as u16;
        let mut nonce = [0; 16];
        nonce[..2].copy_from_slice(&number.to_be_bytes());
        let body: Body = if size < 0x8000 {
            Body::Ping(Ping { nonce: Id16(nonce) })
        } else {
            Body::Publish(Publish {
                topic: vec![b't'; usize::from(size % 600)].into(),
                realm: Id32([0; 32]),
                publisher: self.ends[end].id,
                seq: number.into(),
                payload: macula_proto::wire::Value::Null,
                published_at_ms: 0,
                ttl_ms: None,
            })
        };
        let (now, mut actions) = (self.now(end), Vec::new());
        match self.ends[end].peering.send(now, body, &mut actions) {
            Ok(_) => {
                assert!(self.ends[end].connected, "taken before the handshake is complete");
                self.ends[end].sent.push(number);
            }
            Err(SendError::NotConnected) => assert!(!self.ends[end].connected || self.ends[end].ended),
            Err(SendError::Closing | SendError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        self.act(end, actions);
        assert!(self.ends[end].peering.queued() < QUEUE + 2048, "more waits than may");
    }

    fn decide(&mut self, admit: bool, why: u8) {
        if !std::mem::take(&mut self.ends[1].asked) {
            return;
        }
        self.ends[1].admitted = admit;
        let refusals = [
            Refusal::NotAllowed,
            Refusal::Duplicate,
            Refusal::Limit,
            Refusal::Shutdown,
        ];
        let event = if admit {
            Event::Admit
        } else {
            Event::Refuse(refusals[usize::from(why % 4)])
        };
        self.feed(1, event);
    }

    fn cut(&mut self) {
        self.spoilt = true;
        for end in [0, 1] {
            self.ends[end].pipe.clear();
            self.feed(end, Event::ConnectionLost(TransportError::TimedOut));
        }
    }

    fn feed(&mut self, end: usize, event: Event) {
        let (now, mut actions) = (self.now(end), Vec::new());
        self.ends[end].peering.handle(now, event, &mut actions);
        self.act(end, actions);
        let machine = &self.ends[end].peering;
        assert!(machine.buffered() <= 70_000, "piles up");
        assert_eq!(machine.is_ended(), self.ends[end].ended);
        assert!(!machine.is_ended() || machine.poll_timeout().is_none() && !machine.has_output());
    }

    fn act(&mut self, end: usize, actions: Vec<Action>) {
        let peer = self.ends[1 - end].id;
        for action in actions {
            let state = &mut self.ends[end];
            assert!(!state.ended, "after the end: {action:?}");
            match action {
                Action::OpenStream => state.opening = true,
                Action::FinishStream => state.finished = true,
                Action::TellWhenFlushed => state.flush = true,
                Action::Authorize { peer: who } => {
                    assert!(end == 1 && !state.connected);
                    assert_eq!(who, peer, "nobody else has signed a CONNECT");
                    state.asked = true;
                }
                Action::Connected(connected) => {
                    assert!(!state.connected, "connected twice");
                    assert!(end == 0 || state.admitted || self.spoilt);
                    assert_eq!(connected.peer, peer);
                    assert!(
                        !connected.bound || self.exporters[0] == self.exporters[1],
                        "bound to another session"
                    );
                    state.connected = true;
                }
                Action::Frame(frame) => {
                    assert!(state.connected, "a frame before the handshake is complete");
                    if let (Body::Ping(ping), Verdict::Verified) = (&frame.decoded.frame.body, frame.verdict) {
                        state.got.push(u16::from_be_bytes([ping.nonce.0[0], ping.nonce.0[1]]));
                    }
                }
                Action::Ended { .. } => state.ended = true,
                Action::Writable | Action::Goodbye { .. } | Action::SendReady | Action::CloseConnection { .. } => {}
            }
        }
        // With one identity at both ends a frame may come back to its sender.
        if !self.same {
            let (sent, got) = (&self.ends[1 - end].sent, &self.ends[end].got);
            assert!(got.iter().all(|nonce| sent.contains(nonce)), "the peer never sent this");
            assert!(self.spoilt || got.is_sorted(), "out of order");
        }
    }

    fn due(&self) -> Option<std::time::Instant> {
        self.ends.iter().filter_map(|end| end.peering.poll_timeout()).min()
    }

    fn wait(&mut self, until: Now) {
        self.now = until;
        for end in [0, 1] {
            if self.ends[end]
                .peering
                .poll_timeout()
                .is_some_and(|due| due <= until.mono)
            {
                self.feed(end, Event::Timeout);
                let next = self.ends[end].peering.poll_timeout();
                assert!(next.is_none_or(|next| next > until.mono), "a deadline that is over");
            }
        }
    }

    /// The user closes both; they end by themselves, or with their connection.
    fn finish(&mut self) {
        for end in [false, true] {
            self.apply(Op::Close(end));
        }
        for _ in 0..10 {
            let Some(due) = self.due() else { break };
            self.wait(at(self.now, Some(due)));
        }
        assert_eq!(self.due(), None, "deadlines without end");
        for end in [0, 1] {
            self.feed(end, Event::ConnectionLost(TransportError::Closed));
            assert!(self.ends[end].ended, "never told of its end");
            assert_eq!(self.ends[end].peering.buffered(), 0);
        }
    }
}

fn stray(kind: u8) -> Event {
    match kind % 8 {
        0 => Event::Dialling,
        1 => Event::DialFailed(TransportError::Unreachable),
        2 => Event::StreamOpened,
        3 => Event::StreamOpenFailed(TransportError::Closed),
        4 => Event::Flushed,
        5 => Event::Admit,
        6 => Event::Refuse(Refusal::Limit),
        _ => Event::Timeout,
    }
}
