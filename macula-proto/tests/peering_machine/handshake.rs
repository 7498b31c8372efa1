//! What CONNECT and HELLO have to satisfy, and what becomes of those that do not.

use macula_proto::{
    Now,
    identity::NodeId,
    peering::{Action, BindingMode, Connected, Event, PeeringConfig, RealmRule, Refusal, Role, binding},
    wire::{
        DecodeLimits, Value,
        frame::{Body, DecodedFrame, Frame, Header, Id32, RawFrame, Unknown},
    },
};

use crate::{
    EXPORTER, config, connect_of, ended, feed, frames, header, hello_of, machine, ms, node, ping, pull, received, show,
    signed, start,
};

/// What an acceptor or dialler of this configuration makes of the other end's first frame, a good one being let in.
fn introduced(role: Role, config: PeeringConfig, now: Now, first: &RawFrame) -> Vec<Action> {
    introduced_with(role, config, now, first, Some(EXPORTER))
}

fn introduced_with(
    role: Role,
    config: PeeringConfig,
    now: Now,
    first: &RawFrame,
    exporter: Option<[u8; 32]>,
) -> Vec<Action> {
    let mut peering = machine(role, config);
    feed(&mut peering, now, Event::Start { exporter });
    feed(&mut peering, now, Event::StreamOpened);
    pull(&mut peering, &mut Vec::new());
    let mut actions = feed(&mut peering, now, received(first));
    if matches!(actions[..], [Action::Authorize { .. }]) {
        actions.extend(feed(&mut peering, now, Event::Admit));
    }
    let sent = pull(&mut peering, &mut actions);
    // An acceptor that refuses says so, and waits.
    if ended(&actions).is_none() && !peering.is_connected() {
        let hello = &frames(&sent)[0].frame;
        let Body::Hello(hello) = &hello.body else {
            panic!("{hello:?}");
        };
        assert!(!hello.accepted && hello.refusal_code.is_some());
        assert!(actions.contains(&Action::FinishStream));
        let lost = Event::ConnectionLost(macula_proto::peering::TransportError::Closed);
        actions.extend(feed(&mut peering, now, lost));
    }
    actions
}

/// A frame of this type and these fields, signed by a node; fields given here come instead of the type's own.
fn odd(body: Body, changes: &[(&str, Option<Value>)], signer: u8, now: Now) -> RawFrame {
    let whole = Frame::new(header(now), body).encode_unsigned().expect("encodes");
    let mut fields = whole.fields(&DecodeLimits::DEFAULT);
    for (name, value) in changes {
        fields.retain(|(key, _)| key.as_text() != Some(name));
        fields.extend(value.clone().map(|value| (Value::text(name), value)));
    }
    let mut encoded = bytes::BytesMut::new();
    macula_proto::wire::cbor::det::encode(&Value::Map(fields), &mut encoded).expect("encodes");
    let decoded = DecodedFrame::decode(encoded.freeze(), &DecodeLimits::DEFAULT).expect("a frame");
    decoded.raw.signed(&node(signer)).expect("short enough")
}

fn connection(actions: &[Action]) -> &Connected {
    let found = actions.iter().find_map(|action| match action {
        Action::Connected(connected) => Some(connected),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{}", show::actions(actions)))
}

/// Both roles' first frames with the same changes, and both ends' verdicts.
fn both(changes: &[(&str, Option<Value>)], options: impl Fn(&mut PeeringConfig)) -> (String, String) {
    let now = start();
    let verdict = |role, body, signer| {
        let mut config = config(role);
        options(&mut config);
        let actions = introduced(role, config, now, &odd(body, changes, signer, now));
        ended(&actions).unwrap_or_else(|| "connected".to_owned())
    };
    (
        verdict(Role::Acceptor, connect_of(1).into(), 1),
        verdict(Role::Dialler, hello_of(2).into(), 2),
    )
}

#[track_caller]
fn refused(changes: &[(&str, Option<Value>)], why: &str) {
    let (acceptor, dialler) = both(changes, |_| ());
    assert_eq!(acceptor, format!("connect_verify_failed({why})"));
    assert_eq!(dialler, format!("hello_verify_failed({why})"));
}

#[track_caller]
fn taken(changes: &[(&str, Option<Value>)]) {
    let (acceptor, dialler) = both(changes, |_| ());
    assert_eq!((&acceptor[..], &dialler[..]), ("connected", "connected"), "{changes:?}");
}

#[test]
fn the_version_is_two() {
    refused(&[("version", Some(Value::Uint(3)))], "version 3 instead of 2");
    refused(&[("version", None)], "no version");
    refused(&[("version", Some(Value::text("2")))], "no version");
}

#[test]
fn node_and_station_have_32_bytes() {
    refused(&[("node_id", None)], "field node_id: missing");
    refused(
        &[("node_id", Some(Value::bytes([7; 31])))],
        "field node_id: of another length",
    );
    refused(&[("station_id", None)], "field station_id: missing");
    refused(
        &[("station_id", Some(Value::Null))],
        "field station_id: of another type",
    );
}

#[test]
fn a_node_id_is_a_key() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    refused(
        &[("node_id", Some(Value::bytes(neutral)))],
        "the node id is no usable key",
    );
}

#[test]
fn the_signature_is_that_of_the_node_inside() {
    let other = node(3).node_id();
    refused(&[("node_id", Some(Value::bytes(other)))], "signature_invalid");
    refused(
        &[("signature", Some(Value::bytes([0; 63])))],
        "the signature is not 64 bytes",
    );
    let now = start();
    let unsigned = Frame::new(header(now), connect_of(1))
        .encode_unsigned()
        .expect("encodes");
    let actions = introduced(Role::Acceptor, config(Role::Acceptor), now, &unsigned);
    assert_eq!(
        ended(&actions).as_deref(),
        Some("connect_verify_failed(there is no signature)")
    );
}

#[test]
fn nothing_else_has_to_fit() {
    taken(&[
        ("frame_id", None),
        ("sent_at_ms", None),
        ("capabilities", None),
        ("realm", None),
    ]);
    taken(&[
        ("realms", Some(Value::text("all"))),
        ("addresses", None),
        ("site", Some(Value::Uint(1))),
    ]);
    taken(&[
        ("puzzle_evidence", None),
        ("endorsements", None),
        ("negotiated_capabilities", None),
    ]);
    taken(&[("later", Some(Value::Map(vec![])))]);
    taken(&[("sent_at_ms", Some(Value::Uint(0)))]);
}

#[test]
fn hello_says_whether_it_accepts() {
    let (_, dialler) = both(&[("accepted", None)], |_| ());
    assert_eq!(dialler, "hello_verify_failed(field accepted: missing)");
    let (_, dialler) = both(&[("accepted", Some(Value::text("perhaps")))], |_| ());
    assert_eq!(dialler, "hello_verify_failed(field accepted: out of range)");
    let refusing = ("accepted", Some(Value::text("false")));
    let (_, dialler) = both(&[refusing.clone(), ("refusal_code", Some(Value::Uint(7)))], |_| ());
    assert_eq!(dialler, "refused(7)");
    let (_, dialler) = both(&[refusing], |_| ());
    assert_eq!(dialler, "refused");
}

#[test]
fn wrong_puzzle_evidence_is_counted_and_refused_only_when_asked_for() {
    let now = start();
    let mut peering = machine(Role::Acceptor, config(Role::Acceptor));
    feed(&mut peering, now, Event::Start { exporter: None });
    let wrong = odd(
        connect_of(1).into(),
        &[("puzzle_evidence", Some(Value::bytes([0; 32])))],
        1,
        now,
    );
    let actions = feed(&mut peering, now, received(&wrong));
    assert_eq!(show::actions(&actions), "authorize n1");
    assert_eq!(peering.stats().wrong_puzzle_evidence, 1);

    let (acceptor, dialler) = both(&[], |config| config.puzzle_difficulty = Some(20));
    assert_eq!(acceptor, "not_admitted(puzzle)");
    assert_eq!(dialler, "hello_verify_failed(puzzle)");
    let (acceptor, dialler) = both(&[], |config| config.puzzle_difficulty = Some(0));
    assert_eq!((&acceptor[..], &dialler[..]), ("connected", "connected"));
}

#[test]
fn clock_skew_is_bounded_when_asked_for() {
    let sent = |by: i64| [("sent_at_ms", Some(Value::from(start().unix_ms as i64 + by)))];
    for (by, good) in [(0, true), (-5000, true), (5000, true), (-5001, false), (5001, false)] {
        let (acceptor, dialler) = both(&sent(by), |config| config.clock_skew = Some(ms(5000)));
        if good {
            assert_eq!((&acceptor[..], &dialler[..]), ("connected", "connected"), "{by}");
        } else {
            assert_eq!(acceptor, "not_admitted(clock_skew)", "{by}");
            assert_eq!(dialler, "hello_verify_failed(clock_skew)", "{by}");
        }
    }
    let (acceptor, _) = both(&[("sent_at_ms", None)], |config| config.clock_skew = Some(ms(5000)));
    assert_eq!(acceptor, "not_admitted(clock_skew)");
}

#[test]
fn a_realm_is_shared_when_asked_for() {
    let realms = |realms: &[u8]| {
        let realms = realms.iter().map(|realm| Value::bytes([*realm; 32])).collect();
        [("realms", Some(Value::Array(realms)))]
    };
    let options = |config: &mut PeeringConfig| {
        config.realms = vec![Id32([1; 32]), Id32([2; 32])];
        config.realm_rule = RealmRule::Shared;
    };
    let (acceptor, dialler) = both(&realms(&[3, 2]), options);
    assert_eq!((&acceptor[..], &dialler[..]), ("connected", "connected"));
    for other in [&[3][..], &[]] {
        let (acceptor, dialler) = both(&realms(other), options);
        assert_eq!(acceptor, "not_admitted(realm)");
        assert_eq!(dialler, "hello_verify_failed(no shared realm)");
    }
}

#[test]
fn a_dialler_takes_only_the_peer_it_expects() {
    let now = start();
    let hello = signed(hello_of(2).into(), 2, now);
    for (expected, end) in [(2, None), (3, Some("unexpected peer"))] {
        let mut config = config(Role::Dialler);
        config.expected_peer = Some(node(expected).node_id());
        let actions = introduced(Role::Dialler, config, now, &hello);
        assert_eq!(
            ended(&actions).is_some_and(|why| why.contains("unexpected peer")),
            end.is_some()
        );
    }
}

#[test]
fn capabilities_are_what_both_can_do() {
    let now = start();
    let connect = Frame::new(header(now).with_capabilities(0b1100), connect_of(1));
    let connect = connect.sign(&node(1)).expect("encodes");
    let mut config = config(Role::Acceptor);
    config.capabilities = 0b1010;
    let mut peering = machine(Role::Acceptor, config);
    feed(&mut peering, now, Event::Start { exporter: None });
    feed(&mut peering, now, received(&connect));
    let mut actions = feed(&mut peering, now, Event::Admit);
    assert_eq!(connection(&actions).capabilities, 0b1000);
    let sent = frames(&pull(&mut peering, &mut actions));
    assert_eq!(sent[0].frame.header.capabilities, 0b1010);
    let Body::Hello(hello) = &sent[0].frame.body else {
        panic!("{:?}", sent[0]);
    };
    assert_eq!((hello.accepted, hello.negotiated_capabilities), (true, 0b1000));

    // A deployed acceptor writes all it can do.
    let mut hello = hello_of(2);
    hello.negotiated_capabilities = 0b0110;
    let mut config = crate::config(Role::Dialler);
    config.capabilities = 0b1010;
    let actions = introduced(Role::Dialler, config, now, &signed(hello.into(), 2, now));
    assert_eq!(connection(&actions).capabilities, 0b0010);
}

#[test]
fn what_a_node_says_about_itself_arrives() {
    let now = start();
    let mut config = config(Role::Dialler);
    config.realms = vec![Id32([1; 32])];
    config.station_id = NodeId::from_bytes([5; 32]);
    config.capabilities = 3;
    let mut dialler = machine(Role::Dialler, config);
    feed(
        &mut dialler,
        now,
        Event::Start {
            exporter: Some(EXPORTER),
        },
    );
    let mut actions = feed(&mut dialler, now, Event::StreamOpened);
    let sent = frames(&pull(&mut dialler, &mut actions));
    let actions = introduced(Role::Acceptor, crate::config(Role::Acceptor), now, &sent[0].raw);
    let connected = connection(&actions);
    assert_eq!(connected.peer, node(1).node_id());
    assert_eq!(connected.station_id, NodeId::from_bytes([5; 32]));
    assert!(connected.bound);
    let Body::Connect(connect) = &connected.introduction.frame.body else {
        panic!("{connected:?}");
    };
    assert_eq!(connect.realms, [Id32([1; 32])]);
    assert_eq!(connect.puzzle_evidence, node(1).puzzle_evidence());
    let Header {
        version,
        sent_at_ms,
        capabilities,
        ..
    } = connected.introduction.frame.header;
    assert_eq!((version, sent_at_ms, capabilities), (2, now.unix_ms, 3));
}

// ----- binding -----------------------------------------------------------------------------------------------------

/// The first frame of a node for a session with these exporter bytes.
fn bound(role: Role, exporter: &[u8; 32], now: Now) -> RawFrame {
    let (body, signer): (Body, _) = match role {
        Role::Dialler => (connect_of(1).into(), 1),
        Role::Acceptor => (hello_of(2).into(), 2),
    };
    let value = binding::sign(&node(signer), role, exporter);
    odd(body, &[(binding::FIELD, Some(Value::bytes(value)))], signer, now)
}

fn judged(mode: BindingMode, role: Role, first: &RawFrame, exporter: Option<[u8; 32]>) -> String {
    let mut config = config(role);
    config.binding = mode;
    let actions = introduced_with(role, config, start(), first, exporter);
    ended(&actions).unwrap_or_else(|| {
        let bound = connection(&actions).bound;
        if bound { "bound" } else { "unbound" }.to_owned()
    })
}

#[test]
fn a_binding_ties_the_handshake_to_its_session() {
    use BindingMode::{Off, Require, Send};
    let now = start();
    for (role, peer) in [(Role::Acceptor, Role::Dialler), (Role::Dialler, Role::Acceptor)] {
        let own = Some(EXPORTER);
        let good = bound(peer, &EXPORTER, now);
        let elsewhere = bound(peer, &[1; 32], now);
        let none = match peer {
            Role::Dialler => signed(connect_of(1).into(), 1, now),
            Role::Acceptor => signed(hello_of(2).into(), 2, now),
        };
        assert_eq!(judged(Off, role, &good, own), "unbound");
        assert_eq!(judged(Off, role, &elsewhere, own), "unbound");
        for mode in [Send, Require] {
            assert_eq!(judged(mode, role, &good, own), "bound");
            let refused = judged(mode, role, &elsewhere, own);
            assert!(
                refused.ends_with("_verify_failed(binding of another connection)"),
                "{refused}"
            );
        }
        assert_eq!(judged(Send, role, &none, own), "unbound");
        assert_eq!(judged(Send, role, &good, None), "unbound", "nothing to check it with");
        for refused in [judged(Require, role, &none, own), judged(Require, role, &good, None)] {
            match role {
                Role::Acceptor => assert_eq!(refused, "not_admitted(binding)"),
                Role::Dialler => assert_eq!(refused, "hello_verify_failed(binding missing)"),
            }
        }
    }
}

#[test]
fn a_binding_is_for_one_role_and_one_key() {
    let now = start();
    let acceptor_binding = binding::sign(&node(1), Role::Acceptor, &EXPORTER);
    let other_key = binding::sign(&node(3), Role::Dialler, &EXPORTER);
    for wrong in [
        Value::bytes(acceptor_binding),
        Value::bytes(other_key),
        Value::bytes([]),
        Value::Uint(1),
    ] {
        let connect = odd(connect_of(1).into(), &[(binding::FIELD, Some(wrong))], 1, now);
        let refused = judged(BindingMode::Send, Role::Acceptor, &connect, Some(EXPORTER));
        assert_eq!(refused, "connect_verify_failed(binding of another connection)");
    }
    let null = odd(connect_of(1).into(), &[(binding::FIELD, Some(Value::Null))], 1, now);
    assert_eq!(
        judged(BindingMode::Send, Role::Acceptor, &null, Some(EXPORTER)),
        "unbound"
    );
}

#[test]
fn a_binding_is_sent_unless_it_is_off_or_cannot_be_made() {
    let now = start();
    for (mode, exporter, sent) in [
        (BindingMode::Send, Some(EXPORTER), true),
        (BindingMode::Require, Some(EXPORTER), true),
        (BindingMode::Send, None, false),
        (BindingMode::Off, Some(EXPORTER), false),
    ] {
        let mut config = config(Role::Dialler);
        config.binding = mode;
        let mut peering = machine(Role::Dialler, config);
        feed(&mut peering, now, Event::Start { exporter });
        let mut actions = feed(&mut peering, now, Event::StreamOpened);
        let connect = &frames(&pull(&mut peering, &mut actions))[0];
        let fields = connect.raw.fields(&DecodeLimits::DEFAULT);
        let found = fields.iter().any(|(key, _)| key.as_text() == Some("binding"));
        assert_eq!(found, sent, "{mode:?}");
        assert!(matches!(connect.frame.body, Body::Connect(_)));
    }
}

// ----- before CONNECT and HELLO ------------------------------------------------------------------------------------

#[test]
fn what_comes_before_is_passed_over_up_to_a_limit() {
    let now = start();
    for role in [Role::Acceptor, Role::Dialler] {
        let mut limited = config(role);
        limited.limits.peering_skipped = 3;
        let mut peering = machine(role, limited);
        feed(&mut peering, now, Event::Start { exporter: None });
        feed(&mut peering, now, Event::StreamOpened);
        for count in 1..=3 {
            assert_eq!(feed(&mut peering, now, received(&signed(ping(1), 1, now))), []);
            assert_eq!(peering.stats().skipped, count);
        }
        let actions = feed(&mut peering, now, received(&signed(ping(1), 1, now)));
        assert_eq!(show::actions(&actions), "close limit, ended handshake_flood");
    }
}

#[test]
fn large_frames_are_for_peers_that_are_known() {
    let now = start();
    let large = Unknown {
        frame_type: Some("later".into()),
        fields: vec![(Value::text("large"), Value::bytes(vec![0; 300 << 10]))],
        fault: None,
    };
    let large = signed(large.into(), 1, now);
    let mut peering = machine(Role::Acceptor, config(Role::Acceptor));
    feed(&mut peering, now, Event::Start { exporter: None });
    let actions = feed(&mut peering, now, Event::Received(large.to_wire().slice(..4)));
    assert_eq!(show::actions(&actions), "close limit, ended frame_too_large");

    let mut peering = crate::connected(Role::Acceptor, config(Role::Acceptor), now);
    let actions = feed(&mut peering, now, received(&large));
    assert_eq!(show::actions(&actions), "later verified");
}

#[test]
fn what_waits_for_a_decision_is_bounded() {
    let now = start();
    let mut peering = machine(Role::Acceptor, config(Role::Acceptor));
    feed(&mut peering, now, Event::Start { exporter: None });
    feed(&mut peering, now, received(&signed(connect_of(1).into(), 1, now)));
    let piece = bytes::Bytes::from(vec![0; 64 << 10]);
    for _ in 0..4 {
        assert_eq!(feed(&mut peering, now, Event::Received(piece.clone())), []);
    }
    let actions = feed(&mut peering, now, Event::Received(piece));
    assert_eq!(show::actions(&actions), "close limit, ended handshake_flood");
}

#[test]
fn refusals_tell_the_dialler_why() {
    let now = start();
    for why in [
        Refusal::NotAllowed,
        Refusal::Duplicate,
        Refusal::Limit,
        Refusal::Shutdown,
    ] {
        let mut acceptor = machine(Role::Acceptor, config(Role::Acceptor));
        feed(&mut acceptor, now, Event::Start { exporter: None });
        feed(&mut acceptor, now, received(&signed(connect_of(1).into(), 1, now)));
        let mut actions = feed(&mut acceptor, now, Event::Refuse(why));
        let hello = &frames(&pull(&mut acceptor, &mut actions))[0];
        assert_eq!(show::actions(&actions), "write, finish");
        let actions = introduced(Role::Dialler, config(Role::Dialler), now, &hello.raw);
        assert_eq!(ended(&actions), Some(format!("refused({})", why.close_code().get())));
    }
}

#[test]
fn nothing_that_comes_along_with_connect_or_hello_is_lost() {
    let now = start();
    let mut wire = bytes::BytesMut::new();
    signed(connect_of(1).into(), 1, now).put(&mut wire);
    (1..=3).for_each(|byte| signed(ping(byte), 1, now).put(&mut wire));
    let mut acceptor = machine(Role::Acceptor, config(Role::Acceptor));
    feed(&mut acceptor, now, Event::Received(wire.freeze()));
    let mut actions = feed(&mut acceptor, now, Event::Start { exporter: None });
    actions.extend(feed(&mut acceptor, now, Event::Admit));
    assert_eq!(
        show::actions(&actions),
        "authorize n1, write, connected n1, ping verified, ping verified, ping verified"
    );

    let mut wire = bytes::BytesMut::new();
    signed(hello_of(2).into(), 2, now).put(&mut wire);
    signed(ping(1), 2, now).put(&mut wire);
    let half = signed(ping(2), 2, now).to_wire();
    wire.extend_from_slice(&half[..50]);
    let mut dialler = machine(Role::Dialler, config(Role::Dialler));
    feed(&mut dialler, now, Event::Start { exporter: None });
    feed(&mut dialler, now, Event::StreamOpened);
    let mut actions = feed(&mut dialler, now, Event::Received(wire.freeze()));
    actions.extend(feed(&mut dialler, now, Event::Received(half.slice(50..))));
    assert_eq!(show::actions(&actions), "connected n2, ping verified, ping verified");
}

/// The example in `docs/binding.md`.
#[test]
fn the_documented_binding() {
    let document = include_str!("../../../docs/binding.md");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let value = hex(&binding::sign(&node(1), Role::Dialler, &EXPORTER));
    for part in [&hex(node(1).node_id().as_bytes()), &value[..64], &value[64..]] {
        assert!(document.contains(part), "{part}");
    }
}
