//! A client, a server, and bytes between them.

use std::time::Duration;

use macula_proto::{
    Event,
    quic::{
        self, ConnectionHandle, DatagramSize, DialConfig, Dir, ListenConfig, ReadError, StreamId, TransportConfig,
        tls::{ClientTls, ServerTls, Trust},
    },
    sim::{Happening, HostConfig, HostId, Link, World},
};

pub(crate) const ALPN: &[u8] = b"test";

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A world with a client that dials a server, and what they told.
pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) client: HostId,
    pub(crate) server: HostId,
    /// The latest connection on either side.
    pub(crate) conns: [Option<ConnectionHandle>; 2],
    /// Bytes that the server has read, and the end of the stream.
    pub(crate) received: Vec<u8>,
    pub(crate) finished: bool,
    pub(crate) events: Vec<(HostId, quic::Event)>,
    pub(crate) transport: TransportConfig,
}

pub(crate) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.datagram_size = DatagramSize::UpTo(1452);
    transport
}

impl Pair {
    /// Not connected yet.
    pub(crate) fn new(seed: u64, link: Link, client: HostConfig) -> Self {
        let mut world = World::new(seed);
        world.set_default_link(link);
        let client = world.add(client).unwrap();
        let server = world.add(HostConfig::default()).unwrap();
        let mut pair = Self {
            world,
            client,
            server,
            conns: [None; 2],
            received: Vec::new(),
            finished: false,
            events: Vec::new(),
            transport: transport(),
        };
        pair.listen();
        pair
    }

    pub(crate) fn connected(seed: u64, link: Link) -> Self {
        let mut pair = Self::new(seed, link, HostConfig::default());
        pair.dial();
        pair.until(secs(20), |pair| pair.conns.iter().all(Option::is_some));
        pair
    }

    pub(crate) fn listen(&mut self) {
        let credentials = self.world.credentials("server");
        let transport = self.transport.clone();
        let listening = self.world.with(self.server, |endpoint, _| {
            let tls = ServerTls::new(credentials).alpn([ALPN]);
            let mut config = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
            config.transport = transport;
            endpoint.quic().listen(config)
        });
        listening.unwrap().unwrap();
    }

    pub(crate) fn dial(&mut self) {
        let pin = self.world.credentials("server").pin();
        let (to, transport) = (self.world.address(self.server), self.transport.clone());
        let dialled = self.world.with(self.client, |endpoint, now| {
            let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([ALPN]);
            let mut config = DialConfig::new(tls.build(endpoint.quic().clock()).unwrap());
            config.transport = transport;
            endpoint.quic().connect(now, &config, to, "server")
        });
        dialled.unwrap().unwrap();
    }

    /// Queues bytes on a new stream of the client, and its end.
    pub(crate) fn upload(&mut self, bytes: Vec<u8>) -> StreamId {
        let conn = self.conns[0].unwrap();
        let opened = self.world.with(self.client, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).unwrap();
            let stream = conn.open(Dir::Uni).unwrap();
            conn.stream(stream).unwrap().enqueue(bytes.into()).unwrap();
            conn.stream(stream).unwrap().finish().unwrap();
            stream
        });
        opened.unwrap()
    }

    /// Does what a program would: reads.
    pub(crate) fn on(&mut self, happening: Happening) {
        let Happening::Event {
            host,
            event: Event::Quic(event),
        } = happening
        else {
            return;
        };
        match &event {
            quic::Event::Connected { conn, .. } => {
                self.conns[usize::from(host == self.server)] = Some(*conn);
            }
            quic::Event::StreamOpened { conn, stream } | quic::Event::Readable { conn, stream } => {
                self.read(host, *conn, *stream);
            }
            _ => {}
        }
        self.events.push((host, event));
    }

    fn read(&mut self, host: HostId, conn: ConnectionHandle, stream: StreamId) {
        let (received, finished) = (&mut self.received, &mut self.finished);
        let done = self.world.with(host, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).unwrap();
            let Ok(mut stream) = conn.stream(stream) else {
                return;
            };
            loop {
                match stream.read_chunk(usize::MAX) {
                    Ok(Some(bytes)) => received.extend_from_slice(&bytes),
                    Ok(None) => return *finished = true,
                    Err(ReadError::Blocked) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        done.unwrap();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.world.elapsed() + time;
        while let Some(happening) = self.world.next(until) {
            self.on(happening);
        }
        assert_eq!(self.world.violations(), []);
    }

    /// Runs until it is so; panics after `time`.
    pub(crate) fn until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) {
        let until = self.world.elapsed() + time;
        while !done(self) {
            let happening = self.world.next(until).expect("it comes in time");
            self.on(happening);
        }
    }

    /// Uploads so many bytes and gives the time it took.
    pub(crate) fn transfer(&mut self, length: usize) -> Duration {
        let begin = self.world.elapsed();
        self.finished = false;
        self.received.clear();
        let bytes = pattern(length);
        self.upload(bytes.clone());
        self.until(secs(600), |pair| pair.finished);
        assert!(self.received == bytes);
        self.world.elapsed() - begin
    }

    pub(crate) fn stats(&mut self, side: usize) -> quic::ConnectionStats {
        let conn = self.conns[side].unwrap();
        let host = [self.client, self.server][side];
        let stats = self
            .world
            .with(host, |endpoint, _| endpoint.quic().connection(conn).unwrap().stats());
        stats.unwrap()
    }
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap())
        .collect()
}
