//! Two nodes that dial each other as often as they like, over connections that are late, damaged and lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use macula_proto::{
    Now, Rng,
    dist::{
        handshake::{Action, Event, Handshake, HandshakeConfig, Role},
        nodes::{Nodes, Superseded},
    },
    wire::{dist::handshake::Carrier, etf::Atom},
};

use crate::script::{at, ms, operations, pick, start};

#[derive(Debug, Arbitrary)]
struct Setup {
    tcp: bool,
    other_cookie: bool,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Dial(bool),
    Deliver { wire: u8, most: u8 },
    Damage { wire: u8, at: u8, bit: u8 },
    Inject { wire: u8, bytes: Vec<u8> },
    Lose { connection: u8 },
    Sleep(u8),
    Due,
}

struct World {
    now: Now,
    setup: Setup,
    nodes: [Nodes<usize>; 2],
    /// By node and connection.
    machines: BTreeMap<(usize, usize), Handshake>,
    /// Connections that are up, by node and connection.
    up: BTreeSet<(usize, usize)>,
    /// What is on its way to a node over a connection; `None`: the end.
    wires: BTreeMap<(usize, usize), VecDeque<Option<Bytes>>>,
    connections: usize,
    spoilt: bool,
}

/// However dials cross, a node has at most one connection with the other; no node comes up with one that has another cookie;
/// handshakes end once and in time; and when nothing was damaged and all was delivered, both agree about what they have.
pub fn dist_connect(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(setup) = data.arbitrary::<Setup>() else { return };
    let mut world = World {
        now: start(),
        setup,
        nodes: [Nodes::new(name(0)), Nodes::new(name(1))],
        machines: BTreeMap::new(),
        up: BTreeSet::new(),
        wires: BTreeMap::new(),
        connections: 0,
        spoilt: false,
    };
    for op in operations::<Op>(data, 300) {
        world.apply(op);
        world.check();
    }
    world.settle();
    world.check();
    let connected = [0, 1].map(|node| world.nodes[node].connected(&name(1 - node)));
    assert!(
        world.spoilt || connected[0] == connected[1],
        "they do not agree: {connected:?}"
    );
    world.wait(world.now.after(ms(20_000)));
    assert!(world.machines.is_empty(), "a handshake without end");
}

fn name(node: usize) -> Atom {
    Atom::new(["a@h", "b@h"][node]).expect("a name")
}

impl World {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Dial(node) => self.dial(node.into()),
            Op::Deliver { wire, most } => {
                if let Some(wire) = self.wire(wire) {
                    self.deliver(wire, usize::from(most) + 1);
                }
            }
            Op::Damage { wire, at, bit } => {
                let Some(wire) = self.wire(wire) else { return };
                if let Some(Some(first)) = self.wires.get_mut(&wire).and_then(VecDeque::front_mut) {
                    let mut bytes = BytesMut::from(&first[..]);
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= 1 << (bit % 8);
                    *first = bytes.freeze();
                    self.spoilt = true;
                }
            }
            Op::Inject { wire, bytes } if !bytes.is_empty() => {
                let Some(wire) = self.wire(wire) else { return };
                self.spoilt = true;
                self.wires.entry(wire).or_default().push_front(Some(bytes.into()));
            }
            Op::Inject { .. } => {}
            Op::Lose { connection } => {
                let connection = usize::from(connection) % self.connections.max(1);
                self.spoilt = true;
                for node in [0, 1] {
                    self.wires.remove(&(node, connection));
                    self.event(node, connection, Event::Lost);
                    self.gone(node, connection);
                }
            }
            Op::Sleep(steps) => self.wait(self.now.after(ms(u64::from(steps) * 50))),
            Op::Due => {
                let due = self.machines.values().filter_map(Handshake::poll_timeout).min();
                self.wait(at(self.now, due));
            }
        }
    }

    /// The how-manieth wire that has something on it.
    fn wire(&self, number: u8) -> Option<(usize, usize)> {
        let busy = self.wires.iter().filter(|(_, wire)| !wire.is_empty());
        let busy: Vec<_> = busy.map(|(at, _)| *at).collect();
        pick(&busy, number).copied()
    }

    fn dial(&mut self, node: usize) {
        if self.connections >= 30 {
            return;
        }
        let connection = self.connections;
        if self.nodes[node].dial(&name(1 - node), connection).is_ok() {
            self.connections += 1;
            self.begin(node, connection, Role::Dialler { peer: name(1 - node) });
            self.begin(1 - node, connection, Role::Acceptor);
        }
    }

    fn begin(&mut self, node: usize, connection: usize, role: Role) {
        let cookie = if self.setup.other_cookie && node == 1 { "y" } else { "x" };
        let config = HandshakeConfig {
            carrier: if self.setup.tcp { Carrier::Tcp } else { Carrier::Quic },
            ..HandshakeConfig::new(name(node), 1, cookie.into())
        };
        let mut rng = Rng::from_seed((2 * connection + node) as u64);
        self.machines
            .insert((node, connection), Handshake::new(role, config, &mut rng));
        self.event(node, connection, Event::Start);
    }

    fn deliver(&mut self, wire: (usize, usize), most: usize) {
        let (node, connection) = wire;
        let Some(queue) = self.wires.get_mut(&wire) else { return };
        match queue.pop_front() {
            Some(Some(mut bytes)) => {
                let head = bytes.split_to(most.min(bytes.len()));
                if !bytes.is_empty() {
                    queue.push_front(Some(bytes));
                }
                self.event(node, connection, Event::Received(head));
            }
            Some(None) => {
                self.event(node, connection, Event::Lost);
                self.gone(node, connection);
            }
            None => {}
        }
    }

    fn event(&mut self, node: usize, connection: usize, event: Event) {
        let Some(machine) = self.machines.get_mut(&(node, connection)) else {
            return;
        };
        let (peer, mut actions) = (name(1 - node), Vec::new());
        machine.handle(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Send(bytes) => {
                    self.wires
                        .entry((1 - node, connection))
                        .or_default()
                        .push_back(Some(bytes));
                }
                Action::AskStanding { peer: who } => {
                    let calling = self.nodes[node].call(&who, connection);
                    self.event(node, connection, Event::Standing(calling.standing));
                    if let Some(abort) = calling.abort {
                        self.event(node, abort, Event::Abort);
                    }
                }
                Action::AbortDial => {}
                Action::AskWanted => {
                    let wanted = self.nodes[node].is_wanted(&peer, connection);
                    self.event(node, connection, Event::Wanted(wanted));
                }
                Action::Up(established) => self.up(node, connection, &established.peer),
                Action::Failed(failure) => {
                    assert!(!failure.to_string().is_empty());
                    self.close(node, connection);
                }
            }
        }
    }

    fn up(&mut self, node: usize, connection: usize, peer: &Atom) {
        assert!(!self.setup.other_cookie, "up without having the cookie");
        assert!(self.spoilt || *peer == name(1 - node), "up with a stranger");
        self.machines.remove(&(node, connection));
        match self.nodes[node].up(peer, connection) {
            Ok(old) => {
                self.up.insert((node, connection));
                if let Some(old) = old {
                    self.close(node, old);
                }
            }
            Err(Superseded) => self.close(node, connection),
        }
    }

    fn close(&mut self, node: usize, connection: usize) {
        self.gone(node, connection);
        let wire = self.wires.entry((1 - node, connection)).or_default();
        wire.push_back(None);
        self.wires.remove(&(node, connection));
    }

    fn gone(&mut self, node: usize, connection: usize) {
        self.machines.remove(&(node, connection));
        self.up.remove(&(node, connection));
        self.nodes[node].gone(&name(1 - node), connection);
        // Under whatever name it came.
        let others: Vec<_> = self.nodes[node]
            .iter()
            .filter(|(_, up)| *up == connection)
            .map(|(peer, _)| peer.clone())
            .collect();
        others.iter().for_each(|peer| self.nodes[node].gone(peer, connection));
    }

    fn wait(&mut self, until: Now) {
        self.now = until;
        let due = |machine: &Handshake| machine.poll_timeout().is_some_and(|due| due <= until.mono);
        let due: Vec<_> = self
            .machines
            .iter()
            .filter(|(_, machine)| due(machine))
            .map(|(at, _)| *at)
            .collect();
        for (node, connection) in due {
            self.event(node, connection, Event::Timeout);
            let left = self.machines.get(&(node, connection)).and_then(Handshake::poll_timeout);
            assert!(left.is_none_or(|due| due > until.mono), "a deadline that is over");
        }
    }

    fn settle(&mut self) {
        for _ in 0..2000 {
            let Some(wire) = self.wire(0) else { return };
            self.deliver(wire, usize::MAX);
        }
        panic!("they never stop");
    }

    fn check(&self) {
        for node in [0, 1] {
            let table: BTreeSet<_> = self.nodes[node]
                .iter()
                .map(|(_, connection)| (node, connection))
                .collect();
            let up: BTreeSet<_> = self.up.iter().filter(|(at, _)| *at == node).copied().collect();
            assert_eq!(table, up, "the table is wrong about node {node}");
            assert!(self.spoilt || up.len() <= 1, "two connections with one node");
        }
    }
}
