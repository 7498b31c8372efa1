//! Early data (0-RTT): an explicit choice of both sides.

#![cfg(feature = "self-signed")]

mod common;

use common::{CLIENT, SERVER, World, ms, pattern, secs};
use macula_proto::quic::{DialConfig, Dir, Event, OpenError, StreamId, tls::Credentials, tls::SelfSigned};

/// A client that has been at the server before and may send early data, if both sides allow it.
fn known(client: bool, server: bool) -> (World, DialConfig) {
    let mut world = World::pair();
    let clock = world.server().clock().clone();
    let tls = world.server_tls(SERVER).early_data(server).build(&clock).unwrap();
    world.listen(SERVER, |config| config.tls = tls);
    let clock = world.client().clock().clone();
    let mut config = world.dial_config(SERVER);
    config.tls = world.client_tls(SERVER).early_data(client).build(&clock).unwrap();
    world.establish(&config);
    // The ticket comes after the handshake.
    world.run_for(secs(1));
    world.clear_events();
    (world, config)
}

#[test]
fn early_data_is_off_unless_both_sides_want_it() {
    for (client, server) in [(false, false), (true, false), (false, true)] {
        let (mut world, config) = known(client, server);
        let c = world.dial(&config);
        let mut conn = world.client().connection(c).unwrap();
        assert!(!conn.has_early_data());
        assert_eq!(conn.open(Dir::Bi), Err(OpenError::Blocked));
        world.run_for(secs(1));
        assert!(!world.client().connection(c).unwrap().accepted_early_data());
    }
}

#[test]
fn early_data_arrives_with_the_first_flight() {
    let (mut world, config) = known(true, true);
    let c = world.dial(&config);
    let mut conn = world.client().connection(c).unwrap();
    assert!(conn.has_early_data());
    let stream = conn.open(Dir::Bi).unwrap();
    conn.stream(stream).unwrap().write(b"early").unwrap();
    world.run_for(ms(10));
    let events = world.take(SERVER);
    let [
        Event::StreamOpened {
            conn: s,
            stream: opened,
        },
    ] = events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(opened, stream);
    assert_eq!(world.read(SERVER, s, stream).0, b"early");
    world.run_for(secs(1));
    let conn = world.client().connection(c).unwrap();
    assert!(conn.accepted_early_data() && !conn.has_early_data());
    let events = world.take(CLIENT);
    assert!(matches!(events[..], [Event::Connected { .. }]), "{events:?}");
    // The stream lives on.
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().write(b" and late").unwrap();
    conn.stream(stream).unwrap().finish().unwrap();
    world.run_for(secs(1));
    assert_eq!(world.read(SERVER, s, stream), (b" and late".to_vec(), Ok(())));
    assert_eq!(
        world.server().connection(s).unwrap().handshake().early_data_accepted,
        None
    );
}

#[test]
fn refused_early_data_is_told_and_its_streams_are_gone() {
    let (mut world, config) = known(true, true);
    // The server was restarted: it knows no ticket.
    world.restart(SERVER);
    world.listen(SERVER, |_| {});
    let c = world.dial(&config);
    let mut conn = world.client().connection(c).unwrap();
    assert!(conn.has_early_data());
    let streams = [(); 3].map(|()| conn.open(Dir::Bi).unwrap());
    conn.stream(streams[0]).unwrap().write(&pattern(3_000)).unwrap();
    conn.stream(streams[1]).unwrap().enqueue(pattern(500).into()).unwrap();
    conn.stream(streams[1]).unwrap().finish().unwrap();
    conn.open(Dir::Uni).unwrap();
    world.run_for(secs(1));
    let events = world.take(CLIENT);
    let [Event::EarlyDataRejected { conn }, Event::Connected { .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(conn, c);
    let mut conn = world.client().connection(c).unwrap();
    assert!(!conn.accepted_early_data());
    for stream in streams {
        assert!(conn.stream(stream).is_err());
    }
    assert_eq!(conn.stats().streams_open, 0);
    let events = world.take(SERVER);
    let [Event::Connected { conn: s, .. }] = events[..] else {
        panic!("{events:?}")
    };
    // The same stream id again, for what was refused.
    let mut conn = world.client().connection(c).unwrap();
    assert_eq!(conn.open(Dir::Bi), Ok(streams[0]));
    conn.stream(streams[0]).unwrap().write(b"again").unwrap();
    world.run_for(secs(1));
    assert_eq!(world.read(SERVER, s, streams[0]).0, b"again");
}

#[test]
fn a_stream_opened_when_the_handshake_is_done_but_not_yet_told_stays() {
    let mut world = World::pair();
    let config = world.dial_config(SERVER);
    let c = world.dial(&config);
    world.drain();
    let limit = world.now.mono + secs(1);
    let mut stream = None;
    for _ in 0..20 {
        world.step_polled(limit);
        // The client polls no event before this succeeds.
        if let Ok(id) = world.client().connection(c).unwrap().open(Dir::Bi) {
            stream = Some(id);
            break;
        }
        while world.server().poll_event().is_some() {}
    }
    let stream: StreamId = stream.unwrap();
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().write(b"kept").unwrap();
    world.run_for(secs(1));
    let events = world.take(CLIENT);
    assert!(matches!(events[0], Event::Connected { .. }), "{events:?}");
    assert!(world.client().connection(c).unwrap().stream(stream).is_ok());
}

#[test]
fn a_reload_of_the_certificate_ends_resumption() {
    let (mut world, config) = known(true, true);
    let other = Credentials::self_signed(&[9; 32], &SelfSigned::default()).unwrap();
    world.nodes[SERVER].credentials = other;
    let clock = world.server().clock().clone();
    let tls = world.server_tls(SERVER).early_data(true).build(&clock).unwrap();
    world.listen(SERVER, |config| config.tls = tls);
    let c = world.dial(&config);
    world.run_for(secs(1));
    let events = world.take(CLIENT);
    assert!(
        matches!(events[..], [Event::Closed { established: false, .. }]),
        "{events:?}"
    );
    assert!(world.client().connection(c).is_err(), "its pin is another's now");
}
