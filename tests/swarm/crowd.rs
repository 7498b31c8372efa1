//! Many nodes behind one relay, in pairs that talk to each other through it.

#![allow(unreachable_pub, dead_code, reason = "shared by a test and a bench")]

use std::time::Duration;

use macula_proto::{
    Event,
    endpoint::{ClientEvent, RelayClientConfig},
    quic::{
        self, ConnectionHandle, DatagramSize, DialConfig, ListenConfig, ReadError, StreamId, TransportConfig, alpn,
        tls::{ClientTls, ServerTls, Trust},
    },
    sim::{Chance, Happening, HostConfig, HostId, Link, World, WorldStats},
    tunnel::{
        Name,
        client::{session::SessionConfig, supervisor::SupervisorConfig},
        relay::RelayConfig,
    },
};

/// Between two messages of a node.
const PAUSE: Duration = Duration::from_secs(1);
const MESSAGE: usize = 1024;
/// After a request that came too early.
const AGAIN: Duration = Duration::from_millis(100);

/// A relay and its nodes.
pub struct Crowd {
    pub world: World,
    relay: HostId,
    nodes: Vec<Node>,
    /// Nodes with a tunnel.
    linked: usize,
}

struct Node {
    host: HostId,
    client: macula_proto::endpoint::ClientId,
    tunnel: Option<(ConnectionHandle, StreamId)>,
    identified: bool,
    sent: u64,
    received: u64,
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::relay();
    transport.datagram_size = DatagramSize::UpTo(1452);
    transport
}

fn name(index: usize) -> Name {
    Name::from(format!("node-{index}").as_str())
}

/// What a node has sent at an offset.
fn byte(node: usize, offset: u64) -> u8 {
    (node as u64 * 31 + offset * 7 + offset / 251) as u8
}

impl Crowd {
    /// A relay with so many nodes, an even number; one datagram in a hundred is lost.
    pub fn new(seed: u64, count: usize) -> Self {
        let mut world = World::new(seed);
        world.set_default_link(Link {
            loss: Chance::percent(1.0),
            ..Link::with_delay(Duration::from_millis(20))
        });
        let relay = world.add(HostConfig::default()).unwrap();
        let credentials = world.credentials("relay");
        let trust = Trust::Pins(vec![credentials.pin()]);
        let serving = world.with(relay, |endpoint, _| {
            let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST]);
            let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
            listen.transport = transport();
            endpoint.quic().listen(listen).unwrap();
            endpoint.serve_relay(RelayConfig::default());
        });
        serving.unwrap();
        let mut crowd = Self {
            relay,
            nodes: Vec::with_capacity(count),
            linked: 0,
            world,
        };
        for index in 0..count {
            crowd.add(index, &trust);
        }
        crowd
    }

    fn add(&mut self, index: usize, trust: &Trust) {
        let host = self.world.add(HostConfig::default()).unwrap();
        let relay = self.world.address(self.relay).to_string().parse().unwrap();
        let client = self.world.with(host, |endpoint, now| {
            let tls = ClientTls::new(trust.clone()).alpn([alpn::MACULA_DIST]);
            let mut dial = DialConfig::new(tls.build(endpoint.quic().clock()).unwrap());
            dial.transport = transport();
            let config = RelayClientConfig {
                relays: vec![relay],
                dial,
                session: SessionConfig::new(name(index)),
                supervisor: SupervisorConfig::default(),
            };
            endpoint.relay_client(now, config).unwrap()
        });
        self.nodes.push(Node {
            host,
            client: client.unwrap(),
            tunnel: None,
            identified: false,
            sent: 0,
            received: 0,
        });
    }

    fn index(&self, host: HostId) -> Option<usize> {
        (host.get() as usize).checked_sub(1)
    }

    /// Waits until every node has its tunnel.
    ///
    /// # Panics
    /// If that takes more than a simulated minute.
    pub fn link(&mut self) {
        let until = self.world.elapsed() + Duration::from_secs(60);
        while self.linked < self.nodes.len() {
            match self.world.next(until).expect("everybody is connected within a minute") {
                Happening::Wake(index) => self.ask(index as usize),
                other => self.on(other),
            }
        }
    }

    /// Lets every node send a message to its partner each second, for so long, and checks that all arrive.
    ///
    /// # Panics
    /// If other bytes arrive than were sent, or some do not.
    pub fn talk(&mut self, time: Duration) {
        let begin = self.world.elapsed();
        for index in 0..self.nodes.len() {
            // Not all at the same moment.
            let at = begin + PAUSE * index as u32 / self.nodes.len() as u32;
            self.world.wake_at(at, index as u64);
        }
        let end = begin + time;
        while let Some(happening) = self.world.next(end) {
            match happening {
                Happening::Wake(node) => {
                    self.say(node as usize);
                    let next = self.world.elapsed() + PAUSE;
                    if next < end {
                        self.world.wake_at(next, node);
                    }
                }
                other => self.on(other),
            }
        }
        while self.missing() > 0 {
            let happening = self
                .world
                .next(end + Duration::from_secs(30))
                .expect("everything arrives");
            if !matches!(happening, Happening::Wake(_)) {
                self.on(happening);
            }
        }
        assert_eq!(self.world.violations(), []);
    }

    /// Bytes that are on their way.
    fn missing(&self) -> u64 {
        let sent: u64 = self.nodes.iter().map(|node| node.sent).sum();
        let received: u64 = self.nodes.iter().map(|node| node.received).sum();
        sent - received
    }

    /// Bytes that arrived.
    pub fn received(&self) -> u64 {
        self.nodes.iter().map(|node| node.received).sum()
    }

    /// Nodes that have received nothing.
    pub fn silent(&self) -> usize {
        self.nodes.iter().filter(|node| node.received == 0).count()
    }

    pub fn stats(&self) -> WorldStats {
        self.world.stats()
    }

    fn say(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let (conn, stream) = node.tunnel.expect("it has a tunnel");
        let message: Vec<u8> = (node.sent..node.sent + MESSAGE as u64)
            .map(|at| byte(index, at))
            .collect();
        let sent = self.world.with(node.host, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).unwrap();
            conn.stream(stream).unwrap().enqueue(message.into()).is_ok()
        });
        assert_eq!(sent, Ok(true));
        node.sent += MESSAGE as u64;
    }

    fn on(&mut self, happening: Happening) {
        let Happening::Event { host, event } = happening else {
            return;
        };
        match event {
            Event::Relay(macula_proto::tunnel::relay::Report::Identified { name: found, .. }) => {
                self.identified(&found);
            }
            Event::Client { event, .. } => self.on_client(host, event),
            Event::Quic(quic::Event::Readable { .. }) => self.read(host),
            _ => {}
        }
    }

    /// The first of a pair asks for the tunnel as soon as both are known.
    fn identified(&mut self, found: &Name) {
        let text = String::from_utf8_lossy(found.as_bytes()).into_owned();
        let index: usize = text.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap();
        self.nodes[index].identified = true;
        self.ask(index & !1);
    }

    fn ask(&mut self, index: usize) {
        if !self.nodes[index].identified || !self.nodes[index | 1].identified || self.nodes[index].tunnel.is_some() {
            return;
        }
        let node = &self.nodes[index];
        let client = node.client;
        let asked = self.world.with(node.host, |endpoint, now| {
            endpoint.open_tunnel(now, client, name(index | 1)).is_ok()
        });
        assert_eq!(asked, Ok(true));
    }

    fn on_client(&mut self, host: HostId, event: ClientEvent) {
        let index = self.index(host).expect("a node");
        match event {
            ClientEvent::Opened { conn, stream, .. } | ClientEvent::Incoming { conn, stream, .. } => {
                assert!(self.nodes[index].tunnel.replace((conn, stream)).is_none());
                self.linked += 1;
                self.read(host);
            }
            // The relay knows the node before the node knows that.
            ClientEvent::Failed { .. } => self.world.wake_at(self.world.elapsed() + AGAIN, index as u64),
            _ => {}
        }
    }

    fn read(&mut self, host: HostId) {
        let index = self.index(host).expect("a node");
        let node = &mut self.nodes[index];
        let Some((conn, stream)) = node.tunnel else {
            return;
        };
        let read = self.world.with(host, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).unwrap();
            let mut stream = conn.stream(stream).unwrap();
            loop {
                match stream.read_chunk(usize::MAX) {
                    Ok(Some(bytes)) => {
                        for got in bytes.iter() {
                            assert_eq!(*got, byte(index ^ 1, node.received), "node {index}");
                            node.received += 1;
                        }
                    }
                    Err(ReadError::Blocked) => return,
                    other => panic!("the tunnel ended: {other:?}"),
                }
            }
        });
        read.unwrap();
    }
}

/// What a crowd did, and how long it took.
#[derive(Debug, Clone)]
pub struct Measured {
    pub count: usize,
    /// Simulated and real seconds until all were linked.
    pub link: (f64, f64),
    /// Of talking.
    pub talk: (f64, f64),
    pub datagrams: u64,
}

/// Runs a crowd for some seconds of talk.
pub fn measure(seed: u64, count: usize, talk: Duration) -> Measured {
    let begin = std::time::Instant::now();
    let mut crowd = Crowd::new(seed, count);
    crowd.link();
    let linked = (crowd.world.elapsed(), begin.elapsed());
    let before = crowd.stats().sent;
    crowd.talk(talk);
    let simulated = crowd.world.elapsed() - linked.0;
    Measured {
        count,
        link: (linked.0.as_secs_f64(), linked.1.as_secs_f64()),
        talk: (simulated.as_secs_f64(), (begin.elapsed() - linked.1).as_secs_f64()),
        datagrams: crowd.stats().sent - before,
    }
}

/// Measurements of each size; the median counts.
const RUNS: u64 = 5;

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Simulated seconds per second of the wall clock, for crowds of several sizes.
pub fn table(json: bool) {
    let sizes = [(2, 1000), (100, 60), (1000, 10)];
    // One after the other and again, so that a slow moment of the machine does not hit one of them alone.
    let mut runs: Vec<Vec<Measured>> = vec![Vec::new(); sizes.len()];
    for seed in 0..RUNS {
        for (runs, (count, seconds)) in runs.iter_mut().zip(sizes) {
            runs.push(measure(seed, count, Duration::from_secs(seconds)));
        }
    }
    if !json {
        println!(
            "One relay, 20 ms and 1 % loss in each direction, 1 KiB a second from everybody; medians of {RUNS} runs."
        );
        println!();
        println!("| endpoints | simulated s / wall s | datagrams / wall s | to connect all: wall s |");
        println!("|---:|---:|---:|---:|");
    }
    for runs in runs {
        let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure).collect());
        let count = runs[0].count;
        let ratio = of(|run| run.talk.0 / run.talk.1);
        let rate = of(|run| run.datagrams as f64 / run.talk.1);
        let link = of(|run| run.link.1);
        if json {
            println!(
                r#"{{"bench":"sim","endpoints":{count},"simulated_per_wall":{ratio:.2},"datagrams_per_wall":{rate:.0},"connect_wall_seconds":{link:.3}}}"#
            );
        } else {
            println!("| {count} | {ratio:.1} | {rate:.0} | {link:.2} |");
        }
    }
}
