//! The control lane of a distribution connection under arbitrary histories: reads get consecutive bytes, each one answer, none waits
//! for what is there; what is sent leaves in order; ticks are whole.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use macula_proto::{
    Now,
    dist::control::{Action, ControlLane, Event, LaneConfig, Read},
};
use proptest::{collection::vec, prelude::*};

const BUFFER: usize = 200;
const READS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Receive(usize),
    Read(usize),
    /// The how-manieth read before the last.
    Cancel(u64),
    Send(usize),
    Pull(usize),
    Wait(u64),
    Tick,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (1..60_usize).prop_map(Op::Receive),
        10 => (0..80_usize).prop_map(Op::Read),
        4 => (0..5_u64).prop_map(Op::Cancel),
        6 => (1..40_usize).prop_map(Op::Send),
        10 => (1..30_usize).prop_map(Op::Pull),
        4 => (0..2_000_u64).prop_map(Op::Wait),
        2 => Just(Op::Tick),
    ]
}

struct Rig {
    lane: ControlLane,
    now: Now,
    /// The next byte that the peer writes, and the next that is read: they count up.
    written: u8,
    read: u8,
    unread: usize,
    waiting: VecDeque<(u64, usize)>,
    next: u64,
    sent: Vec<u8>,
    pulled: Vec<u8>,
    failed: bool,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn new() -> Self {
        let mut config = LaneConfig::default();
        (config.buffer, config.reads) = (BUFFER, READS);
        Self {
            lane: ControlLane::new(config),
            now: Now::new(Instant::now(), 0),
            written: 0,
            read: 0,
            unread: 0,
            waiting: VecDeque::new(),
            next: 0,
            sent: Vec::new(),
            pulled: Vec::new(),
            failed: false,
        }
    }

    fn event(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.lane.handle(self.now, event, &mut actions);
        for action in actions {
            assert!(
                !self.failed || matches!(action, Action::Read { .. }),
                "after the failure"
            );
            match action {
                Action::Read { read, result } => self.answer(read, result.ok()),
                Action::Failed(_) => self.failed = true,
                Action::Writable | Action::Ping | Action::PeerTick => {}
            }
        }
        let due = self.lane.poll_timeout();
        assert!(!self.failed || due.is_none());
    }

    fn answer(&mut self, read: Read, bytes: Option<Bytes>) {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == read.0);
        let at = at.expect("one answer for each read");
        let (_, length) = self.waiting.remove(at).expect("it is there");
        let Some(bytes) = bytes else { return };
        assert_eq!(at, 0, "served before an earlier one");
        assert!(!bytes.is_empty() && (length == 0 || bytes.len() == length));
        for byte in bytes {
            assert_eq!(byte, self.read, "lost, doubled or out of order");
            self.read = self.read.wrapping_add(1);
            self.unread -= 1;
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Receive(length) => {
                let length = length.min(self.lane.room());
                if length > 0 {
                    let bytes: Vec<_> = (0..length).map(|at| self.written.wrapping_add(at as u8)).collect();
                    self.written = self.written.wrapping_add(length as u8);
                    self.unread += length;
                    self.event(Event::Received(bytes.into()));
                }
            }
            Op::Read(length) => {
                let read = self.next;
                self.next += 1;
                self.waiting.push_back((read, length));
                self.event(Event::Read {
                    read: Read(read),
                    length,
                });
            }
            Op::Cancel(back) => {
                let read = self.next.saturating_sub(back);
                self.waiting.retain(|(waiting, _)| *waiting != read);
                self.event(Event::Cancel(Read(read)));
            }
            Op::Send(length) => {
                let message: Vec<_> = (0..length).map(|at| (self.sent.len() + at) as u8).collect();
                if self.sent.len() + length - self.pulled.len() <= BUFFER {
                    self.sent.extend(&message);
                    self.event(Event::Send(message.into()));
                }
            }
            Op::Pull(room) => {
                if let Some(piece) = self.lane.poll_output(self.now, room) {
                    assert!(!piece.is_empty() && piece.len() <= room);
                    self.pulled.extend(piece);
                }
            }
            Op::Wait(time) => {
                self.now = self.now.after(Duration::from_millis(time));
                self.event(Event::Timeout);
                assert!(self.lane.poll_timeout().is_none_or(|due| due > self.now.mono));
            }
            Op::Tick => self.event(Event::Tick),
        }
        assert!(!self.failed, "nobody did anything wrong");
        assert!(self.waiting.len() <= READS);
        if let Some((_, length)) = self.waiting.front() {
            assert!(self.unread < (*length).max(1), "it waits for what is there");
        }
    }

    /// Pulls everything, with the pauses between messages.
    fn drain(&mut self) {
        while self.pulled.len() < self.sent.len() {
            self.run(&Op::Wait(100));
            self.run(&Op::Pull(1000));
        }
        assert_eq!(self.pulled, self.sent, "not what was sent");
    }
}

#[test]
fn a_read_behind_one_that_was_taken_back_gets_what_is_there() {
    let mut rig = Rig::new();
    rig.run(&Op::Receive(10));
    rig.run(&Op::Read(50));
    rig.run(&Op::Read(0));
    rig.run(&Op::Cancel(2));
    assert_eq!((rig.unread, rig.waiting.len()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_and_sent_is_whole_and_in_order(ops in vec(op(), 0..120)) {
        let mut rig = Rig::new();
        for op in &ops {
            rig.run(op);
        }
        rig.drain();
    }

    #[test]
    fn ticks_are_four_zeros_however_they_are_pulled(ops in vec(op(), 0..120)) {
        let mut rig = Rig::new();
        rig.event(Event::Up);
        for op in &ops {
            match op {
                Op::Receive(length) => rig.event(Event::Received(vec![0; *length].into())),
                Op::Read(_) | Op::Cancel(_) | Op::Send(_) => {}
                op => rig.run(op),
            }
            prop_assert!(!rig.failed);
        }
        while let Some(rest) = rig.lane.poll_output(rig.now, 100) {
            rig.pulled.extend(rest);
        }
        prop_assert!(rig.pulled.len().is_multiple_of(4) && rig.pulled.iter().all(|byte| *byte == 0));
        prop_assert_eq!(rig.lane.stats().ticks_sent * 4, rig.pulled.len() as u64);
        rig.event(Event::Received(Bytes::from_static(b"\0\0x")));
        prop_assert!(rig.failed, "something else than ticks");
    }
}
