//! Back-pressure: blocked writes, queued sends, edges that are never lost, priorities.

#![cfg(feature = "self-signed")]

mod common;

use bytes::Bytes;
use common::{CLIENT, Fate, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code, Limits, Rng,
    quic::{ConnectionHandle, Dir, EnqueueError, Event, OpenError, ReadError, StreamId, WriteError},
};
use proptest::prelude::*;

/// A connection whose server takes `window` bytes of a stream, and a stream that it has not heard of.
fn rig(window: u64) -> (World, ConnectionHandle, ConnectionHandle, StreamId) {
    rig_with(Limits::default(), window)
}

fn rig_with(limits: Limits, window: u64) -> (World, ConnectionHandle, ConnectionHandle, StreamId) {
    let mut world = World::new();
    world.add(limits);
    world.add(Limits::default());
    world.listen(SERVER, |config| config.transport.stream_window = window);
    let config = world.dial_config(SERVER);
    let (c, s) = world.establish(&config);
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Bi).unwrap();
    world.run_for(secs(1));
    world.clear_events();
    (world, c, s, stream)
}

fn write(world: &mut World, c: ConnectionHandle, stream: StreamId, data: &[u8]) -> Result<usize, WriteError> {
    world
        .client()
        .connection(c)
        .unwrap()
        .stream(stream)
        .unwrap()
        .write(data)
}

#[test]
fn a_blocked_write_is_followed_by_one_event_when_there_is_room() {
    let (mut world, c, s, stream) = rig(10_000);
    let data = pattern(30_000);
    let mut sent = 0;
    let mut got = Vec::new();
    while sent < data.len() {
        match write(&mut world, c, stream, &data[sent..]) {
            Ok(n) => {
                assert!((1..=10_000).contains(&n));
                sent += n;
                continue;
            }
            Err(error) => assert_eq!(error, WriteError::Blocked),
        }
        world.run_for(secs(3));
        assert_eq!(world.take(CLIENT), [], "the peer has not read");
        // Telling twice does not make two events.
        assert_eq!(write(&mut world, c, stream, &data[sent..]), Err(WriteError::Blocked));
        got.extend(world.read(SERVER, s, stream).0);
        world.run_for(secs(1));
        assert_eq!(world.take(CLIENT), [Event::Writable { conn: c, stream }]);
        world.run_for(secs(1));
        assert_eq!(world.take(CLIENT), []);
    }
    world.run_for(secs(1));
    got.extend(world.read(SERVER, s, stream).0);
    assert_eq!(got, data);
    let stats = world.client().connection(c).unwrap().stream(stream).unwrap().stats();
    assert_eq!(stats.bytes_written, 30_000);
    assert!(stats.write_blocked >= 4);
    let stats = world.server().connection(s).unwrap().stream(stream).unwrap().stats();
    assert_eq!(stats.bytes_read, 30_000);
}

#[test]
fn nobody_is_told_of_room_that_nobody_asked_for() {
    let (mut world, c, s, stream) = rig(10_000);
    for _ in 0..20 {
        assert_eq!(write(&mut world, c, stream, &[7; 10_000]), Ok(10_000));
        world.run_for(secs(1));
        assert_eq!(world.read(SERVER, s, stream).0.len(), 10_000);
        world.run_for(secs(1));
    }
    assert_eq!(world.take(CLIENT), []);
}

#[test]
fn queued_sends_keep_their_order_and_come_before_later_writes() {
    let (mut world, c, s, stream) = rig(10_000);
    let data = pattern(45_000);
    for piece in data[..40_000].chunks(700) {
        let mut conn = world.client().connection(c).unwrap();
        conn.stream(stream)
            .unwrap()
            .enqueue(Bytes::copy_from_slice(piece))
            .unwrap();
    }
    let mut conn = world.client().connection(c).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    assert_eq!(borrowed.stats().bytes_queued, 30_000);
    assert_eq!(borrowed.write(b"overtaking"), Err(WriteError::Blocked));
    let mut chunks = [Bytes::from_static(b"overtaking")];
    assert_eq!(borrowed.write_chunks(&mut chunks), Err(WriteError::Blocked));
    let mut got = Vec::new();
    world.run_until(secs(60), |world| {
        got.extend(world.read(SERVER, s, stream).0);
        got.len() == 40_000
    });
    world.run_for(secs(1));
    assert_eq!(world.take(CLIENT), [Event::Writable { conn: c, stream }]);
    assert_eq!(write(&mut world, c, stream, &data[40_000..]), Ok(5_000));
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().finish().unwrap();
    world.run_for(secs(1));
    let (rest, end) = world.read(SERVER, s, stream);
    got.extend(rest);
    assert_eq!((got == data, end), (true, Ok(())));
}

#[test]
fn a_finish_waits_for_what_is_queued() {
    let (mut world, c, s, stream) = rig(10_000);
    let data = pattern(64_000);
    let mut conn = world.client().connection(c).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    borrowed.enqueue(Bytes::from(data.clone())).unwrap();
    assert_eq!(borrowed.write(b"x"), Err(WriteError::Blocked));
    borrowed.finish().unwrap();
    assert_eq!(borrowed.write(b"x"), Err(WriteError::Closed));
    assert!(borrowed.finish().is_err());
    let mut got = Vec::new();
    world.run_until(secs(60), |world| {
        let (bytes, end) = world.read(SERVER, s, stream);
        got.extend(bytes);
        end.is_ok()
    });
    assert_eq!(got, data);
    world.run_for(secs(1));
    assert_eq!(
        world.take(CLIENT),
        [Event::Delivered { conn: c, stream }],
        "and no Writable"
    );
}

#[test]
fn the_queue_is_bounded_and_gives_back_what_does_not_fit() {
    let mut limits = Limits::default();
    limits.send_queue = 5_000;
    let (mut world, c, s, stream) = rig_with(limits, 10_000);
    assert_eq!(write(&mut world, c, stream, &[0; 10_000]), Ok(10_000));
    let mut conn = world.client().connection(c).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    borrowed.enqueue(Bytes::from(vec![1; 3_000])).unwrap();
    let more = Bytes::from(vec![2; 2_001]);
    assert_eq!(borrowed.enqueue(more.clone()), Err(EnqueueError::Full(more.clone())));
    borrowed.enqueue(more.slice(1..)).unwrap();
    assert_eq!(
        borrowed.enqueue(more.slice(..1)),
        Err(EnqueueError::Full(more.slice(..1)))
    );
    borrowed.enqueue(Bytes::new()).unwrap();
    world.run_for(secs(1));
    let mut got = Vec::new();
    world.run_until(secs(10), |world| {
        got.extend(world.read(SERVER, s, stream).0);
        got.len() == 15_000
    });
    assert_eq!(
        world
            .client()
            .connection(c)
            .unwrap()
            .stream(stream)
            .unwrap()
            .stats()
            .bytes_queued,
        0
    );
}

#[test]
fn queued_bytes_that_cannot_be_sent_are_reported() {
    for by_peer in [false, true] {
        let (mut world, c, s, stream) = rig(10_000);
        let mut conn = world.client().connection(c).unwrap();
        conn.stream(stream)
            .unwrap()
            .enqueue(Bytes::from(pattern(25_000)))
            .unwrap();
        if by_peer {
            world.run_for(secs(1));
            let mut conn = world.server().connection(s).unwrap();
            conn.stream(stream).unwrap().stop(Code::LIMIT).unwrap();
        } else {
            conn.stream(stream).unwrap().reset(Code::LIMIT).unwrap();
        }
        world.run_for(secs(1));
        let failed = Event::SendFailed {
            conn: c,
            stream,
            lost: 15_000,
        };
        let stopped = Event::Stopped {
            conn: c,
            stream,
            code: Code::LIMIT,
        };
        let expected = if by_peer { vec![failed, stopped] } else { vec![failed] };
        assert_eq!(world.take(CLIENT), expected);
    }
}

#[test]
fn writes_of_nothing_do_nothing() {
    let (mut world, c, _, stream) = rig(10_000);
    let mut conn = world.client().connection(c).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    assert_eq!(borrowed.write(b""), Ok(0));
    let mut chunks = [Bytes::new(), Bytes::new()];
    let written = borrowed.write_chunks(&mut chunks).unwrap();
    assert_eq!((written.bytes, written.chunks), (0, 2));
    let mut chunks = [Bytes::from_static(b"a"), Bytes::new(), Bytes::from(vec![0; 20_000])];
    let written = borrowed.write_chunks(&mut chunks).unwrap();
    assert_eq!((written.bytes, written.chunks), (10_000, 2));
    assert_eq!(chunks[2].len(), 10_001, "taken in part");
    assert_eq!(borrowed.read(&mut []), Ok(0));
}

#[test]
fn a_larger_send_window_wakes_who_waited_for_it() {
    let (mut world, c, s, stream) = rig(1_000_000);
    world.client().connection(c).unwrap().set_send_window(1_000);
    world.link.fate = Box::new(|_| Fate::Drop);
    assert_eq!(write(&mut world, c, stream, &[0; 5_000]), Ok(1_000));
    assert_eq!(write(&mut world, c, stream, &[0; 4_000]), Err(WriteError::Blocked));
    world.drain();
    world.client().connection(c).unwrap().set_send_window(100_000);
    world.drain();
    assert_eq!(world.take(CLIENT), [Event::Writable { conn: c, stream }]);
    world.link.fate = Box::new(|_| Fate::Deliver);
    assert_eq!(write(&mut world, c, stream, &[0; 4_000]), Ok(4_000));
    world.run_for(secs(5));
    assert_eq!(world.read(SERVER, s, stream).0.len(), 5_000);
}

#[test]
fn streams_that_wait_for_the_send_window_take_turns() {
    const STREAMS: usize = 50;
    let (mut world, c, s, _) = rig(1_000_000);
    // Room for a few of the pieces that the streams want to write.
    world.client().connection(c).unwrap().set_send_window(20_000);
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| world.client().connection(c).unwrap().open(Dir::Bi).unwrap())
        .collect();
    let mut sent = [0; STREAMS];
    let mut turn = streams.clone();
    for _ in 0..400 {
        for stream in std::mem::take(&mut turn) {
            let index = streams.iter().position(|own| *own == stream).unwrap();
            // As much as there is room for, as whoever copies from somewhere does.
            while let Ok(bytes) = write(&mut world, c, stream, &[0; 4_000]) {
                sent[index] += bytes;
            }
        }
        world.run_for(ms(50));
        let readable = streams.iter().filter(|stream| {
            let mut server = world.server().connection(s).unwrap();
            server.stream(**stream).is_ok()
        });
        for stream in readable.copied().collect::<Vec<_>>() {
            let _ = world.read(SERVER, s, stream);
        }
        world.run_for(ms(50));
        turn.extend(world.take(CLIENT).into_iter().filter_map(|event| match event {
            Event::Writable { stream, .. } => Some(stream),
            _ => None,
        }));
    }
    let least = *sent.iter().min().unwrap();
    let most = *sent.iter().max().unwrap();
    assert!(least * 2 >= most, "{least} to {most} bytes: {sent:?}");
}

#[test]
fn a_window_for_the_whole_connection_is_shared_and_can_grow() {
    let server = transport(|t| t.connection_window = Some(10_000));
    let (mut world, c, s) = World::connected_with(&transport(|_| {}), &server);
    let mut conn = world.client().connection(c).unwrap();
    let streams = [(); 2].map(|()| conn.open(Dir::Uni).unwrap());
    assert_eq!(conn.stream(streams[0]).unwrap().write(&[1; 8_000]), Ok(8_000));
    assert_eq!(conn.stream(streams[1]).unwrap().write(&[2; 8_000]), Ok(2_000));
    assert_eq!(
        conn.stream(streams[1]).unwrap().write(&[2; 6_000]),
        Err(WriteError::Blocked)
    );
    world.run_for(secs(1));
    world.clear_events();
    world.server().connection(s).unwrap().set_connection_window(20_000);
    world.run_for(secs(1));
    let stream = streams[1];
    assert_eq!(world.take(CLIENT), [Event::Writable { conn: c, stream }]);
    assert_eq!(write(&mut world, c, stream, &[2; 6_000]), Ok(6_000));
    world.run_for(secs(1));
    assert_eq!(world.read(SERVER, s, streams[0]).0.len(), 8_000);
    assert_eq!(world.read(SERVER, s, streams[1]).0.len(), 8_000);
}

#[test]
fn a_stalled_stream_does_not_stall_others() {
    let (mut world, c, s, stalled) = rig(50_000);
    assert_eq!(write(&mut world, c, stalled, &[0; 100_000]), Ok(50_000));
    assert_eq!(write(&mut world, c, stalled, &[0; 50_000]), Err(WriteError::Blocked));
    let other = world.client().connection(c).unwrap().open(Dir::Bi).unwrap();
    let data = pattern(300_000);
    let (mut sent, mut got) = (0, Vec::new());
    world.run_until(secs(60), |world| {
        while let Ok(n) = write(world, c, other, &data[sent..]) {
            sent += n;
            if n == 0 {
                break;
            }
        }
        if world.server().connection(s).unwrap().stream(other).is_ok() {
            got.extend(world.read(SERVER, s, other).0);
        }
        got.len() == data.len()
    });
    assert_eq!(got, data);
}

#[test]
fn a_control_stream_passes_bulk() {
    let mut late = [secs(0); 2];
    for (at, priority) in [0, 10].into_iter().enumerate() {
        let (mut world, c, s, bulk) = rig(10_000_000);
        let mut conn = world.client().connection(c).unwrap();
        let control = conn.open(Dir::Bi).unwrap();
        conn.stream(control).unwrap().set_priority(priority).unwrap();
        assert_eq!(conn.stream(control).unwrap().priority(), Ok(priority));
        conn.stream(bulk).unwrap().write(&vec![0; 2_000_000]).unwrap();
        for _ in 0..60 {
            let stream = conn.open(Dir::Bi).unwrap();
            conn.stream(stream).unwrap().write(&vec![0; 50_000]).unwrap();
        }
        world.run_for(ms(30));
        let before = world.elapsed();
        assert_eq!(write(&mut world, c, control, &[1; 2_000]), Ok(2_000));
        let mut got = 0;
        world.run_until(secs(60), |world| {
            if world.server().connection(s).unwrap().stream(control).is_ok() {
                got += world.read(SERVER, s, control).0.len();
            }
            got == 2_000
        });
        late[at] = world.elapsed() - before;
    }
    assert!(late[1] * 2 < late[0], "{late:?}");
}

#[test]
fn the_grant_of_streams_grows_with_use_up_to_the_maximum() {
    let server = transport(|t| {
        t.initial_streams = 16;
        t.max_bidi_streams = 4_096;
    });
    let (mut world, c, s) = World::connected_with(&transport(|_| {}), &server);
    let mut opened = Vec::new();
    loop {
        let mut now = 0;
        loop {
            let mut conn = world.client().connection(c).unwrap();
            match conn.open(Dir::Bi) {
                Ok(stream) => {
                    conn.stream(stream).unwrap().write(b"x").unwrap();
                    opened.push(stream);
                    now += 1;
                }
                Err(error) => {
                    assert_eq!(error, OpenError::Blocked);
                    break;
                }
            }
        }
        if now == 0 {
            break;
        }
        world.run_for(secs(1));
        let told = world.take(CLIENT).len();
        assert_eq!(told, usize::from(opened.len() < 4_096), "after {}", opened.len());
    }
    assert_eq!(opened.len(), 4_096);
    let stats = world.server().connection(s).unwrap().stats();
    assert_eq!((stats.streams_accepted, stats.streams_open), (4_096, 4_096));
    // Each stream that ends makes room for one.
    for stream in &opened[..1_000] {
        for (node, conn) in [(CLIENT, c), (SERVER, s)] {
            let mut conn = world.nodes[node].ep.connection(conn).unwrap();
            conn.stream(*stream).unwrap().abort(Code::CLOSED);
        }
    }
    world.run_for(secs(5));
    let mut again = 0;
    while world.client().connection(c).unwrap().open(Dir::Bi).is_ok() {
        again += 1;
    }
    assert!((900..=1_000).contains(&again), "{again}");
}

#[test]
fn the_allowance_of_streams_can_be_changed() {
    let (mut world, c, s) = World::connected_with(&transport(|_| {}), &transport(|t| t.max_bidi_streams = 2));
    let open = |world: &mut World| {
        let mut n = 0;
        while let Ok(stream) = world.client().connection(c).unwrap().open(Dir::Bi) {
            let mut conn = world.client().connection(c).unwrap();
            conn.stream(stream).unwrap().write(b"x").unwrap();
            n += 1;
            if n == 200 {
                break;
            }
        }
        world.run_for(secs(1));
        n
    };
    assert_eq!(open(&mut world), 2);
    world.server().connection(s).unwrap().set_max_streams(Dir::Bi, 5);
    world.run_for(secs(1));
    assert_eq!(open(&mut world), 3);
    // The largest number that QUIC can express costs nothing before it is used.
    world.server().connection(s).unwrap().set_max_streams(Dir::Bi, u64::MAX);
    world.run_for(secs(1));
    let first = open(&mut world);
    assert!(first >= 5, "{first}");
    assert!(open(&mut world) > 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A reader that reads only after `Readable`, as much or little as it likes, and a writer that writes only after
    /// `Writable`, never wait for ever, whatever the network does.
    #[test]
    fn no_edge_is_lost(seed in any::<u64>().no_shrink(), window in 2_000..40_000u64, loss in 0..15u64) {
        let (mut world, c, s, stream) = rig(window);
        let mut net = Rng::from_seed(seed);
        world.link.fate = Box::new(move |_| match net.below(100) {
            n if n < loss => Fate::Drop,
            n if n < loss + 5 => Fate::Twice,
            n if n < loss + 15 => Fate::Late(net.duration_below(ms(40))),
            _ => Fate::Deliver,
        });
        let mut rng = Rng::from_seed(seed ^ 1);
        let data = pattern(120_000);
        let (mut sent, mut got) = (0, Vec::new());
        let (mut writable, mut readable) = (true, false);
        let mut finished = false;
        world.run_until(secs(600), |world| {
            for event in world.take(CLIENT) {
                match event {
                    Event::Writable { .. } => assert!(!std::mem::replace(&mut writable, true), "told twice"),
                    Event::Delivered { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            while writable && sent < data.len() {
                let most = usize::try_from(rng.below(5_000)).unwrap() + 1;
                let end = data.len().min(sent + most);
                match write(world, c, stream, &data[sent..end]) {
                    Ok(n) => sent += n,
                    Err(error) => {
                        assert_eq!(error, WriteError::Blocked);
                        writable = false;
                    }
                }
                if sent == data.len() {
                    let mut conn = world.client().connection(c).unwrap();
                    conn.stream(stream).unwrap().finish().unwrap();
                }
            }
            for event in world.take(SERVER) {
                match event {
                    Event::StreamOpened { .. } => readable = true,
                    Event::Readable { .. } => assert!(!std::mem::replace(&mut readable, true), "told twice"),
                    Event::Finished { .. } => finished = true,
                    other => panic!("{other:?}"),
                }
            }
            // Sometimes only a part is read, sometimes nothing for a while: the edge stays with the reader.
            while readable && rng.below(4) != 0 {
                let mut conn = world.server().connection(s).unwrap();
                let Ok(mut borrowed) = conn.stream(stream) else { break };
                let max = usize::try_from(rng.below(3_000)).unwrap() + 1;
                match borrowed.read_chunk(max) {
                    Ok(Some(bytes)) => got.extend_from_slice(&bytes),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(error, ReadError::Blocked);
                        readable = false;
                    }
                }
            }
            finished
        });
        prop_assert_eq!(got, data);
    }
}
