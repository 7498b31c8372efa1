//! A relay on several endpoints that share a port: tunnels between nodes on different ones.

#![cfg(feature = "self-signed")]

mod world;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use macula_proto::{
    Code, Event, Rng,
    endpoint::{ClientEvent, ClientId},
    quic::{ConfigError, EndpointConfig, ReadError, ResetKey, Shard, WriteError},
    tunnel::{
        Name,
        relay::{NodeLimits, RelayConfig, Report, TunnelBytes, TunnelCloseReason},
    },
};
use world::{TunnelEnd, World, pattern};

const SHARDS: u8 = 3;

type Node = (usize, ClientId);

/// A relay on three endpoints, and two nodes on the shards that were asked for.
fn two_nodes(config: &RelayConfig, on: [usize; 2]) -> (World, Vec<usize>, Node, Node) {
    let mut world = World::new();
    let shards = world.add_sharded_relay(config, SHARDS);
    let nodes = ["alice", "bob"].map(|name| {
        let shard = on[usize::from(name == "bob")];
        // Hosts that nobody runs, so that the next one is where it should be.
        while world.hosts.len() % usize::from(SHARDS) != shard {
            world.add(Default::default());
        }
        let node = world.add_node(name, &[shards[0]]);
        world.identified(shards[0], name);
        node
    });
    (world, shards, nodes[0], nodes[1])
}

fn placings() -> impl Iterator<Item = [usize; 2]> {
    let shards = usize::from(SHARDS);
    (0..shards * shards).map(move |place| [place / shards, place % shards])
}

fn closed(world: &mut World, relay: usize) -> (TunnelCloseReason, TunnelBytes) {
    world.find(relay, "the tunnel's end", |event| match event {
        Event::Relay(Report::TunnelClosed { reason, bytes, .. }) => Some((*reason, bytes.unwrap())),
        _ => None,
    })
}

/// Nothing of any tunnel is left on any shard.
fn nothing_is_left(world: &mut World, shards: &[usize]) {
    world.run_for(Duration::from_secs(1));
    let status = world.hosts[shards[0]].endpoint.relay_status().unwrap();
    assert!(status.tunnels.is_empty());
    for shard in shards {
        let text = format!("{:?}", world.hosts[*shard].endpoint);
        for kept in ["Splice {", "Parts {"] {
            assert!(!text.contains(kept), "{kept} on shard {shard}");
        }
        for empty in ["by_end: {}", "ready: {}", "early: {}"] {
            assert!(text.contains(empty), "{empty} on shard {shard}");
        }
    }
}

fn read_to_end(world: &mut World, (host, end): TunnelEnd) {
    world.run_until("the end", |world| {
        (world.with(host, end, |stream| stream.read_chunk(1)) == Ok(None)).then_some(())
    });
}

#[test]
fn a_tunnel_carries_bytes_both_ways_wherever_its_ends_are() {
    for place in placings() {
        let (mut world, shards, alice, bob) = two_nodes(&RelayConfig::default(), place);
        let conns = world.hosts[shards[0]].endpoint.relay_status().unwrap().connections;
        let relay = &world.hosts[shards[0]].endpoint;
        let mut found: Vec<_> = conns
            .iter()
            .map(|conn| relay.relay_connection(conn.conn).unwrap().0)
            .collect();
        let mut meant = place.map(|shard| u8::try_from(shard).unwrap());
        found.sort_unstable();
        meant.sort_unstable();
        assert_eq!(found, meant);

        let (near, far) = world.tunnel(alice, bob);
        world.transfer(near, far, &pattern(3_000_000, 1));
        world.transfer(far, near, &pattern(2_000_000, 2));
        world.with(near.0, near.1, |stream| stream.finish()).unwrap();
        read_to_end(&mut world, far);
        world.transfer(far, near, &pattern(100_000, 3));
        world.with(far.0, far.1, |stream| stream.finish()).unwrap();
        read_to_end(&mut world, near);
        let carried = TunnelBytes {
            to_target: 3_000_000,
            to_requester: 2_100_000,
        };
        assert_eq!(closed(&mut world, shards[0]), (TunnelCloseReason::Finished, carried));
        nothing_is_left(&mut world, &shards);
    }
}

#[test]
fn resets_and_stops_pass_with_their_codes() {
    for place in placings() {
        let (mut world, shards, alice, bob) = two_nodes(&RelayConfig::default(), place);
        let code = Code::new(77).unwrap();
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
        assert_eq!(closed(&mut world, shards[0]).0, TunnelCloseReason::Reset(code));
        for (host, end) in [near, far] {
            world.with(host, end, |stream| stream.release());
        }
        nothing_is_left(&mut world, &shards);
    }
}

#[test]
fn a_stalled_reader_stalls_only_its_own_tunnel() {
    let (mut world, _, alice, bob) = two_nodes(&RelayConfig::default(), [1, 2]);
    let (stalled, far_stalled) = world.tunnel(alice, bob);
    let (near, far) = world.tunnel(alice, bob);
    let block = [0x5a; 64 << 10];
    let mut taken = 0;
    for _ in 0..200 {
        while let Ok(written) = world.with(stalled.0, stalled.1, |stream| stream.write(&block)) {
            taken += written;
        }
        world.run_for(Duration::from_millis(50));
    }
    // Two windows, the block on either shard, and the four between them.
    let bound = 2 * 1_250_000 + 6 * (64 << 10);
    assert!(taken <= bound, "{taken} bytes were taken, {bound} is the bound");
    assert!(taken >= 2_000_000, "{taken} bytes were taken: the windows are used");
    world.transfer(near, far, &pattern(3_000_000, 6));
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
fn a_lost_node_ends_its_tunnels_on_other_shards_and_the_bytes_are_told() {
    for place in placings() {
        let (mut world, shards, alice, bob) = two_nodes(&RelayConfig::default(), place);
        let (near, far) = world.tunnel(alice, bob);
        world.transfer(near, far, &pattern(10_000, 1));
        let conn = world.hosts[bob.0].endpoint.client_connection(bob.1).unwrap().unwrap();
        let now = world.now;
        let mut quic = world.hosts[bob.0].endpoint.quic().connection(conn).unwrap();
        quic.close(now, Code::CLOSED, Bytes::new());
        let code = world.find(alice.0, "the end of the tunnel", |event| match event {
            Event::Quic(macula_proto::quic::Event::Reset { conn, stream, code }) if (*conn, *stream) == near.1 => {
                Some(*code)
            }
            _ => None,
        });
        assert_eq!(code, Code::PEER_GONE);
        let carried = TunnelBytes {
            to_target: 10_000,
            to_requester: 0,
        };
        assert_eq!(closed(&mut world, shards[0]), (TunnelCloseReason::PeerGone, carried));
        world.identified(shards[0], "bob");
        let (near, far) = world.tunnel(alice, bob);
        world.transfer(near, far, b"again");
        let now = world.now;
        let (conn, stream) = near.1;
        assert!(
            world.hosts[alice.0]
                .endpoint
                .close_tunnel(now, alice.1, stream, Code::CLOSED)
                .unwrap(),
            "{conn} {stream}"
        );
        assert_eq!(closed(&mut world, shards[0]).1.to_target, 5);
        nothing_is_left(&mut world, &shards);
    }
}

#[test]
fn a_rate_limit_holds_for_either_node() {
    let config = RelayConfig {
        node_limits: NodeLimits {
            tunnels: None,
            bytes_per_second: Some(100_000),
        },
        ..RelayConfig::default()
    };
    let (mut world, _, alice, bob) = two_nodes(&config, [1, 2]);
    let (near, far) = world.tunnel(alice, bob);
    for (from, to) in [(near, far), (far, near)] {
        let begin = world.now.mono;
        world.transfer(from, to, &pattern(1_000_000, 9));
        let took = world.now.mono - begin;
        assert!(took >= Duration::from_millis(9_500), "1 MB at 100 kB/s took {took:?}");
        assert!(took <= Duration::from_millis(11_500), "1 MB at 100 kB/s took {took:?}");
    }
}

#[test]
fn a_client_whose_address_changes_is_still_heard_by_its_shard() {
    let (mut world, shards, alice, bob) = two_nodes(&RelayConfig::default(), [1, 2]);
    let (near, far) = world.tunnel(alice, bob);
    world.transfer(near, far, b"before");
    world.hosts[alice.0].address = SocketAddr::from(([10, 0, 0, 101], 4434));
    assert_eq!((101 - 1) % usize::from(SHARDS), 1, "the same shard: nothing strays");
    world.transfer(near, far, &pattern(100_000, 1));
    assert_eq!(world.hosts[shards[1]].endpoint.quic().stats().strays, 0);
    world.hosts[alice.0].address = SocketAddr::from(([10, 0, 0, 103], 4434));
    world.transfer(near, far, &pattern(1_000_000, 2));
    world.transfer(far, near, &pattern(1_000_000, 3));
    let stats = world.hosts[shards[0]].endpoint.quic().stats();
    assert!(stats.strays > 100, "{} datagrams strayed", stats.strays);
    assert_eq!(stats.strays_dropped, 0);
    assert_eq!(world.hosts[shards[0]].endpoint.quic().connections().count(), 0);
}

#[test]
fn a_drained_relay_lets_its_clients_go_on_all_shards() {
    let (mut world, shards, alice, bob) = two_nodes(&RelayConfig::default(), [1, 2]);
    let (near, far) = world.tunnel(alice, bob);
    let now = world.now;
    world.hosts[shards[0]].endpoint.drain_relay(now);
    world.transfer(near, far, &pattern(500_000, 10));
    for (host, end) in [near, far] {
        world.with(host, end, |stream| stream.finish()).unwrap();
    }
    read_to_end(&mut world, near);
    read_to_end(&mut world, far);
    world.find(shards[0], "drained", |event| {
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

/// Whatever the shards' messages do on their way, short of changing their order between two: the bytes are the same, each tunnel
/// ends once with the right figures, and nothing stays.
#[test]
fn the_pace_of_messages_between_shards_changes_nothing() {
    for seed in 0..24 {
        let mut rng = Rng::from_seed(seed);
        let place = [rng.below(3), rng.below(3)].map(|shard| usize::try_from(shard).unwrap());
        let (mut world, shards, alice, bob) = two_nodes(&RelayConfig::default(), place);
        world.mail_delay = Some((Duration::from_millis(20), rng.fork()));
        for _ in 0..4 {
            let (near, far) = world.tunnel(alice, bob);
            let there = pattern(usize::try_from(rng.below(400_000)).unwrap(), rng.below(9));
            let back = pattern(usize::try_from(rng.below(400_000)).unwrap(), rng.below(9));
            world.transfer(near, far, &there);
            world.transfer(far, near, &back);
            let all = TunnelBytes {
                to_target: there.len() as u64,
                to_requester: back.len() as u64,
            };
            let (reason, bytes) = match rng.below(4) {
                0 => {
                    for (host, end) in [near, far] {
                        world.with(host, end, |stream| stream.finish()).unwrap();
                    }
                    read_to_end(&mut world, near);
                    read_to_end(&mut world, far);
                    closed(&mut world, shards[0])
                }
                // Both at once, so that the news of it meet on the way.
                1 => {
                    for (host, end) in [near, far] {
                        world.with(host, end, |stream| stream.abort(Code::TCP_RESET));
                    }
                    closed(&mut world, shards[0])
                }
                2 => {
                    world.with(far.0, far.1, |stream| stream.abort(Code::TCP_RESET));
                    closed(&mut world, shards[0])
                }
                _ => {
                    let now = world.now;
                    for (node, (_, (_, stream))) in [(alice, near), (bob, far)] {
                        let endpoint = &mut world.hosts[node.0].endpoint;
                        endpoint.close_tunnel(now, node.1, stream, Code::CLOSED).unwrap();
                    }
                    closed(&mut world, shards[0])
                }
            };
            assert_eq!(bytes, all, "{reason:?}, seed {seed}");
        }
        let closed = |event: &Event| matches!(event, Event::Relay(Report::TunnelClosed { .. }));
        world.run_for(Duration::from_secs(1));
        assert!(!world.hosts[shards[0]].events.iter().any(closed), "each ends once");
        nothing_is_left(&mut world, &shards);
        let stats = world.hosts[shards[0]].endpoint.relay_stats().unwrap();
        assert_eq!((stats.tunnels_opened, stats.tunnels_closed), (4, 4));
    }
}

#[test]
fn a_node_reaches_itself_and_names_are_one_space() {
    let (mut world, shards, alice, bob) = two_nodes(&RelayConfig::default(), [1, 2]);
    let to_self = world.open(alice, "alice");
    let near = world.opened(alice.0, to_self);
    let (source, conn, stream) = world.incoming(alice.0);
    assert_eq!(source, Name::from("alice"));
    world.transfer((alice.0, near), (alice.0, (conn, stream)), &pattern(200_000, 4));
    // The same name on another shard takes it over.
    let other = world.add_node("alice", &[shards[0]]);
    world.find(shards[0], "the takeover", |event| {
        matches!(event, Event::Relay(Report::Displaced { .. })).then_some(())
    });
    let request = world.open(bob, "alice");
    world.opened(bob.0, request);
    world.incoming(other.0);
}

#[test]
fn shards_need_one_key_and_an_index_below_their_number() {
    assert_eq!(Shard::new(2, 2), None);
    assert_eq!(Shard::new(0, 0), None);
    assert_eq!(Shard::new(0, 65), None);
    let mut config = EndpointConfig::default();
    config.shard = Shard::new(1, 2).unwrap();
    let made = macula_proto::Endpoint::new(&config, Default::default(), [0; 32]);
    assert_eq!(made.err(), Some(ConfigError("reset_key")));
    config.reset_key = Some(ResetKey::new([1; 32]));
    let mut endpoint = macula_proto::Endpoint::new(&config, Default::default(), [0; 32]).unwrap();
    assert_eq!(endpoint.shard(), config.shard);
    assert!(endpoint.poll_shard().is_none());
}
