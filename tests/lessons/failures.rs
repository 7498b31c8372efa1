//! What fails fails alone.

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    identity::Identity,
    peering::{
        Action, Event, Gate, GateAction, GateConfig, GateEvent, PeerConn, Peering, PeeringConfig, Role, TransportError,
    },
    rpc::{
        Chunk, EndRole, Fault, Kind, Mode, Outcome, RpcConfig, StreamId,
        session::{self, CallId, Lane, Medium, Session, Shared, Side},
    },
    wire::{
        Encoding, Value,
        rpc::{Connect, Decoder, Message, StreamData, StreamOpen},
    },
};

fn now() -> Now {
    Now::new(Instant::now(), 1_777_000_000_000)
}

/// Feeds both ends with what the other one writes, until neither writes any more; gives what the acceptor asked for.
fn introduce(dialler: &mut Peering, acceptor: &mut Peering, now: Now) -> Vec<Action> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    dialler.handle(now, Event::Start { exporter: None }, &mut theirs);
    acceptor.handle(now, Event::Start { exporter: None }, &mut ours);
    dialler.handle(now, Event::StreamOpened, &mut theirs);
    while let Some(bytes) = dialler.poll_output(1200, &mut theirs) {
        acceptor.handle(now, Event::Received(bytes), &mut ours);
    }
    ours
}

/// Lesson 9.
#[test]
fn a_write_that_fails_before_hello_ends_that_connection_alone() {
    let now = now();
    let identity = |number: u8| PeeringConfig::new(Arc::new(Identity::from_seed(&[number; 32])));
    let mut gate = Gate::new(GateConfig::new(&macula_proto::Limits::default()));
    let failures = [
        Event::WriteFailed(TransportError::Peer(Code::CANCELLED)),
        Event::ConnectionLost(TransportError::TimedOut),
        Event::Reset(Code::CANCELLED),
        Event::Finished,
    ];
    // Before the decision, and behind it, before anything of the HELLO has left.
    for (number, (failure, decided)) in failures
        .iter()
        .flat_map(|failure| [(failure, false), (failure, true)])
        .enumerate()
    {
        let mut dialler = Peering::new(Role::Dialler, identity(1), Rng::from_seed(1));
        let mut acceptor = Peering::new(Role::Acceptor, identity(2), Rng::from_seed(2));
        let conn = PeerConn(number as u64);
        let mut door = Vec::new();
        gate.handle(GateEvent::Arrived(conn), &mut door);
        let mut actions = introduce(&mut dialler, &mut acceptor, now);
        let peer = dialler.node_id();
        assert_eq!(actions.last(), Some(&Action::Authorize { peer }), "the CONNECT is good");
        gate.handle(GateEvent::Identified(conn, peer), &mut door);
        assert_eq!(
            door,
            [GateAction::Admit(conn)],
            "those before it are gone and hold no place"
        );
        if decided {
            acceptor.handle(now, Event::Admit, &mut actions);
        }
        actions.clear();
        acceptor.handle(now, failure.clone(), &mut actions);
        if !decided {
            acceptor.handle(now, Event::Admit, &mut actions);
        }
        acceptor.handle(now, Event::ConnectionLost(TransportError::Closed), &mut actions);
        let ends = actions
            .iter()
            .filter(|action| matches!(action, Action::Ended { .. }))
            .count();
        assert_eq!((ends, acceptor.is_ended()), (1, true), "{failure:?}: {actions:?}");
        assert!(matches!(actions.last(), Some(Action::Ended { .. })), "{actions:?}");
        assert_eq!((acceptor.poll_timeout(), acceptor.has_output()), (None, false));
        gate.handle(GateEvent::Gone(conn), &mut door);
        assert_eq!((gate.handshaking(), gate.connected()), (0, 0));
    }
}

/// An acceptor's session with procedures, and a peer that says what the test wants.
struct Link {
    session: Session,
    shared: Shared,
    now: Now,
    actions: Vec<session::Action>,
}

impl Link {
    fn new() -> Self {
        let mut link = Self {
            session: Session::new(
                Side::Acceptor,
                Medium::Single,
                RpcConfig::new([1; 32]),
                Rng::from_seed(1),
            ),
            shared: Shared::default(),
            now: now(),
            actions: Vec::new(),
        };
        link.shared
            .registry
            .advertise(Bytes::from_static(b"echo"), Kind::Stream(Mode::Bidi));
        link.event(session::Event::Start);
        link.say(&Message::Connect(Box::new(Connect::new(Bytes::from_static(&[2; 32])))));
        link
    }

    fn event(&mut self, event: session::Event) {
        self.session
            .handle(self.now, event, &mut self.shared, &mut self.actions);
    }

    fn say(&mut self, message: &Message) {
        let mut bytes = BytesMut::new();
        message.encode(Encoding::Cbor, &mut bytes).expect("can be written");
        self.event(session::Event::Received(Lane::SHARED, bytes.freeze()));
    }

    fn open(&mut self, number: u8) -> CallId {
        self.actions.clear();
        self.say(&Message::StreamOpen(StreamOpen {
            stream: StreamId([number; 16]),
            procedure: Bytes::from_static(b"echo"),
            mode: Mode::Bidi,
            args: Value::Null,
        }));
        let incoming = self.actions.iter().find_map(|action| match action {
            session::Action::Incoming(incoming) => Some(incoming.call),
            _ => None,
        });
        incoming.expect("the call came in")
    }

    fn heard(&mut self) -> Vec<Message> {
        let mut decoder = Decoder::default();
        for block in self.session.output(Lane::SHARED) {
            decoder.push(std::mem::take(block));
        }
        self.session.wrote(self.now, Lane::SHARED, &mut self.actions);
        std::iter::from_fn(|| decoder.next())
            .map(|message| message.expect("can be read").0)
            .collect()
    }
}

/// Lesson 10.
#[test]
fn an_error_of_one_call_leaves_the_others_alone() {
    let mut link = Link::new();
    let calls = [1, 2, 3, 4].map(|number| link.open(number));
    link.heard();
    link.actions.clear();
    let fault = Fault::from_code("failed");
    // A handler's error, a handler that gives up, a handler that is gone.
    link.session
        .set_reply(link.now, calls[0], Outcome::Err(fault.clone()), &mut link.actions);
    link.session.abort(link.now, calls[1], fault, &mut link.actions);
    link.session
        .forget(link.now, calls[2], &mut link.shared, &mut link.actions);
    let failed: Vec<_> = link.heard().iter().filter_map(Message::stream).collect();
    assert_eq!(
        failed,
        [1, 2, 3].map(|number| StreamId([number; 16])),
        "each was told of its own"
    );
    let over = |action: &session::Action| matches!(action, session::Action::Close { .. } | session::Action::Ended(_));
    assert!(!link.actions.iter().any(over), "{:?}", link.actions);

    let (stream, chunk) = (StreamId([4; 16]), Chunk::Raw(Bytes::from_static(b"still there?")));
    link.say(&Message::StreamData(StreamData {
        stream,
        seq: 0,
        chunk: chunk.clone(),
    }));
    link.say(&Message::StreamEnd {
        stream,
        role: EndRole::Send,
    });
    let received = link
        .session
        .recv(link.now, calls[3], &mut link.shared, &mut link.actions);
    assert_eq!(received, Ok(chunk.clone()));
    assert!(link.session.send(link.now, calls[3], chunk, &mut link.actions).is_ok());
    assert!(matches!(&link.heard()[..], [Message::StreamData(data)] if data.stream == stream));
    link.open(5);
}
