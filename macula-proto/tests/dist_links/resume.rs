//! Sessions that are resumed, for each node its own.

use std::time::Duration;

use macula_proto::{
    Code,
    endpoint::{DistEnd, DistId},
};

use crate::net::{Net, atom};

/// Whether a dial shows a ticket, and whether it was taken.
fn shows_ticket(net: &mut Net, dial: DistId) -> bool {
    let conn = net.world.hosts[0].endpoint.dist_info(dial).unwrap().connection;
    net.world.hosts[0]
        .endpoint
        .quic()
        .connection(conn)
        .unwrap()
        .has_early_data()
}

#[test]
fn a_node_that_was_there_is_dialled_with_its_ticket() {
    let (mut net, a, _) = Net::linked(|_, _| {});
    net.world.run_for(Duration::from_secs(1));
    let endpoint = &mut net.world.hosts[0].endpoint;
    endpoint.dist_close(net.world.now, a.1, Code::CLOSED);
    assert_eq!(net.down(a), DistEnd::Closed);
    net.world.run_for(Duration::from_secs(1));

    let again = net.dial(0, 1);
    assert!(shows_ticket(&mut net, again));
    net.up(0);
    let conn = net.world.hosts[0].endpoint.dist_info(again).unwrap().connection;
    let connection = net.world.hosts[0].endpoint.quic();
    assert!(
        connection.connection(conn).unwrap().accepted_early_data(),
        "the handshake was a resumed one"
    );

    // Another node has sessions of its own, whatever the name of its certificate is.
    let (now, remote) = (net.world.now, net.world.hosts[1].address);
    let endpoint = &mut net.world.hosts[0].endpoint;
    let other = endpoint.connect_dist(now, atom("c@h"), remote, "node").unwrap();
    assert!(!shows_ticket(&mut net, other));
}

#[test]
fn sessions_of_no_more_nodes_are_kept_than_may_be() {
    let (mut net, a, _) = Net::linked(|_, config| config.remembered = 1);
    net.world.run_for(Duration::from_secs(1));
    net.world.hosts[0].endpoint.dist_close(net.world.now, a.1, Code::CLOSED);
    assert_eq!(net.down(a), DistEnd::Closed);
    net.world.run_for(Duration::from_secs(1));
    let (now, remote) = (net.world.now, net.world.hosts[1].address);
    let endpoint = &mut net.world.hosts[0].endpoint;
    endpoint.connect_dist(now, atom("c@h"), remote, "node").unwrap();
    let again = net.dial(0, 1);
    assert!(!shows_ticket(&mut net, again));
}
