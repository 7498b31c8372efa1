use super::*;

type Make = fn() -> Rig;

struct Rig {
    lane: ControlLane,
    now: Now,
    actions: Vec<Action>,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "tests start their clock somewhere")]
    fn new() -> Self {
        Self {
            lane: ControlLane::new(LaneConfig::default()),
            now: Now::new(Instant::now(), 0),
            actions: Vec::new(),
        }
    }

    fn up() -> Self {
        let mut rig = Self::new();
        rig.event(Event::Up);
        rig
    }

    fn event(&mut self, event: Event) -> &[Action] {
        self.actions.clear();
        self.lane.handle(self.now, event, &mut self.actions);
        &self.actions
    }

    fn receive(&mut self, bytes: &'static [u8]) -> &[Action] {
        self.event(Event::Received(Bytes::from_static(bytes)))
    }

    fn wait(&mut self, by: u64) {
        self.now = self.now.after(Duration::from_millis(by));
    }

    fn pull(&mut self, room: usize) -> Option<Bytes> {
        self.lane.poll_output(self.now, room)
    }
}

fn message(text: &'static str) -> Event {
    Event::Send(Bytes::from_static(text.as_bytes()))
}

fn read(number: u64, length: usize) -> Event {
    Event::Read {
        read: Read(number),
        length,
    }
}

fn got(number: u64, text: &'static str) -> Action {
    Action::Read {
        read: Read(number),
        result: Ok(Bytes::from_static(text.as_bytes())),
    }
}

#[test]
fn handshake_messages_leave_one_by_one() {
    let mut rig = Rig::new();
    assert_eq!(rig.event(message("sok")), [Action::Writable]);
    assert_eq!(rig.event(message("challenge")), [Action::Writable]);
    assert_eq!(rig.pull(100).unwrap(), "sok");
    assert_eq!(rig.pull(100), None);
    rig.wait(49);
    assert_eq!((rig.pull(100), rig.event(Event::Timeout)), (None, &[][..]));
    rig.wait(1);
    assert_eq!(rig.lane.poll_timeout(), Some(rig.now.mono));
    assert_eq!(rig.event(Event::Timeout), [Action::Writable]);
    // The rest of one that does not fit follows without a pause.
    assert_eq!(rig.pull(4).unwrap(), "chal");
    assert_eq!(rig.lane.poll_timeout(), None);
    assert_eq!(rig.pull(100).unwrap(), "lenge");
    assert_eq!((rig.pull(100), rig.lane.poll_timeout()), (None, None));
    assert_eq!(rig.lane.stats().messages_sent, 2);
    // One that comes during the pause waits for its end.
    assert_eq!(rig.event(message("ack")), []);
    assert!(rig.lane.poll_timeout().is_some());
}

#[test]
fn reads_get_what_they_ask_for_in_order() {
    let mut rig = Rig::new();
    assert_eq!(rig.receive(b"abcdef"), []);
    assert_eq!(rig.event(read(1, 2)), [got(1, "ab")]);
    assert_eq!(rig.event(read(2, 0)), [got(2, "cdef")]);
    assert_eq!(rig.event(read(3, 3)), []);
    assert_eq!(rig.event(read(4, 0)), []);
    assert_eq!(rig.event(read(5, 1)), []);
    assert_eq!(rig.receive(b"gh"), []);
    assert_eq!(rig.event(Event::Cancel(Read(5))), []);
    assert_eq!(rig.receive(b"ijk"), [got(3, "ghi"), got(4, "jk")]);
    assert_eq!(rig.receive(b"lm"), []);
    assert_eq!(rig.event(read(6, 0)), [got(6, "lm")]);
}

#[test]
fn reads_that_can_get_nothing_are_told() {
    let refused = |error| {
        [Action::Read {
            read: Read(1),
            result: Err(error),
        }]
    };
    let mut rig = Rig::new();
    assert_eq!(rig.event(read(1, (64 << 10) + 1)), refused(ReadError::Limit));
    for number in 2..18 {
        rig.event(read(number, 1));
    }
    assert_eq!(rig.event(read(1, 1)), refused(ReadError::Limit));
    let mut rig = Rig::new();
    rig.event(read(1, 1));
    assert_eq!(rig.event(Event::Up), refused(ReadError::Up));
    assert_eq!(rig.event(read(1, 1)), refused(ReadError::Up));
    let mut rig = Rig::new();
    rig.event(read(1, 1));
    let [ended] = refused(ReadError::Ended);
    assert_eq!(rig.event(Event::Ended), [ended.clone(), Action::Failed(Fault::Ended)]);
    assert_eq!(rig.event(read(1, 1)), [ended]);
}

#[test]
fn a_tick_is_answered_after_a_quiet_second_and_every_five_at_most() {
    let answer = [Action::PeerTick, Action::Ping, Action::Writable];
    let mut rig = Rig::up();
    assert_eq!(rig.receive(&[0; 4]), answer);
    assert_eq!(rig.pull(100).unwrap(), TICK[..]);
    rig.wait(4_999);
    assert_eq!(rig.receive(&[0; 4]), [Action::PeerTick]);
    rig.wait(1);
    assert_eq!(rig.receive(&[0; 4]), answer);
    rig.pull(100);
    rig.wait(10_000);
    // This side's own tick makes an answer needless, for a second.
    assert_eq!(rig.event(Event::Tick), [Action::Ping, Action::Writable]);
    rig.pull(100);
    rig.wait(1_000);
    assert_eq!(rig.receive(&[0; 4]), [Action::PeerTick]);
    rig.wait(1);
    assert_eq!(rig.receive(&[0; 4]), answer);
    let stats = rig.lane.stats();
    assert_eq!(
        (stats.ticks_received, stats.ticks_answered, stats.ticks_sent),
        (5, 3, 3)
    );
}

#[test]
fn one_tick_waits_at_most_and_leaves_as_soon_as_there_is_room() {
    let mut rig = Rig::up();
    assert_eq!(rig.event(Event::Tick), [Action::Ping, Action::Writable]);
    assert_eq!(rig.pull(0), None);
    assert_eq!(rig.event(Event::Tick), [Action::Ping]);
    assert!(rig.lane.has_pending_tick());
    assert_eq!(rig.pull(3).unwrap().len(), 3);
    assert_eq!(rig.event(Event::Tick), [Action::Ping]);
    assert_eq!(rig.pull(100).unwrap().len(), 1);
    assert_eq!(rig.pull(100), None);
    let stats = rig.lane.stats();
    assert_eq!((stats.ticks_sent, stats.ticks_merged, stats.bytes_sent), (1, 2, 4));
}

#[test]
fn a_tick_follows_what_is_left_of_the_handshake() {
    let mut rig = Rig::new();
    rig.event(message("reply"));
    rig.event(message("ack"));
    rig.event(Event::Up);
    rig.pull(100);
    assert_eq!(rig.event(Event::Tick), [Action::Ping]);
    rig.wait(50);
    assert_eq!(rig.event(Event::Timeout), [Action::Writable]);
    assert_eq!(
        (rig.pull(100).unwrap(), rig.pull(100).unwrap()),
        ("ack".into(), Bytes::from_static(&TICK))
    );
}

#[test]
fn ticks_come_in_any_pieces_and_from_before_the_node_was_up() {
    let mut rig = Rig::new();
    rig.receive(&[0; 7]);
    assert_eq!(rig.event(Event::Up), [Action::PeerTick, Action::Ping, Action::Writable]);
    assert_eq!(rig.receive(&[0]), [Action::PeerTick]);
    assert_eq!(rig.receive(&[0; 3]), []);
    assert_eq!(rig.receive(&[0; 9]), [Action::PeerTick]);
    assert_eq!(rig.lane.stats().ticks_received, 5);
}

#[test]
fn bounds_hold() {
    let mut rig = Rig::new();
    let half = || Bytes::from(vec![1; 33 << 10]);
    assert_eq!(rig.event(Event::Received(half())), []);
    assert_eq!(rig.lane.room(), 31 << 10);
    assert_eq!(rig.event(Event::Received(half())), [Action::Failed(Fault::Flood)]);
    assert_eq!((rig.lane.room(), Fault::Flood.code()), (0, Code::LIMIT));
    let mut rig = Rig::new();
    rig.event(Event::Send(half()));
    assert_eq!(rig.event(Event::Send(half())), [Action::Failed(Fault::Backlog)]);
    assert_eq!(rig.pull(100), None);
}

/// What happens in each state: no action, or the ones listed.
#[test]
fn every_state_with_every_event() {
    let states: [(&str, Make); 4] = [
        ("handshake", Rig::new),
        ("up", Rig::up),
        ("pending", || {
            let mut rig = Rig::up();
            rig.event(Event::Tick);
            rig
        }),
        ("failed", || {
            let mut rig = Rig::new();
            rig.event(Event::Ended);
            rig
        }),
    ];
    let refused = |error| Action::Read {
        read: Read(1),
        result: Err(error),
    };
    let tick = Bytes::from_static(&TICK);
    let failed = |fault| vec![Action::Failed(fault)];
    let rows: [(Event, [Vec<Action>; 4]); 9] = [
        (
            Event::Received(tick),
            [
                vec![],
                vec![Action::PeerTick, Action::Ping, Action::Writable],
                vec![Action::PeerTick, Action::Ping],
                vec![],
            ],
        ),
        (message("x"), [vec![Action::Writable], vec![], vec![], vec![]]),
        (
            read(1, 1),
            [
                vec![],
                vec![refused(ReadError::Up)],
                vec![refused(ReadError::Up)],
                vec![refused(ReadError::Ended)],
            ],
        ),
        (Event::Cancel(Read(1)), [vec![], vec![], vec![], vec![]]),
        (Event::Up, [vec![], vec![], vec![], vec![]]),
        (
            Event::Tick,
            [vec![], vec![Action::Ping, Action::Writable], vec![Action::Ping], vec![]],
        ),
        (
            Event::Ended,
            [failed(Fault::Ended), failed(Fault::Ended), failed(Fault::Ended), vec![]],
        ),
        (Event::Timeout, [vec![], vec![], vec![], vec![]]),
        (
            Event::Received(Bytes::from_static(b"x")),
            [vec![], failed(Fault::NotTick), failed(Fault::NotTick), vec![]],
        ),
    ];
    for (event, expected) in rows {
        for ((state, make), expected) in states.iter().zip(expected) {
            assert_eq!(make().event(event.clone()), expected, "{state}: {event:?}");
        }
    }
}
