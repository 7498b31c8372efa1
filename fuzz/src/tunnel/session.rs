//! A node's session with whatever a relay sends it.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use macula_proto::{
    Code, Limits, Now,
    tunnel::{
        ControlEnd, Name, StreamKey,
        client::session::{Action, EncodingChoice, Event, RequestId, Session, SessionConfig, TunnelEnd},
    },
    wire::{
        Encoding,
        control::{Message, Reason, TunnelId},
    },
};

use crate::script::{at, ms, operations, pick, start};

#[derive(Debug, Arbitrary)]
struct Setup {
    encoding: u8,
    allow: Option<u8>,
    late: bool,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Identified(bool),
    Ok {
        tunnel: u8,
        cbor: bool,
    },
    Error {
        why: u8,
        cbor: bool,
    },
    Notify {
        tunnel: u8,
        source: u8,
        cbor: bool,
    },
    Closed {
        tunnel: u8,
    },
    /// What no relay says.
    Odd {
        kind: u8,
        cbor: bool,
    },
    Raw(Vec<u8>),
    Arrived,
    Prefix {
        stream: u8,
        tunnel: u8,
    },
    StreamLost(u8),
    Request(u8),
    Cancel(u8),
    Done {
        stream: u8,
        finished: bool,
    },
    Allow(Option<u8>),
    Sleep(u8),
    Due,
    Ended(bool),
    Stalled,
    Connected,
    Close,
    Lost,
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.pending_requests = 3;
    limits.orphan_streams = 3;
    limits
}

fn id(number: u8) -> TunnelId {
    TunnelId::from_bytes([b'a' + number % 6; 32])
}

fn name(number: u8) -> Name {
    match number {
        255 => Name::new(&[b'x'; 300]),
        254 => Name::new(b""),
        _ => Name::new(&[b'a' + number % 4]),
    }
}

fn names(bits: u8) -> BTreeSet<Name> {
    (0..4).filter(|number| bits & (1 << number) != 0).map(name).collect()
}

struct Rig {
    session: Session,
    now: Now,
    connected: bool,
    over: bool,
    identified: bool,
    /// Streams that arrived and are neither handed out, rejected nor lost, with their id once it is in.
    streams: BTreeMap<StreamKey, Option<TunnelId>>,
    /// Streams that the user has.
    active: Vec<StreamKey>,
    known: Vec<StreamKey>,
    requests: Vec<RequestId>,
    open: BTreeSet<RequestId>,
    allow: Option<BTreeSet<Name>>,
}

/// Whatever a relay says in whatever order: each request has one outcome; a stream is handed out once, and only one that is
/// there, with the id that it began with; names that may not come do not; nothing is said once it is over, and nothing is kept.
pub fn session(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(setup) = data.arbitrary::<Setup>() else { return };
    let mut config = SessionConfig::new(Name::from("a"));
    config.encoding =
        [EncodingChoice::Auto, EncodingChoice::MessagePack, EncodingChoice::Cbor][usize::from(setup.encoding % 3)];
    config.allow_from = setup.allow.map(names);
    config.limits = limits();
    let mut rig = Rig {
        allow: config.allow_from.clone(),
        session: Session::new(config).expect("a good name"),
        now: start(),
        connected: false,
        over: false,
        identified: false,
        streams: BTreeMap::new(),
        active: Vec::new(),
        known: Vec::new(),
        requests: Vec::new(),
        open: BTreeSet::new(),
    };
    if !setup.late {
        rig.apply(Op::Connected);
    }
    for op in operations::<Op>(data, 400) {
        rig.apply(op);
    }
    rig.apply(Op::Lost);
    assert!(rig.session.is_empty(), "something is left: {:?}", rig.session);
    assert!(rig.open.is_empty(), "requests without an outcome");
    assert_eq!(rig.session.poll_timeout(), None);
}

impl Rig {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Identified(cbor) => self.hear(&Message::Identified, cbor),
            Op::Ok { tunnel, cbor } => self.hear(&Message::TunnelOk { tunnel: id(tunnel) }, cbor),
            Op::Error { why, cbor } => {
                let reasons = [
                    Reason::Busy,
                    Reason::TargetNotConnected,
                    Reason::StreamLimit,
                    Reason::Draining,
                ];
                let reason = reasons[usize::from(why % 4)].clone();
                self.hear(&Message::TunnelError { reason }, cbor);
            }
            Op::Notify { tunnel, source, cbor } => {
                let source = name(source).as_bytes().into();
                self.hear(
                    &Message::TunnelNotify {
                        tunnel: id(tunnel),
                        source,
                    },
                    cbor,
                );
            }
            Op::Closed { tunnel } => self.hear(&Message::TunnelClose { tunnel: id(tunnel) }, false),
            Op::Odd { kind, cbor } => {
                let name = name(kind).as_bytes().into();
                let odd = if kind & 1 == 0 {
                    Message::Identify { name }
                } else {
                    Message::TunnelRequest { target: name }
                };
                self.hear(&odd, cbor);
            }
            Op::Raw(bytes) => self.event(Event::ControlBytes(&bytes)),
            Op::Arrived => {
                let stream = StreamKey(self.known.len() as u64);
                self.known.push(stream);
                if self.connected && !self.over {
                    self.streams.insert(stream, None);
                }
                self.event(Event::StreamArrived { stream });
            }
            Op::Prefix { stream, tunnel } => {
                let Some(&stream) = pick(&self.known, stream) else {
                    return;
                };
                // The first 32 bytes come once.
                if matches!(self.streams.get(&stream), Some(None)) {
                    self.streams.insert(stream, Some(id(tunnel)));
                    self.event(Event::Prefix { stream, id: id(tunnel) });
                }
            }
            Op::StreamLost(stream) => {
                let Some(&stream) = pick(&self.known, stream) else {
                    return;
                };
                self.streams.remove(&stream);
                self.event(Event::StreamLost { stream });
            }
            Op::Request(target) => {
                let request = RequestId(self.requests.len() as u64);
                self.requests.push(request);
                self.open.insert(request);
                self.event(Event::Request {
                    request,
                    target: name(target),
                });
            }
            Op::Cancel(request) => {
                let Some(&request) = pick(&self.requests, request) else {
                    return;
                };
                self.event(Event::Cancel { request });
                assert!(!self.open.contains(&request), "given up, and no outcome");
            }
            Op::Done { stream, finished } => {
                let Some(&stream) = pick(&self.known, stream) else {
                    return;
                };
                self.active.retain(|active| *active != stream);
                let end = if finished {
                    TunnelEnd::Finished
                } else {
                    TunnelEnd::Abandoned
                };
                self.event(Event::TunnelDone { stream, end });
            }
            Op::Allow(bits) => {
                self.allow = bits.map(names);
                self.event(Event::AllowFrom(self.allow.clone()));
            }
            Op::Sleep(steps) => self.wait(self.now.after(ms(u64::from(steps) * 100))),
            Op::Due => self.wait(at(self.now, self.session.poll_timeout())),
            Op::Ended(reset) => {
                let end = if reset {
                    ControlEnd::Reset(Code::CANCELLED)
                } else {
                    ControlEnd::Finished
                };
                self.event(Event::ControlEnded(end));
            }
            Op::Stalled => self.event(Event::ControlStalled),
            Op::Connected => {
                self.connected = true;
                self.event(Event::Connected);
            }
            Op::Close => self.event(Event::Close),
            Op::Lost => {
                self.streams.clear();
                self.active.clear();
                self.over = true;
                self.event(Event::ConnectionLost);
            }
        }
    }

    fn hear(&mut self, message: &Message, cbor: bool) {
        let mut bytes = BytesMut::new();
        message.encode(if cbor { Encoding::Cbor } else { Encoding::MessagePack }, &mut bytes);
        self.event(Event::ControlBytes(&bytes));
    }

    fn wait(&mut self, until: Now) {
        self.now = until;
        if self.session.poll_timeout().is_some_and(|due| due <= until.mono) {
            self.event(Event::Timeout);
            assert!(
                self.session.poll_timeout().is_none_or(|due| due > until.mono),
                "a deadline that is over"
            );
        }
    }

    fn event(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.session.handle(self.now, event, &mut actions);
        for action in actions {
            // Who asks late is answered, and what arrives late is sent back.
            let late = matches!(action, Action::RequestFailed { .. } | Action::RejectStream { .. });
            assert!(late || !self.over, "after the end: {action:?}");
            self.act(action);
        }
        let (status, limits) = (self.session.status(), limits());
        assert!(status.unidentified_streams <= limits.orphan_streams);
        assert!(status.pending_inbound <= limits.orphan_streams);
        assert!(status.pending_outbound <= limits.pending_requests);
        assert_eq!(status.identified, self.identified && !self.over, "{:?}", self.session);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SendControl(bytes) => assert!(!bytes.is_empty()),
            Action::RejectStream { stream, .. } => {
                self.streams.remove(&stream);
                self.active.retain(|active| *active != stream);
            }
            Action::Identified => assert!(!std::mem::replace(&mut self.identified, true), "identified twice"),
            Action::Opened {
                request,
                tunnel,
                stream,
            } => {
                assert!(self.open.remove(&request), "a second outcome");
                self.hand_out(stream, tunnel);
            }
            Action::RequestFailed { request, .. } => assert!(self.open.remove(&request), "a second outcome"),
            Action::Incoming { tunnel, source, stream } => {
                let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(&source));
                assert!(allowed, "it may not come in");
                self.hand_out(stream, tunnel);
            }
            Action::Close { .. } => self.over = true,
        }
    }

    fn hand_out(&mut self, stream: StreamKey, tunnel: TunnelId) {
        assert_eq!(
            self.streams.remove(&stream),
            Some(Some(tunnel)),
            "not what the stream began with"
        );
        self.active.push(stream);
    }
}
