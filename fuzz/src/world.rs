//! Whole worlds: the bytes say who is there, what the network does to them, and what they do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use macula_proto::{
    Code, Event,
    endpoint::{ClientEvent, ClientId, PeerEvent, PeerId, PeerItem, PeerListenConfig, RelayClientConfig},
    identity::Identity,
    peering::PeeringConfig,
    quic::{
        self, ConnectionHandle, DialConfig, ListenConfig, ReadError, StreamId, TransportConfig, alpn,
        tls::{ClientTls, Credentials, ServerTls, Trust},
    },
    sim::{Chance, Fault, Happening, HostConfig, HostId, Link, Nat, NatFilter, World},
    tunnel::{
        Name,
        client::{
            session::SessionConfig,
            supervisor::{SupervisorConfig, SupervisorStatus},
        },
        relay::RelayConfig,
    },
    wire::{
        control::TunnelId,
        frame::{Body, Id16, Ping, Text},
    },
};

use crate::script::{ms, operations, pick};

const OPERATIONS: usize = 60;
const BEGINNING: Duration = Duration::from_secs(1);

#[derive(Debug, Arbitrary)]
struct Setup {
    seed: u8,
    relays: u8,
    nodes: u8,
    link: Network,
    nats: [Option<u8>; 4],
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Network {
    delay: u8,
    jitter: u8,
    loss: u8,
    reorder: u8,
    duplicate: u8,
    corrupt: u8,
    bandwidth: u8,
}

impl From<Network> for Link {
    fn from(network: Network) -> Self {
        // Up to an eighth of the datagrams each.
        let chance = |byte: u8| Chance::per_million(u32::from(byte) * 490);
        Self {
            delay: ms(u64::from(network.delay) / 2),
            jitter: ms(u64::from(network.jitter) / 4),
            loss: chance(network.loss),
            reorder: chance(network.reorder),
            duplicate: chance(network.duplicate),
            corrupt: chance(network.corrupt),
            bandwidth: (network.bandwidth > 128).then(|| u64::from(network.bandwidth) * 2_000),
            ..Self::default()
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Op {
    Run(u8),
    Open { node: u8, target: u8 },
    Write { tunnel: u8, size: u16 },
    Finish(u8),
    Reset(u8),
    CloseTunnel(u8),
    Dial { from: u8, to: u8 },
    Frame { peer: u8, size: u8 },
    ClosePeer(u8),
    Link { from: u8, to: u8, network: Network },
    Cut { from: u8, to: u8 },
    Heal,
    Isolate(u8),
    Stall { host: u8, time: u8 },
    Crash(u8),
    Restart(u8),
    Nat { host: u8, kind: Option<u8> },
    Rebind(u8),
    Inject { from: u8, to: u8, bytes: Vec<u8> },
    Drain(u8),
}

/// One end of a tunnel.
#[derive(Debug, Clone, Copy)]
struct End {
    host: HostId,
    tunnel: TunnelId,
    /// This end asked for it.
    asked: bool,
    written: u64,
    read: u64,
    over: bool,
}

type StreamAt = (HostId, ConnectionHandle, StreamId);

struct Run {
    world: World,
    credentials: Credentials,
    relays: Vec<HostId>,
    nodes: Vec<HostId>,
    clients: BTreeMap<HostId, ClientId>,
    ends: BTreeMap<StreamAt, End>,
    order: Vec<StreamAt>,
    /// What was written into a tunnel, by its direction, ends that are gone included.
    written: BTreeMap<(TunnelId, bool), u64>,
    /// Peers that are connected and not ended, and those that have ended.
    peers: Vec<(HostId, PeerId)>,
    ended: Vec<(HostId, PeerId)>,
    drained: bool,
}

/// Nodes behind relays, tunnels between them and peers among them, on a network that loses, delays, doubles, reorders and damages
/// datagrams, with hosts that stall, crash and come back. Bytes come out of a tunnel as they went in; a peer ends once; no
/// endpoint breaks its contract; and once nothing is wrong any more, every node gets back to a relay and through it to another.
pub fn world(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(setup) = data.arbitrary::<Setup>() else { return };
    let mut run = Run::new(&setup);
    for op in operations::<Op>(data, OPERATIONS) {
        run.apply(op);
    }
    run.recover();
    assert_eq!(run.world.violations(), [], "an endpoint breaks its contract");
}

/// A relay that is gone is noticed after half a minute.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::relay();
    transport.idle_timeout = Some(Duration::from_secs(30));
    transport.keep_alive = Some(Duration::from_secs(10));
    transport
}

fn nat(kind: u8) -> Nat {
    Nat {
        timeout: (kind & 3 != 0).then(|| Duration::from_secs(u64::from(kind & 3) * 20)),
        rebind_every: (kind & 4 != 0).then(|| Duration::from_secs(20 + u64::from(kind / 4))),
        filter: [NatFilter::Open, NatFilter::Address, NatFilter::AddressAndPort][usize::from(kind / 8 % 3)],
    }
}

fn identity(host: HostId) -> Arc<Identity> {
    let number = host
        .to_string()
        .bytes()
        .fold(1u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    Arc::new(Identity::from_seed(&[number; 32]))
}

/// What is written at this place of a tunnel, in this direction.
fn byte(tunnel: TunnelId, to_target: bool, place: u64) -> u8 {
    let salt = tunnel.as_bytes()[7].wrapping_add(u8::from(to_target));
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 ^ salt
}

impl Run {
    fn new(setup: &Setup) -> Self {
        let mut world = World::new(setup.seed.into());
        world.set_default_link(setup.link.into());
        let credentials = world.credentials("relay");
        let mut add = |nat: Option<Nat>| {
            let config = HostConfig {
                nat,
                ..HostConfig::default()
            };
            world.add(config).expect("a good host")
        };
        let relays = (0..=setup.relays % 2).map(|_| add(None)).collect();
        let nodes = (0..2 + usize::from(setup.nodes % 3))
            .map(|node| add(setup.nats[node].map(nat)))
            .collect();
        let mut run = Self {
            world,
            credentials,
            relays,
            nodes,
            clients: BTreeMap::new(),
            ends: BTreeMap::new(),
            order: Vec::new(),
            written: BTreeMap::new(),
            peers: Vec::new(),
            ended: Vec::new(),
            drained: false,
        };
        for host in run.world.hosts() {
            run.set_up(host);
        }
        run.run(BEGINNING);
        run
    }

    fn set_up(&mut self, host: HostId) {
        let credentials = self.credentials.clone();
        let served = self.world.with(host, |endpoint, _| {
            let tls = ServerTls::new(credentials).alpn([alpn::MACULA_DIST, alpn::MACULA]);
            let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).expect("good settings"));
            listen.transport = transport();
            endpoint.quic().listen(listen).expect("listens");
            endpoint.serve_peers(PeerListenConfig::new(PeeringConfig::new(identity(host))));
        });
        served.expect("it is there");
        if self.relays.contains(&host) {
            let relay = self
                .world
                .with(host, |endpoint, _| endpoint.serve_relay(RelayConfig::default()));
            return relay.expect("it is there");
        }
        let relays = self
            .relays
            .iter()
            .map(|relay| self.world.address(*relay).to_string().parse().expect("an address"));
        let relays = relays.collect();
        let name = Name::from(host.to_string().as_str());
        let dial = self.dial_config(host, alpn::MACULA_DIST);
        let client = self.world.with(host, |endpoint, now| {
            let config = RelayClientConfig {
                relays,
                dial,
                session: SessionConfig::new(name),
                supervisor: SupervisorConfig::default(),
            };
            endpoint.relay_client(now, config).expect("good settings")
        });
        self.clients.insert(host, client.expect("it is there"));
    }

    fn dial_config(&mut self, host: HostId, alpn: &[u8]) -> DialConfig {
        let trust = Trust::Pins(vec![self.credentials.pin()]);
        let dial = self.world.with(host, |endpoint, _| {
            let tls = ClientTls::new(trust).alpn([alpn]);
            let mut dial = DialConfig::new(tls.build(endpoint.quic().clock()).expect("good settings"));
            dial.transport = transport();
            dial
        });
        dial.expect("it is there")
    }

    fn host(&self, number: u8) -> HostId {
        let all: Vec<_> = self.world.hosts().collect();
        all[usize::from(number) % all.len()]
    }

    fn node(&self, number: u8) -> HostId {
        self.nodes[usize::from(number) % self.nodes.len()]
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Run(time) => self.run(ms(u64::from(time) * 20)),
            Op::Open { node, target } => {
                let (node, target) = (self.node(node), self.node(target));
                self.open(node, target);
            }
            Op::Write { tunnel, size } => self.write(tunnel, size),
            Op::Finish(tunnel) => self.on_tunnel(tunnel, |stream| _ = stream.finish()),
            Op::Reset(tunnel) => self.on_tunnel(tunnel, |stream| _ = stream.reset(Code::CANCELLED)),
            Op::CloseTunnel(tunnel) => {
                let Some(&(host, _, stream)) = pick(&self.order, tunnel) else {
                    return;
                };
                let client = self.clients[&host];
                let close = |endpoint: &mut macula_proto::Endpoint, now| {
                    endpoint.close_tunnel(now, client, stream, Code::CANCELLED)
                };
                let _ = self.world.with(host, close);
            }
            Op::Dial { from, to } => self.dial(self.host(from), self.host(to)),
            Op::Frame { peer, size } => {
                let Some(&(host, peer)) = pick(&self.peers, peer) else {
                    return;
                };
                let body = Body::Ping(Ping {
                    nonce: Id16([size; 16]),
                });
                let _ = self
                    .world
                    .with(host, |endpoint, now| endpoint.peer_send(now, peer, body));
            }
            Op::ClosePeer(peer) => {
                let Some(&(host, peer)) = pick(&self.peers, peer) else {
                    return;
                };
                let reason = Text::from("operator_stop");
                let _ = self
                    .world
                    .with(host, |endpoint, now| endpoint.peer_close(now, peer, reason, None));
            }
            Op::Drain(relay) => {
                let relay = self.relays[usize::from(relay) % self.relays.len()];
                self.drained = true;
                let _ = self.world.with(relay, |endpoint, now| endpoint.drain_relay(now));
            }
            Op::Inject { from, to, bytes } => {
                let (from, to) = (self.world.address(self.host(from)), self.world.address(self.host(to)));
                self.world.inject(from, to, &bytes);
            }
            Op::Crash(host) => self.crash(self.host(host)),
            Op::Restart(host) => self.restart(self.host(host)),
            op => self.fault(op),
        }
        self.run(ms(5));
    }

    fn fault(&mut self, op: Op) {
        let fault = match op {
            Op::Link { from, to, network } => Fault::Link {
                from: self.host(from),
                to: self.host(to),
                link: network.into(),
            },
            Op::Cut { from, to } => Fault::Cut {
                from: self.host(from),
                to: self.host(to),
            },
            Op::Heal => Fault::HealAll,
            Op::Isolate(host) => Fault::Isolate(self.host(host)),
            Op::Stall { host, time } => Fault::Stall {
                host: self.host(host),
                time: ms(u64::from(time) * 40),
            },
            Op::Nat { host, kind } => Fault::Nat(self.node(host), kind.map(nat)),
            Op::Rebind(host) => Fault::Rebind(self.node(host)),
            _ => return,
        };
        self.world.apply(fault);
    }

    fn crash(&mut self, host: HostId) {
        if self.world.is_up(host) {
            self.world.apply(Fault::Crash(host));
            self.ends.retain(|(at, ..), _| *at != host);
            self.order.retain(|(at, ..)| *at != host);
            self.peers.retain(|(at, _)| *at != host);
            self.ended.retain(|(at, _)| *at != host);
        }
    }

    fn restart(&mut self, host: HostId) {
        if !self.world.is_up(host) {
            self.world.apply(Fault::Restart(host));
            self.set_up(host);
        }
    }

    fn open(&mut self, node: HostId, target: HostId) {
        let (client, target) = (self.clients[&node], Name::from(target.to_string().as_str()));
        let _ = self
            .world
            .with(node, |endpoint, now| endpoint.open_tunnel(now, client, target));
    }

    fn dial(&mut self, from: HostId, to: HostId) {
        if !self.world.is_up(from) || from == to || self.peers.len() > 12 {
            return;
        }
        let dial = self.dial_config(from, alpn::MACULA);
        let remote = self.world.address(to);
        let peering = PeeringConfig::new(identity(from));
        let peer = self.world.with(from, |endpoint, now| {
            endpoint.connect_peer(now, &dial, remote, "relay", peering)
        });
        if let Ok(Ok(peer)) = peer {
            self.peers.push((from, peer));
        }
    }

    fn on_tunnel(&mut self, tunnel: u8, run: impl FnOnce(&mut quic::Stream<'_>)) {
        let Some(&at) = pick(&self.order, tunnel) else { return };
        self.on_stream(at, run);
    }

    fn on_stream<T>(
        &mut self,
        (host, conn, stream): StreamAt,
        run: impl FnOnce(&mut quic::Stream<'_>) -> T,
    ) -> Option<T> {
        let done = self.world.with(host, |endpoint, _| {
            let mut conn = endpoint.quic().connection(conn).ok()?;
            let mut stream = conn.stream(stream).ok()?;
            Some(run(&mut stream))
        });
        done.ok().flatten()
    }

    fn write(&mut self, tunnel: u8, size: u16) {
        let Some(&at) = pick(&self.order, tunnel) else { return };
        let end = self.ends[&at];
        let bytes: Bytes = (0..u64::from(size))
            .map(|place| byte(end.tunnel, end.asked, end.written + place))
            .collect();
        let written = self
            .on_stream(at, |stream| stream.write(&bytes).unwrap_or(0))
            .unwrap_or(0) as u64;
        if let Some(end) = self.ends.get_mut(&at) {
            end.written += written;
            *self.written.entry((end.tunnel, end.asked)).or_default() += written;
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.world.elapsed() + time;
        while let Some(happening) = self.world.next(until) {
            if let Happening::Event { host, event } = happening {
                self.on(host, event);
            }
        }
    }

    fn on(&mut self, host: HostId, event: Event) {
        match event {
            Event::Client {
                event: ClientEvent::Opened {
                    tunnel, conn, stream, ..
                },
                ..
            } => {
                self.begin((host, conn, stream), tunnel, true);
            }
            Event::Client {
                event: ClientEvent::Incoming {
                    tunnel, conn, stream, ..
                },
                ..
            } => {
                self.begin((host, conn, stream), tunnel, false);
            }
            Event::Quic(quic::Event::Readable { conn, stream }) => self.read((host, conn, stream)),
            Event::Peer { peer, event } => {
                let known = self.peers.contains(&(host, peer)) || self.ended.contains(&(host, peer));
                if matches!(event, PeerEvent::Connected { .. }) && !known {
                    self.peers.push((host, peer));
                }
                self.fetch(host, peer);
            }
            _ => {}
        }
    }

    fn fetch(&mut self, host: HostId, peer: PeerId) {
        while let Ok(Some(item)) = self
            .world
            .with(host, |endpoint, now| endpoint.next_peer_item(now, peer))
        {
            assert!(!self.ended.contains(&(host, peer)), "something after the end of a peer");
            if matches!(item, PeerItem::Ended { .. }) {
                self.ended.push((host, peer));
                self.peers.retain(|known| *known != (host, peer));
            }
        }
    }

    fn begin(&mut self, at: StreamAt, tunnel: TunnelId, asked: bool) {
        let end = End {
            host: at.0,
            tunnel,
            asked,
            written: 0,
            read: 0,
            over: false,
        };
        assert!(self.ends.insert(at, end).is_none(), "a stream for two tunnels");
        self.order.push(at);
        self.read(at);
    }

    fn read(&mut self, at: StreamAt) {
        let Some(mut end) = self.ends.get(&at).copied() else {
            return;
        };
        loop {
            let Some(chunk) = self.on_stream(at, |stream| stream.read_chunk(1 << 16)) else {
                break;
            };
            match chunk {
                Ok(Some(bytes)) => {
                    assert!(!end.over, "bytes behind the end");
                    let right =
                        |(place, found): (usize, &u8)| *found == byte(end.tunnel, !end.asked, end.read + place as u64);
                    assert!(
                        bytes.iter().enumerate().all(right),
                        "not the bytes that went in, at {}",
                        end.host
                    );
                    end.read += bytes.len() as u64;
                    let written = self.written.get(&(end.tunnel, !end.asked)).copied().unwrap_or(0);
                    assert!(end.read <= written, "more comes out than went in");
                }
                Ok(None) => {
                    end.over = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(_) => {
                    end.over = true;
                    break;
                }
            }
        }
        self.ends.insert(at, end);
    }

    /// Nothing is wrong any more: all come back, and reach each other.
    fn recover(&mut self) {
        self.world.apply(Fault::HealAll);
        self.world.set_default_link(Link::default());
        let hosts: Vec<_> = self.world.hosts().collect();
        for from in &hosts {
            for to in &hosts {
                self.world.set_link(*from, *to, Link::default());
            }
        }
        // A relay that drained has done what it was for, and is started anew.
        for relay in self.relays.clone() {
            if self.drained {
                self.crash(relay);
            }
        }
        for host in hosts {
            self.restart(host);
        }
        let until = self.world.elapsed() + Duration::from_secs(180);
        while !self.all_up() {
            assert!(self.world.elapsed() < until, "a node does not find back to its relay");
            self.run(Duration::from_secs(1));
        }
        self.transfer(until);
    }

    fn all_up(&self) -> bool {
        self.clients.iter().all(|(host, client)| {
            let status = self
                .world
                .endpoint_of(*host)
                .map(|endpoint| endpoint.client_status(*client));
            matches!(status, Some(Ok((SupervisorStatus::Up(_), _))))
        })
    }

    /// One node reaches another if both are at one relay; with two relays they need not be.
    fn transfer(&mut self, until: Duration) {
        if self.relays.len() > 1 {
            return;
        }
        let (from, to) = (self.nodes[0], self.nodes[1]);
        for attempt in 0.. {
            assert!(
                attempt < 40 && self.world.elapsed() < until + Duration::from_secs(180),
                "no tunnel, and nothing is wrong"
            );
            let before = self.order.len();
            self.open(from, to);
            self.run(Duration::from_secs(3));
            let new = self.order[before..].iter().copied().find(|(host, ..)| *host == from);
            let Some(at) = new else { continue };
            let number = self.order.iter().position(|known| *known == at).unwrap_or(0);
            let Ok(number) = u8::try_from(number) else { return };
            self.write(number, 1000);
            self.run(Duration::from_secs(2));
            let tunnel = self.ends[&at].tunnel;
            let there = self.ends.values().find(|end| end.tunnel == tunnel && !end.asked);
            if there.is_some_and(|end| end.read == 1000) {
                return;
            }
        }
    }
}
