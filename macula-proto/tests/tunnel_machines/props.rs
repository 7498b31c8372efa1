//! Any events in any order: no panic, no cap exceeded, nothing left behind, one outcome for each request.

use std::{collections::BTreeSet, num::NonZeroUsize};

use macula_proto::{
    Code, Limits, Rng,
    tunnel::{
        ConnKey, ControlEnd, Name, StreamKey,
        client::{
            session::{self, RequestId, Session, SessionConfig, TunnelEnd},
            supervisor::{self, Attempt, Supervisor, SupervisorConfig},
        },
        relay::{self, Relay, RelayConfig, SpliceEnd, Ticket, TunnelBytes, TunnelKey},
    },
    wire::{
        Encoding,
        control::{Message, Reason, TunnelId},
    },
};
use proptest::{collection::vec, prelude::*};

use crate::{encode, garbage, ms, start, tunnel_id};

fn small_limits() -> Limits {
    let mut limits = Limits::default();
    limits.tunnels_per_connection = 3;
    limits.pending_requests = 2;
    limits.names_per_connection = 2;
    limits.orphan_streams = 2;
    limits.control_burst = 40;
    limits
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c"]).prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..300),
    ]
}

fn id() -> impl Strategy<Value = TunnelId> {
    (0_u8..4).prop_map(tunnel_id)
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        4 => name().prop_map(|name| Message::Identify { name: name.into() }),
        2 => Just(Message::Identified),
        6 => name().prop_map(|target| Message::TunnelRequest { target: target.into() }),
        4 => id().prop_map(|tunnel| Message::TunnelOk { tunnel }),
        2 => Just(Message::TunnelError { reason: Reason::Busy }),
        4 => (id(), name()).prop_map(|(tunnel, source)| Message::TunnelNotify { tunnel, source: source.into() }),
        2 => id().prop_map(|tunnel| Message::TunnelClose { tunnel }),
    ]
}

fn control() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => (message(), any::<bool>()).prop_map(|(message, cbor)| {
            encode(&message, if cbor { Encoding::Cbor } else { Encoding::MessagePack })
        }),
        1 => Just(garbage()),
        1 => vec(any::<u8>(), 0..12),
    ]
}

fn control_end() -> impl Strategy<Value = ControlEnd> {
    prop_oneof![Just(ControlEnd::Finished), Just(ControlEnd::Reset(Code::CANCELLED))]
}

#[derive(Debug, Clone)]
enum RelayOp {
    Connected(u64),
    Control(u64, Vec<u8>),
    Ended(u64, ControlEnd),
    Stalled(u64),
    Extra(u64),
    /// The oldest open ask but this many.
    Opened(usize),
    Unavailable(usize),
    /// Any ticket at all.
    Wild(u64),
    Available(u64),
    Over(usize),
    /// A node closes one of the tunnels there are.
    Close(u64, usize),
    Lost(u64),
    Pass(u64),
    Drain,
    Access(bool),
}

fn relay_op() -> impl Strategy<Value = RelayOp> {
    let conn = 0_u64..4;
    prop_oneof![
        6 => conn.clone().prop_map(RelayOp::Connected),
        20 => (conn.clone(), control()).prop_map(|(conn, bytes)| RelayOp::Control(conn, bytes)),
        1 => (conn.clone(), control_end()).prop_map(|(conn, end)| RelayOp::Ended(conn, end)),
        1 => conn.clone().prop_map(RelayOp::Stalled),
        1 => conn.clone().prop_map(RelayOp::Extra),
        12 => (0_usize..4).prop_map(RelayOp::Opened),
        6 => (0_usize..4).prop_map(RelayOp::Unavailable),
        1 => (0_u64..40).prop_map(RelayOp::Wild),
        4 => conn.clone().prop_map(RelayOp::Available),
        3 => (0_usize..4).prop_map(RelayOp::Over),
        3 => (conn.clone(), 0_usize..4).prop_map(|(conn, tunnel)| RelayOp::Close(conn, tunnel)),
        3 => conn.prop_map(RelayOp::Lost),
        5 => (0_u64..6_000).prop_map(RelayOp::Pass),
        1 => any::<bool>().prop_map(RelayOp::Access),
        1 => Just(RelayOp::Drain),
    ]
}

/// Feeds a relay and checks what must always hold.
struct RelayRig {
    relay: Relay,
    now: macula_proto::Now,
    asks: Vec<Ticket>,
    tunnels: Vec<TunnelKey>,
    /// Connections that were announced and not lost.
    conns: BTreeSet<ConnKey>,
    closed: BTreeSet<ConnKey>,
    streams: u64,
}

impl RelayRig {
    fn feed(&mut self, event: relay::Event<'_>) {
        let mut actions = Vec::new();
        self.relay.handle(self.now, event, &mut actions);
        self.check(&actions);
    }

    fn check(&mut self, actions: &[relay::Action]) {
        use relay::Action;
        for action in actions {
            match action {
                Action::SendControl { conn, .. } => assert!(self.open(conn)),
                Action::OpenStream { conn, ticket } => {
                    assert!(self.open(conn));
                    assert!(!self.asks.contains(ticket), "a ticket is asked for once at a time");
                    self.asks.push(*ticket);
                }
                Action::Splice {
                    tunnel,
                    requester,
                    target,
                    ..
                } => {
                    assert!(self.open(&requester.0) && self.open(&target.0));
                    self.tunnels.push(*tunnel);
                }
                Action::DropStream { conn, .. } => assert!(self.open(conn)),
                Action::EndTunnel { tunnel, .. } => {
                    let index = self.tunnels.iter().position(|open| open == tunnel);
                    self.tunnels.remove(index.expect("a tunnel ends once"));
                }
                Action::CloseConnection { conn, .. } => {
                    assert!(self.open(conn));
                    self.closed.insert(*conn);
                }
                Action::Report(_) => {}
            }
        }
        let (status, limits) = (self.relay.status(), small_limits());
        assert_eq!(status.tunnels.len(), self.tunnels.len());
        for conn in &status.connections {
            assert!(conn.tunnels <= limits.tunnels_per_connection);
            assert!(conn.pending <= limits.pending_requests);
            assert!(conn.names.len() <= limits.names_per_connection);
        }
        let live: BTreeSet<_> = status.connections.iter().map(|status| status.conn).collect();
        let expected: BTreeSet<_> = self.conns.difference(&self.closed).copied().collect();
        assert_eq!(live, expected);
    }

    fn open(&self, conn: &ConnKey) -> bool {
        self.conns.contains(conn) && !self.closed.contains(conn)
    }

    fn lose(&mut self, conn: ConnKey) {
        self.closed.remove(&conn);
        self.conns.remove(&conn);
        self.feed(relay::Event::ConnectionLost { conn });
    }

    fn run(&mut self, op: &RelayOp) {
        let key = |conn: &u64| ConnKey(*conn);
        match op {
            RelayOp::Connected(conn) => {
                let remote = ([127, 0, 0, 1], 1).into();
                self.conns.insert(key(conn));
                self.feed(relay::Event::Connected {
                    conn: key(conn),
                    pin: None,
                    remote,
                });
            }
            RelayOp::Control(conn, bytes) => self.feed(relay::Event::ControlBytes { conn: key(conn), bytes }),
            RelayOp::Ended(conn, end) => self.feed(relay::Event::ControlEnded {
                conn: key(conn),
                end: *end,
            }),
            RelayOp::Stalled(conn) => self.feed(relay::Event::ControlStalled { conn: key(conn) }),
            RelayOp::Extra(conn) => self.feed(relay::Event::ExtraStream { conn: key(conn) }),
            RelayOp::Opened(index) if *index < self.asks.len() => {
                let ticket = self.asks.remove(*index);
                self.streams += 1;
                let stream = StreamKey(self.streams);
                self.feed(relay::Event::StreamOpened { ticket, stream });
            }
            RelayOp::Unavailable(index) if *index < self.asks.len() => {
                let ticket = self.asks.remove(*index);
                self.feed(relay::Event::StreamUnavailable { ticket });
            }
            RelayOp::Opened(_) | RelayOp::Unavailable(_) => {}
            RelayOp::Wild(ticket) => {
                let ticket = Ticket(*ticket);
                if !self.asks.contains(&ticket) {
                    self.feed(relay::Event::StreamUnavailable { ticket });
                }
            }
            RelayOp::Available(conn) => self.feed(relay::Event::StreamsAvailable { conn: key(conn) }),
            RelayOp::Over(index) => {
                let tunnel = if *index < self.tunnels.len() {
                    self.tunnels.remove(*index)
                } else {
                    TunnelKey(u64::MAX)
                };
                let bytes = TunnelBytes::default();
                self.feed(relay::Event::TunnelEnded {
                    tunnel,
                    end: SpliceEnd::Finished,
                    bytes,
                });
            }
            RelayOp::Close(conn, index) => {
                if let Some(status) = self.relay.status().tunnels.get(*index) {
                    let bytes = crate::mp(&Message::TunnelClose { tunnel: status.id });
                    self.feed(relay::Event::ControlBytes {
                        conn: key(conn),
                        bytes: &bytes,
                    });
                }
            }
            RelayOp::Lost(conn) => self.lose(key(conn)),
            RelayOp::Pass(time) => {
                self.now = self.now.after(ms(*time));
                self.feed(relay::Event::Timeout);
                assert!(self.relay.poll_timeout().is_none_or(|next| next > self.now.mono));
            }
            RelayOp::Drain => self.feed(relay::Event::Drain),
            RelayOp::Access(open) => {
                let mut rules = relay::AccessRules::default();
                if !open {
                    let rule = relay::NameRule {
                        pins: [[1; 32]].into(),
                        ..relay::NameRule::default()
                    };
                    rules.names.insert(Name::from("a"), rule);
                }
                let mut actions = Vec::new();
                self.relay.set_access(self.now, rules, &mut actions);
                self.check(&actions);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum SessionOp {
    Connected,
    Control(Vec<u8>),
    Ended(ControlEnd),
    Stalled,
    Arrived(u64),
    Prefix(u64, TunnelId),
    StreamLost(u64),
    Request(Vec<u8>),
    Cancel(u64),
    Done(u64, bool),
    Allow(Option<Vec<Vec<u8>>>),
    Pass(u64),
    Close,
}

fn session_op() -> impl Strategy<Value = SessionOp> {
    let stream = 0_u64..6;
    prop_oneof![
        2 => Just(SessionOp::Connected),
        20 => control().prop_map(SessionOp::Control),
        1 => control_end().prop_map(SessionOp::Ended),
        1 => Just(SessionOp::Stalled),
        8 => stream.clone().prop_map(SessionOp::Arrived),
        8 => (stream.clone(), id()).prop_map(|(stream, id)| SessionOp::Prefix(stream, id)),
        2 => stream.clone().prop_map(SessionOp::StreamLost),
        10 => name().prop_map(SessionOp::Request),
        4 => (0_u64..20).prop_map(SessionOp::Cancel),
        4 => (stream, any::<bool>()).prop_map(|(stream, finished)| SessionOp::Done(stream, finished)),
        2 => prop::option::of(vec(name(), 0..3)).prop_map(SessionOp::Allow),
        8 => (0_u64..9_000).prop_map(SessionOp::Pass),
        1 => Just(SessionOp::Close),
    ]
}

fn session_event(op: &SessionOp, next_request: &mut u64) -> session::Event<'static> {
    use session::Event;
    match op {
        SessionOp::Connected => Event::Connected,
        SessionOp::Ended(end) => Event::ControlEnded(*end),
        SessionOp::Stalled => Event::ControlStalled,
        SessionOp::Arrived(stream) => Event::StreamArrived {
            stream: StreamKey(*stream),
        },
        SessionOp::Prefix(stream, id) => Event::Prefix {
            stream: StreamKey(*stream),
            id: *id,
        },
        SessionOp::StreamLost(stream) => Event::StreamLost {
            stream: StreamKey(*stream),
        },
        SessionOp::Request(target) => {
            *next_request += 1;
            let request = RequestId(*next_request);
            Event::Request {
                request,
                target: Name::new(target),
            }
        }
        SessionOp::Cancel(request) => Event::Cancel {
            request: RequestId(*request),
        },
        SessionOp::Done(stream, finished) => Event::TunnelDone {
            stream: StreamKey(*stream),
            end: if *finished {
                TunnelEnd::Finished
            } else {
                TunnelEnd::Abandoned
            },
        },
        SessionOp::Allow(names) => {
            let names = names.as_ref();
            Event::AllowFrom(names.map(|names| names.iter().map(|name| Name::new(name)).collect()))
        }
        SessionOp::Close => Event::Close,
        SessionOp::Control(_) | SessionOp::Pass(_) => Event::Timeout,
    }
}

fn attempt() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0_i64), 1 => -2_i64..2]
}

#[derive(Debug, Clone)]
enum SupervisorOp {
    Start,
    Stop,
    Failed(i64),
    Connected(i64),
    Identified(i64),
    Lost(i64, Option<u64>),
    Pass(u64),
    Due,
}

fn supervisor_op() -> impl Strategy<Value = SupervisorOp> {
    prop_oneof![
        2 => Just(SupervisorOp::Start),
        1 => Just(SupervisorOp::Stop),
        4 => attempt().prop_map(SupervisorOp::Failed),
        6 => attempt().prop_map(SupervisorOp::Connected),
        6 => attempt().prop_map(SupervisorOp::Identified),
        4 => (attempt(), prop::option::of(0x100_u64..0x10B)).prop_map(|(at, code)| SupervisorOp::Lost(at, code)),
        4 => (0_u64..40_000).prop_map(SupervisorOp::Pass),
        8 => Just(SupervisorOp::Due),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_relay_survives_anything(ops in vec(relay_op(), 1..150), refuse in any::<bool>()) {
        let config = RelayConfig {
            takeover: if refuse { relay::Takeover::Refuse } else { relay::Takeover::Replace },
            limits: small_limits(),
            ..RelayConfig::default()
        };
        let mut rig = RelayRig {
            relay: Relay::new(config, Rng::from_seed(1)),
            now: start(),
            asks: Vec::new(),
            tunnels: Vec::new(),
            conns: BTreeSet::new(),
            closed: BTreeSet::new(),
            streams: 0,
        };
        for op in &ops {
            rig.run(op);
        }
        for conn in rig.conns.clone() {
            rig.lose(conn);
        }
        prop_assert!(rig.relay.is_empty(), "{:?}", rig.relay);
        prop_assert!(rig.tunnels.is_empty());
    }

    #[test]
    fn a_session_survives_anything(ops in vec(session_op(), 1..150)) {
        let mut config = SessionConfig::new(Name::from("a"));
        config.limits = small_limits();
        let mut session = Session::new(config).expect("a good name");
        let (mut now, mut next_request) = (start(), 0);
        let (mut outcomes, mut handed_out) = (BTreeSet::new(), 0_usize);
        let last = [SessionOp::Close];
        for op in ops.iter().chain(&last) {
            let mut actions = Vec::new();
            if let SessionOp::Control(bytes) = op {
                session.handle(now, session::Event::ControlBytes(bytes), &mut actions);
            } else {
                if let SessionOp::Pass(time) = op {
                    now = now.after(ms(*time));
                }
                let event = session_event(op, &mut next_request);
                session.handle(now, event, &mut actions);
            }
            if matches!(op, SessionOp::Pass(_)) {
                prop_assert!(session.poll_timeout().is_none_or(|next| next > now.mono));
            }
            for action in &actions {
                match action {
                    session::Action::Opened { request, .. } | session::Action::RequestFailed { request, .. } => {
                        prop_assert!(outcomes.insert(*request), "one outcome for {:?}", request);
                    }
                    _ => {}
                }
                let out = matches!(action, session::Action::Opened { .. } | session::Action::Incoming { .. });
                handed_out += usize::from(out);
            }
            let (status, limits) = (session.status(), small_limits());
            prop_assert!(status.unidentified_streams <= limits.orphan_streams);
            prop_assert!(status.pending_inbound <= limits.orphan_streams);
            prop_assert!(status.pending_outbound <= limits.pending_requests);
            prop_assert!(status.active_tunnels <= handed_out);
        }
        prop_assert_eq!(outcomes.len() as u64, next_request, "every request has an outcome");
        prop_assert!(session.is_empty(), "{:?}", session);
    }

    #[test]
    fn a_supervisor_survives_anything(ops in vec(supervisor_op(), 1..150), relays in 1_usize..4) {
        let relays = NonZeroUsize::new(relays).expect("at least one");
        let mut supervisor = Supervisor::new(SupervisorConfig::default(), relays, Rng::from_seed(1));
        let (mut now, mut live) = (start(), None);
        let mut last = 0;
        for op in &ops {
            let current = |offset: &i64| Attempt(u64::try_from(i64::try_from(last).unwrap_or(0) + offset).unwrap_or(999));
            let event = match op {
                SupervisorOp::Start => supervisor::Event::Start,
                SupervisorOp::Stop => supervisor::Event::Stop,
                SupervisorOp::Failed(at) => supervisor::Event::DialFailed { attempt: current(at) },
                SupervisorOp::Connected(at) => supervisor::Event::Connected { attempt: current(at) },
                SupervisorOp::Identified(at) => supervisor::Event::Identified { attempt: current(at) },
                SupervisorOp::Lost(at, code) => supervisor::Event::Lost {
                    attempt: current(at),
                    code: code.and_then(Code::new),
                },
                SupervisorOp::Pass(time) => {
                    now = now.after(ms(*time));
                    supervisor::Event::Timeout
                }
                SupervisorOp::Due => {
                    let due = supervisor.poll_timeout().unwrap_or(now.mono);
                    now = now.after(due.saturating_duration_since(now.mono));
                    supervisor::Event::Timeout
                }
            };
            let mut actions = Vec::new();
            supervisor.handle(now, event, &mut actions);
            match event {
                supervisor::Event::DialFailed { attempt } | supervisor::Event::Lost { attempt, .. }
                    if live == Some(attempt) && actions.iter().any(is_down) => live = None,
                _ => {}
            }
            for action in &actions {
                match action {
                    supervisor::Action::Dial { relay, attempt } => {
                        prop_assert!(relay.0 < relays.get());
                        prop_assert_eq!(live, None, "one attempt at a time");
                        live = Some(*attempt);
                        last = attempt.0;
                    }
                    supervisor::Action::AbandonDial { attempt, .. } => {
                        prop_assert_eq!(live, Some(*attempt));
                        live = None;
                    }
                    supervisor::Action::Report(_) => {}
                }
            }
            let stopped = supervisor.status() == supervisor::SupervisorStatus::Stopped;
            prop_assert_eq!(supervisor.poll_timeout().is_none(), stopped, "every state but one has a deadline");
            if event == supervisor::Event::Timeout {
                prop_assert!(supervisor.poll_timeout().is_none_or(|next| next > now.mono));
            }
        }
    }
}

fn is_down(action: &supervisor::Action) -> bool {
    matches!(action, supervisor::Action::Report(supervisor::Report::Down { .. }))
}
