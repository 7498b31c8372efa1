//! Simulated endpoints: the same seed, the same trace; and what only they can show in a test.

#![cfg(all(feature = "self-signed", feature = "sim"))]

mod common;

use std::time::Duration;

use common::{CLIENT, Fate, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Limits, Rng,
    quic::{AddressValidation, CloseReason, Dir, Endpoint, EndpointConfig, Event},
};

/// Two connections and their streams on a bad link; everything that went over it.
fn trace(seed: u64) -> Vec<(Duration, usize, usize)> {
    let mut world = World::pair();
    let mut rng = Rng::from_seed(seed);
    for node in &mut world.nodes {
        let seed = u64::from_be_bytes(rng.bytes());
        node.ep = Endpoint::simulated(&EndpointConfig::default(), Limits::default(), seed).unwrap();
    }
    world.listen(SERVER, |config| config.address_validation = AddressValidation::Above(1));
    world.link.fate = Box::new(move |_| match rng.below(100) {
        0..5 => Fate::Drop,
        5..8 => Fate::Twice,
        8..18 => Fate::Late(rng.duration_below(ms(30))),
        _ => Fate::Deliver,
    });
    let config = world.dial_config(SERVER);
    let conns = [(); 2].map(|()| world.dial(&config));
    world.run_for(secs(3));
    for c in conns {
        for len in [1, 5_000, 200_000] {
            let mut conn = world.client().connection(c).unwrap();
            let stream = conn.open(Dir::Bi).unwrap();
            conn.stream(stream).unwrap().enqueue(pattern(len).into()).unwrap();
            conn.stream(stream).unwrap().finish().unwrap();
        }
    }
    let servers: Vec<_> = world.server().connections().collect();
    for _ in 0..20 {
        world.run_for(ms(100));
        for s in &servers {
            for index in 0..3 {
                let stream = macula_proto::quic::StreamId::new(index * 4).unwrap();
                let _ = world.read(SERVER, *s, stream);
            }
        }
    }
    world.trace
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        let first = trace(seed);
        assert!(first.len() > 500);
        let second = trace(seed);
        let differ = first.iter().zip(&second).position(|(a, b)| a != b);
        assert_eq!((differ, first.len()), (None, second.len()), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_restarted_peer_resets_what_it_does_not_know() {
    let (mut world, ..) = World::connected_with(&transport(|_| {}), &transport(|t| t.keep_alive = None));
    world.run_for(secs(1));
    world.clear_events();
    world.restart(SERVER);
    world.listen(SERVER, |_| {});
    let before = world.elapsed();
    let mut end = None;
    world.run_until(secs(100), |world| {
        end = world.take(CLIENT).pop();
        end.is_some()
    });
    let reset = matches!(
        end,
        Some(Event::Closed {
            reason: CloseReason::StatelessReset,
            established: true,
            ..
        })
    );
    assert!(reset, "{end:?}");
    assert!(world.elapsed() - before < secs(25), "at the first keep-alive");
    world.run_to_rest();
    let config = world.dial_config(SERVER);
    world.establish(&config);
    assert_eq!(world.take(CLIENT), []);
}
