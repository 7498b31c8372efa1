//! Nodes and relays wired in memory: tunnels end to end, without a socket.

#![cfg(feature = "self-signed")]

mod world;

use std::time::Duration;

use macula_proto::{
    Code, Event, Limits,
    endpoint::{ClientEvent, RelayClientConfig},
    quic::{self, ReadError, WriteError},
    tunnel::{
        Name,
        client::{session::RequestError, supervisor},
        relay::{NodeLimits, RelayConfig, Report, TunnelBytes, TunnelCloseReason},
    },
};
use world::{World, pattern};

#[test]
fn a_tunnel_carries_bytes_both_ways() {
    let (mut world, relay, alice, bob) = World::with_two_nodes(RelayConfig::default());
    let (near, far) = world.tunnel(alice, bob);
    world.transfer(near, far, &pattern(3_000_000, 1));
    world.transfer(far, near, &pattern(2_000_000, 2));

    // Half-close passes as half-close, one direction after the other.
    world.with(near.0, near.1, |stream| stream.finish()).unwrap();
    world.run_until("the end at bob", |world| {
        (world.with(far.0, far.1, |stream| stream.read_chunk(1)) == Ok(None)).then_some(())
    });
    world.transfer(far, near, &pattern(100_000, 3));
    world.with(far.0, far.1, |stream| stream.finish()).unwrap();
    world.run_until("the end at alice", |world| {
        (world.with(near.0, near.1, |stream| stream.read_chunk(1)) == Ok(None)).then_some(())
    });
    let (reason, bytes) = world.find(relay, "the tunnel's end", |event| match event {
        Event::Relay(Report::TunnelClosed { reason, bytes, .. }) => Some((*reason, *bytes)),
        _ => None,
    });
    assert_eq!(reason, TunnelCloseReason::Finished);
    let carried = TunnelBytes {
        to_target: 3_000_000,
        to_requester: 2_100_000,
    };
    assert_eq!(bytes, Some(carried));
    // Nothing of the tunnel is left anywhere.
    world.run_for(Duration::from_secs(1));
    let status = world.hosts[relay].endpoint.relay_status().unwrap();
    assert!(status.tunnels.is_empty());
    for node in [alice, bob] {
        let (_, session) = world.hosts[node.0].endpoint.client_status(node.1).unwrap();
        assert_eq!(session.unwrap().active_tunnels, 0);
    }
}

#[test]
fn crossing_requests_both_succeed_and_a_node_reaches_itself() {
    let (mut world, _, alice, bob) = World::with_two_nodes(RelayConfig::default());
    let to_bob = world.open(alice, "bob");
    let to_alice = world.open(bob, "alice");
    let a = world.opened(alice.0, to_bob);
    let b = world.opened(bob.0, to_alice);
    let (_, conn, stream) = world.incoming(bob.0);
    world.transfer((alice.0, a), (bob.0, (conn, stream)), b"to bob");
    let (_, conn, stream) = world.incoming(alice.0);
    world.transfer((bob.0, b), (alice.0, (conn, stream)), b"to alice");

    let to_self = world.open(alice, "alice");
    let near = world.opened(alice.0, to_self);
    let (source, conn, stream) = world.incoming(alice.0);
    assert_eq!(source, Name::from("alice"));
    world.transfer((alice.0, near), (alice.0, (conn, stream)), &pattern(200_000, 4));
    world.transfer((alice.0, (conn, stream)), (alice.0, near), &pattern(200_000, 5));
}

#[test]
fn resets_and_stops_pass_with_their_codes() {
    let (mut world, relay, alice, bob) = World::with_two_nodes(RelayConfig::default());
    for code in [Code::TCP_RESET, Code::new(77).unwrap()] {
        let (near, far) = world.tunnel(alice, bob);
        world.transfer(near, far, b"first");
        for (host, end) in [near, far] {
            world.with(host, end, |stream| stream.hold());
        }
        world.with(near.0, near.1, |stream| stream.reset(code)).unwrap();
        world.run_until("the reset", |world| {
            (world.with(far.0, far.1, |stream| stream.read_chunk(1)) == Err(ReadError::Reset(code))).then_some(())
        });
        world.with(near.0, near.1, |stream| stream.stop(code)).unwrap();
        world.run_until("the stop", |world| {
            (world.with(far.0, far.1, |stream| stream.write(b"x")) == Err(WriteError::Stopped(code))).then_some(())
        });
        let reason = world.find(relay, "the tunnel's end", |event| match event {
            Event::Relay(Report::TunnelClosed { reason, .. }) => Some(*reason),
            _ => None,
        });
        assert_eq!(reason, TunnelCloseReason::Reset(code));
        for (host, end) in [near, far] {
            world.with(host, end, |stream| stream.release());
        }
    }
}

#[test]
fn a_stalled_reader_stalls_only_its_own_tunnel() {
    let (mut world, _, alice, bob) = World::with_two_nodes(RelayConfig::default());
    let (stalled, far_stalled) = world.tunnel(alice, bob);
    let (near, far) = world.tunnel(alice, bob);
    // Fill the first tunnel until nothing moves.
    let block = [0x5a; 64 << 10];
    let mut taken = 0;
    for _ in 0..200 {
        while let Ok(written) = world.with(stalled.0, stalled.1, |stream| stream.write(&block)) {
            taken += written;
        }
        world.run_for(Duration::from_millis(50));
    }
    // Two windows and a block: what the receiver grants, what the relay grants, what the relay holds.
    let bound = 2 * 1_250_000 + (64 << 10);
    assert!(taken <= bound, "{taken} bytes were taken, {bound} is the bound");
    assert!(taken >= 2_000_000, "{taken} bytes were taken: the windows are used");
    world.transfer(near, far, &pattern(3_000_000, 6));
    // And it goes on once somebody reads.
    let mut read = 0;
    world.run_until("the stalled bytes", |world| {
        while let Ok(Some(bytes)) = world.with(far_stalled.0, far_stalled.1, |stream| stream.read_chunk(usize::MAX)) {
            assert!(bytes.iter().all(|byte| *byte == 0x5a));
            read += bytes.len();
        }
        (read == taken).then_some(())
    });
}

#[test]
fn loss_and_reordering_lose_nothing() {
    let mut world = World::new();
    world.lose_every = Some(37);
    world.delay_every = Some(11);
    let (_, alice, bob) = world.two_nodes(RelayConfig::default());
    let (near, far) = world.tunnel(alice, bob);
    world.transfer(near, far, &pattern(300_000, 7));
    world.transfer(far, near, &pattern(300_000, 8));
}

#[test]
fn a_lost_node_ends_its_tunnels_and_comes_back() {
    let (mut world, relay, alice, bob) = World::with_two_nodes(RelayConfig::default());
    let request = world.open(alice, "bob");
    let near = world.opened(alice.0, request);
    world.incoming(bob.0);
    let conn = world.hosts[bob.0].endpoint.client_connection(bob.1).unwrap().unwrap();
    let now = world.now;
    let mut quic = world.hosts[bob.0].endpoint.quic().connection(conn).unwrap();
    quic.close(now, Code::CLOSED, bytes::Bytes::new());
    let code = world.find(alice.0, "the end of the tunnel", |event| match event {
        Event::Quic(quic::Event::Reset { conn, stream, code }) if (*conn, *stream) == near => Some(*code),
        _ => None,
    });
    assert_eq!(code, Code::PEER_GONE);
    world.identified(relay, "bob");
    let request = world.open(alice, "bob");
    world.opened(alice.0, request);
}

#[test]
fn an_unknown_target_is_refused_and_says_so() {
    let mut world = World::new();
    let relay = world.add_relay(RelayConfig::default());
    let alice = world.add_node("alice", &[relay]);
    world.identified(relay, "alice");
    let request = world.open(alice, "nobody");
    let error = world.find(alice.0, "the answer", |event| match event {
        Event::Client {
            event: ClientEvent::Failed { request: found, error },
            ..
        } if *found == request => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error.to_string(), "the relay refused: target_not_connected");
    assert!(matches!(error, RequestError::Refused(_)));
}

#[test]
fn a_node_fails_over_to_the_next_relay() {
    let mut world = World::new();
    let first = world.add_relay(RelayConfig::default());
    let second = world.add_relay(RelayConfig::default());
    let alice = world.add_node("alice", &[first, second]);
    world.identified(first, "alice");
    world.hosts[first].alive = false;
    let until = world.now.mono + Duration::from_secs(300);
    while !world.hosts[second]
        .events
        .iter()
        .any(|event| matches!(event, Event::Relay(Report::Identified { .. })))
    {
        assert!(world.step(until), "no failover");
    }
    world.find(alice.0, "up", |event| match event {
        Event::Client {
            event: ClientEvent::Relay(supervisor::Report::Up { relay }),
            ..
        } if relay.0 == 1 => Some(()),
        _ => None,
    });
}

#[test]
fn a_rate_limit_holds() {
    let config = RelayConfig {
        node_limits: NodeLimits {
            tunnels: None,
            bytes_per_second: Some(100_000),
        },
        ..RelayConfig::default()
    };
    let (mut world, _, alice, bob) = World::with_two_nodes(config);
    let (near, far) = world.tunnel(alice, bob);
    let begin = world.now.mono;
    world.transfer(near, far, &pattern(1_000_000, 9));
    let took = world.now.mono - begin;
    assert!(took >= Duration::from_millis(9_500), "1 MB at 100 kB/s took {took:?}");
    assert!(took <= Duration::from_millis(11_500), "1 MB at 100 kB/s took {took:?}");
}

#[test]
fn extra_streams_and_silence_are_answered_with_codes() {
    let mut world = World::new();
    let relay = world.add_relay(RelayConfig::default());
    // A client that never identifies: a plain connection with the right ALPN.
    let host = world.add(Limits::default());
    let clock = macula_proto::WallClock::new(1_750_000_000_000);
    let tls = quic::tls::ClientTls::new(quic::tls::Trust::Insecure).alpn([quic::alpn::MACULA_DIST]);
    let mut dial = quic::DialConfig::new(tls.build(&clock).unwrap());
    dial.transport = world::transport();
    let (now, address) = (world.now, world.hosts[relay].address);
    let conn = world.hosts[host]
        .endpoint
        .quic()
        .connect(now, &dial, address, "relay")
        .unwrap();
    world.find(host, "the handshake", |event| {
        matches!(event, Event::Quic(quic::Event::Connected { .. })).then_some(())
    });
    let begin = world.now.mono;
    let mut borrowed = world.hosts[host].endpoint.quic().connection(conn).unwrap();
    let first = borrowed.open(quic::Dir::Bi).unwrap();
    let second = borrowed.open(quic::Dir::Bi).unwrap();
    world.with(host, (conn, first), |stream| stream.write(&[0])).unwrap();
    world
        .with(host, (conn, second), |stream| stream.write(b"extra"))
        .unwrap();
    let (stream, code) = world.find(host, "the refusal", |event| match event {
        Event::Quic(quic::Event::Stopped { stream, code, .. }) => Some((*stream, *code)),
        _ => None,
    });
    assert_eq!((stream, code), (second, Code::REFUSED));
    let reason = world.find(host, "the end", |event| match event {
        Event::Quic(quic::Event::Closed { reason, .. }) => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.code(), Some(Code::TIMEOUT));
    let took = world.now.mono - begin;
    assert!(
        took >= Duration::from_millis(9_980) && took <= Duration::from_millis(10_100),
        "{took:?}"
    );
    assert_eq!(world.hosts[relay].endpoint.relay_stats().unwrap().extra_streams, 1);
}

#[test]
fn a_drained_relay_lets_tunnels_end_and_then_its_clients_go() {
    let (mut world, relay, alice, bob) = World::with_two_nodes(RelayConfig::default());
    let (near, far) = world.tunnel(alice, bob);
    let now = world.now;
    world.hosts[relay].endpoint.drain_relay(now);
    world.transfer(near, far, &pattern(500_000, 10));
    for (host, end) in [near, far] {
        world.with(host, end, |stream| stream.finish()).unwrap();
    }
    let mut ended = [false; 2];
    world.run_until("both ends", |world| {
        for (ended, (host, end)) in ended.iter_mut().zip([near, far]) {
            if !*ended {
                *ended = world.with(host, end, |stream| stream.read_chunk(1) == Ok(None));
            }
        }
        ended.iter().all(|ended| *ended).then_some(())
    });
    world.find(relay, "drained", |event| {
        matches!(event, Event::Relay(Report::Drained)).then_some(())
    });
    let reason = world.find(alice.0, "the close", |event| match event {
        Event::Client {
            event: ClientEvent::Disconnected { reason, .. },
            ..
        } => Some(reason.code()),
        _ => None,
    });
    assert_eq!(reason, Some(Code::DRAINING));
}

#[test]
fn a_relay_that_closes_ends_tunnels_and_tells_its_nodes() {
    let mut world = World::new();
    let relay = world.add_relay(RelayConfig::default());
    let alice = world.add_node("alice", &[relay]);
    world.identified(relay, "alice");
    let request = world.open(alice, "alice");
    let (conn, stream) = world.opened(alice.0, request);
    world.with(alice.0, (conn, stream), |stream| stream.hold());
    let now = world.now;
    let words = bytes::Bytes::from_static(b"shutdown");
    world.hosts[relay]
        .endpoint
        .quic()
        .close_all(now, Code::SHUTDOWN, &words);
    let reason = world.find(alice.0, "the close", |event| match event {
        Event::Client {
            event: ClientEvent::Disconnected { reason, .. },
            ..
        } => Some(reason.code()),
        _ => None,
    });
    assert_eq!(reason, Some(Code::SHUTDOWN));
    world.find(alice.0, "the end of the tunnel's connection", |event| {
        matches!(event, Event::Quic(quic::Event::Closed { .. })).then_some(())
    });
}

#[test]
fn only_names_of_relays_are_looked_up() {
    let mut world = World::new();
    for (relay, asked) in [
        ("relay.example:4434", true),
        ("10.0.0.1:4434", false),
        ("[::1]:4434", false),
    ] {
        let host = world.add(Limits::default());
        let now = world.now;
        let endpoint = &mut world.hosts[host].endpoint;
        let tls = quic::tls::ClientTls::new(quic::tls::Trust::Insecure).alpn([quic::alpn::MACULA_DIST]);
        let tls = tls.build(endpoint.quic().clock()).unwrap();
        let config = RelayClientConfig::new("alice", vec![relay.parse().unwrap()], tls);
        let client = endpoint.relay_client(now, config).unwrap();
        let mut resolve = None;
        while let Some(event) = endpoint.poll_event(now) {
            if let Event::Client { event, .. } = event
                && let ClientEvent::Resolve { attempt, .. } = event
            {
                resolve = Some(attempt);
            }
        }
        assert_eq!(resolve.is_some(), asked, "{relay}");
        let mut buf = Vec::new();
        let one = std::num::NonZeroUsize::MIN;
        if let Some(attempt) = resolve {
            assert!(endpoint.poll_transmit(now, one, &mut buf).is_none());
            let found = ["10.0.0.1:4434".parse().unwrap()];
            endpoint.resolved(now, client, attempt, &found).unwrap();
        }
        assert!(endpoint.poll_transmit(now, one, &mut buf).is_some(), "{relay}");
    }
}
