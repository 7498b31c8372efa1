//! Which clients a listener accepts.

use super::{Authority, NOW_MS, Pair, Side, YEAR_MS, client, clock, dial, node, raw_client, refused, server, stolen};
use crate::{
    WallClock,
    quic::tls::{ClientAuth, ClientCrypto, Credentials, ServerCrypto, Trust, handshake},
};

const CERTIFICATE_EXPIRED: u64 = 45;
const CERTIFICATE_UNKNOWN: u64 = 46;
const UNKNOWN_CA: u64 = 48;
const DECRYPT_ERROR: u64 = 51;
const CERTIFICATE_REQUIRED: u64 = 116;

fn listening(auth: ClientAuth) -> ServerCrypto {
    server(node(1)).client_auth(auth).build(&clock()).unwrap()
}

fn anonymous() -> ClientCrypto {
    client(Trust::Insecure).build(&clock()).unwrap()
}

fn showing(own: Credentials) -> ClientCrypto {
    client(Trust::Pins(vec![node(1).pin()]))
        .credentials(own)
        .build(&clock())
        .unwrap()
}

#[test]
fn an_unasked_client_shows_nothing() {
    let pair = dial(&showing(node(2)), &listening(ClientAuth::None), "relay.example").unwrap();
    assert_eq!(pair.server_info().peer_pin, None);
    assert!(handshake::peer_chain(&*pair.server).is_empty());
}

#[test]
fn a_request_may_go_unanswered_and_surfaces_the_pin_otherwise() {
    let listening = listening(ClientAuth::Request);
    let pair = dial(&anonymous(), &listening, "relay.example").unwrap();
    assert_eq!(pair.server_info().peer_pin, None);
    for own in [node(2), Authority::new(3).issue(4, "client.example")] {
        let pair = dial(&showing(own.clone()), &listening, "relay.example").unwrap();
        assert_eq!(pair.server_info().peer_pin, Some(own.pin()));
        assert_eq!(handshake::peer_chain(&*pair.server), own.chain());
    }
}

#[test]
fn required_pins_let_in_their_holders_only() {
    let listening = listening(ClientAuth::RequirePins(vec![node(2).pin(), node(3).pin()]));
    for seed in [2, 3] {
        let pair = dial(&showing(node(seed)), &listening, "relay.example").unwrap();
        assert_eq!(pair.server_info().peer_pin, Some(node(seed).pin()));
    }
    let refusal = refused(&showing(node(4)), &listening, "relay.example");
    refusal.assert(Side::Server, CERTIFICATE_UNKNOWN, &node(4).pin().to_string());
    refused(&anonymous(), &listening, "relay.example").assert(Side::Server, CERTIFICATE_REQUIRED, "");
}

#[test]
fn required_roots_let_in_whom_they_signed_and_while_it_is_valid() {
    let authority = Authority::new(2);
    let time = WallClock::new(NOW_MS);
    let auth = ClientAuth::RequireRoots(authority.roots());
    let listening = server(node(1)).client_auth(auth).build(&time).unwrap();
    let own = authority.issue(3, "client.example");
    let member = showing(own.clone());
    let pair = dial(&member, &listening, "relay.example").unwrap();
    assert_eq!(pair.server_info().peer_pin, Some(own.pin()));
    let stranger = Authority::new(4).issue(5, "client.example");
    refused(&showing(stranger), &listening, "relay.example").assert(Side::Server, UNKNOWN_CA, "UnknownIssuer");
    refused(&anonymous(), &listening, "relay.example").assert(Side::Server, CERTIFICATE_REQUIRED, "");
    time.set(NOW_MS + YEAR_MS);
    // The member that was let in before has no session left to come back with.
    refused(&member, &listening, "relay.example").assert(Side::Server, CERTIFICATE_EXPIRED, "expired");
}

#[test]
fn a_client_certificate_is_worthless_without_its_key() {
    let thief = raw_client(stolen(&node(2), &node(3)));
    for auth in [ClientAuth::Request, ClientAuth::RequirePins(vec![node(2).pin()])] {
        let listening = listening(auth);
        refused(&thief, &listening, "relay.example").assert(Side::Server, DECRYPT_ERROR, "BadSignature");
    }
}

#[test]
fn a_refused_client_never_counts_as_established() {
    let listening = listening(ClientAuth::RequirePins(vec![node(2).pin()]));
    let mut pair = Pair::start(&showing(node(4)), &listening, "relay.example");
    assert!(pair.run().is_err());
    assert!(pair.server.is_handshaking());
}
