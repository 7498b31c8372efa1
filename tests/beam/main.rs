//! Two real, unmodified BEAM nodes form one Erlang cluster over a path that is the only way between them.
//!
//! Everything runs on one machine. Each node's name holds one loopback address and its distribution listener is bound
//! to another (`inet_dist_use_interface`); both use one port that all nodes take for granted (`-erl_epmd_port`, no
//! port mapper). At the address in a node's name an end of the path listens instead:
//!
//! ```text
//! b dials a@127.x.y.1:P --> macula forward --name b-fwd --target a --listen 127.x.y.1:P
//!                           --> macula relay --> macula expose --name a --to 127.x.y.3:P --> a listens at 127.x.y.3:P
//! a dials b@127.x.y.2:P --> macula forward --name a-fwd --target b --listen 127.x.y.2:P
//!                           --> macula relay --> macula expose --name b --to 127.x.y.4:P --> b listens at 127.x.y.4:P
//! ```
//!
//! Every scenario runs over two kinds of path. `plain_tcp` has forwarders inside the harness in place of the relay and
//! is the control experiment: it shows that nodes and harness behave, and that the checks notice a broken path. `relay`
//! is the subject.
//!
//! [`sidecar`] is another way between two nodes: one `macula beam` next to each.
//! Besides, a BEAM node and one of `macula_tokio::dist` form a cluster, with nothing in between, and a BEAM node and
//! `macula dist node`.
//!
//! Needs `erl` (Debian package erlang-base) and, for `relay`, the `macula` command: `MACULA_BIN`, else the one cargo
//! built. What is missing is reported as SKIPPED, or fails the test with `MACULA_REQUIRE_BEAM=1`.

mod cluster;
mod command;
mod journal;
mod node;
mod path;
mod relay;
mod sidecar;

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cluster::{Cluster, NET_TICKTIME, can_run};
use path::Kind;

/// One message's size in the bulk check.
const BULK: usize = 64 << 20;

/// Calls made one after another.
const CALLS: usize = 10_000;

/// The longest that a call may take beside a bulk transfer, microseconds: half the time in which a node has to be heard.
/// Calls, ticks and bulk share one TCP connection, so this bounds what the path holds back in buffers.
const MAX_CALL_US: u64 = NET_TICKTIME * 1_000_000 / 2;

/// Longer than the five quarters of `net_ticktime` after which a silent node is declared down at the latest.
const IDLE: Duration = Duration::from_secs(14);

/// By when a node has noticed a dead path: five quarters of `net_ticktime`, and time for a busy machine.
const NODE_DOWN: Duration = Duration::from_secs(NET_TICKTIME * 5 / 4 + 5);

/// By when the nodes have met again once the path is back: the clients notice that their relay is a new one, reconnect
/// with backoff, and a dial that was already hanging (up to 7 s, `net_setuptime`) makes way for one that works.
const MEET_AGAIN: Duration = Duration::from_secs(45);

/// For a nodeup that has its cause already, and for a command that moves little.
const SOON: Duration = Duration::from_secs(10);

/// For a command that moves much.
const WORK: Duration = Duration::from_secs(40);

mod plain_tcp {
    use super::Kind::PlainTcp;

    #[test]
    fn nodes_work_idle_and_meet_again_after_a_restart() {
        super::work_idle_and_restart(PlainTcp);
    }

    #[test]
    fn the_second_node_may_dial_first() {
        super::second_node_dials(PlainTcp);
    }

    #[test]
    fn both_nodes_may_dial_at_once() {
        super::dial_at_once(PlainTcp);
    }

    #[test]
    fn a_frozen_path_is_noticed_and_outlived() {
        super::freeze(PlainTcp);
    }
}

mod relay_path {
    use super::Kind::Relay;

    #[test]
    fn nodes_work_idle_and_meet_again_after_a_restart() {
        super::work_idle_and_restart(Relay);
    }

    #[test]
    fn the_second_node_may_dial_first() {
        super::second_node_dials(Relay);
    }

    #[test]
    fn both_nodes_may_dial_at_once() {
        super::dial_at_once(Relay);
    }

    #[test]
    fn a_frozen_path_is_noticed_and_outlived() {
        super::freeze(Relay);
    }
}

fn work_idle_and_restart(kind: Kind) {
    if !can_run(kind) {
        return;
    }
    let mut cluster = Cluster::start_with_open_path(kind);
    connect(&mut cluster, 0);
    let connected = cluster.marks();

    let figures = cluster.ask(0, "calls", &CALLS.to_string(), WORK);
    println!("calls (number, median, 99th percentile, longest; us): {figures}");
    cluster.ask(1, "erpc", "500", WORK);
    bulk_both_ways(&mut cluster);
    cluster.assert_undisturbed(connected, "calls and bulk");

    idle(&mut cluster);
    cluster.assert_undisturbed(connected, "idling");

    restart(&mut cluster);
}

fn second_node_dials(kind: Kind) {
    if !can_run(kind) {
        return;
    }
    let mut cluster = Cluster::start_with_open_path(kind);
    connect(&mut cluster, 1);
    let connected = cluster.marks();
    exchange(&mut cluster);
    cluster.assert_undisturbed(connected, "the exchange");
}

/// Takes apart what a dial that was still under way brought up behind a disconnect, until both nodes are alone.
fn part(cluster: &mut Cluster) {
    let patience = Instant::now() + SOON;
    let mut alone = 0;
    while alone < 3 {
        assert!(Instant::now() < patience, "the nodes do not stay apart");
        let together = [0, 1].map(|node| !cluster.nodes[node].ask("nodes", SOON).is_empty());
        if together == [false; 2] {
            alone += 1;
        } else {
            alone = 0;
            for node in [0, 1] {
                cluster.ask(node, "disconnect", "", SOON);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Each node dials the other at one moment, or a little apart, so that the two handshakes cross at different stages.
fn dial_at_once(kind: Kind) {
    if !can_run(kind) {
        return;
    }
    /// How much later than the first node the second one dials, in microseconds.
    const OFFSETS: [i64; 12] = [0, 0, -100, 100, -300, 300, -700, 700, -1500, 1500, -4000, 4000];
    let mut cluster = Cluster::start_with_open_path(kind);
    for offset in OFFSETS {
        let marks = cluster.marks();
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("a clock after 1970")
            .as_micros() as i64;
        let start = now + 50_000;
        let dials = [(0, start), (1, start + offset)].map(|(node, at)| cluster.begin(node, "dial_at", &at.to_string()));
        cluster.wait_both(marks, "up", SOON);
        let answers = [0, 1].map(|node| cluster.nodes[node].finish(&dials[node], SOON));
        println!("offset {offset:5} us: dials answered {answers:?}");
        assert!(
            answers.contains(&"true".to_owned()),
            "offset {offset}: both dials failed"
        );
        exchange(&mut cluster);

        let marks = cluster.marks();
        cluster.ask(0, "disconnect", "", SOON);
        cluster.wait_both(marks, "down", SOON);
        part(&mut cluster);
    }
    // More dials than rounds: in some round both dials were under way. Events may lag behind the nodes.
    let patience = Instant::now() + SOON;
    while cluster.path.dials() <= OFFSETS.len() {
        let dials = cluster.path.dials();
        assert!(
            Instant::now() < patience,
            "{dials} dials in {} rounds: none ever crossed",
            OFFSETS.len()
        );
        thread::sleep(Duration::from_millis(20));
    }
    println!("{} dials in {} rounds", cluster.path.dials(), OFFSETS.len());
}

/// A path that moves nothing but closes nothing either. That the nodes notice shows that [`idle`] proves something.
fn freeze(kind: Kind) {
    if !can_run(kind) {
        return;
    }
    let mut cluster = Cluster::start_with_open_path(kind);
    connect(&mut cluster, 0);
    exchange(&mut cluster);
    for node in [0, 1] {
        cluster.ask(node, "keep", "", SOON);
    }

    let marks = cluster.marks();
    let frozen = cluster.path.freeze();
    cluster.journal.expect(frozen, "cannot freeze the path");
    let reasons = cluster.wait_both(marks, "down", NODE_DOWN);
    println!("down: {reasons:?}");
    if kind == Kind::PlainTcp {
        // Nothing but the missing ticks can have told them.
        assert!(
            reasons.iter().all(|reason| reason.ends_with(" net_tick_timeout")),
            "{reasons:?}"
        );
    }

    let marks = cluster.marks();
    let thawed = Instant::now();
    let result = cluster.path.thaw();
    cluster.journal.expect(result, "cannot thaw the path");
    cluster.wait_both(marks, "up", MEET_AGAIN);
    println!("met again {:?} after the thaw", thawed.elapsed());
    exchange(&mut cluster);
}

/// The first dial of a fresh cluster, then a ping the other way, which finds the connection there.
fn connect(cluster: &mut Cluster, from: usize) {
    let marks = cluster.marks();
    assert_eq!(cluster.ping(from), "pong", "ping by {}", cluster.name(from));
    cluster.wait_both(marks, "up", SOON);
    assert_eq!(cluster.ping(1 - from), "pong", "ping by {}", cluster.name(1 - from));
    assert!(cluster.path.dials() > 0, "the nodes met, but not over the path");
}

/// A little of everything, both ways.
fn exchange(cluster: &mut Cluster) {
    for from in [0, 1] {
        cluster.ask(from, "calls", "100", SOON);
        cluster.ask(from, "bulk", "1000000 7", SOON);
    }
}

/// A large message each way, the second with calls running beside it.
fn bulk_both_ways(cluster: &mut Cluster) {
    let figures = cluster.ask(0, "bulk", &format!("{BULK} 1"), WORK);
    println!("bulk and its echo (bytes each way, ms): {figures}");
    let bulk = cluster.begin(1, "bulk", &format!("{BULK} 2"));
    cluster.nodes[1].wait_under_way(&bulk, WORK);
    let calls = cluster.ask(0, "calls", "200", WORK);
    let figures = cluster.nodes[1].finish(&bulk, WORK);
    println!("bulk beside calls: {figures}; calls beside bulk: {calls}");
    let longest: u64 = calls
        .rsplit(' ')
        .next()
        .and_then(|figure| figure.parse().ok())
        .expect("a number");
    assert!(longest < MAX_CALL_US, "a call took {longest} us beside a bulk transfer");
}

/// Nothing but ticks for longer than a silent node would be kept.
fn idle(cluster: &mut Cluster) {
    let traffic = |cluster: &mut Cluster, node: usize| -> Vec<u64> {
        let answer = cluster.ask(node, "traffic", "", SOON);
        answer
            .split(' ')
            .map(|figure| figure.parse().expect("a number"))
            .collect()
    };
    let before = [0, 1].map(|node| traffic(cluster, node));
    thread::sleep(IDLE);
    for node in [0, 1] {
        let after = traffic(cluster, node);
        let received: Vec<u64> = after
            .iter()
            .zip(&before[node])
            .map(|(after, before)| after - before)
            .collect();
        println!(
            "idle: {} received {} bytes in {} packets",
            cluster.name(node),
            received[0],
            received[1]
        );
        assert!(
            received[1] >= 3,
            "only {} ticks reached {} in {IDLE:?}",
            received[1],
            cluster.name(node)
        );
        assert!(received[0] < 1000, "{} bytes are no idling", received[0]);
    }
}

/// The path dies: both nodes must say so, since they had no other. It comes back: they must meet again with nothing
/// but their own dials, which they repeat all the time.
fn restart(cluster: &mut Cluster) {
    for node in [0, 1] {
        cluster.ask(node, "keep", "", SOON);
    }
    let marks = cluster.marks();
    let killed = Instant::now();
    let result = cluster.path.kill();
    cluster.journal.expect(result, "cannot kill the path");
    let reasons = cluster.wait_both(marks, "down", NODE_DOWN);
    println!("down {:?} after the kill: {reasons:?}", killed.elapsed());

    // Without a path they stay apart, however often they dial.
    let marks = cluster.marks();
    thread::sleep(Duration::from_secs(1));
    for node in [0, 1] {
        assert_eq!(
            cluster.nodes[node].ask("nodes", SOON),
            "",
            "nodes connected without a path"
        );
    }
    let restarted = Instant::now();
    let result = cluster.path.restart();
    cluster.journal.expect(result, "cannot restart the path");
    cluster.wait_both(marks, "up", MEET_AGAIN);
    println!("met again {:?} after the restart", restarted.elapsed());
    exchange(cluster);
}
