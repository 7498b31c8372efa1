//! A router and the nodes that are connected to it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    rpc::{
        Chunk, EndRole, Fault, Mode, Outcome, StreamId,
        router::{Action, ConnKey, Event, Refusal, Router, RouterConfig, StreamEnded},
    },
    wire::{
        Encoding, Value,
        rpc::{Call, Connect, Decoder, Message, Publish, Reply, StreamData, StreamOpen},
    },
};

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node(pub(crate) u64);

struct Side {
    encoding: Encoding,
    decoder: Decoder,
    got: VecDeque<(Message, Encoding)>,
    /// Bytes that it will still read; it reads slowly when there are few.
    appetite: usize,
    /// Written, and not read by the router yet.
    unread: BytesMut,
    closed: Option<Code>,
}

pub(crate) struct Net {
    pub(crate) router: Router,
    pub(crate) now: Now,
    actions: Vec<Action>,
    sides: BTreeMap<Node, Side>,
    next: u64,
}

impl Default for Net {
    fn default() -> Self {
        Self::new(RouterConfig::default())
    }
}

impl Net {
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    pub(crate) fn new(config: RouterConfig) -> Self {
        Self {
            router: Router::new(config, Rng::from_seed(1)),
            now: Now::new(Instant::now(), 1_750_000_000_000),
            actions: Vec::new(),
            sides: BTreeMap::new(),
            next: 1,
        }
    }

    /// A connection on which nothing was said.
    pub(crate) fn silent(&mut self, encoding: Encoding) -> Node {
        let node = Node(self.next);
        self.next += 1;
        let side = Side {
            encoding,
            decoder: Decoder::default(),
            got: VecDeque::new(),
            appetite: usize::MAX,
            unread: BytesMut::new(),
            closed: None,
        };
        self.sides.insert(node, side);
        self.event(Event::Connected(ConnKey(node.0)));
        node
    }

    /// A node that has said who it is.
    pub(crate) fn node(&mut self, name: &str, encoding: Encoding) -> Node {
        let node = self.silent(encoding);
        let mut connect = Connect::new(id(name));
        connect.node_name = Some(Bytes::copy_from_slice(name.as_bytes()));
        self.send(node, Message::Connect(Box::new(connect)));
        node
    }

    pub(crate) fn register(&mut self, node: Node, procedure: &str) {
        let procedure = Bytes::copy_from_slice(procedure.as_bytes());
        self.send(node, Message::RegisterProcedure { procedure });
    }

    pub(crate) fn speak(&mut self, node: Node, encoding: Encoding) {
        self.side(node).encoding = encoding;
    }

    pub(crate) fn send(&mut self, node: Node, message: Message) {
        let mut out = BytesMut::new();
        message.encode(self.side(node).encoding, &mut out).unwrap();
        self.raw(node, &out);
    }

    pub(crate) fn raw(&mut self, node: Node, bytes: &[u8]) {
        self.side(node).unread.extend_from_slice(bytes);
        self.feed(node);
        self.work();
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.router.handle(self.now, event, &mut self.actions);
        self.work();
    }

    pub(crate) fn lose(&mut self, node: Node) {
        self.sides.remove(&node);
        self.event(Event::Lost(ConnKey(node.0)));
    }

    pub(crate) fn end(&mut self, node: Node) {
        self.event(Event::Ended(ConnKey(node.0), StreamEnded::Finished));
    }

    /// How many more bytes this node reads.
    pub(crate) fn appetite(&mut self, node: Node, bytes: usize) {
        self.side(node).appetite = bytes;
        self.drain(node);
        self.work();
    }

    /// Time passes, deadline by deadline.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now.after(time);
        while let Some(at) = self.router.poll_timeout()
            && at <= until.mono
        {
            let step = at.saturating_duration_since(self.now.mono);
            self.now = self.now.after(step);
            self.event(Event::Timeout);
            let again = self.router.poll_timeout();
            assert!(
                again.is_none_or(|again| again > at),
                "a deadline that was served is due again"
            );
        }
        self.now = until;
    }

    /// The next message that a node got.
    pub(crate) fn next(&mut self, node: Node) -> Message {
        self.next_with_encoding(node).0
    }

    pub(crate) fn next_with_encoding(&mut self, node: Node) -> (Message, Encoding) {
        self.side(node).got.pop_front().expect("the node got a message")
    }

    pub(crate) fn try_next(&mut self, node: Node) -> Option<Message> {
        Some(self.sides.get_mut(&node)?.got.pop_front()?.0)
    }

    /// The node got nothing more.
    #[track_caller]
    pub(crate) fn silence(&mut self, node: Node) {
        let got = &self.side(node).got;
        assert!(got.is_empty(), "{got:?}");
    }

    pub(crate) fn closed(&self, node: Node) -> Option<Code> {
        self.sides.get(&node).and_then(|side| side.closed)
    }

    pub(crate) fn unread(&self, node: Node) -> usize {
        self.sides.get(&node).map_or(0, |side| side.unread.len())
    }

    pub(crate) fn queued(&self, node: Node) -> usize {
        let status = self.router.status();
        let found = status.nodes.iter().find(|found| found.conn.0 == node.0);
        found.map_or(0, |found| found.queued)
    }

    pub(crate) fn is_held(&self, node: Node) -> bool {
        !self.router.wants(ConnKey(node.0))
    }

    pub(crate) fn refused(&self, why: Refusal) -> u64 {
        let at = Refusal::ALL.iter().position(|known| *known == why).unwrap();
        self.router.stats().refused[at]
    }

    /// No call is left, whoever looks.
    #[track_caller]
    pub(crate) fn empty(&self) {
        let status = self.router.status();
        assert_eq!((status.streams, status.calls, self.router.routes()), (0, 0, 0));
        assert!(status.nodes.iter().all(|node| node.routes == 0));
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    fn side(&mut self, node: Node) -> &mut Side {
        self.sides.get_mut(&node).expect("a node")
    }

    fn feed(&mut self, node: Node) {
        const PIECE: usize = 1200;
        let key = ConnKey(node.0);
        while self.router.wants(key)
            && let Some(side) = self.sides.get_mut(&node)
            && !side.unread.is_empty()
        {
            let piece = side.unread.split_to(side.unread.len().min(PIECE)).freeze();
            let event = Event::Received(key, piece);
            self.router.handle(self.now, event, &mut self.actions);
        }
    }

    fn drain(&mut self, node: Node) {
        let Some(side) = self.sides.get_mut(&node) else { return };
        for block in self.router.output(ConnKey(node.0)) {
            let piece = block.split_to(block.len().min(side.appetite));
            if side.appetite != usize::MAX {
                side.appetite -= piece.len();
            }
            side.decoder.push(piece);
        }
        while let Some(next) = side.decoder.next() {
            side.got.push_back(next.expect("the router writes what can be read"));
        }
        self.router.wrote(self.now, ConnKey(node.0), &mut self.actions);
    }

    fn work(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Write(key) => self.drain(Node(key.0)),
                    Action::Read(key) => self.feed(Node(key.0)),
                    Action::Close(key, code, _) => {
                        if let Some(side) = self.sides.get_mut(&Node(key.0)) {
                            assert_eq!(side.closed.replace(code), None, "closed once");
                        }
                    }
                }
            }
        }
    }
}

pub(crate) fn id(name: &str) -> Bytes {
    let mut id = [0; 32];
    for (to, from) in id.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    Bytes::copy_from_slice(&id)
}

pub(crate) fn stream(number: u8) -> StreamId {
    StreamId([number; 16])
}

pub(crate) fn open(number: u8, procedure: &str) -> Message {
    open_as(number, procedure, Mode::Bidi)
}

pub(crate) fn open_as(number: u8, procedure: &str, mode: Mode) -> Message {
    Message::StreamOpen(StreamOpen {
        stream: stream(number),
        procedure: Bytes::copy_from_slice(procedure.as_bytes()),
        mode,
        args: Value::Uint(7),
    })
}

pub(crate) fn data(number: u8, seq: u64, body: &[u8]) -> Message {
    data_of(stream(number), seq, body)
}

pub(crate) fn data_of(stream: StreamId, seq: u64, body: &[u8]) -> Message {
    let chunk = Chunk::Raw(Bytes::copy_from_slice(body));
    Message::StreamData(StreamData { stream, seq, chunk })
}

pub(crate) fn end(number: u8) -> Message {
    let (stream, role) = (stream(number), EndRole::Send);
    Message::StreamEnd { stream, role }
}

pub(crate) fn end_both(number: u8) -> Message {
    let (stream, role) = (stream(number), EndRole::Both);
    Message::StreamEnd { stream, role }
}

pub(crate) fn error(number: u8, code: &str) -> Message {
    let (stream, fault) = (stream(number), Fault::from_code(code));
    Message::StreamError { stream, fault }
}

pub(crate) fn stream_reply(number: u8, value: u64) -> Message {
    let (stream, outcome) = (stream(number), Outcome::Ok(Value::Uint(value)));
    Message::StreamReply { stream, outcome }
}

pub(crate) fn call(name: &str, procedure: &str) -> Message {
    Message::Call(call_of(name, procedure))
}

pub(crate) fn call_of(name: &str, procedure: &str) -> Call {
    Call {
        call_id: Bytes::copy_from_slice(name.as_bytes()),
        procedure: Bytes::copy_from_slice(procedure.as_bytes()),
        args: Value::Uint(1),
        target: None,
        timeout: None,
        trace: None,
    }
}

pub(crate) fn reply(name: &Bytes, value: u64) -> Message {
    Message::Reply(Reply {
        call_id: name.clone(),
        outcome: Outcome::Ok(Value::Uint(value)),
        trace: None,
    })
}

pub(crate) fn publish(topic: &str, payload: Value) -> Publish {
    Publish {
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        payload,
        qos: None,
        retain: None,
        message_id: None,
        trace: None,
    }
}

/// The code of the fault that a message tells.
#[track_caller]
pub(crate) fn code(message: &Message) -> String {
    let fault = match message {
        Message::StreamError { fault, .. } => fault,
        Message::Reply(Reply {
            outcome: Outcome::Err(fault),
            ..
        }) => fault,
        other => panic!("{other:?} tells no fault"),
    };
    fault.code_str().unwrap().to_owned()
}
