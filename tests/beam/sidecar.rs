//! Two real, unmodified BEAM nodes, each with one `macula beam` next to it, and one relay: nothing else.
//!
//! Each node is bound to the loopback address in its name and asks the port mapper at a TCP port of its own for the other
//! one; that port mapper is its `macula beam`. So neither node can find the other in any other way, although both are on
//! one machine.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{Node, Ports, addresses, can_run, compile_driver, cookie, free_port};
use crate::journal::{Journal, Log};
use crate::path::Kind;
use crate::relay::{self, RelayPath, SETUP, event, event_after, parse, text};
use crate::{MEET_AGAIN, NODE_DOWN, SOON, WORK};

/// Calls made one after another.
const CALLS: usize = 1000;

/// One side.
#[derive(Debug)]
struct Host {
    name: String,
    ip: IpAddr,
    /// Where this side's port mapper is.
    epmd: u16,
    /// What the `macula beam` of this side tells.
    log: Arc<Log>,
}

/// Field order is drop order: the nodes go before what is between them.
#[derive(Debug)]
struct World {
    nodes: Vec<Node>,
    hosts: Vec<Host>,
    relay: RelayPath,
    journal: Journal,
    addresses: [IpAddr; 4],
    cookie: String,
    dir: TempDir,
}

#[test]
fn a_command_beside_each_node_is_all_it_takes() {
    if !can_run(Kind::Relay) {
        return;
    }
    let mut world = World::start();
    meet(&mut world);
    part_and_meet_again(&mut world);
    for node in [0, 1] {
        world.ask(node, "keep", "", SOON);
    }
    outlive_the_relay(&mut world);
    outlive_a_node(&mut world);
    outlive_the_command(&mut world);
    refuse_a_stranger(&mut world);
}

/// The first dial, one the other way, which finds the connection there, and work.
fn meet(world: &mut World) {
    let marks = world.marks();
    assert_eq!(world.ask(0, "ping", "", SOON), "pong");
    world.wait_both(marks, "up", SOON);
    assert_eq!(world.ask(1, "ping", "", SOON), "pong");
    for node in [0, 1] {
        let figures = world.ask(node, "calls", &CALLS.to_string(), WORK);
        println!("calls (number, median, 99th percentile, longest; us): {figures}");
    }
    world.ask(0, "bulk", "5000000 7", WORK);
    let opened: Vec<_> = world
        .hosts
        .iter()
        .map(|host| told(&host.log, 0, "tunnel_open"))
        .collect();
    assert_eq!(opened[0].len(), 1, "{opened:?}");
    assert_eq!(opened[1].len(), 1, "{opened:?}");
    assert_eq!(opened[0][0]["peer"], world.hosts[1].name);
    assert_eq!(opened[1][0]["peer"], world.hosts[0].name);
}

fn part_and_meet_again(world: &mut World) {
    let marks = world.marks();
    world.ask(0, "disconnect", "", SOON);
    world.wait_both(marks, "down", SOON);
    for host in &world.hosts {
        let closed = event(&host.log, "tunnel_closed", SOON);
        world.journal.expect(closed, "the tunnel of a connection that is gone");
    }
    let marks = world.marks();
    // This time the other one dials.
    assert_eq!(world.ask(1, "ping", "", SOON), "pong");
    world.wait_both(marks, "up", SOON);
    world.ask(0, "calls", "10", SOON);
}

/// The relay dies, which both nodes notice, and comes back, which they notice as well: by their own dials alone.
fn outlive_the_relay(world: &mut World) {
    let marks = world.marks();
    let killed = world.relay.kill_relay();
    world.journal.expect(killed, "cannot kill the relay");
    world.wait_both(marks, "down", NODE_DOWN);
    let marks = world.marks();
    let restarted = Instant::now();
    let started = world.relay.start_relay();
    world.journal.expect(started, "cannot start the relay again");
    world.wait_both(marks, "up", MEET_AGAIN);
    println!("met again {:?} after the relay's restart", restarted.elapsed());
    world.ask(0, "calls", "10", WORK);
}

/// A node dies and comes back with another port, while its `macula beam` stays.
fn outlive_a_node(world: &mut World) {
    let log = Arc::clone(&world.hosts[1].log);
    let before = told(&log, 0, "registered");
    assert_eq!(before.len(), 1, "{before:?}");
    let (mark, from) = (world.nodes[0].mark(), log.position());
    world.nodes[1].kill();
    world.nodes[0].wait_event(mark, "down", SOON);
    let gone = event_after(&log, from, "unregistered", SOON);
    let gone = world.journal.expect(gone, "a node that was killed is still registered");
    assert_eq!(gone["node"], world.hosts[1].name);

    // While nobody is registered, what comes is turned away, and told of.
    let refused = event_after(&log, from, "error", SOON);
    let refused = world.journal.expect(refused, "a dial while there is no node");
    assert!(
        refused["kind"] == "not_registered" || refused["kind"] == "connect",
        "{refused}"
    );

    let (mark, from) = (world.nodes[0].mark(), log.position());
    world.nodes[1] = world.launch(1);
    let again = event_after(&log, from, "registered", SOON);
    let again = world.journal.expect(again, "the node is not registered again");
    println!("registered at {} and then at {}", before[0]["port"], again["port"]);
    world.nodes[1].wait_ready();
    world.nodes[0].wait_event(mark, "up", MEET_AGAIN);
    world.ask(1, "calls", "10", WORK);
}

/// A `macula beam` dies and is started again, while its node stays.
fn outlive_the_command(world: &mut World) {
    let marks = world.marks();
    let killed = world.relay.kill_client(0);
    world.journal.expect(killed, "cannot kill a macula beam");
    world.nodes[0].wait_event(marks[0], "down", SOON);
    let host = &world.hosts[0];
    let (name, epmd) = (host.name.clone(), host.epmd.to_string());
    let peer = world.hosts[1].name.clone();
    let log = world
        .relay
        .start_client("beam", &name, &["--peer", &peer, "--epmd-port", &epmd]);
    let log = world.journal.expect(log, "cannot start macula beam again");
    let registered = event(&log, "registered", SOON);
    world.journal.expect(registered, "the node does not register again");
    world.hosts[0].log = log;
    // The other node may still believe in the connection that is gone, for as long as nobody tells it.
    world.wait_both(marks, "down", NODE_DOWN);
    world.wait_both(marks, "up", MEET_AGAIN);
    world.ask(0, "calls", "10", WORK);
}

/// Whom nobody has named as a peer gets in nowhere.
fn refuse_a_stranger(world: &mut World) {
    let name = format!("c@{}", world.addresses[2]);
    let host = world.hosts[1].name.clone();
    // At 127.0.0.1 and at the stranger's view of the addresses.
    let epmd = free_port(&[IpAddr::V4(Ipv4Addr::LOCALHOST), world.addresses[1], world.addresses[2]]);
    let epmd = world.journal.expect(epmd, "a port").to_string();
    let log = world
        .relay
        .start_client("beam", &name, &["--peer", &host, "--epmd-port", &epmd]);
    let log = world.journal.expect(log, "cannot start a stranger");
    let identified = event(&log, "identified", SETUP);
    world.journal.expect(identified, "the stranger is not identified");
    let (there, from) = (Arc::clone(&world.hosts[1].log), world.hosts[1].log.position());
    let door = told(&log, 0, "listening")
        .into_iter()
        .find(|event| event["node"] == host);
    let door = world
        .journal
        .expect(door.ok_or("nothing"), "a port for connections to a peer");
    let door = world.journal.expect(text(&door, "addr"), "its address");
    let tcp = TcpStream::connect(&door);
    let mut tcp = world.journal.expect(tcp, "a connection");
    let timeout = tcp.set_read_timeout(Some(SOON));
    world.journal.expect(timeout, "a time-out");
    let read = tcp.read(&mut [0]);
    assert!(
        read.as_ref()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{read:?}"
    );
    let closed = event(&log, "tunnel_closed", SOON);
    let closed = world.journal.expect(closed, "the stranger was not refused");
    assert_eq!(closed["reason"], "reset by the peer: not_allowed");
    assert_eq!(closed["bytes_out"], 0);
    // Where it wanted to go nothing was opened, and nothing was disturbed.
    assert_eq!(told(&there, from, "tunnel_open"), Vec::<Value>::new());
    world.ask(0, "calls", "10", WORK);
}

impl World {
    fn start() -> Self {
        let journal = Journal::default();
        let dir = journal.expect(tempfile::tempdir(), "a temporary directory");
        journal.expect(compile_driver(dir.path(), &journal), "the Erlang side does not compile");
        let binary = journal.expect(relay::binary(), "the macula command");
        let mut relay = journal.expect(RelayPath::new(binary, Vec::new(), dir.path(), &journal), "a relay");
        journal.expect(relay.start_relay(), "cannot start the relay");
        let addresses = addresses();
        let names = ["a", "b"].map(String::from);
        let names: Vec<_> = names
            .iter()
            .zip(addresses)
            .map(|(name, ip)| format!("{name}@{ip}"))
            .collect();
        let mut world = Self {
            nodes: Vec::new(),
            hosts: Vec::new(),
            relay,
            journal,
            addresses,
            cookie: cookie(),
            dir,
        };
        for side in [0, 1] {
            world.start_host(&names[side], addresses[side], &names[1 - side]);
        }
        for side in [0, 1] {
            let node = world.launch(side);
            world.nodes.push(node);
        }
        for (node, host) in world.nodes.iter().zip(&world.hosts) {
            node.wait_ready();
            let registered = event(&host.log, "registered", SOON);
            let registered = world
                .journal
                .expect(registered, "a node that is ready is not registered");
            assert_eq!(registered["node"], host.name);
        }
        world
    }

    /// The `macula beam` of one side, which has to be there before its node.
    fn start_host(&mut self, name: &str, ip: IpAddr, peer: &str) {
        let [a, b, ..] = self.addresses;
        let epmd = free_port(&[IpAddr::V4(Ipv4Addr::LOCALHOST), a, b]);
        let epmd = self.journal.expect(epmd, "a port");
        let log = self
            .relay
            .start_client("beam", name, &["--peer", peer, "--epmd-port", &epmd.to_string()]);
        let log = self.journal.expect(log, "cannot start macula beam");
        let identified = self
            .journal
            .expect(event(&log, "identified", SETUP), "it is not identified");
        assert_eq!(identified["name"], name);
        self.hosts.push(Host {
            name: name.to_owned(),
            ip,
            epmd,
            log,
        });
    }

    /// The node of one side, as anybody would start it.
    fn launch(&self, side: usize) -> Node {
        let host = &self.hosts[side];
        let ports = Ports::Mapped(host.epmd);
        let node = Node::launch(
            host.name.clone(),
            host.ip,
            ports,
            &self.cookie,
            self.dir.path(),
            &self.journal,
        );
        self.journal.expect(node, "cannot start erl")
    }

    /// Gives a node a command about the other one, and waits for the answer.
    fn ask(&mut self, node: usize, command: &str, arguments: &str, within: Duration) -> String {
        let other = &self.hosts[1 - node].name;
        self.nodes[node].ask(&format!("{command} {other} {arguments}"), within)
    }

    fn marks(&self) -> [usize; 2] {
        [0, 1].map(|node| self.nodes[node].mark())
    }

    fn wait_both(&self, marks: [usize; 2], event: &str, within: Duration) {
        for node in [0, 1] {
            self.nodes[node].wait_event(marks[node], event, within);
        }
    }
}

/// All events of a name after a position.
fn told(log: &Log, from: usize, name: &str) -> Vec<Value> {
    log.all(from, |line| parse(line).ok().filter(|event| event["event"] == name))
}
