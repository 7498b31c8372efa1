//! Ticks: how soon they arrive, and what they are for.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    dist::pool::Ordering,
    endpoint::{DistEnd, DistEvent},
    wire::dist::DEFAULT_MAX_MESSAGE,
};

use crate::net::Net;

/// Of one host, in bytes each second.
const RATE: u64 = 125_000;
const DELAY: Duration = Duration::from_millis(50);
const QUEUE: Duration = Duration::from_millis(100);

fn ticked(event: &DistEvent) -> Option<()> {
    (*event == DistEvent::Tick).then_some(())
}

#[test]
fn ticks_pass_bulk_on_a_slow_lossy_link() {
    let (mut net, a, _) = Net::linked(|_, config| {
        config.controller.pool = config.controller.pool.clone().between_own(Ordering::RoundRobin);
        config.controller.pool.backlog = usize::MAX;
        config.controller.net_tick = None;
    });
    net.world.rate = Some(RATE);
    net.world.delay = DELAY;
    net.world.queue = QUEUE;
    net.world.lose_every = Some(47);
    // The longest message there may be on every data stream: much more than can arrive.
    let longest = Bytes::from(vec![1; DEFAULT_MAX_MESSAGE as usize]);
    for _ in 0..4 {
        net.try_send(a, &longest, 0).unwrap();
    }
    net.world.run_for(Duration::from_secs(5));

    let datagram = Duration::from_secs_f64(1452.0 / RATE as f64);
    let round_trip = 2 * DELAY + QUEUE + datagram;
    let batch = 8 * datagram;
    let mut latencies = Vec::new();
    for _ in 0..150 {
        net.world.run_for(Duration::from_millis(237));
        net.world.hosts[1].events.clear();
        let before = net.world.now.mono;
        net.world.hosts[0].endpoint.dist_tick(net.world.now, a.1);
        net.find(1, "the tick", |_, event| ticked(event));
        latencies.push(net.world.now.mono - before);
    }
    latencies.sort_unstable();
    let longest = latencies[149];
    assert!(
        longest <= 2 * round_trip + batch,
        "{longest:?}, {:?} in the middle",
        latencies[75]
    );
    let stats = net.world.hosts[0].endpoint.dist_stat(a.1).unwrap();
    assert!(
        stats.pending > 3 * DEFAULT_MAX_MESSAGE as usize,
        "the bulk is on its way all the time"
    );
    let info = net.world.hosts[0].endpoint.dist_info(a.1).unwrap();
    let quic = net.world.hosts[0]
        .endpoint
        .quic()
        .connection(info.connection)
        .unwrap()
        .stats();
    assert!(quic.packets_lost > 20, "the link loses");
    assert!(quic.bytes_sent > 2_000_000, "the link is busy: {}", quic.bytes_sent);
}

#[test]
fn nodes_with_nothing_to_say_stay_connected_by_ticks() {
    let (mut net, a, b) = Net::linked(|_, config| config.controller.net_tick = Some(Duration::from_secs(8)));
    net.world.run_for(Duration::from_secs(120));
    for end in [a, b] {
        let events = net.rest(end);
        assert!(!events.iter().any(|event| matches!(event, DistEvent::Down { .. })));
        let ticks = events.iter().filter(|event| ticked(event).is_some()).count();
        assert!(
            (50..=80).contains(&ticks),
            "{ticks} ticks in two minutes, one every two seconds"
        );
    }
}

#[test]
fn a_node_that_is_dead_is_given_up() {
    let (mut net, a, _) = Net::linked(|_, config| config.controller.net_tick = Some(Duration::from_secs(8)));
    net.world.run_for(Duration::from_secs(5));
    net.world.hosts[1].alive = false;
    let before = net.world.now.mono;
    assert_eq!(net.down(a), DistEnd::NetTick);
    let took = net.world.now.mono - before;
    assert!(
        took >= Duration::from_secs(6) && took <= Duration::from_secs(10),
        "{took:?}"
    );
    assert_eq!(net.world.hosts[0].endpoint.dist_nodes(), []);
}
