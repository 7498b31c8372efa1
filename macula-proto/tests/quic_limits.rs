//! Caps, address validation, and hostile datagrams.

#![cfg(feature = "self-signed")]

mod common;

use std::num::NonZeroUsize;

use bytes::{Bytes, BytesMut};
use common::{CLIENT, Fate, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code, Limits,
    quic::{
        Accept, AddressValidation, CloseReason, ConnectError, DatagramMeta, Dir, Endpoint, EndpointConfig, Event,
        ReadError, tls::Trust,
    },
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
    let config = world.dial_config(SERVER);
    for dials in 1..=3 {
        world.establish(&config);
        assert_eq!(world.server().stats().retries, dials);
    }
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
