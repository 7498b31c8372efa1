//! Paths: datagram sizes, addresses that change, loss, and what the figures say of them.

#![cfg(feature = "self-signed")]

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{CLIENT, Fate, SERVER, World, ms, pattern, secs, transport};
use macula_proto::{
    Code, Limits, Rng,
    quic::{
        CloseReason, ConnectionHandle, ConnectionStats, DatagramSize, Dir, EndpointConfig, Event, StreamId,
        TransportConfig,
    },
};

/// Sends bytes from the client to the server on a stream of their own, and waits until all are there.
fn transfer(world: &mut World, c: ConnectionHandle, s: ConnectionHandle, len: usize) -> StreamId {
    let data = pattern(len);
    let stream = world.client().connection(c).unwrap().open(Dir::Uni).unwrap();
    let (mut sent, mut got) = (0, Vec::new());
    world.run_until(secs(300), |world| {
        let mut conn = world.client().connection(c).unwrap();
        if let Ok(mut borrowed) = conn.stream(stream) {
            while sent < len
                && let Ok(n) = borrowed.write(&data[sent..])
            {
                sent += n;
            }
        }
        if world.server().connection(s).unwrap().stream(stream).is_ok() {
            got.extend(world.read(SERVER, s, stream).0);
        }
        got.len() == len
    });
    assert_eq!(got, data);
    let mut conn = world.client().connection(c).unwrap();
    conn.stream(stream).unwrap().finish().unwrap();
    world.run_for(secs(1));
    let _ = world.read(SERVER, s, stream);
    stream
}

fn stats(world: &mut World, node: usize, conn: ConnectionHandle) -> ConnectionStats {
    world.nodes[node].ep.connection(conn).unwrap().stats()
}

fn paths(events: &[Event]) -> Vec<SocketAddr> {
    let changes = events.iter().filter_map(|event| match event {
        Event::PathChanged { remote, .. } => Some(*remote),
        _ => None,
    });
    changes.collect()
}

// ----- datagram size -----------------------------------------------------------------------------------------------

/// The datagram sizes of both sides after a while on a link of this kind.
fn sizes(link: usize, loopback: bool, size: DatagramSize, config: &EndpointConfig) -> [u16; 2] {
    let mut world = World::new();
    world.add_with(config, Limits::default());
    world.add_with(config, Limits::default());
    if loopback {
        world.nodes[CLIENT].addr = "127.0.0.1:1000".parse().unwrap();
        world.nodes[SERVER].addr = "[::ffff:127.0.0.1]:2000".parse().unwrap();
    }
    world.link.mtu = link;
    let own = transport(|t| t.datagram_size = size);
    let (client, server) = (own.clone(), own);
    world.listen(SERVER, |config| config.transport = server);
    let mut dial = world.dial_config(SERVER);
    dial.transport = client;
    let (c, s) = world.establish(&dial);
    transfer(&mut world, c, s, 500_000);
    world.run_for(secs(20));
    let found = [(CLIENT, c), (SERVER, s)].map(|(node, conn)| stats(&mut world, node, conn).datagram_size);
    let largest = world.trace.iter().map(|(_, _, len)| *len).max().unwrap();
    assert!(largest <= usize::from(config.max_udp_payload));
    found
}

#[test]
fn the_datagram_size_is_what_the_path_takes() {
    let default = EndpointConfig::default();
    let mut small = default.clone();
    small.max_udp_payload = 1_350;
    let mut fragmented = default.clone();
    fragmented.unfragmented = false;
    let discover = DatagramSize::Discover;
    let table = [
        ("ethernet", 1_472, false, discover, &default, 1_400..=1_472),
        ("a tunnel", 1_280, false, discover, &default, 1_200..=1_280),
        ("jumbo frames", 8_972, false, discover, &default, 8_000..=8_972),
        ("beyond jumbo frames", 65_507, false, discover, &default, 8_900..=9_000),
        ("loopback", 65_507, true, discover, &default, 64_000..=65_000),
        (
            "loopback with small packets",
            1_472,
            true,
            discover,
            &default,
            1_300..=1_472,
        ),
        (
            "a bound",
            65_507,
            false,
            DatagramSize::UpTo(2_000),
            &default,
            1_950..=2_000,
        ),
        (
            "switched off",
            65_507,
            false,
            DatagramSize::Minimum,
            &default,
            1_200..=1_200,
        ),
        ("the peer's buffers", 65_507, false, discover, &small, 1_300..=1_350),
        (
            "a socket that fragments",
            65_507,
            false,
            discover,
            &fragmented,
            1_200..=1_200,
        ),
    ];
    for (name, link, loopback, size, config, expected) in table {
        for found in sizes(link, loopback, size, config) {
            assert!(expected.contains(&found), "{name}: {found}");
        }
    }
}

#[test]
fn a_datagram_size_out_of_range_is_an_error() {
    let mut world = World::pair();
    let mut config = world.dial_config(SERVER);
    for bad in [0, 1_199, 65_528] {
        config.transport.datagram_size = DatagramSize::UpTo(bad);
        let (now, to) = (world.now, world.nodes[SERVER].addr);
        assert!(world.client().connect(now, &config, to, "localhost").is_err(), "{bad}");
        let mut endpoint = EndpointConfig::default();
        endpoint.max_udp_payload = bad;
        assert!(
            macula_proto::quic::Endpoint::new(&endpoint, Limits::default()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn a_path_that_shrinks_is_noticed_and_counted() {
    let (mut world, c, s) = World::connected();
    world.link.mtu = 65_507;
    transfer(&mut world, c, s, 200_000);
    world.run_for(secs(10));
    assert!(stats(&mut world, CLIENT, c).datagram_size > 1_472);
    assert_eq!(stats(&mut world, CLIENT, c).black_holes, 0);
    world.link.mtu = 1_280;
    transfer(&mut world, c, s, 200_000);
    let now = stats(&mut world, CLIENT, c);
    assert_eq!((now.black_holes, now.datagram_size <= 1_280), (1, true), "{now:?}");
}

// ----- addresses ---------------------------------------------------------------------------------------------------

#[test]
fn streams_survive_a_nat_that_forgets_its_binding() {
    let (mut world, c, s) = World::connected();
    transfer(&mut world, c, s, 100_000);
    world.clear_events();
    for rebinding in 1..=5u16 {
        let new = SocketAddr::from(([198, 51, 100, 7], 10_000 + rebinding));
        world.nodes[CLIENT].addr = new;
        transfer(&mut world, c, s, 300_000);
        assert_eq!(paths(&world.take(SERVER)), [new]);
        let conn = world.server().connection(s).unwrap();
        assert_eq!(conn.remote_address(), new);
    }
    assert_eq!(paths(&world.take(CLIENT)), [], "the client does not notice");
    // And back from the server to the client's new address.
    let mut conn = world.server().connection(s).unwrap();
    let stream = conn.open(Dir::Uni).unwrap();
    conn.stream(stream).unwrap().write(&pattern(5_000)).unwrap();
    world.run_for(secs(1));
    assert_eq!(world.read(CLIENT, c, stream).0, pattern(5_000));
}

#[test]
fn an_idle_connection_survives_rebinding_every_minute() {
    let (mut world, c, s) = World::connected();
    for minute in 0..30u16 {
        world.run_for(secs(60));
        world.nodes[CLIENT].addr = SocketAddr::from(([198, 51, 100, 7], 10_000 + minute));
    }
    world.run_for(secs(30));
    transfer(&mut world, c, s, 10_000);
    assert_eq!(paths(&world.take(SERVER)).len(), 30);
}

#[test]
fn a_listener_may_forbid_clients_to_move() {
    let mut world = World::pair();
    world.listen(SERVER, |config| config.migration = false);
    let config = world.dial_config(SERVER);
    let (_, s) = world.establish(&config);
    world.run_for(secs(1));
    world.clear_events();
    let before = world.nodes[CLIENT].addr;
    world.nodes[CLIENT].addr = "198.51.100.7:5".parse().unwrap();
    world.run_for(secs(200));
    for node in [CLIENT, SERVER] {
        let events = world.take(node);
        let ended = |e: &Event| {
            matches!(
                e,
                Event::Closed {
                    reason: CloseReason::TimedOut,
                    ..
                }
            )
        };
        assert!(events.len() == 1 && ended(&events[0]), "{events:?}");
    }
    assert_ne!(before, world.nodes[CLIENT].addr);
    assert!(world.server().connection(s).is_err());
}

#[test]
fn a_client_on_another_network_moves_its_connection() {
    let (mut world, c, s) = World::connected();
    world.run_for(secs(1));
    world.clear_events();
    let new = "[2001:db8::7]:6".parse().unwrap();
    world.nodes[CLIENT].addr = new;
    world.client().connection(c).unwrap().local_address_changed();
    world.run_for(secs(1));
    assert_eq!(paths(&world.take(SERVER)), [new], "without waiting for data");
    transfer(&mut world, c, s, 100_000);
}

#[test]
fn a_stranger_who_repeats_packets_does_not_take_the_connection() {
    let (mut world, c, s) = World::connected();
    let stranger: SocketAddr = "203.0.113.9:9".parse().unwrap();
    let client = world.nodes[CLIENT].addr;
    // Every datagram of the client arrives a second time, later, from elsewhere.
    let copies = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = copies.clone();
    world.link.fate = Box::new(move |packet| {
        if packet.from == client {
            log.lock().unwrap().push(packet.data.clone());
        }
        Fate::Deliver
    });
    transfer(&mut world, c, s, 50_000);
    world.clear_events();
    let to = world.nodes[SERVER].addr;
    let recorded = std::mem::take(&mut *copies.lock().unwrap());
    for data in recorded {
        world.inject(stranger, to, data);
    }
    world.run_for(secs(5));
    assert_eq!(paths(&world.take(SERVER)), []);
    transfer(&mut world, c, s, 50_000);
}

// ----- figures -----------------------------------------------------------------------------------------------------

#[test]
fn figures_are_measured() {
    let (mut world, c, s) = World::connected();
    world.link.delay = ms(40);
    transfer(&mut world, c, s, 1_000_000);
    let (client, server) = (stats(&mut world, CLIENT, c), stats(&mut world, SERVER, s));
    assert!((ms(70)..=ms(120)).contains(&client.rtt), "{:?}", client.rtt);
    assert!((ms(20)..=ms(81)).contains(&client.min_rtt), "{:?}", client.min_rtt);
    assert!((1_000_000..1_200_000).contains(&client.bytes_sent), "{client:?}");
    assert!(server.bytes_received >= 1_000_000 && server.stream_frames_received > 600);
    assert!(client.stream_frames_sent >= server.stream_frames_received);
    assert!(client.packets_sent > 600 && client.congestion_window > 12_000);
    assert_eq!((client.streams_opened, server.streams_accepted), (1, 1));
    assert_eq!(client.black_holes, 0);
    let endpoint = world.client().stats();
    assert_eq!(endpoint.datagrams_sent, client.datagrams_sent);
    assert_eq!(endpoint.bytes_sent, client.bytes_sent);
    let sent = world.trace.iter().filter(|(_, node, _)| *node == CLIENT);
    assert_eq!(
        endpoint.bytes_sent,
        sent.clone().map(|(.., len)| *len as u64).sum::<u64>()
    );
    assert_eq!(endpoint.datagrams_sent, sent.count() as u64);
}

#[test]
fn loss_is_repaired_and_shows_in_the_figures() {
    for congestion in [
        macula_proto::quic::Congestion::Cubic,
        macula_proto::quic::Congestion::NewReno,
    ] {
        let own: TransportConfig = transport(|t| t.congestion = congestion);
        let (mut world, c, s) = World::connected_with(&own, &own);
        let mut net = Rng::from_seed(7);
        world.link.fate = Box::new(move |_| match net.below(100) {
            0..5 => Fate::Drop,
            5..8 => Fate::Twice,
            8..15 => Fate::Late(net.duration_below(ms(30))),
            _ => Fate::Deliver,
        });
        transfer(&mut world, c, s, 500_000);
        let client = stats(&mut world, CLIENT, c);
        assert!(client.packets_lost > 5 && client.bytes_lost > 5_000, "{client:?}");
        assert!(client.congestion_events > 0);
    }
}

#[test]
fn new_keys_are_taken_up_in_flight() {
    let (mut world, c, s) = World::connected();
    for _ in 0..5 {
        world.client().connection(c).unwrap().update_keys();
        transfer(&mut world, c, s, 100_000);
        world.run_for(secs(5));
    }
    let now = world.now;
    world
        .client()
        .connection(c)
        .unwrap()
        .close(now, Code::CLOSED, Bytes::new());
    world.run_to_rest();
}
