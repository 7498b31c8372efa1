//! QUIC endpoints wired together in memory, on a clock that only the test moves.
//!
//! The world follows the documented contract to the letter: after every input all events, then all datagrams, then
//! nothing before the next input or time-out. It checks what must hold in every test: one end event per connection and
//! nothing behind it, time-outs strictly later than the moment just handled, and no endless activity.

#![allow(dead_code, unreachable_pub, reason = "every test file uses another part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use macula_proto::{
    Limits, Now,
    quic::{
        ConnectionHandle, DatagramMeta, DialConfig, Endpoint, EndpointConfig, Event, ListenConfig, ReadError, StreamId,
        TransportConfig,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
};

pub const ALPN: &[u8] = b"test";
pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

const MAX_STEPS: usize = 400_000;
const UNIX_MS: u64 = 1_700_000_000_000;

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What the link does with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Deliver,
    Drop,
    Twice,
    /// This much later than others, so that it is overtaken.
    Late(Duration),
}

#[derive(Debug, Clone)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub data: Vec<u8>,
}

/// The network between all endpoints.
pub struct Link {
    pub delay: Duration,
    /// Largest UDP payload; longer datagrams vanish.
    pub mtu: usize,
    pub fate: Box<dyn FnMut(&mut Packet) -> Fate>,
}

pub struct Node {
    pub ep: Endpoint,
    /// Where others reach it; changing it is what a NAT does when it forgets a binding.
    pub addr: SocketAddr,
    pub credentials: Credentials,
    events: Vec<Event>,
    connected: BTreeSet<ConnectionHandle>,
    closed: BTreeSet<ConnectionHandle>,
    over: BTreeSet<(ConnectionHandle, StreamId)>,
}

pub struct World {
    pub now: Now,
    pub start: Instant,
    pub nodes: Vec<Node>,
    pub link: Link,
    wire: BTreeMap<(Instant, u64), Packet>,
    count: u64,
    /// Time since the start, sender and length of every datagram sent.
    pub trace: Vec<(Duration, usize, usize)>,
}

impl World {
    pub fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an instant to count from; no test looks at it again"
        )]
        let start = Instant::now();
        Self {
            now: Now::new(start, UNIX_MS),
            start,
            nodes: Vec::new(),
            link: Link {
                delay: ms(10),
                mtu: 1472,
                fate: Box::new(|_| Fate::Deliver),
            },
            wire: BTreeMap::new(),
            count: 0,
            trace: Vec::new(),
        }
    }

    /// A world of one dialling and one listening endpoint.
    pub fn pair() -> Self {
        let mut world = Self::new();
        world.add(Limits::default());
        world.add(Limits::default());
        world.listen(SERVER, |_| {});
        world
    }

    /// The same, and a connection between them.
    pub fn connected() -> (Self, ConnectionHandle, ConnectionHandle) {
        Self::connected_with(&transport(|_| {}), &transport(|_| {}))
    }

    pub fn connected_with(
        client: &TransportConfig,
        server: &TransportConfig,
    ) -> (Self, ConnectionHandle, ConnectionHandle) {
        let mut world = Self::pair();
        let transport = server.clone();
        world.listen(SERVER, move |config| config.transport = transport);
        let mut config = world.dial_config(SERVER);
        config.transport = client.clone();
        let (c, s) = world.establish(&config);
        (world, c, s)
    }

    // ----- endpoints -----------------------------------------------------------------------------------------------

    pub fn add(&mut self, limits: Limits) -> usize {
        self.add_with(&EndpointConfig::default(), limits)
    }

    pub fn add_with(&mut self, config: &EndpointConfig, limits: Limits) -> usize {
        let index = self.nodes.len();
        let seed = u8::try_from(index).unwrap() + 1;
        let names = vec!["localhost".to_owned()];
        let content = SelfSigned {
            names,
            ..SelfSigned::default()
        };
        self.nodes.push(Node {
            ep: endpoint(config, limits, u64::from(seed)),
            addr: SocketAddr::from(([192, 0, 2, seed], 4433)),
            credentials: Credentials::self_signed(&[seed; 32], &content).unwrap(),
            events: Vec::new(),
            connected: BTreeSet::new(),
            closed: BTreeSet::new(),
            over: BTreeSet::new(),
        });
        index
    }

    /// Replaces an endpoint by a new one, as a restart of its process does.
    pub fn restart(&mut self, node: usize) {
        let seed = u64::try_from(node).unwrap() + 1;
        let ep = endpoint(&EndpointConfig::default(), Limits::default(), seed);
        let node = &mut self.nodes[node];
        node.ep = ep;
        node.events.clear();
        node.connected.clear();
        node.closed.clear();
    }

    pub fn server_tls(&self, node: usize) -> ServerTls {
        ServerTls::new(self.nodes[node].credentials.clone()).alpn([ALPN])
    }

    pub fn client_tls(&self, server: usize) -> ClientTls {
        ClientTls::new(Trust::Pins(vec![self.nodes[server].credentials.pin()])).alpn([ALPN])
    }

    pub fn listen(&mut self, node: usize, change: impl FnOnce(&mut ListenConfig)) {
        let tls = self.server_tls(node).build(self.nodes[node].ep.clock()).unwrap();
        let mut config = ListenConfig::new(tls);
        config.transport = transport(|_| {});
        change(&mut config);
        self.nodes[node].ep.listen(config).unwrap();
    }

    pub fn dial_config(&self, server: usize) -> DialConfig {
        DialConfig::new(self.client_tls(server).build(self.nodes[CLIENT].ep.clock()).unwrap())
    }

    pub fn dial(&mut self, config: &DialConfig) -> ConnectionHandle {
        let to = self.nodes[SERVER].addr;
        let now = self.now;
        self.client().connect(now, config, to, "localhost").unwrap()
    }

    /// Dials and waits until both ends are connected.
    pub fn establish(&mut self, config: &DialConfig) -> (ConnectionHandle, ConnectionHandle) {
        let c = self.dial(config);
        let mut server = None;
        let mut client = false;
        self.run_until(secs(5), |world| {
            client |= world.take(CLIENT).iter().any(|e| matches!(e, Event::Connected { .. }));
            for event in world.take(SERVER) {
                if let Event::Connected { conn, .. } = event {
                    server = Some(conn);
                }
            }
            client && server.is_some()
        });
        (c, server.unwrap())
    }

    pub fn client(&mut self) -> &mut Endpoint {
        &mut self.nodes[CLIENT].ep
    }

    pub fn server(&mut self) -> &mut Endpoint {
        &mut self.nodes[SERVER].ep
    }

    /// The events of a node since the last call.
    pub fn take(&mut self, node: usize) -> Vec<Event> {
        std::mem::take(&mut self.nodes[node].events)
    }

    /// A fresh connection that is there from before; its events are forgotten.
    pub fn clear_events(&mut self) {
        for node in &mut self.nodes {
            node.events.clear();
        }
    }

    // ----- time ----------------------------------------------------------------------------------------------------

    pub fn elapsed(&self) -> Duration {
        self.now.mono - self.start
    }

    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.after(by);
    }

    /// Polls every endpoint as its contract asks for.
    pub fn drain(&mut self) {
        for node in 0..self.nodes.len() {
            self.drain_node(node);
        }
    }

    fn drain_node(&mut self, index: usize) {
        let mut polled = 0;
        while let Some(event) = self.nodes[index].ep.poll_event() {
            self.nodes[index].record(event);
            polled += 1;
            assert!(polled < MAX_STEPS, "events without end");
        }
        self.transmit_node(index);
    }

    fn transmit_node(&mut self, index: usize) {
        let max = NonZeroUsize::new(10).unwrap();
        let mut buf = Vec::new();
        let mut sent = 0;
        loop {
            buf.clear();
            let Some(transmit) = self.nodes[index].ep.poll_transmit(self.now, max, &mut buf) else {
                break;
            };
            assert_eq!(transmit.size, buf.len());
            sent += 1;
            assert!(sent < MAX_STEPS, "datagrams without end");
            let size = transmit.segment_size.unwrap_or(transmit.size);
            for data in buf.chunks(size) {
                self.send(index, transmit.destination, data);
            }
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, data: &[u8]) {
        self.trace.push((self.elapsed(), from, data.len()));
        if data.len() > self.link.mtu {
            return;
        }
        let mut packet = Packet {
            from: self.nodes[from].addr,
            to,
            data: data.to_vec(),
        };
        let fate = (self.link.fate)(&mut packet);
        let at = self.now.mono + self.link.delay;
        match fate {
            Fate::Drop => {}
            Fate::Deliver => self.post(at, packet),
            Fate::Late(by) => self.post(at + by, packet),
            Fate::Twice => {
                self.post(at, packet.clone());
                self.post(at, packet);
            }
        }
    }

    fn post(&mut self, at: Instant, packet: Packet) {
        self.count += 1;
        self.wire.insert((at, self.count), packet);
    }

    /// Puts a datagram on the link that no endpoint sent.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        let at = self.now.mono + self.link.delay;
        self.post(at, Packet { from, to, data });
    }

    fn next_moment(&self) -> Option<Instant> {
        let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
        let timers = self.nodes.iter().filter_map(|node| node.ep.poll_timeout());
        timers.chain(wire).min()
    }

    /// Moves to the next moment at which something happens, unless that is after `limit`.
    pub fn step(&mut self, limit: Instant) -> bool {
        if !self.advance_to_next(limit) {
            return false;
        }
        for index in 0..self.nodes.len() {
            if self.fire(index) {
                self.drain_node(index);
                if let Some(next) = self.nodes[index].ep.poll_timeout() {
                    assert!(
                        next > self.now.mono,
                        "the time-out must be later than the one just handled"
                    );
                }
            } else {
                self.drain_node(index);
            }
        }
        true
    }

    /// The same, but leaves the events to the test.
    pub fn step_polled(&mut self, limit: Instant) {
        for index in 0..self.nodes.len() {
            self.transmit_node(index);
        }
        if let Some(at) = self.next_moment().filter(|at| *at <= limit) {
            self.arrive(at);
            for index in 0..self.nodes.len() {
                self.fire(index);
            }
        }
    }

    fn fire(&mut self, index: usize) -> bool {
        let now = self.now;
        let due = self.nodes[index].ep.poll_timeout().is_some_and(|at| at <= now.mono);
        if due {
            self.nodes[index].ep.handle_timeout(now);
        }
        due
    }

    fn advance_to_next(&mut self, limit: Instant) -> bool {
        self.drain();
        let Some(at) = self.next_moment().filter(|at| *at <= limit) else {
            return false;
        };
        self.arrive(at);
        true
    }

    fn arrive(&mut self, at: Instant) {
        if at > self.now.mono {
            self.now = self.now.after(at - self.now.mono);
        }
        while let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= self.now.mono
        {
            let packet = entry.remove();
            self.deliver(packet);
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let now = self.now;
        if let Some(node) = self.nodes.iter_mut().find(|node| node.addr == packet.to) {
            let data = BytesMut::from(&packet.data[..]);
            node.ep.handle_datagram(now, DatagramMeta::from(packet.from), data);
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let limit = self.now.mono + time;
        for _ in 0..MAX_STEPS {
            if !self.step(limit) {
                self.now = self.now.after(limit - self.now.mono);
                return;
            }
        }
        panic!("activity without end");
    }

    /// Lets time pass, and `app` act after every step, until it is content.
    ///
    /// # Panics
    /// If it is not content within `time`.
    pub fn run_until(&mut self, time: Duration, mut app: impl FnMut(&mut Self) -> bool) {
        let limit = self.now.mono + time;
        for _ in 0..MAX_STEPS {
            self.drain();
            if app(self) {
                self.drain();
                return;
            }
            assert!(self.step(limit), "nothing more happens within {time:?}");
        }
        panic!("activity without end");
    }

    /// Lets everything finish that can, closing times included, and checks that nothing is left.
    pub fn run_to_rest(&mut self) {
        self.run_for(secs(600));
        for node in &mut self.nodes {
            assert_eq!(node.ep.connections().count(), 0, "connections are forgotten");
            assert!(node.ep.is_idle());
            assert_eq!(node.ep.poll_timeout(), None, "nothing is left to wait for");
            let stats = node.ep.stats();
            assert_eq!((stats.open, stats.handshaking), (0, 0));
        }
    }

    // ----- streams -------------------------------------------------------------------------------------------------

    /// Reads everything that is there; the second says how it ended.
    pub fn read(&mut self, node: usize, conn: ConnectionHandle, stream: StreamId) -> (Vec<u8>, Result<(), ReadError>) {
        let mut out = Vec::new();
        let mut conn = self.nodes[node].ep.connection(conn).unwrap();
        let Ok(mut stream) = conn.stream(stream) else {
            return (out, Err(ReadError::Closed));
        };
        loop {
            match stream.read_chunk(usize::MAX) {
                Ok(Some(bytes)) => out.extend_from_slice(&bytes),
                Ok(None) => return (out, Ok(())),
                Err(error) => return (out, Err(error)),
            }
        }
    }

    /// Waits for the next stream that the peer opens.
    pub fn wait_stream(&mut self, node: usize) -> StreamId {
        let mut found = None;
        self.run_until(secs(5), |world| {
            let opened = world.nodes[node].events.iter().find_map(|event| match event {
                Event::StreamOpened { stream, .. } => Some(*stream),
                _ => None,
            });
            found = opened;
            opened.is_some()
        });
        let stream = found.unwrap();
        let events = &mut self.nodes[node].events;
        let at = events
            .iter()
            .position(|e| matches!(e, Event::StreamOpened { stream: s, .. } if *s == stream));
        events.remove(at.unwrap());
        stream
    }
}

impl Node {
    fn record(&mut self, event: Event) {
        if let Some(conn) = event.connection() {
            assert!(!self.closed.contains(&conn), "after the end event: {event:?}");
            match &event {
                Event::Connected { .. } => assert!(self.connected.insert(conn), "connected twice"),
                Event::Closed { .. } => assert!(self.closed.insert(conn), "closed twice"),
                _ => {}
            }
            if let Some(stream) = event.stream() {
                assert!(!self.over.contains(&(conn, stream)), "after its last event: {event:?}");
                if let Event::Over { .. } = event {
                    // Every stream has it in the end; tests look at what is special.
                    self.over.insert((conn, stream));
                    return;
                }
            }
        }
        self.events.push(event);
    }
}

#[cfg(feature = "sim")]
fn endpoint(config: &EndpointConfig, limits: Limits, seed: u64) -> Endpoint {
    Endpoint::simulated(config, limits, seed).unwrap()
}

#[cfg(not(feature = "sim"))]
fn endpoint(config: &EndpointConfig, limits: Limits, _seed: u64) -> Endpoint {
    Endpoint::new(config, limits).unwrap()
}

/// Bytes that show where they belong.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap())
        .collect()
}

/// The default transport with changes.
pub fn transport(change: impl FnOnce(&mut TransportConfig)) -> TransportConfig {
    let mut config = TransportConfig::default();
    change(&mut config);
    config
}
