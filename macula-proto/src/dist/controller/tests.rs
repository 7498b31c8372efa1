use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::{
    Code, Now, Rng,
    dist::{
        handshake::{HandshakeConfig, Standing},
        pool::SendError,
        streams::{Side, Slot},
    },
    wire::etf::Atom,
};

#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
fn now() -> Now {
    Now::new(Instant::now(), 1_750_000_000_000)
}

fn controller(name: &str, dialled: Option<&str>, seed: u64) -> Controller {
    let handshake = HandshakeConfig::new(Atom::new(name).unwrap(), 1, "x".into());
    let dialled = dialled.map(|name| Atom::new(name).unwrap());
    Controller::new(dialled, ControllerConfig::new(handshake), &mut Rng::from_seed(seed))
}

/// Two controllers, and streams of bytes between them.
struct Pair {
    now: Now,
    ends: [Controller; 2],
    /// By the end that writes, and the stream.
    wires: BTreeMap<(usize, u64), BytesMut>,
    dirty: BTreeSet<(usize, u64)>,
    finished: BTreeSet<(usize, u64)>,
    up: [bool; 2],
    down: [Option<EndReason>; 2],
    closed: [Option<Code>; 2],
    events: VecDeque<(usize, Event)>,
}

impl Pair {
    fn new() -> Self {
        let ends = [controller("a@h", Some("b@h"), 1), controller("b@h", None, 2)];
        Self {
            now: now(),
            ends,
            wires: BTreeMap::new(),
            dirty: BTreeSet::new(),
            finished: BTreeSet::new(),
            up: [false; 2],
            down: [None, None],
            closed: [None, None],
            events: [(0, Event::Connected), (1, Event::Connected)].into(),
        }
    }

    fn side(&self, at: usize) -> Side {
        self.ends[at].side()
    }

    fn stream(&self, at: usize, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Control => 0,
            Purpose::Data(slot) => slot.stream_id(self.side(at)),
        }
    }

    fn act(&mut self, at: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open(purpose) => self.events.push_back((at, Event::Opened(purpose))),
                Action::Writable(purpose) => _ = self.dirty.insert((at, self.stream(at, purpose))),
                Action::Finish(purpose) => _ = self.finished.insert((at, self.stream(at, purpose))),
                Action::AskStanding { .. } => self.events.push_back((at, Event::Standing(Standing::New))),
                Action::Up(_) => self.up[at] = true,
                Action::Close { code, .. } => {
                    self.closed[at] = Some(code);
                    self.events
                        .push_back((1 - at, Event::Lost(EndReason::PeerClosed(code))));
                }
                Action::Down(reason) => assert_eq!(self.down[at].replace(reason), None, "told once"),
                _ => {}
            }
        }
    }

    fn feed(&mut self) {
        while let Some((at, event)) = self.events.pop_front() {
            let mut actions = Vec::new();
            self.ends[at].handle(self.now, event, &mut actions);
            self.act(at, actions);
        }
    }

    /// Moves up to `length` bytes in each place where some can move.
    fn step(&mut self, length: usize) -> bool {
        self.feed();
        let mut moved = false;
        for (at, stream) in self.dirty.clone() {
            let slot = Slot::ALL
                .into_iter()
                .find(|slot| slot.stream_id(self.side(at)) == stream);
            let purpose = slot.map_or(Purpose::Control, Purpose::Data);
            let mut actions = Vec::new();
            match self.ends[at].poll_output(self.now, purpose, length, &mut actions) {
                Some(bytes) => {
                    moved = true;
                    self.wires.entry((at, stream)).or_default().extend_from_slice(&bytes);
                }
                None => _ = self.dirty.remove(&(at, stream)),
            }
            self.act(at, actions);
        }
        for ((at, stream), wire) in &mut self.wires {
            let room = self.ends[1 - *at].room(*stream);
            let length = length.min(wire.len()).min(room);
            if length > 0 {
                moved = true;
                let bytes = wire.split_to(length).freeze();
                self.events
                    .push_back((1 - *at, Event::Received { stream: *stream, bytes }));
            }
        }
        for (at, stream) in self.finished.clone() {
            if !self.dirty.contains(&(at, stream)) && self.wires.get(&(at, stream)).is_none_or(BytesMut::is_empty) {
                self.finished.remove(&(at, stream));
                self.events.push_back((1 - at, Event::Finished(stream)));
                self.events.push_back((at, Event::Delivered(stream)));
            }
        }
        moved |= !self.events.is_empty();
        self.feed();
        moved
    }

    /// Runs until nothing moves, not even with the time that is due within a second.
    fn settle(&mut self, mut length: impl FnMut() -> usize) {
        let until = self.now.mono + Duration::from_secs(1);
        loop {
            while self.step(length()) {}
            let due = self.ends.iter().filter_map(Controller::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= until) else {
                return;
            };
            let wait = due.saturating_duration_since(self.now.mono);
            self.now = self.now.after(wait);
            self.events.extend([(0, Event::Timeout), (1, Event::Timeout)]);
        }
    }

    fn send(&mut self, at: usize, message: &Bytes) -> Result<(), SendError> {
        let mut actions = Vec::new();
        let sent = self.ends[at].send(message.clone(), 0, &mut actions);
        self.act(at, actions);
        sent
    }

    fn next(&mut self, at: usize) -> Option<Bytes> {
        let mut actions = Vec::new();
        let message = self.ends[at].next_message(&mut actions);
        self.act(at, actions);
        message
    }
}

proptest! {
    #[test]
    fn whatever_the_pieces_are_the_nodes_come_up_and_lose_nothing(
        pieces in proptest::collection::vec(1..60_usize, 1..30),
        sizes in proptest::collection::vec(1..3000_usize, 1..16),
        leaves in 0..2_usize,
    ) {
        let mut pieces = pieces.into_iter().cycle();
        let mut length = || pieces.next().unwrap();
        let mut pair = Pair::new();
        prop_assert_eq!(pair.send(0, &Bytes::from_static(b"x")), Err(SendError::NotUp));
        pair.settle(&mut length);
        prop_assert_eq!(pair.up, [true, true]);
        prop_assert_eq!(pair.ends[0].node().unwrap().as_str(), "b@h");
        prop_assert_eq!(pair.ends[1].node().unwrap().as_str(), "a@h");
        for at in [0, 1] {
            for (number, size) in sizes.iter().enumerate() {
                let byte = u8::try_from(number).unwrap();
                pair.send(at, &Bytes::from(vec![byte; *size])).unwrap();
            }
        }
        // One leaves with all of it still to be sent.
        pair.events.push_back((leaves, Event::Leave(Code::SHUTDOWN)));
        pair.settle(&mut length);
        prop_assert_eq!(pair.closed[leaves], Some(Code::SHUTDOWN));
        prop_assert_eq!(pair.down[leaves].clone(), Some(EndReason::Closed));
        prop_assert_eq!(pair.down[1 - leaves].clone(), Some(EndReason::PeerClosed(Code::SHUTDOWN)));
        for (number, size) in sizes.iter().enumerate() {
            let byte = u8::try_from(number).unwrap();
            let message = pair.next(1 - leaves);
            prop_assert_eq!(message, Some(Bytes::from(vec![byte; *size])));
        }
        prop_assert_eq!(pair.next(1 - leaves), None);
    }

    #[test]
    fn no_order_of_events_makes_it_panic_or_end_twice(
        events in proptest::collection::vec((0..20_u8, 0..30_u64), 0..80),
        dials: bool,
    ) {
        let mut controller = controller("a@h", dials.then_some("b@h"), 3);
        let now = now();
        let mut all = Vec::new();
        for (kind, stream) in events {
            let code = Code::CLOSED;
            let event = match kind {
                0..=2 => Event::Connected,
                3 => Event::Opened(Purpose::Control),
                4 => Event::Opened(Purpose::Data(Slot::SINGLE)),
                5 => Event::Arrived(stream),
                6 => Event::Received { stream, bytes: Bytes::from_static(b"\0\0\0\x01x") },
                7 => Event::Finished(stream),
                8 => Event::Reset(stream, code),
                9 => Event::Stopped(stream, code),
                10 => Event::Delivered(stream),
                11 => Event::Standing(Standing::New),
                12 => Event::Wanted(stream % 2 == 0),
                13 => Event::Tick,
                14 => Event::Wakeup,
                15 => Event::Leave(code),
                16 => Event::Timeout,
                17 => Event::Readable(stream),
                18 => Event::Writable(stream),
                _ => Event::Transport { queued: stream, window: 1, in_flight: 0 },
            };
            controller.handle(now, event, &mut all);
            let _ = controller.poll_output(now, Purpose::Control, 100, &mut all);
            let _ = controller.poll_output(now, Purpose::Data(Slot::SINGLE), 100, &mut all);
        }
        let downs = all.iter().filter(|action| matches!(action, Action::Down(_))).count();
        prop_assert!(downs <= 1);
        prop_assert_eq!(downs == 1, controller.state() == LinkState::Over);
        if downs == 1 {
            prop_assert!(matches!(all.last(), Some(Action::Down(_))), "nothing follows");
            prop_assert_eq!(controller.poll_timeout(), None);
        }
    }
}
