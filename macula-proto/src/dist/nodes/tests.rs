use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::*;
use crate::{
    Now, Rng,
    dist::handshake::{Action, Event, Handshake, HandshakeConfig, Role},
    wire::dist::handshake::Carrier,
};

fn atom(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

#[test]
fn one_connection_a_node() {
    let peer = atom("b@h");
    let mut nodes = Nodes::new(atom("a@h"));
    assert_eq!(nodes.dial(&peer, 1), Ok(()));
    assert_eq!(nodes.dial(&peer, 2), Err(Standing::Dialling));
    assert!(nodes.is_wanted(&peer, 1) && !nodes.is_wanted(&peer, 2));
    assert_eq!(nodes.connected(&peer), None);
    assert_eq!(nodes.up(&peer, 2), Err(Superseded));
    assert_eq!(nodes.up(&peer, 1), Ok(None));
    assert_eq!(
        (nodes.connected(&peer), nodes.dial(&peer, 3)),
        (Some(1), Err(Standing::Connected))
    );
    // The peer started anew, and nobody has noticed.
    assert_eq!(
        nodes.call(&peer, 4),
        Calling {
            standing: Standing::Connected,
            abort: None
        }
    );
    assert_eq!(
        nodes.call(&peer, 5),
        Calling {
            standing: Standing::Replacing,
            abort: None
        }
    );
    assert_eq!(nodes.dial(&peer, 6), Err(Standing::Replacing));
    assert_eq!(nodes.up(&peer, 4), Ok(Some(1)));
    // That the old one closes removes nothing of the new one.
    nodes.gone(&peer, 1);
    assert_eq!(nodes.iter().collect::<Vec<_>>(), [(&peer, 4)]);
    nodes.gone(&peer, 4);
    assert_eq!((nodes.connected(&peer), nodes.dial(&peer, 7)), (None, Ok(())));
}

#[test]
fn a_connection_that_was_decided_on_elsewhere_prevails() {
    let peer = atom("b@h");
    let mut nodes = Nodes::new(atom("a@h"));
    assert_eq!(nodes.prevail(&peer, 1), (None, None));
    assert_eq!(nodes.connected(&peer), Some(1));
    assert_eq!(nodes.call(&peer, 2).standing, Standing::Connected);
    assert_eq!(nodes.prevail(&peer, 3), (Some(1), Some(2)));
    // Neither the one that was in its handshake nor the end of the others changes that.
    assert_eq!(nodes.up(&peer, 2), Err(Superseded));
    for gone in [1, 2] {
        nodes.gone(&peer, gone);
    }
    assert_eq!(nodes.connected(&peer), Some(3));
    nodes.gone(&peer, 3);
    // Its own dial is not a connection whose place it takes.
    assert_eq!(nodes.dial(&peer, 4), Ok(()));
    assert_eq!(nodes.prevail(&peer, 4), (None, None));
    assert_eq!(nodes.prevail(&peer, 4), (None, None));
    assert_eq!(nodes.iter().collect::<Vec<_>>(), [(&peer, 4)]);
}

#[test]
fn a_second_call_takes_the_place_of_one_that_got_stuck() {
    let peer = atom("b@h");
    let mut nodes = Nodes::new(atom("z@h"));
    assert_eq!(
        nodes.call(&peer, 1),
        Calling {
            standing: Standing::New,
            abort: None
        }
    );
    assert_eq!(
        nodes.call(&peer, 2),
        Calling {
            standing: Standing::New,
            abort: Some(1)
        }
    );
    nodes.gone(&peer, 1);
    assert_eq!((nodes.up(&peer, 1), nodes.up(&peer, 2)), (Err(Superseded), Ok(None)));
}

/// Two nodes that dial each other: node 0 over connection 0, node 1 over connection 1.
struct World {
    nodes: [Nodes<usize>; 2],
    /// By node and connection; `None` before the dial, or once the connection is gone.
    machines: [[Option<Handshake>; 2]; 2],
    /// What is on its way to a node over a connection; `None`: the end.
    wires: [[VecDeque<Option<bytes::Bytes>>; 2]; 2],
    dialled: [bool; 2],
    now: Now,
}

fn name(node: usize) -> Atom {
    atom(["a@h", "b@h"][node])
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "tests start their clock somewhere")]
    fn new() -> Self {
        Self {
            nodes: [Nodes::new(name(0)), Nodes::new(name(1))],
            machines: Default::default(),
            wires: Default::default(),
            dialled: [false; 2],
            now: Now::new(Instant::now(), 0),
        }
    }

    /// What can happen next: a node's dial (0, 1), or a delivery (2 + 2 * node + connection).
    fn choices(&self) -> Vec<usize> {
        let dials = (0..2).filter(|node| !self.dialled[*node]);
        let deliveries = (0..4).filter(|at| !self.wires[at / 2][at % 2].is_empty());
        dials.chain(deliveries.map(|at| at + 2)).collect()
    }

    fn step(&mut self, choice: usize) {
        let Some(at) = choice.checked_sub(2) else {
            self.dialled[choice] = true;
            if self.nodes[choice].dial(&name(1 - choice), choice).is_ok() {
                self.begin(choice, choice, Role::Dialler { peer: name(1 - choice) });
                self.begin(1 - choice, choice, Role::Acceptor);
            }
            return;
        };
        let (node, connection) = (at / 2, at % 2);
        match self.wires[node][connection].pop_front().unwrap() {
            Some(bytes) => self.event(node, connection, Event::Received(bytes)),
            None => {
                self.event(node, connection, Event::Lost);
                self.nodes[node].gone(&name(1 - node), connection);
            }
        }
    }

    fn begin(&mut self, node: usize, connection: usize, role: Role) {
        let config = HandshakeConfig {
            carrier: Carrier::Tcp,
            ..HandshakeConfig::new(name(node), 1, "c".into())
        };
        self.machines[node][connection] = Some(Handshake::new(role, config, &mut Rng::from_seed(1)));
        self.event(node, connection, Event::Start);
    }

    fn event(&mut self, node: usize, connection: usize, event: Event) {
        let Some(machine) = &mut self.machines[node][connection] else {
            return;
        };
        let peer = name(1 - node);
        let mut actions = Vec::new();
        machine.handle(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Send(bytes) => self.wires[1 - node][connection].push_back(Some(bytes)),
                Action::AskStanding { peer } => {
                    let calling = self.nodes[node].call(&peer, connection);
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
                Action::Up(_) => match self.nodes[node].up(&peer, connection) {
                    Ok(None) => {}
                    Ok(Some(old)) => self.close(node, old),
                    Err(Superseded) => self.close(node, connection),
                },
                Action::Failed(_) => self.close(node, connection),
            }
        }
    }

    fn close(&mut self, node: usize, connection: usize) {
        self.machines[node][connection] = None;
        self.wires[1 - node][connection].push_back(None);
        self.wires[node][connection].clear();
        self.nodes[node].gone(&name(1 - node), connection);
    }
}

#[test]
fn two_dials_at_once_end_in_one_connection_in_every_interleaving() {
    let (mut runs, mut survivors) = (0, BTreeSet::new());
    let mut script: Vec<usize> = Vec::new();
    loop {
        // Runs the script, then the first of the choices each time, and counts how many there were.
        let (mut world, mut widths, mut at) = (World::new(), Vec::new(), 0);
        loop {
            let choices = world.choices();
            if choices.is_empty() {
                break;
            }
            if at == script.len() {
                script.push(0);
            }
            widths.push(choices.len());
            world.step(choices[script[at]]);
            at += 1;
            assert!(at < 100, "no end");
        }
        runs += 1;
        let connected = [world.nodes[0].connected("b@h"), world.nodes[1].connected("a@h")];
        assert!(
            connected[0].is_some() && connected[0] == connected[1],
            "{script:?}: {connected:?}"
        );
        survivors.insert(connected[0]);
        // The next script: the last choice that has another one behind it.
        while let Some(last) = script.pop() {
            if last + 1 < widths[script.len()] {
                script.push(last + 1);
                break;
            }
        }
        if script.is_empty() {
            break;
        }
    }
    assert_eq!(survivors.len(), 2, "each of them stays in some interleaving");
    assert!(runs > 100, "{runs}");
}
