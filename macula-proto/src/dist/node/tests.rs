use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::wire::{
    dist::{Control, Flags, Form, FragmentLimits, MESSAGE_LIMITS, Message, MessageDecoder, control, encode_message},
    etf::{Atom, Pid, Reference, Term},
};

mod bounds;
mod long;

pub(super) fn atom(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

pub(super) fn term(text: &str) -> Term {
    Term::Atom(atom(text))
}

/// Nodes, and connections between them that deliver one message at a time. The connection with node `i` is called `i`.
#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<Node<usize>>,
    pub(super) wires: BTreeMap<(usize, usize), VecDeque<Bytes>>,
    /// What each node asked for, but for what the world does itself.
    pub(super) asked: Vec<Vec<Action<usize>>>,
    flags: Flags,
    /// Messages that a wire takes.
    capacity: usize,
}

impl World {
    pub(super) fn new(count: usize, flags: Flags, limits: &NodeLimits) -> Self {
        let node = |at: usize| {
            let mut config = NodeConfig::new(atom(&format!("n{at}@h")), 7 + at as u32);
            config.limits = limits.clone();
            Node::new(config)
        };
        Self {
            nodes: (0..count).map(node).collect(),
            wires: BTreeMap::new(),
            asked: vec![Vec::new(); count],
            flags,
            capacity: usize::MAX,
        }
    }

    fn pair() -> Self {
        let mut world = Self::new(2, Flags::DEFAULT, &NodeLimits::default());
        world.connect(0, 1);
        world
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            let (peer, common) = (self.nodes[other].name().clone(), self.flags);
            let connection = other;
            let up = Event::Up {
                connection,
                peer,
                common,
            };
            self.wires.insert((at, other), VecDeque::new());
            self.with(at, |node, actions| node.handle(up, actions));
        }
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            self.wires.remove(&(at, other));
            self.with(at, |node, actions| {
                node.handle(Event::Down { connection: other }, actions)
            });
        }
    }

    pub(super) fn with<R>(
        &mut self,
        at: usize,
        command: impl FnOnce(&mut Node<usize>, &mut Vec<Action<usize>>) -> R,
    ) -> R {
        let mut actions = Vec::new();
        let result = command(&mut self.nodes[at], &mut actions);
        self.asked[at].extend(actions);
        result
    }

    /// Moves what a node has put out onto its wires, as far as they take it.
    fn pump(&mut self, at: usize) {
        for other in 0..self.nodes.len() {
            while self
                .wires
                .get(&(at, other))
                .is_some_and(|wire| wire.len() < self.capacity)
            {
                match self.with(at, |node, actions| node.poll_message(other, actions)) {
                    Some(message) => self.wires.get_mut(&(at, other)).unwrap().push_back(message),
                    None => break,
                }
            }
        }
    }

    /// Delivers one message from `from` to `to`, if there is one and it can be taken.
    pub(super) fn step(&mut self, from: usize, to: usize) -> bool {
        self.pump(from);
        if !self.nodes[to].can_receive(from) {
            return false;
        }
        let Some(message) = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.with(to, |node, actions| {
            node.handle(
                Event::Received {
                    connection: from,
                    message,
                },
                actions,
            );
        });
        true
    }

    pub(super) fn settle(&mut self) {
        let count = self.nodes.len();
        let pairs = || (0..count).flat_map(move |from| (0..count).map(move |to| (from, to)));
        while pairs().fold(false, |moved, (from, to)| self.step(from, to) || moved) {}
    }

    pub(super) fn spawn(&mut self, at: usize) -> Pid {
        self.nodes[at].spawn().unwrap()
    }

    pub(super) fn receive(&mut self, at: usize, pid: &Pid) -> Option<Signal> {
        self.with(at, |node, actions| node.receive(pid, actions))
    }

    /// Everything in a mailbox once all is delivered.
    pub(super) fn drain(&mut self, at: usize, pid: &Pid) -> Vec<Signal> {
        self.settle();
        let mut signals = Vec::new();
        while let Some(signal) = self.receive(at, pid) {
            signals.push(signal);
            self.settle();
        }
        signals
    }

    fn send(&mut self, at: usize, from: &Pid, to: impl Into<Target>, term: Term) -> Result<(), CommandError> {
        self.with(at, |node, actions| node.send(from, &to.into(), term, actions))
    }

    fn end(&mut self, at: usize, pid: &Pid, reason: &str) {
        self.with(at, |node, actions| node.end(pid, &term(reason), actions));
    }

    fn link(&mut self, at: usize, pid: &Pid, other: &Pid) {
        self.with(at, |node, actions| node.link(pid, other, actions)).unwrap();
    }

    fn monitor(&mut self, at: usize, pid: &Pid, target: impl Into<Target>) -> Reference {
        self.with(at, |node, actions| node.monitor(pid, &target.into(), actions))
            .unwrap()
    }

    /// Hands a message to node 0 as if node 1 had sent it, and returns what that answers.
    fn inject(&mut self, message: &Message) -> Vec<Message> {
        let mut bytes = BytesMut::new();
        encode_message(message, Form::PassThrough, &mut bytes).unwrap();
        self.wires.get_mut(&(1, 0)).unwrap().push_back(bytes.freeze());
        assert!(self.step(1, 0));
        self.pump(0);
        let mut decoder = MessageDecoder::new(MESSAGE_LIMITS, FragmentLimits::default(), 1 << 20);
        let answers = std::mem::take(self.wires.get_mut(&(0, 1)).unwrap());
        answers
            .iter()
            .map(|bytes| decoder.decode(bytes).unwrap().unwrap())
            .collect()
    }
}

fn message(from: &Pid, term: Term) -> Signal {
    let from = Some(from.clone());
    Signal::Message { from, term }
}

pub(super) fn exit(from: &Pid, reason: &str, linked: bool) -> Signal {
    let (from, reason) = (from.clone(), term(reason));
    Signal::Exit { from, reason, linked }
}

fn down(reference: &Reference, target: impl Into<Target>, reason: &str) -> Signal {
    Signal::Down {
        reference: reference.clone(),
        target: target.into(),
        reason: term(reason),
    }
}

#[test]
fn messages_reach_pids_names_and_aliases_near_and_far() {
    let mut world = World::pair();
    let (sender, near, far) = (world.spawn(0), world.spawn(0), world.spawn(1));
    for (at, pid) in [(0, &near), (1, &far)] {
        world.nodes[at].register(atom("server"), pid).unwrap();
        let alias = world.nodes[at].alias(pid).unwrap();
        let name = (atom("server"), pid.node.clone());
        for (number, target) in [Target::from(pid), name.into(), alias.clone().into()]
            .into_iter()
            .enumerate()
        {
            world.send(0, &sender, target, Term::Int(number as i64)).unwrap();
        }
        let expected: Vec<_> = (0..3).map(|number| message(&sender, Term::Int(number))).collect();
        assert_eq!(world.drain(at, pid), expected);
        // What has gone is nobody.
        assert!(world.nodes[at].unalias(pid, &alias) && !world.nodes[at].unalias(pid, &alias));
        assert!(world.nodes[at].unregister("server") && !world.nodes[at].unregister("server"));
        world.send(0, &sender, alias, Term::NIL).unwrap();
        world
            .send(0, &sender, (atom("server"), pid.node.clone()), Term::NIL)
            .unwrap();
        world.end(at, pid, "normal");
        world.send(0, &sender, pid, Term::NIL).unwrap();
        world.settle();
        assert_eq!(world.nodes[at].stats().dropped, 3);
        assert_eq!(world.send(at, pid, &sender, Term::NIL), Err(CommandError::Ended));
    }
    let nowhere = (atom("server"), atom("n9@h"));
    assert_eq!(
        world.send(0, &sender, nowhere, Term::NIL),
        Err(CommandError::NotConnected(atom("n9@h")))
    );
    // A pid of an earlier run of the node.
    let earlier = Pid { creation: 99, ..far };
    world.send(0, &sender, &earlier, Term::NIL).unwrap();
    world.settle();
    assert_eq!(world.nodes[1].stats().dropped, 4);
}

#[test]
fn names_are_unique_and_one_for_each_process() {
    let mut node = Node::<u8>::new(NodeConfig::new(atom("a@h"), 1));
    let (one, two) = (node.spawn().unwrap(), node.spawn().unwrap());
    assert_eq!(node.register(atom("x"), &one), Ok(()));
    assert_eq!(node.register(atom("x"), &two), Err(RegisterError::Taken(atom("x"))));
    assert_eq!(node.register(atom("y"), &one), Err(RegisterError::Named(atom("x"))));
    assert_eq!(
        node.register(atom("net_kernel"), &two),
        Err(RegisterError::Taken(atom("net_kernel")))
    );
    assert_eq!(
        node.register(atom("undefined"), &two),
        Err(RegisterError::Reserved(atom("undefined")))
    );
    assert_eq!(node.whereis("x"), Some(one.clone()));
    assert!(!node.unregister("net_kernel"));
    let net_kernel = node.whereis("net_kernel").unwrap();
    node.end(&net_kernel, &term("normal"), &mut Vec::new());
    assert!(node.is_alive(&net_kernel));
    node.end(&one, &term("normal"), &mut Vec::new());
    assert_eq!((node.whereis("x"), node.register(atom("x"), &two)), (None, Ok(())));
    assert_eq!(node.register(atom("z"), &one), Err(RegisterError::Ended));
}

#[test]
fn pings_are_answered_in_each_form_that_erlang_asks_in() {
    let mut world = World::pair();
    let from = world.spawn(1);
    let reference = world.nodes[1].make_reference();
    let alias: Term = Term::ImproperList(vec![term("alias")], Box::new(reference.clone().into()));
    let nested = Term::ImproperList(vec![alias.clone()], Box::new(reference.clone().into()));
    for (tag, to_alias) in [(reference.clone().into(), false), (alias, true), (nested, true)] {
        let call = Call {
            from: from.clone(),
            tag: tag.clone(),
            request: [term("is_auth"), term("n1@h")].into(),
        };
        let control = Control::RegSend {
            from: from.clone(),
            to: atom("net_kernel"),
            token: None,
        };
        let answers = world.inject(&Message::with_payload(control, call.into_term()));
        let sender = world.nodes[0].whereis("net_kernel").unwrap();
        let control = if to_alias {
            let (from, alias, token) = (sender, reference.clone(), None);
            Control::AliasSend { from, alias, token }
        } else {
            let (from, to, token) = (sender, from.clone(), None);
            Control::SendSender { from, to, token }
        };
        assert_eq!(answers, [Message::with_payload(control, [tag, term("yes")].into())]);
    }
    assert_eq!(world.nodes[0].stats().pings, 3);

    // `gen:call` monitors first, and takes the monitor back.
    let net_kernel = (atom("net_kernel"), world.nodes[0].name().clone());
    let reference = world.monitor(1, &from, net_kernel);
    world.settle();
    assert_eq!(world.receive(1, &from), None);
    assert!(world.with(1, |node, actions| node.demonitor(&from, &reference, actions)));
    world.settle();
    assert!(world.nodes[0].connections[&1].watched.is_empty());
}

#[test]
fn calls_are_told_from_other_messages() {
    let mut node = Node::<u8>::new(NodeConfig::new(atom("a@h"), 1));
    let (pid, reference) = (node.spawn().unwrap(), node.make_reference());
    let call = Call::new(pid.clone(), reference.clone(), term("stop"));
    assert_eq!(Call::from_term(call.clone().into_term()), Ok(call.clone()));
    assert_eq!(call.reply_to(), Target::Pid(pid));
    assert_eq!(Call::answer(call.reply(term("ok")), &reference), Ok(term("ok")));
    let other = node.make_reference();
    assert_eq!(
        Call::answer(call.reply(term("ok")), &other),
        Err(call.reply(term("ok")))
    );
    for no_call in [
        term("x"),
        [term("$gen_call"), term("x"), term("y")].into(),
        [term("$gen_cast"), term("y")].into(),
    ] {
        assert_eq!(Call::from_term(no_call.clone()), Err(no_call));
    }
}

#[test]
fn links_pass_the_end_on_both_ways() {
    let mut world = World::pair();
    for far in [0, 1] {
        for first in [true, false] {
            let (a, b) = (world.spawn(0), world.spawn(far));
            world.link(0, &a, &b);
            world.settle();
            let ((at, ending), (other_at, other)) = if first {
                ((0, &a), (far, &b))
            } else {
                ((far, &b), (0, &a))
            };
            world.end(at, ending, "oops");
            assert_eq!(world.drain(other_at, other), [exit(ending, "oops", true)]);
        }
    }
    // Who is not there.
    let (a, gone) = (world.spawn(0), world.spawn(1));
    world.end(1, &gone, "normal");
    world.link(0, &a, &gone);
    assert_eq!(world.drain(0, &a), [exit(&gone, "noproc", true)]);
    let (gone, nowhere) = (
        world.spawn(0),
        Pid {
            node: atom("n9@h"),
            ..gone
        },
    );
    world.end(0, &gone, "normal");
    world.link(0, &a, &gone);
    world.link(0, &a, &nowhere);
    assert_eq!(
        world.drain(0, &a),
        [exit(&gone, "noproc", true), exit(&nowhere, "noconnection", true)]
    );
    assert!(
        world
            .nodes
            .iter()
            .all(|node| node.connections.values().all(|state| state.links == 0))
    );
}

#[test]
fn a_link_taken_down_passes_nothing_on() {
    for flags in [Flags::DEFAULT, Flags::DEFAULT.without(Flags::UNLINK_ID)] {
        let mut world = World::new(2, flags, &NodeLimits::default());
        world.connect(0, 1);
        for far in [0, 1] {
            let (a, b) = (world.spawn(0), world.spawn(far));
            world.link(0, &a, &b);
            world.settle();
            world.with(0, |node, actions| node.unlink(&a, &b, actions));
            world.settle();
            world.end(far, &b, "oops");
            assert_eq!(world.drain(0, &a), []);
            assert!(
                world
                    .nodes
                    .iter()
                    .all(|node| node.connections.values().all(|state| state.links == 0))
            );
        }
    }
    // The end crosses the unlink: it comes too late to count.
    let mut world = World::pair();
    let (a, b) = (world.spawn(0), world.spawn(1));
    world.link(0, &a, &b);
    world.settle();
    world.with(0, |node, actions| node.unlink(&a, &b, actions));
    world.end(1, &b, "oops");
    assert_eq!(world.drain(0, &a), []);
}

#[test]
fn exits_are_signals_and_kill_kills() {
    let mut world = World::pair();
    for far in [0, 1] {
        let (a, b, watcher) = (world.spawn(0), world.spawn(far), world.spawn(0));
        let reference = world.monitor(0, &watcher, &b);
        world
            .with(0, |node, actions| node.exit(&a, &b, &term("please"), actions))
            .unwrap();
        assert_eq!(world.drain(far, &b), [exit(&a, "please", false)]);
        world
            .with(0, |node, actions| node.exit(&a, &b, &term("kill"), actions))
            .unwrap();
        world.settle();
        assert!(!world.nodes[far].is_alive(&b) && world.asked[far].contains(&Action::Ended(b.clone())));
        assert_eq!(world.drain(0, &watcher), [down(&reference, &b, "killed")]);
    }
}

#[test]
fn monitors_tell_of_the_end_once_and_by_the_name_that_was_used() {
    for flags in [Flags::DEFAULT, Flags::DEFAULT.without(Flags::EXIT_PAYLOAD)] {
        let mut world = World::new(2, flags, &NodeLimits::default());
        world.connect(0, 1);
        for far in [0, 1] {
            let (a, b) = (world.spawn(0), world.spawn(far));
            world.nodes[far].register(atom("b"), &b).unwrap();
            let named = (atom("b"), b.node.clone());
            let by_pid = world.monitor(0, &a, &b);
            let by_name = world.monitor(0, &a, named.clone());
            let taken_back = world.monitor(0, &a, &b);
            assert!(world.with(0, |node, actions| node.demonitor(&a, &taken_back, actions)));
            assert!(!world.with(0, |node, actions| node.demonitor(&a, &taken_back, actions)));
            assert_eq!(world.drain(0, &a), []);
            world.end(far, &b, "done");
            assert_eq!(
                world.drain(0, &a),
                [down(&by_pid, &b, "done"), down(&by_name, named.clone(), "done")]
            );
            let (by_pid, by_name) = (world.monitor(0, &a, &b), world.monitor(0, &a, named.clone()));
            assert_eq!(
                world.drain(0, &a),
                [down(&by_pid, &b, "noproc"), down(&by_name, named, "noproc")]
            );
        }
        let a = world.spawn(0);
        let nowhere = (atom("b"), atom("n9@h"));
        let reference = world.monitor(0, &a, nowhere.clone());
        assert_eq!(world.drain(0, &a), [down(&reference, nowhere, "noconnection")]);
        let alias = world.nodes[0].alias(&a).unwrap();
        let refused = world.with(0, |node, actions| node.monitor(&a, &alias.into(), actions));
        assert_eq!(refused, Err(CommandError::Alias));
        // Who ends leaves no monitors behind.
        let b = world.spawn(1);
        world.monitor(0, &a, &b);
        world.settle();
        assert_eq!(world.nodes[1].connections[&0].watched.len(), 1);
        world.end(0, &a, "normal");
        world.settle();
        assert!(world.nodes[1].connections[&0].watched.is_empty());
    }
}

#[test]
fn a_lost_connection_ends_links_and_monitors_across_it() {
    let mut world = World::pair();
    let (a, b, friend) = (world.spawn(0), world.spawn(1), world.spawn(0));
    world.link(0, &a, &b);
    world.link(0, &a, &friend);
    let reference = world.monitor(0, &a, &b);
    let kept = world.monitor(0, &a, &friend);
    world.settle();
    world.disconnect(0, 1);
    assert_eq!(
        world.drain(0, &a),
        [exit(&b, "noconnection", true), down(&reference, &b, "noconnection")]
    );
    assert_eq!(world.drain(1, &b), [exit(&a, "noconnection", true)]);
    assert_eq!(
        (world.nodes[0].peers().count(), world.nodes[0].connection("n1@h")),
        (0, None)
    );
    world.end(0, &friend, "bye");
    assert_eq!(
        world.drain(0, &a),
        [exit(&friend, "bye", true), down(&kept, &friend, "bye")]
    );
    // They meet again: nothing is left of before.
    world.connect(0, 1);
    world.end(1, &b, "late");
    assert_eq!(world.drain(0, &a), []);
}

#[test]
fn a_new_connection_with_the_same_node_ends_the_earlier_one() {
    let mut world = World::pair();
    let (a, b) = (world.spawn(0), world.spawn(1));
    world.link(0, &a, &b);
    let up = Event::Up {
        connection: 5,
        peer: atom("n1@h"),
        common: Flags::DEFAULT,
    };
    world.with(0, |node, actions| node.handle(up, actions));
    assert_eq!(world.receive(0, &a), Some(exit(&b, "noconnection", true)));
    assert_eq!(
        (world.nodes[0].connection("n1@h"), world.nodes[0].can_receive(1)),
        (Some(5), false)
    );
}
