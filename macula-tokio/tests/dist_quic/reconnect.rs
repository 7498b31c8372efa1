//! Nodes that go and come back.

use std::{net::SocketAddr, time::Duration};

use macula_tokio::{
    dist::{DownReason, Node, NodeConfig, NodeEvent, QuicConfig, Signal},
    tls::{Credentials, Trust},
};
use tokio::{
    net::UdpSocket,
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

use crate::{any, config, credentials, name, pair, recv, soon};

fn quick(short: &str) -> NodeConfig {
    let mut config = config(short);
    config.net_ticktime = Duration::from_secs(1);
    config
}

/// A node on a runtime of its own, with which it dies without a word.
fn on_its_own(shown: &Credentials, at: SocketAddr) -> (Runtime, Node, SocketAddr) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let guard = runtime.enter();
    let node = Node::start(quick("b")).unwrap();
    let quic = QuicConfig::new(Trust::Insecure).credentials(shown.clone());
    let address = node.bind_quic(at, quic).unwrap();
    drop(guard);
    (runtime, node, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_is_missed_and_may_come_back() {
    let shown = credentials();
    let (runtime, b, address) = on_its_own(&shown, any());
    let a = Node::start(quick("a")).unwrap();
    let trust = Trust::Pins(vec![shown.pin()]);
    a.bind_quic(any(), QuicConfig::new(trust)).unwrap();
    let mut events = a.events();
    soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
    assert_eq!(soon("up", events.next()).await, Some(NodeEvent::Up(b.name().clone())));
    let mut here = a.mailbox().unwrap();
    let there = b.mailbox().unwrap();
    here.monitor(there.pid()).await.unwrap();
    assert!(a.ping(&name("b")).await);

    runtime.shutdown_background();
    let down = soon("down", events.next()).await;
    assert_eq!(
        down,
        Some(NodeEvent::Down(b.name().clone(), DownReason::NetTickTimeout))
    );
    let Signal::Down { reason, .. } = recv(&mut here).await else {
        panic!()
    };
    assert!(reason.is_atom("noconnection"), "{reason}");
    let first = b.creation();
    drop((there, b));

    // Another run of it, at the same place. What was agreed with the earlier one is worth nothing to it.
    let begun = async {
        loop {
            if UdpSocket::bind(address).await.is_ok() {
                return on_its_own(&shown, address);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (runtime, b, _) = soon("the port", begun).await;
    assert_ne!(b.creation(), first);
    soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
    assert_eq!(soon("up", events.next()).await, Some(NodeEvent::Up(b.name().clone())));
    assert!(a.ping(&name("b")).await);
    assert!(!a.quic_link(&name("b")).unwrap().resumed);
    b.shutdown().await;
    drop(b);
    runtime.shutdown_background();
}

/// A path that carries datagrams between whoever speaks first and `to`, until it is aborted.
async fn path(to: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let near = UdpSocket::bind(any()).await.unwrap();
    let far = UdpSocket::bind(any()).await.unwrap();
    let address = near.local_addr().unwrap();
    let carrying = tokio::spawn(async move {
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        let mut from = None;
        loop {
            tokio::select! {
                Ok((length, sender)) = near.recv_from(&mut there) => {
                    from = Some(sender);
                    let _ = far.send_to(&there[..length], to).await;
                }
                Ok((length, _)) = far.recv_from(&mut back) => {
                    if let Some(sender) = from {
                        let _ = near.send_to(&back[..length], sender).await;
                    }
                }
            }
        }
    });
    (address, carrying)
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_again_with_its_session() {
    let ((a, _), (b, at_b)) = (crate::start(quick("a")), crate::start(quick("b")));
    let (by_path, path) = path(at_b).await;
    soon("a dial", a.connect_quic(&name("b"), by_path)).await.unwrap();
    assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
    assert!(!a.quic_link(&name("b")).unwrap().resumed);
    let (mut at_a, mut at_b_events) = (a.events(), b.events());
    path.abort();
    for (events, other) in [(&mut at_a, &b), (&mut at_b_events, &a)] {
        let down = soon("down", events.next()).await;
        let expected = NodeEvent::Down(other.name().clone(), DownReason::NetTickTimeout);
        assert_eq!(down, Some(expected));
    }
    soon("a dial", a.connect_quic(&name("b"), at_b)).await.unwrap();
    assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
    assert!(a.quic_link(&name("b")).unwrap().resumed, "a full handshake");
}

#[tokio::test]
async fn the_session_of_an_earlier_connection_is_resumed() {
    let (a, b) = pair().await;
    let (at_a, at_b) = (a.quic_address().unwrap(), b.quic_address().unwrap());
    assert!(!a.quic_link(&name("b")).unwrap().resumed);
    for _ in 0..3 {
        assert!(a.disconnect(&name("b")));
        let gone = async {
            while !a.nodes().is_empty() || !b.nodes().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the end", gone).await;
        soon("a dial", a.connect_quic(&name("b"), at_b)).await.unwrap();
        assert!(a.ping(&name("b")).await);
        assert!(a.quic_link(&name("b")).unwrap().resumed);
    }
    // In the other direction there was none.
    a.disconnect(&name("b"));
    let gone = async {
        while !a.nodes().is_empty() || !b.nodes().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end", gone).await;
    soon("a dial", b.connect_quic(&name("a"), at_a)).await.unwrap();
    assert!(!b.quic_link(&name("a")).unwrap().resumed);
}

#[tokio::test]
async fn ticks_keep_a_connection_that_is_idle() {
    let ends = ["a", "b"].map(|short| crate::start(quick(short)));
    let [(a, _), (b, address)] = ends;
    soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
    assert!(a.ping(&name("b")).await);
    let mut events = a.events();
    let quiet = tokio::time::timeout(Duration::from_millis(2500), events.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let lane = a.quic_link(&name("b")).unwrap().stat.controller.lane;
    assert!(lane.ticks_received > 1 && lane.ticks_sent > 1, "{lane:?}");
    drop(b);
    let down = soon("down", events.next()).await;
    assert_eq!(down, Some(NodeEvent::Down(name("b").parse_atom(), DownReason::Closed)));
}

trait ParseAtom {
    fn parse_atom(&self) -> macula_tokio::dist::Atom;
}

impl ParseAtom for String {
    fn parse_atom(&self) -> macula_tokio::dist::Atom {
        macula_tokio::dist::atom(self).unwrap()
    }
}
