//! Clients against a relay.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Event,
    quic::{self, DatagramMeta, Dir, alpn},
    tunnel::relay::{Refusal, RelayConfig, Report, Takeover, TunnelCloseReason},
    wire::control::{Message, Reason, TunnelId},
};

use crate::{
    attacker::{Scene, closed, frame, request},
    world::{self, pattern},
};

#[test]
fn garbage_datagrams_are_ignored_and_counted() {
    let mut scene = Scene::new();
    let before = scene.endpoint_stats();
    for round in 0..100u64 {
        for number in 0..20u64 {
            let seed = round * 20 + number;
            let mut bytes = pattern((seed * 37 % 1500) as usize, seed);
            // A third of it looks like the first packet of a QUIC version 1 connection, a third like a later packet.
            match (seed % 3, bytes.len()) {
                (0, 6..) => {
                    bytes[0] = 0xc0 | (bytes[0] & 0x0f);
                    bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
                }
                (1, 1..) => bytes[0] = 0x40 | (bytes[0] & 0x3f),
                _ => {}
            }
            let from = SocketAddr::from(([10, 9, round as u8, number as u8], 1000));
            let now = scene.world.now;
            let relay = &mut scene.world.hosts[scene.relay].endpoint;
            relay.handle_datagram(now, DatagramMeta::from(from), BytesMut::from(&bytes[..]));
        }
        scene.tick();
    }
    let after = scene.endpoint_stats();
    let ignored = after.datagrams_ignored - before.datagrams_ignored;
    assert!(ignored >= 1500, "{ignored} of 2,000 were ignored");
    assert_eq!(after.accepted, before.accepted);
    scene.nothing_is_left();
}

#[test]
fn a_wrong_protocol_is_told_so_in_the_handshake() {
    let mut scene = Scene::new();
    let before = scene.endpoint_stats().handshakes_failed;
    for _ in 0..50 {
        let (host, conn) = scene.dial(b"h3", world::transport());
        scene.tick();
        let reason = closed(&mut scene.world, host, conn);
        assert_eq!(reason.tls_alert(), Some(120), "{reason}");
    }
    assert_eq!(scene.endpoint_stats().handshakes_failed, before + 50);
    assert_eq!(scene.stats().connections, 2);
    scene.nothing_is_left();
}

#[test]
fn a_control_message_that_announces_a_huge_length_closes_at_once() {
    let mut scene = Scene::new();
    for (number, length) in [u32::MAX, 1 << 31, 4097].into_iter().enumerate() {
        let raw = scene.attack();
        raw.say(&mut scene.world, &length.to_be_bytes());
        scene.tick();
        let told = raw.closed_with(&mut scene.world);
        assert_eq!(told, (Code::PROTOCOL, "control message too long".into()));
        assert_eq!(scene.stats().malformed, number as u64 + 1);
    }
    scene.nothing_is_left();
}

#[test]
fn malformed_control_messages_are_tolerated_up_to_a_budget() {
    let mut scene = Scene::new();
    let bomb = [&4096u32.to_be_bytes()[..], &[0x91; 4096]].concat();
    let cbor_bomb = [&4096u32.to_be_bytes()[..], &[0x81; 4096]].concat();
    let garbage = [&9u32.to_be_bytes()[..], b"\xff\x00garbage"].concat();
    let empty = 0u32.to_be_bytes().to_vec();
    let mut raw = scene.attack();
    for bad in [&bomb, &cbor_bomb, &garbage, &empty] {
        for _ in 0..4 {
            raw.say(&mut scene.world, bad);
        }
        scene.tick();
    }
    // What is sound still counts, up to the last.
    raw.identify(&mut scene.world, "mallory");
    assert_eq!(raw.hear(&mut scene.world), Message::Identified);
    raw.say(&mut scene.world, &garbage);
    let told = raw.closed_with(&mut scene.world);
    assert_eq!(told, (Code::PROTOCOL, "too many malformed control messages".into()));
    assert_eq!(scene.stats().malformed, 17);

    // Messages that only a relay may send are no better.
    let raw = scene.attack();
    for _ in 0..17 {
        raw.message(&mut scene.world, &Message::Identified);
    }
    assert_eq!(raw.closed_with(&mut scene.world).0, Code::PROTOCOL);
    assert_eq!(scene.stats().unexpected, 17);
    scene.nothing_is_left();
}

#[test]
fn half_open_handshakes_keep_nobody_out() {
    let mut scene = Scene::new();
    // A thousand first packets from a thousand addresses, and not a word more.
    let mut buf = Vec::new();
    let now = scene.world.now;
    for number in 0..1000u32 {
        let (host, conn) = scene.dial(alpn::MACULA_DIST, world::transport());
        let endpoint = &mut scene.world.hosts[host].endpoint;
        let [_, _, high, low] = number.to_be_bytes();
        let from = SocketAddr::from(([10, 8, high, low], 1000));
        let mut first = Vec::new();
        loop {
            buf.clear();
            let Some(transmit) = endpoint.poll_transmit(now, NonZeroUsize::MIN, &mut buf) else {
                break;
            };
            first.push(buf[..transmit.size].to_vec());
        }
        endpoint
            .quic()
            .connection(conn)
            .unwrap()
            .close(now, Code::CANCELLED, Bytes::new());
        // The farewell is not sent.
        while endpoint.poll_transmit(now, NonZeroUsize::MIN, &mut buf).is_some() {
            buf.clear();
        }
        let relay = &mut scene.world.hosts[scene.relay].endpoint;
        for datagram in first {
            relay.handle_datagram(now, DatagramMeta::from(from), BytesMut::from(&datagram[..]));
        }
    }
    let stats = scene.endpoint_stats();
    // Beyond 256 an address has to prove itself before it costs anything.
    assert_eq!((stats.handshaking, stats.retries), (256, 744));
    scene.tick();
    let raw = scene.identified("carol");
    scene.tick();
    assert_eq!(scene.endpoint_stats().handshaking, 256, "carol came in meanwhile");
    raw.close(&mut scene.world);
    scene.world.run_for(Duration::from_secs(11));
    let stats = scene.endpoint_stats();
    assert_eq!((stats.handshaking, stats.handshakes_failed), (0, 256));
    scene.nothing_is_left();
}

#[test]
fn who_never_identifies_is_closed_after_ten_seconds() {
    let mut scene = Scene::new();
    let silent: Vec<_> = (0..50).map(|_| scene.attack()).collect();
    let slow = scene.attack();
    let begin = scene.world.now.mono;
    // One of them says its name a byte a second.
    let name = "a name that takes long to say".into();
    for byte in &frame(&Message::Identify { name })[..9] {
        slow.say(&mut scene.world, &[*byte]);
        scene.tick();
        scene.world.run_for(Duration::from_millis(1000));
    }
    for raw in silent.iter().chain([&slow]) {
        let told = raw.closed_with(&mut scene.world);
        assert_eq!(told, (Code::TIMEOUT, "not identified in time".into()));
    }
    let took = scene.world.now.mono - begin;
    assert!(took < Duration::from_millis(11_000), "{took:?}");
    assert_eq!(scene.stats().identify_timeouts, 51);
    scene.nothing_is_left();
}

#[test]
fn a_flood_of_requests_is_answered_busy() {
    let mut scene = Scene::new();
    let mut raw = scene.identified("mallory");
    let flood: Vec<u8> = (0..100).flat_map(|_| frame(&request("nobody"))).collect();
    let mut answers = [0, 0];
    for _ in 0..30 {
        raw.say(&mut scene.world, &flood);
        for _ in 0..100 {
            match raw.hear(&mut scene.world) {
                Message::TunnelError {
                    reason: Reason::TargetNotConnected,
                } => answers[0] += 1,
                Message::TunnelError { reason: Reason::Busy } => answers[1] += 1,
                other => panic!("{other:?}"),
            }
        }
        scene.tick();
    }
    assert!(answers[0] >= 999 && answers[1] > 500, "{answers:?}");
    let stats = scene.stats();
    assert_eq!(stats.rate_limited, answers[1]);
    assert_eq!(stats.refused[Refusal::Busy as usize], answers[1]);
    // Once it is quiet again it may go on.
    scene.world.run_for(Duration::from_secs(3));
    raw.message(&mut scene.world, &request("nobody"));
    assert_eq!(
        raw.hear(&mut scene.world),
        Message::TunnelError {
            reason: Reason::TargetNotConnected
        }
    );
    raw.close(&mut scene.world);
    scene.nothing_is_left();
}

#[test]
fn who_does_not_read_its_answers_is_closed() {
    let mut scene = Scene::new();
    let mut transport = world::transport();
    transport.stream_window = 1000;
    let raw = scene.attack_with(transport);
    raw.identify(&mut scene.world, "mallory");
    let flood: Vec<u8> = (0..3000).flat_map(|_| frame(&request("nobody"))).collect();
    raw.say(&mut scene.world, &flood);
    scene.tick();
    let told = raw.closed_with(&mut scene.world);
    assert_eq!(told, (Code::LIMIT, "control messages are not read".into()));
    scene.nothing_is_left();
}

#[test]
fn floods_of_other_messages_close_or_are_counted() {
    let mut scene = Scene::new();
    let raw = scene.attack();
    for _ in 0..1100 {
        raw.identify(&mut scene.world, "mallory");
    }
    let told = raw.closed_with(&mut scene.world);
    assert_eq!(told, (Code::LIMIT, "too many control messages".into()));
    assert_eq!(scene.stats().rate_limited, 1);
    let raw = scene.identified("mallory");
    let tunnel = TunnelId::from_bytes([b'A'; 32]);
    let flood: Vec<u8> = (0..1000)
        .flat_map(|_| frame(&Message::TunnelClose { tunnel }))
        .collect();
    for _ in 0..10 {
        raw.say(&mut scene.world, &flood);
        scene.tick();
    }
    assert_eq!(scene.stats().stray_closes, 10_000);
    raw.close(&mut scene.world);
    scene.nothing_is_left();
}

#[test]
fn who_grants_no_streams_holds_nobody_else_s() {
    let mut scene = Scene::new();
    let mut transport = world::transport();
    transport.max_bidi_streams = 0;
    let raw = scene.attack_with(transport);
    raw.identify(&mut scene.world, "mallory");
    let flood: Vec<u8> = (0..1500).flat_map(|_| frame(&request("bob"))).collect();
    raw.say(&mut scene.world, &flood);
    scene.tick();
    let pending = scene.world.hosts[scene.relay].endpoint.relay_status().unwrap();
    let pending = pending.connections.iter().map(|conn| conn.pending).max();
    assert!(
        pending >= Some(999) && pending <= Some(1024),
        "{pending:?} requests wait"
    );
    // Another node gets its tunnel to the same target, and soon.
    let begin = scene.world.now.mono;
    let wanted = scene.world.open(scene.alice, "bob");
    let near = (scene.alice.0, scene.world.opened(scene.alice.0, wanted));
    let (_, conn, stream) = scene.world.incoming(scene.bob.0);
    let took = scene.world.now.mono - begin;
    assert!(took < Duration::from_secs(1), "a tunnel took {took:?} to open");
    for (host, end) in [near, (scene.bob.0, (conn, stream))] {
        scene.world.with(host, end, |stream| stream.abort(Code::CLOSED));
    }
    scene.world.run_for(Duration::from_secs(6));
    assert!(scene.stats().refused[Refusal::StreamLimit as usize] >= 999);
    raw.close(&mut scene.world);
    scene.nothing_is_left();
}

#[test]
fn streams_that_a_client_may_not_open_are_refused() {
    let mut scene = Scene::new();
    let raw = scene.identified("mallory");
    let mut opened = 0;
    while opened <= 64 {
        for dir in [Dir::Bi, Dir::Uni] {
            if let Some(stream) = raw.open(&mut scene.world, dir) {
                // Half of a tunnel's prefix, as if it were one.
                raw.write(&mut scene.world, stream, &[b'A'; 16]);
                opened += 1;
                if opened <= 64 {
                    let code = scene.world.find(raw.host, "the refusal", |event| match event {
                        Event::Quic(quic::Event::Stopped {
                            stream: found, code, ..
                        }) if *found == stream => Some(*code),
                        _ => None,
                    });
                    assert_eq!(code, Code::REFUSED);
                }
            }
        }
        scene.tick();
    }
    assert_eq!(
        raw.closed_with(&mut scene.world),
        (Code::LIMIT, "too many streams".into())
    );
    let refused = scene.stats().extra_streams;
    assert!((65..=66).contains(&refused), "{refused}");
    scene.nothing_is_left();
}

#[test]
fn resetting_the_control_stream_ends_the_connection_and_its_tunnels() {
    let mut scene = Scene::new();
    let mut raw = scene.identified("mallory");
    raw.message(&mut scene.world, &request("bob"));
    assert!(matches!(raw.hear(&mut scene.world), Message::TunnelOk { .. }));
    let (_, conn, stream) = scene.world.incoming(scene.bob.0);
    scene
        .world
        .with(raw.host, (raw.conn, raw.control), |stream| stream.reset(Code::INTERNAL))
        .unwrap();
    let told = raw.closed_with(&mut scene.world);
    assert_eq!(told, (Code::PROTOCOL, "control stream reset".into()));
    let code = scene
        .world
        .find(scene.bob.0, "the end of the tunnel", |event| match event {
            Event::Quic(quic::Event::Reset {
                conn: c,
                stream: s,
                code,
            }) if (*c, *s) == (conn, stream) => Some(*code),
            _ => None,
        });
    assert_eq!(code, Code::PEER_GONE);
    scene.nothing_is_left();
}

#[test]
fn tunnels_that_are_reset_at_once_leave_nothing() {
    let mut scene = Scene::new();
    let raw = scene.identified("mallory");
    let code = Code::new(77).unwrap();
    let mut reset = 0;
    for round in 0..20 {
        let flood: Vec<u8> = (0..10).flat_map(|_| frame(&request("bob"))).collect();
        raw.say(&mut scene.world, &flood);
        let mut seen = 0;
        while seen < 10 {
            scene.tick();
            for stream in raw.accepted(&mut scene.world) {
                let end = (raw.conn, stream);
                // Before or after its first bytes are read, in turns.
                if round % 2 == 0 {
                    let _ = scene.world.with(raw.host, end, |stream| stream.read_chunk(40));
                }
                scene.world.with(raw.host, end, |stream| stream.abort(code));
                seen += 1;
            }
        }
        reset += seen;
        scene.tick();
    }
    scene.world.run_for(Duration::from_millis(500));
    let ended = scene.world.hosts[scene.relay].events.iter().filter(|event| {
        matches!(event, Event::Relay(Report::TunnelClosed { reason: TunnelCloseReason::Reset(found), .. }) if *found == code)
    });
    assert_eq!((reset, ended.count()), (200, 200));
    assert_eq!(scene.stats().tunnels_closed, 200);
    raw.close(&mut scene.world);
    // Bob was told of each, with the code.
    let seen = scene.world.hosts[scene.bob.0]
        .events
        .iter()
        .filter(|event| matches!(event, Event::Quic(quic::Event::Reset { code: found, .. }) if *found == code));
    let seen = seen.count();
    assert!(seen >= 100, "bob saw {seen} resets");
    scene.nothing_is_left();
}

#[test]
fn names_are_limited_in_number_and_length() {
    let mut scene = Scene::new();
    let mut raw = scene.attack();
    for number in 0..8 {
        raw.identify(&mut scene.world, &format!("name-{number}"));
        assert_eq!(raw.hear(&mut scene.world), Message::Identified);
    }
    scene.tick();
    raw.identify(&mut scene.world, "name-8");
    let told = raw.closed_with(&mut scene.world);
    assert_eq!(told, (Code::LIMIT, "too many names on one connection".into()));
    let raw = scene.attack();
    raw.identify(&mut scene.world, &"n".repeat(256));
    let told = raw.closed_with(&mut scene.world);
    assert_eq!(told, (Code::PROTOCOL, "node name too long".into()));
    let raw = scene.attack();
    raw.identify(&mut scene.world, "");
    assert_eq!(
        raw.closed_with(&mut scene.world),
        (Code::PROTOCOL, "empty node name".into())
    );
    assert_eq!(scene.stats().identify_refused, 3);
    scene.nothing_is_left();
}

#[test]
fn a_name_that_is_fought_for_has_one_holder() {
    let mut scene = Scene::new();
    let mut holder = scene.identified("prize");
    for _ in 0..100 {
        let next = scene.identified("prize");
        let told = holder.closed_with(&mut scene.world);
        assert_eq!(told, (Code::DISPLACED, "name taken over by a newer connection".into()));
        holder = next;
        scene.tick();
    }
    assert_eq!(scene.stats().displaced, 100);
    holder.close(&mut scene.world);
    scene.nothing_is_left();
}

#[test]
fn a_name_cannot_be_taken_where_that_is_refused() {
    let mut scene = Scene::with(RelayConfig {
        takeover: Takeover::Refuse,
        ..RelayConfig::default()
    });
    for _ in 0..20 {
        let raw = scene.attack();
        raw.identify(&mut scene.world, "bob");
        let told = raw.closed_with(&mut scene.world);
        assert_eq!(
            told,
            (Code::NOT_ALLOWED, "the name is held by another connection".into())
        );
        scene.tick();
    }
    assert_eq!((scene.stats().identify_refused, scene.stats().displaced), (20, 0));
    scene.nothing_is_left();
}
