//! The machine of a procedure router, against nodes that are scripted message by message.

mod calls;
mod net;
mod pressure;
mod props;
mod streams;
mod table;

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code,
    rpc::router::{Event, Refusal, RouterConfig},
    wire::{
        Encoding::{Cbor, MessagePack},
        Value,
        rpc::{Kind, Message},
    },
};
use net::{Net, id, secs};

#[test]
fn a_ping_is_answered_in_the_encoding_it_came_in() {
    let mut net = Net::default();
    for encoding in [Cbor, MessagePack] {
        let node = net.silent(encoding);
        // A dialler that tries both encodings changes its mind.
        for encoding in [encoding, Cbor, MessagePack] {
            net.speak(node, encoding);
            net.send(node, Message::Ping { timestamp: 77 });
            let (message, answered) = net.next_with_encoding(node);
            let server_time = Some(net.now.unix_ms);
            assert_eq!(
                message,
                Message::Pong {
                    timestamp: 77,
                    server_time
                }
            );
            assert_eq!(answered, encoding);
        }
    }
    assert_eq!(net.router.stats().received(Kind::Ping), 6);
}

#[test]
fn a_node_is_shown_as_it_introduced_itself() {
    let mut net = Net::default();
    let node = net.node("alice", Cbor);
    net.register(node, "a/b");
    net.register(node, "a/b");
    let status = net.router.status();
    assert_eq!(status.nodes.len(), 1);
    assert_eq!(status.nodes[0].name.as_deref(), Some(&b"alice"[..]));
    assert_eq!(status.nodes[0].node_id.as_deref(), Some(&id("alice")[..]));
    assert_eq!(status.nodes[0].encoding, Some(Cbor));
    assert_eq!(status.nodes[0].procedures, 1);
    assert_eq!(status.procedures, [(Bytes::from_static(b"a/b"), 1)]);
    // Nothing of it is answered: deployed routers do not either.
    net.silence(node);
    assert_eq!(net.router.stats().registered, 1);
}

#[test]
fn whoever_says_nothing_is_closed() {
    let mut net = Net::default();
    let (silent, babbler) = (net.silent(Cbor), net.silent(Cbor));
    let talker = net.node("talker", Cbor);
    net.raw(babbler, &[1, 0xEE, 0, 0, 0, 0, 0, 1, 0xA0]);
    net.wait(Duration::from_millis(9_999));
    assert_eq!(net.closed(silent), None);
    net.wait(Duration::from_millis(1));
    assert_eq!(net.closed(silent), Some(Code::TIMEOUT));
    assert_eq!(net.closed(babbler), Some(Code::TIMEOUT), "noise is no greeting");
    net.wait(secs(3600));
    assert_eq!(net.closed(talker), None);
    assert_eq!(net.router.stats().silent, 2);
    assert_eq!(net.router.poll_timeout(), None);
}

#[test]
fn events_of_topics_are_counted_and_passed_over() {
    let mut net = Net::default();
    let node = net.node("alice", MessagePack);
    net.send(
        node,
        Message::Subscribe {
            topics: vec![Bytes::from_static(b"t")],
            qos: None,
        },
    );
    net.send(
        node,
        Message::Unsubscribe {
            topics: vec![Bytes::from_static(b"t")],
        },
    );
    net.send(node, Message::Publish(net::publish("t", Value::Uint(1))));
    net.send(
        node,
        Message::Pong {
            timestamp: 1,
            server_time: None,
        },
    );
    net.silence(node);
    assert_eq!(net.router.stats().ignored, 4);
    assert_eq!(net.router.stats().received(Kind::Publish), 1);
}

#[test]
fn farewells_and_ends_close_the_connection() {
    let mut net = Net::default();
    let (polite, ended) = (net.node("polite", Cbor), net.node("ended", Cbor));
    net.send(
        polite,
        Message::Disconnect {
            reason: None,
            message: None,
        },
    );
    assert_eq!(net.closed(polite), Some(Code::CLOSED));
    net.end(ended);
    assert_eq!(net.closed(ended), Some(Code::CLOSED));
    assert_eq!(net.router.connections(), 0);
}

#[test]
fn bad_messages_cost_little_until_there_are_too_many() {
    let mut config = RouterConfig::default();
    config.limits.malformed = 3;
    let mut net = Net::new(config);
    let node = net.node("alice", Cbor);
    for bad in [
        &[1, 0x03, 0, 0, 0, 0, 0, 1, 0x00][..],
        &[9, 0x03, 0, 0, 0, 0, 0, 1, 0xA0],
        &[1, 0x99, 0, 0, 0, 0, 0, 1, 0xA0],
    ] {
        net.raw(node, bad);
        net.send(node, Message::Ping { timestamp: 1 });
        assert!(
            matches!(net.next(node), Message::Pong { .. }),
            "later messages still count"
        );
    }
    net.raw(node, &[1, 0x03, 0, 0, 0, 0, 0, 0]);
    assert_eq!(net.closed(node), Some(Code::PROTOCOL));
    assert_eq!((net.router.stats().malformed, net.router.stats().failed), (4, 1));
}

#[test]
fn a_message_above_the_limit_closes_the_connection_at_its_header() {
    let mut config = RouterConfig::default();
    config.limits.message = 1000;
    let mut net = Net::new(config);
    let (good, bad) = (net.node("good", Cbor), net.node("bad", Cbor));
    net.raw(good, &[1, 0x28, 0, 0, 0, 0, 3, 0xE8]);
    assert_eq!(net.closed(good), None);
    net.raw(bad, &[1, 0x28, 0, 0, 0, 0, 3, 0xE9]);
    assert_eq!(net.closed(bad), Some(Code::PROTOCOL));
}

#[test]
fn registrations_are_limited_by_node_and_in_all() {
    let mut config = RouterConfig::default();
    config.limits.registrations = 2;
    config.limits.all_registrations = 3;
    config.limits.procedure = 8;
    let mut net = Net::new(config);
    let (alice, bob) = (net.node("alice", Cbor), net.node("bob", Cbor));
    for name in ["1", "2", "3"] {
        net.register(alice, name);
    }
    for name in ["1", "2"] {
        net.register(bob, name);
    }
    assert_eq!(net.refused(Refusal::Limit), 2);
    let listed = net.router.status().procedures;
    assert_eq!(listed, [(Bytes::from_static(b"1"), 2), (Bytes::from_static(b"2"), 1)]);
    // What a node held goes with its connection, and its place is free again.
    net.lose(alice);
    for name in ["", "012345678", "01234567", "2"] {
        net.register(bob, name);
    }
    assert_eq!(
        net.refused(Refusal::Limit),
        5,
        "names of no or nine bytes, and a third one"
    );
    let listed = net.router.status().procedures;
    assert_eq!(
        listed,
        [(Bytes::from_static(b"01234567"), 1), (Bytes::from_static(b"1"), 1)]
    );
}

#[test]
fn a_node_that_came_back_serves_on_its_new_connection() {
    let mut net = Net::default();
    let old = net.node("alice", Cbor);
    net.register(old, "p");
    let new = net.node("alice", Cbor);
    net.register(new, "p");
    let caller = net.node("caller", Cbor);
    for number in 0..3 {
        net.send(caller, net::open(number, "p"));
        assert!(matches!(net.next(new), Message::StreamOpen(_)));
    }
    // The end of the old one takes nothing from the new one.
    net.lose(old);
    net.send(caller, net::open(3, "p"));
    assert!(matches!(net.next(new), Message::StreamOpen(_)));
}

#[test]
fn a_draining_router_takes_nothing_new_and_empties() {
    let mut net = Net::default();
    let (caller, provider, idle) = (net.node("c", Cbor), net.node("p", Cbor), net.node("i", Cbor));
    net.register(provider, "p");
    net.send(caller, net::open(1, "p"));
    net.next(provider);
    net.event(Event::Drain);
    assert!(net.router.status().draining);
    net.send(caller, net::open(2, "p"));
    assert_eq!(net::code(&net.next(caller)), "draining");
    net.send(caller, net::call("x", "p"));
    assert_eq!(net::code(&net.next(caller)), "draining");
    net.register(idle, "q");
    assert_eq!(net.refused(Refusal::Draining), 3);
    let late = net.silent(Cbor);
    assert_eq!(net.closed(late), Some(Code::DRAINING));
    net.wait(secs(1));
    assert_eq!(net.closed(idle), Some(Code::DRAINING));
    // The call goes on to its end, and the last messages have time to arrive.
    net.wait(secs(60));
    net.send(provider, net::data(1, 0, b"still"));
    net.next(caller);
    net.send(caller, net::end_both(1));
    net.next(provider);
    assert_eq!((net.closed(caller), net.closed(provider)), (None, None));
    net.wait(secs(1));
    assert_eq!(net.closed(caller), Some(Code::DRAINING));
    assert_eq!(net.closed(provider), Some(Code::DRAINING));
    assert_eq!(net.router.connections(), 0);
}

#[test]
fn a_stopped_router_closes_everything_at_once() {
    let mut net = Net::default();
    let (caller, provider) = (net.node("c", Cbor), net.node("p", Cbor));
    net.register(provider, "p");
    net.send(caller, net::open(1, "p"));
    net.event(Event::Stop(Code::SHUTDOWN));
    assert_eq!(net.closed(caller), Some(Code::SHUTDOWN));
    assert_eq!(net.closed(provider), Some(Code::SHUTDOWN));
    net.empty();
}
