//! How connections begin and end.

#![cfg(feature = "self-signed")]

mod common;

use bytes::Bytes;
use common::{CLIENT, Fate, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code, Limits,
    quic::{
        Accept, Closable, CloseListener, CloseReason, ConnectError, DatagramSize, Dir, Endpoint, EndpointConfig, Event,
        ResetKey, Side, tls::Trust,
    },
};

fn closed(events: &[Event]) -> Vec<(CloseReason, bool)> {
    let ends = events.iter().filter_map(|event| match event {
        Event::Closed {
            reason, established, ..
        } => Some((reason.clone(), *established)),
        _ => None,
    });
    ends.collect()
}

#[test]
fn connected_is_told_on_both_sides() {
    let mut world = World::pair();
    world.link.mtu = 65_535;
    let config = world.dial_config(SERVER);
    let c = world.dial(&config);
    world.run_for(secs(5));
    let client = world.nodes[CLIENT].addr;
    let server = world.nodes[SERVER].addr;
    let alpn = Some(Bytes::from_static(common::ALPN));
    assert_eq!(
        world.take(CLIENT),
        [Event::Connected {
            conn: c,
            side: Side::Client,
            alpn: alpn.clone(),
            remote: server,
        }]
    );
    let events = world.take(SERVER);
    let [
        Event::Connected {
            conn: s,
            side,
            alpn: named,
            remote,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*side, named, *remote), (Side::Server, &alpn, client));
    let s = *s;
    for (node, conn) in [(CLIENT, c), (SERVER, s)] {
        let connection = world.nodes[node].ep.connection(conn).unwrap();
        assert!(connection.is_established() && !connection.is_closed());
        assert_eq!(connection.alpn(), alpn);
    }
    let (client, server) = (world.client().stats(), world.server().stats());
    assert_eq!(
        (client.dialled, client.accepted, client.handshaking, client.open),
        (1, 0, 0, 1)
    );
    assert_eq!(
        (server.dialled, server.accepted, server.handshaking, server.open),
        (0, 1, 0, 1)
    );
    assert_eq!(client.datagrams_sent, server.datagrams_received);
    assert_eq!(client.bytes_received, server.bytes_sent);
}

/// A closed connection takes no acknowledgements: were the close subject to congestion control, a peer to which a full
/// window is under way would never hear of it.
#[test]
fn a_close_gets_through_while_the_congestion_window_is_full() {
    for datagram_size in [DatagramSize::Minimum, DatagramSize::UpTo(65_000)] {
        let client = transport(|config| config.datagram_size = datagram_size);
        let (mut world, c, _) = World::connected_with(&client, &client);
        world.link.mtu = 65_535;
        world.run_for(secs(2));
        let mut conn = world.client().connection(c).unwrap();
        let stream = conn.open(Dir::Uni).unwrap();
        let bulk = pattern(1_000_000);
        conn.stream(stream).unwrap().write(&bulk).unwrap();
        // What the window takes leaves, and the rest waits.
        world.run_for(ms(1));
        let now = world.now;
        let mut conn = world.client().connection(c).unwrap();
        conn.close(now, Code::DRAINING, Bytes::from_static(b"so long"));
        world.run_for(ms(50));
        let peer = CloseReason::Peer {
            code: Code::DRAINING,
            reason: Bytes::from_static(b"so long"),
        };
        assert_eq!(closed(&world.take(SERVER)), [(peer, true)], "{datagram_size:?}");
    }
}

#[test]
fn a_close_carries_code_and_reason_from_either_side() {
    for closer in [CLIENT, SERVER] {
        let (mut world, c, s) = World::connected();
        let code = Code::new(0x4711).unwrap();
        let words = Bytes::from_static(b"good night");
        let now = world.now;
        let conn = [c, s][closer];
        let mut connection = world.nodes[closer].ep.connection(conn).unwrap();
        connection.close(now, code, words.clone());
        connection.close(now, Code::CLOSED, Bytes::new());
        assert!(connection.is_closed());
        world.run_for(ms(50));
        let local = CloseReason::Local {
            code,
            reason: words.clone(),
        };
        let peer = CloseReason::Peer { code, reason: words };
        assert_eq!(closed(&world.take(closer)), [(local, true)]);
        assert_eq!(closed(&world.take(1 - closer)), [(peer, true)]);
        world.run_to_rest();
        for node in [CLIENT, SERVER] {
            assert_eq!(world.nodes[node].ep.stats().closed, 1);
            let gone = world.nodes[node].ep.connection([c, s][node]);
            assert!(gone.is_err(), "the handle is stale");
        }
    }
}

#[test]
fn a_reason_longer_than_a_packet_is_cut() {
    let (mut world, c, _) = World::connected();
    let now = world.now;
    let long = Bytes::from(vec![b'x'; 10_000]);
    world.client().connection(c).unwrap().close(now, Code::CLOSED, long);
    world.run_for(ms(50));
    let ends = closed(&world.take(SERVER));
    let [(CloseReason::Peer { reason, .. }, true)] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert!((500..1500).contains(&reason.len()), "{}", reason.len());
}

#[test]
fn a_stale_handle_is_an_error_after_its_place_is_used_again() {
    let (mut world, old, _) = World::connected();
    let now = world.now;
    world.client().close_all(now, Code::CLOSED, &Bytes::new());
    world.run_to_rest();
    let config = world.dial_config(SERVER);
    let (new, _) = world.establish(&config);
    assert_ne!(old, new);
    assert_eq!(old.to_bits() & 0xffff_ffff, new.to_bits() & 0xffff_ffff, "same place");
    assert!(world.client().connection(old).is_err());
    world.client().release(old);
    assert!(world.client().connection(new).is_ok());
    assert_eq!(world.client().connections().collect::<Vec<_>>(), [new]);
}

#[test]
fn a_dial_ends_exactly_at_its_time_out() {
    let mut world = World::pair();
    world.link.fate = Box::new(|_| Fate::Drop);
    let mut config = world.dial_config(SERVER);
    config.handshake_timeout = ms(3_217);
    world.dial(&config);
    world.run_for(ms(3_216));
    assert_eq!(world.take(CLIENT), []);
    assert_eq!(world.client().stats().handshaking, 1);
    world.run_for(ms(1));
    assert_eq!(closed(&world.take(CLIENT)), [(CloseReason::HandshakeTimeout, false)]);
    world.run_to_rest();
    let stats = world.client().stats();
    assert_eq!((stats.handshakes_failed, stats.closed, stats.dialled), (1, 0, 0));
}

#[test]
fn a_half_open_handshake_ends_at_the_listeners_time_out() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.handshake_timeout = secs(2));
    // The client's second flight never arrives.
    let client = world.nodes[CLIENT].addr;
    let mut first = true;
    world.link.fate = Box::new(move |packet| {
        if packet.from != client || std::mem::take(&mut first) {
            Fate::Deliver
        } else {
            Fate::Drop
        }
    });
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(ms(1_900));
    assert_eq!(world.server().stats().handshaking, 1);
    world.run_for(secs(1));
    assert_eq!(closed(&world.take(SERVER)), [(CloseReason::HandshakeTimeout, false)]);
    let stats = world.server().stats();
    assert_eq!((stats.handshaking, stats.handshakes_failed, stats.accepted), (0, 1, 0));
}

#[test]
fn a_handshake_done_in_the_batch_before_its_time_out_counts() {
    let mut world = World::pair();
    world.link.delay = ms(500);
    let mut config = world.dial_config(SERVER);
    // The server's flight is handed in together with the time-out: drivers handle datagrams first.
    config.handshake_timeout = ms(1_000);
    let c = world.dial(&config);
    world.run_for(ms(3_000));
    assert_eq!(closed(&world.take(CLIENT)), []);
    assert!(world.client().connection(c).unwrap().is_established());
}

#[test]
fn another_protocol_is_alert_120_for_both() {
    let mut world = World::pair();
    let tls = world.client_tls(SERVER).alpn([b"other"]);
    let mut config = world.dial_config(SERVER);
    config.tls = tls.build(world.client().clock()).unwrap();
    world.dial(&config);
    world.run_for(ms(100));
    let ends = closed(&world.take(CLIENT));
    let [(reason @ CloseReason::PeerTransport { code: 0x178, .. }, false)] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert_eq!(reason.tls_alert(), Some(120));
    let events = world.take(SERVER);
    let [Event::IncomingFailed { remote, reason }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(*remote, world.nodes[CLIENT].addr);
    assert_eq!(reason.tls_alert(), Some(120));
    world.run_to_rest();
    let stats = world.server().stats();
    assert_eq!((stats.handshakes_failed, stats.accepted, stats.closed), (1, 0, 0));
}

#[test]
fn a_wrong_pin_is_refused_by_the_client_and_told_to_the_server() {
    let mut world = World::pair();
    let other = world.nodes[CLIENT].credentials.pin();
    let tls = macula_proto::quic::tls::ClientTls::new(Trust::Pins(vec![other])).alpn([common::ALPN]);
    let mut config = world.dial_config(SERVER);
    config.tls = tls.build(world.client().clock()).unwrap();
    world.dial(&config);
    world.run_for(ms(200));
    let ends = closed(&world.take(CLIENT));
    let [(reason @ CloseReason::Transport { .. }, false)] = &ends[..] else {
        panic!("{ends:?}")
    };
    let alert = reason.tls_alert();
    assert!(alert.is_some());
    let ends = closed(&world.take(SERVER));
    let [(reason @ CloseReason::PeerTransport { .. }, false)] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert_eq!(reason.tls_alert(), alert);
    world.run_to_rest();
}

#[test]
fn an_endpoint_that_does_not_listen_is_silent() {
    let mut world = World::new();
    world.add(Limits::default());
    world.add(Limits::default());
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_to_rest();
    assert_eq!(closed(&world.take(CLIENT)), [(CloseReason::HandshakeTimeout, false)]);
    assert_eq!(world.take(SERVER), []);
}

#[test]
fn dials_that_cannot_start_are_errors() {
    let mut world = World::pair();
    let config = world.dial_config(SERVER);
    let now = world.now;
    let zero = "192.0.2.2:0".parse().unwrap();
    let refused = world.client().connect(now, &config, zero, "localhost");
    assert_eq!(refused, Err(ConnectError::InvalidAddress(zero)));
    let to = world.nodes[SERVER].addr;
    let refused = world.client().connect(now, &config, to, "not a name");
    assert_eq!(refused, Err(ConnectError::InvalidServerName("not a name".into())));
    let mut bad = config.clone();
    bad.transport.idle_timeout = Some(secs(u64::MAX / 4));
    assert!(matches!(
        world.client().connect(now, &bad, to, "localhost"),
        Err(ConnectError::Config(_))
    ));
    assert_eq!(world.client().connections().count(), 0);
    world.run_to_rest();
}

// ----- closing listeners and everything ----------------------------------------------------------------------------

#[test]
fn a_closed_listener_closes_or_keeps_its_connections() {
    for mode in [CloseListener::CloseConnections, CloseListener::KeepConnections] {
        let (mut world, c, s) = World::connected();
        let now = world.now;
        world.server().close_listener(now, mode);
        assert!(!world.server().is_listening());
        world.run_for(ms(100));
        let ends = closed(&world.take(CLIENT));
        if mode == CloseListener::KeepConnections {
            assert_eq!(ends, []);
            assert!(world.server().connection(s).unwrap().is_established());
            world
                .client()
                .connection(c)
                .unwrap()
                .close(now, Code::CLOSED, Bytes::new());
        } else {
            let shutdown = CloseReason::Peer {
                code: Code::SHUTDOWN,
                reason: Bytes::from_static(b"shutdown"),
            };
            assert_eq!(ends, [(shutdown, true)]);
        }
        let mut config = world.dial_config(SERVER);
        config.handshake_timeout = ms(500);
        world.dial(&config);
        world.run_to_rest();
        assert_eq!(world.client().stats().handshakes_failed, 1, "nobody listens");
    }
}

#[test]
fn a_closed_listener_refuses_who_waits_and_may_listen_again() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.accept = Accept::OnDemand);
    let config = world.dial_config(SERVER);
    world.dial(&config);
    world.run_for(ms(15));
    let now = world.now;
    world.server().close_listener(now, CloseListener::KeepConnections);
    world.run_for(ms(50));
    assert_eq!(closed(&world.take(CLIENT)).len(), 1);
    world.take(SERVER);
    world.listen(SERVER, |_| {});
    world.establish(&config);
}

#[test]
fn a_close_in_the_handshake_is_one_end_event() {
    // At every step of the handshake, by either side; both sides hear of one end at most, and nothing stays.
    for closer in [CLIENT, SERVER] {
        for after in 0..8 {
            let mut world = World::pair();
            let config = world.dial_config(SERVER);
            world.dial(&config);
            let limit = world.now.mono + secs(1);
            for _ in 0..after {
                world.step(limit);
            }
            let now = world.now;
            world.nodes[closer].ep.close_all(now, Code::CLOSED, &Bytes::new());
            world.run_for(secs(1));
            // It was perhaps too early to close anything.
            let now = world.now;
            world.client().close_all(now, Code::CLOSED, &Bytes::new());
            world.run_to_rest();
            for node in [CLIENT, SERVER] {
                let events = world.take(node);
                let stats = world.nodes[node].ep.stats();
                let connected = events.iter().filter(|e| matches!(e, Event::Connected { .. })).count() as u64;
                let ends = closed(&events);
                assert_eq!(
                    ends.iter().filter(|(_, established)| *established).count() as u64,
                    stats.closed
                );
                assert_eq!(stats.dialled + stats.accepted, connected);
                assert_eq!(stats.closed, connected, "{ends:?}");
            }
        }
    }
}

#[test]
fn a_close_before_the_news_of_the_handshake_was_polled_is_the_last_event() {
    let mut world = World::pair();
    let config = world.dial_config(SERVER);
    let c = world.dial(&config);
    world.drain();
    // The server's answer is handed in, and the connection closed before anybody polls for events.
    let mut answered = Vec::new();
    for _ in 0..4 {
        let limit = world.now.mono + ms(10);
        let client = world.nodes[CLIENT].addr;
        world.link.fate = Box::new(move |packet| if packet.to == client { Fate::Drop } else { Fate::Deliver });
        world.step(limit);
        answered = world.nodes[SERVER].ep.connections().collect();
        if !answered.is_empty() {
            break;
        }
    }
    assert_eq!(answered.len(), 1);
    world.link.fate = Box::new(|_| Fate::Deliver);
    // The lost flight comes again; it goes to the client by hand.
    let mut flight = Vec::new();
    let now = world.now.after(secs(2));
    world.now = now;
    world.server().handle_timeout(now);
    while world.server().poll_event().is_some() {}
    loop {
        let mut buf = Vec::new();
        let one = std::num::NonZeroUsize::MIN;
        match world.server().poll_transmit(now, one, &mut buf) {
            Some(_) => flight.push(buf),
            None => break,
        }
    }
    let from = macula_proto::quic::DatagramMeta::from(world.nodes[SERVER].addr);
    for data in flight {
        world
            .client()
            .handle_datagram(now, from, bytes::BytesMut::from(&data[..]));
    }
    world
        .client()
        .connection(c)
        .unwrap()
        .close(now, Code::CLOSED, Bytes::new());
    world.run_to_rest();
    let events = world.take(CLIENT);
    assert!(matches!(events[..], [Event::Closed { .. }]), "{events:?}");
    let stats = world.client().stats();
    assert_eq!(stats.dialled + stats.handshakes_failed, 1);
}

#[test]
fn a_peer_that_vanishes_is_timed_out() {
    for keep_alive in [Some(secs(5)), None] {
        let transport = transport(|t| {
            t.idle_timeout = Some(secs(30));
            t.keep_alive = keep_alive;
        });
        let (mut world, ..) = World::connected_with(&transport, &transport);
        world.run_for(secs(12));
        assert_eq!(world.take(CLIENT), []);
        world.link.fate = Box::new(|_| Fate::Drop);
        let before = world.elapsed();
        let mut ends = [None, None];
        world.run_until(secs(120), |world| {
            for node in [CLIENT, SERVER] {
                if let Some(end) = closed(&world.take(node)).pop() {
                    ends[node] = Some((end, world.elapsed() - before));
                }
            }
            ends.iter().all(Option::is_some)
        });
        for end in ends {
            let (reason, after) = end.unwrap();
            assert_eq!(reason, (CloseReason::TimedOut, true));
            // The own keep-alive restarts the time once, not for ever (RFC 9000 §10.1).
            assert!(after <= secs(36), "{keep_alive:?}: {after:?}");
        }
        world.run_to_rest();
    }
}

#[test]
fn keep_alive_keeps_an_idle_connection_and_nothing_else_happens() {
    let transport = transport(|t| {
        t.idle_timeout = Some(secs(30));
        t.keep_alive = Some(secs(10));
        t.datagram_size = DatagramSize::Minimum;
    });
    let mut quiet = transport.clone();
    quiet.keep_alive = None;
    let (mut world, c, s) = World::connected_with(&transport, &quiet);
    world.run_for(secs(5));
    let before = world.trace.len();
    world.run_for(secs(3600));
    assert_eq!(world.take(CLIENT), []);
    assert_eq!(world.take(SERVER), []);
    assert!(world.client().connection(c).unwrap().is_established());
    assert!(world.server().connection(s).unwrap().is_established());
    let sent = world.trace.len() - before;
    assert!(
        (700..=900).contains(&sent),
        "a ping and its acknowledgement every 10 s, not {sent} datagrams"
    );
}

#[test]
fn silence_without_keep_alive_ends_both_sides() {
    let transport = transport(|t| {
        t.idle_timeout = Some(secs(30));
        t.keep_alive = None;
    });
    let (mut world, ..) = World::connected_with(&transport, &transport);
    world.run_for(secs(40));
    for node in [CLIENT, SERVER] {
        assert_eq!(closed(&world.take(node)), [(CloseReason::TimedOut, true)]);
    }
    world.run_to_rest();
}

#[test]
fn keying_material_is_the_same_on_both_ends_only() {
    let (mut world, c, s) = World::connected();
    let config = world.dial_config(SERVER);
    let (c2, _) = world.establish(&config);
    let mut out = [[0; 32]; 3];
    for (i, (node, conn)) in [(CLIENT, c), (SERVER, s), (CLIENT, c2)].into_iter().enumerate() {
        let connection = world.nodes[node].ep.connection(conn).unwrap();
        assert!(connection.export_keying_material(&mut out[i], b"EXPORTER-test", b"context"));
    }
    assert_eq!(out[0], out[1]);
    assert_ne!(out[0], out[2]);
    assert_ne!(out[0], [0; 32]);
    let fresh = world.dial(&config);
    let connection = world.client().connection(fresh).unwrap();
    assert!(
        !connection.export_keying_material(&mut out[0], b"EXPORTER-test", b""),
        "not before the handshake"
    );
}

#[test]
fn a_restarted_endpoint_ends_what_it_does_not_know_if_it_kept_its_key() {
    for (now, expected) in [(1, CloseReason::StatelessReset), (2, CloseReason::TimedOut)] {
        let mut world = World::pair();
        let endpoint = |secret| {
            let mut config = EndpointConfig::default();
            config.reset_key = Some(ResetKey::new([secret; 32]));
            Endpoint::new(&config, Limits::default()).unwrap()
        };
        // As they are in use: simulated ones draw their connection ids in another way, and speak to their kind only.
        world.nodes[CLIENT].ep = endpoint(0);
        world.nodes[SERVER].ep = endpoint(1);
        world.listen(SERVER, |_| {});
        let config = world.dial_config(SERVER);
        world.establish(&config);
        world.run_for(secs(1));
        world.nodes[SERVER].ep = endpoint(now);
        world.listen(SERVER, |_| {});
        let before = world.elapsed();
        let mut end = Vec::new();
        world.run_until(secs(100), |world| {
            end = closed(&world.take(CLIENT));
            !end.is_empty()
        });
        assert_eq!(end, [(expected, true)]);
        let early = world.elapsed() - before < secs(25);
        assert_eq!(early, now == 1, "at the first keep-alive");
        world.run_to_rest();
    }
}

#[test]
fn whatever_it_is_closes() {
    let (mut world, c, s) = World::connected();
    let now = world.now;
    let mut conn = world.client().connection(c).unwrap();
    let stream = conn.open(Dir::Bi).unwrap();
    conn.stream(stream).unwrap().write(b"last words").unwrap();
    assert!(world.client().close(now, Closable::Stream(c, stream)));
    assert!(!world.client().close(now, Closable::Stream(c, stream)), "once");
    let accepted = world.wait_stream(SERVER);
    world.run_for(secs(1));
    assert_eq!(world.read(SERVER, s, accepted), (b"last words".to_vec(), Ok(())));
    let stopped = Event::Stopped {
        conn: s,
        stream: accepted,
        code: Code::CLOSED,
    };
    assert!(world.take(SERVER).contains(&stopped));

    let now = world.now;
    assert!(world.client().close(now, Closable::Connection(c)));
    assert!(!world.client().close(now, Closable::Connection(c)));
    world.run_for(secs(1));
    let code = |world: &mut World, node| closed(&world.take(node)).pop().and_then(|(reason, _)| reason.code());
    assert_eq!(code(&mut world, SERVER), Some(Code::CLOSED));

    let config = world.dial_config(SERVER);
    world.establish(&config);
    world.clear_events();
    let now = world.now;
    assert!(world.server().close(now, Closable::Listener));
    assert!(!world.server().close(now, Closable::Listener));
    world.run_for(secs(1));
    assert_eq!(code(&mut world, CLIENT), Some(Code::SHUTDOWN));
}
