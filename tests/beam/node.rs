//! A real BEAM node and a Rust node in one cluster, over the connections that BEAM nodes make by themselves.

use std::{
    io::ErrorKind,
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use macula_proto::wire::dist::Flags;
use macula_tokio::dist::{
    Call, CallError, ConnectError, Mailbox, Node, NodeConfig, NodeEvent, Signal, Target, Term, atom, epmd,
};
use md5::{Digest, Md5};
use tokio::runtime::Runtime;

use crate::{
    IDLE, SOON, WORK,
    cluster::{NET_TICKTIME, Single, can_run},
    journal::{Journal, Process},
    path::Kind,
};

/// One large message, both ways.
const BULK: usize = 20_000_000;

/// Messages sent one behind the other.
const FLOOD: i64 = 20_000;

#[test]
fn a_beam_node_dials_a_rust_node() {
    if !can_run(Kind::PlainTcp) {
        return;
    }
    let mut world = World::start(Flags::DEFAULT);
    let listening = world.runtime.block_on(world.rust.listen(world.beam.other));
    world.beam.journal.expect(listening, "cannot listen");
    let mark = world.beam.node.mark();
    assert_eq!(world.ask("ping", ""), "pong");
    world.beam.node.wait_event(mark, "up", SOON);
    let mark = world.beam.node.mark();
    world.exchange();

    // Nothing but ticks, for longer than a silent node is kept by either side.
    std::thread::sleep(IDLE);
    world.beam.assert_undisturbed(mark, "idling");
    assert_eq!(world.ask("ping", ""), "pong");

    world.part();
}

#[test]
fn a_rust_node_dials_a_beam_node_with_an_atom_cache_and_fragments() {
    if !can_run(Kind::PlainTcp) {
        return;
    }
    let flags = Flags::DIST_HDR_ATOM_CACHE.with(Flags::FRAGMENTS);
    let mut world = World::start(Flags::DEFAULT.with(flags));
    let (beam, address) = (world.beam.node.name.clone(), world.beam.address);

    let config = NodeConfig::new(world.rust.name().as_str(), "another");
    let stranger = start(&world.runtime, config);
    let refused = world.runtime.block_on(stranger.connect(&beam, address));
    assert!(matches!(refused, Err(ConnectError::Handshake(_))), "{refused:?}");

    let mark = world.beam.node.mark();
    let connected = world.runtime.block_on(world.rust.connect(&beam, address));
    world.beam.journal.expect(connected, "cannot connect");
    world.beam.node.wait_event(mark, "up", SOON);
    world.exchange();
    world.part();
}

/// The port mapper that Erlang brings along knows the Rust node as long as it is registered.
#[test]
fn a_port_mapper_takes_a_rust_node_in() {
    if !can_run(Kind::PlainTcp) {
        return;
    }
    let journal = Journal::default();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = journal.expect(free, "a free port");
    let mut command = Command::new("epmd");
    command.args(["-address", "127.0.0.1", "-port", &address.port().to_string()]);
    let started = Process::start(command, journal.open("epmd"), false);
    let _epmd = journal.expect(started, "epmd");
    Runtime::new().expect("a runtime").block_on(async {
        let deadline = Instant::now() + SOON;
        while epmd::lookup(address, "rust").await.is_err() {
            assert!(Instant::now() < deadline, "epmd does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let registration = epmd::register(address, "rust", 4711).await.expect("registered");
        assert_eq!(epmd::lookup(address, "rust").await.expect("an answer"), Some(4711));
        let twice = epmd::register(address, "rust", 4712).await;
        assert_eq!(twice.expect_err("taken").kind(), ErrorKind::AlreadyExists);
        assert_eq!(epmd::lookup(address, "nobody").await.expect("an answer"), None);
        drop(registration);
        while epmd::lookup(address, "rust").await.expect("an answer").is_some() {
            assert!(Instant::now() < deadline, "the entry outlives the node");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

struct World {
    beam: Single,
    rust: Node,
    /// Ends last: the node's tasks are on it.
    runtime: Runtime,
}

/// A node whose tasks are on this runtime.
fn start(runtime: &Runtime, config: NodeConfig) -> Node {
    let _entered = runtime.enter();
    Node::start(config).expect("a node")
}

impl World {
    fn start(flags: Flags) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let beam = Single::start();
        let mut config = NodeConfig::new(format!("rust@{}", beam.other.ip()), &beam.cookie);
        config.net_ticktime = Duration::from_secs(NET_TICKTIME);
        config.flags = flags;
        let rust = start(&runtime, config);
        let mailbox = rust.mailbox().expect("a mailbox");
        mailbox.register("macula_beam").expect("a free name");
        runtime.spawn(serve(mailbox));
        Self { beam, rust, runtime }
    }

    /// Gives the BEAM node a command about the Rust node.
    fn ask(&mut self, command: &str, arguments: &str) -> String {
        let rust = self.rust.name().as_str().to_owned();
        self.beam.node.ask(&format!("{command} {rust} {arguments}"), WORK)
    }

    fn named(&self, name: &str) -> Target {
        let node = atom(&self.beam.node.name).expect("a name");
        (atom(name).expect("a name"), node).into()
    }

    fn mailbox(&self, name: &str) -> Mailbox {
        let mailbox = self.rust.mailbox().expect("a mailbox");
        mailbox.register(name).expect("a free name");
        mailbox
    }

    fn recv(&self, mailbox: &mut Mailbox) -> Signal {
        let received = self
            .runtime
            .block_on(async { tokio::time::timeout(WORK, mailbox.recv()).await });
        let received = self.beam.journal.expect(received, "a signal");
        received.expect("an open mailbox")
    }

    /// Everything that two nodes do with each other, both ways.
    fn exchange(&mut self) {
        self.calls_and_order();
        self.monitors();
        self.links();
        assert_eq!(self.ask("spawn_at", ""), "notsup");
    }

    fn calls_and_order(&mut self) {
        let beam = self.beam.node.name.clone();
        assert_eq!(self.beam.node.ask("nodes", SOON), "", "hidden nodes are not listed");
        assert!(self.runtime.block_on(self.rust.ping(&beam)));
        assert!(!self.runtime.block_on(self.rust.ping("nobody@127.0.0.1")));
        assert_eq!(self.rust.nodes(), [beam.as_str()]);

        println!("calls by Erlang: {}", self.ask("calls", "1000"));
        println!("bulk by Erlang: {}", self.ask("bulk", &format!("{BULK} 1")));

        let server = self.named("macula_beam");
        let request = [word("square"), Term::Int(12), Term::binary("padding")];
        let answer = self.runtime.block_on(self.rust.call(server.clone(), request));
        let expected: Term = [word(&beam), Term::Int(144), Term::binary("padding")].into();
        assert_eq!(self.beam.journal.expect(answer, "a call"), expected);
        let bytes = Term::binary(vec![7; BULK]);
        let answer = self
            .runtime
            .block_on(self.rust.call(server, [word("echo"), bytes.clone()]));
        let answer = self.beam.journal.expect(answer, "a call with much in it");
        assert!(answer.as_tuple().is_some_and(|answer| answer[2] == bytes));

        let mut flooded = self.mailbox("flooded");
        self.ask("flood", &format!("flooded {FLOOD}"));
        for number in 1..=FLOOD {
            let Signal::Message { term, .. } = self.recv(&mut flooded) else {
                panic!("no message");
            };
            assert_eq!(term, Term::Int(number));
        }
    }

    fn monitors(&mut self) {
        // Erlang watches.
        for (close, reason) in [(true, "tired"), (false, "normal")] {
            let mailbox = self.mailbox("watched");
            let command = format!("watch {} watched", self.rust.name().as_str());
            let watch = self.beam.node.begin(&command);
            self.beam.node.wait_under_way(&watch, SOON);
            if close {
                mailbox.close(word(reason));
            } else {
                drop(mailbox);
            }
            assert_eq!(self.beam.node.finish(&watch, SOON), reason);
        }
        // Rust watches.
        self.beam.node.ask("spawn_named victim", SOON);
        let mut watcher = self.rust.mailbox().expect("a mailbox");
        let victim = self.named("victim");
        let reference = self
            .runtime
            .block_on(watcher.monitor(victim.clone()))
            .expect("a monitor");
        let stop = [word("stop"), word("boom")];
        self.runtime.block_on(watcher.send(victim.clone(), stop)).expect("sent");
        for reason in ["boom", "noproc"] {
            let reference = match reason {
                "boom" => reference.clone(),
                _ => self
                    .runtime
                    .block_on(watcher.monitor(victim.clone()))
                    .expect("a monitor"),
            };
            let (target, reason) = (victim.clone(), word(reason));
            let down = Signal::Down {
                reference,
                target,
                reason,
            };
            assert_eq!(self.recv(&mut watcher), down);
        }
        let called = self.runtime.block_on(self.rust.call(victim, word("hello")));
        assert!(matches!(called, Err(CallError::Down(reason)) if reason.is_atom("noproc")));
    }

    fn links(&mut self) {
        // Erlang links, Rust ends; the second time it is killed.
        for kill in [false, true] {
            let mailbox = self.mailbox("linked");
            let command = format!("watch_linked {} linked", self.rust.name().as_str());
            let watch = self.beam.node.begin(&command);
            self.beam.node.wait_under_way(&watch, SOON);
            let reason = if kill {
                self.ask("exit", "linked kill");
                "killed"
            } else {
                mailbox.close(word("tired"));
                "tired"
            };
            assert_eq!(self.beam.node.finish(&watch, SOON), reason);
        }
        // Erlang links and ends, but takes the first link down before.
        let mut mailbox = self.mailbox("mourner");
        self.ask("die_linked", "mourner");
        let linked = self.recv(&mut mailbox);
        assert!(
            matches!(&linked, Signal::Exit { reason, linked: true, .. } if reason.is_atom("heard")),
            "{linked:?}"
        );
        self.ask("exit", "mourner please");
        let asked = self.recv(&mut mailbox);
        assert!(
            matches!(&asked, Signal::Exit { reason, linked: false, .. } if reason.is_atom("please")),
            "{asked:?}"
        );
        // Rust links, Erlang ends.
        self.beam.node.ask("spawn_named victim", SOON);
        let request = [word("whereis"), word("victim")];
        let found = self
            .runtime
            .block_on(self.rust.call(self.named("macula_beam"), request));
        let found = self.beam.journal.expect(found, "whereis");
        let victim = found.as_pid().expect("a pid").clone();
        let (linked, unlinked) = (victim.clone(), victim.clone());
        let other = self.rust.mailbox().expect("a mailbox");
        self.runtime.block_on(other.link(&unlinked)).expect("linked");
        other.unlink(&unlinked);
        self.runtime.block_on(mailbox.link(&linked)).expect("linked");
        self.runtime
            .block_on(mailbox.send(victim, [word("stop"), word("boom")]))
            .expect("sent");
        let end = self.recv(&mut mailbox);
        assert!(
            matches!(&end, Signal::Exit { reason, linked: true, .. } if reason.is_atom("boom")),
            "{end:?}"
        );
        assert_eq!(self.rust.stats().stray, 0);
        let mut other = other;
        assert_eq!(other.try_recv(), None);
    }

    /// What is left of links and monitors ends with the connection.
    fn part(mut self) {
        let mut mailbox = self.mailbox("left");
        let server = self.named("macula_beam");
        let reference = self.runtime.block_on(mailbox.monitor(server)).expect("a monitor");
        let command = format!("watch {} left", self.rust.name().as_str());
        let watch = self.beam.node.begin(&command);
        self.beam.node.wait_under_way(&watch, SOON);
        let mut events = self.rust.events();
        let mark = self.beam.node.mark();
        let beam = self.beam.node.name.clone();
        assert!(self.rust.disconnect(&beam));
        self.beam.node.wait_event(mark, "down", SOON);
        assert_eq!(self.beam.node.finish(&watch, SOON), "noconnection");
        let lost = self.recv(&mut mailbox);
        let expected = |lost: &Signal| match lost {
            Signal::Down {
                reference: of, reason, ..
            } => *of == reference && reason.is_atom("noconnection"),
            _ => false,
        };
        assert!(expected(&lost), "{lost:?}");
        let event = self.runtime.block_on(events.next());
        assert!(matches!(event, Some(NodeEvent::Down(node, _)) if node == beam.as_str()));
        self.runtime.block_on(self.rust.shutdown());
    }
}

/// What the Erlang side's server answers too, and pids of registered names.
async fn serve(mut mailbox: Mailbox) {
    while let Some(signal) = mailbox.recv().await {
        let Signal::Message { term, .. } = signal else {
            continue;
        };
        let Ok(call) = Call::from_term(term) else { continue };
        let node = Term::Atom(mailbox.node().name().clone());
        let answer = match call.request.as_tuple() {
            Some([what, Term::Int(number), padding]) if what.is_atom("square") => {
                [node, Term::Int(number * number), padding.clone()].into()
            }
            Some([what, Term::Binary(bytes)]) if what.is_atom("echo") => {
                [node, Term::binary(Md5::digest(bytes)), Term::Binary(bytes.clone())].into()
            }
            Some([what, Term::Atom(name)]) if what.is_atom("whereis") => {
                mailbox.node().whereis(name).map_or(word("undefined"), Term::Pid)
            }
            _ => word("what"),
        };
        if mailbox.send(call.reply_to(), call.reply(answer)).await.is_err() {
            // The connection is lost, and the caller knows.
        }
    }
}

fn word(text: &str) -> Term {
    Term::Atom(atom(text).expect("an atom"))
}
