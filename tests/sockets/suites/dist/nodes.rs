//! Who is let in, and what nodes do with each other.

use std::{collections::BTreeSet, io, time::Duration};

use futures_lite::future::{yield_now, zip};

use super::{any, config, credentials, name, pair, recv, soon, start, word};
use crate::{
    adapter::{run, sleep},
    macula::{
        Code,
        dist::{
            CallError, CommandError, ConnectError, DownReason, Failure, Node, NodeEvent, QuicConfig, Signal, Term, atom,
        },
        tls::Trust,
    },
};

fn dialler(short: &str, trust: Trust) -> Node {
    let node = Node::start(config(short)).unwrap();
    node.bind_quic(any(), QuicConfig::new(trust)).unwrap();
    node
}

#[test]
fn the_right_cookie_and_the_right_certificate_let_a_node_in() {
    run(async {
        let shown = credentials();
        let b = Node::start(config("b")).unwrap();
        let trust = Trust::Pins(vec![credentials().pin()]);
        let address = b
            .bind_quic(any(), QuicConfig::new(trust).credentials(shown.clone()))
            .unwrap();
        assert_eq!(b.quic_address(), Some(address));

        // One that only dials.
        let a = dialler("a", Trust::Pins(vec![shown.pin()]));
        soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
        assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
        // Once more is no error, wherever.
        a.connect_quic(&name("b"), "127.0.0.1:1".parse().unwrap())
            .await
            .unwrap();
        let link = a.quic_link(&name("b")).unwrap();
        assert_eq!((link.remote, link.resumed, link.streams.len()), (address, false, 0));
        assert!(link.stat.sent > 0 && link.stat.received > 0 && link.transport.datagrams_sent > 0);
        assert!(a.quic_link(&name("c")).is_none() && !a.tick(&name("c")) && a.tick(&name("b")));

        // Another certificate than the one that is trusted.
        let stranger = dialler("c", Trust::Pins(vec![credentials().pin()]));
        let refused = soon("a dial", stranger.connect_quic(&name("b"), address)).await;
        assert!(matches!(refused, Err(ConnectError::Io(_))), "{refused:?}");

        // Another cookie.
        let mut other = config("d");
        other.cookie = "another".into();
        let other = Node::start(other).unwrap();
        other.bind_quic(any(), QuicConfig::new(Trust::Insecure)).unwrap();
        let refused = soon("a dial", other.connect_quic(&name("b"), address)).await;
        assert!(
            matches!(refused, Err(ConnectError::Refused(Code::NOT_ALLOWED))),
            "{refused:?}"
        );
        assert!(other.nodes().is_empty() && b.nodes() == [name("a").as_str()]);

        // Another node than the one that was meant.
        let refused = soon("a dial", stranger_to(address, "nobody")).await;
        assert!(
            matches!(refused, Err(ConnectError::Handshake(Failure::OtherNode { .. }))),
            "{refused:?}"
        );
    });
}

async fn stranger_to(address: std::net::SocketAddr, short: &str) -> Result<(), ConnectError> {
    dialler("e", Trust::Insecure).connect_quic(&name(short), address).await
}

#[test]
fn misuse_is_told() {
    run(async {
        let a = Node::start(config("a")).unwrap();
        let address = any();
        let early = a.connect_quic(&name("b"), address).await;
        assert!(matches!(early, Err(ConnectError::Io(error)) if error.kind() == io::ErrorKind::NotConnected));
        assert_eq!(a.accept_streams().unwrap_err().kind(), io::ErrorKind::NotConnected);
        let no_pins = a.bind_quic(any(), QuicConfig::new(Trust::Pins(Vec::new())));
        assert_eq!(no_pins.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        a.bind_quic(any(), QuicConfig::new(Trust::Insecure)).unwrap();
        let twice = a.bind_quic(any(), QuicConfig::new(Trust::Insecure));
        assert_eq!(twice.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        for bad in ["a@127.0.0.1", "nameless"] {
            assert!(matches!(a.connect_quic(bad, address).await, Err(ConnectError::Name)));
        }
    });
}

#[test]
fn a_node_that_is_not_on_the_list_is_refused() {
    run(async {
        let (b, address) = start(config("b"));
        let list = |names: &[&str]| {
            let names = names.iter().map(|short| atom(name(short)).unwrap());
            Some(names.collect::<BTreeSet<_>>())
        };
        b.allow_quic(list(&["c"]));
        let (a, c) = (dialler("a", Trust::Insecure), dialler("c", Trust::Insecure));
        let refused = soon("a dial", a.connect_quic(&name("b"), address)).await;
        assert!(
            matches!(refused, Err(ConnectError::Handshake(Failure::NotAllowed))),
            "{refused:?}"
        );
        soon("a dial", c.connect_quic(&name("b"), address)).await.unwrap();
        b.allow_quic(None);
        soon("a dial", a.connect_quic(&name("b"), address)).await.unwrap();
    });
}

#[test]
fn dials_that_cross_leave_one_connection() {
    run(async {
        for _ in 0..15 {
            let ((a, at_a), (b, at_b)) = (start(config("a")), start(config("b")));
            let (to_a, to_b) = (name("a"), name("b"));
            let both = zip(a.connect_quic(&to_b, at_b), b.connect_quic(&to_a, at_a));
            let (first, second) = soon("two dials", both).await;
            first.unwrap();
            second.unwrap();
            assert!(a.ping(&to_b).await && b.ping(&to_a).await);
            let (at_a, at_b) = (a.quic_link(&to_b).unwrap(), b.quic_link(&to_a).unwrap());
            assert_ne!(at_a.side, at_b.side, "two connections");
            assert_eq!((at_a.remote.port(), at_b.remote.port()), (at_b_port(&b), at_b_port(&a)));
        }
    });
}

fn at_b_port(node: &Node) -> u16 {
    node.quic_address().unwrap().port()
}

#[test]
fn a_connection_over_quic_and_one_over_tcp_that_cross_leave_one() {
    run(async {
        for _ in 0..10 {
            let ((a, _), (b, at_b)) = (start(config("a")), start(config("b")));
            let at_a = a.listen(any()).await.unwrap();
            let (to_a, to_b) = (name("a"), name("b"));
            let both = zip(a.connect_quic(&to_b, at_b), b.connect(&to_a, at_a));
            let (first, second) = soon("two dials", both).await;
            first.unwrap();
            second.unwrap();
            // The one that stays may still be about to take the place of the other.
            let agreed = async {
                while !(a.quic_link(&to_b).is_some() == b.quic_link(&to_a).is_some()
                    && a.ping(&to_b).await
                    && b.ping(&to_a).await)
                {
                    yield_now().await;
                }
            };
            soon("agreement", agreed).await;
        }
    });
}

#[test]
fn registered_names_links_and_monitors_reach_across() {
    run(async {
        let (a, b) = pair().await;
        let (mut here, mut there, mut victim) = (a.mailbox().unwrap(), b.mailbox().unwrap(), b.mailbox().unwrap());
        there.register("there").unwrap();
        let by_name = (atom("there").unwrap(), b.name().clone());
        here.send(by_name.clone(), word("hello")).await.unwrap();
        a.send(by_name, word("again")).await.unwrap();
        for (text, from) in [("hello", Some(here.pid().clone())), ("again", None)] {
            let Signal::Message { term, from: sender } = recv(&mut there).await else {
                panic!()
            };
            assert!(
                term.is_atom(text) && (from.is_none() || sender == from),
                "{term} {sender:?}"
            );
        }

        here.link(there.pid()).await.unwrap();
        let reference = here.monitor(victim.pid()).await.unwrap();
        // What was sent before arrives before.
        assert!(a.ping(&name("b")).await);
        let from = there.pid().clone();
        there.close(word("tired"));
        let (reason, linked) = (word("tired"), true);
        assert_eq!(recv(&mut here).await, Signal::Exit { from, reason, linked });
        here.exit(victim.pid(), word("kill")).await.unwrap();
        let (target, reason) = (victim.pid().into(), word("killed"));
        let down = Signal::Down {
            reference,
            target,
            reason,
        };
        assert_eq!(recv(&mut here).await, down);
        assert_eq!(soon("the end", victim.recv()).await, None);
        assert!(matches!(
            victim.send(here.pid(), Term::NIL).await,
            Err(CommandError::Ended)
        ));
        let called = a.call((atom("nobody").unwrap(), b.name().clone()), Term::NIL).await;
        assert!(matches!(called, Err(CallError::Down(reason)) if reason.is_atom("noproc")));

        // A node that ends says what it has to say.
        let last = b.mailbox().unwrap();
        let reference = here.monitor(last.pid()).await.unwrap();
        assert!(a.ping(&name("b")).await);
        last.close(word("last"));
        soon("the end of a node", b.shutdown()).await;
        let Signal::Down {
            reference: of, reason, ..
        } = recv(&mut here).await
        else {
            panic!()
        };
        assert!(of == reference && reason.is_atom("last"), "{reason}");
        let gone = async {
            while !a.nodes().is_empty() {
                yield_now().await;
            }
        };
        soon("the end of the connection", gone).await;
    });
}

/// What nodes do with each other, over whatever they are connected.
async fn converse(a: &Node, b: &Node) {
    let mut events = a.events();
    assert!(a.ping(&name("b")).await && b.ping(&name("a")).await);
    let (mut here, mut there) = (a.mailbox().unwrap(), b.mailbox().unwrap());
    there.register("there").unwrap();
    for number in 0..1000_i64 {
        here.send((atom("there").unwrap(), atom(name("b")).unwrap()), number)
            .await
            .unwrap();
    }
    for number in 0..1000_i64 {
        let Signal::Message { term, .. } = recv(&mut there).await else {
            panic!()
        };
        assert_eq!(term, Term::Int(number));
    }
    here.link(there.pid()).await.unwrap();
    assert!(a.ping(&name("b")).await);
    there.close(Term::Int(7));
    let Signal::Exit { reason, linked, .. } = recv(&mut here).await else {
        panic!()
    };
    assert!(linked && reason == Term::Int(7));
    assert!(a.disconnect(&name("b")));
    let down = soon("an event", events.next()).await;
    assert_eq!(
        down,
        Some(NodeEvent::Down(atom(name("b")).unwrap(), DownReason::Closed))
    );
}

#[test]
fn nodes_meet_over_quic_and_over_tcp_in_turn() {
    run(async {
        let ((a, _), (b, over_quic)) = (start(config("a")), start(config("b")));
        let over_tcp = b.listen(any()).await.unwrap();
        for _ in 0..2 {
            soon("a dial", a.connect_quic(&name("b"), over_quic)).await.unwrap();
            assert!(a.quic_link(&name("b")).is_some());
            converse(&a, &b).await;
            // The other side may still have the connection that was closed.
            while !b.nodes().is_empty() {
                sleep(Duration::from_millis(2)).await;
            }
            soon("a dial", a.connect(&name("b"), over_tcp)).await.unwrap();
            assert!(a.quic_link(&name("b")).is_none());
            converse(&a, &b).await;
            while !b.nodes().is_empty() {
                sleep(Duration::from_millis(2)).await;
            }
        }
        soon("the end of a node", b.shutdown()).await;
        assert!(soon("a dial", a.connect(&name("b"), over_tcp)).await.is_err());
    });
}
