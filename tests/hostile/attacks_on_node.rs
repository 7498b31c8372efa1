//! Relays against a node.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code, Event,
    endpoint::ClientEvent,
    quic::Dir,
    tunnel::{
        Name,
        client::{session::RequestError, supervisor},
    },
    wire::control::{Message, Reason},
};

use crate::evil::{Trap, frames, id};

#[test]
fn a_relay_that_never_answers_identify_is_left() {
    let mut trap = Trap::new();
    let begin = trap.world.now.mono;
    let caught = trap.catch();
    trap.tick();
    let told = trap.closed_with(&caught);
    assert_eq!(told, (Code::TIMEOUT, "the relay did not answer identify".into()));
    let took = trap.world.now.mono - begin;
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(11),
        "{took:?}"
    );
    trap.nothing_is_left();
}

#[test]
fn garbage_from_a_relay_closes_the_session() {
    let mut trap = Trap::new();
    let caught = trap.catch_identified();
    trap.say(&caught, &u32::MAX.to_be_bytes());
    let told = trap.closed_with(&caught);
    assert_eq!(told, (Code::PROTOCOL, "control message too long".into()));
    trap.tick();

    let caught = trap.catch_identified();
    for number in 0..17u8 {
        let garbage = [&[0, 0, 0, 3][..], &[0x83, number, 0xc1]].concat();
        trap.say(&caught, &garbage);
    }
    let told = trap.closed_with(&caught);
    assert_eq!(told, (Code::PROTOCOL, "too many malformed control messages".into()));
    // Counted over both sessions.
    assert_eq!(trap.stats().malformed, 18);
    trap.nothing_is_left();
}

#[test]
fn answers_that_nobody_asked_for_are_counted_and_close_beyond_the_budget() {
    let mut trap = Trap::new();
    let caught = trap.catch_identified();
    trap.say(&caught, &frames((0..16).map(|n| Message::TunnelOk { tunnel: id(n) })));
    trap.tick();
    assert_eq!((trap.stats().unexpected, trap.session().identified), (16, true));
    let reason = Reason::Busy;
    trap.say(&caught, &frames([Message::TunnelError { reason }]));
    let told = trap.closed_with(&caught);
    assert_eq!(told, (Code::PROTOCOL, "too many malformed control messages".into()));
    assert_eq!(trap.handed_out(), 0);
    trap.nothing_is_left();
}

/// Streams that nobody announces, with as much of an id as `prefix` gives.
fn orphans(trap: &mut Trap, prefix: impl Fn(u64) -> Vec<u8>) {
    const STREAMS: u64 = 3000;
    let caught = trap.catch_identified();
    let mut opened = 0;
    while opened < STREAMS {
        while opened < STREAMS
            && let Some(stream) = trap.open(&caught, Dir::Bi)
        {
            trap.write(&caught, stream, &prefix(opened));
            opened += 1;
        }
        trap.tick();
        assert!(trap.session().unidentified_streams <= 1024);
    }
    trap.world.run_for(Duration::from_secs(1));
    assert_eq!(trap.session().unidentified_streams, 1024);
    let stats = trap.stats();
    assert_eq!(stats.streams_refused, STREAMS - 1024);
    trap.world.run_for(Duration::from_secs(16));
    assert_eq!(trap.stats().streams_expired, 1024);
    assert_eq!(trap.stopped(Code::LIMIT), 3000 - 1024);
    assert_eq!(trap.stopped(Code::TIMEOUT), 1024);
    assert_eq!(trap.handed_out(), 0);
    trap.nothing_is_left();
}

#[test]
fn streams_with_ids_that_nobody_knows_are_held_in_number_and_time() {
    orphans(&mut Trap::new(), |number| {
        let mut bytes = id(number).as_bytes().to_vec();
        bytes.extend_from_slice(b"and bytes of the tunnel");
        bytes
    });
}

#[test]
fn streams_whose_prefix_stalls_are_held_in_number_and_time() {
    orphans(&mut Trap::new(), |number| {
        id(number).as_bytes()[..1 + (number % 31) as usize].to_vec()
    });
}

#[test]
fn streams_that_end_before_they_are_tunnels_leave_nothing() {
    let mut trap = Trap::new();
    let caught = trap.catch_identified();
    for number in 0..200u64 {
        let Some(stream) = trap.open(&caught, Dir::Bi) else {
            trap.tick();
            continue;
        };
        let end = (caught.conn, stream);
        let length = (number % 33) as usize;
        trap.write(&caught, stream, &id(number).as_bytes()[..length.max(1)]);
        if number % 2 == 0 {
            trap.world.with(trap.evil, end, |stream| stream.finish()).unwrap();
        } else {
            trap.world.with(trap.evil, end, |stream| stream.abort(Code::INTERNAL));
        }
    }
    trap.tick();
    assert_eq!(trap.handed_out(), 0);
    trap.nothing_is_left();
}

#[test]
fn announcements_without_streams_are_held_in_number_and_time() {
    let mut trap = Trap::new();
    let mut caught = trap.catch_identified();
    let notify = |number| Message::TunnelNotify {
        tunnel: id(number),
        source: "nobody".into(),
    };
    for round in 0..30u64 {
        trap.say(&caught, &frames((round * 100..round * 100 + 100).map(notify)));
        trap.tick();
        assert!(trap.session().pending_inbound <= 1024);
    }
    // The relay is asked to close each that found no room.
    for _ in 0..3000 - 1024 {
        assert!(matches!(trap.hear(&mut caught), Message::TunnelClose { .. }));
    }
    assert_eq!(trap.session().pending_inbound, 1024);
    assert_eq!(trap.stats().announcements_refused, 3000 - 1024);
    trap.world.run_for(Duration::from_secs(16));
    assert_eq!(trap.stats().announcements_expired, 1024);
    assert_eq!(trap.handed_out(), 0);
    trap.nothing_is_left();
}

#[test]
fn a_tunnel_that_is_granted_without_a_stream_times_out() {
    let mut trap = Trap::new();
    let mut caught = trap.catch_identified();
    let now = trap.world.now;
    let endpoint = &mut trap.world.hosts[trap.victim.0].endpoint;
    let request = endpoint.open_tunnel(now, trap.victim.1, Name::from("carol")).unwrap();
    assert!(matches!(trap.hear(&mut caught), Message::TunnelRequest { .. }));
    trap.say(&caught, &frames([Message::TunnelOk { tunnel: id(1) }]));
    let error = trap.world.find(trap.victim.0, "the outcome", |event| match event {
        Event::Client {
            event: ClientEvent::Failed { request: found, error },
            ..
        } if *found == request => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error, RequestError::Timeout);
    assert!(matches!(trap.hear(&mut caught), Message::TunnelClose { .. }));
    // Its stream comes all the same.
    let stream = trap.open(&caught, Dir::Bi).unwrap();
    trap.write(&caught, stream, id(1).as_bytes());
    trap.tick();
    assert_eq!(trap.stopped(Code::CANCELLED), 1);
    assert_eq!(trap.handed_out(), 0);
    trap.nothing_is_left();
}

#[test]
fn one_stream_is_one_tunnel_whatever_is_announced() {
    let mut trap = Trap::new();
    let caught = trap.catch_identified();
    let notify = || Message::TunnelNotify {
        tunnel: id(1),
        source: "nobody".into(),
    };
    trap.say(&caught, &frames((0..50).map(|_| notify())));
    let stream = trap.open(&caught, Dir::Bi).unwrap();
    trap.write(&caught, stream, id(1).as_bytes());
    trap.tick();
    assert_eq!(trap.handed_out(), 1);
    assert_eq!(trap.session().pending_inbound, 49);
    // The relay resets what the node had been given.
    trap.world
        .with(trap.evil, (caught.conn, stream), |stream| stream.abort(Code::PEER_GONE));
    let (_, conn, stream) = trap.world.incoming(trap.victim.0);
    trap.world
        .with(trap.victim.0, (conn, stream), |stream| stream.abort(Code::CLOSED));
    trap.nothing_is_left();
}

#[test]
fn streams_of_the_wrong_kind_are_refused() {
    let mut trap = Trap::new();
    let caught = trap.catch_identified();
    let mut refused = 0;
    for _ in 0..50 {
        while let Some(stream) = trap.open(&caught, Dir::Uni) {
            trap.write(&caught, stream, &[b'A'; 40]);
            refused += 1;
        }
        trap.tick();
    }
    assert!(refused >= 50, "{refused}");
    assert_eq!(trap.stopped(Code::REFUSED), refused);
    assert_eq!(trap.session().unidentified_streams, 0);
    assert_eq!(trap.stats().extra_streams, refused as u64);
    trap.nothing_is_left();
}

#[test]
fn a_relay_that_closes_again_and_again_is_dialled_ever_more_rarely() {
    let mut trap = Trap::new();
    let until = trap.world.now.mono + Duration::from_secs(300);
    while trap.world.now.mono < until {
        let Some(conn) = trap.world.hosts[trap.evil].events.iter().find_map(|event| match event {
            Event::Quic(macula_proto::quic::Event::StreamOpened { conn, .. }) => Some(*conn),
            _ => None,
        }) else {
            trap.world.run_for(Duration::from_secs(1));
            trap.tick();
            continue;
        };
        trap.world.hosts[trap.evil].events.clear();
        let now = trap.world.now;
        let quic = trap.world.hosts[trap.evil].endpoint.quic();
        quic.connection(conn).unwrap().close(now, Code::DISPLACED, Bytes::new());
    }
    let dials = trap.world.hosts[trap.victim.0].events.iter().filter(|event| {
        matches!(event, Event::Client { event: ClientEvent::Relay(supervisor::Report::Dialling { .. }), client }
            if *client == trap.victim.1)
    });
    let dials = dials.count();
    assert!((4..=40).contains(&dials), "{dials} dials in five minutes");
}
