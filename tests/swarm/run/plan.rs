//! What a seed stands for.

use std::time::Duration;

use macula_proto::{
    Rng,
    rpc::Mode,
    sim::{Chance, Fault, HostId, Link, Nat, NatFilter, Port, World},
};

/// A world and what happens in it. Hosts are numbered: the relays first, then those who listen, then the others.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub relays: u32,
    /// Nodes that others can dial.
    pub stations: u32,
    pub nodes: u32,
    pub link: Link,
    pub ports: Vec<Port>,
    pub nats: Vec<Option<Nat>>,
    /// Idle time-out of every connection; keep-alives come three times as often.
    pub idle: Duration,
    /// Whether hosts keep the key of their stateless resets over a restart.
    pub reset_keys: bool,
    /// Whether peering connections carry calls.
    pub calls_over_peers: bool,
    /// Nodes whose tunnels carry calls rather than bytes.
    pub call_tunnels: bool,
    pub one_stream_for_calls: bool,
    /// When each action is due, and what it is.
    pub times: Vec<Duration>,
    pub actions: Vec<Action>,
    pub faults: Vec<(Duration, Fault)>,
    /// Whether relays pass calls between nodes.
    pub routers: bool,
    /// Whether those who dial a second time send before they are answered.
    pub early: bool,
    /// Nodes prefer different relays, and may not find each other.
    pub scattered: bool,
    /// No faults but those of the links: everything has to succeed.
    pub gentle: bool,
    /// How long everything may take to come to an end when the faults are over.
    pub patience: Duration,
}

/// Something that the program of a host does.
#[derive(Debug, Clone)]
pub enum Action {
    Tunnel(Transfer),
    Plain(Transfer),
    /// The receiver of a transfer reads on.
    Resume(usize),
    DialPeer {
        from: HostId,
        to: HostId,
    },
    Frames {
        from: HostId,
        count: u64,
        size: usize,
    },
    LeavePeer {
        from: HostId,
    },
    DialRpc {
        from: HostId,
        to: HostId,
    },
    Call(Call),
    DialDist {
        from: HostId,
        to: HostId,
    },
    Messages {
        from: HostId,
        count: u64,
        size: usize,
    },
    LeaveDist {
        from: HostId,
    },
    DistStream(DistStream),
    /// A link for calls to the router of a relay.
    DialRouter {
        from: HostId,
        relay: HostId,
    },
    /// A relay is to take nothing new.
    Drain(HostId),
}

/// Bytes on a stream beside the messages to another node, and bytes back.
#[derive(Debug, Clone)]
pub struct DistStream {
    pub from: HostId,
    pub priority: i64,
    pub lengths: [u64; 2],
    /// The side that gives up, and after how many bytes.
    pub abort: Option<(usize, u64)>,
}

/// Bytes to another host, and bytes back.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub from: HostId,
    pub to: HostId,
    pub lengths: [u64; 2],
    /// The side that gives up, and after how many bytes.
    pub abort: Option<(usize, u64)>,
    /// The receiving side does not read before it is told to.
    pub paused: bool,
    /// Its place among the actions.
    pub number: usize,
}

/// Calls of one kind on the links of a host.
#[derive(Debug, Clone)]
pub struct Call {
    pub from: HostId,
    pub count: u64,
    pub kind: Option<Mode>,
    pub chunks: u64,
    pub size: usize,
    pub abort: bool,
}

impl Call {
    /// Links of a host that it is made on.
    pub const LINKS: usize = 3;

    /// Bytes in one direction at most: on so many links, with what numbers and names cost.
    fn bytes(&self) -> u64 {
        Self::LINKS as u64 * self.count * (self.chunks + 2) * (self.size as u64 + 100)
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Draws.
struct Dice(Rng);

impl Dice {
    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.0.below(most - least + 1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.0.below(of.len() as u64)).unwrap()].clone()
    }

    /// Small ones are as likely as large ones.
    fn size(&mut self, most: u64) -> u64 {
        let bits = u64::from(most.ilog2());
        let most_of_it = 1 << self.between(0, bits);
        self.between(0, most_of_it).min(most)
    }

    fn at(&mut self, from: Duration, until: Duration) -> Duration {
        from + self.0.duration_below(until - from)
    }
}

impl Plan {
    /// The plan of a seed for so many seconds.
    pub fn draw(seed: u64, seconds: u64) -> Self {
        let world = World::new(seed);
        let mut dice = Dice(world.rng("plan"));
        let relays = dice.between(1, 2) as u32;
        let nodes = match dice.percent(60) {
            true => dice.between(2, 5),
            false => dice.between(2, 12),
        } as u32;
        let stations = dice.between(1, u64::from(nodes.min(3))) as u32;
        let link = link(&mut dice);
        let hosts = relays + nodes;
        let ports = (0..hosts).map(|_| port(&mut dice)).collect();
        let nats = (0..hosts).map(|host| (host >= relays + stations).then(|| nat(&mut dice)).flatten());
        let nats: Vec<_> = nats.collect();
        let idle = secs(dice.pick(&[10, 15, 30]));
        let mut plan = Self {
            seed,
            relays,
            stations,
            nodes,
            link,
            ports,
            nats,
            idle,
            reset_keys: dice.percent(50),
            calls_over_peers: dice.percent(40),
            call_tunnels: dice.percent(25),
            one_stream_for_calls: dice.percent(40),
            routers: false,
            early: false,
            times: Vec::new(),
            actions: Vec::new(),
            faults: Vec::new(),
            scattered: relays > 1 && dice.percent(25),
            gentle: dice.percent(25),
            patience: secs(300),
        };
        let end = secs(seconds);
        plan.draw_load(&mut Dice(world.rng("load")), end * 6 / 10, end * 9 / 10);
        plan.draw_more(&mut Dice(world.rng("more")), end * 6 / 10, end * 9 / 10);
        if !plan.gentle {
            plan.draw_faults(&mut Dice(world.rng("faults")), end * 7 / 10);
        }
        plan
    }

    /// How long a question of control between these hosts may take, bulk or not, as long as nothing is broken: some round trips and
    /// repetitions, what may wait in queues on the way, and the time in which a host with a new address is not found.
    pub fn latency_bound(&self, ends: &[HostId]) -> Duration {
        let moves: Duration = ends.iter().map(|host| self.move_bound(*host)).sum();
        secs(2) + (self.link.delay + self.link.jitter) * 20 + self.queue_bound() * 4 + moves
    }

    /// How long the queues that lie on one way may hold up a datagram.
    fn queue_bound(&self) -> Duration {
        let wait = |rate: Option<u64>, queue: usize| rate.map_or(0.0, |rate| queue as f64 / rate as f64);
        let ports = self
            .ports
            .iter()
            .map(|port| wait(port.up, port.queue) + wait(port.down, port.queue));
        let queues = wait(self.link.bandwidth, self.link.queue) + ports.fold(0.0, f64::max);
        Duration::from_secs_f64(queues)
    }

    /// How long a reply may take where calls share a stream, or tunnels the connection to a relay: it queues behind all the chunks
    /// of other calls, which go no faster than loss lets them, and the bytes of everybody else may be in front at the narrowest
    /// place.
    pub fn reply_bound(&self) -> Duration {
        let (mut calls, mut all) = (0, 0);
        for action in &self.actions {
            match action {
                Action::Call(call) => calls += call.bytes(),
                Action::Tunnel(transfer) | Action::Plain(transfer) => all += transfer.lengths.iter().sum::<u64>(),
                Action::Frames { count, size, .. } | Action::Messages { count, size, .. } => {
                    all += count * *size as u64
                }
                Action::DistStream(stream) => all += stream.lengths.iter().sum::<u64>(),
                _ => {}
            }
        }
        all += calls;
        let ports = self.ports.iter().flat_map(|port| [port.up, port.down]);
        let narrowest = ports.chain([self.link.bandwidth]).flatten().min();
        let queued = narrowest.map_or(0.0, |rate| all as f64 / rate as f64);
        // What the usual control of congestion makes of a link: datagram / round trip * sqrt(3 / 2 / loss) (Mathis et al., 1997).
        // What comes far too late or broken counts as lost.
        let lost = [self.link.loss, self.link.corrupt, self.link.reorder].map(|chance| f64::from(chance.millionths()));
        let loss = lost.iter().sum::<f64>() / 1e6;
        let round_trip = (self.link.delay + self.link.jitter).as_secs_f64() * 2.0;
        let sent = calls as f64 * round_trip / 1200.0 * (loss / 1.5).sqrt();
        let moves = self
            .ids()
            .into_iter()
            .map(|host| self.move_bound(host))
            .max()
            .unwrap_or_default();
        self.latency_bound(&[]) + Duration::from_secs_f64(queued + sent) + moves * 2
    }

    /// How long a host behind a NAT that gives it another address may not be found: nothing reaches it before it sends something
    /// itself, which its next keep-alive does. Its peer then asks the new address for a proof, once. When the question or its answer
    /// is lost (a full queue does that on clean links too), the peer goes back to the old address after three probe time-outs
    /// (RFC 9000, section 8.2.4), and does not hear of the new one before another keep-alive.
    fn move_bound(&self, host: HostId) -> Duration {
        let keep_alive = self.idle / 3;
        let moves = |nat: &Nat| nat.rebind_every.is_some() || nat.timeout.is_some_and(|time| time <= keep_alive);
        if !self.nats[host.get() as usize].as_ref().is_some_and(moves) {
            return Duration::ZERO;
        }
        let round_trip = (self.link.delay + self.link.jitter + self.queue_bound()) * 2;
        // A path of another address begins with the assumption of 333 ms, and a deviation of half of it.
        let probe = (round_trip * 3).max(secs(1));
        keep_alive * 2 + probe * 3
    }

    fn ids(&self) -> Vec<HostId> {
        (0..self.relays + self.nodes).map(HostId::new).collect()
    }

    fn draw_load(&mut self, dice: &mut Dice, most: Duration, last: Duration) {
        let ids = self.ids();
        let relays = self.relays as usize;
        let nodes = &ids[relays..];
        let stations = &nodes[..self.stations as usize];
        let add = |plan: &mut Self, at, action| {
            plan.times.push(at);
            plan.actions.push(action);
        };
        let begin = ms(500);
        // Links between hosts first, some of them again later.
        for (percent, kind) in [(70, 0), (60, 1), (60, 2)] {
            if !dice.percent(percent) {
                continue;
            }
            for from in nodes {
                let to = dice.pick(stations);
                if *from == to || dice.percent(30) {
                    continue;
                }
                let mut at = dice.at(ms(0), secs(5));
                loop {
                    let from = *from;
                    let action = match kind {
                        0 => Action::DialPeer { from, to },
                        1 => Action::DialRpc { from, to },
                        _ => Action::DialDist { from, to },
                    };
                    add(self, at, action);
                    at += dice.at(secs(5), secs(30));
                    if at >= last {
                        break;
                    }
                }
            }
        }
        // Bytes of all that is asked for.
        let mut left: u64 = dice.pick(&[4, 8, 16, 32]) << 20;
        for _ in 0..dice.between(20, 160) {
            let size = dice.size(4 << 20).min(left);
            left -= size;
            let at = match dice.percent(85) {
                true => dice.at(begin, most),
                // Some of it when the faults are over.
                false => dice.at(most, last),
            };
            let (from, to) = (dice.pick(nodes), dice.pick(nodes));
            match dice.between(0, 9) {
                0..=4 => {
                    let plain = dice.percent(25);
                    let to = if plain { dice.pick(stations) } else { to };
                    if plain && to == from {
                        continue;
                    }
                    let back = dice.size(size.max(1));
                    let number = self.actions.len();
                    let abort = dice
                        .percent(8)
                        .then(|| (dice.between(0, 1) as usize, dice.size(size.max(1))));
                    let paused = dice.percent(15);
                    let transfer = Transfer {
                        from,
                        to,
                        lengths: [size, back],
                        abort,
                        paused,
                        number,
                    };
                    let action = if plain {
                        Action::Plain(transfer)
                    } else {
                        Action::Tunnel(transfer)
                    };
                    add(self, at, action);
                    if paused {
                        add(self, at + dice.at(secs(1), secs(15)), Action::Resume(number));
                    }
                }
                5 | 6 => {
                    let chunks = dice.between(0, 40);
                    let call = Call {
                        from,
                        count: dice.between(1, 4),
                        kind: dice.pick(&[
                            None,
                            Some(Mode::Bidi),
                            Some(Mode::ClientStream),
                            Some(Mode::ServerStream),
                        ]),
                        chunks,
                        size: dice.size((size / (chunks + 1)).clamp(1, 100_000)) as usize,
                        abort: dice.percent(10),
                    };
                    add(self, at, Action::Call(call));
                }
                7 => {
                    let count = dice.between(1, 60);
                    let size = dice.size((size / count).clamp(1, 60_000)) as usize;
                    add(self, at, Action::Frames { from, count, size });
                    if dice.percent(10) {
                        add(self, at + dice.at(ms(0), secs(2)), Action::LeavePeer { from });
                    }
                }
                _ => {
                    let count = dice.between(1, 300);
                    let size = dice.size((size / count).clamp(1, 200_000)) as usize;
                    add(self, at, Action::Messages { from, count, size });
                    if dice.percent(10) {
                        add(self, at + dice.at(ms(0), secs(2)), Action::LeaveDist { from });
                    }
                }
            }
        }
    }

    /// Routers, streams of nodes, early data, and relays that drain.
    fn draw_more(&mut self, dice: &mut Dice, most: Duration, last: Duration) {
        let ids = self.ids();
        let (relays, nodes) = ids.split_at(self.relays as usize);
        (self.routers, self.early) = (dice.percent(50), dice.percent(50));
        let mut add = |at, action| {
            self.times.push(at);
            self.actions.push(action);
        };
        if self.routers {
            for from in nodes {
                let (from, relay) = (*from, dice.pick(relays));
                if dice.percent(30) {
                    continue;
                }
                let mut at = dice.at(ms(0), secs(5));
                while at < last {
                    add(at, Action::DialRouter { from, relay });
                    at += dice.at(secs(5), secs(30));
                }
            }
        }
        let mut left: u64 = dice.pick(&[2, 4, 8]) << 20;
        for _ in 0..dice.between(0, 40) {
            let size = dice.size(2 << 20).min(left);
            left -= size;
            let stream = DistStream {
                from: dice.pick(nodes),
                priority: dice.between(0, 300) as i64,
                lengths: [size, dice.size(size.max(1))],
                abort: dice
                    .percent(10)
                    .then(|| (dice.between(0, 1) as usize, dice.size(size.max(1)))),
            };
            add(dice.at(secs(2), last), Action::DistStream(stream));
        }
        if dice.percent(25) {
            add(dice.at(most / 4, most), Action::Drain(dice.pick(relays)));
        }
    }

    fn draw_faults(&mut self, dice: &mut Dice, last: Duration) {
        let ids = self.ids();
        let times = dice.between(1, 20);
        for _ in 0..times {
            let at = dice.at(secs(1), last);
            let until = dice.at(at, (at + secs(20)).min(last + ms(1)));
            let (a, b) = (dice.pick(&ids), dice.pick(&ids));
            let (fault, undo) = match dice.between(0, 9) {
                0 => (Fault::Cut { from: a, to: b }, Some(Fault::Heal { from: a, to: b })),
                1 => (Fault::Isolate(a), Some(Fault::HealAll)),
                2 | 3 => {
                    let (from, to) = (a, b);
                    let bad = worse(self.link, dice);
                    let good = Fault::Link {
                        from,
                        to,
                        link: self.link,
                    };
                    (Fault::Link { from, to, link: bad }, Some(good))
                }
                4 | 5 => {
                    let time = dice.at(ms(10), secs(8)).min(last.saturating_sub(at) + ms(1));
                    (Fault::Stall { host: a, time }, None)
                }
                6 | 7 => (Fault::Crash(a), Some(Fault::Restart(a))),
                8 => (Fault::Restart(a), None),
                _ => (Fault::Rebind(a), None),
            };
            self.faults.push((at, fault));
            if let Some(undo) = undo {
                self.faults.push((until, undo));
            }
        }
        self.faults.push((last + ms(2), Fault::HealAll));
    }
}

fn link(dice: &mut Dice) -> Link {
    let delay = dice.pick(&[1, 5, 20, 40, 100, 300]);
    let clean = dice.percent(30);
    let mut link = Link {
        jitter: ms(dice.between(0, delay)),
        bandwidth: dice.percent(40).then(|| dice.pick(&[500_000, 2_000_000, 10_000_000])),
        queue: dice.pick(&[32 << 10, 256 << 10, 1 << 20]),
        mtu: dice.pick(&[1252, 1400, 1472]),
        ..Link::with_delay(ms(delay))
    };
    if !clean {
        link.loss = Chance::per_million(dice.size(50_000) as u32);
        link.reorder = Chance::per_million(dice.size(50_000) as u32);
        link.reorder_by = ms(dice.between(1, 2 * delay));
        link.duplicate = Chance::per_million(dice.size(20_000) as u32);
        link.corrupt = Chance::per_million(dice.size(10_000) as u32);
    }
    link
}

fn worse(mut link: Link, dice: &mut Dice) -> Link {
    match dice.between(0, 4) {
        0 => link.loss = Chance::percent(dice.between(5, 40) as f64),
        1 => link.delay *= dice.between(2, 20) as u32,
        2 => link.bandwidth = Some(dice.between(20_000, 200_000)),
        3 => link.mtu = 1200,
        _ => {
            link.corrupt = Chance::percent(10.0);
            link.duplicate = Chance::percent(20.0);
            link.reorder = Chance::percent(20.0);
        }
    }
    link
}

fn port(dice: &mut Dice) -> Port {
    let mut rate = || dice.percent(15).then(|| dice.pick(&[500_000, 5_000_000]));
    let (up, down) = (rate(), rate());
    Port {
        up,
        down,
        ..Port::default()
    }
}

fn nat(dice: &mut Dice) -> Option<Nat> {
    dice.percent(60).then(|| Nat {
        timeout: Some(secs(dice.pick(&[8, 30, 60]))),
        rebind_every: dice.percent(20).then(|| dice.at(secs(15), secs(75))),
        filter: dice.pick(&[NatFilter::Open, NatFilter::Address, NatFilter::AddressAndPort]),
    })
}
