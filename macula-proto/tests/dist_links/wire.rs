//! The bytes on each stream, seen by a peer made of nothing but QUIC.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Event, Limits, Now,
    dist::user::{Owner, Priority},
    endpoint::DistId,
    quic::{
        self, ConnectionHandle, DialConfig, Dir, ListenConfig, StreamId, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    wire::dist::{
        Flags,
        handshake::{Ack, Challenge, Cookie, Digest, Message, Name, Reply, Sender, Status},
    },
};

use crate::net::{Net, atom, config, transport};

const NODE: usize = 0;
const RAW: usize = 1;

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    bytes.to_vec()
}

/// A node, and a host that speaks QUIC only.
fn net() -> Net {
    let mut net = Net {
        world: crate::world::World::new(),
        names: Vec::new(),
    };
    let mut node = config("a@h");
    node.controller.net_tick = None;
    net.add("a@h", node);
    net.world.add(Limits::default());
    let endpoint = &mut net.world.hosts[RAW].endpoint;
    let credentials = Credentials::self_signed(&[8; 32], &SelfSigned::default()).unwrap();
    let tls = ServerTls::new(credentials).alpn([alpn::ERLANG_DIST]);
    let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
    listen.transport = transport();
    endpoint.quic().listen(listen).unwrap();
    net
}

impl Net {
    fn raw(&mut self, what: &str, pick: impl Fn(&quic::Event) -> Option<ConnectionHandle>) -> ConnectionHandle {
        self.world.find(RAW, what, |event| match event {
            Event::Quic(event) => pick(event),
            _ => None,
        })
    }

    fn raw_connected(&mut self) -> ConnectionHandle {
        self.raw("the connection", |event| match event {
            quic::Event::Connected { conn, .. } => Some(*conn),
            _ => None,
        })
    }

    /// What there is to read on a stream, or `None`.
    fn raw_read(&mut self, conn: ConnectionHandle, stream: u64) -> Option<Vec<u8>> {
        let mut connection = self.world.hosts[RAW].endpoint.quic().connection(conn).unwrap();
        let mut stream = connection.stream(StreamId::new(stream).unwrap()).ok()?;
        stream.read_chunk(1 << 16).ok().flatten().map(|bytes| bytes.to_vec())
    }

    /// The next bytes of a stream, and when they were there.
    fn raw_next(&mut self, conn: ConnectionHandle, stream: u64) -> (Now, Vec<u8>) {
        let mut found = None;
        loop {
            if let Some(bytes) = found.take() {
                return (self.world.now, bytes);
            }
            found = self.raw_read(conn, stream);
            if found.is_none() {
                let until = self.world.now.mono + Duration::from_secs(60);
                assert!(self.world.step(until), "nothing comes");
            }
        }
    }

    fn raw_write(&mut self, conn: ConnectionHandle, stream: u64, bytes: &[u8]) {
        let stream = StreamId::new(stream).unwrap();
        let written = self.world.with(RAW, (conn, stream), |stream| stream.write(bytes));
        assert_eq!(written, Ok(bytes.len()));
    }

    fn raw_open(&mut self, conn: ConnectionHandle) -> u64 {
        let mut connection = self.world.hosts[RAW].endpoint.quic().connection(conn).unwrap();
        connection.open(Dir::Bi).unwrap().get()
    }

    /// The streams that the node has opened.
    fn opened(&self) -> Vec<u64> {
        let events = self.world.hosts[RAW].events.iter();
        events
            .filter_map(|event| match event {
                Event::Quic(quic::Event::StreamOpened { stream, .. }) => Some(stream.get()),
                _ => None,
            })
            .collect()
    }

    fn send(&mut self, dist: DistId, message: &'static [u8]) {
        let sent = self.try_send((NODE, dist), &Bytes::from_static(message), 0);
        assert_eq!(sent, Ok(()));
    }
}

fn challenge(bytes: &[u8]) -> Challenge {
    match Message::decode(Sender::Acceptor, bytes) {
        Ok(Message::Challenge(challenge)) => challenge,
        other => panic!("{other:?}"),
    }
}

/// A raw client gets in; what it read of each message is checked on the way.
fn raw_client(net: &mut Net) -> (ConnectionHandle, DistId) {
    let tls = ClientTls::new(Trust::Insecure).alpn([alpn::ERLANG_DIST]);
    let (now, remote) = (net.world.now, net.world.hosts[NODE].address);
    let endpoint = net.world.hosts[RAW].endpoint.quic();
    let mut dial = DialConfig::new(tls.build(endpoint.clock()).unwrap());
    dial.transport = transport();
    let conn = endpoint.connect(now, &dial, remote, "node").unwrap();
    net.raw_connected();
    assert_eq!(net.raw_open(conn), 0);
    let (flags, name) = (Flags::DEFAULT, atom("b@h"));
    // A tick in between is nothing.
    net.raw_write(conn, 0, &[0; 4]);
    net.raw_write(
        conn,
        0,
        &encoded(&Message::Name(Name {
            flags,
            creation: 3,
            name,
        })),
    );
    let (first, status) = net.raw_next(conn, 0);
    assert_eq!(status, b"sok", "no length in front, and nothing behind");
    assert_eq!(status, encoded(&Message::Status(Status::Ok)));
    let (second, bytes) = net.raw_next(conn, 0);
    assert!(
        second.mono - first.mono >= Duration::from_millis(49),
        "a reader takes them for two"
    );
    let challenge = challenge(&bytes);
    assert_eq!(challenge.name, atom("a@h"));
    let cookie = Cookie::from("monster");
    let digest = Digest::of(&cookie, challenge.challenge);
    net.raw_write(conn, 0, &encoded(&Message::Reply(Reply { challenge: 99, digest })));
    let (_, ack) = net.raw_next(conn, 0);
    let digest = Digest::of(&cookie, 99);
    assert_eq!(ack, encoded(&Message::Ack(Ack { digest })));
    let dist = net.up(NODE);
    (conn, dist)
}

#[test]
fn a_server_uses_the_streams_of_a_server() {
    let mut net = net();
    let (conn, dist) = raw_client(&mut net);
    net.world.run_for(Duration::from_secs(1));
    assert!(net.opened().is_empty(), "nothing is heard of streams without bytes");
    net.send(dist, b"hello");
    net.send(dist, b"you");
    let (_, bytes) = net.raw_next(conn, 13);
    assert_eq!(bytes, b"\0\0\0\x05hello\0\0\0\x03you");
    assert_eq!(net.opened(), [1, 5, 9, 13]);
    // Messages may come on any of the four, cut anywhere.
    assert_eq!([4, 8, 12, 16].map(|_| net.raw_open(conn)), [4, 8, 12, 16]);
    net.raw_write(conn, 16, b"\0\0\0\x04on");
    net.world.run_for(Duration::from_millis(50));
    assert_eq!(net.recv((NODE, dist)), None);
    net.raw_write(conn, 16, b"16\0\0\0\0\0\0\0\x02");
    net.raw_write(conn, 4, b"\0\0\0\x03on4");
    net.raw_write(conn, 16, b"ok");
    net.world.run_for(Duration::from_millis(50));
    let mut messages: Vec<Bytes> = std::iter::from_fn(|| net.recv((NODE, dist))).collect();
    messages.sort();
    assert_eq!(messages, ["ok", "on16", "on4"], "and a tick between them is nothing");
    // A stream behind those is a user's, and nobody takes it.
    assert_eq!(net.raw_open(conn), 20);
    net.raw_write(conn, 20, b"anybody?");
    net.raw("the refusal", |event| match event {
        quic::Event::Reset { conn, stream, code } if stream.get() == 20 && code.get() == 0x100 => Some(*conn),
        _ => None,
    });
    // The node's own begin at 17.
    let now = net.world.now;
    let endpoint = &mut net.world.hosts[NODE].endpoint;
    let stream = endpoint
        .dist_open_stream(now, dist, Owner(1), Priority::default())
        .unwrap();
    endpoint
        .dist_stream_write(dist, stream, Owner(1), &mut Bytes::from_static(b"user"))
        .unwrap();
    assert_eq!(net.raw_next(conn, 17).1, b"user", "bytes as they are");
}

#[test]
fn ticks_are_four_zeros_on_the_control_stream() {
    let mut net = net();
    let (conn, dist) = raw_client(&mut net);
    let now = net.world.now;
    net.world.hosts[NODE].endpoint.dist_tick(now, dist);
    assert_eq!(net.raw_next(conn, 0).1, [0; 4]);
    // Nothing is answered right behind one's own tick; later, one of many is.
    for (wait, answered) in [
        (500, false),
        (1_000, true),
        (2_000, false),
        (2_000, false),
        (1_500, true),
    ] {
        net.world.run_for(Duration::from_millis(wait));
        net.raw_write(conn, 0, &[0; 4]);
        net.world.run_for(Duration::from_millis(100));
        let expected = answered.then(|| vec![0; 4]);
        assert_eq!(net.raw_read(conn, 0), expected, "after {wait} ms");
    }
    net.raw_write(conn, 0, b"x");
    net.raw("the end", |event| match event {
        quic::Event::Closed { conn, reason, .. } if reason.code() == Some(Code::PROTOCOL) => Some(*conn),
        _ => None,
    });
}

#[test]
fn a_client_uses_the_streams_of_a_client_and_delivers_early_messages_first() {
    let mut net = net();
    let (now, remote) = (net.world.now, net.world.hosts[RAW].address);
    let endpoint = &mut net.world.hosts[NODE].endpoint;
    let dist = endpoint.connect_dist(now, atom("b@h"), remote, "node").unwrap();
    let conn = net.raw_connected();
    let (_, name) = net.raw_next(conn, 0);
    let (flags, creation) = (Flags::DEFAULT, 7);
    assert_eq!(
        name,
        encoded(&Message::Name(Name {
            flags,
            creation,
            name: atom("a@h")
        }))
    );
    assert_eq!(net.opened(), [0]);
    // Joined, which deployed nodes do not do, and a message long before the node is up.
    assert_eq!([1, 5, 9, 13].map(|_| net.raw_open(conn)), [1, 5, 9, 13]);
    net.raw_write(conn, 13, b"\0\0\0\x05early");
    let cookie = Cookie::from("monster");
    let challenge = Challenge {
        flags,
        challenge: 5,
        creation: 1,
        name: atom("b@h"),
    };
    let joined = [
        encoded(&Message::Status(Status::Ok)),
        encoded(&Message::Challenge(challenge)),
    ]
    .concat();
    net.raw_write(conn, 0, &joined);
    let (_, reply) = net.raw_next(conn, 0);
    let Ok(Message::Reply(Reply { challenge, digest })) = Message::decode(Sender::Dialler, &reply) else {
        panic!("{reply:?}")
    };
    assert_eq!(digest, Digest::of(&cookie, 5));
    net.world.run_for(Duration::from_secs(1));
    assert_eq!(net.recv((NODE, dist)), None, "the node is not up");
    net.raw_write(conn, 13, b"\0\0\0\x04late");
    let digest = Digest::of(&cookie, challenge);
    net.raw_write(conn, 0, &encoded(&Message::Ack(Ack { digest })));
    assert_eq!(net.up(NODE), dist);
    net.world.run_for(Duration::from_secs(1));
    let messages: Vec<Bytes> = std::iter::from_fn(|| net.recv((NODE, dist))).collect();
    assert_eq!(messages, ["early", "late"]);
    let stat = net.world.hosts[NODE].endpoint.dist_stat(dist).unwrap();
    assert_eq!(stat.controller.pool.messages_early, 2);
    net.send(dist, b"hello");
    assert_eq!(net.raw_next(conn, 16).1, b"\0\0\0\x05hello");
    assert_eq!(net.opened(), [0, 4, 8, 12, 16]);
    let now = net.world.now;
    let endpoint = &mut net.world.hosts[NODE].endpoint;
    for id in [20, 24] {
        let stream = endpoint
            .dist_open_stream(now, dist, Owner(1), Priority::default())
            .unwrap();
        assert_eq!(stream.get(), id);
    }
}

#[test]
fn who_has_proved_nothing_is_not_given_memory() {
    let mut net = net();
    let tls = ClientTls::new(Trust::Insecure).alpn([alpn::ERLANG_DIST]);
    let (now, remote) = (net.world.now, net.world.hosts[NODE].address);
    let endpoint = net.world.hosts[RAW].endpoint.quic();
    let mut dial = DialConfig::new(tls.build(endpoint.clock()).unwrap());
    dial.transport = transport();
    let conn = endpoint.connect(now, &dial, remote, "node").unwrap();
    net.raw_connected();
    let streams = [0; 5].map(|_| net.raw_open(conn));
    // A message of 64 MiB that never ends, on each of them.
    for stream in &streams[1..] {
        net.raw_write(conn, *stream, &[4, 0, 0, 0]);
    }
    let piece = vec![1; 64 << 10];
    let mut written = 0;
    net.raw_write(conn, 0, b"N");
    let until = net.world.now.mono + Duration::from_secs(5);
    while net.world.now.mono < until {
        for stream in &streams[1..] {
            let stream = StreamId::new(*stream).unwrap();
            let mut connection = net.world.hosts[RAW].endpoint.quic().connection(conn).unwrap();
            let taken = connection
                .stream(stream)
                .ok()
                .and_then(|mut stream| stream.write(&piece).ok());
            written += taken.unwrap_or(0);
        }
        net.world.run_for(Duration::from_millis(10));
    }
    assert!(
        written < (4 * (4 << 20)) + (1 << 20),
        "{written} bytes: the windows of four streams and a little more"
    );
    net.raw("the end", |event| match event {
        quic::Event::Closed { conn, reason, .. } if reason.code() == Some(Code::TIMEOUT) => Some(*conn),
        _ => None,
    });
}
