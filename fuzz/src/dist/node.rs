//! Nodes, their processes, names, links, monitors and aliases, over connections that come and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use macula_proto::{
    dist::node::{Action, CommandError, Event, Node, NodeConfig, NodeLimits, Signal, Target},
    wire::{
        DecodeLimits,
        dist::{Flags, Form, FragmentLimits, MessageDecoder, encode_message},
        etf::{Atom, Pid, Reference, Term},
    },
};

use crate::script::{operations, pick};

const NODES: usize = 3;
const MAILBOX: usize = 2000;

#[derive(Debug, Arbitrary)]
enum Op {
    /// Everything is delivered that can be.
    Settle,
    Spawn(u8),
    End(u8),
    Exit(u8, u8, bool),
    Link(u8, u8),
    Unlink(u8, u8),
    Monitor(u8, u8),
    MonitorName {
        by: u8,
        node: u8,
        name: u8,
    },
    Demonitor(u8),
    Register(u8, u8),
    Unregister {
        node: u8,
        name: u8,
    },
    Send {
        from: u8,
        to: u8,
        size: u8,
    },
    SendName {
        from: u8,
        node: u8,
        name: u8,
    },
    SendAlias {
        from: u8,
        alias: u8,
    },
    Alias(u8),
    Unalias(u8),
    Receive(u8),
    Step(u8, u8),
    Connect(u8, u8),
    Disconnect(u8, u8),
    /// A message that the node across did not write.
    Raw(u8, u8, Vec<u8>),
    /// One that it wrote, said again with another word changed.
    Again {
        from: u8,
        to: u8,
        which: u8,
        at: u8,
        bit: u8,
    },
    /// The same control term over again: an end of something that is no more.
    Replay {
        from: u8,
        to: u8,
        which: u8,
    },
}

struct World {
    nodes: Vec<Node<usize>>,
    wires: BTreeMap<(usize, usize), VecDeque<Bytes>>,
    /// Messages that went over a wire.
    past: Vec<Bytes>,
    processes: Vec<(usize, Pid)>,
    monitors: Vec<(usize, Pid, Reference)>,
    aliases: Vec<(usize, Pid, Reference)>,
    taken_back: BTreeSet<Reference>,
    downs: BTreeMap<Reference, usize>,
    spoilt: bool,
}

/// Whatever processes do to each other across nodes: nobody is told twice of an end, nobody is told of one who has taken its
/// monitor back, mailboxes are bounded, an ended process takes part in nothing, and when nothing was made up and everything was
/// delivered, each monitored process that is gone was told of once. Commands of local users do not fail for what peers did.
pub fn dist_node(data: &[u8]) {
    let limits = || {
        let mut limits = NodeLimits::default();
        (limits.processes, limits.mailbox, limits.outgoing) = (12, MAILBOX, 2000);
        (limits.links, limits.monitors, limits.aliases) = (6, 6, 4);
        limits.max_message = 4096;
        limits
    };
    let node = |at: usize| {
        let mut config = NodeConfig::new(name(&format!("n{at}@h")), 7 + at as u32);
        config.limits = limits();
        Node::new(config)
    };
    let mut world = World {
        nodes: (0..NODES).map(node).collect(),
        wires: BTreeMap::new(),
        past: Vec::new(),
        processes: Vec::new(),
        monitors: Vec::new(),
        aliases: Vec::new(),
        taken_back: BTreeSet::new(),
        downs: BTreeMap::new(),
        spoilt: false,
    };
    for (a, b) in [(0, 1), (1, 2)] {
        world.apply(Op::Connect(a, b));
    }
    for node in 0..NODES as u8 {
        world.apply(Op::Spawn(node));
    }
    for op in operations::<Op>(Unstructured::new(data), 300) {
        world.apply(op);
    }
    world.finish();
}

fn name(text: &str) -> Atom {
    Atom::new(text).expect("a name")
}

fn registered(number: u8) -> Atom {
    name(["x", "y", "net_kernel"][usize::from(number % 3)])
}

impl World {
    fn with<T>(&mut self, at: usize, run: impl FnOnce(&mut Node<usize>, &mut Vec<Action<usize>>) -> T) -> T {
        let mut actions = Vec::new();
        let result = run(&mut self.nodes[at], &mut actions);
        for action in actions {
            if let Action::Close { connection, .. } = action {
                assert!(self.spoilt, "a node finds fault with what the other says");
                self.disconnect(at, connection);
            }
        }
        result
    }

    fn process(&self, number: u8) -> Option<(usize, Pid)> {
        pick(&self.processes, number).cloned()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Settle => self.settle(),
            Op::Spawn(at) => {
                let at = usize::from(at) % NODES;
                if let Ok(pid) = self.with(at, |node, _| node.spawn()) {
                    assert!(self.nodes[at].is_alive(&pid));
                    self.processes.push((at, pid));
                }
            }
            Op::End(a) => {
                let Some((at, a)) = self.process(a) else { return };
                self.with(at, |node, actions| node.end(&a, &Term::from(name("done")), actions));
                assert!(!self.nodes[at].is_alive(&a), "ended, and alive");
            }
            Op::Exit(a, b, kill) => {
                let (Some((at, a)), Some((_, b))) = (self.process(a), self.process(b)) else {
                    return;
                };
                let reason = Term::from(name(if kill { "kill" } else { "normal" }));
                let _ = self.with(at, |node, actions| node.exit(&a, &b, &reason, actions));
            }
            Op::Link(a, b) => {
                let (Some((at, a)), Some((_, b))) = (self.process(a), self.process(b)) else {
                    return;
                };
                let _ = self.with(at, |node, actions| node.link(&a, &b, actions));
            }
            Op::Unlink(a, b) => {
                let (Some((at, a)), Some((_, b))) = (self.process(a), self.process(b)) else {
                    return;
                };
                self.with(at, |node, actions| node.unlink(&a, &b, actions));
            }
            Op::Monitor(a, b) => {
                let (Some(a), Some((_, b))) = (self.process(a), self.process(b)) else {
                    return;
                };
                self.monitor(a, &b.into());
            }
            Op::MonitorName { by, node, name: of } => {
                let Some(by) = self.process(by) else { return };
                let node = self.nodes[usize::from(node) % NODES].name().clone();
                self.monitor(
                    by,
                    &Target::Name {
                        name: registered(of),
                        node,
                    },
                );
            }
            Op::Demonitor(number) => {
                let Some((at, a, reference)) = pick(&self.monitors, number).cloned() else {
                    return;
                };
                if self.with(at, |node, actions| node.demonitor(&a, &reference, actions)) {
                    assert!(!self.downs.contains_key(&reference), "told, and still to be taken back");
                    self.taken_back.insert(reference);
                }
            }
            op => self.apply_more(op),
        }
    }

    fn apply_more(&mut self, op: Op) {
        match op {
            Op::Register(a, number) => {
                let Some((at, a)) = self.process(a) else { return };
                let of = registered(number);
                if self.with(at, |node, _| node.register(of.clone(), &a)).is_ok() {
                    assert_eq!(self.nodes[at].whereis(&of), Some(a));
                }
            }
            Op::Unregister { node, name: of } => {
                let at = usize::from(node) % NODES;
                self.with(at, |node, _| node.unregister(&registered(of)));
            }
            Op::Send { from, to, size } => {
                let (Some(from), Some((_, to))) = (self.process(from), self.process(to)) else {
                    return;
                };
                self.send(from, &to.into(), size);
            }
            Op::SendName { from, node, name: of } => {
                let Some(from) = self.process(from) else { return };
                let node = self.nodes[usize::from(node) % NODES].name().clone();
                self.send(
                    from,
                    &Target::Name {
                        name: registered(of),
                        node,
                    },
                    1,
                );
            }
            Op::SendAlias { from, alias } => {
                let (Some(from), Some((_, _, alias))) = (self.process(from), pick(&self.aliases, alias).cloned())
                else {
                    return;
                };
                self.send(from, &alias.into(), 1);
            }
            Op::Alias(a) => {
                let Some((at, a)) = self.process(a) else { return };
                if let Ok(alias) = self.with(at, |node, _| node.alias(&a)) {
                    self.aliases.push((at, a, alias));
                }
            }
            Op::Unalias(number) => {
                let Some((at, a, alias)) = pick(&self.aliases, number).cloned() else {
                    return;
                };
                self.with(at, |node, _| node.unalias(&a, &alias));
            }
            Op::Receive(a) => {
                let Some((at, a)) = self.process(a) else { return };
                self.receive(at, &a);
            }
            Op::Step(a, b) => drop(self.step(usize::from(a) % NODES, usize::from(b) % NODES)),
            Op::Connect(a, b) => self.connect(usize::from(a) % NODES, usize::from(b) % NODES),
            Op::Disconnect(a, b) => self.disconnect(usize::from(a) % NODES, usize::from(b) % NODES),
            Op::Raw(from, to, bytes) => self.say(from, to, bytes.into()),
            Op::Again {
                from,
                to,
                which,
                at,
                bit,
            } => {
                let Some(message) = pick(&self.past, which) else { return };
                let mut bytes = BytesMut::from(&message[..]);
                if !bytes.is_empty() {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= 1 << (bit % 8);
                }
                self.say(from, to, bytes.freeze());
            }
            Op::Replay { from, to, which } => {
                let Some(message) = pick(&self.past, which).cloned() else {
                    return;
                };
                self.say(from, to, message);
            }
            _ => {}
        }
    }

    /// A message that nobody wrote goes to the front of a wire.
    fn say(&mut self, from: u8, to: u8, message: Bytes) {
        let wire = (usize::from(from) % NODES, usize::from(to) % NODES);
        if let Some(wire) = self.wires.get_mut(&wire) {
            self.spoilt = true;
            wire.push_back(message);
        }
    }

    fn monitor(&mut self, (at, a): (usize, Pid), target: &Target) {
        match self.with(at, |node, actions| node.monitor(&a, target, actions)) {
            Ok(reference) => self.monitors.push((at, a, reference)),
            Err(
                CommandError::Ended | CommandError::Limit { .. } | CommandError::Busy | CommandError::NotConnected(_),
            ) => {}
            Err(error) => assert!(matches!(error, CommandError::OwnMailbox), "{error}"),
        }
    }

    fn send(&mut self, (at, from): (usize, Pid), to: &Target, size: u8) {
        let term = Term::Binary(vec![b'x'; usize::from(size) * 4].into());
        match self.with(at, |node, actions| node.send(&from, to, term, actions)) {
            Ok(())
            | Err(
                CommandError::Ended
                | CommandError::NotConnected(_)
                | CommandError::Busy
                | CommandError::OwnMailbox
                | CommandError::Alias,
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn receive(&mut self, at: usize, a: &Pid) {
        if let Some(Signal::Down { reference, .. }) = self.with(at, |node, actions| node.receive(a, actions)) {
            *self.downs.entry(reference).or_default() += 1;
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.wires.contains_key(&(a, b)) {
            return;
        }
        for (at, other) in [(a, b), (b, a)] {
            let peer = self.nodes[other].name().clone();
            self.wires.insert((at, other), VecDeque::new());
            let event = Event::Up {
                connection: other,
                peer,
                common: Flags::DEFAULT,
            };
            self.with(at, |node, actions| node.handle(event, actions));
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            if self.wires.remove(&(at, other)).is_some() {
                self.with(at, |node, actions| {
                    node.handle(Event::Down { connection: other }, actions)
                });
            }
        }
    }

    fn step(&mut self, from: usize, to: usize) -> bool {
        while self.wires.contains_key(&(from, to))
            && let Some(message) = self.with(from, |node, actions| node.poll_message(to, actions))
        {
            if let Some(wire) = self.wires.get_mut(&(from, to)) {
                wire.push_back(message);
            }
        }
        if !self.nodes[to].can_receive(from) {
            return false;
        }
        let Some(message) = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        if self.past.len() < 64 {
            self.past.push(message.clone());
        }
        if !self.spoilt {
            assert_same_again(&message);
        }
        let event = Event::Received {
            connection: from,
            message,
        };
        self.with(to, |node, actions| node.handle(event, actions));
        true
    }

    /// Everybody reads, everything arrives.
    fn settle(&mut self) {
        for _ in 0..500 {
            let mut moved = false;
            for from in 0..NODES {
                for to in 0..NODES {
                    moved |= self.step(from, to);
                }
            }
            for (at, pid) in self.processes.clone() {
                while let Some(signal) = self.with(at, |node, actions| node.receive(&pid, actions)) {
                    moved = true;
                    if let Signal::Down { reference, .. } = signal {
                        *self.downs.entry(reference).or_default() += 1;
                    }
                }
            }
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn finish(&mut self) {
        self.settle();
        for (reference, count) in &self.downs {
            assert!(self.spoilt || *count == 1, "told {count} times of one end");
            assert!(
                self.spoilt || !self.taken_back.contains(reference),
                "told after it was taken back"
            );
        }
        // All that is left ends; then nobody watches anybody.
        for (at, pid) in self.processes.clone() {
            self.with(at, |node, actions| node.end(&pid, &Term::from(name("done")), actions));
        }
        self.settle();
        for (at, pid) in &self.processes {
            assert!(!self.nodes[*at].is_alive(pid));
            assert!(
                self.nodes[*at].whereis("x").is_none() && self.nodes[*at].whereis("y").is_none(),
                "a name of nobody"
            );
        }
    }
}

/// What nodes say to each other can be read, and is the same after being written again.
fn assert_same_again(message: &Bytes) {
    let mut decoder = MessageDecoder::new(DecodeLimits::DEFAULT, FragmentLimits::default(), 4096);
    let Ok(Some(decoded)) = decoder.decode(message) else {
        return;
    };
    let mut again = BytesMut::new();
    encode_message(&decoded, Form::PassThrough, &mut again).expect("what was read can be written");
    assert_eq!(decoder.decode(&again.freeze()), Ok(Some(decoded)), "not the same again");
}
