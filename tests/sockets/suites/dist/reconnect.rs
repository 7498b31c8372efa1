//! Nodes that go and come back.

use std::{
    future::pending,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    super::process::{self, Part},
    any, config, credentials, name, pair, recv, soon, start,
};
use crate::{
    adapter::{run, sleep, timeout},
    macula::{
        dist::{DownReason, Node, NodeConfig, NodeEvent, QuicConfig, Signal, atom},
        tls::Trust,
    },
};

fn quick(short: &str) -> NodeConfig {
    let mut config = config(short);
    config.net_ticktime = Duration::from_secs(1);
    config
}

const KILLED: &str = "suites::dist::reconnect::a_node_that_waits_to_be_killed";

#[test]
#[ignore = "a part of the test behind it"]
fn a_node_that_waits_to_be_killed() {
    let Some(at) = process::argument() else { return };
    run(async {
        let node = Node::start(quick("b")).unwrap();
        let quic = QuicConfig::new(Trust::Insecure).credentials(credentials());
        let address = node.bind_quic(at.parse().unwrap(), quic).unwrap();
        let mailbox = node.mailbox().unwrap();
        mailbox.register("there").unwrap();
        process::say(&format!("{address} {}", node.creation()));
        pending::<()>().await;
    });
}

/// Such a node, where it is, and its creation.
fn killable(at: SocketAddr) -> (Part, SocketAddr, u32) {
    let part = Part::start_with(KILLED, &at.to_string());
    let (address, creation) = part.said.split_once(' ').unwrap();
    let (address, creation) = (address.parse().unwrap(), creation.parse().unwrap());
    (part, address, creation)
}

#[test]
fn a_node_that_is_killed_is_missed_and_may_come_back() {
    run(async {
        let (mut b, address, first) = killable(any());
        let a = Node::start(quick("a")).unwrap();
        a.bind_quic(any(), QuicConfig::new(Trust::Insecure)).unwrap();
        let mut events = a.events();
        soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
        let at_b = atom(name("b")).unwrap();
        assert_eq!(soon("up", events.next()).await, Some(NodeEvent::Up(at_b.clone())));
        let mut here = a.mailbox().unwrap();
        here.monitor((atom("there").unwrap(), at_b.clone())).await.unwrap();
        assert!(a.ping(&name("b")).await);

        b.kill();
        let down = soon("down", events.next()).await;
        let missed = NodeEvent::Down(at_b.clone(), DownReason::NetTickTimeout);
        assert_eq!(down, Some(missed));
        let Signal::Down { reason, .. } = recv(&mut here).await else {
            panic!()
        };
        assert!(reason.is_atom("noconnection"), "{reason}");

        // Another run of it, at the same place. What was agreed with the earlier one is worth nothing to it.
        let (_b, _, second) = killable(address);
        assert_ne!(first, second);
        soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
        assert_eq!(soon("up", events.next()).await, Some(NodeEvent::Up(at_b)));
        assert!(a.ping(&name("b")).await);
        assert!(!a.quic_link(&name("b")).unwrap().resumed);
    });
}

/// A path that carries datagrams between whoever speaks first and another, until it is dropped.
struct Path {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Path {
    fn to(far_end: SocketAddr) -> Self {
        let socket = || {
            let socket = UdpSocket::bind(any()).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        let (near, far) = (socket(), socket());
        let address = near.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let first = Arc::new(Mutex::new(None));
        let carry = |from: &UdpSocket, to: &UdpSocket, outbound: bool| {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let (cut, first) = (Arc::clone(&cut), Arc::clone(&first));
            thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !cut.load(Ordering::Relaxed) {
                    let Ok((length, sender)) = from.recv_from(&mut buffer) else {
                        continue;
                    };
                    let mut first = first.lock().unwrap();
                    let receiver = match outbound {
                        true => {
                            *first = Some(sender);
                            Some(far_end)
                        }
                        false => *first,
                    };
                    if let Some(receiver) = receiver {
                        let _ = to.send_to(&buffer[..length], receiver);
                    }
                }
            });
        };
        carry(&near, &far, true);
        carry(&far, &near, false);
        Self { address, cut }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

/// Waits until neither knows the other any more.
async fn parted(a: &Node, b: &Node) {
    let gone = async {
        while !a.nodes().is_empty() || !b.nodes().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end", gone).await;
}

#[test]
fn a_connection_that_is_cut_is_made_again_with_its_session() {
    run(async {
        let ((a, _), (b, at_b)) = (start(quick("a")), start(quick("b")));
        let path = Path::to(at_b);
        soon("a dial", a.connect_quic(&name("b"), path.address)).await.unwrap();
        assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
        assert!(!a.quic_link(&name("b")).unwrap().resumed);
        let (mut at_a, mut at_b_events) = (a.events(), b.events());
        drop(path);
        for (events, other) in [(&mut at_a, &b), (&mut at_b_events, &a)] {
            let down = soon("down", events.next()).await;
            let expected = NodeEvent::Down(other.name().clone(), DownReason::NetTickTimeout);
            assert_eq!(down, Some(expected));
        }
        soon("a dial", a.connect_quic(&name("b"), at_b)).await.unwrap();
        assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
        assert!(a.quic_link(&name("b")).unwrap().resumed, "a full handshake");
    });
}

#[test]
fn the_session_of_an_earlier_connection_is_resumed() {
    run(async {
        let (a, b) = pair().await;
        let (at_a, at_b) = (a.quic_address().unwrap(), b.quic_address().unwrap());
        assert!(!a.quic_link(&name("b")).unwrap().resumed);
        for _ in 0..3 {
            assert!(a.disconnect(&name("b")));
            parted(&a, &b).await;
            soon("a dial", a.connect_quic(&name("b"), at_b)).await.unwrap();
            assert!(a.ping(&name("b")).await);
            assert!(a.quic_link(&name("b")).unwrap().resumed);
        }
        // In the other direction there was none.
        a.disconnect(&name("b"));
        parted(&a, &b).await;
        soon("a dial", b.connect_quic(&name("a"), at_a)).await.unwrap();
        assert!(!b.quic_link(&name("a")).unwrap().resumed);
    });
}

#[test]
fn ticks_keep_a_connection_that_is_idle() {
    run(async {
        let ends = ["a", "b"].map(|short| start(quick(short)));
        let [(a, _), (b, address)] = ends;
        soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
        assert!(a.ping(&name("b")).await);
        let mut events = a.events();
        let quiet = timeout(Duration::from_millis(2500), events.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        let lane = a.quic_link(&name("b")).unwrap().stat.controller.lane;
        assert!(lane.ticks_received > 1 && lane.ticks_sent > 1, "{lane:?}");
        drop(b);
        let down = soon("down", events.next()).await;
        assert_eq!(
            down,
            Some(NodeEvent::Down(atom(name("b")).unwrap(), DownReason::Closed))
        );
    });
}
