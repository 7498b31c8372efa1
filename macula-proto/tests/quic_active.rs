//! Active mode, bytes given back, and hand-over: nothing lost, doubled or reordered.

#![cfg(feature = "self-signed")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code,
    quic::{Active, ConnectionHandle, Dir, Event, Owner, ReadError, StreamId},
};
use proptest::prelude::*;

struct Rig {
    world: World,
    c: ConnectionHandle,
    s: ConnectionHandle,
    stream: StreamId,
}

impl Rig {
    /// One stream on which the client has sent one byte, which the server has read.
    fn new() -> Self {
        let (mut world, c, s) = World::connected();
        let mut conn = world.client().connection(c).unwrap();
        let stream = conn.open(Dir::Bi).unwrap();
        conn.stream(stream).unwrap().write(b"!").unwrap();
        world.wait_stream(SERVER);
        assert_eq!(world.read(SERVER, s, stream), (b"!".to_vec(), Err(ReadError::Blocked)));
        world.run_for(secs(2));
        world.clear_events();
        Self { world, c, s, stream }
    }

    /// Sends one piece, which arrives as one chunk.
    fn send(&mut self, data: &[u8]) {
        let mut conn = self.world.client().connection(self.c).unwrap();
        assert_eq!(conn.stream(self.stream).unwrap().write(data), Ok(data.len()));
        self.world.run_for(ms(100));
    }

    fn set_active(&mut self, active: Active) {
        let mut conn = self.world.server().connection(self.s).unwrap();
        conn.stream(self.stream).unwrap().set_active(active);
    }

    fn unread(&mut self, data: &'static [u8]) {
        let mut conn = self.world.server().connection(self.s).unwrap();
        conn.stream(self.stream).unwrap().unread(Bytes::from_static(data));
    }

    fn read(&mut self) -> Vec<u8> {
        self.world.read(SERVER, self.s, self.stream).0
    }

    fn events(&mut self) -> Vec<Event> {
        self.world.drain();
        self.world.take(SERVER)
    }

    fn data(&self, data: &'static [u8]) -> Event {
        Event::Data {
            conn: self.s,
            stream: self.stream,
            data: Bytes::from_static(data),
        }
    }

    fn passive(&self) -> Event {
        Event::Passive {
            conn: self.s,
            stream: self.stream,
        }
    }

    fn readable(&self) -> Event {
        Event::Readable {
            conn: self.s,
            stream: self.stream,
        }
    }
}

#[test]
fn once_pushes_one_piece() {
    let mut rig = Rig::new();
    rig.set_active(Active::Once);
    assert_eq!(rig.events(), []);
    rig.send(b"one");
    assert_eq!(rig.events(), [rig.data(b"one"), rig.passive()]);
    rig.send(b"two");
    assert_eq!(rig.events(), [], "nothing before the owner has read what there is");
    rig.set_active(Active::Once);
    assert_eq!(rig.events(), [rig.data(b"two"), rig.passive()]);
    rig.send(b"three");
    assert_eq!(rig.read(), b"three");
    rig.send(b"four");
    assert_eq!(rig.events(), [rig.readable()]);
}

#[test]
fn times_pushes_that_many_pieces() {
    let mut rig = Rig::new();
    rig.set_active(Active::Times(0));
    rig.send(b"a");
    assert_eq!(rig.events(), [rig.readable()]);
    rig.set_active(Active::Times(3));
    assert_eq!(rig.events(), [rig.data(b"a")]);
    rig.send(b"b");
    rig.send(b"c");
    assert_eq!(rig.events(), [rig.data(b"b"), rig.data(b"c"), rig.passive()]);
    rig.send(b"d");
    assert_eq!(rig.events(), []);
    assert_eq!(rig.read(), b"d");
}

#[test]
fn always_pushes_everything_and_the_end() {
    let mut rig = Rig::new();
    rig.set_active(Active::Always);
    for piece in [b"a", b"b", b"c"] {
        rig.send(piece);
    }
    assert_eq!(rig.events(), [rig.data(b"a"), rig.data(b"b"), rig.data(b"c")]);
    let mut conn = rig.world.client().connection(rig.c).unwrap();
    conn.stream(rig.stream).unwrap().finish().unwrap();
    rig.world.run_for(ms(100));
    let finished = Event::Finished {
        conn: rig.s,
        stream: rig.stream,
    };
    assert_eq!(rig.events(), [finished]);
}

#[test]
fn a_reset_is_seen_in_active_mode() {
    let mut rig = Rig::new();
    rig.set_active(Active::Always);
    rig.send(b"a");
    let mut conn = rig.world.client().connection(rig.c).unwrap();
    conn.stream(rig.stream).unwrap().reset(Code::CANCELLED).unwrap();
    rig.world.run_for(ms(100));
    let reset = Event::Reset {
        conn: rig.s,
        stream: rig.stream,
        code: Code::CANCELLED,
    };
    assert_eq!(rig.events(), [rig.data(b"a"), reset]);
}

#[test]
fn a_stream_made_passive_pushes_no_more_and_says_what_is_left() {
    let mut rig = Rig::new();
    rig.set_active(Active::Always);
    rig.set_active(Active::Passive);
    assert_eq!(rig.events(), []);
    rig.send(b"a");
    assert_eq!(rig.events(), [rig.readable()]);
    // Switched on and off again before anything was pushed.
    assert_eq!(rig.read(), b"a");
    rig.set_active(Active::Always);
    rig.events();
    let mut conn = rig.world.client().connection(rig.c).unwrap();
    conn.stream(rig.stream).unwrap().write(b"b").unwrap();
    rig.world.step_polled(rig.world.now.mono + ms(50));
    rig.set_active(Active::Passive);
    assert_eq!(rig.events(), [rig.readable()]);
    assert_eq!(rig.read(), b"b");
    assert_eq!(rig.events(), []);
}

#[test]
fn a_stream_made_passive_amid_its_data_loses_none() {
    let mut rig = Rig::new();
    // Two pieces with a gap between them never merge into one chunk.
    rig.send(&pattern(3_000));
    assert_eq!(rig.events(), [rig.readable()]);
    rig.set_active(Active::Always);
    let first = rig.world.server().poll_event();
    let Some(Event::Data { data, .. }) = first else {
        panic!("{first:?}")
    };
    assert!(data.len() < 3_000);
    rig.set_active(Active::Passive);
    assert_eq!(rig.events(), [rig.readable()]);
    assert_eq!(rig.read(), pattern(3_000)[data.len()..]);
}

#[test]
fn bytes_given_back_are_announced() {
    let mut rig = Rig::new();
    rig.unread(b"leftover");
    rig.unread(b"prefix ");
    assert_eq!(rig.events(), [rig.readable()]);
    rig.send(b" new");
    assert_eq!(rig.events(), []);
    assert_eq!(rig.read(), b"prefix leftover new");
    rig.set_active(Active::Always);
    assert_eq!(rig.events(), []);
    rig.unread(b"again");
    assert_eq!(rig.events(), [rig.data(b"again")]);
}

#[test]
fn bytes_given_back_by_one_owner_are_announced_to_the_next() {
    let mut rig = Rig::new();
    rig.send(b"header and the rest");
    assert_eq!(rig.events(), [rig.readable()]);
    let mut all = rig.read();
    let rest: &'static [u8] = Vec::leak(all.split_off(6));
    rig.unread(rest);
    let mut conn = rig.world.server().connection(rig.s).unwrap();
    conn.stream(rig.stream).unwrap().set_owner(Owner(5));
    let event = rig.world.server().poll_event().unwrap();
    assert_eq!(event, rig.readable());
    assert_eq!(rig.world.server().owner_of(&event), Some(Owner(5)));
    assert_eq!(rig.read(), rest);
}

#[test]
fn active_streams_take_turns() {
    let (mut world, c, s) = World::connected();
    let mut conn = world.client().connection(c).unwrap();
    let streams = [(); 3].map(|()| conn.open(Dir::Uni).unwrap());
    for stream in streams {
        conn.stream(stream).unwrap().write(&pattern(20_000)).unwrap();
    }
    world.run_for(secs(2));
    world.clear_events();
    let mut conn = world.server().connection(s).unwrap();
    for stream in streams {
        conn.stream(stream).unwrap().set_active(Active::Always);
    }
    let mut bytes = [0; 3];
    let mut turns = Vec::new();
    while let Some(event) = world.server().poll_event() {
        let Event::Data { stream, data, .. } = event else {
            panic!("{event:?}")
        };
        let at = streams.iter().position(|id| *id == stream).unwrap();
        bytes[at] += data.len();
        turns.push(at);
    }
    assert_eq!(bytes, [20_000; 3]);
    assert_eq!(turns[..6], [0, 1, 2, 0, 1, 2]);
}

#[test]
fn nothing_is_pushed_ahead_of_who_polls() {
    let client = transport(|_| {});
    let (mut world, c, s) = World::connected_with(&client, &transport(|t| t.stream_window = 10_000));
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Uni).unwrap();
    let mut left = Bytes::from(pattern(1_000_000));
    let mut sent = |world: &mut World| {
        let mut conn = world.client().connection(c).unwrap();
        let mut stream = conn.stream(stream).unwrap();
        while !left.is_empty() && stream.write_chunks(std::slice::from_mut(&mut left)).is_ok() {}
        1_000_000 - left.len()
    };
    sent(&mut world);
    world.wait_stream(SERVER);
    let mut conn = world.server().connection(s).unwrap();
    conn.stream(stream).unwrap().set_active(Active::Always);
    // A server that does not poll holds no more than the window, however long it lasts.
    for _ in 0..50 {
        let limit = world.now.mono + ms(50);
        world.step_polled(limit);
        assert!(sent(&mut world) <= 10_000);
    }
    let mut got = Vec::new();
    world.run_until(secs(60), |world| {
        sent(world);
        for event in world.take(SERVER) {
            if let Event::Data { data, .. } = event {
                got.extend_from_slice(&data);
            }
        }
        got.len() == 1_000_000
    });
    assert_eq!(got, pattern(1_000_000));
}

/// One thing that an owner does to a stream.
#[derive(Debug, Clone, Copy)]
enum Op {
    Wait(u8),
    Read(u16),
    /// Reads, and gives back all but this much.
    Peek(u8),
    Active(Active),
    HandOver(u8),
    HandOverConnection(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..40u8).prop_map(Op::Wait),
        (1..5_000u16).prop_map(Op::Read),
        any::<u8>().prop_map(Op::Peek),
        prop_oneof![
            Just(Active::Passive),
            Just(Active::Once),
            (0..5u32).prop_map(Active::Times),
            Just(Active::Always)
        ]
        .prop_map(Op::Active),
        (1..5u8).prop_map(Op::HandOver),
        (1..5u8).prop_map(Op::HandOverConnection),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the owners do, the bytes come out once and in order, and in the end an owner that only waits for events
    /// gets all of them.
    #[test]
    fn hand_over_at_any_point_loses_and_doubles_nothing(ops in prop::collection::vec(op(), 1..60)) {
        let (mut world, c, s) = World::connected_with(&transport(|_| {}), &transport(|t| t.stream_window = 8_000));
        let mut conn = world.client().connection(c).unwrap();
        let stream = conn.open(Dir::Uni).unwrap();
        let total = 60_000;
        let mut conn_stream = conn.stream(stream).unwrap();
        conn_stream.enqueue(Bytes::from(pattern(total))).unwrap();
        conn_stream.finish().unwrap();
        world.wait_stream(SERVER);
        let mut got = Vec::new();
        let mut finished = false;
        let mut readable = true;
        let collect = |world: &mut World, got: &mut Vec<u8>, finished: &mut bool, readable: &mut bool| {
            world.drain();
            for event in world.take(SERVER) {
                match event {
                    Event::Data { data, .. } => got.extend_from_slice(&data),
                    Event::Finished { .. } => {
                        assert!(!std::mem::replace(finished, true), "finished twice");
                    }
                    Event::Readable { .. } | Event::Passive { .. } => *readable = true,
                    other => panic!("{other:?}"),
                }
            }
        };
        for op in ops {
            if let Op::Wait(time) = op {
                world.run_for(ms(time.into()));
            }
            collect(&mut world, &mut got, &mut finished, &mut readable);
            let mut conn = world.server().connection(s).unwrap();
            if let Op::HandOverConnection(owner) = op {
                conn.set_owner(Owner(owner.into()));
                prop_assert_eq!(conn.owner(), Owner(owner.into()));
            }
            let Ok(mut borrowed) = conn.stream(stream) else { break };
            match op {
                Op::Read(max) => {
                    let mut out = BytesMut::new();
                    match borrowed.read_into(&mut out, max.into()) {
                        Ok(_) => got.extend_from_slice(&out),
                        Err(ReadError::Blocked) => readable = false,
                        Err(error) => panic!("{error}"),
                    }
                }
                Op::Peek(keep) => match borrowed.read_chunk(usize::MAX) {
                    Ok(Some(mut bytes)) => {
                        let kept = bytes.split_to(bytes.len().min(keep.into()));
                        got.extend_from_slice(&kept);
                        borrowed.unread(bytes);
                    }
                    Err(ReadError::Blocked) => readable = false,
                    _ => {}
                },
                Op::Active(active) => borrowed.set_active(active),
                Op::HandOver(owner) => {
                    borrowed.set_owner(Owner(owner.into()));
                    prop_assert_eq!(borrowed.owner(), Owner(owner.into()));
                }
                Op::Wait(_) | Op::HandOverConnection(_) => {}
            }
        }
        // From here on: passive, reading only when told.
        if let Ok(mut borrowed) = world.server().connection(s).unwrap().stream(stream) {
            borrowed.set_active(Active::Passive);
        }
        for _ in 0..2_000 {
            collect(&mut world, &mut got, &mut finished, &mut readable);
            if finished {
                break;
            }
            if std::mem::take(&mut readable) {
                got.extend(world.read(SERVER, s, stream).0);
            }
            world.run_for(ms(5));
        }
        prop_assert!(finished, "{} of {} bytes", got.len(), total);
        prop_assert_eq!(got, pattern(total));
    }
}
