//! What happens to hosts: NATs, stalls, crashes, clocks.

use macula_proto::{
    Event, Limits,
    quic::{self, CloseReason, EndpointConfig, ResetKey},
    sim::{DropReason, Fault, Happening, HostConfig, Link, Nat, NatFilter, World},
};

use crate::kit::{Pair, ms, secs};

fn behind(nat: Nat) -> HostConfig {
    HostConfig {
        nat: Some(nat),
        ..HostConfig::default()
    }
}

fn paths(pair: &Pair) -> usize {
    let changes = pair.events.iter();
    let changes =
        changes.filter(|(host, event)| *host == pair.server && matches!(event, quic::Event::PathChanged { .. }));
    changes.count()
}

fn connected(nat: Nat) -> Pair {
    let mut pair = Pair::new(1, Link::default(), behind(nat));
    pair.dial();
    pair.until(secs(5), |pair| pair.conns.iter().all(Option::is_some));
    pair
}

#[test]
fn a_nat_that_rebinds_changes_the_path() {
    let mut pair = connected(Nat::default());
    let first = pair.world.outside_address(pair.client).unwrap();
    assert_ne!(first, pair.world.address(pair.client));
    pair.world.apply(Fault::Rebind(pair.client));
    assert_eq!(pair.world.outside_address(pair.client), None);
    pair.transfer(50_000);
    let second = pair.world.outside_address(pair.client).unwrap();
    assert_eq!((first.ip(), first.port() + 1), (second.ip(), second.port()));
    assert_eq!(paths(&pair), 1);
    let remote = pair.events.iter().find_map(|(_, event)| match event {
        quic::Event::PathChanged { remote, .. } => Some(*remote),
        _ => None,
    });
    assert_eq!(remote, Some(second));
}

#[test]
fn a_nat_that_rebinds_by_itself_does_so_every_time() {
    let mut pair = connected(Nat {
        rebind_every: Some(secs(55)),
        ..Nat::default()
    });
    // Keep-alives find out.
    pair.run_for(secs(600));
    assert!((9..=11).contains(&paths(&pair)), "{}", paths(&pair));
    pair.transfer(50_000);
}

#[test]
fn a_nat_forgets_who_is_silent() {
    let nat = Nat {
        timeout: Some(secs(30)),
        ..Nat::default()
    };
    let mut pair = Pair::new(1, Link::default(), behind(nat));
    pair.transport.keep_alive = None;
    pair.listen();
    pair.dial();
    pair.until(secs(5), |pair| pair.conns.iter().all(Option::is_some));
    pair.run_for(secs(25));
    assert!(pair.world.outside_address(pair.client).is_some());
    pair.run_for(secs(15));
    assert_eq!(pair.world.outside_address(pair.client), None);
    // The server cannot get through any more.
    let conn = pair.conns[1].unwrap();
    pair.world
        .with(pair.server, |endpoint, _| {
            endpoint.quic().connection(conn).unwrap().ping()
        })
        .unwrap();
    pair.run_for(ms(500));
    assert!(pair.world.stats().dropped_for(DropReason::NotMapped) > 0);
    assert_eq!(paths(&pair), 0);
    // The client can.
    pair.transfer(1000);
    pair.run_for(secs(1));
    assert_eq!(paths(&pair), 1);
}

#[test]
fn a_nat_lets_in_who_was_written_to() {
    for (filter, same_host, other_host) in [
        (NatFilter::Open, true, true),
        (NatFilter::Address, true, false),
        (NatFilter::AddressAndPort, false, false),
    ] {
        let mut pair = connected(Nat {
            filter,
            ..Nat::default()
        });
        let to = pair.world.outside_address(pair.client).unwrap();
        let mut from = pair.world.address(pair.server);
        from.set_port(9);
        for (from, let_in) in [(from, same_host), ("10.7.7.7:7".parse().unwrap(), other_host)] {
            let before = pair.world.stats().received;
            pair.world.inject(from, to, b"hello");
            pair.run_for(ms(1));
            assert_eq!(pair.world.stats().received == before + 1, let_in, "{filter:?} {from}");
        }
    }
}

#[test]
fn a_host_that_stalls_catches_up() {
    let mut pair = Pair::connected(2, Link::default());
    pair.world.apply(Fault::Stall {
        host: pair.server,
        time: secs(5),
    });
    let begin = pair.world.elapsed();
    pair.upload(vec![1; 1000]);
    pair.until(secs(10), |pair| pair.finished);
    assert_eq!(pair.world.elapsed() - begin, secs(5));
    assert!(pair.stats(0).datagrams_sent > 8, "the client asked again and again");
}

#[test]
fn the_socket_of_a_host_that_stalls_overflows() {
    let mut pair = Pair::connected(3, Link::default());
    let small = HostConfig {
        receive_buffer: 3000,
        ..HostConfig::default()
    };
    let third = pair.world.add(small).unwrap();
    let to = pair.world.address(third);
    pair.world.apply(Fault::Stall {
        host: third,
        time: secs(1),
    });
    for _ in 0..5 {
        pair.world.inject(pair.world.address(pair.client), to, &[0; 1000]);
    }
    pair.run_for(secs(2));
    assert_eq!(pair.world.stats().dropped_for(DropReason::BufferFull), 2);
}

#[test]
fn a_host_that_crashed_is_gone_and_comes_back_empty() {
    let mut pair = Pair::connected(4, Link::default());
    pair.world.apply(Fault::Crash(pair.server));
    assert!(!pair.world.is_up(pair.server));
    assert!(pair.world.with(pair.server, |_, _| ()).is_err());
    pair.run_for(secs(30));
    assert!(pair.world.stats().dropped_for(DropReason::HostDown) > 0);
    pair.world.apply(Fault::Restart(pair.server));
    pair.listen();
    pair.run_for(secs(90));
    let ended = pair.events.iter().find_map(|(host, event)| match event {
        quic::Event::Closed { reason, .. } if *host == pair.client => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(
        ended,
        Some(CloseReason::TimedOut),
        "the new endpoint has another reset key"
    );
    pair.conns = [None; 2];
    pair.dial();
    pair.until(secs(5), |pair| pair.conns.iter().all(Option::is_some));
    pair.transfer(10_000);
}

#[test]
fn with_a_reset_key_a_restart_is_noticed_at_once() {
    let mut world = World::new(5);
    let client = world.add(HostConfig::default()).unwrap();
    let mut endpoint = EndpointConfig::default();
    endpoint.reset_key = Some(ResetKey::new([9; 32]));
    let server = world
        .add(HostConfig {
            endpoint,
            limits: Limits::default(),
            ..HostConfig::default()
        })
        .unwrap();
    let mut pair = Pair::new(5, Link::default(), HostConfig::default());
    (pair.world, pair.client, pair.server) = (world, client, server);
    pair.listen();
    pair.dial();
    pair.until(secs(5), |pair| pair.conns.iter().all(Option::is_some));
    pair.world.apply(Fault::Restart(server));
    pair.listen();
    pair.upload(vec![0; 100]);
    pair.run_for(ms(100));
    let reset = pair.events.iter().any(|(_, event)| {
        matches!(
            event,
            quic::Event::Closed {
                reason: CloseReason::StatelessReset,
                ..
            }
        )
    });
    assert!(reset, "{:?}", pair.events);
}

#[test]
fn what_is_scheduled_happens_then() {
    let mut world = World::new(6);
    let host = world.add(HostConfig::default()).unwrap();
    world.wake_at(secs(3), 33);
    world.schedule(secs(2), Fault::Crash(host));
    world.wake_at(secs(1), 11);
    let mut seen = Vec::new();
    while let Some(happening) = world.next(secs(10)) {
        seen.push((world.elapsed(), happening));
    }
    assert_eq!(
        seen,
        [
            (secs(1), Happening::Wake(11)),
            (secs(2), Happening::Fault(Fault::Crash(host))),
            (secs(3), Happening::Wake(33)),
        ]
    );
    assert_eq!(world.elapsed(), secs(10));
    assert_eq!(world.next_at(), None);
}

#[test]
fn wall_clocks_may_be_wrong() {
    let mut world = World::new(7);
    world.set_unix_ms(1_000_000);
    let right = world.add(HostConfig::default()).unwrap();
    let wrong = HostConfig {
        clock_offset_ms: -500_000,
        ..HostConfig::default()
    };
    let wrong = world.add(wrong).unwrap();
    assert_eq!(world.run_for(secs(1)), []);
    let read = |world: &mut World, host| world.with(host, |_, now| now.unix_ms).unwrap();
    assert_eq!(read(&mut world, right), 1_001_000);
    assert_eq!(read(&mut world, wrong), 501_000);
    assert_eq!(world.now().unix_ms, 1_001_000);
}

#[test]
fn every_host_has_an_address_of_its_own() {
    let mut world = World::new(8);
    let first = world.add(HostConfig::default()).unwrap();
    let taken = HostConfig {
        address: Some(world.address(first)),
        ..HostConfig::default()
    };
    assert!(world.add(taken).is_err());
    let own = HostConfig {
        address: Some("[2001:db8::1]:99".parse().unwrap()),
        ..HostConfig::default()
    };
    let second = world.add(own).unwrap();
    assert_eq!(world.address(second).to_string(), "[2001:db8::1]:99");
    assert_eq!(world.hosts().collect::<Vec<_>>(), [first, second]);
}

#[test]
fn both_ends_of_a_connection_tell_of_it() {
    let pair = Pair::connected(9, Link::default());
    let told = pair
        .events
        .iter()
        .filter(|(_, event)| matches!(event, quic::Event::Connected { .. }));
    assert_eq!(told.count(), 2);
    let event = Event::Quic(pair.events[0].1.clone());
    assert!(matches!(event, Event::Quic(quic::Event::Connected { .. })));
}
