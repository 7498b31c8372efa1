//! Caps, address validation, and hostile datagrams.

#![cfg(feature = "self-signed")]

mod common;

use std::num::NonZeroUsize;

use bytes::{Bytes, BytesMut};
use common::{CLIENT, Fate, SERVER, World, ms, pattern, secs};
use macula_proto::{
    Code, Limits,
    quic::{Accept, AddressValidation, CloseReason, ConnectError, ConnectionHandle, DatagramMeta, Dir, Event},
};
use proptest::prelude::*;

/// A world whose server has these caps.
fn world(limits: impl FnOnce(&mut Limits)) -> World {
    let mut world = World::new();
    world.add(Limits::default());
    let mut own = Limits::default();
    limits(&mut own);
    world.add(own);
    world.listen(SERVER, |_| {});
    world
}

fn count(events: &[Event], what: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| what(event)).count()
}

fn refused(event: &Event) -> bool {
    matches!(
        event,
        Event::Closed {
            reason: CloseReason::PeerTransport { code: 2, .. },
            ..
        }
    )
}

#[test]
fn handshakes_above_the_cap_are_refused_and_counted_while_others_succeed() {
    let mut world = world(|limits| limits.handshaking = 4);
    let config = world.dial_config(SERVER);
    for _ in 0..10 {
        world.dial(&config);
    }
    world.run_for(secs(1));
    let events = world.take(CLIENT);
    assert_eq!(count(&events, |e| matches!(e, Event::Connected { .. })), 4);
    assert_eq!(count(&events, refused), 6);
    let stats = world.server().stats();
    assert_eq!(
        (stats.accepted, stats.refused_handshaking, stats.handshaking),
        (4, 6, 0)
    );
    world.establish(&config);
}

#[test]
fn connections_above_the_cap_are_refused_and_counted_on_both_sides() {
    let mut world = world(|limits| limits.connections = 2);
    let config = world.dial_config(SERVER);
    world.establish(&config);
    let (second, _) = world.establish(&config);
    world.dial(&config);
    world.run_for(ms(100));
    assert_eq!(count(&world.take(CLIENT), refused), 1);
    assert_eq!(world.server().stats().refused_connections, 1);
    let now = world.now;
    let to = world.nodes[CLIENT].addr;
    let dial = world.server().connect(now, &config, to, "localhost");
    assert_eq!(dial, Err(ConnectError::TooManyConnections(2)));
    world
        .client()
        .connection(second)
        .unwrap()
        .close(now, Code::CLOSED, Bytes::new());
    world.run_for(secs(2));
    world.establish(&config);
}

#[test]
fn undecided_connections_above_the_cap_are_refused_and_counted() {
    for cap in [0, 1, 3] {
        let mut world = world(|limits| limits.pending_incoming = cap);
        world.listen(SERVER, |config| config.accept = Accept::OnDemand);
        let config = world.dial_config(SERVER);
        for _ in 0..5 {
            world.dial(&config);
        }
        world.run_for(ms(50));
        let waiting = count(&world.take(SERVER), |e| matches!(e, Event::Incoming { .. }));
        assert_eq!(waiting, cap);
        assert_eq!(count(&world.take(CLIENT), refused), 5 - cap);
        assert_eq!(world.server().stats().refused_undecided, 5 - cap as u64);
    }
}

#[test]
fn no_room_for_undecided_connections_does_not_matter_where_all_are_accepted() {
    let mut world = world(|limits| limits.pending_incoming = 0);
    let config = world.dial_config(SERVER);
    world.establish(&config);
}

#[test]
fn addresses_are_validated_always() {
    let mut world = world(|_| {});
    world.listen(SERVER, |config| config.address_validation = AddressValidation::Always);
    for dials in 1..=3 {
        // Settings of its own each time: who was here before shows a token instead.
        let config = world.dial_config(SERVER);
        world.establish(&config);
        assert_eq!(world.server().stats().retries, dials);
    }
}

#[test]
fn an_address_proved_once_is_believed_the_next_time() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.address_validation = AddressValidation::Always);
    let config = world.dial_config(SERVER);
    world.establish(&config);
    world.run_for(secs(1));
    assert_eq!(world.server().stats().retries, 1);
    world.establish(&config);
    assert_eq!(world.server().stats().retries, 1, "its token was shown");
    let stranger = world.dial_config(SERVER);
    world.establish(&stranger);
    assert_eq!(
        world.server().stats().retries,
        2,
        "who dials with other settings shares nothing"
    );
}

#[test]
fn addresses_are_validated_under_load_only() {
    let mut world = world(|_| {});
    world.listen(SERVER, |config| config.address_validation = AddressValidation::Above(3));
    let config = world.dial_config(SERVER);
    for _ in 0..3 {
        world.dial(&config);
    }
    world.run_for(secs(1));
    assert_eq!(world.server().stats().retries, 0);
    for _ in 0..5 {
        world.dial(&config);
    }
    world.run_for(secs(5));
    let stats = world.server().stats();
    assert_eq!((stats.accepted, stats.retries), (8, 2));
}

#[test]
fn a_retry_is_answered_after_the_listener_changed_its_settings() {
    let mut world = world(|_| {});
    world.listen(SERVER, |config| config.address_validation = AddressValidation::Always);
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(ms(15));
    assert_eq!(world.server().stats().retries, 1);
    world.listen(SERVER, |config| config.address_validation = AddressValidation::Always);
    world.run_for(secs(1));
    assert_eq!(world.server().stats().accepted, 1);
}

// ----- hostile datagrams -------------------------------------------------------------------------------------------

/// Checks that a connection still carries bytes.
fn still_alive(world: &mut World, c: ConnectionHandle, s: ConnectionHandle) {
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Bi).unwrap();
    let mut borrowed = conn.stream(stream).unwrap();
    borrowed.enqueue(Bytes::from(pattern(20_000))).unwrap();
    borrowed.finish().unwrap();
    world.run_for(secs(10));
    assert_eq!(world.read(SERVER, s, stream), (pattern(20_000), Ok(())));
    world.run_for(secs(1));
}

/// The first bytes decide how deep a datagram gets: long and short headers, each type, known and unknown versions.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..1_400);
    let heads = prop_oneof![
        Just(vec![]),
        Just(vec![0xc0, 0, 0, 0, 1, 8]),
        Just(vec![0xc3, 0, 0, 0, 1, 20]),
        Just(vec![0xd0, 0, 0, 0, 1, 8]),
        Just(vec![0xe0, 0, 0, 0, 1, 8]),
        Just(vec![0xf0, 0, 0, 0, 1, 8]),
        Just(vec![0xc0, 0xfa, 0xce, 0xb0, 0x0c, 8]),
        Just(vec![0x80, 0, 0, 0, 0, 255]),
        Just(vec![0x40]),
    ];
    (heads, body, any::<bool>()).prop_map(|(mut head, body, pad)| {
        head.extend(body);
        if pad && head.len() < 1_200 {
            head.resize(1_200, 0);
        }
        head
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn garbage_costs_nothing(datagrams in prop::collection::vec((garbage(), any::<bool>()), 1..60)) {
        let (mut world, c, s) = World::connected();
        let peer = world.nodes[CLIENT].addr;
        let to = world.nodes[SERVER].addr;
        for (data, known) in datagrams {
            let from = if known { peer } else { "203.0.113.9:9".parse().unwrap() };
            world.inject(from, to, data.clone());
            world.inject(to, peer, data);
        }
        still_alive(&mut world, c, s);
        // An Initial that cannot be decrypted costs a reply at most.
        prop_assert!(world.server().connections().count() <= 1);
        prop_assert_eq!(world.client().connections().count(), 1);
        prop_assert_eq!(world.server().stats().handshaking, 0);
    }

    /// The network damages, cuts and repeats what honest peers send.
    #[test]
    fn damaged_packets_are_lost_packets(
        seed in any::<u64>().no_shrink(),
        cut in any::<bool>(),
        handshake in any::<bool>(),
    ) {
        let mut world = World::pair();
        let config = world.dial_config(SERVER);
        let mut rng = macula_proto::Rng::from_seed(seed);
        let damage = move |packet: &mut common::Packet| {
            if rng.below(8) == 0 {
                let at = usize::try_from(rng.below(packet.data.len() as u64)).unwrap();
                if cut {
                    packet.data.truncate(at);
                } else {
                    packet.data[at] ^= 1 << rng.below(8);
                }
            }
            if rng.below(30) == 0 { Fate::Twice } else { Fate::Deliver }
        };
        if handshake {
            // Damage to the first flight may end a handshake, with an event and nothing left behind.
            world.link.fate = Box::new(damage);
            world.dial(&config);
            world.run_for(secs(20));
            let now = world.now;
            world.client().close_all(now, Code::CLOSED, &Bytes::new());
            world.run_to_rest();
        } else {
            let (c, s) = world.establish(&config);
            world.link.fate = Box::new(damage);
            still_alive(&mut world, c, s);
        }
    }
}

#[test]
fn replies_to_strangers_are_bounded() {
    let mut world = world(|_| {});
    // Packets of an unknown version, which ask for a version negotiation each, while nobody sends.
    let mut data = vec![0xc0, 0xfa, 0xce, 0xb0, 0x0c, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    data.resize(1_200, 0);
    let now = world.now;
    let from = DatagramMeta::from("203.0.113.9:9".parse().unwrap());
    for _ in 0..1_000 {
        world.server().handle_datagram(now, from, BytesMut::from(&data[..]));
    }
    let mut buf = Vec::new();
    let mut sent = 0;
    while world.server().poll_transmit(now, NonZeroUsize::MIN, &mut buf).is_some() {
        sent += 1;
    }
    let stats = world.server().stats();
    assert_eq!(stats.replies_dropped + sent, 1_000);
    assert!(sent < 500 && stats.datagrams_sent == sent);
    assert_eq!(stats.datagrams_received, 1_000);
    assert_eq!(world.server().connections().count(), 0);
}

#[test]
fn dials_that_go_silent_after_their_first_flight_cost_no_more_than_the_cap() {
    let mut world = world(|limits| limits.handshaking = 50);
    world.listen(SERVER, |config| config.address_validation = AddressValidation::Never);
    let server = world.nodes[SERVER].addr;
    world.link.fate = Box::new(move |packet| {
        if packet.from == server {
            Fate::Drop
        } else {
            Fate::Deliver
        }
    });
    let config = world.dial_config(SERVER);
    for _ in 0..200 {
        world.dial(&config);
    }
    world.run_for(ms(500));
    let stats = world.server().stats();
    assert_eq!((stats.handshaking, stats.open), (50, 50));
    assert!(stats.refused_handshaking >= 150);
    world.run_for(secs(9));
    assert_eq!(world.server().stats().handshaking, 50);
    world.run_to_rest();
    let stats = world.server().stats();
    assert_eq!(stats.accepted, 0);
    assert!(stats.handshakes_failed >= 50);
}
