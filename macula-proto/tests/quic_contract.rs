//! The edge contract: what to poll, when to come back, and what idle endpoints cost.

#![cfg(feature = "self-signed")]

mod common;

use std::num::NonZeroUsize;

use bytes::Bytes;
use common::{CLIENT, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code, Limits,
    quic::{Active, Dir, Event, Owner},
};

#[test]
fn an_endpoint_without_connections_waits_for_input_only() {
    let mut world = World::pair();
    for node in [CLIENT, SERVER] {
        let endpoint = &mut world.nodes[node].ep;
        assert_eq!(endpoint.poll_timeout(), None);
        assert_eq!(endpoint.poll_event(), None);
        let mut buf = Vec::new();
        assert_eq!(endpoint.poll_transmit(world.now, NonZeroUsize::MIN, &mut buf), None);
        endpoint.handle_timeout(world.now);
        assert_eq!(endpoint.poll_timeout(), None);
        assert!(endpoint.is_idle());
    }
}

#[test]
fn what_was_in_the_buffer_before_is_not_sent() {
    let (mut world, c, s) = World::connected();
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Uni).unwrap();
    conn.stream(stream).unwrap().write(&pattern(8_000)).unwrap();
    let now = world.now;
    let mut buf = b"old".to_vec();
    let mut datagrams = Vec::new();
    while let Some(transmit) = world
        .client()
        .poll_transmit(now, NonZeroUsize::new(3).unwrap(), &mut buf)
    {
        assert_eq!(transmit.size, buf.len());
        let size = transmit.segment_size.unwrap_or(transmit.size);
        assert!(buf.len().div_ceil(size) <= 3);
        datagrams.extend(buf.chunks(size).map(<[u8]>::to_vec));
    }
    assert!(datagrams.len() > 2, "{}", datagrams.len());
    let (from, to) = (world.nodes[CLIENT].addr, world.nodes[SERVER].addr);
    for data in datagrams {
        world.inject(from, to, data);
    }
    world.run_for(secs(1));
    assert_eq!(world.read(SERVER, s, stream).0, pattern(8_000));
}

#[test]
fn the_time_out_is_now_while_something_was_not_polled() {
    let (mut world, c, s) = World::connected();
    world.run_for(secs(5));
    let far = |world: &mut World, node: usize| {
        let now = world.now.mono;
        world.nodes[node].ep.poll_timeout().is_some_and(|at| at > now)
    };
    assert!(far(&mut world, CLIENT));
    // Datagrams.
    world.client().connection(c).unwrap().ping();
    assert!(!far(&mut world, CLIENT));
    world.drain();
    assert!(far(&mut world, CLIENT));
    // Events that an operation caused.
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Bi).unwrap();
    conn.stream(stream).unwrap().write(b"abc").unwrap();
    conn.stream(stream).unwrap().finish().unwrap();
    world.run_for(secs(1));
    assert_eq!(world.read(SERVER, s, stream).0, b"abc");
    assert!(!far(&mut world, SERVER), "Finished waits");
    world.drain();
    assert!(far(&mut world, SERVER));
    // Bytes to push.
    let mut conn = world.server().connection(s).unwrap();
    conn.stream(stream).unwrap().set_active(Active::Always);
    assert!(!far(&mut world, SERVER));
    world.drain();
    assert!(far(&mut world, SERVER));
    // The end.
    let now = world.now;
    world.server().close_all(now, Code::CLOSED, &Bytes::new());
    let mut buf = Vec::new();
    while world.server().poll_transmit(now, NonZeroUsize::MIN, &mut buf).is_some() {}
    assert!(!far(&mut world, SERVER), "Closed waits");
    world.drain();
    assert!(far(&mut world, SERVER));
    world.run_to_rest();
}

#[test]
fn time_outs_in_between_do_nothing() {
    let (mut world, ..) = World::connected_with(&transport(|t| t.keep_alive = None), &transport(|_| {}));
    world.run_for(secs(10));
    world.clear_events();
    let sent = world.trace.len();
    let next = [0, 1].map(|node| world.nodes[node].ep.poll_timeout().unwrap());
    for _ in 0..50 {
        world.advance(ms(10));
        for node in [CLIENT, SERVER] {
            let now = world.now;
            world.nodes[node].ep.handle_timeout(now);
        }
        world.drain();
        assert_eq!([0, 1].map(|node| world.nodes[node].ep.poll_timeout().unwrap()), next);
    }
    assert_eq!(world.trace.len(), sent);
    assert_eq!(world.take(CLIENT), []);
    assert_eq!(world.take(SERVER), []);
}

#[test]
fn a_late_time_out_fires_everything_once() {
    let (mut world, ..) = World::connected();
    world.run_for(secs(1));
    // A process that slept for an hour.
    world.advance(secs(3600));
    world.run_to_rest();
    for node in [CLIENT, SERVER] {
        let events = world.take(node);
        assert!(matches!(events[..], [Event::Closed { .. }]), "{events:?}");
    }
}

#[test]
fn one_owner_may_have_many_connections() {
    let mut world = World::new();
    world.add(Limits::default());
    world.add(Limits::default());
    world.listen(SERVER, |_| {});
    let config = world.dial_config(SERVER);
    let pairs: Vec<_> = (0..50).map(|_| world.establish(&config)).collect();
    for (i, (c, _)) in pairs.iter().enumerate() {
        let mut conn = world.client().connection(*c).unwrap();
        conn.set_owner(Owner(i as u64));
        let stream = conn.open(Dir::Uni).unwrap();
        let mut stream = conn.stream(stream).unwrap();
        stream.write(&pattern(1 + i * 1_000)).unwrap();
        stream.finish().unwrap();
    }
    world.run_for(secs(2));
    for (i, (c, s)) in pairs.iter().enumerate() {
        let stream = macula_proto::quic::StreamId::new(2).unwrap();
        assert_eq!(world.read(SERVER, *s, stream).0, pattern(1 + i * 1_000));
        let event = Event::Delivered { conn: *c, stream };
        assert_eq!(world.client().owner_of(&event), Some(Owner(i as u64)));
    }
    let now = world.now;
    world.client().close_all(now, Code::CLOSED, &Bytes::new());
    world.run_to_rest();
}
