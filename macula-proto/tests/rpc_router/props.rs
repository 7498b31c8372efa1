//! Whatever nodes do: each chunk arrives once and in order, or both sides hear that the call failed; and nothing is left behind.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use macula_proto::{
    rpc::{Chunk, EndRole, Fault, Mode, Outcome, StreamId, router::RouterConfig},
    wire::{
        Encoding, Value,
        rpc::{Message, StreamData, StreamOpen},
    },
};
use proptest::prelude::*;

use super::net::{Net, Node, data_of, secs, stream};

#[derive(Debug, Clone)]
enum Op {
    Arrive { cbor: bool, serves: bool },
    Open { by: usize },
    Chunk { call: usize, caller: bool, size: usize },
    End { call: usize, caller: bool },
    Close { call: usize, caller: bool },
    Fail { call: usize, caller: bool },
    Reply { call: usize },
    Lose { node: usize },
    Appetite { node: usize, bytes: usize },
    Wait { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let (node, call, caller) = (0..8_usize, 0..40_usize, any::<bool>());
    prop_oneof![
        2 => (any::<bool>(), any::<bool>()).prop_map(|(cbor, serves)| Op::Arrive { cbor, serves }),
        4 => node.clone().prop_map(|by| Op::Open { by }),
        20 => (call.clone(), caller, 0..900_usize).prop_map(|(call, caller, size)| Op::Chunk { call, caller, size }),
        2 => (call.clone(), caller).prop_map(|(call, caller)| Op::End { call, caller }),
        1 => (call.clone(), caller).prop_map(|(call, caller)| Op::Close { call, caller }),
        1 => (call.clone(), caller).prop_map(|(call, caller)| Op::Fail { call, caller }),
        1 => call.prop_map(|call| Op::Reply { call }),
        1 => node.clone().prop_map(|node| Op::Lose { node }),
        5 => (node, prop_oneof![Just(0), 1..3000_usize, Just(usize::MAX)])
            .prop_map(|(node, bytes)| Op::Appetite { node, bytes }),
        2 => (0..15_000_u64).prop_map(|ms| Op::Wait { ms }),
    ]
}

/// One side of a call, as the node sees it.
#[derive(Debug)]
struct End {
    node: Node,
    id: StreamId,
    sent: u64,
    received: u64,
    /// It sends no more chunks.
    ended: bool,
    /// It has ended the call.
    closed: bool,
    /// It has heard that the call is over.
    told: bool,
}

impl End {
    fn new(node: Node, id: StreamId) -> Self {
        Self {
            node,
            id,
            sent: 0,
            received: 0,
            ended: false,
            closed: false,
            told: false,
        }
    }

    fn over(&self) -> bool {
        self.closed || self.told
    }
}

#[derive(Debug)]
struct Call {
    caller: End,
    provider: Option<End>,
    replied: bool,
}

impl Call {
    fn end(&mut self, caller: bool) -> Option<&mut End> {
        if caller {
            Some(&mut self.caller)
        } else {
            self.provider.as_mut()
        }
    }
}

fn body(number: usize, caller: bool, seq: u64, size: usize) -> Vec<u8> {
    let mut body = format!("{number} {caller} {seq} ").into_bytes();
    body.resize(body.len() + size, b'.');
    body
}

struct Model {
    net: Net,
    nodes: Vec<Node>,
    calls: Vec<Call>,
    by_id: BTreeMap<(Node, StreamId), (usize, bool)>,
}

impl Model {
    fn new() -> Self {
        let mut config = RouterConfig::default();
        config.limits.outbox = 2000;
        Self {
            net: Net::new(config),
            nodes: Vec::new(),
            calls: Vec::new(),
            by_id: BTreeMap::new(),
        }
    }

    /// Numbers count round those who are there.
    fn round(&self, op: &Op) -> Op {
        let (nodes, calls) = (self.nodes.len().max(1), self.calls.len().max(1));
        let mut op = op.clone();
        match &mut op {
            Op::Arrive { .. } | Op::Wait { .. } => {}
            Op::Open { by: node } | Op::Lose { node } | Op::Appetite { node, .. } => *node %= nodes,
            Op::Chunk { call, .. }
            | Op::End { call, .. }
            | Op::Close { call, .. }
            | Op::Fail { call, .. }
            | Op::Reply { call } => *call %= calls,
        }
        op
    }

    fn apply(&mut self, op: &Op) {
        match self.round(op) {
            Op::Arrive { cbor, serves } if self.nodes.len() < 8 => {
                let encoding = if cbor { Encoding::Cbor } else { Encoding::MessagePack };
                let name = format!("n{}", self.calls.len() * 100 + self.nodes.len());
                let node = self.net.node(&name, encoding);
                if serves {
                    self.net.register(node, "p");
                }
                self.nodes.push(node);
            }
            Op::Open { by } => {
                let number = self.calls.len();
                let (Some(&node), Ok(name)) = (self.nodes.get(by), u8::try_from(number)) else {
                    return;
                };
                let id = stream(name);
                self.calls.push(Call {
                    caller: End::new(node, id),
                    provider: None,
                    replied: false,
                });
                self.by_id.insert((node, id), (number, true));
                let open = StreamOpen {
                    stream: id,
                    procedure: Bytes::from_static(b"p"),
                    mode: Mode::Bidi,
                    args: Value::Uint(number as u64),
                };
                self.net.send(node, Message::StreamOpen(open));
            }
            Op::Lose { node } if node < self.nodes.len() => {
                let gone = self.nodes.remove(node);
                self.net.lose(gone);
            }
            Op::Appetite { node, bytes } => {
                if let Some(&node) = self.nodes.get(node) {
                    self.net.appetite(node, bytes);
                }
            }
            Op::Wait { ms } => self.net.wait(Duration::from_millis(ms)),
            Op::Chunk { call, caller, size } => self.speak(call, caller, |end| {
                let seq = end.sent;
                end.sent += 1;
                Some(data_of(end.id, seq, &body(call, caller, seq, size)))
            }),
            Op::End { call, caller } => self.speak(call, caller, |end| {
                end.ended = true;
                let (stream, role) = (end.id, EndRole::Send);
                Some(Message::StreamEnd { stream, role })
            }),
            Op::Close { call, caller } => self.speak(call, caller, |end| {
                end.closed = true;
                let (stream, role) = (end.id, EndRole::Both);
                Some(Message::StreamEnd { stream, role })
            }),
            Op::Fail { call, caller } => self.speak(call, caller, |end| {
                end.closed = true;
                let (stream, fault) = (end.id, Fault::from_code("failed"));
                Some(Message::StreamError { stream, fault })
            }),
            Op::Reply { call } if self.calls.get(call).is_some_and(|call| !call.replied) => {
                self.speak(call, false, |end| {
                    let (stream, outcome) = (end.id, Outcome::Ok(Value::Uint(call as u64)));
                    Some(Message::StreamReply { stream, outcome })
                });
            }
            _ => {}
        }
        self.listen();
    }

    /// One side says something, if it still may and its node is there.
    fn speak(&mut self, call: usize, caller: bool, say: impl FnOnce(&mut End) -> Option<Message>) {
        let Some(known) = self.calls.get_mut(call) else { return };
        let Some(end) = known.end(caller) else { return };
        if end.over() || end.ended || !self.nodes.contains(&end.node) {
            return;
        }
        let node = end.node;
        if let Some(message) = say(end) {
            if let Message::StreamReply { .. } = message {
                known.replied = true;
            }
            self.net.send(node, message);
        }
    }

    /// Checks what came.
    fn listen(&mut self) {
        for node in self.nodes.clone() {
            while let Some(message) = self.net.try_next(node) {
                self.heard(node, &message);
            }
        }
    }

    fn heard(&mut self, node: Node, message: &Message) {
        if let Message::StreamOpen(open) = message {
            let number = usize::try_from(open.args.as_u64().unwrap()).unwrap();
            let call = &mut self.calls[number];
            assert!(call.provider.is_none(), "opened once");
            call.provider = Some(End::new(node, open.stream));
            assert_eq!(self.by_id.insert((node, open.stream), (number, false)), None);
            return;
        }
        let id = message.stream().expect("a message of a stream");
        let (number, caller) = self.by_id[&(node, id)];
        let replied = self.calls[number].replied;
        let from = self.calls[number]
            .end(!caller)
            .map(|end| (end.sent, end.ended, end.closed));
        let end = self.calls[number].end(caller).unwrap();
        assert!(!end.told, "{message:?} behind the end");
        match message {
            Message::StreamData(StreamData { seq, chunk, .. }) => {
                assert_eq!(*seq, end.received, "each once, in order");
                end.received += 1;
                let start = body(number, !caller, *seq, 0);
                assert!(matches!(chunk, Chunk::Raw(raw) if raw.starts_with(&start)));
            }
            Message::StreamEnd {
                role: EndRole::Send, ..
            } => {
                let (sent, ended, _) = from.unwrap();
                assert!(ended && end.received == sent, "the end comes behind everything");
            }
            Message::StreamEnd {
                role: EndRole::Both, ..
            } => {
                let (sent, _, closed) = from.unwrap();
                assert!(closed && end.received == sent);
                end.told = true;
            }
            Message::StreamError { .. } => end.told = true,
            Message::StreamReply { outcome, .. } => {
                assert!(caller && replied);
                assert_eq!(*outcome, Outcome::Ok(Value::Uint(number as u64)));
            }
            other => panic!("{other:?}"),
        }
    }

    /// Everybody reads; then time passes, and everybody goes.
    fn finish(mut self) {
        for node in self.nodes.clone() {
            self.net.appetite(node, usize::MAX);
        }
        self.listen();
        for node in self.nodes.clone() {
            assert!(!self.net.is_held(node) && self.net.unread(node) == 0 && self.net.queued(node) == 0);
        }
        for (number, call) in self.calls.iter().enumerate() {
            let Some(provider) = &call.provider else {
                let gone = !self.nodes.contains(&call.caller.node);
                // Who was lost before it read the opening is not remembered here.
                assert!(gone || call.caller.over(), "call {number} hangs: {call:?}");
                continue;
            };
            let alive = [&call.caller, provider].map(|end| self.nodes.contains(&end.node));
            let over = call.caller.over() || provider.over();
            if alive == [true, true] && !over {
                assert_eq!(
                    (call.caller.sent, provider.sent),
                    (provider.received, call.caller.received)
                );
            }
            // Whoever is left hears of the end, by whoever it came.
            for (end, left) in [(&call.caller, alive[0]), (provider, alive[1])] {
                let ended = call.caller.ended && provider.ended && call.replied;
                let must_know = alive != [true, true] || over;
                assert!(!(left && must_know && !ended) || end.over(), "call {number}: {call:?}");
            }
        }
        self.net.wait(secs(3 * 3600));
        self.net.empty();
        for node in std::mem::take(&mut self.nodes) {
            self.net.lose(node);
        }
        assert_eq!(self.net.router.connections(), 0);
        assert!(self.net.router.status().procedures.is_empty());
        assert_eq!(self.net.router.poll_timeout(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn chunks_arrive_once_in_order_or_the_call_fails_for_both(ops in prop::collection::vec(op(), 1..200)) {
        let mut model = Model::new();
        model.apply(&Op::Arrive { cbor: true, serves: true });
        model.apply(&Op::Arrive { cbor: false, serves: false });
        for op in &ops {
            model.apply(op);
        }
        model.finish();
    }
}
