//! Messages: order, bounds, back-pressure, and what becomes of them at the end.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::pool::{Ordering, SendError},
    endpoint::{DistConfig, DistEnd, DistEvent},
};

use crate::{
    net::{Net, number, numbered},
    world::pattern,
};

fn spread(ordering: Ordering) -> impl Fn(usize, &mut DistConfig) {
    move |_, config| config.controller.pool = config.controller.pool.clone().between_own(ordering)
}

#[test]
fn a_hundred_thousand_messages_stay_in_order_on_one_stream() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    let messages: Vec<(u64, Bytes)> = (0..100_000).map(|n| (n, numbered(n))).collect();
    let received = net.transfer(a, b, &messages);
    assert!(received.iter().zip(&messages).all(|(found, (_, sent))| found == sent));
    let stat = net.world.hosts[0].endpoint.dist_stat(a.1).unwrap();
    assert_eq!(stat.pending, 0);
    assert_eq!(stat.controller.pool.messages_sent, 100_000);
    assert!(stat.sent > 1000 && stat.received > 10, "{stat:?}");
}

#[test]
fn messages_that_go_round_all_arrive_once() {
    let (mut net, a, b) = Net::linked(spread(Ordering::RoundRobin));
    let messages: Vec<(u64, Bytes)> = (0..20_000).map(|n| (n, numbered(n))).collect();
    let mut received: Vec<u64> = net.transfer(a, b, &messages).iter().map(number).collect();
    received.sort_unstable();
    assert!(received.into_iter().eq(0..20_000));
}

#[test]
fn messages_with_a_key_stay_in_order_under_loss_and_delay() {
    for (from, to) in [(0, 1), (1, 0)] {
        let (mut net, a, b) = Net::linked(spread(Ordering::Keyed));
        net.world.lose_every = Some(29);
        net.world.delay_every = Some(7);
        let ends = [a, b];
        let messages: Vec<(u64, Bytes)> = (0..20_000).map(|n| (n % 13, numbered(n))).collect();
        let received = net.transfer(ends[from], ends[to], &messages);
        let mut last = BTreeMap::new();
        for number in received.iter().map(number) {
            let before = last.insert(number % 13, number);
            assert_eq!(
                before.map_or(number % 13, |before| before + 13),
                number,
                "nothing lost, nothing twice"
            );
        }
    }
}

#[test]
fn messages_stay_in_order_under_loss_and_delay_in_both_directions() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.world.lose_every = Some(23);
    net.world.delay_every = Some(5);
    let messages: Vec<(u64, Bytes)> = (0..5_000).map(|n| (n, numbered(n))).collect();
    for (from, to) in [(a, b), (b, a)] {
        let received = net.transfer(from, to, &messages);
        assert!(received.iter().zip(&messages).all(|(found, (_, sent))| found == sent));
    }
}

#[test]
fn long_messages_arrive_whole_and_too_long_ones_are_refused() {
    let (mut net, a, b) = Net::linked(|_, config| config.controller.pool.max_message = 12 << 20);
    let long = Bytes::from(pattern(12 << 20, 3));
    let received = net.transfer(a, b, &[(0, long.clone()), (0, numbered(1))]);
    assert!(received == [long, numbered(1)]);
    let too_long = Bytes::from(vec![1; (12 << 20) + 1]);
    assert!(matches!(net.try_send(a, &too_long, 0), Err(SendError::TooLarge(_))));
    assert_eq!(net.try_send(a, &Bytes::new(), 0), Err(SendError::Empty));
}

#[test]
fn not_more_than_a_few_messages_are_taken_at_a_time() {
    let (mut net, a, _) = Net::linked(|_, _| {});
    for n in 0..16 {
        assert_eq!(net.try_send(a, &numbered(n), 0), Ok(()));
    }
    assert_eq!(net.try_send(a, &numbered(16), 0), Err(SendError::Later));
    net.find(0, "its next turn", |_, event| {
        (*event == DistEvent::SendReady).then_some(())
    });
    assert_eq!(net.try_send(a, &numbered(16), 0), Ok(()));
}

#[test]
fn a_full_connection_is_congested_until_it_drains() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    let big = Bytes::from(pattern(200_000, 1));
    let mut sent = 0;
    let error = loop {
        match net.try_send(a, &big, 0) {
            Ok(()) => sent += 1,
            Err(SendError::Later) => net.world.settle(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Congested);
    assert!(sent < 40, "{sent} are too many");
    assert!(net.world.hosts[0].endpoint.dist_info(a.1).unwrap().congested);
    assert!(net.world.hosts[0].endpoint.dist_stat(a.1).unwrap().pending > 0);
    net.find(0, "to be congested", |_, event| {
        (*event == DistEvent::Congested).then_some(())
    });
    let mut received = 0;
    while received < sent {
        net.world.run_for(Duration::from_millis(20));
        while let Some(message) = net.recv(b) {
            assert!(message == big);
            received += 1;
        }
    }
    net.find(0, "to be ready", |_, event| {
        (*event == DistEvent::SendReady).then_some(())
    });
    assert_eq!(net.try_send(a, &big, 0), Ok(()));
}

#[test]
fn a_node_that_fetches_nothing_is_not_flooded() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    let big = Bytes::from(pattern(50_000, 1));
    let mut sent = 0;
    for _ in 0..200 {
        while net.try_send(a, &big, 0).is_ok() {
            sent += 1;
        }
        net.world.run_for(Duration::from_millis(20));
    }
    assert!(sent * 50_000 < 16 << 20, "{sent} messages are out");
    let mut received = 0;
    while received < sent {
        while net.recv(b).is_some() {
            received += 1;
        }
        net.world.run_for(Duration::from_millis(5));
    }
}

#[test]
fn a_side_that_leaves_sends_what_it_has_taken() {
    for host in [0, 1] {
        let (mut net, a, b) = Net::linked(|_, _| {});
        let (from, to) = if host == 0 { (a, b) } else { (b, a) };
        for n in 0..16 {
            net.try_send(from, &Bytes::from(pattern(60_000, n)), 0).unwrap();
        }
        let now = net.world.now;
        net.world.hosts[host].endpoint.dist_close(now, from.1, Code::SHUTDOWN);
        assert_eq!(net.try_send(from, &numbered(1), 0), Err(SendError::Failed));
        assert_eq!(net.down(from), DistEnd::Closed);
        net.world.run_for(Duration::from_secs(1));
        let downs = net.rest(to);
        let down = |event: &DistEvent| matches!(event, DistEvent::Down { .. });
        assert!(!downs.iter().any(down), "its messages come first");
        assert!(net.world.hosts[to.0].endpoint.dist_info(to.1).unwrap().has_messages);
        for n in 0..16 {
            assert!(net.recv(to) == Some(Bytes::from(pattern(60_000, n))), "message {n}");
        }
        assert_eq!(net.recv(to), None);
        assert_eq!(net.down(to), DistEnd::PeerClosed(Code::SHUTDOWN));
        assert_eq!(net.world.hosts[to.0].endpoint.dist_info(to.1), None);
    }
}

#[test]
fn a_side_that_leaves_does_not_wait_for_ever() {
    let (mut net, a, _) = Net::linked(|_, _| {});
    net.world.hosts[1].alive = false;
    net.try_send(a, &numbered(1), 0).unwrap();
    let before = net.world.now.mono;
    net.world.hosts[0].endpoint.dist_close(net.world.now, a.1, Code::CLOSED);
    assert_eq!(net.down(a), DistEnd::Closed);
    let took = net.world.now.mono - before;
    assert!(
        took >= Duration::from_secs(5) && took < Duration::from_millis(5100),
        "{took:?}"
    );
}

#[test]
fn a_connection_that_is_forgotten_is_heard_of_no_more() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.try_send(b, &numbered(1), 0).unwrap();
    net.world.run_for(Duration::from_millis(100));
    net.world.hosts[0].events.clear();
    net.world.hosts[0]
        .endpoint
        .forget_dist(net.world.now, a.1, Code::CLOSED);
    assert_eq!(net.down(b), DistEnd::PeerClosed(Code::CLOSED));
    net.world.run_for(Duration::from_secs(1));
    assert_eq!(net.world.hosts[0].events, []);
    assert_eq!(net.world.hosts[0].endpoint.dist_info(a.1), None);
    assert_eq!(net.try_send(a, &numbered(1), 0), Err(SendError::Failed));
}

#[test]
fn the_end_is_told_to_who_watches() {
    let (mut net, a, _) = Net::linked(|_, _| {});
    let watcher = macula_proto::dist::user::Owner(77);
    let endpoint = &mut net.world.hosts[0].endpoint;
    assert!(endpoint.dist_set_supervisor(a.1, Some(watcher)));
    assert!(endpoint.dist_set_node(a.1, crate::net::atom("alias@h")));
    endpoint.dist_close(net.world.now, a.1, Code::CLOSED);
    let (node, supervisor) = net.find(0, "the end", |_, event| match event {
        DistEvent::Down { node, supervisor, .. } => Some((node.clone(), *supervisor)),
        _ => None,
    });
    assert_eq!((node.unwrap().as_str(), supervisor), ("alias@h", Some(watcher)));
}
