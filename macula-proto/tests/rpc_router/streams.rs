//! Streaming calls through the router.

use macula_proto::{
    Code,
    rpc::{Chunk, Fault, Mode, Outcome, router::Refusal},
    wire::{
        Encoding::{Cbor, MessagePack},
        Value,
        rpc::{Kind, Message, StreamData, StreamOpen},
    },
};

use super::net::{
    self, Net, Node, code, data, data_of, end, end_both, error, open, open_as, secs, stream, stream_reply,
};

/// A caller, a provider of `p`, and call 1 between them.
fn opened() -> (Net, Node, Node) {
    let mut net = Net::default();
    let (caller, provider) = (net.node("c", Cbor), net.node("p", Cbor));
    net.register(provider, "p");
    net.send(caller, open(1, "p"));
    assert_eq!(net.next(provider), open(1, "p"));
    (net, caller, provider)
}

#[test]
fn everything_of_a_call_passes_both_ways_in_all_pairs_of_encodings() {
    for (caller_speaks, provider_speaks) in [
        (Cbor, Cbor),
        (Cbor, MessagePack),
        (MessagePack, Cbor),
        (MessagePack, MessagePack),
    ] {
        let mut net = Net::default();
        let (caller, provider) = (net.node("c", caller_speaks), net.node("p", provider_speaks));
        net.register(provider, "p");
        let large = net::data(1, 1, &vec![5; 100_000]);
        let there = [open(1, "p"), data(1, 0, b"small"), large.clone(), end(1)];
        let back = [data(1, 0, b"echo"), large, stream_reply(1, 9), end(1)];
        for (from, to, speaks, messages) in [
            (caller, provider, provider_speaks, there),
            (provider, caller, caller_speaks, back),
        ] {
            for message in messages {
                net.send(from, message.clone());
                assert_eq!(net.next_with_encoding(to), (message, speaks));
            }
        }
        net.empty();
        let recoded = if caller_speaks == provider_speaks { 0 } else { 8 };
        assert_eq!((net.router.stats().routed, net.router.stats().recoded), (8, recoded));
        assert!(net.router.stats().routed_bytes > 200_000);
    }
}

#[test]
fn text_of_a_value_becomes_bytes_where_text_is_not_known() {
    let mut net = Net::default();
    let (caller, provider) = (net.node("c", Cbor), net.node("p", MessagePack));
    net.register(provider, "p");
    let args = |text: fn(&str) -> Value| Value::Map(vec![(text("key"), Value::Array(vec![text("word"), Value::Null]))]);
    let opening = |args| {
        let (stream, mode) = (stream(1), Mode::Bidi);
        Message::StreamOpen(StreamOpen {
            stream,
            procedure: "p".into(),
            mode,
            args,
        })
    };
    let term = |value| {
        let (stream, chunk) = (stream(1), Chunk::Term(value));
        Message::StreamData(StreamData { stream, seq: 0, chunk })
    };
    net.send(caller, opening(args(|text| Value::text(text))));
    assert_eq!(net.next(provider), opening(args(|text| Value::bytes(text))));
    net.send(caller, term(Value::text("x")));
    assert_eq!(net.next(provider), term(Value::bytes("x")));
    // Lists of small integers come from Erlang as text that is none.
    net.send(provider, term(Value::Text(vec![200, 201].into())));
    assert_eq!(net.next(caller), term(Value::bytes([200, 201])));
    net.send(
        provider,
        Message::StreamReply {
            stream: stream(1),
            outcome: Outcome::Ok(Value::text("ok")),
        },
    );
    assert_eq!(
        net.next(caller),
        Message::StreamReply {
            stream: stream(1),
            outcome: Outcome::Ok(Value::text("ok"))
        }
    );
}

#[test]
fn nobody_serves_what_nobody_registered() {
    let mut net = Net::default();
    let caller = net.node("c", MessagePack);
    net.send(caller, open(1, "p"));
    let fault = Fault::new("not_found", "procedure not advertised");
    assert_eq!(
        net.next(caller),
        Message::StreamError {
            stream: stream(1),
            fault
        }
    );
    assert_eq!(net.refused(Refusal::NotFound), 1);
    net.empty();
}

#[test]
fn providers_take_turns_and_one_that_goes_loses_no_other_its_turn() {
    let mut net = Net::default();
    let caller = net.node("c", Cbor);
    let nodes = ["0", "1", "2"].map(|name| net.node(name, Cbor));
    for node in nodes {
        net.register(node, "p");
    }
    let turn = |net: &mut Net, number| {
        net.send(caller, open(number, "p"));
        nodes.iter().position(|node| net.try_next(*node).is_some())
    };
    assert_eq!(
        [1, 2, 3, 4].map(|number| turn(&mut net, number)),
        [Some(0), Some(1), Some(2), Some(0)]
    );
    net.lose(nodes[0]);
    while net.try_next(caller).is_some() {}
    assert_eq!(
        [5, 6, 7].map(|number| turn(&mut net, number)),
        [Some(1), Some(2), Some(1)]
    );
}

#[test]
fn a_call_of_a_name_that_is_in_use_ends_both() {
    let (mut net, caller, provider) = opened();
    net.send(caller, open(1, "p"));
    assert_eq!(code(&net.next(caller)), "duplicate");
    assert_eq!(code(&net.next(provider)), "duplicate");
    net.silence(caller);
    net.silence(provider);
    assert_eq!(net.refused(Refusal::Duplicate), 1);
    net.empty();
    // The name is free again.
    net.send(caller, open(1, "p"));
    assert_eq!(net.next(provider), open(1, "p"));
}

#[test]
fn callers_that_chose_the_same_name_do_not_meet() {
    let (mut net, first, provider) = opened();
    let second = net.node("d", Cbor);
    net.send(second, open(1, "p"));
    let Message::StreamOpen(opening) = net.next(provider) else {
        panic!()
    };
    let theirs = opening.stream;
    assert_ne!(theirs, stream(1));
    for (from, to, sent, got) in [
        (first, provider, data(1, 0, b"first"), data(1, 0, b"first")),
        (second, provider, data(1, 0, b"second"), data_of(theirs, 0, b"second")),
        (provider, first, data(1, 0, b"to first"), data(1, 0, b"to first")),
        (
            provider,
            second,
            data_of(theirs, 0, b"to second"),
            data(1, 0, b"to second"),
        ),
        (
            second,
            provider,
            error(1, "no"),
            Message::StreamError {
                stream: theirs,
                fault: Fault::from_code("no"),
            },
        ),
        (first, provider, data(1, 1, b"goes on"), data(1, 1, b"goes on")),
    ] {
        net.send(from, sent);
        assert_eq!(net.next(to), got);
    }
}

#[test]
fn a_node_can_call_itself() {
    for speaks in [Cbor, MessagePack] {
        let mut net = Net::default();
        let node = net.node("self", speaks);
        net.register(node, "p");
        net.send(node, open(1, "p"));
        let Message::StreamOpen(opening) = net.next(node) else {
            panic!()
        };
        let theirs = opening.stream;
        assert_ne!(theirs, stream(1));
        net.send(node, data(1, 0, b"ask"));
        assert_eq!(net.next(node), data_of(theirs, 0, b"ask"));
        net.send(node, data_of(theirs, 0, b"answer"));
        assert_eq!(net.next(node), data(1, 0, b"answer"));
        net.send(node, end_both(1));
        assert_eq!(net.next(node).stream(), Some(theirs));
        net.empty();
    }
}

#[test]
fn whoever_goes_away_ends_the_calls_of_the_others() {
    let (mut net, caller, provider) = opened();
    let other = net.node("o", MessagePack);
    net.send(other, open(2, "p"));
    net.next(provider);
    net.lose(other);
    assert_eq!(
        net.next(provider),
        Message::StreamError {
            stream: stream(2),
            fault: Fault::disconnected()
        }
    );
    net.send(caller, net::call("x", "p"));
    net.next(provider);
    net.send(caller, open(3, "p"));
    net.next(provider);
    net.lose(provider);
    let told: Vec<Message> = std::iter::from_fn(|| net.try_next(caller)).collect();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|message| code(message) == "disconnected"));
    assert_eq!(
        told.iter().filter_map(Message::stream).collect::<Vec<_>>(),
        [stream(1), stream(3)]
    );
    assert_eq!(net.router.stats().disconnected, 4);
    net.empty();
    assert_eq!(net.closed(caller), None);
    net.send(caller, open(4, "p"));
    assert_eq!(code(&net.next(caller)), "not_found");
}

/// The call's mode, who says what in it, and after how many seconds it is forgotten.
type Ending<'a> = (Mode, &'a [(bool, &'a Message)], Option<u64>);

#[test]
fn a_call_is_forgotten_when_nothing_can_come_any_more() {
    let (both, send) = (end_both(1), end(1));
    let replied = stream_reply(1, 1);
    // Who says what; whether it is over after the last of it, at once or after a moment.
    let table: [Ending<'_>; 12] = [
        (Mode::Bidi, &[(true, &both)], Some(0)),
        (Mode::Bidi, &[(false, &both)], Some(0)),
        (Mode::Bidi, &[(true, &error(1, "x"))], Some(0)),
        (Mode::Bidi, &[(false, &error(1, "x"))], Some(0)),
        (Mode::Bidi, &[(true, &send), (false, &replied), (false, &send)], Some(0)),
        (Mode::Bidi, &[(false, &replied), (false, &send), (true, &send)], Some(0)),
        (Mode::Bidi, &[(false, &replied), (false, &send)], None),
        (Mode::Bidi, &[(true, &send), (false, &replied)], None),
        (Mode::ClientStream, &[(true, &send), (false, &replied)], Some(5)),
        (Mode::ServerStream, &[(false, &replied), (false, &send)], Some(5)),
        (
            Mode::ServerStream,
            &[(true, &send), (false, &replied), (false, &send)],
            Some(0),
        ),
        (Mode::Bidi, &[(true, &send), (false, &send)], Some(300)),
    ];
    for (mode, said, over) in table {
        let mut net = Net::default();
        let (caller, provider) = (net.node("c", Cbor), net.node("p", Cbor));
        net.register(provider, "p");
        net.send(caller, open_as(1, "p", mode));
        net.next(provider);
        for (by_caller, message) in said {
            let (from, to) = if *by_caller {
                (caller, provider)
            } else {
                (provider, caller)
            };
            net.send(from, (*message).clone());
            assert_eq!(net.next(to), **message);
        }
        let after = over.unwrap_or(3600);
        if after > 0 {
            assert_eq!(net.router.routes(), 1, "{mode} {said:?}");
            net.wait(secs(after) - std::time::Duration::from_millis(1));
            assert_eq!(net.router.routes(), 1, "{mode} {said:?}");
            net.wait(std::time::Duration::from_millis(1));
        }
        assert_eq!(net.router.routes(), 0, "{mode} {said:?}");
        // Where something was still awaited, both are told.
        let told = after > 5;
        for node in [caller, provider] {
            let last = net.try_next(node);
            assert_eq!(
                last.as_ref().map(code),
                told.then(|| "timeout".to_owned()),
                "{mode} {said:?}"
            );
        }
        // What comes later is passed over.
        let stray = net.router.stats().stray;
        for from in [caller, provider] {
            net.send(from, end(1));
        }
        net.silence(caller);
        net.silence(provider);
        assert_eq!(net.router.stats().stray, stray + 2);
    }
}

#[test]
fn what_a_side_cannot_say_any_more_is_passed_over() {
    let (mut net, caller, provider) = opened();
    net.send(caller, end(1));
    net.next(provider);
    for late in [end(1), data(1, 0, b"late"), stream_reply(1, 1)] {
        net.send(caller, late);
        net.silence(provider);
    }
    net.send(provider, stream_reply(1, 2));
    net.next(caller);
    net.send(provider, stream_reply(1, 3));
    net.silence(caller);
    // Data may come behind the reply.
    net.send(provider, data(1, 0, b"more"));
    assert_eq!(net.next(caller), data(1, 0, b"more"));
    assert_eq!(net.router.stats().stray, 4);
}

#[test]
fn activity_keeps_a_call_alive() {
    let (mut net, caller, provider) = opened();
    for seq in 0..5 {
        net.wait(secs(3599));
        net.send(caller, data(1, seq, b"."));
        net.next(provider);
    }
    net.wait(secs(3599));
    assert_eq!(net.router.routes(), 1);
    net.wait(secs(1));
    assert_eq!(code(&net.next(caller)), "timeout");
    assert_eq!(code(&net.next(provider)), "timeout");
    assert_eq!(net.router.stats().idle, 1);
    assert_eq!(net.router.poll_timeout(), None);
}

#[test]
fn there_are_only_so_many_calls() {
    let mut config = macula_proto::rpc::router::RouterConfig::default();
    config.limits.routes = 2;
    config.limits.all_routes = 3;
    let mut net = Net::new(config);
    let (first, second, provider) = (net.node("1", Cbor), net.node("2", Cbor), net.node("p", Cbor));
    net.register(provider, "p");
    for (number, node) in [(1, first), (2, first), (3, first), (4, second), (5, second)] {
        net.send(node, open(number, "p"));
    }
    assert_eq!(
        net.next(first),
        Message::StreamError {
            stream: stream(3),
            fault: fault_limit()
        }
    );
    assert_eq!(
        net.next(second),
        Message::StreamError {
            stream: stream(5),
            fault: fault_limit()
        }
    );
    assert_eq!(net.refused(Refusal::Limit), 2);
    net.send(first, end_both(1));
    net.send(second, open(6, "p"));
    net.silence(second);
}

fn fault_limit() -> Fault {
    Fault::new("limit", "too many calls, or too long a name")
}

#[test]
fn a_message_that_cannot_be_read_costs_its_call() {
    let (mut net, caller, provider) = opened();
    // A chunk without a number.
    let mut bad = vec![1, Kind::StreamData.as_u8(), 0, 0, 0, 0, 0, 28, 0xA1, 0x69];
    bad.extend_from_slice(b"stream_id");
    bad.push(0x50);
    bad.extend_from_slice(&[1; 16]);
    bad[7] = u8::try_from(bad.len() - 8).unwrap();
    net.raw(caller, &bad);
    assert_eq!(code(&net.next(caller)), "bad_message");
    assert_eq!(code(&net.next(provider)), "bad_message");
    net.empty();
    // One for no call is only counted, an opening is answered.
    net.raw(caller, &bad);
    net.silence(caller);
    bad[1] = Kind::StreamOpen.as_u8();
    net.raw(caller, &bad);
    assert_eq!(code(&net.next(caller)), "bad_message");
    assert_eq!(net.closed(caller), None::<Code>);
    assert_eq!(net.router.stats().malformed, 3);
}

#[test]
fn what_does_not_fit_in_the_other_encoding_ends_its_call() {
    let mut config = macula_proto::rpc::router::RouterConfig::default();
    config.limits.message = 300;
    let mut net = Net::new(config);
    let (caller, provider) = (net.node("c", Cbor), net.node("p", MessagePack));
    net.register(provider, "p");
    // Halves take three bytes in CBOR and nine in MessagePack.
    let halves = Value::Array(vec![Value::Float(0.5); 60]);
    let opening = |number, args| {
        Message::StreamOpen(StreamOpen {
            stream: stream(number),
            procedure: "p".into(),
            mode: Mode::Bidi,
            args,
        })
    };
    net.send(caller, opening(1, halves.clone()));
    assert_eq!(code(&net.next(caller)), "bad_message");
    net.send(caller, opening(2, Value::Null));
    net.next(provider);
    net.send(
        caller,
        Message::StreamData(StreamData {
            stream: stream(2),
            seq: 0,
            chunk: Chunk::Term(halves),
        }),
    );
    assert_eq!(code(&net.next(caller)), "bad_message");
    assert_eq!(code(&net.next(provider)), "bad_message");
    assert_eq!(net.refused(Refusal::BadMessage), 2);
    net.empty();
}
