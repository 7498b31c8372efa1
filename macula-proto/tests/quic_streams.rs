//! Streams: opening, ends, and what each end looks like from both sides.

#![cfg(feature = "self-signed")]

mod common;

use bytes::Bytes;
use common::{CLIENT, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code,
    quic::{
        Accept, Active, CloseReason, ConnectionHandle, Dir, EnqueueError, Event, OpenError, Owner, ReadError, StreamId,
        UnknownStream, WriteError,
    },
};

const CODE: Code = Code::DISPLACED;

/// Opens a stream at the client, sends `data`, and waits until the server has it.
fn open(world: &mut World, c: ConnectionHandle, dir: Dir, data: &[u8]) -> StreamId {
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(dir).unwrap();
    assert_eq!(conn.stream(stream).unwrap().write(data), Ok(data.len()));
    assert_eq!(world.wait_stream(SERVER), stream);
    stream
}

fn streams(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| event.stream().is_some()).collect()
}

#[test]
fn what_arrived_before_the_end_event_is_pushed_before_it() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Bi, b"a");
    let mut conn = world.server().connection(s).unwrap();
    conn.stream(stream).unwrap().set_active(Active::Always);
    world.drain();
    world.take(SERVER);
    // Data, its end and the close are handed in before anybody polls.
    let data = pattern(3_000);
    let now = world.now;
    let mut conn = world.client().connection(c).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    borrowed.write(&data).unwrap();
    borrowed.finish().unwrap();
    world.drain();
    world.client().connection(c).unwrap().close(now, CODE, Bytes::new());
    world.run_for(ms(50));
    let mut pushed = vec![b'a'];
    let mut rest = Vec::new();
    for event in world.take(SERVER) {
        match event {
            Event::Data { data, .. } => pushed.extend_from_slice(&data),
            other => rest.push(other),
        }
    }
    assert_eq!(pushed[2..], data[1..]);
    let reason = CloseReason::Peer {
        code: CODE,
        reason: Bytes::new(),
    };
    let closed = Event::Closed {
        conn: s,
        reason,
        established: true,
    };
    assert_eq!(rest, [Event::Finished { conn: s, stream }, closed]);
}

#[test]
fn a_lost_connection_fails_queued_bytes_before_it_ends() {
    let (mut world, c, _) = World::connected_with(&transport(|_| {}), &transport(|t| t.stream_window = 1_000));
    let mut conn = world.client().connection(c).unwrap();
    let first = conn.open(Dir::Uni).unwrap();
    let second = conn.open(Dir::Uni).unwrap();
    for stream in [second, first] {
        conn.stream(stream)
            .unwrap()
            .enqueue(Bytes::from(pattern(5_000)))
            .unwrap();
    }
    world.run_for(secs(1));
    assert_eq!(world.take(CLIENT), []);
    let now = world.now;
    world.server().close_all(now, CODE, &Bytes::new());
    world.run_for(ms(15));
    let events = world.take(CLIENT);
    let failed = |stream| Event::SendFailed {
        conn: c,
        stream,
        lost: 4_000,
    };
    assert_eq!(events[..2], [failed(first), failed(second)]);
    assert!(matches!(events[2..], [Event::Closed { .. }]), "{events:?}");
    let mut conn = world.client().connection(c).unwrap();
    assert_eq!(conn.open(Dir::Bi), Err(OpenError::ConnectionLost));
    let mut stream = conn.stream(first).unwrap();
    assert_eq!(stream.write(b"x"), Err(WriteError::ConnectionLost));
    let bytes = Bytes::from_static(b"x");
    assert_eq!(stream.enqueue(bytes.clone()), Err(EnqueueError::Closed(bytes)));
    world.run_to_rest();
}

#[test]
fn what_arrived_stays_readable_while_the_connection_is_held() {
    let (mut world, c, s) = World::connected();
    let data = pattern(10_000);
    let stream = open(&mut world, c, Dir::Bi, &data);
    world.run_for(ms(100));
    world.server().connection(s).unwrap().hold();
    let now = world.now;
    world.client().close_all(now, CODE, &Bytes::new());
    world.run_for(secs(60));
    assert!(matches!(world.take(SERVER).pop(), Some(Event::Closed { .. })));
    assert!(world.server().is_idle());
    assert_eq!(world.read(SERVER, s, stream), (data, Err(ReadError::ConnectionLost)));
    // Nothing of this gives events or datagrams any more.
    let now = world.now;
    let mut conn = world.server().connection(s).unwrap();
    conn.ping();
    conn.local_address_changed();
    conn.close(now, CODE, Bytes::new());
    let mut borrowed = conn.stream(stream).unwrap();
    borrowed.set_active(Active::Always);
    borrowed.unread(Bytes::from_static(b"again"));
    let _ = borrowed.finish();
    borrowed.abort(CODE);
    let sent = world.trace.len();
    world.run_for(secs(1));
    assert_eq!(world.take(SERVER), []);
    assert_eq!(world.trace.len(), sent);
    world.server().release(s);
    world.run_to_rest();
}

// ----- ends --------------------------------------------------------------------------------------------------------

#[test]
fn a_finished_stream_is_finished_at_one_end_and_delivered_at_the_other() {
    for dir in [Dir::Bi, Dir::Uni] {
        let (mut world, c, s) = World::connected();
        let data = pattern(100_000);
        let stream = open(&mut world, c, dir, &data);
        let mut conn = world.client().connection(c).unwrap();
        let mut borrowed = conn.stream(stream).unwrap();
        borrowed.finish().unwrap();
        assert!(borrowed.finish().is_err());
        assert_eq!(borrowed.write(b"more"), Err(WriteError::Closed));
        assert!(borrowed.enqueue(Bytes::from_static(b"more")).is_err());
        world.run_for(secs(1));
        assert_eq!(world.take(SERVER), [], "the owner was told by StreamOpened");
        assert_eq!(world.read(SERVER, s, stream), (data, Ok(())));
        world.drain();
        assert_eq!(world.take(SERVER), [Event::Finished { conn: s, stream }]);
        assert_eq!(world.take(CLIENT), [Event::Delivered { conn: c, stream }]);
        let gone = world.client().connection(c).unwrap().stream(stream).is_err();
        assert_eq!(gone, dir == Dir::Uni, "a stream that is over is forgotten");
        if dir == Dir::Bi {
            let mut conn = world.server().connection(s).unwrap();
            conn.stream(stream).unwrap().write(b"answer").unwrap();
            conn.stream(stream).unwrap().finish().unwrap();
            world.run_for(secs(1));
            assert_eq!(world.read(CLIENT, c, stream), (b"answer".to_vec(), Ok(())));
            world.run_for(secs(1));
            assert_eq!(world.client().connection(c).unwrap().stats().streams_open, 0);
        }
        assert_eq!(world.server().connection(s).unwrap().stats().streams_open, 0);
    }
}

#[test]
fn a_reset_is_told_with_its_code() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Bi, b"abc");
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().reset(CODE).unwrap();
    assert!(conn.stream(stream).unwrap().reset(CODE).is_err());
    assert!(conn.stream(stream).unwrap().finish().is_err());
    assert_eq!(conn.stream(stream).unwrap().write(b"x"), Err(WriteError::Closed));
    world.run_for(ms(100));
    let reset = Event::Reset {
        conn: s,
        stream,
        code: CODE,
    };
    assert_eq!(world.take(SERVER), [reset]);
    assert_eq!(world.read(SERVER, s, stream), (Vec::new(), Err(ReadError::Reset(CODE))));
    world.drain();
    assert_eq!(world.take(SERVER), []);
    // The other direction lives.
    let mut conn = world.server().connection(s).unwrap();
    conn.stream(stream).unwrap().write(b"def").unwrap();
    world.run_for(ms(100));
    assert_eq!(world.read(CLIENT, c, stream).0, b"def");
}

#[test]
fn a_reset_after_the_finish_still_abandons_what_is_not_delivered() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Uni, b"abc");
    let mut conn = world.client().connection(c).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    borrowed.finish().unwrap();
    borrowed.reset(CODE).unwrap();
    world.run_for(ms(100));
    assert_eq!(world.take(CLIENT), [], "neither delivered nor anything else");
    let reset = Event::Reset {
        conn: s,
        stream,
        code: CODE,
    };
    assert_eq!(world.take(SERVER), [reset]);
}

#[test]
fn a_stop_is_told_with_its_code_and_answered_by_a_reset() {
    for dir in [Dir::Bi, Dir::Uni] {
        let (mut world, c, s) = World::connected();
        let stream = open(&mut world, c, dir, b"abc");
        let mut conn = world.server().connection(s).unwrap();
        let mut borrowed = conn.stream(stream).unwrap();
        borrowed.stop(CODE).unwrap();
        assert!(borrowed.stop(CODE).is_err());
        assert_eq!(borrowed.read_chunk(1), Err(ReadError::Closed));
        world.run_for(ms(100));
        let stopped = Event::Stopped {
            conn: c,
            stream,
            code: CODE,
        };
        assert_eq!(world.take(CLIENT), [stopped]);
        assert_eq!(world.take(SERVER), [], "who stopped wants to hear no more");
        if let Ok(mut borrowed) = world.client().connection(c).unwrap().stream(stream) {
            assert_eq!(borrowed.write(b"x"), Err(WriteError::Stopped(CODE)));
            assert!(borrowed.finish().is_err() && borrowed.reset(CODE).is_err());
            assert!(borrowed.set_priority(1).is_err());
        } else {
            assert_eq!(dir, Dir::Uni);
        }
        let open = world.server().connection(s).unwrap().stats().streams_open;
        assert_eq!(open, u64::from(dir == Dir::Bi));
    }
}

#[test]
fn the_stop_of_a_stream_that_waits_to_be_accepted_is_not_lost() {
    let (mut world, c, s) = World::connected();
    world
        .server()
        .connection(s)
        .unwrap()
        .set_accept(Dir::Bi, Accept::OnDemand);
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Bi).unwrap();
    conn.stream(stream).unwrap().write(b"abc").unwrap();
    world.run_for(ms(100));
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().stop(CODE).unwrap();
    world.run_for(ms(100));
    world.take(SERVER);
    assert_eq!(world.server().connection(s).unwrap().accept(Dir::Bi), Some(stream));
    world.drain();
    let stopped = Event::Stopped {
        conn: s,
        stream,
        code: CODE,
    };
    assert_eq!(world.take(SERVER), [stopped]);
    assert_eq!(world.read(SERVER, s, stream).0, b"abc");
    let mut conn = world.server().connection(s).unwrap();
    assert_eq!(conn.stream(stream).unwrap().write(b"x"), Err(WriteError::Stopped(CODE)));
    // The peer sees the reset that answers, so its flow control stays right.
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().finish().unwrap();
    world.run_for(ms(100));
    assert_eq!(world.client().connection(c).unwrap().stats().streams_open, 0);
}

#[test]
fn an_abort_ends_both_halves() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Bi, b"abc");
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().abort(CODE);
    conn.stream(stream).unwrap().abort(CODE);
    world.run_for(ms(100));
    let mut events = world.take(SERVER);
    events.sort_by_key(|event| matches!(event, Event::Stopped { .. }));
    let (conn, code) = (s, CODE);
    assert_eq!(
        events,
        [
            Event::Reset { conn, stream, code },
            Event::Stopped { conn, stream, code }
        ]
    );
    assert_eq!(world.take(CLIENT), []);
    for (node, conn) in [(CLIENT, c), (SERVER, s)] {
        assert_eq!(world.nodes[node].ep.connection(conn).unwrap().stats().streams_open, 0);
    }
}

#[test]
fn halves_that_do_not_exist_are_errors_not_panics() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Uni, b"abc");
    let mut conn = world.client().connection(c).unwrap();
    let mut sender = conn.stream(stream).unwrap();
    assert_eq!(sender.read_chunk(10), Err(ReadError::Closed));
    assert!(sender.stop(CODE).is_err());
    sender.set_active(Active::Always);
    sender.unread(Bytes::new());
    let mut conn = world.server().connection(s).unwrap();
    let mut receiver = conn.stream(stream).unwrap();
    assert_eq!(receiver.write(b"x"), Err(WriteError::Closed));
    assert!(receiver.enqueue(Bytes::from_static(b"x")).is_err());
    assert!(receiver.finish().is_err() && receiver.reset(CODE).is_err());
    assert!(receiver.set_priority(1).is_err() && receiver.priority().is_err());
    assert!(conn.stream(StreamId::new(1 << 40).unwrap()).is_err());
    world.run_for(ms(100));
    assert_eq!(streams(&world.take(CLIENT)).len(), 0);
}

#[test]
fn a_held_stream_stays_until_it_is_released() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Uni, b"abc");
    world.server().connection(s).unwrap().stream(stream).unwrap().hold();
    world
        .client()
        .connection(c)
        .unwrap()
        .stream(stream)
        .unwrap()
        .finish()
        .unwrap();
    world.run_for(ms(100));
    assert_eq!(world.read(SERVER, s, stream).0, b"abc");
    world.run_for(ms(100));
    let mut conn = world.server().connection(s).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    assert_eq!(borrowed.read_chunk(1), Ok(None));
    assert_eq!(borrowed.stats().bytes_read, 3);
    borrowed.release();
    world.drain();
    assert!(world.server().connection(s).unwrap().stream(stream).is_err());
}

#[test]
fn the_last_event_of_a_stream_still_knows_its_owner() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Uni, b"abc");
    let mut conn = world.server().connection(s).unwrap();
    conn.set_owner(Owner(1));
    conn.stream(stream).unwrap().set_owner(Owner(2));
    conn.stream(stream).unwrap().set_active(Active::Always);
    let mut conn = world.client().connection(c).unwrap();
    conn.set_owner(Owner(3));
    conn.stream(stream).unwrap().set_owner(Owner(4));
    conn.stream(stream).unwrap().finish().unwrap();
    let mut owners = [Vec::new(), Vec::new()];
    let limit = world.now.mono + secs(1);
    // Polled here, not by the world, to ask for the owner of each event as a driver does.
    for _ in 0..20 {
        for node in [CLIENT, SERVER] {
            let endpoint = &mut world.nodes[node].ep;
            while let Some(event) = endpoint.poll_event() {
                owners[node].push((endpoint.owner_of(&event).unwrap(), event));
            }
        }
        world.step_polled(limit);
    }
    let (conn, owner) = (s, Owner(2));
    let last = owners[SERVER].split_off(owners[SERVER].len() - 2);
    let finished = (owner, Event::Finished { conn, stream });
    assert_eq!(last, [finished, (owner, Event::Over { conn, stream })]);
    let (conn, owner) = (c, Owner(4));
    let delivered = (owner, Event::Delivered { conn, stream });
    assert_eq!(owners[CLIENT], [delivered, (owner, Event::Over { conn, stream })]);
    for (node, conn) in [(CLIENT, c), (SERVER, s)] {
        assert_eq!(world.nodes[node].ep.connection(conn).unwrap().stats().streams_open, 0);
    }
}

// ----- opening and accepting ---------------------------------------------------------------------------------------

#[test]
fn streams_are_available_only_to_who_asked() {
    let (mut world, c, s) = World::connected_with(&transport(|_| {}), &transport(|t| t.max_bidi_streams = 2));
    let first = open(&mut world, c, Dir::Bi, b"a");
    let second = open(&mut world, c, Dir::Bi, b"b");
    world.run_for(ms(100));
    assert_eq!(
        world.client().connection(c).unwrap().open(Dir::Bi),
        Err(OpenError::Blocked)
    );
    assert_eq!(
        world.client().connection(c).unwrap().open(Dir::Bi),
        Err(OpenError::Blocked)
    );
    let end = |world: &mut World, stream| {
        for (node, conn) in [(CLIENT, c), (SERVER, s)] {
            let mut conn = world.nodes[node].ep.connection(conn).unwrap();
            conn.stream(stream).unwrap().abort(CODE);
        }
        world.run_for(ms(100));
    };
    end(&mut world, first);
    let available = |event: &Event| matches!(event, Event::StreamsAvailable { dir: Dir::Bi, .. });
    assert_eq!(world.take(CLIENT).iter().filter(|e| available(e)).count(), 1);
    world.client().connection(c).unwrap().open(Dir::Bi).unwrap();
    end(&mut world, second);
    assert_eq!(world.take(CLIENT).iter().filter(|e| available(e)).count(), 0);
}

#[test]
fn streams_asked_for_before_the_handshake_are_available_after_it() {
    let mut world = World::pair();
    let config = world.dial_config(SERVER);
    let c = world.dial(&config);
    for dir in [Dir::Bi, Dir::Uni] {
        assert_eq!(world.client().connection(c).unwrap().open(dir), Err(OpenError::Blocked));
    }
    world.run_for(ms(100));
    let events = world.take(CLIENT);
    let available = |dir| Event::StreamsAvailable { conn: c, dir };
    assert!(matches!(events[0], Event::Connected { .. }));
    assert_eq!(events[1..], [available(Dir::Bi), available(Dir::Uni)]);
    world.client().connection(c).unwrap().open(Dir::Bi).unwrap();
}

#[test]
fn streams_wait_for_their_owner() {
    for dir in [Dir::Bi, Dir::Uni] {
        let (mut world, c, s) = World::connected();
        world.server().connection(s).unwrap().set_accept(dir, Accept::OnDemand);
        let write = |world: &mut World| {
            let mut conn = world.client().connection(c).unwrap();
            let stream = conn.open(dir).unwrap();
            conn.stream(stream).unwrap().write(b"abc").unwrap();
            world.run_for(ms(50));
            stream
        };
        let waiting = Event::StreamsWaiting { conn: s, dir };
        let first = write(&mut world);
        assert_eq!(world.take(SERVER), std::slice::from_ref(&waiting));
        let second = write(&mut world);
        assert_eq!(world.take(SERVER), [], "told once");
        assert!(world.server().connection(s).unwrap().stream(first).is_err());
        let mut conn = world.server().connection(s).unwrap();
        assert_eq!(conn.accept(dir), Some(first));
        assert_eq!(conn.accept(dir), Some(second));
        assert_eq!(conn.accept(dir), None);
        assert_eq!(world.read(SERVER, s, first).0, b"abc");
        let third = write(&mut world);
        assert_eq!(world.take(SERVER), [waiting], "and again");
        world.server().connection(s).unwrap().set_accept(dir, Accept::All);
        world.drain();
        let opened = Event::StreamOpened { conn: s, stream: third };
        assert_eq!(world.take(SERVER), [opened], "those that wait are accepted too");
        assert_eq!(world.server().connection(s).unwrap().stats().streams_accepted, 3);
    }
}

#[test]
fn bytes_given_back_after_the_end_was_read_are_read_again() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Uni, b"prefix and rest");
    world
        .client()
        .connection(c)
        .unwrap()
        .stream(stream)
        .unwrap()
        .finish()
        .unwrap();
    world.run_for(ms(100));
    let mut conn = world.server().connection(s).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    let mut all = bytes::BytesMut::new();
    assert_eq!(borrowed.read_into(&mut all, 100), Ok(15));
    assert_eq!(borrowed.read_into(&mut all, 100), Ok(0), "the end");
    borrowed.unread(all.split_off(6).freeze());
    borrowed.unread(Bytes::from_static(b"-"));
    borrowed.set_owner(Owner(9));
    world.run_for(ms(100));
    let mut conn = world.server().connection(s).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    assert_eq!(borrowed.stats().bytes_read, 5);
    let mut out = [0; 4];
    assert_eq!(borrowed.read(&mut out), Ok(4));
    assert_eq!(&out, b"- an");
    assert_eq!(world.read(SERVER, s, stream), (b"d rest".to_vec(), Ok(())));
    world.drain();
    assert!(
        world.server().connection(s).unwrap().stream(stream).is_err(),
        "then it is over"
    );
}

#[test]
fn all_that_has_arrived_is_read_at_once_and_so_is_the_end() {
    let (mut world, c, s) = World::connected();
    let data = pattern(9_000);
    let stream = open(&mut world, c, Dir::Bi, &data[..5_000]);
    world.run_for(ms(100));
    let mut read = Vec::new();
    let mut server = world.server().stream(s, stream).unwrap();
    assert_eq!(server.read_available(|bytes| read.extend_from_slice(&bytes)), Ok(false));
    assert_eq!(read, data[..5_000]);
    // What is given back comes again, before the rest and its end.
    server.unread(Bytes::copy_from_slice(&read.split_off(4_000)));
    let mut client = world.client().stream(c, stream).unwrap();
    assert_eq!(client.write(&data[5_000..]), Ok(4_000));
    client.finish().unwrap();
    world.run_for(ms(100));
    let mut server = world.server().stream(s, stream).unwrap();
    assert_eq!(server.read_available(|bytes| read.extend_from_slice(&bytes)), Ok(true));
    assert_eq!(read, data);
    assert_eq!(server.read_available(|bytes| panic!("{bytes:?}")), Ok(true));

    // The same for a stream of which nothing is left behind its last bytes.
    let stream = open(&mut world, c, Dir::Uni, b"last words");
    world.client().stream(c, stream).unwrap().finish().unwrap();
    world.run_for(ms(100));
    let mut server = world.server().stream(s, stream).unwrap();
    let mut read = Vec::new();
    assert_eq!(server.read_available(|bytes| read.extend_from_slice(&bytes)), Ok(true));
    assert_eq!(read, b"last words");
    world.drain();
    assert_eq!(world.server().stream(s, stream).unwrap_err(), UnknownStream);
    let now = world.now;
    world.client().close_all(now, CODE, &Bytes::new());
    world.run_to_rest();
    assert_eq!(world.client().stream(c, stream).unwrap_err(), UnknownStream);
}

#[test]
fn what_was_read_before_a_reset_is_handed_out() {
    let (mut world, c, s) = World::connected();
    let stream = open(&mut world, c, Dir::Bi, b"so far");
    world.client().stream(c, stream).unwrap().reset(CODE).unwrap();
    world.run_for(ms(100));
    let mut server = world.server().stream(s, stream).unwrap();
    server.unread(Bytes::from_static(b"and "));
    let mut read = Vec::new();
    let outcome = server.read_available(|bytes| read.extend_from_slice(&bytes));
    assert_eq!(outcome, Err(ReadError::Reset(CODE)));
    assert_eq!(read, b"and ");
}
