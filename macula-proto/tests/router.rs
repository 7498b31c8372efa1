//! A router, a relay and peers on one endpoint, and nodes that speak to it byte by byte, wired in memory.

#![cfg(feature = "self-signed")]

mod world;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Event, Limits,
    endpoint::PeerListenConfig,
    identity::Identity,
    peering::PeeringConfig,
    quic::{
        self, CloseReason, ConnectionHandle, DialConfig, Dir, ListenConfig, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    rpc::{
        Chunk, EndRole, Fault, Mode, StreamId,
        router::{Refusal, RouterConfig},
    },
    tunnel::relay::RelayConfig,
    wire::{
        Encoding::{self, Cbor, MessagePack},
        Value,
        rpc::{Connect, Decoder, Message, StreamData, StreamOpen},
    },
};
use world::{World, transport};

struct Node {
    host: usize,
    conn: ConnectionHandle,
    stream: quic::StreamId,
    encoding: Encoding,
    decoder: Decoder,
    unsent: BytesMut,
}

/// A relay with a router, and peers beside it if so wanted.
fn serve(world: &mut World, peers: bool, config: RouterConfig) -> usize {
    let host = world.add(Limits::default());
    let endpoint = &mut world.hosts[host].endpoint;
    let credentials = Credentials::self_signed(&[7; 32], &SelfSigned::default()).unwrap();
    let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST, alpn::MACULA]);
    let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
    listen.transport = transport();
    endpoint.quic().listen(listen).unwrap();
    endpoint.serve_relay(RelayConfig::default());
    endpoint.serve_router(config);
    if peers {
        let identity = Arc::new(Identity::from_seed(&[9; 32]));
        endpoint.serve_peers(PeerListenConfig::new(PeeringConfig::new(identity)));
    }
    host
}

fn dial(world: &mut World, relay: usize) -> (usize, ConnectionHandle) {
    let host = world.add(Limits::default());
    let tls = ClientTls::new(Trust::Insecure).alpn([alpn::MACULA]);
    let mut config = DialConfig::new(tls.build(world.hosts[host].endpoint.quic().clock()).unwrap());
    config.transport = transport();
    let (now, remote) = (world.now, world.hosts[relay].address);
    let conn = world.hosts[host].endpoint.quic().connect(now, &config, remote, "relay");
    let conn = conn.unwrap();
    world.find(host, "the connection", |event| match event {
        Event::Quic(quic::Event::Connected { conn: found, .. }) if *found == conn => Some(()),
        _ => None,
    });
    (host, conn)
}

fn node(world: &mut World, relay: usize, name: &str, encoding: Encoding) -> Node {
    let (host, conn) = dial(world, relay);
    let stream = world.hosts[host]
        .endpoint
        .quic()
        .connection(conn)
        .unwrap()
        .open(Dir::Bi);
    let mut node = Node {
        host,
        conn,
        stream: stream.unwrap(),
        encoding,
        decoder: Decoder::default(),
        unsent: BytesMut::new(),
    };
    world.with(host, (conn, node.stream), |stream| stream.hold());
    let mut connect = Connect::new(Bytes::copy_from_slice(name.as_bytes()));
    connect.node_name = Some(Bytes::copy_from_slice(name.as_bytes()));
    node.send(world, &Message::Connect(Box::new(connect)));
    node.send(world, &Message::Ping { timestamp: 5 });
    assert!(matches!(node.next(world), Message::Pong { timestamp: 5, .. }));
    node
}

impl Node {
    fn send(&mut self, world: &mut World, message: &Message) {
        message.encode(self.encoding, &mut self.unsent).unwrap();
        self.flush(world);
    }

    fn flush(&mut self, world: &mut World) {
        while !self.unsent.is_empty()
            && let Ok(written) = world.with(self.host, (self.conn, self.stream), |stream| stream.write(&self.unsent))
        {
            let _ = self.unsent.split_to(written);
        }
    }

    fn poll(&mut self, world: &mut World) -> Option<Message> {
        self.flush(world);
        loop {
            if let Some(message) = self.decoder.next() {
                let (message, encoding) = message.unwrap();
                assert_eq!(encoding, self.encoding);
                return Some(message);
            }
            let read = world.with(self.host, (self.conn, self.stream), |stream| {
                stream.read_chunk(usize::MAX)
            });
            self.decoder.push(read.ok()??);
        }
    }

    fn next(&mut self, world: &mut World) -> Message {
        world.run_until("a message", |world| self.poll(world))
    }

    fn register(&mut self, world: &mut World, procedure: &'static str) {
        let procedure = Bytes::from_static(procedure.as_bytes());
        self.send(world, &Message::RegisterProcedure { procedure });
        // Behind it, an answer says that it has arrived.
        self.send(world, &Message::Ping { timestamp: 6 });
        self.next(world);
    }

    fn close(&self, world: &mut World) {
        let now = world.now;
        let mut conn = world.hosts[self.host].endpoint.quic().connection(self.conn).unwrap();
        conn.close(now, Code::CLOSED, Bytes::new());
    }
}

fn closed(world: &mut World, host: usize) -> CloseReason {
    world.find(host, "the end", |event| match event {
        Event::Quic(quic::Event::Closed { reason, .. }) => Some(reason.clone()),
        _ => None,
    })
}

fn code(reason: &CloseReason) -> Option<Code> {
    match reason {
        CloseReason::Peer { code, .. } => Some(*code),
        _ => None,
    }
}

fn stream(number: u8) -> StreamId {
    StreamId([number; 16])
}

fn open(number: u8) -> Message {
    Message::StreamOpen(StreamOpen {
        stream: stream(number),
        procedure: Bytes::from_static(b"org/a/b/c/echo_v1"),
        mode: Mode::Bidi,
        args: Value::Null,
    })
}

fn chunk(number: u8, seq: u64, size: usize) -> Message {
    let chunk = Chunk::Raw(vec![u8::try_from(seq % 251).unwrap(); size].into());
    Message::StreamData(StreamData {
        stream: stream(number),
        seq,
        chunk,
    })
}

const PROCEDURE: &str = "org/a/b/c/echo_v1";

#[test]
fn calls_pass_between_nodes_with_and_without_peers_beside() {
    for peers in [false, true] {
        let mut world = World::new();
        let relay = serve(&mut world, peers, RouterConfig::default());
        let mut provider = node(&mut world, relay, "provider", MessagePack);
        let mut caller = node(&mut world, relay, "caller", Cbor);
        provider.register(&mut world, PROCEDURE);
        caller.send(&mut world, &open(1));
        assert_eq!(provider.next(&mut world), open(1));
        // Both directions at once, more than all windows and the outbox together.
        let size = 20_000;
        for seq in 0..300 {
            caller.send(&mut world, &chunk(1, seq, size));
            provider.send(&mut world, &chunk(1, seq, size));
        }
        let (mut there, mut back) = (0, 0);
        world.run_until("all chunks", |world| {
            while let Some(message) = provider.poll(world) {
                assert_eq!(message, chunk(1, there, size));
                there += 1;
            }
            while let Some(message) = caller.poll(world) {
                assert_eq!(message, chunk(1, back, size));
                back += 1;
            }
            (there == 300 && back == 300).then_some(())
        });
        let end = Message::StreamEnd {
            stream: stream(1),
            role: EndRole::Both,
        };
        caller.send(&mut world, &end);
        assert_eq!(provider.next(&mut world), end);
        let status = world.hosts[relay].endpoint.router_status().unwrap();
        assert_eq!((status.nodes.len(), status.streams), (2, 0));
        let stats = world.hosts[relay].endpoint.router_stats().unwrap();
        assert_eq!((stats.streams, stats.routed, stats.recoded), (1, 602, 602));
        // The relay beside it knows nothing of these nodes.
        let relayed = world.hosts[relay].endpoint.relay_status().unwrap();
        assert!(relayed.connections.is_empty());
    }
}

#[test]
fn a_provider_that_goes_away_ends_its_calls() {
    let mut world = World::new();
    let relay = serve(&mut world, true, RouterConfig::default());
    let mut provider = node(&mut world, relay, "provider", Cbor);
    let mut caller = node(&mut world, relay, "caller", Cbor);
    provider.register(&mut world, PROCEDURE);
    caller.send(&mut world, &open(1));
    provider.next(&mut world);
    provider.close(&mut world);
    let lost = Message::StreamError {
        stream: stream(1),
        fault: Fault::disconnected(),
    };
    assert_eq!(caller.next(&mut world), lost);
    caller.send(&mut world, &open(2));
    let Message::StreamError { fault, .. } = caller.next(&mut world) else {
        panic!("nobody serves it any more")
    };
    assert_eq!(fault.code_str(), Some("not_found"));
    let stats = world.hosts[relay].endpoint.router_stats().unwrap();
    assert_eq!((stats.disconnected, stats.refused[0]), (1, 1));
    assert_eq!(Refusal::ALL[0], Refusal::NotFound);
    // The end of the stream alone is the end of the node, too.
    world
        .with(caller.host, (caller.conn, caller.stream), |stream| stream.finish())
        .unwrap();
    assert_eq!(code(&closed(&mut world, caller.host)), Some(Code::CLOSED));
    let status = world.hosts[relay].endpoint.router_status().unwrap();
    assert!(status.nodes.is_empty());
}

#[test]
fn a_receiver_that_reads_nothing_stops_its_sender_and_nobody_else() {
    let mut world = World::new();
    let relay = serve(&mut world, false, RouterConfig::default());
    let mut provider = node(&mut world, relay, "provider", Cbor);
    let mut caller = node(&mut world, relay, "caller", Cbor);
    let mut other = node(&mut world, relay, "other", Cbor);
    provider.register(&mut world, PROCEDURE);
    caller.send(&mut world, &open(1));
    provider.next(&mut world);
    let total = 2000;
    for seq in 0..total {
        caller.send(&mut world, &chunk(1, seq, 10_000));
    }
    for _ in 0..50 {
        world.run_for(Duration::from_millis(100));
        caller.flush(&mut world);
        other.send(&mut world, &Message::Ping { timestamp: 9 });
        assert!(matches!(other.next(&mut world), Message::Pong { .. }));
    }
    let status = world.hosts[relay].endpoint.router_status().unwrap();
    assert!(status.nodes.iter().all(|node| node.queued <= (1 << 20) + 10_100));
    assert!(status.nodes.iter().any(|node| node.held));
    assert!(
        caller.unsent.len() > 12 << 20,
        "{} wait at the caller",
        caller.unsent.len()
    );
    // Then it reads, and everything is there.
    for seq in 0..total {
        let message = world.run_until("a chunk", |world| {
            caller.flush(world);
            provider.poll(world)
        });
        assert_eq!(message, chunk(1, seq, 10_000));
    }
}

#[test]
fn what_is_no_rpc_is_not_served() {
    let mut world = World::new();
    let relay = serve(&mut world, false, RouterConfig::default());
    let (host, conn) = dial(&mut world, relay);
    let stream = world.hosts[host]
        .endpoint
        .quic()
        .connection(conn)
        .unwrap()
        .open(Dir::Bi);
    world
        .with(host, (conn, stream.unwrap()), |stream| stream.write(&[0, 0, 1, 0]))
        .unwrap();
    assert_eq!(code(&closed(&mut world, host)), Some(Code::PROTOCOL));
    // One that says nothing is closed as well, after a while.
    let (host, _) = dial(&mut world, relay);
    world.run_for(Duration::from_secs(11));
    assert_eq!(code(&closed(&mut world, host)), Some(Code::TIMEOUT));
    // Streams besides the first are refused.
    let mut node = node(&mut world, relay, "node", Cbor);
    let second = world.hosts[node.host]
        .endpoint
        .quic()
        .connection(node.conn)
        .unwrap()
        .open(Dir::Bi);
    world
        .with(node.host, (node.conn, second.unwrap()), |stream| stream.write(b"x"))
        .unwrap();
    node.send(&mut world, &Message::Ping { timestamp: 1 });
    node.next(&mut world);
    world.run_for(Duration::from_millis(100));
    let stats = world.hosts[relay].endpoint.router_stats().unwrap();
    assert_eq!((stats.extra_streams, stats.silent, stats.failed), (1, 1, 1));
}

#[test]
fn a_router_drains_and_stops() {
    let mut world = World::new();
    let relay = serve(&mut world, true, RouterConfig::default());
    let mut provider = node(&mut world, relay, "provider", Cbor);
    let mut caller = node(&mut world, relay, "caller", Cbor);
    let idle = node(&mut world, relay, "idle", Cbor);
    provider.register(&mut world, PROCEDURE);
    caller.send(&mut world, &open(1));
    provider.next(&mut world);
    let now = world.now;
    world.hosts[relay].endpoint.drain_router(now);
    assert_eq!(code(&closed(&mut world, idle.host)), Some(Code::DRAINING));
    caller.send(&mut world, &chunk(1, 0, 10));
    assert_eq!(provider.next(&mut world), chunk(1, 0, 10));
    let now = world.now;
    world.hosts[relay].endpoint.stop_router(now, Code::SHUTDOWN);
    assert_eq!(code(&closed(&mut world, caller.host)), Some(Code::SHUTDOWN));
    assert_eq!(code(&closed(&mut world, provider.host)), Some(Code::SHUTDOWN));
    assert!(!world.hosts[relay].endpoint.is_router());
    assert_eq!(world.hosts[relay].endpoint.router_stats(), None);
}
