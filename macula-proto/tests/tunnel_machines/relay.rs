//! What the relay machine does, case by case.

use std::time::Duration;

use macula_proto::{
    Code, Limits, Now, Rng,
    tunnel::{
        ConnKey, Name, StreamKey,
        relay::{
            AccessRules, Action, DefaultAccess, Event, NameRule, NodeLimits, Rates, Refusal, Relay, RelayConfig,
            Report, Ticket,
        },
    },
    wire::{Encoding, control::Message},
};

use crate::{encode, garbage, identify, mp, ms, request, show, start};

const A: ConnKey = ConnKey(0);
const B: ConnKey = ConnKey(1);
const C: ConnKey = ConnKey(2);

struct Rig {
    relay: Relay,
    now: Now,
    next_stream: u64,
}

impl Rig {
    fn new(config: RelayConfig) -> Self {
        Self {
            relay: Relay::new(config, Rng::from_seed(3)),
            now: start(),
            next_stream: 0,
        }
    }

    fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut config = RelayConfig::default();
        change(&mut config.limits);
        Self::new(config)
    }

    fn feed(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.relay.handle(self.now, event, &mut actions);
        actions
    }

    fn connect(&mut self, conn: ConnKey, pin: Option<[u8; 32]>) {
        let remote = ([127, 0, 0, 1], 9).into();
        self.feed(Event::Connected { conn, pin, remote });
    }

    fn bytes(&mut self, conn: ConnKey, bytes: &[u8]) -> Vec<Action> {
        self.feed(Event::ControlBytes { conn, bytes })
    }

    fn say(&mut self, conn: ConnKey, message: &Message) -> Vec<Action> {
        self.bytes(conn, &mp(message))
    }

    /// Says it and shows what comes of it.
    fn show(&mut self, conn: ConnKey, message: &Message) -> String {
        show::relay(&self.say(conn, message))
    }

    fn join(&mut self, conn: ConnKey, name: &str) {
        self.connect(conn, None);
        self.say(conn, &identify(name));
    }

    fn answer(&mut self, ticket: Ticket) -> Vec<Action> {
        self.next_stream += 1;
        let stream = StreamKey(self.next_stream);
        self.feed(Event::StreamOpened { ticket, stream })
    }

    /// Asks for a tunnel and opens both of its streams.
    fn open(&mut self, conn: ConnKey, target: &str) -> Vec<Action> {
        let mut last = self.say(conn, &request(target));
        while let Some(&ticket) = tickets(&last).first() {
            last = self.answer(ticket);
        }
        last
    }

    fn advance(&mut self, by: Duration) -> Vec<Action> {
        self.now = self.now.after(by);
        self.feed(Event::Timeout)
    }
}

fn tickets(actions: &[Action]) -> Vec<Ticket> {
    let ticket = |action: &Action| match action {
        Action::OpenStream { ticket, .. } => Some(*ticket),
        _ => None,
    };
    actions.iter().filter_map(ticket).collect()
}

#[test]
fn a_client_has_exactly_the_identify_time() {
    let mut rig = Rig::with_limits(|_| {});
    rig.connect(A, None);
    assert_eq!(rig.relay.poll_timeout(), Some(rig.now.mono + ms(10_000)));
    assert_eq!(show::relay(&rig.advance(ms(9_999))), "-");
    assert_eq!(show::relay(&rig.advance(ms(1))), "A.close timeout, [A closed]");
    assert_eq!(rig.relay.poll_timeout(), None);
    assert_eq!(rig.relay.stats().identify_timeouts, 1);

    rig.join(B, "bob");
    assert_eq!(
        rig.relay.poll_timeout(),
        None,
        "nothing is due for a client that has identified"
    );
}

#[test]
fn the_first_message_fixes_the_encoding() {
    let mut rig = Rig::with_limits(|_| {});
    rig.connect(A, None);
    // A client that tries MessagePack and then CBOR gets both answers in the encoding that was read first.
    let both = [mp(&identify("alice")), encode(&identify("alice"), Encoding::Cbor)].concat();
    let actions = rig.bytes(A, &both);
    assert_eq!(show::relay(&actions), "[A=alice], A<id_ok, A<id_ok");
    rig.connect(B, None);
    let actions = rig.bytes(B, &encode(&identify("bob"), Encoding::Cbor));
    assert_eq!(show::relay(&actions), "[B=bob], B<cbor:id_ok");
    // Each connection is answered in its own.
    let shown = show::relay(&rig.open(A, "bob"));
    assert!(shown.contains("B<cbor:tun_notify(alice), A<tun_ok"), "{shown}");
}

#[test]
fn messages_may_come_in_any_pieces() {
    let mut rig = Rig::with_limits(|_| {});
    rig.connect(A, None);
    let bytes = [mp(&identify("alice")), mp(&request("nobody")), mp(&identify("alias"))].concat();
    let mut actions = Vec::new();
    for byte in &bytes {
        actions.extend(rig.bytes(A, std::slice::from_ref(byte)));
    }
    let expected = "[A=alice], A<id_ok, [A refused target_not_connected], A<tun_err(target_not_connected), [A=alias], \
                    A<id_ok";
    assert_eq!(show::relay(&actions), expected);
}

#[test]
fn malformed_messages_are_skipped_up_to_the_limit() {
    let mut rig = Rig::with_limits(|limits| limits.control_malformed = 3);
    rig.join(A, "alice");
    for _ in 0..3 {
        let bytes = [garbage(), mp(&request("nobody"))].concat();
        let shown = show::relay(&rig.bytes(A, &bytes));
        assert!(
            shown.ends_with("A<tun_err(target_not_connected)"),
            "later messages count: {shown}"
        );
    }
    let bytes = [garbage(), mp(&request("nobody"))].concat();
    assert_eq!(show::relay(&rig.bytes(A, &bytes)), "A.close protocol, [A closed]");
    assert_eq!(rig.relay.stats().malformed, 4);
}

#[test]
fn a_connection_may_hold_several_names() {
    let mut rig = Rig::with_limits(|limits| limits.names_per_connection = 2);
    rig.join(A, "alice");
    rig.join(B, "bob");
    rig.say(A, &identify("alias"));
    // Requests come from the name that was said last.
    assert!(show::relay(&rig.open(A, "bob")).contains("B<tun_notify(alias)"));
    rig.say(A, &identify("alice"));
    assert!(show::relay(&rig.open(A, "bob")).contains("B<tun_notify(alice)"));
    assert!(show::relay(&rig.open(B, "alias")).contains("A<tun_notify(bob)"));
    let names = rig.relay.status().names;
    let names: Vec<_> = names
        .iter()
        .map(|status| (status.name.to_string(), status.tunnels))
        .collect();
    assert_eq!(
        names,
        [("alias".to_owned(), 2), ("alice".to_owned(), 1), ("bob".to_owned(), 3)]
    );

    let shown = rig.show(A, &identify("third"));
    assert!(shown.starts_with("[A!=third], A.close limit"), "{shown}");
    assert_eq!(
        rig.relay.status().names.len(),
        1,
        "all names of a connection go with it"
    );
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let mut rig = Rig::with_limits(|_| {});
    rig.join(A, "alice");
    rig.join(B, "bob");
    let first = tickets(&rig.say(A, &request("bob")));
    let second = tickets(&rig.say(A, &request("bob")));
    assert_eq!(rig.show(A, &request("nobody")), "[A refused target_not_connected]");
    let to_bob = tickets(&rig.answer(second[0]));
    // The second tunnel works already, and its target knows.
    let shown = show::relay(&rig.answer(to_bob[0]));
    assert_eq!(shown, "splice A1-B2, [alice>bob], B<tun_notify(alice)");
    let to_bob = tickets(&rig.answer(first[0]));
    let shown = show::relay(&rig.answer(to_bob[0]));
    let expected =
        "splice A3-B4, [alice>bob], B<tun_notify(alice), A<tun_ok, A<tun_ok, A<tun_err(target_not_connected)";
    assert_eq!(shown, expected);
}

#[test]
fn a_flood_of_requests_is_answered_busy_and_bounded() {
    let mut rig = Rig::with_limits(|limits| (limits.control_burst, limits.control_rate) = (10, 5));
    rig.join(A, "alice");
    let unknown = "[A refused target_not_connected], A<tun_err(target_not_connected)";
    let busy = "[A refused busy], A<tun_err(busy)";
    for _ in 0..9 {
        assert_eq!(rig.show(A, &request("nobody")), unknown);
    }
    assert_eq!(rig.show(A, &request("nobody")), busy);
    rig.advance(ms(199));
    assert_eq!(rig.show(A, &request("nobody")), busy);
    rig.advance(ms(1));
    assert_eq!(rig.show(A, &request("nobody")), unknown, "five a second come back");
    assert_eq!(rig.show(A, &request("nobody")), busy);
    assert_eq!(rig.relay.stats().rate_limited, 3);
    // Other messages have no answer that says so.
    assert_eq!(rig.show(A, &identify("alice")), "A.close limit, [A closed]");
}

#[test]
fn answers_that_wait_do_not_pile_up() {
    let mut rig = Rig::with_limits(|limits| (limits.control_burst, limits.pending_requests) = (20, 4));
    rig.join(A, "alice");
    rig.join(B, "bob");
    rig.say(A, &request("bob"));
    for _ in 1..24 {
        let shown = rig.show(A, &request("nobody"));
        assert!(!shown.contains("A<"), "behind the one that waits: {shown}");
    }
    assert_eq!(rig.show(A, &request("nobody")), "A.close limit, [A closed]");
}

#[test]
fn requests_and_tunnels_are_capped() {
    let mut rig = Rig::with_limits(|limits| (limits.pending_requests, limits.tunnels_per_connection) = (2, 3));
    for (conn, name) in [(A, "alice"), (B, "bob"), (C, "carol")] {
        rig.join(conn, name);
    }
    let waiting = tickets(&rig.say(A, &request("bob")));
    rig.say(A, &request("carol"));
    assert_eq!(rig.show(A, &request("bob")), "[A refused busy]", "two requests wait");
    assert_eq!(rig.relay.status().connections[0].pending, 2);
    let to_bob = tickets(&rig.answer(waiting[0]));
    rig.answer(to_bob[0]);
    assert_eq!(
        rig.relay.status().connections[0].pending,
        1,
        "one of them is a tunnel now"
    );
    rig.open(C, "bob");
    rig.open(C, "bob");
    assert_eq!(
        rig.show(C, &request("bob")),
        "[C refused busy], C<tun_err(busy)",
        "bob has three tunnels"
    );
    assert_eq!(rig.relay.stats().refused[Refusal::Busy as usize], 2);
}

#[test]
fn extra_streams_have_a_budget() {
    let mut rig = Rig::with_limits(|limits| limits.extra_streams = 2);
    rig.join(A, "alice");
    for _ in 0..2 {
        assert_eq!(show::relay(&rig.feed(Event::ExtraStream { conn: A })), "-");
    }
    assert_eq!(
        show::relay(&rig.feed(Event::ExtraStream { conn: A })),
        "A.close limit, [A closed]"
    );
    assert_eq!(rig.relay.stats().extra_streams, 3);
}

#[test]
fn a_stranger_cannot_close_a_tunnel() {
    let mut rig = Rig::with_limits(|_| {});
    for (conn, name) in [(A, "alice"), (B, "bob"), (C, "carol")] {
        rig.join(conn, name);
    }
    rig.open(A, "bob");
    let tunnel = rig.relay.status().tunnels[0].id;
    assert_eq!(rig.show(C, &Message::TunnelClose { tunnel }), "-");
    assert_eq!(rig.relay.stats().stray_closes, 1);
    assert_eq!(
        rig.show(B, &Message::TunnelClose { tunnel }),
        "end closed, [over ClosedByTarget]"
    );
    assert_eq!(
        rig.show(A, &Message::TunnelClose { tunnel }),
        "-",
        "both ends close at the same time"
    );
}

#[test]
fn waiting_requests_get_streams_in_their_order_one_at_a_time() {
    let mut rig = Rig::with_limits(|_| {});
    rig.join(A, "alice");
    rig.join(B, "bob");
    let mut to_bob = Vec::new();
    for _ in 0..3 {
        let own = tickets(&rig.say(A, &request("bob")));
        // The first is refused; the others queue behind it without asking.
        if let [ticket] = tickets(&rig.answer(own[0]))[..] {
            to_bob.push(ticket);
            rig.feed(Event::StreamUnavailable { ticket });
        }
    }
    assert_eq!(to_bob.len(), 1);
    let retried = tickets(&rig.feed(Event::StreamsAvailable { conn: B }));
    assert_eq!(retried, to_bob);
    assert!(
        rig.feed(Event::StreamsAvailable { conn: B }).is_empty(),
        "one retry at a time"
    );
    // Both grants count, though the second came while the first was being used.
    let actions = rig.answer(retried[0]);
    assert_eq!(
        show::relay(&actions),
        "splice A1-B4, [alice>bob], B<tun_notify(alice), A<tun_ok, B.open"
    );
    let second = tickets(&actions)[0];
    let again = tickets(&rig.feed(Event::StreamUnavailable { ticket: second }));
    assert_eq!(again, [second], "the refusal may be older than the second grant");
    assert!(
        rig.feed(Event::StreamUnavailable { ticket: second }).is_empty(),
        "but the next one is not"
    );
}

#[test]
fn a_stream_that_comes_too_late_is_dropped() {
    let mut rig = Rig::with_limits(|_| {});
    rig.join(A, "alice");
    rig.join(B, "bob");
    let own = tickets(&rig.say(A, &request("bob")));
    let to_bob = tickets(&rig.answer(own[0]));
    assert_eq!(show::relay(&rig.advance(ms(4_999))), "-");
    let shown = show::relay(&rig.advance(ms(1)));
    assert_eq!(
        shown,
        "A.drop1 cancelled, [A refused stream_limit], A<tun_err(stream_limit)"
    );
    assert_eq!(show::relay(&rig.answer(to_bob[0])), "B.drop2 cancelled");
}

fn guarded() -> AccessRules {
    let pin = |byte: u8| [byte; 32];
    let mut rules = AccessRules {
        default: DefaultAccess::Closed,
        ..AccessRules::default()
    };
    let bob = NameRule {
        pins: [pin(1), pin(2)].into(),
        allow_from: Some([Name::from("alice")].into()),
        limits: Some(NodeLimits {
            tunnels: Some(1),
            bytes_per_second: Some(1_000),
        }),
    };
    rules.names.insert(Name::from("bob"), bob);
    rules.names.insert(Name::from("alice"), NameRule::default());
    rules.names.insert(Name::from("carol"), NameRule::default());
    rules
}

#[test]
fn access_rules_bind_names_to_pins_and_sources() {
    let mut rig = Rig::new(RelayConfig {
        access: guarded(),
        ..RelayConfig::default()
    });
    for pin in [None, Some([3; 32])] {
        let conn = ConnKey(10 + u64::from(pin.is_some()));
        rig.connect(conn, pin);
        let shown = rig.show(conn, &identify("bob"));
        assert!(shown.contains("close not_allowed"), "{shown}");
    }
    rig.connect(B, Some([2; 32]));
    assert_eq!(rig.show(B, &identify("bob")), "[B=bob], B<id_ok");
    rig.connect(ConnKey(12), None);
    let shown = rig.show(ConnKey(12), &identify("mallory"));
    assert!(
        shown.contains("close not_allowed"),
        "names without a rule are closed: {shown}"
    );

    rig.join(A, "alice");
    rig.join(C, "carol");
    let refused = "[C refused not_allowed], C<tun_err(not_allowed)";
    assert_eq!(rig.show(C, &request("bob")), refused);
    assert_eq!(
        rig.show(C, &request("nobody")),
        refused,
        "says nothing about who is there"
    );
    let actions = rig.open(A, "bob");
    let rates = actions.iter().find_map(|action| match action {
        Action::Splice { rates, .. } => Some(*rates),
        _ => None,
    });
    let expected = Rates {
        requester: None,
        target: Some(1_000),
    };
    assert_eq!(rates, Some(expected));
    assert_eq!(
        rig.show(A, &request("bob")),
        "[A refused busy], A<tun_err(busy)",
        "one tunnel for bob"
    );
}

#[test]
fn new_access_rules_apply_to_those_who_are_there() {
    let mut rig = Rig::with_limits(|_| {});
    rig.connect(B, Some([9; 32]));
    rig.say(B, &identify("bob"));
    rig.join(A, "alice");
    rig.open(A, "bob");
    let mut actions = Vec::new();
    rig.relay.set_access(rig.now, guarded(), &mut actions);
    assert_eq!(
        show::relay(&actions),
        "B.close not_allowed, end peer_gone, [over PeerGone], [B closed]"
    );
    assert_eq!(rig.relay.status().names.len(), 1);
}

#[test]
fn general_node_limits_count_both_ends() {
    let mut rig = Rig::new(RelayConfig {
        node_limits: NodeLimits {
            tunnels: Some(2),
            bytes_per_second: Some(7),
        },
        ..RelayConfig::default()
    });
    rig.join(A, "alice");
    rig.join(B, "bob");
    rig.open(A, "bob");
    rig.open(A, "alice");
    assert_eq!(rig.show(A, &request("alice")), "[A refused busy], A<tun_err(busy)");
    assert_eq!(rig.show(B, &request("alice")), "[B refused busy], B<tun_err(busy)");
    let tunnel = rig.relay.status().tunnels[1].id;
    rig.say(A, &Message::TunnelClose { tunnel });
    assert_eq!(rig.show(B, &request("alice")), "B.open");
}

#[test]
fn draining_lets_tunnels_run_on() {
    let mut rig = Rig::with_limits(|_| {});
    for (conn, name) in [(A, "alice"), (B, "bob"), (C, "carol")] {
        rig.join(conn, name);
    }
    rig.open(A, "bob");
    let drained = show::relay(&rig.feed(Event::Drain));
    assert_eq!(
        drained, "[draining], C.close draining, [C closed]",
        "who has no tunnel may go at once"
    );
    assert_eq!(
        rig.show(A, &request("bob")),
        "[A refused draining], A<tun_err(draining)"
    );
    let late = ConnKey(5);
    let remote = ([127, 0, 0, 1], 9).into();
    let actions = rig.feed(Event::Connected {
        conn: late,
        pin: None,
        remote,
    });
    assert!(actions.contains(&Action::CloseConnection {
        conn: late,
        code: Code::DRAINING,
        reason: "draining",
    }));
    let tunnel = rig.relay.status().tunnels[0].id;
    let shown = rig.show(A, &Message::TunnelClose { tunnel });
    assert_eq!(
        shown, "end closed, [over ClosedBySource]",
        "its bytes may not have been read yet"
    );
    assert_eq!(rig.relay.poll_timeout(), Some(rig.now.mono + ms(1000)));
    let left = show::relay(&rig.advance(ms(1000)));
    let expected = "A.close draining, [A closed], B.close draining, [B closed], [drained]";
    assert_eq!(left, expected);
}

#[test]
fn a_relay_without_clients_is_drained_at_once() {
    let mut rig = Rig::with_limits(|_| {});
    assert_eq!(show::relay(&rig.feed(Event::Drain)), "[draining], [drained]");
    assert_eq!(show::relay(&rig.feed(Event::Drain)), "-");
}

#[test]
fn crowds_are_told_apart() {
    // Many names and tunnels at once: the books balance, and the status is sorted.
    let mut rig = Rig::with_limits(|_| {});
    for index in 0..200 {
        rig.join(ConnKey(index), &format!("node{:03}", 199 - index));
    }
    for index in 0..200 {
        rig.open(ConnKey(index), &format!("node{:03}", (index * 7) % 200));
    }
    let status = rig.relay.status();
    assert!(status.names.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(status.tunnels.len(), 200);
    let ends: usize = status.names.iter().map(|name| name.tunnels).sum();
    let selves = status
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.source == tunnel.target)
        .count();
    assert_eq!(ends, 400 - selves);
    for index in 0..200 {
        rig.feed(Event::ConnectionLost { conn: ConnKey(index) });
    }
    assert!(rig.relay.is_empty());
}

#[test]
fn what_is_reported_names_the_parties() {
    let mut rig = Rig::with_limits(|_| {});
    rig.join(A, "alice");
    let actions = rig.say(A, &request(&"x".repeat(300)));
    let report = Report::RequestRefused {
        conn: A,
        source: Some(Name::from("alice")),
        target: Name::new(&[b'x'; 255]),
        why: Refusal::BadRequest,
    };
    assert_eq!(actions[0], Action::Report(report));
    let gone = rig.feed(Event::ConnectionLost { conn: A });
    let report = Report::Disconnected {
        conn: A,
        names: vec![Name::from("alice")],
        closed: None,
    };
    assert_eq!(gone, [Action::Report(report)]);
}
