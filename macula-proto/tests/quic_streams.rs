//! Streams: opening, ends, and what each end looks like from both sides.

#![cfg(feature = "self-signed")]

mod common;

use bytes::Bytes;
use common::{CLIENT, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code,
    quic::{
        Accept, Active, CloseReason, ConnectionHandle, Dir, EnqueueError, Event, OpenError, Owner, ReadError, StreamId,
        WriteError,
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
