//! Incoming connections that wait for a decision.

#![cfg(feature = "self-signed")]

mod common;

use common::{CLIENT, SERVER, World, ms, secs};
use macula_proto::quic::{Accept, CloseReason, Event, IncomingHandle};

fn closed(events: &[Event]) -> Vec<(CloseReason, bool)> {
    let ends = events.iter().filter_map(|event| match event {
        Event::Closed {
            reason, established, ..
        } => Some((reason.clone(), *established)),
        _ => None,
    });
    ends.collect()
}

fn incoming(world: &mut World) -> Option<IncomingHandle> {
    world.take(SERVER).into_iter().find_map(|event| match event {
        Event::Incoming { incoming, .. } => Some(incoming),
        _ => None,
    })
}

#[test]
fn an_incoming_connection_waits_for_its_owner() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.accept = Accept::OnDemand);
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(secs(1));
    assert_eq!(world.server().connections().count(), 0);
    let incoming = incoming(&mut world).unwrap();
    assert_eq!(world.take(CLIENT), []);
    let now = world.now;
    let s = world.server().accept(now, incoming).unwrap();
    assert!(world.server().accept(now, incoming).is_err(), "decided once");
    assert!(world.server().refuse(incoming).is_err());
    assert!(world.server().retry(incoming).is_err());
    world.run_for(secs(2));
    assert!(world.server().connection(s).unwrap().is_established());
    assert_eq!(world.server().stats().accepted, 1);
}

#[test]
fn a_refused_connection_ends_at_once() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.accept = Accept::OnDemand);
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(ms(15));
    let incoming = incoming(&mut world).unwrap();
    world.server().refuse(incoming).unwrap();
    world.run_for(ms(15));
    let ends = closed(&world.take(CLIENT));
    assert!(
        matches!(&ends[..], [(CloseReason::PeerTransport { code: 2, .. }, false)]),
        "{ends:?}"
    );
    assert_eq!(world.server().stats().refused_by_owner, 1);
    world.run_to_rest();
}

#[test]
fn a_retried_connection_comes_again_with_its_address_proved() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.accept = Accept::OnDemand);
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(ms(15));
    let first = incoming(&mut world).unwrap();
    world.server().retry(first).unwrap();
    world.run_for(ms(50));
    let events = world.take(SERVER);
    let [
        Event::Incoming {
            incoming,
            validated: true,
            ..
        },
    ] = events[..]
    else {
        panic!("{events:?}");
    };
    assert_ne!(incoming, first);
    assert_eq!(world.server().stats().retries, 1);
    let now = world.now;
    world.server().accept(now, incoming).unwrap();
    world.run_for(secs(1));
    assert_eq!(world.client().stats().dialled, 1);
}

#[test]
fn a_second_retry_is_refused_and_counted() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.accept = Accept::OnDemand);
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(ms(15));
    let first = incoming(&mut world).unwrap();
    world.server().retry(first).unwrap();
    world.run_for(ms(50));
    let second = incoming(&mut world).unwrap();
    assert!(world.server().retry(second).is_err());
    world.run_for(ms(50));
    assert_eq!(world.server().stats().refused_by_owner, 1);
    assert_eq!(closed(&world.take(CLIENT)).len(), 1);
    world.run_to_rest();
}

#[test]
fn an_undecided_connection_is_refused_in_time() {
    let mut world = World::pair();
    world.listen(SERVER, |config| {
        config.accept = Accept::OnDemand;
        config.incoming_timeout = secs(3);
    });
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(ms(3_005));
    let incoming = incoming(&mut world).unwrap();
    assert_eq!(world.server().stats().refused_undecided, 0);
    world.run_for(ms(50));
    assert_eq!(world.server().stats().refused_undecided, 1);
    assert_eq!(closed(&world.take(CLIENT)).len(), 1);
    let now = world.now;
    assert!(world.server().accept(now, incoming).is_err());
    world.run_to_rest();
}
