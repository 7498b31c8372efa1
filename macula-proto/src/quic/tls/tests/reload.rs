//! Exchanging credentials while a listener runs.

use super::{Pair, client, clock, dial, node, refused, server};
use crate::quic::tls::{Reloadable, Trust};

#[test]
fn new_handshakes_show_the_new_certificate_and_old_connections_go_on() {
    let reloadable = Reloadable::new(node(1));
    let listening = crate::quic::tls::ServerTls::new(reloadable.clone()).alpn([crate::quic::alpn::MACULA_DIST]);
    let listening = listening.build(&clock()).unwrap();
    let trusting_old = client(Trust::Pins(vec![node(1).pin()])).build(&clock()).unwrap();
    let trusting_new = client(Trust::Pins(vec![node(2).pin()])).build(&clock()).unwrap();

    let mut old = dial(&trusting_old, &listening, "relay.example").unwrap();
    refused(&trusting_new, &listening, "relay.example");

    assert_eq!(reloadable.replace(node(2)).pin(), node(1).pin());
    assert_eq!(reloadable.current().pin(), node(2).pin());
    let new = dial(&trusting_new, &listening, "relay.example").unwrap();
    assert_eq!(new.client_info().peer_pin, Some(node(2).pin()));

    old.assert_established();
    assert_eq!(old.client_info().peer_pin, Some(node(1).pin()));
    assert!(old.client.next_1rtt_keys().is_some() && old.server.next_1rtt_keys().is_some());
}

#[test]
fn a_replaced_certificate_cannot_live_on_in_resumed_sessions() {
    let tls = server(node(1));
    let listening = tls.build(&clock()).unwrap();
    let dialling = client(Trust::Pins(vec![node(1).pin()])).build(&clock()).unwrap();
    dial(&dialling, &listening, "relay.example").unwrap();
    // A session is at hand, and would need no certificate.
    tls.credentials().replace(node(2));
    refused(&dialling, &listening, "relay.example");
}

#[test]
fn a_handshake_under_way_keeps_what_it_has_shown() {
    let tls = server(node(1));
    let listening = tls.build(&clock()).unwrap();
    let dialling = client(Trust::Insecure).build(&clock()).unwrap();
    let mut pair = Pair::start(&dialling, &listening, "relay.example");
    super::carry(&mut pair.client, &mut pair.server, super::Side::Server).unwrap();
    tls.credentials().replace(node(2));
    pair.run().unwrap();
    pair.assert_established();
    assert_eq!(pair.client_info().peer_pin, Some(node(1).pin()));
}
