//! Peers wired in memory: whole endpoints on a virtual clock, without a socket.

#![cfg(feature = "self-signed")]

#[path = "world/mod.rs"]
mod world;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use macula_proto::{
    Code, Event, Limits,
    endpoint::{PeerEvent, PeerId, PeerItem, PeerListenConfig},
    identity::Identity,
    peering::{BindingMode, Connected, Duplicates, EndReason, HandshakeError, PeeringConfig, Role, SendError, Verdict},
    quic::{
        self, ConnectionHandle, DialConfig, Dir, ListenConfig, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    wire::{
        Value,
        frame::{Body, Goodbye, Id16, Id32, Ping, Publish, Text},
    },
};
use world::{World, transport};

fn node(number: u32) -> Arc<Identity> {
    let mut seed = [0x5A; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    Arc::new(Identity::from_seed(&seed))
}

fn config(number: u32) -> PeeringConfig {
    let mut config = PeeringConfig::new(node(number));
    config.capabilities = 7;
    config
}

/// Node 0 serves.
fn serve(world: &mut World, adapt: impl FnOnce(&mut PeerListenConfig)) -> usize {
    let host = world.add(Limits::default());
    let endpoint = &mut world.hosts[host].endpoint;
    let credentials = Credentials::self_signed(&[7; 32], &SelfSigned::default()).unwrap();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA, b"other"]);
    let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
    listen.transport = transport();
    endpoint.quic().listen(listen).unwrap();
    let mut config = PeerListenConfig::new(config(0));
    adapt(&mut config);
    endpoint.serve_peers(config);
    host
}

fn dial_config(world: &mut World, host: usize, alpn: &[u8]) -> DialConfig {
    let tls = ClientTls::new(Trust::Insecure).alpn([alpn]);
    let mut dial = DialConfig::new(tls.build(world.hosts[host].endpoint.quic().clock()).unwrap());
    dial.transport = transport();
    dial
}

fn dial(world: &mut World, host: usize, server: usize, config: PeeringConfig) -> PeerId {
    let dial = dial_config(world, host, alpn::MACULA);
    let (now, remote) = (world.now, world.hosts[server].address);
    let endpoint = &mut world.hosts[host].endpoint;
    endpoint.connect_peer(now, &dial, remote, "peer", config).unwrap()
}

/// A plain QUIC connection with the ALPN of peers.
fn plain(world: &mut World, host: usize, server: usize) -> ConnectionHandle {
    let dial = dial_config(world, host, alpn::MACULA);
    let (now, remote) = (world.now, world.hosts[server].address);
    let conn = world.hosts[host].endpoint.quic().connect(now, &dial, remote, "peer");
    let conn = conn.unwrap();
    world.find(host, "the connection", |event| match event {
        Event::Quic(quic::Event::Connected { conn: found, .. }) if *found == conn => Some(()),
        _ => None,
    });
    conn
}

fn connected(world: &mut World, host: usize) -> (PeerId, Connected) {
    world.find(host, "a connected peer", |event| match event {
        Event::Peer {
            peer,
            event: PeerEvent::Connected { connected, .. },
        } => Some((*peer, (**connected).clone())),
        _ => None,
    })
}

fn next(world: &mut World, host: usize, peer: PeerId) -> PeerItem {
    world.run_until("an item", |world| {
        let now = world.now;
        world.hosts[host].endpoint.next_peer_item(now, peer)
    })
}

fn ended(world: &mut World, host: usize, peer: PeerId) -> EndReason {
    loop {
        if let PeerItem::Ended { reason, .. } = next(world, host, peer) {
            return reason;
        }
    }
}

fn send(world: &mut World, host: usize, peer: PeerId, body: Body) -> Result<u64, SendError> {
    let now = world.now;
    world.hosts[host].endpoint.peer_send(now, peer, body)
}

fn close(world: &mut World, host: usize, peer: PeerId) {
    let now = world.now;
    let reason = Text::from("operator_stop");
    world.hosts[host].endpoint.peer_close(now, peer, reason, None);
}

fn publish(seq: u64, payload: Bytes) -> Body {
    Body::Publish(Publish {
        topic: Bytes::from_static(b"test"),
        realm: Id32([1; 32]),
        publisher: node(1).node_id(),
        seq,
        payload: Value::bytes(payload),
        published_at_ms: 1,
        ttl_ms: None,
    })
}

fn ping(number: u64) -> Body {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    Body::Ping(Ping { nonce: Id16(nonce) })
}

/// Two connected peers: (server host, its peer), (client host, its peer).
fn pair(world: &mut World) -> [(usize, PeerId); 2] {
    pair_with(world, |_| {}, config(1))
}

fn pair_with(
    world: &mut World,
    adapt: impl FnOnce(&mut PeerListenConfig),
    config: PeeringConfig,
) -> [(usize, PeerId); 2] {
    let server = serve(world, adapt);
    let client = world.add(Limits::default());
    let near = dial(world, client, server, config);
    assert_eq!(connected(world, client).0, near);
    let (far, _) = connected(world, server);
    [(server, far), (client, near)]
}

/// Sends `count` frames from one end and receives them at the other, in order.
fn transfer(world: &mut World, from: (usize, PeerId), to: (usize, PeerId), count: u64) {
    let (mut sent, mut received) = (0, 0);
    world.run_until("all frames", |world| {
        let now = world.now;
        while sent < count {
            match world.hosts[from.0].endpoint.peer_send(now, from.1, ping(sent)) {
                Ok(_) => sent += 1,
                Err(SendError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        while let Some(item) = world.hosts[to.0].endpoint.next_peer_item(now, to.1) {
            let PeerItem::Frame(frame) = item else {
                panic!("not a frame: {item:?}")
            };
            assert_eq!(frame.decoded.frame.body, ping(received));
            assert_eq!(frame.verdict, Verdict::Verified);
            received += 1;
        }
        (received == count).then_some(())
    });
}

#[test]
fn peers_know_each_other_and_frames_go_both_ways_in_order() {
    let mut world = World::new();
    let server = serve(&mut world, |_| {});
    let client = world.add(Limits::default());
    let near = dial(&mut world, client, server, config(1));
    let (found, at_client) = connected(&mut world, client);
    assert_eq!(found, near);
    let (far, at_server) = connected(&mut world, server);
    assert_eq!(at_client.peer, node(0).node_id());
    assert_eq!(at_server.peer, node(1).node_id());
    assert_eq!((at_client.capabilities, at_server.capabilities), (7, 7));
    assert!(
        at_client.bound && at_server.bound,
        "both proved that the connection is theirs"
    );
    let info = world.hosts[server].endpoint.peer_info(far).unwrap();
    assert_eq!((info.role, info.peer), (Role::Acceptor, Some(node(1).node_id())));
    transfer(&mut world, (client, near), (server, far), 500);
    transfer(&mut world, (server, far), (client, near), 500);
    let stats = world.hosts[client].endpoint.peer_info(near).unwrap().stats;
    assert_eq!((stats.verified, stats.frames_sent), (500, 501));
}

#[test]
fn large_frames_come_whole() {
    let mut world = World::new();
    let [far, near] = pair(&mut world);
    let payload = Bytes::from(world::pattern(1 << 20, 3));
    for seq in 0..5 {
        send(&mut world, near.0, near.1, publish(seq, payload.clone())).unwrap();
        let PeerItem::Frame(frame) = next(&mut world, far.0, far.1) else {
            panic!("a frame")
        };
        assert_eq!(frame.decoded.frame.body, publish(seq, payload.clone()));
    }
}

#[test]
fn loss_and_disorder_change_nothing() {
    let mut world = World::new();
    world.lose_every = Some(11);
    world.delay_every = Some(7);
    let [far, near] = pair(&mut world);
    transfer(&mut world, near, far, 2000);
    transfer(&mut world, far, near, 2000);
    close(&mut world, near.0, near.1);
    assert_eq!(
        ended(&mut world, far.0, far.1),
        EndReason::Goodbye(Text::from("operator_stop"))
    );
}

#[test]
fn goodbye_comes_behind_everything_and_both_ends_are_good() {
    let mut world = World::new();
    let [far, near] = pair(&mut world);
    for number in 0..100 {
        send(&mut world, near.0, near.1, ping(number)).unwrap();
    }
    close(&mut world, near.0, near.1);
    assert_eq!(send(&mut world, near.0, near.1, ping(0)), Err(SendError::Closing));
    for number in 0..100 {
        let item = next(&mut world, far.0, far.1);
        assert!(matches!(item, PeerItem::Frame(frame) if frame.decoded.frame.body == ping(number)));
    }
    assert!(matches!(next(&mut world, far.0, far.1), PeerItem::Goodbye { reason, .. } if reason == "operator_stop"));
    let reason = ended(&mut world, near.0, near.1);
    assert_eq!(reason, EndReason::PeerClosedDuringDrain);
    assert!(ended(&mut world, far.0, far.1).is_good());
    // It is forgotten now.
    assert_eq!(world.hosts[near.0].endpoint.peer_info(near.1), None);
    assert_eq!(world.hosts[far.0].endpoint.peer_service_stats().connected, 0);
    assert_eq!(send(&mut world, near.0, near.1, ping(0)), Err(SendError::Closing));
}

#[test]
fn a_user_who_does_not_fetch_slows_the_peer_down() {
    let mut world = World::new();
    let [far, near] = pair(&mut world);
    let payload = Bytes::from(world::pattern(100_000, 4));
    let mut sent = 0;
    for _ in 0..200 {
        while send(&mut world, near.0, near.1, publish(sent, payload.clone())).is_ok() {
            sent += 1;
            assert!(sent < 1000, "there is no end to what is taken");
        }
        world.run_for(Duration::from_millis(50));
    }
    let info = world.hosts[far.0].endpoint.peer_info(far.1).unwrap();
    assert!(info.waiting < 10, "{} frames wait", info.waiting);
    for seq in 0..sent {
        let PeerItem::Frame(frame) = next(&mut world, far.0, far.1) else {
            panic!("a frame")
        };
        assert_eq!(frame.decoded.frame.body, publish(seq, payload.clone()));
    }
    // The sender heard that there was room.
    world.find(near.0, "room", |event| match event {
        Event::Peer {
            event: PeerEvent::SendReady,
            ..
        } => Some(()),
        _ => None,
    });
}

#[test]
fn another_peer_than_the_expected_one_is_not_taken() {
    let mut world = World::new();
    let server = serve(&mut world, |_| {});
    let client = world.add(Limits::default());
    let mut config = config(1);
    config.expected_peer = Some(node(9).node_id());
    let peer = dial(&mut world, client, server, config);
    let reason = ended(&mut world, client, peer);
    let unexpected = HandshakeError::UnexpectedPeer(node(0).node_id());
    assert_eq!(reason, EndReason::HelloVerifyFailed(unexpected));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.hosts[server].endpoint.peer_service_stats().connected, 0);
}

#[test]
fn a_binding_can_be_required_on_both_ends_and_its_lack_is_refused() {
    let mut world = World::new();
    let mut require = config(1);
    require.binding = BindingMode::Require;
    let [_, near] = pair_with(
        &mut world,
        |listen| listen.peering.binding = BindingMode::Require,
        require,
    );
    let mut without = config(2);
    without.binding = BindingMode::Off;
    let peer = dial(&mut world, near.0, 0, without);
    assert!(!ended(&mut world, near.0, peer).is_good());
    assert_eq!(world.hosts[0].endpoint.peer_service_stats().connected, 1);
}

#[test]
fn without_binding_the_first_frame_of_the_acceptor_waits_for_a_packet_of_its_own() {
    let mut world = World::new();
    let server = serve(&mut world, |_| {});
    let client = world.add(Limits::default());
    let mut config = config(1);
    config.binding = BindingMode::Off;
    let near = dial(&mut world, client, server, config);
    let (far, at_server) = connected(&mut world, server);
    assert!(!at_server.bound);
    // Taken while HELLO may still be on its way out.
    send(&mut world, server, far, ping(1)).unwrap();
    assert_eq!(connected(&mut world, client).0, near);
    assert!(matches!(next(&mut world, client, near), PeerItem::Frame(_)));
    transfer(&mut world, (server, far), (client, near), 50);
}

#[test]
fn five_hundred_dials_of_one_identity_leave_one() {
    for (policy, last) in [(Duplicates::ReplaceOlder, true), (Duplicates::KeepOlder, false)] {
        let mut world = World::new();
        let server = serve(&mut world, |listen| listen.gate.duplicates = policy);
        let client = world.add(Limits::default());
        let peers: Vec<_> = (0..500).map(|_| dial(&mut world, client, server, config(1))).collect();
        world.run_for(Duration::from_secs(10));
        let stats = world.hosts[server].endpoint.peer_service_stats();
        assert_eq!(
            (stats.connected, stats.handshaking, stats.silent),
            (1, 0, 0),
            "{policy:?}"
        );
        let mut ends = BTreeMap::new();
        for peer in &peers {
            let now = world.now;
            let mut end = "up".to_owned();
            while let Some(item) = world.hosts[client].endpoint.next_peer_item(now, *peer) {
                if let PeerItem::Ended { reason, .. } = item {
                    end = reason.name().into_owned();
                }
            }
            *ends.entry(end).or_insert(0) += 1;
        }
        assert_eq!(ends.get("up"), Some(&1), "{ends:?}");
        let gate = stats.gate;
        if last {
            assert_eq!((gate.admitted, gate.displaced), (500, 499));
        } else {
            assert_eq!((gate.admitted, gate.duplicates_refused), (1, 499));
            assert_eq!(ends.get("refused"), Some(&499), "{ends:?}");
        }
    }
    let mut world = World::new();
    let server = serve(&mut world, |listen| listen.gate.duplicates = Duplicates::KeepBoth);
    let client = world.add(Limits::default());
    dial(&mut world, client, server, config(1));
    dial(&mut world, client, server, config(1));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.hosts[server].endpoint.peer_service_stats().connected, 2);
}

#[test]
fn a_thousand_half_open_connections_keep_no_good_one_out() {
    let mut world = World::new();
    let server = serve(&mut world, |listen| listen.gate.handshaking = 100);
    let client = world.add(Limits::default());
    // One half says nothing at all, the other the beginning of a frame.
    for number in 0..1000 {
        let conn = plain(&mut world, client, server);
        if number % 2 == 0 {
            let mut conn = world.hosts[client].endpoint.quic().connection(conn).unwrap();
            let stream = conn.open(Dir::Bi).unwrap();
            conn.stream(stream).unwrap().write(&[0, 0, 1]).unwrap();
        }
    }
    world.run_for(Duration::from_millis(100));
    let stats = world.hosts[server].endpoint.peer_service_stats();
    assert_eq!((stats.handshaking, stats.silent), (100, 100));
    let peer = dial(&mut world, client, server, config(1));
    assert_eq!(connected(&mut world, client).0, peer);
    // All others are gone when their time is over.
    world.run_for(Duration::from_secs(31));
    let stats = world.hosts[server].endpoint.peer_service_stats();
    assert_eq!((stats.handshaking, stats.silent, stats.connected), (0, 0, 1));
    let left = world.hosts[server].endpoint.quic().connections().count();
    assert!(left <= 1, "{left} connections left");
}

#[test]
fn an_rpc_connection_is_given_to_the_program_with_every_byte() {
    let mut world = World::new();
    let server = serve(&mut world, |_| {});
    let client = world.add(Limits::default());
    let conn = plain(&mut world, client, server);
    world.run_for(Duration::from_millis(100));
    let none = |event: &Event| !matches!(event, Event::Quic(quic::Event::Connected { .. }));
    assert!(
        world.hosts[server].events.iter().all(none),
        "nothing is known of it yet"
    );
    // A second stream comes first.
    let streams = {
        let mut conn = world.hosts[client].endpoint.quic().connection(conn).unwrap();
        let first = conn.open(Dir::Bi).unwrap();
        let second = conn.open(Dir::Bi).unwrap();
        conn.stream(second).unwrap().write(b"second").unwrap();
        [first, second]
    };
    world.run_for(Duration::from_millis(100));
    world
        .with(client, (conn, streams[0]), |stream| stream.write(&[1]))
        .unwrap();
    let at_server = world.find(server, "the connection", |event| match event {
        Event::Quic(quic::Event::Connected { conn, .. }) => Some(*conn),
        _ => None,
    });
    for stream in streams {
        world.find(server, "the stream", |event| match event {
            Event::Quic(quic::Event::StreamOpened { stream: found, .. }) if *found == stream => Some(()),
            _ => None,
        });
    }
    world
        .with(client, (conn, streams[0]), |stream| stream.write(b"first"))
        .unwrap();
    for (stream, expected) in [(streams[0], &b"\x01first"[..]), (streams[1], b"second")] {
        let mut received = Vec::new();
        world.run_until("all bytes", |world| {
            while let Ok(Some(bytes)) = world.with(server, (at_server, stream), |stream| stream.read_chunk(100)) {
                received.extend_from_slice(&bytes);
            }
            (received.len() == expected.len()).then_some(())
        });
        assert_eq!(received, expected);
    }
    let stats = world.hosts[server].endpoint.peer_service_stats();
    assert_eq!((stats.rpc, stats.silent, stats.gate.arrived), (1, 0, 0));
}

#[test]
fn what_is_neither_peering_nor_rpc_is_closed() {
    for (bytes, finish, code) in [
        (&b"\x02"[..], false, Code::PROTOCOL),
        (b"", true, Code::PROTOCOL),
        (b"", false, Code::TIMEOUT),
    ] {
        let mut world = World::new();
        let server = serve(&mut world, |_| {});
        let client = world.add(Limits::default());
        let conn = plain(&mut world, client, server);
        {
            let mut conn = world.hosts[client].endpoint.quic().connection(conn).unwrap();
            let stream = conn.open(Dir::Bi).unwrap();
            let mut stream = conn.stream(stream).unwrap();
            stream.write(bytes).unwrap();
            if finish {
                stream.finish().unwrap();
            }
        }
        let found = world.find(client, "the end", |event| match event {
            Event::Quic(quic::Event::Closed { reason, .. }) => reason.code(),
            _ => None,
        });
        assert_eq!(found, code);
        assert_eq!(world.hosts[server].endpoint.peer_service_stats().unrecognised, 1);
    }
}

#[test]
fn a_dead_peer_a_forgotten_peer_and_a_failed_dial_end_with_a_reason() {
    let mut world = World::new();
    let [far, near] = pair(&mut world);
    let now = world.now;
    world.hosts[near.0].endpoint.forget_peer(now, near.1, Code::CLOSED);
    assert_eq!(world.hosts[near.0].endpoint.peer_info(near.1), None);
    assert_eq!(ended(&mut world, far.0, far.1), EndReason::PeerClosed);

    let near = dial(&mut world, near.0, far.0, config(1));
    connected(&mut world, 1);
    world.hosts[far.0].alive = false;
    let (until, mut reason, mut more) = (world.now.mono + Duration::from_secs(400), None, true);
    while reason.is_none() && more {
        more = world.step(until);
        let now = world.now;
        while let Some(item) = world.hosts[1].endpoint.next_peer_item(now, near) {
            if let PeerItem::Ended { reason: found, .. } = item {
                reason = Some(found);
            }
        }
    }
    assert_eq!(reason, Some(EndReason::PeerClosed));

    let peer = dial(&mut world, 1, far.0, config(1));
    let reason = ended(&mut world, 1, peer);
    assert_eq!(reason.name(), "connect_failed");
}

#[test]
fn further_streams_of_a_peer_are_refused() {
    let mut world = World::new();
    let [far, near] = pair(&mut world);
    let conn = world.hosts[near.0].endpoint.peer_info(near.1).unwrap().connection;
    {
        let mut conn = world.hosts[near.0].endpoint.quic().connection(conn).unwrap();
        let stream = conn.open(Dir::Bi).unwrap();
        conn.stream(stream).unwrap().write(b"more").unwrap();
    }
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.hosts[far.0].endpoint.peer_service_stats().extra_streams, 1);
    transfer(&mut world, near, far, 10);
}

#[test]
fn a_goodbye_signed_by_somebody_else_is_a_frame() {
    let mut world = World::new();
    let [far, near] = pair(&mut world);
    let goodbye = Body::Goodbye(Goodbye {
        reason: Text::from("no"),
        detail: None,
    });
    let mut rng = macula_proto::Rng::from_seed(1);
    let header = macula_proto::wire::frame::Header::new(world.now, &mut rng);
    let frame = macula_proto::wire::frame::Frame::new(header, goodbye);
    let raw = frame.sign(&node(8)).unwrap();
    let now = world.now;
    let raw = macula_proto::peering::Outgoing::Raw(raw);
    world.hosts[near.0].endpoint.peer_send(now, near.1, raw).unwrap();
    let item = next(&mut world, far.0, far.1);
    assert!(matches!(item, PeerItem::Frame(frame) if frame.verdict == Verdict::OtherSigner));
}
