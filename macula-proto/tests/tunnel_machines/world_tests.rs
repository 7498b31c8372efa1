//! Nodes and a relay, with deliveries in every order.

use macula_proto::{
    Code, Rng,
    tunnel::{
        Name,
        client::session::{RequestError, SessionConfig},
        relay::{Event, Refusal, RelayConfig, Report, Takeover, TunnelCloseReason},
    },
    wire::control::Reason,
};

use crate::{
    ms,
    world::{Outcome, World},
};

/// Runs a world once for every order in which its deliveries can be made; returns how many there are.
fn in_every_order(build: impl Fn() -> World, check: impl Fn(&mut World)) -> usize {
    let mut choices: Vec<usize> = Vec::new();
    for runs in 1.. {
        let mut world = build();
        let mut widths = Vec::new();
        loop {
            let options = world.options();
            if options.is_empty() {
                break;
            }
            let depth = widths.len();
            if depth == choices.len() {
                choices.push(0);
            }
            widths.push(options.len());
            world.deliver(options[choices[depth]]);
        }
        check(&mut world);
        // The next order: like this one, but for the last choice that had an alternative.
        choices.truncate(widths.len());
        while let (Some(choice), Some(width)) = (choices.pop(), widths.pop()) {
            if choice + 1 < width {
                choices.push(choice + 1);
                break;
            }
        }
        if choices.is_empty() {
            return runs;
        }
    }
    unreachable!("an endless range")
}

fn two_nodes() -> (World, usize, usize) {
    let mut world = World::new(RelayConfig::default());
    let alice = world.join_and_settle("alice");
    let bob = world.join_and_settle("bob");
    (world, alice, bob)
}

/// The tunnel that `from` opened to `to` is there on both sides, and the two streams are the two ends of it.
fn assert_tunnel(world: &World, from: usize, to: usize) {
    let (source, target) = (&world.nodes[from], &world.nodes[to]);
    let opened = source
        .outcomes
        .iter()
        .rev()
        .find_map(|(request, outcome)| match outcome {
            Outcome::Opened(tunnel, stream) if source.asked[request] == target.name => Some((*tunnel, *stream)),
            _ => None,
        });
    let (tunnel, stream) = opened.expect("the request brought a tunnel");
    let incoming = target
        .incoming
        .iter()
        .find(|(id, ..)| *id == tunnel)
        .expect("the tunnel came in");
    assert_eq!(incoming.1, source.name);
    let splice = world.history[&tunnel];
    if from == to {
        let mut ends = [stream, incoming.2];
        ends.sort();
        assert_eq!(ends, [splice.requester.1, splice.target.1]);
    } else {
        assert_eq!(splice.requester, (source.conn, stream));
        assert_eq!(splice.target, (target.conn, incoming.2));
    }
}

fn assert_at_rest(world: &World) {
    for node in &world.nodes {
        let status = node.session.status();
        assert_eq!(
            (
                status.pending_outbound,
                status.pending_inbound,
                status.unidentified_streams
            ),
            (0, 0, 0)
        );
        assert_eq!(status.active_tunnels, node.active.len());
        assert_eq!(node.asked.len(), node.outcomes.len());
    }
}

#[test]
fn one_request_in_every_order() {
    let build = || {
        let (mut world, alice, _) = two_nodes();
        world.request(alice, "bob");
        world
    };
    let orders = in_every_order(build, |world| {
        assert_tunnel(world, 0, 1);
        assert_at_rest(world);
    });
    assert_eq!(
        orders, 180,
        "6! / (2! * 2!) orders of two control messages and two steps of two streams"
    );
}

#[test]
fn joining_and_asking_at_once_in_every_order() {
    let build = || {
        let mut world = World::new(RelayConfig::default());
        world.join(SessionConfig::new(Name::from("alice")), 10);
        world.join(SessionConfig::new(Name::from("bob")), 10);
        world
    };
    let orders = in_every_order(build, |world| {
        assert!(world.nodes.iter().all(|node| node.session.status().identified));
        world.request(0, "bob");
        world.request(1, "alice");
        world.settle();
        assert_tunnel(world, 0, 1);
        assert_tunnel(world, 1, 0);
    });
    assert_eq!(orders, 6);
}

#[test]
fn a_tunnel_to_oneself_in_every_order() {
    let build = || {
        let mut world = World::new(RelayConfig::default());
        let alice = world.join_and_settle("alice");
        world.request(alice, "alice");
        world
    };
    let orders = in_every_order(build, |world| {
        assert_tunnel(world, 0, 0);
        assert_at_rest(world);
        assert_eq!(world.nodes[0].session.status().active_tunnels, 2);
    });
    assert_eq!(
        orders, 90,
        "6! / (2! * 2! * 2!) orders of two messages in order and two steps of two streams"
    );
}

#[test]
fn crossing_requests_in_every_order() {
    // The two nodes share nothing but the relay: every order in which the requests reach the relay and one node gets its
    // deliveries, with the other node getting its own all at once at the end.
    for late in [0, 1] {
        let build = || {
            let (mut world, alice, bob) = two_nodes();
            world.request(alice, "bob");
            world.request(bob, "alice");
            world.nodes[late].stalled = true;
            world
        };
        let orders = in_every_order(build, |world| {
            world.nodes[late].stalled = false;
            world.settle();
            assert_tunnel(world, 0, 1);
            assert_tunnel(world, 1, 0);
            assert_at_rest(world);
        });
        assert!(orders > 90, "{orders}");
    }
}

#[test]
fn two_requests_at_once_in_every_order() {
    let build = || {
        let (mut world, alice, bob) = two_nodes();
        world.request(alice, "bob");
        world.request(alice, "nobody");
        world.nodes[bob].stalled = true;
        world
    };
    in_every_order(build, |world| {
        world.nodes[1].stalled = false;
        world.settle();
        assert_tunnel(world, 0, 1);
        let refused = Outcome::Failed(RequestError::Refused(Reason::TargetNotConnected));
        assert_eq!(world.nodes[0].outcomes.values().last(), Some(&refused));
        assert_at_rest(world);
    });
}

#[test]
fn cancelling_in_every_order() {
    // The cancel comes after any number of deliveries, in any order of those.
    for after in 0..6 {
        let build = || {
            let (mut world, alice, _) = two_nodes();
            world.request(alice, "bob");
            world.request(alice, "bob");
            world
        };
        let mut rng = Rng::from_seed(after);
        for _ in 0..300 {
            let mut world = build();
            let first = *world.nodes[0].asked.keys().next().expect("the first request");
            let mut steps = 0;
            loop {
                if steps == after {
                    world.cancel(0, first);
                }
                steps += 1;
                let options = world.options();
                if options.is_empty() {
                    break;
                }
                world.deliver(options[rng.below(options.len() as u64) as usize]);
            }
            while world.next_timeout() {
                world.settle();
            }
            assert_tunnel(&world, 0, 1);
            assert_at_rest(&world);
            // Either it was there before the cancel, or nothing is left of it on any side.
            let tunnels = world.relay.status().tunnels.len();
            let opened = world.nodes[0]
                .outcomes
                .values()
                .filter(|outcome| matches!(outcome, Outcome::Opened(..)));
            assert_eq!(opened.count(), tunnels);
        }
    }
}

#[test]
fn a_node_that_comes_back_displaces_its_old_connection() {
    let (mut world, alice, bob) = two_nodes();
    world.request(bob, "alice");
    world.settle();
    assert_tunnel(&world, bob, alice);

    // Alice's host restarts: the relay still believes in the old connection.
    world.break_connection(alice);
    let again = world.join_and_settle("alice");
    assert_eq!(world.nodes[alice].closed, Some(Code::DISPLACED));
    assert!(world.nodes[bob].active.is_empty(), "the old tunnel is over");
    let ended = |report: &Report| {
        matches!(
            report,
            Report::TunnelClosed {
                reason: TunnelCloseReason::PeerGone,
                ..
            }
        )
    };
    assert_eq!(world.reports.iter().filter(|report| ended(report)).count(), 1);

    // The end of the old connection, noticed late, does not touch the new registration.
    world.relay(Event::ConnectionLost {
        conn: world.nodes[alice].conn,
    });
    world.request(bob, "alice");
    world.settle();
    assert_tunnel(&world, bob, again);
}

#[test]
fn refusing_a_takeover_keeps_the_holder() {
    let config = RelayConfig {
        takeover: Takeover::Refuse,
        ..RelayConfig::default()
    };
    let mut world = World::new(config);
    let alice = world.join_and_settle("alice");
    let second = world.join(SessionConfig::new(Name::from("alice")), 10);
    world.settle();
    assert_eq!(world.nodes[second].closed, Some(Code::NOT_ALLOWED));
    assert!(world.nodes[alice].alive);
    world.request(alice, "alice");
    world.settle();
    assert_tunnel(&world, alice, alice);
}

#[test]
fn tunnel_close_ends_both_sides_whoever_sends_it() {
    for closer in [0, 1] {
        let (mut world, alice, bob) = two_nodes();
        world.request(alice, "bob");
        world.settle();
        let stream = *world.nodes[closer].active.keys().next().expect("a tunnel");
        world.abandon(closer, stream);
        world.settle();
        assert!(world.nodes[alice].active.is_empty() && world.nodes[bob].active.is_empty());
        assert!(world.relay.status().tunnels.is_empty());
        assert_at_rest(&world);
    }
}

#[test]
fn an_unwanted_source_is_refused_in_every_order() {
    let build = || {
        let mut world = World::new(RelayConfig::default());
        let alice = world.join_and_settle("alice");
        let mut config = SessionConfig::new(Name::from("bob"));
        config.allow_from = Some([Name::from("carol")].into());
        world.join(config, 10);
        world.settle();
        world.request(alice, "bob");
        world
    };
    in_every_order(build, |world| {
        assert!(world.nodes[1].incoming.is_empty());
        assert!(world.relay.status().tunnels.is_empty());
        assert!(world.nodes[0].active.is_empty());
        while world.next_timeout() {
            world.settle();
        }
        assert_at_rest(world);
    });
}

#[test]
fn streams_run_out_and_come_free() {
    let mut world = World::new(RelayConfig::default());
    let alice = world.join_and_settle("alice");
    let bob = world.join(SessionConfig::new(Name::from("bob")), 2);
    world.settle();
    for _ in 0..5 {
        world.request(alice, "bob");
    }
    world.settle();
    assert_eq!(world.nodes[bob].incoming.len(), 2);
    for served in 3..=5 {
        let tunnel = *world.splices.keys().next().expect("a tunnel");
        world.finish(tunnel);
        world.settle();
        assert_eq!(
            world.nodes[bob].incoming.len(),
            served,
            "a waiting request got the stream that came free"
        );
        assert_eq!(world.splices.len(), 2);
    }
    assert_at_rest(&world);
}

#[test]
fn streams_run_out_for_good() {
    let mut world = World::new(RelayConfig::default());
    let alice = world.join_and_settle("alice");
    let bob = world.join(SessionConfig::new(Name::from("bob")), 1);
    world.settle();
    for target in ["bob", "bob", "nobody", "alice"] {
        world.request(alice, target);
    }
    world.settle();
    // Answers come in order: what is behind the one that waits, waits too.
    assert_eq!(world.nodes[alice].outcomes.len(), 1);
    world.advance(ms(4999));
    world.settle();
    assert_eq!(world.nodes[alice].outcomes.len(), 1);
    world.advance(ms(1));
    world.settle();
    let outcomes: Vec<_> = world.nodes[alice].outcomes.values().collect();
    let refused = |reason| Outcome::Failed(RequestError::Refused(reason));
    assert!(matches!(outcomes[0], Outcome::Opened(..)));
    assert_eq!(*outcomes[1], refused(Reason::StreamLimit));
    assert_eq!(*outcomes[2], refused(Reason::TargetNotConnected));
    assert!(matches!(outcomes[3], Outcome::Opened(..)));
    assert_tunnel(&world, alice, alice);
    assert_tunnel(&world, alice, bob);
    assert_at_rest(&world);
}

/// A long random life: requests, cancels, closes, breaks, reconnects, stalls and time, with deliveries in random order.
fn random_life(seed: u64) -> World {
    const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
    let mut rng = Rng::from_seed(seed);
    let mut config = RelayConfig::default();
    config.limits.tunnels_per_connection = 6;
    config.limits.pending_requests = 4;
    let mut world = World::new(config);
    world.cut_messages(rng.fork());
    for _ in 0..400 {
        let nodes = world.nodes.len() as u64;
        let node = rng.below(nodes.max(1)) as usize;
        match rng.below(100) {
            _ if nodes < 2 => drop(join(&mut world, &mut rng, &NAMES)),
            0..4 => drop(join(&mut world, &mut rng, &NAMES)),
            4..24 => {
                let target = NAMES[rng.below(4) as usize];
                world.request(node, if rng.below(10) == 0 { "nobody" } else { target });
            }
            24..30 => {
                let pending: Vec<_> = world.nodes[node].asked.keys().copied().collect();
                if let Some(&request) = pending.last() {
                    world.cancel(node, request);
                }
            }
            30..36 => {
                if let Some(&stream) = world.nodes[node].active.keys().next() {
                    world.abandon(node, stream);
                }
            }
            36..42 => {
                if let Some(&tunnel) = world.splices.keys().next() {
                    world.finish(tunnel);
                }
            }
            42..43 => world.break_connection(node),
            43..46 => world.relay_notices(node),
            46..47 => world.leave(node),
            47..50 => world.nodes[node].stalled = !world.nodes[node].stalled,
            50..54 => world.advance(rng.duration_below(ms(3000))),
            54..55 => {
                world.next_timeout();
            }
            _ => {
                let options = world.options();
                if !options.is_empty() {
                    world.deliver(options[rng.below(options.len() as u64) as usize]);
                }
            }
        }
        for status in world.relay.status().connections {
            assert!(status.tunnels <= 6 && status.pending <= 4, "{status:?}");
        }
    }
    world
}

fn join(world: &mut World, rng: &mut Rng, names: &[&str; 4]) -> usize {
    let mut config = SessionConfig::new(Name::from(names[rng.below(4) as usize]));
    config.limits.orphan_streams = 3;
    if rng.below(4) == 0 {
        config.allow_from = Some([Name::from("alice"), Name::from("bob")].into());
    }
    let grants = 1 + rng.below(6) as usize;
    world.join(config, grants)
}

#[test]
fn random_lives() {
    let (mut opened, mut displaced, mut kinds) = (0, 0, [0; 8]);
    for seed in 0..400 {
        let mut world = random_life(seed);
        // Let everything come to its end.
        for node in &mut world.nodes {
            node.stalled = false;
        }
        world.settle();
        for _ in 0..10_000 {
            for node in 0..world.nodes.len() {
                world.relay_notices(node);
            }
            world.settle();
            if !world.next_timeout() {
                break;
            }
        }
        for node in &world.nodes {
            assert_eq!(
                node.asked.len(),
                node.outcomes.len(),
                "seed {seed}: every request has an outcome"
            );
        }
        let alive = world.nodes.iter().filter(|node| node.alive).count();
        let status = world.relay.status();
        assert!(status.connections.len() <= alive, "seed {seed}");
        assert!(status.connections.iter().all(|conn| conn.pending == 0), "seed {seed}");
        assert_eq!(status.tunnels.len(), world.splices.len(), "seed {seed}");

        // What both sides believe in is the same.
        let active: usize = world.nodes.iter().map(|node| node.active.len()).sum();
        assert_eq!(active, 2 * world.splices.len(), "seed {seed}");

        for node in 0..world.nodes.len() {
            world.break_connection(node);
            world.relay_notices(node);
        }
        assert!(world.relay.is_empty(), "seed {seed}: {:?}", world.relay);
        assert!(world.nodes.iter().all(|node| node.session.is_empty()), "seed {seed}");
        let stats = world.relay.stats();
        opened += stats.tunnels_opened;
        displaced += stats.displaced;
        for (kind, count) in kinds.iter_mut().zip(stats.refused) {
            *kind += count;
        }
        assert_eq!(stats.tunnels_opened, stats.tunnels_closed, "seed {seed}");
    }
    // The lives were not empty ones.
    assert!(opened > 2_000 && displaced > 100, "{opened} {displaced}");
    for why in [
        Refusal::TargetNotConnected,
        Refusal::StreamLimit,
        Refusal::TargetGone,
        Refusal::Busy,
    ] {
        assert!(kinds[why as usize] > 0, "{why}");
    }
}

#[test]
fn the_same_seed_gives_the_same_life() {
    for seed in 0..5 {
        let (first, second) = (random_life(seed), random_life(seed));
        assert_eq!(first.reports, second.reports, "seed {seed}");
        assert_eq!(first.relay.stats(), second.relay.stats(), "seed {seed}");
    }
}
