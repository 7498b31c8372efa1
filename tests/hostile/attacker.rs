//! A relay under attack, in memory: the relay, two nodes with a tunnel between them, and whoever attacks.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Event, Limits,
    endpoint::ClientId,
    quic::{self, CloseReason, ConnectionHandle, DialConfig, Dir, EndpointStats, StreamId, TransportConfig, alpn},
    tunnel::{
        Name,
        relay::{RelayConfig, RelayStats},
    },
    wire::{
        Encoding,
        control::{Decoder, Message},
    },
};

use crate::world::{self, World, pattern};

type End = (usize, (ConnectionHandle, StreamId));

/// A tunnel that nobody may disturb.
pub(crate) struct Bystander {
    near: End,
    far: End,
    round: u64,
}

impl Bystander {
    pub(crate) fn new(near: End, far: End) -> Self {
        Self { near, far, round: 0 }
    }

    /// Moves bytes both ways, while everybody else does whatever they do; they come intact and in time.
    pub(crate) fn tick(&mut self, world: &mut World) {
        let begin = world.now.mono;
        self.round += 2;
        world.transfer(self.near, self.far, &pattern(20_000, self.round));
        world.transfer(self.far, self.near, &pattern(20_000, self.round + 1));
        let took = world.now.mono - begin;
        assert!(took < Duration::from_secs(1), "40 kB took {took:?}");
    }
}

/// A relay, the nodes alice and bob with a tunnel, and a host for attackers.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) relay: usize,
    pub(crate) alice: (usize, ClientId),
    pub(crate) bob: (usize, ClientId),
    pub(crate) mallory: usize,
    pub(crate) bystander: Bystander,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(RelayConfig::default())
    }

    pub(crate) fn with(config: RelayConfig) -> Self {
        let mut world = World::new();
        let relay = world.add_relay(config);
        let alice = world.add_node("alice", &[relay]);
        let bob = world.add_node("bob", &[relay]);
        world.identified(relay, "alice");
        world.identified(relay, "bob");
        let request = world.open(alice, "bob");
        let near = (alice.0, world.opened(alice.0, request));
        let (_, conn, stream) = world.incoming(bob.0);
        let mallory = world.add(Limits::default());
        Self {
            world,
            relay,
            alice,
            bob,
            mallory,
            bystander: Bystander::new(near, (bob.0, (conn, stream))),
        }
    }

    pub(crate) fn tick(&mut self) {
        self.bystander.tick(&mut self.world);
    }

    pub(crate) fn stats(&self) -> RelayStats {
        self.world.hosts[self.relay].endpoint.relay_stats().unwrap()
    }

    pub(crate) fn endpoint_stats(&mut self) -> EndpointStats {
        self.world.hosts[self.relay].endpoint.quic().stats()
    }

    /// After the attack: the two nodes and their tunnel are all there is, and they still work.
    pub(crate) fn nothing_is_left(&mut self) {
        for _ in 0..20 {
            self.world.run_for(Duration::from_secs(1));
            self.tick();
        }
        let status = self.world.hosts[self.relay].endpoint.relay_status().unwrap();
        let names: Vec<Name> = status.names.iter().map(|name| name.name.clone()).collect();
        assert_eq!(names, [Name::from("alice"), Name::from("bob")]);
        assert_eq!(status.connections.len(), 2);
        assert_eq!(status.tunnels.len(), 1);
        assert!(
            status
                .connections
                .iter()
                .all(|conn| (conn.tunnels, conn.pending) == (1, 0))
        );
        let stats = self.endpoint_stats();
        assert_eq!((stats.open, stats.handshaking), (2, 0));
        for node in [self.alice, self.bob] {
            let (_, session) = self.world.hosts[node.0].endpoint.client_status(node.1).unwrap();
            let session = session.unwrap();
            assert_eq!((session.active_tunnels, session.unidentified_streams), (1, 0));
            assert_eq!((session.pending_inbound, session.pending_outbound), (0, 0));
        }
    }

    /// A connection of an attacker, with its first stream open and nothing said.
    pub(crate) fn attack(&mut self) -> Raw {
        self.attack_with(world::transport())
    }

    pub(crate) fn attack_with(&mut self, transport: TransportConfig) -> Raw {
        let (host, conn) = self.dial(alpn::MACULA_DIST, transport);
        self.world.find(host, "the handshake", |event| match event {
            Event::Quic(quic::Event::Connected { conn: found, .. }) if *found == conn => Some(()),
            _ => None,
        });
        let mut borrowed = self.world.hosts[host].endpoint.quic().connection(conn).unwrap();
        let control = borrowed.open(Dir::Bi).unwrap();
        Raw {
            host,
            conn,
            control,
            decoder: Decoder::new(4096),
        }
    }

    pub(crate) fn dial(&mut self, protocol: &[u8], transport: TransportConfig) -> (usize, ConnectionHandle) {
        let (now, host) = (self.world.now, self.mallory);
        let address = self.world.hosts[self.relay].address;
        let endpoint = self.world.hosts[host].endpoint.quic();
        let tls = quic::tls::ClientTls::new(quic::tls::Trust::Insecure).alpn([protocol]);
        let mut dial = DialConfig::new(tls.build(endpoint.clock()).unwrap());
        dial.transport = transport;
        (host, endpoint.connect(now, &dial, address, "relay").unwrap())
    }

    /// An attacker that has identified itself.
    pub(crate) fn identified(&mut self, name: &str) -> Raw {
        let mut raw = self.attack();
        raw.identify(&mut self.world, name);
        assert_eq!(raw.hear(&mut self.world), Message::Identified);
        raw
    }
}

/// A client that says and does what it likes.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) host: usize,
    pub(crate) conn: ConnectionHandle,
    pub(crate) control: StreamId,
    decoder: Decoder,
}

impl Raw {
    /// Writes on the first stream, as far as the connection lives.
    pub(crate) fn say(&self, world: &mut World, bytes: &[u8]) {
        self.write(world, self.control, bytes);
    }

    pub(crate) fn write(&self, world: &mut World, stream: StreamId, mut bytes: &[u8]) {
        world.run_until("the bytes are taken", |world| {
            while !bytes.is_empty() {
                let quic = world.hosts[self.host].endpoint.quic();
                let Ok(mut conn) = quic.connection(self.conn) else {
                    return Some(());
                };
                let Ok(mut stream) = conn.stream(stream) else {
                    return Some(());
                };
                match stream.write(bytes) {
                    Ok(written) => bytes = &bytes[written..],
                    Err(quic::WriteError::Blocked) => return None,
                    Err(_) => return Some(()),
                }
            }
            Some(())
        });
    }

    pub(crate) fn message(&self, world: &mut World, message: &Message) {
        self.say(world, &frame(message));
    }

    pub(crate) fn identify(&self, world: &mut World, name: &str) {
        self.message(world, &Message::Identify { name: name.into() });
    }

    /// The next message on the first stream.
    pub(crate) fn hear(&mut self, world: &mut World) -> Message {
        let end = (self.conn, self.control);
        world.run_until("a message", |world| {
            loop {
                if let Some(message) = self.decoder.next() {
                    return Some(message.unwrap().1);
                }
                let read = world.with(self.host, end, |stream| stream.read_chunk(usize::MAX));
                match read {
                    Ok(Some(bytes)) => self.decoder.push(&bytes),
                    _ => return None,
                }
            }
        })
    }

    pub(crate) fn open(&self, world: &mut World, dir: Dir) -> Option<StreamId> {
        let quic = world.hosts[self.host].endpoint.quic();
        quic.connection(self.conn).ok()?.open(dir).ok()
    }

    pub(crate) fn close(&self, world: &mut World) {
        let now = world.now;
        if let Ok(mut conn) = world.hosts[self.host].endpoint.quic().connection(self.conn) {
            conn.close(now, Code::CLOSED, Bytes::new());
        }
    }

    /// How the relay ended the connection.
    pub(crate) fn closed(&self, world: &mut World) -> CloseReason {
        closed(world, self.host, self.conn)
    }

    /// The code and the words with which the relay closed the connection.
    pub(crate) fn closed_with(&self, world: &mut World) -> (Code, String) {
        match self.closed(world) {
            CloseReason::Peer { code, reason } => (code, String::from_utf8(reason.to_vec()).unwrap()),
            other => panic!("not closed by the relay: {other}"),
        }
    }

    /// Streams that the relay opened to this client.
    pub(crate) fn accepted(&self, world: &mut World) -> Vec<StreamId> {
        let mut found = Vec::new();
        world.hosts[self.host].events.retain(|event| match event {
            Event::Quic(quic::Event::StreamOpened { conn, stream }) if *conn == self.conn => {
                found.push(*stream);
                false
            }
            _ => true,
        });
        found
    }
}

pub(crate) fn closed(world: &mut World, host: usize, conn: ConnectionHandle) -> CloseReason {
    world.find(host, "the end of the connection", |event| match event {
        Event::Quic(quic::Event::Closed {
            conn: found, reason, ..
        }) if *found == conn => Some(reason.clone()),
        _ => None,
    })
}

pub(crate) fn frame(message: &Message) -> Bytes {
    let mut bytes = BytesMut::new();
    message.encode(Encoding::MessagePack, &mut bytes);
    bytes.freeze()
}

pub(crate) fn request(target: &str) -> Message {
    Message::TunnelRequest { target: target.into() }
}
