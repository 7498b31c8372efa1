//! Endpoints wired in memory, on a virtual clock.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses a part of it, as a module of its own"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use macula_proto::{
    Endpoint, Event, Limits, Now, Rng, WallClock,
    endpoint::{ClientEvent, ClientId, RelayClientConfig, ShardMessage},
    quic::{
        self, ConnectionHandle, DatagramMeta, DatagramSize, DialConfig, EndpointConfig, ListenConfig, ResetKey, Shard,
        StreamId, TransportConfig, alpn,
        tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
    },
    tunnel::{
        Name,
        client::{
            session::{RequestId, SessionConfig},
            supervisor::SupervisorConfig,
        },
        relay::{RelayConfig, Report},
    },
};

pub const DELAY: Duration = Duration::from_millis(5);
const UNIX_MS: u64 = 1_750_000_000_000;

/// A host and the stream there.
pub type TunnelEnd = (usize, (ConnectionHandle, StreamId));

/// One host: an endpoint and what it was told.
pub struct Host {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    pub events: Vec<Event>,
    pub alive: bool,
}

/// Hosts on one network.
pub struct World {
    start: Instant,
    pub now: Now,
    pub hosts: Vec<Host>,
    in_flight: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    /// Every so many datagrams, one is lost.
    pub lose_every: Option<u64>,
    /// Every so many datagrams, one is late.
    pub delay_every: Option<u64>,
    /// How long each datagram is on its way, unless it is late.
    pub delay: Duration,
    /// Bytes that each host can send in a second.
    pub rate: Option<u64>,
    /// How long a datagram may wait for those before it; others are lost.
    pub queue: Duration,
    /// Until when each host is busy with sending.
    busy: BTreeMap<SocketAddr, Instant>,
    nodes: Vec<(String, usize, ClientId)>,
    /// What shards have for each other, by when it arrives: from, to, what.
    mail: BTreeMap<(Instant, u64), (usize, usize, ShardMessage)>,
    /// How long that takes at most, and when the last message between two arrives.
    pub mail_delay: Option<(Duration, Rng)>,
    mailed: BTreeMap<(usize, usize), Instant>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    pub fn new() -> Self {
        let start = Instant::now();
        Self {
            start,
            now: Now::new(start, UNIX_MS),
            hosts: Vec::new(),
            in_flight: BTreeMap::new(),
            sent: 0,
            lose_every: None,
            delay_every: None,
            delay: DELAY,
            rate: None,
            queue: Duration::from_millis(100),
            busy: BTreeMap::new(),
            nodes: Vec::new(),
            mail: BTreeMap::new(),
            mail_delay: None,
            mailed: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, limits: Limits) -> usize {
        self.add_endpoint(&EndpointConfig::default(), limits)
    }

    fn add_endpoint(&mut self, config: &EndpointConfig, limits: Limits) -> usize {
        let index = self.hosts.len();
        let seed = u8::try_from(index).unwrap();
        let endpoint = Endpoint::new(config, limits, [seed; 32]).unwrap();
        let address = SocketAddr::from(([10, 0, 0, seed + 1], 4434));
        self.hosts.push(Host {
            endpoint,
            address,
            events: Vec::new(),
            alive: true,
        });
        index
    }

    pub fn add_relay(&mut self, config: RelayConfig) -> usize {
        let host = self.add(config.limits.clone());
        self.serve_relay(host, config);
        host
    }

    /// A relay of several endpoints on one port, the first of which decides. Nodes are spread by their addresses: those of the
    /// hosts with index `n` reach the one with index `n % count`.
    pub fn add_sharded_relay(&mut self, config: &RelayConfig, count: u8) -> Vec<usize> {
        let mut of_endpoint = EndpointConfig::default();
        of_endpoint.reset_key = Some(ResetKey::new([9; 32]));
        let shards: Vec<_> = (0..count)
            .map(|index| {
                of_endpoint.shard = Shard::new(index, count).unwrap();
                let host = self.add_endpoint(&of_endpoint, config.limits.clone());
                self.serve_relay(host, config.clone());
                host
            })
            .collect();
        for shard in &shards {
            self.hosts[*shard].address = self.hosts[shards[0]].address;
        }
        shards
    }

    fn serve_relay(&mut self, host: usize, config: RelayConfig) {
        let endpoint = &mut self.hosts[host].endpoint;
        let credentials = Credentials::self_signed(&[7; 32], &SelfSigned::default()).unwrap();
        let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
        let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
        listen.transport = transport();
        endpoint.quic().listen(listen).unwrap();
        endpoint.serve_relay(config);
    }

    /// A relay, and the nodes alice and bob that are identified there.
    pub fn with_two_nodes(config: RelayConfig) -> (Self, usize, (usize, ClientId), (usize, ClientId)) {
        let mut world = Self::new();
        let (relay, alice, bob) = world.two_nodes(config);
        (world, relay, alice, bob)
    }

    pub fn two_nodes(&mut self, config: RelayConfig) -> (usize, (usize, ClientId), (usize, ClientId)) {
        let relay = self.add_relay(config);
        let alice = self.add_node("alice", &[relay]);
        let bob = self.add_node("bob", &[relay]);
        self.identified(relay, "alice");
        self.identified(relay, "bob");
        (relay, alice, bob)
    }

    /// A tunnel from alice to bob: its two ends.
    pub fn tunnel(&mut self, alice: (usize, ClientId), bob: (usize, ClientId)) -> (TunnelEnd, TunnelEnd) {
        let request = self.open(alice, "bob");
        let near = self.opened(alice.0, request);
        let (source, conn, stream) = self.incoming(bob.0);
        assert_eq!(source, Name::from("alice"));
        ((alice.0, near), (bob.0, (conn, stream)))
    }

    pub fn add_node(&mut self, name: &str, relays: &[usize]) -> (usize, ClientId) {
        self.add_node_with(name, relays, |_| {})
    }

    pub fn add_node_with(
        &mut self,
        name: &str,
        relays: &[usize],
        adapt: impl FnOnce(&mut RelayClientConfig),
    ) -> (usize, ClientId) {
        let host = self.add(Limits::default());
        let now = self.now;
        let clock = WallClock::new(UNIX_MS);
        let tls = ClientTls::new(Trust::Insecure).alpn([alpn::MACULA_DIST]);
        let mut dial = DialConfig::new(tls.build(&clock).unwrap());
        dial.transport = transport();
        let relays = relays
            .iter()
            .map(|relay| self.hosts[*relay].address.to_string().parse().unwrap());
        let mut config = RelayClientConfig {
            relays: relays.collect(),
            dial,
            session: SessionConfig::new(Name::from(name)),
            supervisor: SupervisorConfig::default(),
        };
        adapt(&mut config);
        let client = self.hosts[host].endpoint.relay_client(now, config).unwrap();
        self.nodes.push((name.to_owned(), host, client));
        (host, client)
    }

    /// Runs until nothing is left to do at this moment, collecting events.
    pub fn settle(&mut self) {
        loop {
            for index in 0..self.hosts.len() {
                if !self.hosts[index].alive {
                    continue;
                }
                while let Some(event) = self.hosts[index].endpoint.poll_event(self.now) {
                    self.hosts[index].events.push(event);
                }
                self.transmit(index);
                self.post(index);
            }
            if !self.deliver_mail() {
                return;
            }
        }
    }

    /// Takes what a shard has for others, in order between each two.
    fn post(&mut self, index: usize) {
        while let Some((to, message)) = self.hosts[index].endpoint.poll_shard() {
            let to = index - usize::from(self.hosts[index].endpoint.shard().index()) + usize::from(to);
            let late = self.mail_delay.as_mut().map_or(Duration::ZERO, |(most, rng)| {
                Duration::from_nanos(rng.below(most.as_nanos() as u64 + 1))
            });
            let last = self.mailed.get(&(index, to)).copied().unwrap_or(self.now.mono);
            let at = last.max(self.now.mono + late);
            self.mailed.insert((index, to), at);
            self.sent += 1;
            self.mail.insert((at, self.sent), (index, to, message));
        }
    }

    fn deliver_mail(&mut self) -> bool {
        let mut any = false;
        while let Some(entry) = self.mail.first_entry()
            && entry.key().0 <= self.now.mono
        {
            any = true;
            let (from, to, message) = entry.remove();
            let from = self.hosts[from].endpoint.shard().index();
            self.hosts[to].endpoint.handle_shard(self.now, from, message);
        }
        any
    }

    /// The host that the network takes a datagram to.
    fn receiver(&mut self, from: SocketAddr, to: SocketAddr) -> Option<&mut Host> {
        let first = self.hosts.iter().position(|host| host.address == to && host.alive)?;
        let count = usize::from(self.hosts[first].endpoint.shard().count());
        let SocketAddr::V4(from) = from else { return None };
        let chosen = usize::from(from.ip().octets()[3] - 1) % count;
        self.hosts.get_mut(first + chosen)
    }

    fn transmit(&mut self, index: usize) {
        let mut buf = Vec::new();
        let one = NonZeroUsize::new(8).unwrap();
        loop {
            buf.clear();
            let host = &mut self.hosts[index];
            let Some(transmit) = host.endpoint.poll_transmit(self.now, one, &mut buf) else {
                break;
            };
            let size = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buf[..transmit.size].chunks(size) {
                self.sent += 1;
                if self.lose_every.is_some_and(|every| self.sent.is_multiple_of(every)) {
                    continue;
                }
                let late = self.delay_every.is_some_and(|every| self.sent.is_multiple_of(every));
                let from = self.hosts[index].address;
                let Some(left) = leaves(
                    &mut self.busy,
                    from,
                    self.now.mono,
                    datagram.len(),
                    self.rate,
                    self.queue,
                ) else {
                    continue;
                };
                let at = left + if late { self.delay * 3 } else { self.delay };
                self.in_flight
                    .insert((at, self.sent), (from, transmit.destination, datagram.to_vec()));
            }
        }
    }

    /// Moves time to the next thing that happens, at most to `until`; false when nothing happens before.
    pub fn step(&mut self, until: Instant) -> bool {
        self.settle();
        let deliveries = self.in_flight.keys().next().map(|(at, _)| *at);
        let timers = self
            .hosts
            .iter()
            .filter(|host| host.alive)
            .filter_map(|host| host.endpoint.poll_timeout());
        let mail = self.mail.keys().next().map(|(at, _)| *at);
        let Some(next) = deliveries.into_iter().chain(mail).chain(timers).min() else {
            return false;
        };
        if next > until {
            return false;
        }
        self.set_time(next.max(self.now.mono));
        while let Some((&(at, number), _)) = self.in_flight.first_key_value()
            && at <= self.now.mono
        {
            let (from, to, data) = self.in_flight.remove(&(at, number)).unwrap();
            let now = self.now;
            if let Some(host) = self.receiver(from, to) {
                let meta = DatagramMeta::from(from);
                host.endpoint.handle_datagram(now, meta, BytesMut::from(&data[..]));
            }
        }
        for host in self.hosts.iter_mut().filter(|host| host.alive) {
            if host.endpoint.poll_timeout().is_some_and(|at| at <= self.now.mono) {
                host.endpoint.handle_timeout(self.now);
            }
        }
        true
    }

    fn set_time(&mut self, mono: Instant) {
        let elapsed = mono - self.start;
        self.now = Now::new(self.start, UNIX_MS).after(elapsed);
        self.now.mono = mono;
    }

    /// Runs for a while of virtual time.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now.mono + time;
        while self.step(until) {}
        self.set_time(until);
        self.settle();
    }

    /// Runs until `done` answers something; panics after a minute of virtual time.
    pub fn run_until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let until = self.now.mono + Duration::from_secs(60);
        loop {
            self.settle();
            if let Some(result) = done(self) {
                self.settle();
                return result;
            }
            assert!(self.step(until), "nothing more happens, and still not: {what}");
        }
    }

    pub fn find<T>(&mut self, host: usize, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        self.run_until(what, |world| {
            let found = world.hosts[host]
                .events
                .iter()
                .position(|event| pick(event).is_some())?;
            let event = world.hosts[host].events.remove(found);
            pick(&event)
        })
    }

    /// Waits until the relay reports the name and the node has heard of it.
    pub fn identified(&mut self, relay: usize, name: &str) {
        self.find(relay, name, |event| match event {
            Event::Relay(Report::Identified { name: found, .. }) if *found == Name::from(name) => Some(()),
            _ => None,
        });
        let (_, host, client) = self.nodes.iter().find(|(found, ..)| found == name).cloned().unwrap();
        self.run_until("the answer", |world| {
            let (_, session) = world.hosts[host].endpoint.client_status(client).unwrap();
            session.is_some_and(|session| session.identified).then_some(())
        });
    }

    pub fn open(&mut self, node: (usize, ClientId), target: &str) -> RequestId {
        self.hosts[node.0]
            .endpoint
            .open_tunnel(self.now, node.1, Name::from(target))
            .unwrap()
    }

    pub fn opened(&mut self, host: usize, request: RequestId) -> (ConnectionHandle, StreamId) {
        self.find(host, "a tunnel", |event| match event {
            Event::Client {
                event:
                    ClientEvent::Opened {
                        request: found,
                        conn,
                        stream,
                        ..
                    },
                ..
            } if *found == request => Some((*conn, *stream)),
            Event::Client {
                event: ClientEvent::Failed { request: found, error },
                ..
            } if *found == request => {
                panic!("no tunnel: {error}")
            }
            _ => None,
        })
    }

    pub fn incoming(&mut self, host: usize) -> (Name, ConnectionHandle, StreamId) {
        self.find(host, "an incoming tunnel", |event| match event {
            Event::Client {
                event: ClientEvent::Incoming {
                    source, conn, stream, ..
                },
                ..
            } => Some((source.clone(), *conn, *stream)),
            _ => None,
        })
    }

    /// Runs an operation on a stream.
    pub fn with<T>(
        &mut self,
        host: usize,
        (conn, stream): (ConnectionHandle, StreamId),
        run: impl FnOnce(&mut quic::Stream<'_>) -> T,
    ) -> T {
        let mut conn = self.hosts[host].endpoint.quic().connection(conn).unwrap();
        let mut stream = conn.stream(stream).unwrap();
        run(&mut stream)
    }

    /// Sends all of `data` from one end and reads it at the other.
    pub fn transfer(&mut self, from: TunnelEnd, to: TunnelEnd, data: &[u8]) {
        let mut sent = 0;
        let mut received = Vec::new();
        self.run_until("the bytes arrive", |world| {
            while sent < data.len()
                && let Ok(written) = world.with(from.0, from.1, |stream| stream.write(&data[sent..]))
            {
                sent += written;
            }
            while received.len() < data.len()
                && let Ok(Some(bytes)) = world.with(to.0, to.1, |stream| stream.read_chunk(usize::MAX))
            {
                received.extend_from_slice(&bytes);
            }
            (received.len() >= data.len()).then_some(())
        });
        assert!(received == data, "the bytes are the same");
    }
}

/// When a datagram has left its host, which sends one after the other; `None` if too many wait before it.
fn leaves(
    busy: &mut BTreeMap<SocketAddr, Instant>,
    host: SocketAddr,
    now: Instant,
    length: usize,
    rate: Option<u64>,
    queue: Duration,
) -> Option<Instant> {
    let Some(rate) = rate else { return Some(now) };
    let free = busy.get(&host).copied().unwrap_or(now).max(now);
    if free - now > queue {
        return None;
    }
    let left = free + Duration::from_secs_f64(length as f64 / rate as f64);
    busy.insert(host, left);
    Some(left)
}

pub fn transport() -> TransportConfig {
    let mut transport = TransportConfig::relay();
    transport.datagram_size = DatagramSize::UpTo(1452);
    transport
}

pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = macula_proto::Rng::from_seed(seed);
    let mut out = Vec::with_capacity(length + 32);
    while out.len() < length {
        out.extend_from_slice(&rng.bytes::<32>());
    }
    out.truncate(length);
    out
}
