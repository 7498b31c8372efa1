//! Two machines and the bytes between them, whatever happens to those.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    identity::NodeId,
    peering::{Action, Event, Gate, GateAction, GateConfig, GateEvent, PeerConn, Peering, Role, TransportError},
    wire::frame::{Body, Id16},
};
use proptest::prelude::*;

use crate::{EXPORTER, close, config, machine, ms, ping, start};

/// What can happen to the bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Flip,
    Drop,
    Duplicate,
    Swap,
    Cut,
    Finish,
    Reset,
    Stop,
    CloseDialler,
    CloseAcceptor,
    Abort,
}

const FAULTS: &[Fault] = &[
    Fault::None,
    Fault::Flip,
    Fault::Drop,
    Fault::Duplicate,
    Fault::Swap,
    Fault::Cut,
    Fault::Finish,
    Fault::Reset,
    Fault::Stop,
    Fault::CloseDialler,
    Fault::CloseAcceptor,
    Fault::Abort,
];

struct End {
    peering: Peering,
    /// Bytes on their way to the other end.
    pipe: VecDeque<Bytes>,
    finished: bool,
    flush: bool,
    writable: bool,
    connected: u32,
    ended: Vec<String>,
    /// The connection was closed from this end.
    closed: bool,
    sent: u8,
    got: Vec<u8>,
}

impl End {
    fn new(role: Role) -> Self {
        Self {
            peering: machine(role, config(role)),
            pipe: VecDeque::new(),
            finished: false,
            flush: false,
            writable: false,
            connected: 0,
            ended: Vec::new(),
            closed: false,
            sent: 0,
            got: Vec::new(),
        }
    }
}

struct Link {
    now: Now,
    ends: [End; 2],
    gate: Gate,
    lost: bool,
    rng: Rng,
}

const DIALLER: usize = 0;
const ACCEPTOR: usize = 1;

impl Link {
    fn new(seed: u64) -> Self {
        Self {
            now: start(),
            ends: [End::new(Role::Dialler), End::new(Role::Acceptor)],
            gate: Gate::new(GateConfig::new(&macula_proto::Limits::default())),
            lost: false,
            rng: Rng::from_seed(seed),
        }
    }

    fn feed(&mut self, end: usize, event: Event) {
        let mut actions = Vec::new();
        self.ends[end].peering.handle(self.now, event, &mut actions);
        self.act(end, actions);
    }

    fn act(&mut self, end: usize, actions: Vec<Action>) {
        for action in actions {
            assert!(self.ends[end].ended.is_empty(), "after the end: {action:?}");
            match action {
                Action::OpenStream => self.feed(end, Event::StreamOpened),
                Action::Writable => self.ends[end].writable = true,
                Action::FinishStream => self.ends[end].finished = true,
                Action::TellWhenFlushed => self.ends[end].flush = true,
                Action::Authorize { peer } => self.authorize(end, peer),
                Action::Connected(_) => self.ends[end].connected += 1,
                Action::Frame(frame) => {
                    if let Body::Ping(ping) = &frame.decoded.frame.body {
                        self.ends[end].got.push(ping.nonce.0[0]);
                    }
                }
                Action::Goodbye { .. } | Action::SendReady => {}
                Action::CloseConnection { .. } => self.ends[end].closed = true,
                Action::Ended { reason, .. } => self.ends[end].ended.push(reason.to_string()),
            }
        }
    }

    fn authorize(&mut self, end: usize, peer: NodeId) {
        let mut actions = Vec::new();
        let conn = PeerConn(1);
        self.gate.handle(GateEvent::Arrived(conn), &mut actions);
        self.gate.handle(GateEvent::Identified(conn, peer), &mut actions);
        assert_eq!(actions, [GateAction::Admit(conn)]);
        self.feed(end, Event::Admit);
    }

    /// One thing that happens on a connection that works: bytes move, frames are sent, time passes.
    fn step(&mut self, frames: u8) {
        let end = self.rng.below(2) as usize;
        match self.rng.below(5) {
            0 => {
                let max = 1 + self.rng.below(400) as usize;
                let mut actions = Vec::new();
                if let Some(piece) = self.ends[end].peering.poll_output(max, &mut actions) {
                    self.ends[end].pipe.push_back(piece);
                }
                self.act(end, actions);
            }
            1 | 2 => self.deliver(end),
            3 if std::mem::take(&mut self.ends[end].flush) => self.feed(end, Event::Flushed),
            3 if self.ends[end].sent < frames => {
                let mut actions = Vec::new();
                let number = self.ends[end].sent;
                if self.ends[end]
                    .peering
                    .send(self.now, ping(number), &mut actions)
                    .is_ok()
                {
                    self.ends[end].sent += 1;
                }
                self.act(end, actions);
            }
            _ => self.now = self.now.after(ms(1)),
        }
    }

    /// A piece, or a part of it, arrives at the other end; behind the last one, what was done to the stream or connection.
    fn deliver(&mut self, from: usize) {
        let to = 1 - from;
        if self.lost {
            return;
        }
        if let Some(mut piece) = self.ends[from].pipe.pop_front() {
            let cut = 1 + self.rng.below(piece.len() as u64) as usize;
            let head = piece.split_to(cut.min(piece.len()));
            if !piece.is_empty() {
                self.ends[from].pipe.push_front(piece);
            }
            self.feed(to, Event::Received(head));
        } else if std::mem::take(&mut self.ends[from].finished) {
            self.feed(to, Event::Finished);
        } else if self.ends[from].closed {
            self.lost = true;
            self.feed(to, Event::ConnectionLost(TransportError::Peer(Code::CLOSED)));
        }
    }

    fn strike(&mut self, fault: Fault) {
        let from = self.rng.below(2) as usize;
        let pipe = &mut self.ends[from].pipe;
        match fault {
            Fault::None => {}
            Fault::Flip => {
                if let Some(piece) = pipe.pop_front() {
                    let mut bytes = BytesMut::from(&piece[..]);
                    let at = self.rng.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << self.rng.below(8);
                    pipe.push_front(bytes.freeze());
                }
            }
            Fault::Drop => drop(pipe.pop_front()),
            Fault::Duplicate => pipe.extend(pipe.front().cloned()),
            Fault::Swap if pipe.len() > 1 => pipe.swap(0, 1),
            Fault::Swap => {}
            Fault::Cut => {
                self.lost = true;
                for end in [from, 1 - from] {
                    self.feed(end, Event::ConnectionLost(TransportError::TimedOut));
                }
            }
            Fault::Finish => self.feed(from, Event::Finished),
            Fault::Reset => self.feed(from, Event::Reset(Code::CANCELLED)),
            Fault::Stop => self.feed(from, Event::WriteFailed(TransportError::Peer(Code::CANCELLED))),
            Fault::CloseDialler => self.feed(DIALLER, close()),
            Fault::CloseAcceptor => self.feed(ACCEPTOR, close()),
            Fault::Abort => self.feed(from, Event::Abort(Code::DISPLACED)),
        }
    }

    /// Lets everything move until nothing does, then fires what is due, until nothing is.
    fn settle(&mut self) {
        for _ in 0..20 {
            loop {
                let before = self.position();
                for end in [DIALLER, ACCEPTOR] {
                    let mut actions = Vec::new();
                    while let Some(piece) = self.ends[end].peering.poll_output(1 << 20, &mut actions) {
                        self.ends[end].pipe.push_back(piece);
                    }
                    self.act(end, actions);
                    if std::mem::take(&mut self.ends[end].flush) {
                        self.feed(end, Event::Flushed);
                    }
                    while !self.ends[end].pipe.is_empty() && !self.lost {
                        self.deliver(end);
                    }
                    self.deliver(end);
                }
                if self.position() == before {
                    break;
                }
            }
            let due = [DIALLER, ACCEPTOR]
                .iter()
                .filter_map(|&end| self.ends[end].peering.poll_timeout())
                .min();
            let Some(due) = due else { break };
            self.now = self.now.after(due.saturating_duration_since(self.now.mono));
            for end in [DIALLER, ACCEPTOR] {
                self.feed(end, Event::Timeout);
                let next = self.ends[end].peering.poll_timeout();
                assert!(next.is_none_or(|next| next > self.now.mono));
            }
        }
    }

    fn position(&self) -> [(u64, u64, bool, bool); 2] {
        [DIALLER, ACCEPTOR].map(|end| {
            let stats = self.ends[end].peering.stats();
            (
                stats.bytes_sent,
                stats.bytes_received,
                self.ends[end].peering.is_ended(),
                self.lost,
            )
        })
    }
}

fn begin(link: &mut Link, acceptor_late: bool) {
    let exporter = Some(EXPORTER);
    link.feed(DIALLER, Event::Dialling);
    link.feed(DIALLER, Event::Start { exporter });
    if !acceptor_late {
        link.feed(ACCEPTOR, Event::Start { exporter });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_each_end_ends_once(
        seed in any::<u64>().no_shrink(),
        before in 0usize..200,
        between in 0usize..100,
        faults in proptest::collection::vec(proptest::sample::select(FAULTS), 0..4),
        late in any::<bool>(),
    ) {
        let mut link = Link::new(seed);
        begin(&mut link, late);
        (0..before).for_each(|_| link.step(5));
        if late {
            link.feed(ACCEPTOR, Event::Start { exporter: Some(EXPORTER) });
        }
        for fault in faults {
            (0..between).for_each(|_| link.step(10));
            link.strike(fault);
        }
        link.settle();
        // Whoever is still there after all that is closed.
        link.feed(DIALLER, close());
        link.settle();
        link.feed(ACCEPTOR, close());
        link.settle();
        for end in &link.ends {
            prop_assert_eq!(end.ended.len(), 1, "{:?}", &end.ended);
            prop_assert!(end.connected <= 1);
            prop_assert_eq!(end.peering.poll_timeout(), None);
            prop_assert_eq!(end.peering.buffered(), 0);
        }
    }

    #[test]
    fn a_sound_connection_delivers_everything_in_order(seed in any::<u64>().no_shrink(), steps in 500usize..3000, dialler_closes in any::<bool>()) {
        let mut link = Link::new(seed);
        begin(&mut link, false);
        (0..steps).for_each(|_| link.step(30));
        link.settle();
        for end in [DIALLER, ACCEPTOR] {
            let sent = link.ends[end].sent;
            prop_assert_eq!(&link.ends[1 - end].got, &(0..sent).collect::<Vec<_>>());
            prop_assert_eq!(link.ends[end].connected, 1);
        }
        let closer = if dialler_closes { DIALLER } else { ACCEPTOR };
        let before = link.now;
        link.feed(closer, close());
        link.settle();
        prop_assert_eq!(&link.ends[closer].ended, &["peer_closed_during_drain".to_owned()]);
        prop_assert_eq!(&link.ends[1 - closer].ended, &["goodbye(operator_stop)".to_owned()]);
        prop_assert!(link.now.mono - before.mono < Duration::from_secs(5), "nobody waits");
    }

    #[test]
    fn both_may_close_at_once(seed in any::<u64>().no_shrink(), steps in 500usize..1000) {
        let mut link = Link::new(seed);
        begin(&mut link, false);
        (0..steps).for_each(|_| link.step(3));
        link.settle();
        let before = link.now;
        link.feed(DIALLER, close());
        link.feed(ACCEPTOR, close());
        link.settle();
        for end in &link.ends {
            prop_assert_eq!(&end.ended, &["peer_closed_during_drain".to_owned()]);
        }
        prop_assert!(link.now.mono - before.mono < Duration::from_secs(5), "nobody waits");
    }
}

#[test]
fn thousands_of_frames_each_way_in_order() {
    const FRAMES: u64 = 2000;
    let mut link = Link::new(1);
    begin(&mut link, false);
    link.settle();
    let mut got = [0; 2];
    for number in 0..FRAMES {
        for end in [DIALLER, ACCEPTOR] {
            let body = Body::Ping(macula_proto::wire::frame::Ping {
                nonce: Id16(u128::from(number).to_be_bytes()),
            });
            let mut actions = Vec::new();
            assert_eq!(link.ends[end].peering.send(link.now, body, &mut actions), Ok(number));
            let mut wire = BytesMut::new();
            while let Some(piece) = link.ends[end].peering.poll_output(64 << 10, &mut actions) {
                wire.extend_from_slice(&piece);
            }
            let mut actions = Vec::new();
            let other = &mut link.ends[1 - end].peering;
            other.handle(link.now, Event::Received(wire.freeze()), &mut actions);
            for action in actions {
                let Action::Frame(frame) = action else {
                    panic!("{action:?}");
                };
                let Body::Ping(ping) = &frame.decoded.frame.body else {
                    panic!("{frame:?}");
                };
                assert_eq!(u128::from_be_bytes(ping.nonce.0), u128::from(got[end]));
                got[end] += 1;
            }
        }
    }
    assert_eq!(got, [FRAMES, FRAMES]);
    link.feed(ACCEPTOR, close());
    link.settle();
    assert_eq!(link.ends[ACCEPTOR].ended, ["peer_closed_during_drain"]);
}
