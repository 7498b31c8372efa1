//! Two BEAM nodes and the path between them.

use std::collections::hash_map::RandomState;
use std::env;
use std::fs;
use std::hash::BuildHasher;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path as FilePath, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::journal::{Deadline, Journal, Log, Process};
use crate::path::{Kind, Path, Route};
use crate::relay;

/// The nodes' `net_ticktime`, seconds: a node that hears nothing for between three and five quarters of it declares the
/// other down. A tick is sent every quarter.
pub(crate) const NET_TICKTIME: u64 = 8;

/// For starting `erl`.
const START: Duration = Duration::from_secs(20);

/// For a command that only has to reach the node and come back.
const PROMPT: Duration = Duration::from_secs(10);

/// The names of the two nodes, in the order of [`Cluster::nodes`].
const NAMES: [&str; 2] = ["a", "b"];

const DRIVER: &str = include_str!("macula_beam.erl");

/// Whether this kind of test can run here. If not, says so on standard error even when the test output is captured, or
/// fails when `MACULA_REQUIRE_BEAM=1` or, over the relay, when `MACULA_BIN` names a command.
pub(crate) fn can_run(kind: Kind) -> bool {
    let missing = if erl().is_none() {
        Some("erl not found (Debian package erlang-base)".to_owned())
    } else if let Err(error) = TcpListener::bind((Ipv4Addr::new(127, 1, 2, 3), 0)) {
        Some(format!("addresses in 127.0.0.0/8 cannot be used: {error}"))
    } else if kind == Kind::Relay {
        relay::binary().err()
    } else {
        None
    };
    let Some(missing) = missing else { return true };
    let required = env::var_os("MACULA_REQUIRE_BEAM").is_some_and(|value| value == "1");
    let named = kind == Kind::Relay && env::var_os("MACULA_BIN").is_some();
    assert!(!required && !named, "{missing}");
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {missing}");
    false
}

fn erl() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join("erl"))
        .find(|path| path.is_file())
}

/// A running BEAM node, driven through its standard input.
#[derive(Debug)]
pub(crate) struct Node {
    /// The full node name, such as `a@127.1.2.1`.
    pub(crate) name: String,
    process: Process,
    journal: Journal,
    commands: u64,
}

/// A command given to a node and not answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    log: Arc<Log>,
    id: u64,
    from: usize,
    what: String,
}

/// How a node finds the ports of others, and tells its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ports {
    /// All nodes listen at this one, and nobody is asked.
    Fixed(u16),
    /// The port mapper at this port is asked, as it is by default.
    Mapped(u16),
}

impl Node {
    fn start(route: &Route, cookie: &str, dir: &FilePath, journal: &Journal) -> Result<Self, String> {
        let name = format!("{}@{}", route.node, route.listen.ip());
        Self::launch(name, route.to.ip(), Ports::Fixed(route.to.port()), cookie, dir, journal)
    }

    /// Starts a node that listens on `interface`. `dir` has the compiled driver.
    pub(crate) fn launch(
        name: String,
        interface: IpAddr,
        ports: Ports,
        cookie: &str,
        dir: &FilePath,
        journal: &Journal,
    ) -> Result<Self, String> {
        let interface = interface.to_string().replace('.', ",");
        let mut command = Command::new("erl");
        isolate(&mut command, dir);
        command.args(["-noshell", "-name", &name, "-setcookie", cookie]);
        match ports {
            Ports::Fixed(port) => command.args(["-start_epmd", "false", "-erl_epmd_port", &port.to_string()]),
            Ports::Mapped(port) => command.env("ERL_EPMD_PORT", port.to_string()),
        };
        command.args(["-kernel", "inet_dist_use_interface", &format!("{{{interface}}}")]);
        command.args(["-kernel", "net_ticktime", &NET_TICKTIME.to_string()]);
        // No busy waiting: the two nodes and the path share the machine.
        command.args(["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]);
        command.arg("-pa").arg(dir).args(["-s", "macula_beam"]);
        let process = Process::start(command, journal.open(&name), true)?;
        Ok(Self {
            name,
            process,
            journal: journal.clone(),
            commands: 0,
        })
    }

    /// Waits until the node runs, and makes sure that the child the harness would kill is the node itself.
    pub(crate) fn wait_ready(&self) {
        let ready = |line: &str| line.strip_prefix("#macula ready ").map(str::to_owned);
        let ready = self.process.log.wait(0, Deadline::within(START), ready);
        let ready = self.journal.expect(ready, "a node did not start");
        assert_eq!(ready, format!("{} {}", self.name, self.process.id()));
    }

    /// SIGKILL, then waits for the end.
    pub(crate) fn kill(&mut self) {
        let killed = self.process.kill();
        self.journal.expect(killed, "cannot kill a node");
    }

    /// Gives a command without waiting for its answer.
    pub(crate) fn begin(&mut self, command: &str) -> Pending {
        self.commands += 1;
        let (id, log) = (self.commands, Arc::clone(&self.process.log));
        let from = log.position();
        let said = self.process.say(&format!("{id} {command}"));
        let what = format!("`{command}` on {}", self.name);
        self.journal.expect(said, &what);
        Pending { log, id, from, what }
    }

    /// The answer to a command; the test fails when it failed or took too long.
    pub(crate) fn finish(&self, pending: &Pending, within: Duration) -> String {
        let prefix = format!("#macula reply {} ", pending.id);
        let answer = |line: &str| line.strip_prefix(&prefix).map(str::to_owned);
        let answer = pending.log.wait(pending.from, Deadline::within(within), answer);
        let answer = self.journal.expect(answer, &pending.what);
        match answer.strip_prefix("ok") {
            Some(answer) => answer.trim().to_owned(),
            None => self.journal.fail(&format!("{}: {answer}", pending.what)),
        }
    }

    /// Waits until a command has said that its preparations are done.
    pub(crate) fn wait_under_way(&self, pending: &Pending, within: Duration) {
        let note = format!("#macula under_way {}", pending.id);
        let under_way = pending.log.wait(pending.from, Deadline::within(within), |line| {
            (line == note).then_some(())
        });
        self.journal.expect(under_way, &pending.what);
    }

    pub(crate) fn ask(&mut self, command: &str, within: Duration) -> String {
        let pending = self.begin(command);
        self.finish(&pending, within)
    }

    /// A place in the node's output, for telling later events from earlier ones.
    pub(crate) fn mark(&self) -> usize {
        self.process.log.position()
    }

    /// Waits for `up` or `down` after `mark`; returns the rest of the event, such as the reason.
    pub(crate) fn wait_event(&self, mark: usize, event: &str, within: Duration) -> String {
        let prefix = format!("#macula event {event} ");
        let pick = |line: &str| line.strip_prefix(&prefix).map(str::to_owned);
        let found = self.process.log.wait(mark, Deadline::within(within), pick);
        self.journal.expect(found, &format!("no node{event} on {}", self.name))
    }

    fn events(&self, mark: usize) -> Vec<String> {
        self.process
            .log
            .all(mark, |line| line.strip_prefix("#macula event ").map(str::to_owned))
    }
}

/// Two nodes, not connected yet, and a closed path. Field order is drop order: the nodes go before the path.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: [Node; 2],
    pub(crate) path: Path,
    pub(crate) journal: Journal,
    _dir: TempDir,
}

impl Cluster {
    pub(crate) fn start(kind: Kind) -> Self {
        let journal = Journal::default();
        let dir = journal.expect(tempfile::tempdir(), "a temporary directory");
        journal.expect(compile_driver(dir.path(), &journal), "the Erlang side does not compile");
        let routes = journal.expect(routes(), "addresses");
        let cookie = cookie();
        let path = Path::new(kind, routes, dir.path(), &journal);
        let nodes =
            routes.map(|route| journal.expect(Node::start(&route, &cookie, dir.path(), &journal), "cannot start erl"));
        for node in &nodes {
            node.wait_ready();
        }
        Self {
            nodes,
            path,
            journal,
            _dir: dir,
        }
    }

    /// A cluster whose nodes have been shown to be out of each other's reach, and a path opened only then.
    pub(crate) fn start_with_open_path(kind: Kind) -> Self {
        let mut cluster = Self::start(kind);
        for from in [0, 1] {
            assert_eq!(
                cluster.ping(from),
                "pang",
                "the nodes reach each other without the path"
            );
        }
        let opened = cluster.path.open();
        cluster.journal.expect(opened, "cannot open the path");
        cluster
    }

    pub(crate) fn name(&self, node: usize) -> String {
        self.nodes[node].name.clone()
    }

    /// Gives node `from` a command about the other node: its name becomes the first argument.
    pub(crate) fn begin(&mut self, from: usize, command: &str, arguments: &str) -> Pending {
        let other = self.name(1 - from);
        self.nodes[from].begin(&format!("{command} {other} {arguments}"))
    }

    pub(crate) fn ask(&mut self, from: usize, command: &str, arguments: &str, within: Duration) -> String {
        let pending = self.begin(from, command, arguments);
        self.nodes[from].finish(&pending, within)
    }

    /// `net_adm:ping` of the other node: `pong` or `pang`.
    pub(crate) fn ping(&mut self, from: usize) -> String {
        self.ask(from, "ping", "", PROMPT)
    }

    pub(crate) fn marks(&self) -> [usize; 2] {
        [self.nodes[0].mark(), self.nodes[1].mark()]
    }

    /// Waits for the event on both nodes after the marks; returns what each said.
    pub(crate) fn wait_both(&self, marks: [usize; 2], event: &str, within: Duration) -> [String; 2] {
        [0, 1].map(|node| self.nodes[node].wait_event(marks[node], event, within))
    }

    /// Fails the test if any node came up or went down after the marks, or if the nodes are not connected now.
    pub(crate) fn assert_undisturbed(&mut self, marks: [usize; 2], during: &str) {
        for node in [0, 1] {
            let events = self.nodes[node].events(marks[node]);
            if !events.is_empty() {
                let name = self.name(node);
                self.journal
                    .fail(&format!("{name} was disturbed during {during}: {events:?}"));
            }
            let peers = self.nodes[node].ask("nodes", PROMPT);
            assert_eq!(peers, self.name(1 - node), "connected nodes after {during}");
        }
    }
}

/// A cookie that nobody else has.
pub(crate) fn cookie() -> String {
    format!("c{:016x}", RandomState::new().hash_one("cookie"))
}

/// One node that listens at the address in its name, with no path at all.
#[derive(Debug)]
pub(crate) struct Single {
    pub(crate) node: Node,
    pub(crate) journal: Journal,
    pub(crate) cookie: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it looks for a node whose name has this address in it.
    pub(crate) other: SocketAddr,
    _dir: TempDir,
}

impl Single {
    pub(crate) fn start() -> Self {
        let journal = Journal::default();
        let dir = journal.expect(tempfile::tempdir(), "a temporary directory");
        journal.expect(compile_driver(dir.path(), &journal), "the Erlang side does not compile");
        let [route, other] = journal.expect(routes(), "addresses");
        let route = Route {
            to: route.listen,
            ..route
        };
        let cookie = cookie();
        let node = journal.expect(Node::start(&route, &cookie, dir.path(), &journal), "cannot start erl");
        node.wait_ready();
        Self {
            node,
            journal,
            cookie,
            address: route.to,
            other: other.listen,
            _dir: dir,
        }
    }

    /// Fails the test if any node came up or went down after the mark.
    pub(crate) fn assert_undisturbed(&self, mark: usize, during: &str) {
        let events = self.node.events(mark);
        if !events.is_empty() {
            self.journal.fail(&format!("disturbed during {during}: {events:?}"));
        }
    }
}

/// Compiles the Erlang side into `dir`. Needs only what `erl` itself comes with.
pub(crate) fn compile_driver(dir: &FilePath, journal: &Journal) -> Result<(), String> {
    fs::write(dir.join("macula_beam.erl"), DRIVER).map_err(|error| error.to_string())?;
    let compile = "io:format(\"~0p~n\", [compile:file(\"macula_beam.erl\", [report, warnings_as_errors])]), halt().";
    let mut command = Command::new("erl");
    command.args(["-noshell", "-noinput", "-eval", compile]);
    isolate(&mut command, dir);
    let compiler = Process::start(command, journal.open("compile"), false)?;
    let compiled = |line: &str| (line == "{ok,macula_beam}").then_some(());
    compiler.log.wait(0, Deadline::within(START), compiled)
}

/// Keeps the settings and files of whoever runs the test out of a node, and the node's files in `dir`.
fn isolate(command: &mut Command, dir: &FilePath) {
    command
        .current_dir(dir)
        .env("HOME", dir)
        .env("ERL_CRASH_DUMP_SECONDS", "0");
    for inherited in [
        "ERL_FLAGS",
        "ERL_AFLAGS",
        "ERL_ZFLAGS",
        "ERL_LIBS",
        "ERL_EPMD_PORT",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(inherited);
    }
}

/// Four addresses in 127.0.0.0/8 for a new cluster alone.
pub(crate) fn addresses() -> [IpAddr; 4] {
    static CLUSTERS: AtomicU8 = AtomicU8::new(0);
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = process::id().to_be_bytes();
    // The second octet is never 0, so nothing of ours is where other programs usually are.
    let address = |host: u8| IpAddr::from([127, 1 + high % 254, low, cluster * 4 + host]);
    [1, 2, 3, 4].map(address)
}

/// A TCP port that is free on all of these addresses.
pub(crate) fn free_port(addresses: &[IpAddr]) -> Result<u16, String> {
    // Below the ports the system hands out by itself.
    let first = 20_000 + (RandomState::new().hash_one("port") % 10_000) as u16;
    let free = |port: &u16| addresses.iter().all(|ip| TcpListener::bind((*ip, *port)).is_ok());
    (first..first + 2_000)
        .find(free)
        .ok_or_else(|| "no port is free on all addresses".to_owned())
}

/// Addresses of a new cluster, and one port for all of them, because with `-erl_epmd_port` all nodes take the same port for
/// each other.
fn routes() -> Result<[Route; 2], String> {
    let addresses = addresses();
    let port = free_port(&addresses)?;
    let at = |index: usize| SocketAddr::new(addresses[index], port);
    let [a, b] = NAMES;
    Ok([
        Route {
            node: a,
            dialler: b,
            listen: at(0),
            to: at(2),
        },
        Route {
            node: b,
            dialler: a,
            listen: at(1),
            to: at(3),
        },
    ])
}
