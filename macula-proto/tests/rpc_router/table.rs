//! Every state of a streaming call, and everything that either side can say in it.

use macula_proto::wire::{
    Encoding::Cbor,
    rpc::{Kind, Message},
};

use super::net::{Net, data, end, end_both, error, open, stream_reply};

/// For each state, what a chunk, an end of sending, an end of both, an error and a reply do, said by the caller and then by the
/// provider. `>` is passed on; `.` is passed on and ends the call; `-` is passed over.
const TABLE: [(&str, &str, &str); 8] = [
    ("open", ">>..-", ">>..>"),
    ("caller ended", "--..-", ">>..>"),
    ("provider ended", ">>..-", "--..>"),
    ("both ended", "--..-", "--..."),
    ("replied", ">>..-", ">>..-"),
    ("replied, caller ended", "--..-", ">...-"),
    ("replied, provider ended", ">...-", "--..-"),
    ("over", "-----", "-----"),
];

fn said(seq: u64) -> [Message; 5] {
    [
        data(1, seq, b"x"),
        end(1),
        end_both(1),
        error(1, "e"),
        stream_reply(1, 3),
    ]
}

#[test]
fn every_cell_holds() {
    for (state, by_caller, by_provider) in TABLE {
        for (caller_speaks, row) in [(true, by_caller), (false, by_provider)] {
            for (message, expected) in said(0).into_iter().zip(row.chars()) {
                assert_eq!(
                    cell(state, caller_speaks, &message),
                    expected,
                    "{state}: {message:?} by caller: {caller_speaks}"
                );
            }
        }
    }
}

fn cell(state: &str, caller_speaks: bool, message: &Message) -> char {
    let mut net = Net::default();
    let (caller, provider) = (net.node("c", Cbor), net.node("p", Cbor));
    net.register(provider, "p");
    net.send(caller, open(1, "p"));
    if state.contains("replied") {
        net.send(provider, stream_reply(1, 1));
    }
    if state.contains("caller ended") || state.contains("both ended") {
        net.send(caller, end(1));
    }
    if state.contains("provider ended") || state.contains("both ended") {
        net.send(provider, end(1));
    }
    if state == "over" {
        net.send(caller, end_both(1));
    }
    for node in [caller, provider] {
        while net.try_next(node).is_some() {}
    }
    let before = (net.router.stats(), net.router.routes());
    let (from, to) = if caller_speaks {
        (caller, provider)
    } else {
        (provider, caller)
    };
    net.send(from, message.clone());
    let passed = net.try_next(to);
    assert!(passed.is_none() || passed.as_ref() == Some(message), "as it was said");
    net.silence(caller);
    net.silence(provider);
    let stats = net.router.stats();
    let (routed, stray) = (stats.routed - before.0.routed, stats.stray - before.0.stray);
    assert_eq!((routed, stray), if passed.is_some() { (1, 0) } else { (0, 1) });
    match (passed, before.1 - net.router.routes()) {
        (Some(_), 0) => '>',
        (Some(_), _) => '.',
        (None, 0) => '-',
        (None, _) => '!',
    }
}

/// What a connection says before it has introduced itself is served all the same.
#[test]
fn no_introduction_is_needed() {
    let mut net = Net::default();
    let (caller, provider) = (net.silent(Cbor), net.silent(Cbor));
    net.register(provider, "p");
    net.send(caller, open(1, "p"));
    assert_eq!(net.next(provider), open(1, "p"));
    assert_eq!(net.router.stats().received(Kind::Connect), 0);
}
