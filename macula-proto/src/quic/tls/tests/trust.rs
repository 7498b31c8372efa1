//! Which servers a dialler accepts.

use rcgen::{CertificateParams, CustomExtension};
use rustls::sign::CertifiedKey;

use super::{
    Authority, NOW_MS, Side, YEAR_MS, client, clock, dial, key_pair, named, node, raw_server, refused, server, stolen,
};
use crate::{
    WallClock,
    quic::{
        alpn::{ERLANG_DIST, MACULA, MACULA_DIST},
        tls::{CertificateDer, Credentials, MAX_PEER_CHAIN, Pin, ServerTls, Trust, certificates_from_pem, handshake},
    },
};

const UNKNOWN_CA: u64 = 48;
const CERTIFICATE_EXPIRED: u64 = 45;
const CERTIFICATE_UNKNOWN: u64 = 46;
const BAD_CERTIFICATE: u64 = 42;
const DECRYPT_ERROR: u64 = 51;
const NO_APPLICATION_PROTOCOL: u64 = 120;

#[test]
fn a_pin_accepts_its_certificate_without_a_name() {
    let own = node(1);
    let listening = server(own.clone()).build(&clock()).unwrap();
    let dialling = client(Trust::Pins(vec![node(9).pin(), own.pin()]))
        .build(&clock())
        .unwrap();
    for name in ["relay.example", "127.0.0.1", "::1"] {
        let pair = dial(&dialling, &listening, name).unwrap();
        assert_eq!(pair.client_info().peer_pin, Some(own.pin()));
        assert_eq!(handshake::peer_chain(&*pair.client), own.chain());
        assert_eq!(pair.client_info().alpn.as_deref(), Some(MACULA_DIST));
        assert_eq!(pair.server_info().alpn.as_deref(), Some(MACULA_DIST));
        assert_eq!(pair.server_info().peer_pin, None);
    }
}

#[test]
fn an_address_sends_no_server_name() {
    let listening = server(node(1)).build(&clock()).unwrap();
    let dialling = client(Trust::Insecure).build(&clock()).unwrap();
    let cases = [
        ("relay.example", Some("relay.example")),
        ("127.0.0.1", None),
        ("::1", None),
    ];
    for (dialled, seen) in cases {
        let pair = dial(&dialling, &listening, dialled).unwrap();
        assert_eq!(pair.server_info().server_name.as_deref(), seen);
    }
}

#[test]
fn another_certificate_than_the_pinned_one_is_refused_by_its_pin() {
    let listening = server(node(1)).build(&clock()).unwrap();
    let dialling = client(Trust::Pins(vec![node(2).pin()])).build(&clock()).unwrap();
    let refusal = refused(&dialling, &listening, "relay.example");
    refusal.assert(Side::Client, CERTIFICATE_UNKNOWN, &node(1).pin().to_string());
}

#[test]
fn a_pinned_certificate_is_worthless_without_its_key() {
    let listening = raw_server(stolen(&node(1), &node(2)));
    for trust in [
        Trust::Pins(vec![node(1).pin()]),
        Trust::Insecure,
        Trust::Roots(named(1, &["relay.example"]).chain().to_vec()),
    ] {
        let dialling = client(trust.clone()).build(&clock()).unwrap();
        let refusal = refused(&dialling, &listening, "relay.example");
        assert_eq!(refusal.by, Side::Client);
        if !matches!(trust, Trust::Roots(_)) {
            refusal.assert(Side::Client, DECRYPT_ERROR, "BadSignature");
        }
    }
    let named_thief = raw_server(stolen(&named(1, &["relay.example"]), &node(2)));
    let trust = Trust::Roots(named(1, &["relay.example"]).chain().to_vec());
    let dialling = client(trust).build(&clock()).unwrap();
    refused(&dialling, &named_thief, "relay.example").assert(Side::Client, DECRYPT_ERROR, "BadSignature");
}

#[test]
fn insecure_accepts_every_readable_certificate() {
    for own in [
        node(1),
        named(2, &["elsewhere.example"]),
        Authority::new(3).issue(4, "x.example"),
    ] {
        let pin = own.pin();
        let listening = server(own).build(&clock()).unwrap();
        let dialling = client(Trust::Insecure).build(&clock()).unwrap();
        let pair = dial(&dialling, &listening, "relay.example").unwrap();
        assert_eq!(pair.client_info().peer_pin, Some(pin));
    }
}

#[test]
fn roots_accept_what_they_signed_for_the_name_dialled() {
    let authority = Authority::new(1);
    let listening = server(authority.issue(2, "relay.example")).build(&clock()).unwrap();
    let dialling = client(Trust::Roots(authority.roots())).build(&clock()).unwrap();
    dial(&dialling, &listening, "relay.example").unwrap();
    refused(&dialling, &listening, "other.example").assert(Side::Client, BAD_CERTIFICATE, "not valid for name");
    refused(&dialling, &listening, "127.0.0.1").assert(Side::Client, BAD_CERTIFICATE, "not valid for name");

    let by_address = server(authority.issue(3, "127.0.0.1")).build(&clock()).unwrap();
    dial(&dialling, &by_address, "127.0.0.1").unwrap();
    refused(&dialling, &by_address, "127.0.0.2").assert(Side::Client, BAD_CERTIFICATE, "not valid for name");
}

#[test]
fn roots_refuse_what_others_signed() {
    let listening = server(Authority::new(1).issue(2, "relay.example"))
        .build(&clock())
        .unwrap();
    let strangers = [Authority::new(3).roots(), node(4).chain().to_vec()];
    for roots in strangers {
        let dialling = client(Trust::Roots(roots)).build(&clock()).unwrap();
        refused(&dialling, &listening, "relay.example").assert(Side::Client, UNKNOWN_CA, "UnknownIssuer");
    }
    let alone = server(named(5, &["relay.example"])).build(&clock()).unwrap();
    let dialling = client(Trust::Roots(Authority::new(1).roots())).build(&clock()).unwrap();
    refused(&dialling, &alone, "relay.example").assert(Side::Client, UNKNOWN_CA, "UnknownIssuer");
}

#[test]
fn a_self_signed_certificate_can_be_its_own_root() {
    let own = named(1, &["relay.example", "::1"]);
    let trust = Trust::roots_from_pem(own.chain_to_pem().as_bytes()).unwrap();
    let listening = server(own).build(&clock()).unwrap();
    let dialling = client(trust).build(&clock()).unwrap();
    dial(&dialling, &listening, "relay.example").unwrap();
    dial(&dialling, &listening, "::1").unwrap();
    refused(&dialling, &listening, "other.example").assert(Side::Client, BAD_CERTIFICATE, "not valid for name");
}

#[test]
fn validity_follows_the_clock_that_was_handed_in() {
    let authority = Authority::new(1);
    let clock = WallClock::new(NOW_MS - YEAR_MS);
    let listening = server(authority.issue(2, "relay.example")).build(&clock).unwrap();
    // Without resumption, so that each handshake judges the certificate anew.
    let dialling = client(Trust::Roots(authority.roots()))
        .resumable_servers(0)
        .build(&clock)
        .unwrap();
    refused(&dialling, &listening, "relay.example").assert(Side::Client, CERTIFICATE_EXPIRED, "not valid yet");
    clock.set(NOW_MS);
    dial(&dialling, &listening, "relay.example").unwrap();
    clock.set(NOW_MS + YEAR_MS);
    refused(&dialling, &listening, "relay.example").assert(Side::Client, CERTIFICATE_EXPIRED, "expired");
    clock.set(0);
    refused(&dialling, &listening, "relay.example").assert(Side::Client, CERTIFICATE_EXPIRED, "not valid yet");
}

#[test]
fn protocols_without_a_common_name_do_not_meet() {
    let listening = ServerTls::new(node(1))
        .alpn([MACULA, MACULA_DIST])
        .build(&clock())
        .unwrap();
    let dialling = client(Trust::Insecure);
    let stranger = dialling.clone().alpn([ERLANG_DIST]).build(&clock()).unwrap();
    refused(&stranger, &listening, "relay.example").assert(Side::Server, NO_APPLICATION_PROTOCOL, "known protocol");
    let pair = dial(&dialling.build(&clock()).unwrap(), &listening, "relay.example").unwrap();
    assert_eq!(pair.server_info().alpn.as_deref(), Some(MACULA_DIST));
}

#[test]
fn a_certificate_of_version_1_is_refused_with_a_reason() {
    let old = certificates_from_pem(include_bytes!("data/v1_cert.pem")).unwrap();
    let key = Credentials::from_pem_pair(include_bytes!("data/ec_cert.pem"), include_bytes!("data/ec_sec1.pem"));
    let pin = Pin::of(&old[0]);
    let listening = raw_server(CertifiedKey::new(old, key.unwrap().certified().key.clone()).into());
    for trust in [Trust::Insecure, Trust::Pins(vec![pin])] {
        let dialling = client(trust).build(&clock()).unwrap();
        let refusal = refused(&dialling, &listening, "relay.example");
        refusal.assert(Side::Client, CERTIFICATE_UNKNOWN, "X.509 version 3 is needed");
    }
}

#[test]
fn an_oversized_chain_is_refused_unread() {
    let key = key_pair(1);
    let mut params = CertificateParams::default();
    let filler = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![4, 0]);
    params.custom_extensions = vec![filler];
    let leaf: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let fits = MAX_PEER_CHAIN - leaf.len();
    let certified = Credentials::from_der(vec![leaf.clone()], key.serialized_der())
        .unwrap()
        .certified();
    for (extra, accepted) in [(fits, true), (fits + 1, false)] {
        let chain = vec![leaf.clone(), CertificateDer::from(vec![0; extra])];
        let listening = raw_server(CertifiedKey::new(chain, certified.key.clone()).into());
        let dialling = client(Trust::Insecure).build(&clock()).unwrap();
        match accepted {
            true => assert_eq!(
                dial(&dialling, &listening, "relay.example")
                    .unwrap()
                    .client_info()
                    .peer_pin,
                Some(Pin::of(&leaf))
            ),
            false => {
                refused(&dialling, &listening, "relay.example").assert(Side::Client, CERTIFICATE_UNKNOWN, "16385 bytes")
            }
        }
    }
}
