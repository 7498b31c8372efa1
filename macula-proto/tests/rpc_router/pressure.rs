//! Nodes that do not take what is sent to them.

use macula_proto::{
    rpc::router::RouterConfig,
    wire::{Encoding::Cbor, rpc::Message},
};

use super::net::{Net, Node, call, code, data, end_both, open, reply, secs};

const OUTBOX: usize = 100_000;
/// A chunk, its header, and as much again for the message that overshoots.
const CHUNK: usize = 10_000;

fn net() -> Net {
    let mut config = RouterConfig::default();
    config.limits.outbox = OUTBOX;
    Net::new(config)
}

/// A provider of `p` that reads nothing, and callers with call 1, 2 and so on to it.
fn deaf<const N: usize>(net: &mut Net) -> (Node, [Node; N]) {
    let provider = net.node("p", Cbor);
    net.register(provider, "p");
    let callers = std::array::from_fn(|at| net.node(&format!("c{at}"), Cbor));
    for (number, caller) in (1..).zip(callers) {
        net.send(caller, open(number, "p"));
        net.next(provider);
    }
    net.appetite(provider, 0);
    (provider, callers)
}

fn send_chunks(net: &mut Net, node: Node, number: u8, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        net.send(node, data(number, seq, &[number; CHUNK]));
    }
}

/// Chunks that came, by their call.
fn chunks(net: &mut Net, node: Node) -> Vec<(u8, u64)> {
    std::iter::from_fn(|| net.try_next(node))
        .filter_map(|message| match message {
            Message::StreamData(data) => Some((data.stream.0[0], data.seq)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_slow_receiver_slows_its_sender_and_loses_nothing() {
    let mut net = net();
    let (provider, [caller]) = deaf(&mut net);
    send_chunks(&mut net, caller, 1, 0..30);
    assert!(net.is_held(caller));
    let bound = OUTBOX + CHUNK + 100;
    assert!(net.queued(provider) <= bound, "{} wait", net.queued(provider));
    assert!(net.unread(caller) > 15 * CHUNK, "the rest is the sender's");
    let mut got = Vec::new();
    for _ in 0..100 {
        net.appetite(provider, 7000);
        assert!(net.queued(provider) <= bound);
        got.extend(chunks(&mut net, provider));
        net.wait(secs(1));
    }
    assert_eq!(got, (0..30).map(|seq| (1, seq)).collect::<Vec<_>>());
    assert!(!net.is_held(caller));
    assert_eq!(net.router.stats().stalled, 0);
}

#[test]
fn those_who_wait_for_the_same_node_take_turns() {
    let mut net = net();
    let (provider, callers) = deaf::<3>(&mut net);
    for (number, caller) in (1..).zip(callers) {
        send_chunks(&mut net, caller, number, 0..100);
    }
    let mut got = Vec::new();
    while got.len() < 300 {
        net.appetite(provider, 50_000);
        got.extend(chunks(&mut net, provider));
        net.wait(std::time::Duration::from_millis(100));
    }
    // What was in the outbox when the second came is the first's; from there on nobody is far behind.
    for end in 20..=250 {
        let counts = [1, 2, 3].map(|number| got[11..end].iter().filter(|(from, _)| *from == number).count());
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 14, "{counts:?} after {end}");
    }
    for number in [1, 2, 3] {
        let seqs: Vec<u64> = got
            .iter()
            .filter(|(from, _)| *from == number)
            .map(|(_, seq)| *seq)
            .collect();
        assert_eq!(seqs, (0..100).collect::<Vec<_>>());
    }
    assert_eq!(net.router.stats().stalled, 0);
}

#[test]
fn a_receiver_that_takes_nothing_loses_its_calls_and_nobody_else_does() {
    let mut net = net();
    let (deaf, [caller]) = deaf(&mut net);
    let healthy = net.node("h", Cbor);
    net.register(healthy, "q");
    net.send(caller, open(50, "q"));
    net.next(healthy);
    net.send(caller, open(2, "p"));
    send_chunks(&mut net, caller, 1, 0..12);
    send_chunks(&mut net, caller, 2, 0..3);
    net.send(caller, data(50, 0, b"behind all that"));
    net.wait(secs(9));
    net.silence(healthy);
    net.wait(secs(1));
    // The first call waited in vain; the second does not have to wait as well.
    assert_eq!(code(&net.next(caller)), "limit");
    assert_eq!(code(&net.next(caller)), "limit");
    assert_eq!(net.next(healthy), data(50, 0, b"behind all that"));
    assert_eq!(net.router.routes(), 1);
    net.send(caller, open(3, "p"));
    assert_eq!(code(&net.next(caller)), "limit");
    net.send(caller, call("x", "p"));
    assert_eq!(code(&net.next(caller)), "limit");
    assert_eq!(net.router.stats().stalled, 4);
    // Once it reads again, it learns what happened, and can be called.
    net.appetite(deaf, usize::MAX);
    let ends: Vec<Message> = std::iter::from_fn(|| net.try_next(deaf))
        .filter(|message| matches!(message, Message::StreamError { .. }))
        .collect();
    assert_eq!(ends.len(), 2);
    net.send(caller, open(4, "p"));
    assert_eq!(net.next(deaf), open(4, "p"));
}

#[test]
fn a_caller_that_does_not_take_its_reply_loses_it() {
    let mut net = net();
    let (provider, other) = (net.node("p", Cbor), net.node("o", Cbor));
    let caller = net.node("c", Cbor);
    net.register(provider, "p");
    net.send(caller, open(1, "p"));
    net.send(caller, call("x", "p"));
    net.next(provider);
    let Message::Call(asked) = net.next(provider) else {
        panic!()
    };
    net.appetite(caller, 0);
    send_chunks(&mut net, provider, 1, 0..10);
    net.send(provider, reply(&asked.call_id, 1));
    net.send(other, open(2, "p"));
    net.send(provider, data(2, 0, b"for the other"));
    assert!(net.is_held(provider));
    net.silence(other);
    net.wait(secs(10));
    assert_eq!(net.next(other), data(2, 0, b"for the other"));
    net.appetite(caller, usize::MAX);
    let replies: Vec<Message> = std::iter::from_fn(|| net.try_next(caller))
        .filter(|message| matches!(message, Message::Reply(_)))
        .collect();
    assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), ["limit"]);
}

#[test]
fn whoever_waits_for_a_node_that_goes_away_goes_on() {
    let mut net = net();
    let (provider, callers) = deaf::<3>(&mut net);
    let healthy = net.node("h", Cbor);
    net.register(healthy, "q");
    for (number, caller) in (1..).zip(callers) {
        net.send(caller, open(50 + number, "q"));
        send_chunks(&mut net, caller, number, 0..12);
        net.send(caller, end_both(50 + number));
        assert!(net.is_held(caller));
    }
    // One of those who wait goes first.
    net.lose(callers[1]);
    net.lose(provider);
    let ends = std::iter::from_fn(|| net.try_next(healthy))
        .filter(|message| matches!(message, Message::StreamEnd { .. }))
        .count();
    assert_eq!(ends, 2);
    for caller in [callers[0], callers[2]] {
        assert!(!net.is_held(caller));
        assert_eq!(code(&net.next(caller)), "disconnected");
    }
    net.empty();
    assert_eq!(net.router.poll_timeout(), None);
}

#[test]
fn a_node_that_asks_and_does_not_listen_is_not_read() {
    let mut net = net();
    let node = net.node("n", Cbor);
    net.appetite(node, 0);
    let answers = OUTBOX + (64 << 10);
    for _ in 0..10_000 {
        net.send(node, Message::Ping { timestamp: 1 });
    }
    assert!(net.is_held(node));
    assert!(net.queued(node) < answers + 100);
    let held = net.queued(node);
    net.wait(secs(60));
    assert_eq!(net.queued(node), held);
    net.appetite(node, usize::MAX);
    assert!(net.try_next(node).is_some());
    assert!(!net.is_held(node));
}

#[test]
fn a_provider_with_room_is_preferred() {
    let mut net = net();
    let (deaf, [caller]) = deaf(&mut net);
    let other = net.node("o", Cbor);
    net.register(other, "p");
    send_chunks(&mut net, caller, 1, 0..11);
    let fresh = net.node("f", Cbor);
    for number in 60..64 {
        net.send(fresh, open(number, "p"));
        assert_eq!(net.next(other), open(number, "p"));
    }
    net.silence(deaf);
}
