//! Over streams of bytes: TCP, as Erlang nodes are connected by themselves, and others.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use futures_lite::future::zip;

use super::{super::common, any, config, recv, soon, word};
use crate::{
    adapter::{run, sleep, spawn, timeout},
    macula::dist::{
        CallError, CommandError, ConnectError, DownReason, Node, NodeConfig, NodeEvent, Signal, Term, atom,
    },
};

async fn listen(node: &Node) -> SocketAddr {
    node.listen(any()).await.unwrap()
}

async fn pair() -> (Node, Node) {
    let (a, b) = (Node::start(config("a")).unwrap(), Node::start(config("b")).unwrap());
    let address = listen(&b).await;
    a.connect("b@127.0.0.1", address).await.unwrap();
    (a, b)
}

#[test]
fn two_nodes_with_one_cookie_meet_and_with_another_do_not() {
    run(async {
        let (a, b) = pair().await;
        assert_eq!(a.nodes(), ["b@127.0.0.1"]);
        assert!(a.ping("b@127.0.0.1").await && b.ping("a@127.0.0.1").await);
        assert!(!a.ping("c@127.0.0.1").await);
        // Once more is no error.
        let nowhere = "127.0.0.1:1".parse().unwrap();
        a.connect("b@127.0.0.1", nowhere).await.unwrap();

        let address = listen(&b).await;
        let mut wrong = config("c");
        wrong.cookie = "another".into();
        let c = Node::start(wrong).unwrap();
        let refused = c.connect("b@127.0.0.1", address).await;
        assert!(matches!(refused, Err(ConnectError::Handshake(_))), "{refused:?}");
        let other = c.connect("d@127.0.0.1", address).await;
        assert!(matches!(other, Err(ConnectError::Handshake(_))), "{other:?}");
        let closed = c.connect("e@127.0.0.1", nowhere).await;
        assert!(matches!(closed, Err(ConnectError::Io(_))), "{closed:?}");
        assert!(matches!(
            c.connect("c@127.0.0.1", address).await,
            Err(ConnectError::Name)
        ));
        assert_eq!((c.nodes().len(), b.nodes()), (0, vec![atom("a@127.0.0.1").unwrap()]));
        assert!(Node::start(NodeConfig::new("nameless", "cookie")).is_err());
    });
}

#[test]
fn messages_arrive_in_order_and_wait_for_whom_they_are_for() {
    run(async {
        const COUNT: i64 = 100_000;
        let (a, b) = pair().await;
        let mut sink = b.mailbox().unwrap();
        sink.register("sink").unwrap();
        let source = a.mailbox().unwrap();
        let to = (atom("sink").unwrap(), b.name().clone());
        let pid = sink.pid().clone();
        let sending = spawn(async move {
            for number in 0..COUNT {
                match number % 2 {
                    0 => source.send(&pid, number).await.unwrap(),
                    _ => source.send(to.clone(), number).await.unwrap(),
                }
            }
            // More than mailboxes, queues and sockets take.
            let large = Term::binary(vec![1; 1 << 20]);
            for _ in 0..64 {
                source.send(&pid, large.clone()).await.unwrap();
            }
            source
        });
        for number in 0..COUNT {
            let Signal::Message { term, .. } = recv(&mut sink).await else {
                panic!()
            };
            assert_eq!(term, Term::Int(number));
        }
        sleep(Duration::from_millis(300)).await;
        assert!(!sending.is_finished(), "64 MiB fit somewhere");
        for _ in 0..64 {
            let Signal::Message { term, .. } = recv(&mut sink).await else {
                panic!()
            };
            assert_eq!(term.as_binary().map(|bytes| bytes.len()), Some(1 << 20));
        }
        soon("the sender", sending).await;
    });
}

#[test]
fn links_monitors_and_kills_reach_across() {
    run(async {
        let (a, b) = pair().await;
        let (mut here, there, mut victim) = (a.mailbox().unwrap(), b.mailbox().unwrap(), b.mailbox().unwrap());
        here.link(there.pid()).await.unwrap();
        let reference = here.monitor(victim.pid()).await.unwrap();
        // What was sent before arrives before.
        assert!(a.ping("b@127.0.0.1").await);
        let from = there.pid().clone();
        there.close(word("tired"));
        let reason = word("tired");
        assert_eq!(
            recv(&mut here).await,
            Signal::Exit {
                from,
                reason,
                linked: true
            }
        );
        here.exit(victim.pid(), word("kill")).await.unwrap();
        let (target, reason) = (victim.pid().into(), word("killed"));
        assert_eq!(
            recv(&mut here).await,
            Signal::Down {
                reference,
                target,
                reason
            }
        );
        assert_eq!(soon("the end", victim.recv()).await, None);
        assert!(!victim.is_open());
        assert!(matches!(
            victim.send(here.pid(), Term::NIL).await,
            Err(CommandError::Ended)
        ));

        let called = a.call((atom("nobody").unwrap(), b.name().clone()), Term::NIL).await;
        assert!(matches!(called, Err(CallError::Down(reason)) if reason.is_atom("noproc")));
    });
}

#[test]
fn a_node_that_goes_takes_links_and_monitors_with_it_and_may_come_back() {
    run(async {
        let (a, b) = pair().await;
        let mut events = a.events();
        let (mut here, there) = (a.mailbox().unwrap(), b.mailbox().unwrap());
        here.monitor(there.pid()).await.unwrap();
        here.link(there.pid()).await.unwrap();
        assert!(a.ping("b@127.0.0.1").await);
        assert!(a.disconnect("b@127.0.0.1"));
        for _ in 0..2 {
            match recv(&mut here).await {
                Signal::Exit { reason, .. } | Signal::Down { reason, .. } => assert!(reason.is_atom("noconnection")),
                Signal::Message { .. } => panic!(),
            }
        }
        assert_eq!(
            events.next().await,
            Some(NodeEvent::Down(b.name().clone(), DownReason::Closed))
        );
        assert!(!a.disconnect("b@127.0.0.1"));
        assert!(matches!(
            here.send(there.pid(), Term::NIL).await,
            Err(CommandError::NotConnected(_))
        ));
        let address = listen(&b).await;
        a.connect("b@127.0.0.1", address).await.unwrap();
        assert_eq!(events.next().await, Some(NodeEvent::Up(b.name().clone())));

        // A node that ends says what it has to say.
        let reference = here.monitor(there.pid()).await.unwrap();
        assert!(a.ping("b@127.0.0.1").await);
        there.close(word("last"));
        soon("the end of a node", b.shutdown()).await;
        let Signal::Down {
            reference: of, reason, ..
        } = recv(&mut here).await
        else {
            panic!()
        };
        assert!(of == reference && reason.is_atom("last"), "{reason}");
        assert!(b.mailbox().is_err());
    });
}

#[test]
fn two_dials_at_once_end_in_one_connection() {
    run(async {
        for _ in 0..20 {
            let (a, b) = (Node::start(config("a")).unwrap(), Node::start(config("b")).unwrap());
            let (at_a, at_b) = (listen(&a).await, listen(&b).await);
            let (first, second) = zip(a.connect("b@127.0.0.1", at_b), b.connect("a@127.0.0.1", at_a)).await;
            first.unwrap();
            second.unwrap();
            assert!(a.ping("b@127.0.0.1").await && b.ping("a@127.0.0.1").await);
        }
    });
}

/// A path to there that can go silent without closing.
fn path(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind(any()).unwrap();
    let address = listener.local_addr().unwrap();
    let frozen = Arc::new(AtomicBool::new(false));
    let silent = Arc::clone(&frozen);
    thread::spawn(move || {
        let (near, _) = listener.accept().unwrap();
        let far = TcpStream::connect(to).unwrap();
        let copy = |mut from: TcpStream, mut to: TcpStream| {
            let silent = Arc::clone(&silent);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = from.read(&mut buffer) {
                    if !silent.load(Ordering::Relaxed) && to.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                (from, to)
            })
        };
        let there = copy(near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = copy(far, near);
        // Open until either side has seen enough.
        drop((there.join(), back.join()));
    });
    (address, frozen)
}

#[test]
fn ticks_keep_a_connection_and_silence_ends_it() {
    run(async {
        let start = |name: &str| {
            let mut config = config(name);
            config.net_ticktime = Duration::from_millis(400);
            Node::start(config).unwrap()
        };
        let (a, b) = (start("a"), start("b"));
        let address = listen(&b).await;
        let (at_path, frozen) = path(address);
        a.connect("b@127.0.0.1", at_path).await.unwrap();
        let (mut at_a, mut at_b) = (a.events(), b.events());
        assert!(
            timeout(Duration::from_millis(1500), at_a.next()).await.is_err(),
            "ticks did not keep the connection"
        );
        frozen.store(true, Ordering::Relaxed);
        let expected = |node: &Node| Some(NodeEvent::Down(node.name().clone(), DownReason::NetTickTimeout));
        assert_eq!(soon("down", at_a.next()).await, expected(&b));
        let lost = soon("down", at_b.next()).await;
        assert!(matches!(lost, Some(NodeEvent::Down(..))), "{lost:?}");
    });
}

#[test]
fn streams_of_another_kind_carry_nodes_too() {
    run(async {
        let (a, b) = (Node::start(config("a")).unwrap(), Node::start(config("b")).unwrap());
        // For one, those of QUIC connections that are for something else.
        let carrier = common::pair().await;
        let near = carrier.dialled.open_bi().await.unwrap();
        let (connected, ()) = zip(a.connect_over("b@127.0.0.1", near), async {
            b.accept_over(soon("a stream", carrier.accepted.accept_bi()).await.unwrap());
        })
        .await;
        connected.unwrap();
        assert!(a.ping("b@127.0.0.1").await && b.ping("a@127.0.0.1").await);
    });
}
