//! What links do to datagrams.

use macula_proto::sim::{Chance, DropReason, Fault, HostConfig, Link, Port};

use crate::kit::{Pair, ms, secs};

#[test]
fn a_delay_is_that_of_the_link() {
    let mut pair = Pair::connected(1, Link::with_delay(ms(40)));
    // One round trip of the handshake, and half of one more until the server knows.
    assert_eq!(pair.world.elapsed(), ms(120));
    pair.transfer(10);
    let rtt = pair.stats(0).min_rtt;
    assert!(rtt >= ms(80) && rtt < ms(82), "{rtt:?}");
}

#[test]
fn delays_differ_by_direction() {
    let mut pair = Pair::new(1, Link::with_delay(ms(10)), HostConfig::default());
    let (client, server) = (pair.client, pair.server);
    pair.world.set_link(server, client, Link::with_delay(ms(90)));
    assert_eq!(pair.world.link(client, server).delay, ms(10));
    pair.dial();
    pair.until(secs(5), |pair| pair.conns.iter().all(Option::is_some));
    assert_eq!(pair.world.elapsed(), ms(110));
}

#[test]
fn as_many_are_lost_as_was_said() {
    let link = Link {
        loss: Chance::percent(5.0),
        ..Link::default()
    };
    let mut pair = Pair::connected(2, link);
    pair.transfer(900_000);
    pair.run_for(secs(1));
    pair.transfer(900_000);
    let stats = pair.world.stats();
    let lost = stats.dropped_for(DropReason::Lost);
    let share = lost as f64 / stats.sent as f64;
    assert!(stats.sent > 1_500, "{stats:?}");
    assert!((0.035..0.065).contains(&share), "{lost} of {}", stats.sent);
    assert_eq!(stats.sent, stats.received + lost, "nothing else went wrong");
}

#[test]
fn a_rate_is_that_of_the_link() {
    let link = Link {
        bandwidth: Some(250_000),
        ..Link::default()
    };
    let took = Pair::connected(3, link).transfer(1_000_000);
    // Headers and acknowledgements take their share; slow start costs a moment.
    assert!(took > ms(4_000) && took < ms(4_700), "{took:?}");
}

#[test]
fn a_port_is_shared_by_all_links() {
    let config = HostConfig {
        port: Port {
            up: Some(250_000),
            ..Port::default()
        },
        ..HostConfig::default()
    };
    let mut pair = Pair::new(3, Link::default(), config);
    pair.dial();
    pair.until(secs(5), |pair| pair.conns.iter().all(Option::is_some));
    let took = pair.transfer(1_000_000);
    assert!(took > ms(4_000) && took < ms(4_700), "up: {took:?}");

    let mut pair = Pair::connected(3, Link::default());
    let port = Port {
        down: Some(250_000),
        ..Port::default()
    };
    pair.world.set_port(pair.server, port);
    let took = pair.transfer(1_000_000);
    assert!(took > ms(4_000) && took < ms(4_700), "down: {took:?}");
}

#[test]
fn a_short_queue_drops() {
    let link = |queue| Link {
        bandwidth: Some(250_000),
        queue,
        ..Link::with_delay(ms(20))
    };
    let drops = |queue| {
        let mut pair = Pair::connected(4, link(queue));
        pair.transfer(900_000);
        pair.world.stats().dropped_for(DropReason::QueueFull)
    };
    assert!(drops(4_000) > 10);
    assert_eq!(drops(2_000_000), 0);
}

#[test]
fn jitter_keeps_the_order_and_reordering_does_not() {
    let jitter = Link {
        jitter: ms(30),
        ..Link::with_delay(ms(30))
    };
    let mut pair = Pair::connected(5, jitter);
    pair.transfer(900_000);
    assert_eq!(pair.stats(0).packets_lost, 0, "nothing seemed lost for being late");
    let reorder = Link {
        reorder: Chance::percent(10.0),
        ..Link::with_delay(ms(30))
    };
    let mut pair = Pair::connected(5, reorder);
    pair.transfer(900_000);
    assert!(pair.stats(0).packets_lost > 5, "what was overtaken seemed lost");
    assert_eq!(pair.world.stats().dropped.iter().sum::<u64>(), 0);
}

#[test]
fn duplicates_arrive_and_do_no_harm() {
    let link = Link {
        duplicate: Chance::percent(20.0),
        ..Link::default()
    };
    let mut pair = Pair::connected(6, link);
    pair.transfer(900_000);
    pair.run_for(secs(1));
    let stats = pair.world.stats();
    assert!(stats.duplicated > stats.sent / 7, "{stats:?}");
    assert_eq!(stats.received, stats.sent + stats.duplicated);
}

#[test]
fn wrong_bits_are_noticed() {
    let link = Link {
        corrupt: Chance::percent(5.0),
        ..Link::default()
    };
    let mut pair = Pair::connected(7, link);
    pair.transfer(900_000);
    assert!(pair.world.stats().corrupted > 10);
    assert!(pair.stats(0).packets_lost > 5);
}

#[test]
fn long_datagrams_vanish_and_the_size_is_found() {
    let link = Link {
        mtu: 1300,
        ..Link::default()
    };
    let mut pair = Pair::connected(8, link);
    pair.transfer(900_000);
    let size = pair.stats(0).datagram_size;
    assert!(size > 1250 && size <= 1300, "{size}");
    assert!(pair.world.stats().dropped_for(DropReason::TooLong) > 0);
    // Smaller in the middle of it: a black hole.
    let link = Link { mtu: 1210, ..link };
    pair.world.set_default_link(link);
    pair.transfer(900_000);
    let stats = pair.stats(0);
    assert!(stats.datagram_size <= 1210 && stats.black_holes > 0, "{stats:?}");
}

#[test]
fn a_cut_holds_in_one_direction_until_it_is_healed() {
    let mut pair = Pair::connected(9, Link::default());
    let (client, server) = (pair.client, pair.server);
    pair.world.apply(Fault::Cut {
        from: client,
        to: server,
    });
    pair.upload(vec![1; 1000]);
    pair.run_for(secs(3));
    assert!(!pair.finished);
    let before = pair.world.stats();
    assert!(before.dropped_for(DropReason::Cut) > 1, "it was tried again");
    pair.world.apply(Fault::Heal {
        from: client,
        to: server,
    });
    pair.until(secs(10), |pair| pair.finished);
    // The other way round the data arrive and what says so does not.
    pair.world.apply(Fault::Cut {
        from: server,
        to: client,
    });
    pair.finished = false;
    pair.upload(vec![1; 1000]);
    pair.until(secs(1), |pair| pair.finished);
    pair.run_for(secs(2));
    assert!(pair.world.stats().dropped_for(DropReason::Cut) > before.dropped_for(DropReason::Cut));
}

#[test]
fn partitions_and_isolation_are_healed_together() {
    let mut pair = Pair::connected(10, Link::default());
    let (client, server) = (pair.client, pair.server);
    pair.world.partition(&[client], &[server]);
    pair.world.apply(Fault::Isolate(server));
    pair.upload(vec![1; 1000]);
    pair.run_for(secs(2));
    assert!(!pair.finished);
    pair.world.apply(Fault::HealAll);
    pair.until(secs(10), |pair| pair.finished);
}

#[test]
fn nobody_has_an_address_that_is_not_there() {
    let mut pair = Pair::connected(11, Link::default());
    let from = pair.world.address(pair.client);
    let received = pair.world.stats().received;
    pair.world.inject(from, "10.9.9.9:1".parse().unwrap(), b"hello");
    let mut other_port = pair.world.address(pair.server);
    other_port.set_port(1);
    pair.world.inject(from, other_port, b"hello");
    pair.run_for(ms(1));
    assert_eq!(pair.world.stats().dropped_for(DropReason::HostDown), 1);
    pair.world.inject(from, pair.world.address(pair.server), b"hello");
    pair.run_for(ms(1));
    assert_eq!(pair.world.stats().received, received + 1);
}
