//! Unary calls through the router.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    rpc::{Fault, Outcome, router::Refusal},
    wire::{
        Encoding::{Cbor, MessagePack},
        Value,
        rpc::{Call, Message, Reply},
    },
};

use super::net::{Net, Node, call, call_of, code, id, reply, secs};

fn asked(net: &mut Net, provider: Node) -> Call {
    match net.next(provider) {
        Message::Call(call) => call,
        other => panic!("{other:?} is no call"),
    }
}

#[test]
fn a_reply_finds_its_caller_in_all_pairs_of_encodings() {
    for (caller_speaks, provider_speaks) in [
        (Cbor, Cbor),
        (Cbor, MessagePack),
        (MessagePack, Cbor),
        (MessagePack, MessagePack),
    ] {
        let mut net = Net::default();
        let (caller, provider) = (net.node("c", caller_speaks), net.node("p", provider_speaks));
        net.register(provider, "p");
        let mut sent = call_of("one", "p");
        sent.trace = Some(Value::Array(vec![Value::Uint(1)]));
        sent.timeout = Some(1234);
        net.send(caller, Message::Call(sent.clone()));
        let got = asked(&mut net, provider);
        assert_ne!(got.call_id, sent.call_id, "the name is the router's");
        let name = got.call_id.clone();
        let expected = Call {
            call_id: name.clone(),
            ..sent
        };
        assert_eq!(got, expected);
        net.send(provider, reply(&name, 9));
        assert_eq!(net.next_with_encoding(caller), (reply(&"one".into(), 9), caller_speaks));
        // Only the first reply counts.
        net.send(provider, reply(&name, 10));
        net.silence(caller);
        assert_eq!((net.router.stats().calls, net.router.stats().stray), (1, 1));
        net.empty();
    }
}

#[test]
fn callers_may_use_the_same_names_and_one_may_use_a_name_twice() {
    let mut net = Net::default();
    let (first, second, provider) = (net.node("1", Cbor), net.node("2", MessagePack), net.node("p", Cbor));
    net.register(provider, "p");
    let names: Vec<Bytes> = [first, second, first]
        .into_iter()
        .map(|node| {
            net.send(node, call("same", "p"));
            asked(&mut net, provider).call_id
        })
        .collect();
    for (value, name) in [(3, &names[2]), (2, &names[1]), (1, &names[0])] {
        net.send(provider, reply(name, value));
    }
    assert_eq!(net.next(first), reply(&"same".into(), 3));
    assert_eq!(net.next(first), reply(&"same".into(), 1));
    assert_eq!(net.next(second), reply(&"same".into(), 2));
    net.empty();
}

#[test]
fn only_who_was_asked_can_reply() {
    let mut net = Net::default();
    let (caller, provider, stranger) = (net.node("c", Cbor), net.node("p", Cbor), net.node("s", Cbor));
    net.register(provider, "p");
    net.send(caller, call("x", "p"));
    let name = asked(&mut net, provider).call_id;
    for other in [
        name.clone(),
        "x".into(),
        Bytes::new(),
        "zzzzzzzzzzzzzzzz".into(),
        "+00000000000000a".into(),
    ] {
        net.send(stranger, reply(&other, 1));
    }
    net.send(caller, reply(&name, 1));
    net.silence(caller);
    assert_eq!(net.router.stats().stray, 6);
    net.send(provider, reply(&name, 2));
    assert_eq!(net.next(caller), reply(&"x".into(), 2));
}

#[test]
fn a_target_is_a_name_or_an_id() {
    let mut net = Net::default();
    let caller = net.node("c", Cbor);
    let nodes = ["ann", "bob"].map(|name| net.node(name, Cbor));
    net.node("eve", Cbor);
    for node in nodes {
        net.register(node, "p");
    }
    let hex: String = id("bob").iter().map(|byte| format!("{byte:02X}")).collect();
    for target in [Bytes::from_static(b"bob"), id("bob"), hex.into()] {
        let mut to_bob = call_of("x", "p");
        to_bob.target = Some(target);
        for _ in 0..2 {
            net.send(caller, Message::Call(to_bob.clone()));
            let name = asked(&mut net, nodes[1]).call_id;
            net.send(nodes[1], reply(&name, 1));
            net.next(caller);
        }
    }
    // One that does not serve it, and one that is not there.
    for target in ["eve", "zoe"] {
        let mut elsewhere = call_of("x", "p");
        elsewhere.target = Some(target.into());
        net.send(caller, Message::Call(elsewhere));
        assert_eq!(code(&net.next(caller)), "not_found");
    }
    net.silence(nodes[0]);
}

#[test]
fn a_call_waits_as_long_as_it_says() {
    let mut net = Net::default();
    let (caller, provider) = (net.node("c", Cbor), net.node("p", Cbor));
    net.register(provider, "p");
    for (timeout, waits) in [
        (None, secs(30)),
        (Some(50), Duration::from_millis(50)),
        (Some(u64::MAX), secs(3600)),
    ] {
        let mut sent = call_of("x", "p");
        sent.timeout = timeout;
        net.send(caller, Message::Call(sent));
        let name = asked(&mut net, provider).call_id;
        net.wait(waits - Duration::from_millis(1));
        net.silence(caller);
        net.wait(Duration::from_millis(1));
        assert_eq!(code(&net.next(caller)), "timeout");
        // A reply after that finds nobody.
        net.send(provider, reply(&name, 1));
        net.silence(caller);
    }
    assert_eq!((net.router.stats().timeouts, net.router.stats().stray), (3, 3));
    net.empty();
}

#[test]
fn a_call_of_nothing_is_not_found_and_keeps_its_trace() {
    let mut net = Net::default();
    let caller = net.node("c", Cbor);
    let mut sent = call_of("x", "p");
    sent.trace = Some(Value::Uint(5));
    net.send(caller, Message::Call(sent));
    let expected = Reply {
        call_id: "x".into(),
        outcome: Outcome::Err(Fault::new("not_found", "procedure not advertised")),
        trace: Some(Value::Uint(5)),
    };
    assert_eq!(net.next(caller), Message::Reply(expected));
    // A name of such a length is no name.
    net.send(caller, call(&"x".repeat(257), "p"));
    assert_eq!(code(&net.next(caller)), "limit");
    assert_eq!(net.refused(Refusal::NotFound), 1);
}

#[test]
fn casts_and_calls_without_a_name_go_to_one_provider_and_are_forgotten() {
    let mut net = Net::default();
    let caller = net.node("c", MessagePack);
    let nodes = [net.node("1", Cbor), net.node("2", MessagePack)];
    for node in nodes {
        net.register(node, "p");
    }
    let cast = |procedure: &'static str| Message::Cast {
        procedure: procedure.into(),
        args: Value::Uint(3),
    };
    for node in nodes {
        net.send(caller, cast("p"));
        assert_eq!(net.next(node), cast("p"));
    }
    net.send(caller, call("", "p"));
    assert_eq!(asked(&mut net, nodes[0]).call_id, Bytes::new());
    net.send(caller, cast("unknown"));
    net.silence(caller);
    assert_eq!((net.refused(Refusal::NotFound), net.router.stats().calls), (1, 3));
    net.empty();
}

#[test]
fn whoever_asked_and_went_is_not_answered() {
    let mut net = Net::default();
    let (caller, provider) = (net.node("c", Cbor), net.node("p", Cbor));
    net.register(provider, "p");
    net.send(caller, call("x", "p"));
    let name = asked(&mut net, provider).call_id;
    net.lose(caller);
    net.silence(provider);
    net.send(provider, reply(&name, 1));
    assert_eq!(net.router.stats().stray, 1);
    net.empty();
}

#[test]
fn a_node_can_ask_itself() {
    let mut net = Net::default();
    let node = net.node("self", Cbor);
    net.register(node, "p");
    net.send(node, call("x", "p"));
    let name = asked(&mut net, node).call_id;
    net.send(node, reply(&name, 4));
    assert_eq!(net.next(node), reply(&"x".into(), 4));
    net.empty();
}
