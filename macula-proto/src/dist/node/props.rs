//! Links and monitors agree on both sides, whatever happens in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    tests::{World, term},
    *,
};
use crate::wire::{
    dist::Flags,
    etf::{Pid, Reference},
};

const NODES: usize = 3;

/// Processes are chosen by a number out of all that ever were, so that ended ones are chosen too.
#[derive(Debug, Clone)]
enum Op {
    Spawn(usize),
    End(usize),
    Kill(usize, usize),
    Link(usize, usize),
    Unlink(usize, usize),
    Monitor(usize, usize),
    Demonitor(usize),
    Step(usize, usize),
    Connect(usize, usize),
    Disconnect(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let process = 0..12_usize;
    let node = 0..NODES;
    prop_oneof![
        1 => node.clone().prop_map(Op::Spawn),
        1 => process.clone().prop_map(Op::End),
        1 => (process.clone(), process.clone()).prop_map(|(a, b)| Op::Kill(a, b)),
        6 => (process.clone(), process.clone()).prop_map(|(a, b)| Op::Link(a, b)),
        5 => (process.clone(), process.clone()).prop_map(|(a, b)| Op::Unlink(a, b)),
        5 => (process.clone(), process).prop_map(|(a, b)| Op::Monitor(a, b)),
        3 => (0..40_usize).prop_map(Op::Demonitor),
        14 => (node.clone(), node.clone()).prop_map(|(a, b)| Op::Step(a, b)),
        2 => (node.clone(), node.clone()).prop_map(|(a, b)| Op::Connect(a, b)),
        1 => (node.clone(), node).prop_map(|(a, b)| Op::Disconnect(a, b)),
    ]
}

#[derive(Debug)]
struct Run {
    world: World,
    processes: Vec<(usize, Pid)>,
    monitors: Vec<(usize, Pid, Reference)>,
    taken_back: Vec<Reference>,
}

impl Run {
    fn apply(&mut self, op: Op) {
        let pick = |number: usize| self.processes.get(number % self.processes.len().max(1)).cloned();
        match op {
            Op::Spawn(at) => {
                let pid = self.world.spawn(at);
                self.processes.push((at, pid));
            }
            Op::End(a) => {
                let Some((at, a)) = pick(a) else { return };
                self.world
                    .with(at, |node, actions| node.end(&a, &term("ended"), actions));
            }
            Op::Kill(a, b) => {
                let (Some((at, a)), Some((_, b))) = (pick(a), pick(b)) else {
                    return;
                };
                let _ = self
                    .world
                    .with(at, |node, actions| node.exit(&a, &b, &term("kill"), actions));
            }
            Op::Link(a, b) => {
                let (Some((at, a)), Some((_, b))) = (pick(a), pick(b)) else {
                    return;
                };
                let _ = self.world.with(at, |node, actions| node.link(&a, &b, actions));
            }
            Op::Unlink(a, b) => {
                let (Some((at, a)), Some((_, b))) = (pick(a), pick(b)) else {
                    return;
                };
                self.world.with(at, |node, actions| node.unlink(&a, &b, actions));
            }
            Op::Monitor(a, b) => {
                let (Some((at, a)), Some((_, b))) = (pick(a), pick(b)) else {
                    return;
                };
                let set = self
                    .world
                    .with(at, |node, actions| node.monitor(&a, &b.into(), actions));
                self.monitors.extend(set.ok().map(|reference| (at, a, reference)));
            }
            Op::Demonitor(number) => {
                let monitor = self.monitors.get(number % self.monitors.len().max(1)).cloned();
                let Some((at, a, reference)) = monitor else { return };
                if self
                    .world
                    .with(at, |node, actions| node.demonitor(&a, &reference, actions))
                {
                    self.taken_back.push(reference);
                }
            }
            Op::Step(a, b) => {
                self.world.step(a, b);
            }
            Op::Connect(a, b) if a != b && !self.world.wires.contains_key(&(a, b)) => self.world.connect(a, b),
            Op::Disconnect(a, b) if self.world.wires.contains_key(&(a, b)) => self.world.disconnect(a, b),
            Op::Connect(..) | Op::Disconnect(..) => {}
        }
    }

    fn check_links(&self) -> Result<(), TestCaseError> {
        let own = |pid: &Pid| {
            self.world
                .nodes
                .iter()
                .position(|node| *node.name() == pid.node)
                .unwrap()
        };
        for (at, node) in self.world.nodes.iter().enumerate() {
            let mut across = BTreeMap::<usize, usize>::new();
            for (number, process) in &node.processes {
                for (other, link) in &process.links {
                    prop_assert_eq!(*link, process::Link::Active, "a link is unconfirmed for ever");
                    let there = &self.world.nodes[own(other)];
                    let back = there
                        .local(other)
                        .and_then(|other| there.processes[&other].links.get(&node.pid(*number)));
                    prop_assert_eq!(back, Some(&process::Link::Active), "a link with one end");
                    if own(other) != at {
                        *across.entry(own(other)).or_default() += 1;
                    }
                }
            }
            for (connection, state) in &node.connections {
                prop_assert_eq!(state.links, across.get(connection).copied().unwrap_or(0));
            }
        }
        Ok(())
    }

    fn check_monitors(&mut self) -> Result<(), TestCaseError> {
        let mut downs = BTreeMap::<Reference, usize>::new();
        for (at, pid) in self.processes.clone() {
            for signal in self.world.drain(at, &pid) {
                if let Signal::Down { reference, .. } = signal {
                    *downs.entry(reference).or_default() += 1;
                }
            }
        }
        let mut watched = 0;
        for (at, pid, reference) in &self.monitors {
            let node = &self.world.nodes[*at];
            let process = node.local(pid).map(|number| &node.processes[&number]);
            let set = process.and_then(|process| process.monitors.get(reference));
            let told = downs.get(reference).copied().unwrap_or(0);
            if let Some(target) = set {
                prop_assert_eq!(told, 0);
                let Target::Pid(target) = target else { panic!() };
                let there = self
                    .world
                    .nodes
                    .iter()
                    .find(|node| *node.name() == target.node)
                    .unwrap();
                let watcher = there
                    .local(target)
                    .and_then(|number| there.processes[&number].watchers.get(reference));
                prop_assert!(watcher.is_some(), "a monitor of nobody");
                watched += 1;
            } else if process.is_some() && !self.taken_back.contains(reference) {
                prop_assert_eq!(told, 1, "the end of a monitored process was told {} times", told);
            } else {
                prop_assert_eq!(told, 0);
            }
        }
        let processes = self.world.nodes.iter().flat_map(|node| node.processes.values());
        prop_assert_eq!(
            processes.map(|process| process.watchers.len()).sum::<usize>(),
            watched,
            "left behind"
        );
        for (at, node) in self.world.nodes.iter().enumerate() {
            for (other, state) in &node.connections {
                let of_peer = |watcher: &process::Watcher| watcher.pid.node == *self.world.nodes[*other].name();
                let watchers = node.processes.values().flat_map(|process| process.watchers.values());
                prop_assert_eq!(
                    watchers.filter(|watcher| of_peer(watcher)).count(),
                    state.watched.len(),
                    "node {}",
                    at
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn links_and_monitors_agree_once_all_is_delivered(ops in proptest::collection::vec(op(), 0..120), payload in any::<bool>()) {
        let flags = if payload { Flags::DEFAULT } else { Flags::DEFAULT.without(Flags::EXIT_PAYLOAD) };
        let mut run = Run {
            world: World::new(NODES, flags, &NodeLimits::default()),
            processes: Vec::new(),
            monitors: Vec::new(),
            taken_back: Vec::new(),
        };
        for (a, b) in [(0, 1), (1, 2), (0, 2)] {
            run.world.connect(a, b);
        }
        for at in 0..NODES {
            run.apply(Op::Spawn(at));
        }
        for op in ops {
            run.apply(op);
        }
        run.world.settle();
        run.check_links()?;
        run.check_monitors()?;
    }
}
