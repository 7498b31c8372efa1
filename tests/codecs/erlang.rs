//! Erlang terms and distribution, against the crates `eetf` and `erl_dist`.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use erl_dist::{
    DistributionFlags,
    handshake::{ClientSideHandshake, HandshakeStatus, ServerSideHandshake},
    message,
    node::{Creation, LocalNode, PeerNode},
};
use futures_io::{AsyncRead, AsyncWrite};
use macula_proto::{
    Now, Rng,
    dist::handshake::{Action, Event, Failure, Handshake, HandshakeConfig, Role, Standing},
    wire::{
        DecodeLimits,
        dist::{
            Control, Flags, Form, FragmentLimits, Frame, Message, MessageDecoder, MessageFraming,
            control::{Process, Spawn},
            encode_message,
            handshake::Carrier,
            put_message,
        },
        etf::{self, Atom, Export, Pid, Port, Reference, Term},
    },
};
use proptest::{collection::vec, option, prelude::*};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;
const MAX: u32 = 1 << 20;

/// One end of a connection in memory.
#[derive(Debug, Clone, Default)]
struct Pipe {
    /// To be read here.
    input: Arc<Mutex<VecDeque<u8>>>,
    /// Written here.
    output: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut input = self.input.lock().expect("not poisoned");
        let length = buffer.len().min(input.len());
        if length == 0 {
            return Poll::Pending;
        }
        for (place, byte) in buffer.iter_mut().zip(input.drain(..length)) {
            *place = byte;
        }
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.output.lock().expect("not poisoned").extend_from_slice(buffer);
        Poll::Ready(Ok(buffer.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Pipe {
    fn written(&self) -> Bytes {
        std::mem::take(&mut *self.output.lock().expect("not poisoned")).into()
    }

    fn feed(&self, bytes: &[u8]) {
        self.input.lock().expect("not poisoned").extend(bytes);
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Runs our side of a handshake against theirs. `None`: theirs never came to an end.
fn shake<T>(role: Role, cookie: &str, pipe: &Pipe, theirs: impl Future<Output = T>) -> (Vec<Action>, Option<T>) {
    let config = HandshakeConfig {
        carrier: Carrier::Tcp,
        ..HandshakeConfig::new(atom("ours@host"), 5, cookie.into())
    };
    let mut machine = Handshake::new(role, config, &mut Rng::from_seed(4));
    let now = Now::new(Instant::now(), 0);
    let mut theirs = pin!(theirs);
    let (mut done, mut output) = (Vec::new(), None);
    let mut events = VecDeque::from([Event::Start]);
    for _ in 0..20 {
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            machine.handle(now, event, &mut actions);
            for action in actions {
                match action {
                    Action::Send(bytes) => pipe.feed(&bytes),
                    Action::AskStanding { .. } => events.push_back(Event::Standing(Standing::New)),
                    action => done.push(action),
                }
            }
        }
        if output.is_none() {
            output = poll(theirs.as_mut());
        }
        let bytes = pipe.written();
        if !bytes.is_empty() {
            events.push_back(Event::Received(bytes));
        }
    }
    (done, output)
}

fn local() -> LocalNode {
    let mut node = LocalNode::new("theirs@host".parse().expect("a name"), Creation::random());
    // The crate takes another bit for this flag than OTP does.
    node.flags |= DistributionFlags::from_bits_truncate(Flags::MANDATORY_25.bits());
    node
}

async fn dial(pipe: Pipe, cookie: &str) -> Result<PeerNode, String> {
    let mut handshake = ClientSideHandshake::new(pipe, local(), cookie);
    let status = handshake
        .execute_send_name(6)
        .await
        .map_err(|error| error.to_string())?;
    assert_eq!(status, HandshakeStatus::Ok);
    let result = handshake.execute_rest(true).await;
    result.map(|(_, peer)| peer).map_err(|error| error.to_string())
}

async fn accept(pipe: Pipe, cookie: &str) -> Result<PeerNode, String> {
    let mut handshake = ServerSideHandshake::new(pipe, local(), cookie);
    let name = handshake.execute_recv_name().await.map_err(|error| error.to_string())?;
    assert_eq!(name.expect("a name").to_string(), "ours@host");
    let result = handshake.execute_rest(HandshakeStatus::Ok).await;
    result.map(|(_, peer)| peer).map_err(|error| error.to_string())
}

fn assert_up(actions: &[Action], theirs: Option<Result<PeerNode, String>>) {
    let [Action::Up(established)] = actions else {
        panic!("{actions:?}")
    };
    assert_eq!(established.peer, "theirs@host");
    assert_eq!(established.peer_flags & Flags::MANDATORY_25, Flags::MANDATORY_25);
    let peer = theirs.expect("an end").expect("success");
    assert_eq!(peer.name.to_string(), "ours@host");
    assert_eq!(peer.creation.map(Creation::get), Some(5));
}

#[test]
fn they_dial() {
    let pipe = Pipe::default();
    let (actions, theirs) = shake(Role::Acceptor, "cookie", &pipe, dial(pipe.clone(), "cookie"));
    assert_up(&actions, theirs);
    let (actions, theirs) = shake(Role::Acceptor, "cookie", &pipe, dial(pipe.clone(), "wrong"));
    assert_eq!(
        (actions, theirs.is_none()),
        (vec![Action::Failed(Failure::Cookie)], true)
    );
}

#[test]
fn they_are_dialled() {
    let pipe = Pipe::default();
    let role = Role::Dialler {
        peer: atom("theirs@host"),
    };
    let (actions, theirs) = shake(role.clone(), "cookie", &pipe, accept(pipe.clone(), "cookie"));
    assert_up(&actions, theirs);
    let pipe = Pipe::default();
    let (actions, theirs) = shake(role, "cookie", &pipe, accept(pipe.clone(), "wrong"));
    assert_eq!(actions, []);
    assert!(theirs.expect("an end").is_err());
}

fn atom(text: &str) -> Atom {
    Atom::new(text).expect("short")
}

fn any_atom() -> impl Strategy<Value = Atom> {
    prop_oneof!["[a-z@_A-Z ]{1,12}", "[\u{e9}\u{3bb}a-z]{1,90}"].prop_map(|text| atom(&text))
}

fn any_pid() -> impl Strategy<Value = Pid> {
    let parts = (any_atom(), any::<[u32; 3]>());
    parts.prop_map(|(node, [id, serial, creation])| Pid {
        node,
        id,
        serial,
        creation,
    })
}

fn any_reference() -> impl Strategy<Value = Reference> {
    let parts = (any_atom(), any::<u32>(), vec(any::<u32>(), 1..=5));
    parts.prop_map(|(node, creation, words)| Reference::new(node, creation, &words).expect("few words"))
}

fn any_term() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Term::Int),
        (-300..300_i64).prop_map(Term::Int),
        any::<i128>().prop_map(Term::from),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Term::Float),
        any_atom().prop_map(Term::Atom),
        vec(any::<u8>(), 0..600).prop_map(|bytes| Term::String(bytes.into())),
        vec(any::<u8>(), 0..600).prop_map(Term::binary),
        any_pid().prop_map(Term::Pid),
        any_reference().prop_map(Term::from),
        (any_atom(), any::<u64>(), any::<u32>()).prop_map(|(node, id, creation)| Port { node, id, creation }.into()),
        (any_atom(), any_atom(), any::<u8>()).prop_map(|(module, function, arity)| Term::Export(Box::new(Export {
            module,
            function,
            arity
        }))),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Term::Tuple),
            vec(inner.clone(), 0..8).prop_map(list),
            (vec(inner.clone(), 1..5), any_atom())
                .prop_map(|(elements, tail)| Term::ImproperList(elements, Box::new(tail.into()))),
            vec((any_atom().prop_map(Term::Atom), inner), 0..5).prop_map(Term::Map),
        ]
    })
    .prop_map(sorted)
}

/// A list that begins with an atom: theirs writes one of small integers alone as bytes, those that are none too.
fn list(mut elements: Vec<Term>) -> Term {
    if !elements.is_empty() {
        elements.insert(0, Term::Atom(atom("list")));
    }
    Term::List(elements)
}

/// With the entries of maps in one order and no key twice: theirs do not keep the order.
fn sorted(term: Term) -> Term {
    let all = |terms: Vec<Term>| terms.into_iter().map(sorted).collect();
    match term {
        Term::Tuple(elements) => Term::Tuple(all(elements)),
        Term::List(elements) => Term::List(all(elements)),
        Term::ImproperList(elements, tail) => Term::ImproperList(all(elements), Box::new(sorted(*tail))),
        Term::Map(entries) => {
            let mut entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| (sorted(key), sorted(value)))
                .collect();
            entries.sort();
            entries.dedup_by(|a, b| a.0 == b.0);
            Term::Map(entries)
        }
        other => other,
    }
}

fn any_control() -> impl Strategy<Value = Control> {
    let process = || prop_oneof![any_pid().prop_map(Process::Pid), any_atom().prop_map(Process::Name)];
    let token = || option::of(any_term());
    let pids = || (any_pid(), any_pid());
    prop_oneof![
        pids().prop_map(|(from, to)| Control::Link { from, to }),
        // With a token theirs reads the elements in another order than it writes them.
        any_pid().prop_map(|to| Control::Send { to, token: None }),
        (pids(), token()).prop_map(|((from, to), token)| Control::SendSender { from, to, token }),
        (any_pid(), any_atom(), token()).prop_map(|(from, to, token)| Control::RegSend { from, to, token }),
        (any_pid(), any_reference(), token()).prop_map(|(from, alias, token)| Control::AliasSend {
            from,
            alias,
            token
        }),
        (pids(), token(), token()).prop_map(|((from, to), reason, token)| Control::Exit {
            from,
            to,
            reason,
            token
        }),
        (pids(), token(), token()).prop_map(|((from, to), reason, token)| Control::Exit2 {
            from,
            to,
            reason,
            token
        }),
        pids().prop_map(|(from, to)| Control::Unlink { from, to }),
        (any::<u64>(), pids()).prop_map(|(id, (from, to))| Control::UnlinkId { id, from, to }),
        (any::<u64>(), pids()).prop_map(|(id, (from, to))| Control::UnlinkIdAck { id, from, to }),
        Just(Control::NodeLink),
        pids().prop_map(|(from, to)| Control::GroupLeader { from, to }),
        (any_pid(), process(), any_reference()).prop_map(|(from, to, reference)| Control::Monitor {
            from,
            to,
            reference
        }),
        (any_pid(), process(), any_reference()).prop_map(|(from, to, reference)| Control::Demonitor {
            from,
            to,
            reference
        }),
        (process(), any_pid(), any_reference(), token()).prop_map(|(from, to, reference, reason)| {
            Control::MonitorExit {
                from,
                to,
                reference,
                reason,
            }
        }),
        (any_reference(), pids(), any_atom(), any::<u8>(), token()).prop_map(
            |(request, (from, group_leader), module, arity, token)| {
                let (function, options) = (module.clone(), Term::List(vec![module.clone().into()]));
                let spawn = Spawn {
                    request,
                    from,
                    group_leader,
                    module,
                    function,
                    arity,
                    options,
                    token,
                };
                Control::SpawnRequest(Box::new(spawn))
            }
        ),
        (any_reference(), pids(), 0..4_u32, token()).prop_map(|(request, (to, pid), flags, token)| {
            Control::SpawnReply {
                request,
                to,
                flags,
                result: pid.into(),
                token,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn terms_mean_the_same_to_eetf(term in any_term()) {
        let mut out = BytesMut::new();
        etf::encode(&term, &mut out).expect("encodes");
        let theirs = eetf::Term::decode(&out[..]).expect("they take it");
        let mut again = Vec::new();
        theirs.encode(&mut again).expect("encodes");
        let ours = etf::decode(&again.into(), &LIMITS).expect("we take theirs");
        prop_assert_eq!(sorted(ours), term);
    }

    #[test]
    fn messages_mean_the_same_to_erl_dist(control in any_control(), payload in any_term()) {
        let payload = match &control {
            // Their arguments are a list.
            Control::SpawnRequest(_) => Some(list(vec![payload])),
            control => control.has_payload().then_some(payload),
        };
        let message = Message { control, payload };
        let mut bytes = BytesMut::new();
        encode_message(&message, Form::PassThrough, &mut bytes).expect("encodes");
        let mut framed = BytesMut::new();
        put_message(&mut framed, MAX, &bytes).expect("short");
        let pipe = Pipe::default();
        pipe.feed(&framed);
        let (mut sender, mut receiver) = message::channel(pipe.clone(), DistributionFlags::default());
        let theirs = poll(pin!(receiver.recv())).expect("a whole message").expect("they take it");
        poll(pin!(sender.send(theirs))).expect("written").expect("they send it");
        let mut written = pipe.written();
        let frame = MessageFraming::new(MAX).next(&mut written);
        let Some(Ok(Frame::Message(frame))) = frame else { panic!("{frame:?}") };
        let mut decoder = MessageDecoder::new(LIMITS, FragmentLimits::default(), MAX);
        let ours = decoder.decode(&frame).expect("we take theirs").expect("complete");
        prop_assert_eq!(sorted(ours.control.to_term()), sorted(message.control.to_term()));
        prop_assert_eq!(ours.payload.map(sorted), message.payload);
    }

    /// Damaged terms: what they refuse we may not take for something else than what it is, so what both take is the same.
    #[test]
    fn damaged_terms_that_both_take_mean_the_same(term in any_term(), damage in vec((any::<u16>(), any::<u8>()), 1..4)) {
        let mut out = BytesMut::new();
        etf::encode(&term, &mut out).expect("encodes");
        for (at, byte) in damage {
            let at = usize::from(at) % out.len();
            out[at] = byte;
        }
        // Their allocations follow announced lengths.
        let long = out.windows(5).any(|bytes| matches!(bytes[0], 80 | 105 | 108 | 109 | 111 | 112 | 116 | 77) && bytes[1] > 0);
        let bytes = out.freeze();
        let Ok(ours) = etf::decode(&bytes, &LIMITS) else { return Ok(()) };
        prop_assume!(!long);
        if let Ok(theirs) = eetf::Term::decode(&bytes[..]) {
            let mut again = Vec::new();
            theirs.encode(&mut again).expect("encodes");
            let theirs = etf::decode(&again.into(), &LIMITS).expect("we take theirs");
            prop_assert_eq!(sorted(theirs), sorted(ours));
        }
    }
}
