use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    dist::streams::{Side, Slot, StreamClass},
    wire::dist::{Frame, MessageFraming, MessageTooLarge, TICK},
};

type Make = fn() -> Rig;

struct Rig {
    pool: DataPool,
    actions: Vec<Action>,
}

impl Rig {
    fn new(config: PoolConfig) -> Self {
        Self {
            pool: DataPool::new(config),
            actions: Vec::new(),
        }
    }

    /// With the node up and all streams open.
    fn up(config: PoolConfig) -> Self {
        let mut rig = Self::new(config);
        rig.event(Event::Connected);
        rig.event(Event::Up);
        for slot in Slot::ALL {
            rig.event(Event::Opened(slot));
        }
        rig
    }

    fn event(&mut self, event: Event) -> &[Action] {
        self.actions.clear();
        self.pool.handle(event, &mut self.actions);
        &self.actions
    }

    fn send(&mut self, message: impl Into<Bytes>, key: u64) -> (Result<(), SendError>, &[Action]) {
        self.actions.clear();
        let result = self.pool.send(message.into(), key, &mut self.actions);
        (result, &self.actions)
    }

    fn receive(&mut self, slot: Slot, bytes: impl Into<Bytes>) -> &[Action] {
        self.event(Event::Received {
            slot,
            bytes: bytes.into(),
        })
    }

    fn take(&mut self) -> Option<Bytes> {
        self.actions.clear();
        self.pool.poll_message(&mut self.actions)
    }

    fn pull(&mut self, slot: Slot, room: usize) -> Option<Bytes> {
        self.actions.clear();
        self.pool.poll_output(slot, room, &mut self.actions)
    }
}

fn client() -> PoolConfig {
    PoolConfig::new(Side::Client)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes()[..], message].concat()
}

#[test]
fn streams_have_their_ids_and_classes() {
    assert_eq!(Slot::ALL.map(|slot| slot.stream_id(Side::Client)), [4, 8, 12, 16]);
    assert_eq!(Slot::ALL.map(|slot| slot.stream_id(Side::Server)), [1, 5, 9, 13]);
    for side in [Side::Client, Side::Server] {
        for slot in Slot::ALL {
            assert_eq!(StreamClass::of(slot.stream_id(side)), StreamClass::Data(side, slot));
        }
    }
    assert_eq!(StreamClass::of(0), StreamClass::Control);
    assert_eq!([17, 21].map(StreamClass::of), [StreamClass::User(Side::Server); 2]);
    assert_eq!([20, 24].map(StreamClass::of), [StreamClass::User(Side::Client); 2]);
    assert_eq!([2, 3, 18, 19].map(StreamClass::of), [StreamClass::Unknown; 4]);
}

#[test]
fn each_side_opens_its_streams_in_time() {
    let open = Slot::ALL.map(Action::OpenStream);
    let mut rig = Rig::new(client());
    assert_eq!(rig.event(Event::Connected), open);
    assert_eq!(rig.event(Event::Up), []);
    let mut rig = Rig::new(PoolConfig::new(Side::Server));
    assert_eq!(rig.event(Event::Connected), []);
    assert_eq!(rig.event(Event::Up), open);
    assert_eq!(rig.event(Event::Up), []);
}

#[test]
fn towards_a_deployed_node_everything_goes_over_one_stream() {
    let mut rig = Rig::up(client());
    assert_eq!(rig.send("one", 1), (Ok(()), &[Action::Writable(Slot::SINGLE)][..]));
    assert_eq!(rig.send("two", 2), (Ok(()), &[][..]));
    for slot in &Slot::ALL[..3] {
        assert_eq!(rig.pull(*slot, 100), None);
    }
    assert_eq!(rig.pull(Slot::SINGLE, 5).unwrap(), b"\0\0\0\x03o"[..]);
    assert_eq!(rig.pull(Slot::SINGLE, 100).unwrap(), b"ne\0\0\0\x03two"[..]);
    assert!(rig.pool.is_drained() && rig.pool.stats().messages_sent == 2);
}

#[test]
fn a_long_message_is_not_copied() {
    let mut rig = Rig::up(client());
    let body = Bytes::from(vec![7; 100_000]);
    rig.send("x", 0).0.unwrap();
    rig.send(body.clone(), 0).0.unwrap();
    assert_eq!(rig.pull(Slot::SINGLE, 1 << 20).unwrap().len(), 9);
    let piece = rig.pull(Slot::SINGLE, 60_000).unwrap();
    assert_eq!((piece.as_ptr(), piece.len()), (body.as_ptr(), 60_000));
    let piece = rig.pull(Slot::SINGLE, 60_000).unwrap();
    assert_eq!(
        (piece.as_ptr(), piece.len()),
        (body.as_ptr().wrapping_add(60_000), 40_000)
    );
    assert_eq!((rig.pull(Slot::SINGLE, 100), rig.pool.stats().messages_sent), (None, 2));
}

#[test]
fn messages_go_round_or_by_their_key() {
    let slots = |ordering, keys: [u64; 8]| {
        let mut rig = Rig::up(client().between_own(ordering));
        keys.map(|key| {
            rig.send("m", key).0.unwrap();
            let slot = Slot::ALL.into_iter().find(|slot| rig.pull(*slot, 100).is_some());
            slot.unwrap().index()
        })
    };
    let round = slots(Ordering::RoundRobin, [0; 8]);
    assert!(
        (0..4).all(|slot| round.iter().filter(|at| **at == slot).count() == 2),
        "{round:?}"
    );
    let keyed = slots(Ordering::Keyed, [1, 2, 3, 4, 1, 2, 3, 4]);
    assert_eq!(keyed[..4], keyed[4..]);
    let many = slots(Ordering::Keyed, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!((0..4).all(|slot| many.contains(&slot)), "{many:?}");
}

#[test]
fn sixteen_messages_are_taken_at_once() {
    let mut rig = Rig::up(client());
    for _ in 0..16 {
        rig.send("m", 0).0.unwrap();
    }
    assert_eq!(rig.send("m", 0).0, Err(SendError::Later));
    assert_eq!(rig.event(Event::Wakeup), [Action::SendReady]);
    assert_eq!(rig.pool.allowance(), 16);
    assert_eq!(rig.event(Event::Wakeup), []);
    assert_eq!(rig.send(Bytes::new(), 0).0, Err(SendError::Empty));
    assert_eq!(rig.pool.stats().refused, 1);
}

#[test]
fn a_full_pool_or_transport_is_congested_until_half_of_it_is_gone() {
    let mut rig = Rig::up(PoolConfig {
        backlog: 100,
        ..client()
    });
    assert_eq!(rig.send(vec![0; 96], 0).0, Ok(()));
    assert!(!rig.pool.is_congested());
    assert_eq!(rig.send("x", 0), (Ok(()), &[Action::Congested][..]));
    assert_eq!(rig.send("x", 0).0, Err(SendError::Congested));
    assert_eq!(rig.event(Event::Wakeup), []);
    rig.pull(Slot::SINGLE, 54);
    assert!(rig.pool.is_congested());
    rig.pull(Slot::SINGLE, 1);
    assert_eq!(rig.actions, [Action::SendReady]);
    let full = |queued| Event::Transport {
        queued,
        window: 1000,
        in_flight: 0,
    };
    assert_eq!(rig.event(full(2000)), []);
    assert_eq!(rig.event(full(2001)), [Action::Congested]);
    assert_eq!(rig.event(full(1001)), []);
    assert_eq!(rig.event(full(1000)), [Action::SendReady]);
    assert_eq!(rig.pool.stats().congested, 2);
}

#[test]
fn what_is_on_its_way_to_a_deployed_node_is_bound() {
    let mut rig = Rig::up(PoolConfig {
        in_flight: Some(10_000),
        ..client()
    });
    rig.send(vec![1; 50_000], 0).0.unwrap();
    let mut sent = 0;
    while let Some(piece) = rig.pull(Slot::SINGLE, 3000) {
        sent += piece.len();
    }
    assert_eq!(sent, 10_000);
    let told = |in_flight| Event::Transport {
        queued: 0,
        window: 1 << 20,
        in_flight,
    };
    assert_eq!(rig.event(told(10_000)), []);
    assert_eq!(rig.event(told(9_000)), [Action::Writable(Slot::SINGLE)]);
    assert_eq!(rig.pull(Slot::SINGLE, 3000).unwrap().len(), 1000);
    assert_eq!(rig.pull(Slot::SINGLE, 3000), None);
}

#[test]
fn what_comes_before_the_node_is_up_is_delivered_first() {
    let mut rig = Rig::new(PoolConfig { early: 200, ..client() });
    rig.event(Event::Connected);
    assert_eq!(rig.receive(Slot::SINGLE, framed(b"early")), []);
    assert_eq!((rig.take(), rig.pool.room()), (None, 131));
    rig.receive(
        Slot::SINGLE,
        [&framed(&[0; 70])[..], &TICK, &framed(b"last")[..2]].concat(),
    );
    assert_eq!(rig.pool.room(), 0);
    assert_eq!(rig.event(Event::Up), [Action::Messages, Action::Readable]);
    rig.receive(Slot::SINGLE, framed(b"last")[2..].to_vec());
    assert_eq!(rig.take().unwrap(), "early");
    assert_eq!(rig.take().unwrap().len(), 70);
    assert_eq!(rig.take().unwrap(), "last");
    let stats = rig.pool.stats();
    assert_eq!(
        (stats.messages_early, stats.ticks_received, stats.messages_delivered),
        (2, 1, 3)
    );
}

#[test]
fn a_full_inbox_stops_the_reading() {
    let mut rig = Rig::up(PoolConfig { inbox: 400, ..client() });
    assert_eq!(rig.receive(Slot::ALL[0], framed(&[1; 136])), [Action::Messages]);
    assert_eq!(rig.receive(Slot::ALL[1], framed(&[2; 136])), []);
    assert_eq!(rig.pool.room(), 0);
    assert_eq!(
        (rig.take().unwrap()[0], rig.actions.clone()),
        (1, vec![Action::Readable])
    );
    assert_eq!(rig.pool.room(), 200);
    assert_eq!((rig.take().unwrap()[0], rig.actions.len(), rig.take()), (2, 0, None));
    assert_eq!(rig.pool.buffered(), 0);
}

#[test]
fn faults_end_the_pool() {
    let config = PoolConfig {
        max_message: 5,
        ..client()
    };
    let error = MessageTooLarge { length: 6, limit: 5 };
    let mut rig = Rig::up(config);
    assert_eq!(rig.send("toolong"[..6].to_owned(), 0).0, Err(error.into()));
    rig.receive(Slot::ALL[0], framed(b"0"));
    assert_eq!(
        rig.receive(Slot::SINGLE, [framed(b"1"), framed(b"123456")].concat()),
        [Action::Failed(Fault::TooLarge(error))]
    );
    assert_eq!(rig.send("x", 0).0, Err(SendError::Failed));
    // What came before is there.
    assert_eq!((rig.take(), rig.pool.room()), (Some("0".into()), 0));
    assert_eq!((rig.take(), rig.take()), (Some("1".into()), None));

    let mut early = Rig::new(client());
    early.receive(Slot::SINGLE, framed(b"1"));
    early.event(Event::Ended(Slot::SINGLE));
    assert_eq!((early.take(), early.pool.buffered()), (None, 0));
}

#[test]
fn every_state_with_every_event() {
    let states: [(&str, Make); 4] = [
        ("fresh", || Rig::new(client())),
        ("connected", || {
            let mut rig = Rig::new(client());
            rig.event(Event::Connected);
            rig
        }),
        ("up", || Rig::up(client())),
        ("failed", || {
            let mut rig = Rig::new(client());
            rig.event(Event::Ended(Slot::SINGLE));
            rig
        }),
    ];
    let open = || Slot::ALL.map(Action::OpenStream).to_vec();
    let ended = || vec![Action::Failed(Fault::Ended(Slot::SINGLE))];
    let full = Event::Transport {
        queued: 3,
        window: 1,
        in_flight: 0,
    };
    let rows: [(Event, [Vec<Action>; 4]); 7] = [
        (Event::Connected, [open(), vec![], vec![], vec![]]),
        (Event::Up, [open(), vec![], vec![], vec![]]),
        (Event::Opened(Slot::SINGLE), [vec![], vec![], vec![], vec![]]),
        (Event::Wakeup, [vec![], vec![], vec![], vec![]]),
        (
            full,
            [
                vec![Action::Congested],
                vec![Action::Congested],
                vec![Action::Congested],
                vec![],
            ],
        ),
        (
            Event::Received {
                slot: Slot::SINGLE,
                bytes: framed(b"x").into(),
            },
            [vec![], vec![], vec![Action::Messages], vec![]],
        ),
        (Event::Ended(Slot::SINGLE), [ended(), ended(), ended(), vec![]]),
    ];
    for (event, expected) in rows {
        for ((state, make), expected) in states.iter().zip(expected) {
            assert_eq!(make().event(event.clone()), expected, "{state}: {event:?}");
        }
    }
    for ((_, make), expected) in states.iter().zip([
        Err(SendError::NotUp),
        Err(SendError::NotUp),
        Ok(()),
        Err(SendError::Failed),
    ]) {
        assert_eq!(make().send("x", 0).0, expected);
    }
}

/// One step of a world of two pools.
#[derive(Debug, Clone)]
enum Step {
    /// The producer sends a message of so many bytes with this key.
    Send(u64, usize),
    Wakeup,
    /// So many bytes of a stream get through.
    Carry(usize, usize),
    /// The consumer takes some.
    Take(usize),
    /// The transport tells.
    Tell(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u64, 1..9000_usize).prop_map(|(key, length)| Step::Send(key, length)),
        1 => Just(Step::Wakeup),
        4 => (0..4_usize, 1..6000_usize).prop_map(|(slot, length)| Step::Carry(slot, length)),
        2 => (0..5_usize).prop_map(Step::Take),
        1 => (0..5000_u64).prop_map(Step::Tell),
    ]
}

proptest! {
    /// The model: a queue for each stream. Whatever blocks, what was taken comes out in order, once.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in proptest::collection::vec(step(), 0..300), ordering in 0..3_usize, up_at in 0..100_usize) {
        let ordering = [Ordering::Single, Ordering::RoundRobin, Ordering::Keyed][ordering];
        let config = |side| PoolConfig { inbox: 20_000, early: 10_000, backlog: 30_000, in_flight: Some(50_000), ..PoolConfig::new(side).between_own(ordering) };
        let mut sender = Rig::up(config(Side::Client));
        let mut receiver = Rig::new(config(Side::Server));
        receiver.event(Event::Connected);
        let mut sent: Vec<(u64, Bytes)> = Vec::new();
        let mut wires: [VecDeque<u8>; 4] = Default::default();
        let mut got: Vec<Bytes> = Vec::new();
        let number = |message: &Bytes| u32::from_be_bytes(message[..4].try_into().unwrap());
        let end = [Step::Tell(0), Step::Carry(0, 6000), Step::Carry(1, 6000), Step::Carry(2, 6000), Step::Carry(3, 6000), Step::Take(9)];
        let finish = end.iter().cycle().take(6 * 400).cloned();
        for (at, step) in steps.into_iter().chain(finish).enumerate() {
            if at == up_at {
                receiver.event(Event::Up);
            }
            match step {
                Step::Send(key, length) => {
                    let mut message = vec![key as u8; length + 4];
                    message[..4].copy_from_slice(&(sent.len() as u32).to_be_bytes());
                    let message = Bytes::from(message);
                    if sender.send(message.clone(), key).0.is_ok() {
                        sent.push((key, message));
                    }
                }
                Step::Wakeup => drop(sender.event(Event::Wakeup)),
                Step::Carry(slot, length) => {
                    if let Some(piece) = sender.pull(Slot::ALL[slot], length) {
                        prop_assert!(piece.len() <= length);
                        wires[slot].extend(piece);
                    }
                    let length = length.min(wires[slot].len()).min(receiver.pool.room());
                    if length > 0 {
                        let piece: Vec<u8> = wires[slot].drain(..length).collect();
                        receiver.receive(Slot::ALL[slot], piece);
                    }
                }
                Step::Take(count) => {
                    for _ in 0..count {
                        got.extend(receiver.take());
                    }
                }
                Step::Tell(in_flight) => drop(sender.event(Event::Transport { queued: in_flight, window: 2000, in_flight })),
            }
            prop_assert!(sender.pool.pending() <= 30_000 + 9_008);
            prop_assert!(receiver.pool.buffered() <= 20_000 + 4 * 9_100);
        }
        prop_assert!(sender.pool.is_drained());
        prop_assert_eq!(got.len(), sent.len());
        let mut numbers: Vec<u32> = got.iter().map(number).collect();
        for message in &got {
            prop_assert_eq!(&sent[number(message) as usize].1, message);
        }
        for key in 0..6 {
            let of_key = |message: &&Bytes| message[4] == key;
            let numbers: Vec<u32> = got.iter().filter(of_key).map(number).collect();
            prop_assert!(ordering == Ordering::RoundRobin || numbers.is_sorted());
        }
        prop_assert!(ordering != Ordering::Single || numbers.is_sorted());
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), sent.len());
    }

    /// What one pull after the other gives is the framing's own form, however much room there is.
    #[test]
    fn what_is_pulled_is_framed(lengths in proptest::collection::vec(1..7000_usize, 1..16), rooms in proptest::collection::vec(1..20_000_usize, 1..9)) {
        let mut rig = Rig::up(client());
        for length in &lengths {
            rig.send(vec![9; *length], 0).0.unwrap();
        }
        let mut rooms = rooms.iter().cycle();
        let mut framing = MessageFraming::new(10_000);
        let mut got = Vec::new();
        while let Some(mut piece) = rig.pull(Slot::SINGLE, *rooms.next().unwrap()) {
            while let Some(frame) = framing.next(&mut piece) {
                let Ok(Frame::Message(message)) = frame else { panic!() };
                got.push(message.len());
            }
        }
        prop_assert_eq!(got, lengths);
        prop_assert_eq!(rig.pool.stats().messages_sent, rig.pool.stats().messages_taken);
    }
}
