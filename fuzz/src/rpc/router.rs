//! A router, and nodes that say anything.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    rpc::{
        Chunk, EndRole, Fault, Mode, Outcome, StreamId,
        router::{Action, ConnKey, Event, Router, RouterConfig, StreamEnded},
    },
    wire::{
        Encoding, Value,
        rpc::{Call, Connect, Decoder, Message, Reply, StreamData, StreamOpen},
    },
};

use crate::script::{at, ms, operations, pick, start};

const NODES: usize = 5;
const OUTBOX: usize = 2000;
/// Bytes that a node may have written and the router has not read, and one message more.
const UNREAD: usize = 16_384;
/// Calls without time that a node can have said while it was not read.
const MOST_AT_ONCE: usize = 50;

#[derive(Debug, Arbitrary)]
enum Op {
    Arrive {
        cbor: bool,
        greets: bool,
    },
    Register {
        node: u8,
        procedure: u8,
    },
    Open {
        node: u8,
        stream: u8,
        procedure: u8,
        mode: u8,
    },
    Data {
        node: u8,
        stream: u8,
        size: u16,
    },
    End {
        node: u8,
        stream: u8,
        both: bool,
    },
    Fail {
        node: u8,
        stream: u8,
    },
    StreamReply {
        node: u8,
        stream: u8,
    },
    Call {
        node: u8,
        id: u8,
        procedure: u8,
        timeout: Option<u8>,
    },
    Reply {
        node: u8,
        id: u8,
    },
    Say {
        node: u8,
        kind: u8,
    },
    Raw {
        node: u8,
        bytes: Vec<u8>,
    },
    /// The node speaks the other encoding from now on.
    Switch(u8),
    Appetite {
        node: u8,
        bytes: u16,
    },
    Hungry(u8),
    Ended {
        node: u8,
        how: u8,
    },
    Lose(u8),
    Sleep(u8),
    Due,
    Drain,
    Stop,
}

struct Side {
    encoding: Encoding,
    decoder: Decoder,
    appetite: usize,
    unread: BytesMut,
    /// Places of the next chunks in and out, by stream.
    seqs: BTreeMap<StreamId, u64>,
    heard: BTreeMap<StreamId, u64>,
    /// Streams that it opened under ids of their own.
    own: Vec<StreamId>,
    /// Streams and calls by the ids that the router gave them.
    streams: Vec<StreamId>,
    calls: Vec<Bytes>,
    /// It said something that may have been a message, or the head of one that took in what came next.
    babbled: bool,
}

struct Net {
    router: Router,
    now: Now,
    actions: Vec<Action>,
    sides: BTreeMap<ConnKey, Side>,
    next: u64,
    /// Streams opened under an id that nobody else uses, at any time. Chunks of these come in order.
    unique: BTreeSet<StreamId>,
    /// Those that a node had to do with that babbled.
    doubtful: BTreeSet<StreamId>,
}

/// Nodes come, register, call, answer, lie, stop reading and go. The router writes only to nodes that are there, only what can
/// be read, chunks of calls whose id is nobody else's in order; holds no more than it may for any of them; and keeps nothing of
/// those that are gone.
pub fn rpc_router(data: &[u8]) {
    let mut config = RouterConfig::default();
    config.limits.outbox = OUTBOX;
    config.limits.message = 8192;
    config.limits.malformed = 3;
    config.limits.registrations = 3;
    config.limits.routes = 6;
    config.limits.all_routes = 12;
    let mut net = Net {
        router: Router::new(config, Rng::from_seed(1)),
        now: start(),
        actions: Vec::new(),
        sides: BTreeMap::new(),
        next: 1,
        unique: BTreeSet::new(),
        doubtful: BTreeSet::new(),
    };
    for op in operations::<Op>(Unstructured::new(data), 400) {
        net.apply(op);
        net.check();
    }
    let all: Vec<_> = net.sides.keys().copied().collect();
    for conn in all {
        net.sides.remove(&conn);
        net.event(Event::Lost(conn));
    }
    net.wait(net.now.after(ms(4 * 3_600_000)));
    let status = net.router.status();
    assert_eq!((net.router.connections(), net.router.routes()), (0, 0));
    assert!(
        status.procedures.is_empty() && status.streams == 0 && status.calls == 0,
        "something is left"
    );
    assert_eq!(net.router.poll_timeout(), None);
}

/// One of a few, which several nodes may use, and each of them again and again.
fn stream(number: u8) -> StreamId {
    StreamId([number % 6; 16])
}

/// One that is used once.
fn unique_stream(number: usize) -> StreamId {
    let mut id = [0xee; 16];
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    StreamId(id)
}

fn procedure(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[b'p' + number % 3])
}

impl Net {
    fn node(&self, number: u8) -> Option<ConnKey> {
        let all: Vec<_> = self.sides.keys().copied().collect();
        pick(&all, number).copied()
    }

    /// A stream that was opened at the node, or one that it opened itself.
    fn stream_at(&self, conn: ConnKey, number: u8) -> StreamId {
        let side = &self.sides[&conn];
        let known = match number {
            0..64 => None,
            64..128 => pick(&side.own, number),
            _ => pick(&side.streams, number),
        };
        known.copied().unwrap_or(stream(number))
    }

    /// The id that a node opens a stream under.
    fn new_stream(&mut self, conn: ConnKey, number: u8) -> StreamId {
        let unique = unique_stream(self.unique.len());
        match self.sides.get_mut(&conn) {
            Some(side) if number >= 128 => {
                side.own.push(unique);
                self.unique.insert(unique);
                unique
            }
            _ => stream(number),
        }
    }

    /// The node has said anything.
    fn babble(&mut self, conn: ConnKey) {
        if let Some(side) = self.sides.get_mut(&conn) {
            side.babbled = true;
            self.doubtful.extend(side.seqs.keys());
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Arrive { cbor, greets } => self.arrive(cbor, greets),
            Op::Hungry(node) => self.feed_node(node, usize::MAX),
            Op::Appetite { node, bytes } => self.feed_node(node, bytes.into()),
            Op::Sleep(steps) => self.wait(self.now.after(ms(u64::from(steps) * 100))),
            Op::Due => self.wait(at(self.now, self.router.poll_timeout())),
            Op::Drain => self.event(Event::Drain),
            Op::Stop => self.event(Event::Stop(Code::SHUTDOWN)),
            Op::Switch(node) => {
                let Some(side) = self.node(node).and_then(|node| self.sides.get_mut(&node)) else {
                    return;
                };
                side.encoding = match side.encoding {
                    Encoding::Cbor => Encoding::MessagePack,
                    Encoding::MessagePack => Encoding::Cbor,
                };
            }
            Op::Raw { node, bytes } => {
                let Some(node) = self.node(node) else { return };
                if !bytes.is_empty() {
                    self.babble(node);
                }
                self.raw(node, &bytes);
            }
            Op::Ended { node, how } => {
                let Some(node) = self.node(node) else { return };
                let code = Code::CANCELLED;
                let how = [
                    StreamEnded::Finished,
                    StreamEnded::Reset(code),
                    StreamEnded::Stopped(code),
                ][usize::from(how % 3)];
                self.event(Event::Ended(node, how));
            }
            Op::Lose(node) => {
                let Some(node) = self.node(node) else { return };
                self.sides.remove(&node);
                self.event(Event::Lost(node));
            }
            op => self.speak(op),
        }
    }

    fn speak(&mut self, op: Op) {
        let (Op::Register { node, .. }
        | Op::Open { node, .. }
        | Op::Data { node, .. }
        | Op::End { node, .. }
        | Op::Fail { node, .. }
        | Op::StreamReply { node, .. }
        | Op::Call { node, .. }
        | Op::Reply { node, .. }
        | Op::Say { node, .. }) = op
        else {
            return;
        };
        let Some(node) = self.node(node) else { return };
        if self.sides[&node].unread.len() >= UNREAD {
            // Its connection takes no more. Chunks are counted when they are written.
            return;
        }
        let message = match op {
            Op::Register { procedure: number, .. } => Message::RegisterProcedure {
                procedure: procedure(number),
            },
            Op::Open {
                stream: id,
                procedure: number,
                mode,
                ..
            } => {
                let mode = [Mode::Bidi, Mode::ServerStream, Mode::ClientStream][usize::from(mode % 3)];
                let (stream, procedure) = (self.new_stream(node, id), procedure(number));
                // Its chunks are counted from 0, whatever was sent under its id before.
                if let Some(side) = self.sides.get_mut(&node) {
                    side.seqs.remove(&stream);
                }
                Message::StreamOpen(StreamOpen {
                    stream,
                    procedure,
                    mode,
                    args: Value::Uint(7),
                })
            }
            Op::Data { stream: id, size, .. } => {
                let stream = self.stream_at(node, id);
                let Some(side) = self.sides.get_mut(&node) else { return };
                let next = side.seqs.entry(stream).or_default();
                let seq = *next;
                *next += 1;
                if side.babbled {
                    self.doubtful.insert(stream);
                }
                let chunk = Chunk::Raw(vec![b'x'; usize::from(size % 1500)].into());
                Message::StreamData(StreamData { stream, seq, chunk })
            }
            Op::End { stream: id, both, .. } => {
                let role = if both { EndRole::Both } else { EndRole::Send };
                Message::StreamEnd {
                    stream: self.stream_at(node, id),
                    role,
                }
            }
            Op::Fail { stream: id, .. } => Message::StreamError {
                stream: self.stream_at(node, id),
                fault: Fault::from_code("failed"),
            },
            Op::StreamReply { stream: id, .. } => Message::StreamReply {
                stream: self.stream_at(node, id),
                outcome: Outcome::Ok(Value::Uint(1)),
            },
            Op::Call {
                id,
                procedure: number,
                timeout,
                ..
            } => Message::Call(Call {
                call_id: Bytes::copy_from_slice(&[id % 6]),
                procedure: procedure(number),
                args: Value::Uint(1),
                target: None,
                timeout: timeout.map(|timeout| u64::from(timeout) * 50),
                trace: None,
            }),
            Op::Reply { id, .. } => Message::Reply(Reply {
                call_id: pick(&self.sides[&node].calls, id)
                    .cloned()
                    .unwrap_or(Bytes::copy_from_slice(&[id % 6])),
                outcome: Outcome::Ok(Value::Uint(2)),
                trace: None,
            }),
            Op::Say { kind, .. } if kind & 1 == 0 => Message::Disconnect {
                reason: None,
                message: None,
            },
            _ => greeting(node),
        };
        let mut out = BytesMut::new();
        message
            .encode(self.sides[&node].encoding, &mut out)
            .expect("can be written");
        self.raw(node, &out);
    }

    fn arrive(&mut self, cbor: bool, greets: bool) {
        if self.sides.len() >= NODES {
            return;
        }
        let conn = ConnKey(self.next);
        self.next += 1;
        let side = Side {
            encoding: if cbor { Encoding::Cbor } else { Encoding::MessagePack },
            decoder: Decoder::default(),
            appetite: usize::MAX,
            unread: BytesMut::new(),
            seqs: BTreeMap::new(),
            heard: BTreeMap::new(),
            own: Vec::new(),
            streams: Vec::new(),
            calls: Vec::new(),
            babbled: false,
        };
        self.sides.insert(conn, side);
        self.event(Event::Connected(conn));
        // A router that goes away closes it at once.
        if greets && let Some(side) = self.sides.get(&conn) {
            let mut out = BytesMut::new();
            greeting(conn).encode(side.encoding, &mut out).expect("can be written");
            self.raw(conn, &out);
        }
    }

    fn raw(&mut self, node: ConnKey, bytes: &[u8]) {
        if let Some(side) = self.sides.get_mut(&node)
            && side.unread.len() < UNREAD
        {
            side.unread.extend_from_slice(bytes);
        }
        self.feed(node);
        self.work();
    }

    fn event(&mut self, event: Event) {
        self.router.handle(self.now, event, &mut self.actions);
        self.work();
    }

    fn wait(&mut self, until: Now) {
        let mut at_once = 0;
        for _ in 0..100 {
            let Some(due) = self.router.poll_timeout().filter(|due| *due <= until.mono) else {
                break;
            };
            self.now = at(self.now, Some(due));
            self.event(Event::Timeout);
            // A call that was read only now, and leaves its answer no time, is due at once; each of them is only once.
            let next = self.router.poll_timeout();
            at_once = if next == Some(due) { at_once + 1 } else { 0 };
            assert!(
                at_once <= MOST_AT_ONCE && next.is_none_or(|next| next >= due),
                "a deadline that is over"
            );
        }
        self.now = until;
    }

    fn feed_node(&mut self, node: u8, appetite: usize) {
        let Some(node) = self.node(node) else { return };
        if let Some(side) = self.sides.get_mut(&node) {
            side.appetite = appetite;
        }
        self.drain(node);
        self.work();
    }

    fn feed(&mut self, node: ConnKey) {
        while self.router.wants(node)
            && let Some(side) = self.sides.get_mut(&node)
            && !side.unread.is_empty()
        {
            let piece = side.unread.split_to(side.unread.len().min(700)).freeze();
            self.router
                .handle(self.now, Event::Received(node, piece), &mut self.actions);
        }
    }

    fn drain(&mut self, node: ConnKey) {
        let Some(side) = self.sides.get_mut(&node) else { return };
        for block in self.router.output(node) {
            let piece = block.split_to(block.len().min(side.appetite));
            if side.appetite != usize::MAX {
                side.appetite -= piece.len();
            }
            side.decoder.push(piece);
        }
        while let Some(message) = side.decoder.next() {
            let (message, _) = message.expect("the router writes what can be read");
            if let Some((stream, in_order)) = side.heard(message) {
                let counts = self.unique.contains(&stream) && !self.doubtful.contains(&stream);
                assert!(in_order || !counts, "out of order");
            }
        }
        self.router.wrote(self.now, node, &mut self.actions);
    }

    fn work(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Write(node) => self.drain(node),
                    Action::Read(node) => self.feed(node),
                    Action::Close(node, ..) => {
                        assert!(self.sides.remove(&node).is_some(), "closed without being there");
                        // That it is lost too is told by whoever runs the router, and is nothing new.
                        self.router.handle(self.now, Event::Lost(node), &mut self.actions);
                    }
                }
            }
        }
    }

    fn check(&self) {
        let status = self.router.status();
        let there: Vec<_> = status.nodes.iter().map(|node| node.conn).collect();
        assert!(there.iter().eq(self.sides.keys()), "other nodes than there are");
        for node in &status.nodes {
            // One message beyond, and 64 KiB of answers.
            assert!(
                node.queued <= OUTBOX + 9000 + (64 << 10),
                "too much waits for a node: {}",
                node.queued
            );
            assert!(node.procedures <= 3);
        }
        assert!(self.router.routes() <= 12, "too many calls");
        assert_eq!(status.streams + status.calls, self.router.routes());
    }
}

fn greeting(node: ConnKey) -> Message {
    Message::Connect(Box::new(Connect::new(Bytes::copy_from_slice(&[node.0 as u8; 32]))))
}

impl Side {
    /// For a chunk: of which stream, and whether it is the next one.
    fn heard(&mut self, message: Message) -> Option<(StreamId, bool)> {
        match message {
            Message::StreamOpen(open) => {
                // Once a call is over its id may come again, and chunks are counted anew in both directions.
                self.heard.remove(&open.stream);
                self.seqs.remove(&open.stream);
                if !self.streams.contains(&open.stream) {
                    self.streams.push(open.stream);
                }
            }
            Message::StreamData(StreamData { stream, seq, .. }) => {
                let next = self.heard.entry(stream).or_default();
                let in_order = seq == *next;
                *next = seq.saturating_add(1);
                return Some((stream, in_order));
            }
            Message::Call(call) => self.calls.push(call.call_id),
            _ => {}
        }
        None
    }
}
