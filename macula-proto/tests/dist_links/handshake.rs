//! Who comes together with whom, and which of two connections stays.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::{
        handshake::{Failure, HandshakeConfig, Standing},
        streams::Side,
    },
    endpoint::{DistConnectError, DistEnd, DistEvent},
    wire::dist::Flags,
};

use crate::net::{End, Net, atom};

#[test]
fn two_nodes_with_one_cookie_come_together() {
    let mut net = Net::new(&["a@h", "b@h"]);
    let a = net.dial(0, 1);
    net.world.run_for(Duration::from_secs(1));
    let b = net.world.hosts[1].endpoint.dist_of("a@h").unwrap();
    for (end, side, node) in [((0, a), Side::Client, "b@h"), ((1, b), Side::Server, "a@h")] {
        let events = net.rest(end);
        let [DistEvent::PreNodeUp { node: before }, DistEvent::Up { .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(before.as_str(), node);
        let expected = DistEvent::Up {
            node: atom(node),
            creation: 7,
            own: net.names[end.0].clone(),
            own_creation: 7,
            flags: Flags::DEFAULT,
            side,
            remote: net.world.hosts[1 - end.0].address,
        };
        assert_eq!(events[1], expected);
        let info = net.world.hosts[end.0].endpoint.dist_info(end.1).unwrap();
        assert_eq!((info.node, info.side), (Some(atom(node)), side));
        assert_eq!(info.remote, net.world.hosts[1 - end.0].address);
        assert_eq!(net.world.hosts[end.0].endpoint.dist_nodes(), [(atom(node), end.1)]);
    }
}

#[test]
fn a_node_without_a_name_gets_one_and_goes_by_it() {
    let mut net = Net::with(&["h", "b@h", "c@h"], |index, config| {
        if index == 0 {
            config.controller.handshake = HandshakeConfig::nameless(atom("h"), "monster".into());
        }
    });
    // Nobody comes in before.
    let c = net.dial(2, 0);
    assert_eq!(net.down((2, c)), DistEnd::Handshake(Failure::NotAllowed));
    net.dial(0, 1);
    let up = |_, event: &DistEvent| match event {
        DistEvent::Up {
            node,
            own,
            own_creation,
            creation,
            ..
        } => Some((node.clone(), *creation, own.clone(), *own_creation)),
        _ => None,
    };
    let (b, _, own, own_creation) = net.find(0, "to be up", up);
    let (found, creation, ..) = net.find(1, "to be up", up);
    assert_eq!(b.as_str(), "b@h");
    assert!(own.ends_with("@h") && own.len() > 8, "{own}");
    assert_eq!((&found, creation), (&own, own_creation));
    // It keeps the name, whoever dials.
    net.names[0] = own.clone();
    net.dial(0, 2);
    assert_eq!(net.find(2, "to be up", up).0, own);
    assert_eq!(net.find(0, "to be up", up).2, own);
    for host in [1, 2] {
        assert!(net.world.hosts[host].endpoint.dist_of(own.as_str()).is_some());
    }
    let there = net.world.hosts[1].endpoint.dist_of(own.as_str()).unwrap();
    let now = net.world.now;
    net.world.hosts[1].endpoint.dist_close(now, there, Code::CLOSED);
    net.down((1, there));
    let there = net.dial(1, 0);
    net.find(1, "to be up", |dist, event| up(dist, event).filter(|_| dist == there));
}

/// Dials, and says how it ended; the other side must not have heard of it.
fn refused(mut net: Net, to: &str) -> DistEnd {
    let (now, remote) = (net.world.now, net.world.hosts[1].address);
    let endpoint = &mut net.world.hosts[0].endpoint;
    let a = endpoint.connect_dist(now, atom(to), remote, "node").unwrap();
    let reason = net.down((0, a));
    net.world.run_for(Duration::from_secs(5));
    assert_eq!(net.world.hosts[1].events, [], "nobody has come in");
    assert_eq!(net.world.hosts[0].endpoint.dist_info(a), None, "it is forgotten");
    assert_eq!(net.world.hosts[1].endpoint.dist_nodes(), []);
    let endpoint = &mut net.world.hosts[0].endpoint;
    assert!(
        endpoint.connect_dist(net.world.now, atom(to), remote, "node").is_ok(),
        "it can be dialled again"
    );
    reason
}

#[test]
fn who_has_another_cookie_stays_outside() {
    let net = Net::with(&["a@h", "b@h"], |index, config| {
        if index == 1 {
            config.controller.handshake.cookie = "other".into();
        }
    });
    assert_eq!(refused(net, "b@h"), DistEnd::PeerClosed(Code::NOT_ALLOWED));
}

#[test]
fn who_is_not_allowed_is_told_so() {
    let net = Net::with(&["a@h", "b@h"], |_, config| config.allowed = Some([atom("c@h")].into()));
    assert_eq!(refused(net, "b@h"), DistEnd::Handshake(Failure::NotAllowed));
}

#[test]
fn another_node_than_the_one_dialled_is_not_taken() {
    let reason = refused(Net::new(&["a@h", "b@h"]), "c@h");
    let (expected, found) = (atom("c@h"), atom("b@h"));
    assert_eq!(reason, DistEnd::Handshake(Failure::OtherNode { expected, found }));
}

#[test]
fn more_than_may_be_in_their_handshake_are_turned_away() {
    let net = Net::with(&["a@h", "b@h"], |_, config| config.handshaking = 0);
    assert_eq!(refused(net, "b@h"), DistEnd::PeerClosed(Code::LIMIT));
}

#[test]
fn a_node_that_says_nothing_is_given_up() {
    let mut net = Net::new(&["a@h", "b@h"]);
    let a = net.dial(0, 1);
    net.world.run_for(Duration::from_millis(17));
    net.world.hosts[1].alive = false;
    assert_eq!(net.down((0, a)), DistEnd::Handshake(Failure::TimedOut));
}

#[test]
fn a_node_is_dialled_once() {
    let (mut net, (_, a), _) = Net::linked(|_, _| {});
    let (now, remote) = (net.world.now, net.world.hosts[1].address);
    let endpoint = &mut net.world.hosts[0].endpoint;
    let again = endpoint.connect_dist(now, atom("b@h"), remote, "node");
    assert_eq!(again, Err(DistConnectError::Present(Standing::Connected)));
    assert_eq!(endpoint.dist_of("b@h"), Some(a));
}

/// Sends a message in each direction over the connection that counts.
fn talk(net: &mut Net) {
    let ends: [End; 2] = [(0, "b@h"), (1, "a@h")].map(|(host, peer)| {
        let endpoint = &net.world.hosts[host].endpoint;
        (
            host,
            endpoint
                .dist_of(peer)
                .unwrap_or_else(|| panic!("{host} has lost {peer}")),
        )
    });
    for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
        let message = Bytes::from(format!("from {}", from.0));
        assert_eq!(net.transfer(from, to, &[(0, message.clone())]), [message]);
    }
}

#[test]
fn two_nodes_that_dial_each_other_have_one_connection() {
    let mut both = 0;
    for trouble in 0..3 {
        for later in 0..40_u64 {
            for first in [0, 1] {
                let mut net = Net::new(&["a@h", "b@h"]);
                net.world.lose_every = (trouble == 1).then_some(5 + later % 4);
                net.world.delay_every = (trouble == 2).then_some(2 + later % 3);
                let mut dials = vec![(first, net.dial(first, 1 - first))];
                net.world.run_for(Duration::from_millis(later));
                let (now, second) = (net.world.now, 1 - first);
                let (node, remote) = (net.names[first].clone(), net.world.hosts[first].address);
                if let Ok(dial) = net.world.hosts[second].endpoint.connect_dist(now, node, remote, "node") {
                    dials.push((second, dial));
                    both += 1;
                }
                net.world.run_for(Duration::from_secs(10));
                talk(&mut net);
                for host in [0, 1] {
                    assert_eq!(net.world.hosts[host].endpoint.dist_nodes().len(), 1);
                }
                let kept = dials.iter().filter(|(host, dial)| {
                    let downs = net.rest((*host, *dial));
                    !downs.iter().any(|event| matches!(event, DistEvent::Down { .. }))
                });
                assert_eq!(kept.count(), 1, "one of the dials stays ({trouble} {later} {first})");
                let open = |host: usize| net.world.hosts[host].endpoint.dist_nodes()[0].1;
                let (a, b) = (open(0), open(1));
                let side = |host: usize, dist| net.world.hosts[host].endpoint.dist_info(dist).unwrap().side;
                assert_ne!(side(0, a), side(1, b), "both have the same one");
            }
        }
    }
    assert!(both > 80, "the dials do cross: {both}");
}

#[test]
fn a_node_that_comes_back_takes_the_place_of_its_earlier_connection() {
    let (mut net, a, _) = Net::linked(|_, _| {});
    net.world.hosts[1].alive = false;
    let again = net.add("b@h", crate::net::config("b@h"));
    let b = net.dial(again, 0);
    net.up(again);
    assert_eq!(net.down(a), DistEnd::Displaced);
    let new = net.up(0);
    assert_eq!(net.world.hosts[0].endpoint.dist_nodes(), [(atom("b@h"), new)]);
    let message = Bytes::from_static(b"back");
    assert_eq!(net.transfer((again, b), (0, new), &[(0, message.clone())]), [message]);
}

#[test]
fn a_node_that_moves_stays_connected() {
    let (mut net, a, b) = Net::linked(|_, _| {});
    net.world.run_for(Duration::from_secs(1));
    let moved = std::net::SocketAddr::from(([10, 0, 9, 9], 5555));
    net.world.hosts[0].address = moved;
    let message = Bytes::from_static(b"from elsewhere");
    assert_eq!(net.transfer(a, b, &[(0, message.clone())]), [message]);
    net.find(1, "the new address", |_, event| {
        (*event == DistEvent::PathChanged(moved)).then_some(())
    });
    assert_eq!(net.world.hosts[1].endpoint.dist_info(b.1).unwrap().remote, moved);
    net.world.run_for(Duration::from_secs(1));
    talk(&mut net);
}
