//! The TLS settings as a caller sees them.

#![cfg(feature = "self-signed")]

use macula_proto::{
    WallClock,
    quic::{
        alpn::MACULA_DIST,
        tls::{
            CertificateDer, ClientAuth, ClientTls, Credentials, ParsePinError, Pin, SelfSigned, ServerTls, TlsError,
            Trust, server_name,
        },
    },
};

fn node() -> Credentials {
    Credentials::self_signed(&[1; 32], &SelfSigned::default()).unwrap()
}

#[test]
fn pins_are_read_in_every_usual_form() {
    let lower = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
    let upper = lower.to_uppercase();
    let pairs: Vec<_> = upper
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap())
        .collect();
    let colons = pairs.join(":");
    let mut expected = [0; 32];
    for (byte, pair) in expected.iter_mut().zip(&pairs) {
        *byte = u8::from_str_radix(pair, 16).unwrap();
    }
    for text in [lower, &upper, &colons, &colons.to_lowercase()] {
        let pin: Pin = text.parse().unwrap();
        assert_eq!(pin.as_bytes(), &expected);
        assert_eq!(pin.to_string(), lower);
        assert_eq!(format!("{pin:?}"), format!("Pin({lower})"));
    }
}

#[test]
fn what_is_no_pin_is_refused_with_the_place() {
    let pin = "ab".repeat(32);
    let colon = |position| ParsePinError::Colon { position };
    let cases = [
        (String::new(), ParsePinError::Length { digits: 0 }),
        ("ab".into(), ParsePinError::Length { digits: 2 }),
        (pin[1..].into(), ParsePinError::Length { digits: 63 }),
        (format!("{pin}a"), ParsePinError::Length { digits: 65 }),
        ("ab".repeat(5000), ParsePinError::Length { digits: 65 }),
        (format!(":{pin}"), colon(1)),
        (format!("{pin}:"), colon(65)),
        (format!("a:b{}", &pin[2..]), colon(2)),
        (format!("ab::{}", &pin[2..]), colon(4)),
        (
            format!("{}g", &pin[1..]),
            ParsePinError::Character {
                found: 'g',
                position: 64,
            },
        ),
        (
            format!(" {pin}"),
            ParsePinError::Character {
                found: ' ',
                position: 1,
            },
        ),
        (
            format!("ab\u{e9}{pin}"),
            ParsePinError::Character {
                found: '\u{e9}',
                position: 3,
            },
        ),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Pin>(), Err(error), "{text:.80}");
    }
}

#[test]
fn a_pin_is_the_digest_of_the_der() {
    // SHA-256 of "abc", from FIPS 180-2.
    let pin = Pin::of(&CertificateDer::from(b"abc".to_vec()));
    assert_eq!(
        pin.to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(node().pin(), Pin::of(&node().chain()[0]));
}

#[test]
fn host_text_becomes_a_server_name() {
    let good = [
        ("relay.example", "relay.example"),
        ("relay.example.", "relay.example"),
        ("relay_1.example", "relay_1.example"),
        ("localhost", "localhost"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%2]", "fe80::1"),
    ];
    for (host, name) in good {
        assert_eq!(server_name(host).as_deref(), Ok(name));
    }
    for host in [
        "",
        ".",
        "a b",
        "[::1",
        "[relay.example]",
        "-x.example",
        "b\u{fc}cher.example",
        "relay:4434",
        "1.2.3.4.5",
        "relay.example..",
    ] {
        assert_eq!(server_name(host), Err(TlsError::BadName(host.to_owned())));
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let clock = WallClock::new(0);
    let server = |tls: ServerTls| tls.build(&clock).map(|_| ()).unwrap_err();
    let client = |tls: ClientTls| tls.build(&clock).map(|_| ()).unwrap_err();
    let listening = ServerTls::new(node()).alpn([MACULA_DIST]);
    let dialling = |trust| ClientTls::new(trust).alpn([MACULA_DIST]);
    let bad_root = vec![CertificateDer::from(vec![0x30, 0])];

    assert_eq!(server(ServerTls::new(node())), TlsError::NoAlpn);
    assert_eq!(client(ClientTls::new(Trust::Insecure)), TlsError::NoAlpn);
    assert_eq!(server(listening.clone().alpn([""])), TlsError::BadAlpn { length: 0 });
    assert_eq!(
        client(dialling(Trust::Insecure).alpn([vec![b'x'; 256]])),
        TlsError::BadAlpn { length: 256 }
    );
    assert_eq!(client(dialling(Trust::Pins(Vec::new()))), TlsError::NoPins);
    assert_eq!(client(dialling(Trust::Roots(Vec::new()))), TlsError::NoRoots);
    assert!(matches!(
        client(dialling(Trust::Roots(bad_root.clone()))),
        TlsError::BadCertificate(_)
    ));
    let asking = |auth| listening.clone().client_auth(auth);
    assert_eq!(server(asking(ClientAuth::RequirePins(Vec::new()))), TlsError::NoPins);
    assert_eq!(server(asking(ClientAuth::RequireRoots(Vec::new()))), TlsError::NoRoots);
    assert!(matches!(
        server(asking(ClientAuth::RequireRoots(bad_root))),
        TlsError::BadCertificate(_)
    ));
    let eager = listening.clone().early_data(true).resumable_sessions(0);
    assert_eq!(server(eager), TlsError::EarlyDataWithoutResumption);
    let eager = asking(ClientAuth::RequireRoots(node().chain().to_vec())).early_data(true);
    assert_eq!(server(eager), TlsError::EarlyDataWithoutResumption);
    let eager = dialling(Trust::Insecure).early_data(true).resumable_servers(0);
    assert_eq!(client(eager), TlsError::EarlyDataWithoutResumption);
}

#[cfg(not(feature = "platform-roots"))]
#[test]
fn platform_roots_say_when_they_are_not_built() {
    let tls = ClientTls::new(Trust::Platform).alpn([MACULA_DIST]);
    assert_eq!(
        tls.build(&WallClock::new(0)).map(|_| ()),
        Err(TlsError::NoPlatformRoots)
    );
}

#[test]
fn clones_of_a_clock_share_its_time() {
    use std::time::{Duration, SystemTime};

    use quinn_proto::TimeSource;
    use rustls::time_provider::TimeProvider;

    let clock = WallClock::new(5);
    let other = clock.clone();
    assert_eq!(other.unix_ms(), 5);
    for ms in [1_748_779_200_123, 7, u64::MAX] {
        clock.set(ms);
        assert_eq!(other.unix_ms(), ms);
        assert_eq!(format!("{other:?}"), format!("WallClock({ms})"));
        assert_eq!(other.current_time().map(|time| time.as_secs()), Some(ms / 1000));
        let expected = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
        assert_eq!(other.now(), expected.unwrap_or(SystemTime::UNIX_EPOCH));
    }
}
