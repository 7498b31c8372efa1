//! What is refused, dropped, counted, and kept within bounds.

use super::*;

#[test]
fn nothing_is_spawned_and_what_means_nothing_is_counted() {
    let mut world = World::pair();
    let (local, from) = (world.spawn(0), world.spawn(1));
    let request = world.nodes[1].make_reference();
    let spawn = control::Spawn {
        request: request.clone(),
        from: from.clone(),
        group_leader: from.clone(),
        module: atom("m"),
        function: atom("f"),
        arity: 0,
        options: Term::NIL,
        token: None,
    };
    let answers = world.inject(&Message::with_payload(Control::SpawnRequest(spawn.into()), Term::NIL));
    let refusal = Control::SpawnReply {
        request: request.clone(),
        to: from.clone(),
        flags: 0,
        result: term("notsup"),
        token: None,
    };
    assert_eq!(answers, [Message::control(refusal)]);

    let foreign = Pid {
        node: atom("n9@h"),
        ..from.clone()
    };
    let (leader, to) = (from.clone(), local.clone());
    let stray = [
        Control::Link {
            from: foreign.clone(),
            to: to.clone(),
        },
        Control::Exit {
            from: from.clone(),
            to: to.clone(),
            reason: Some(term("x")),
            token: None,
        },
        Control::UnlinkIdAck {
            id: 1,
            from: from.clone(),
            to: to.clone(),
        },
        Control::MonitorExit {
            from: from.clone().into(),
            to: to.clone(),
            reference: request,
            reason: Some(term("x")),
        },
        Control::Exit2 {
            from: foreign,
            to: to.clone(),
            reason: Some(term("kill")),
            token: None,
        },
    ];
    for control in stray {
        assert_eq!(world.inject(&Message::control(control)), []);
    }
    assert_eq!(
        world.inject(&Message::control(Control::GroupLeader { from: leader, to })),
        []
    );
    let net_kernel = world.nodes[0].whereis("net_kernel").unwrap();
    let control = Control::SendSender {
        from,
        to: net_kernel,
        token: None,
    };
    assert_eq!(world.inject(&Message::with_payload(control, term("hello"))), []);
    assert_eq!(world.receive(0, &local), None);
    let stats = world.nodes[0].stats();
    assert_eq!(
        (stats.stray, stats.ignored, stats.spawns_refused, stats.received),
        (5, 2, 1, 8)
    );
    assert!(world.nodes[0].is_alive(&local));
}

#[test]
fn bytes_that_cannot_be_read_cost_a_message_or_the_connection() {
    let mut world = World::pair();
    let local = world.spawn(0);
    let mut handed = |bytes: &'static [u8]| {
        let message = Bytes::from_static(bytes);
        let connection = 1;
        world.with(0, |node, actions| {
            node.handle(Event::Received { connection, message }, actions)
        });
        (world.nodes[0].connection("n1@h"), world.asked[0].len())
    };
    assert_eq!(handed(&[112, 131, 97, 1]), (Some(1), 0));
    let (connection, asked) = handed(&[131, 200]);
    assert_eq!((connection, asked), (None, 1));
    assert!(matches!(world.asked[0][0], Action::Close { connection: 1, .. }));
    assert_eq!(world.nodes[0].stats().unreadable, 2);
    assert!(world.nodes[0].is_alive(&local));
}

#[test]
fn a_full_mailbox_stops_the_connection_and_local_senders() {
    let limits = NodeLimits {
        mailbox: 10_000,
        outgoing: 10_000,
        ..NodeLimits::default()
    };
    let mut world = World::new(2, Flags::DEFAULT, &limits);
    world.connect(0, 1);
    world.capacity = 4;
    let (a, b, near) = (world.spawn(0), world.spawn(1), world.spawn(1));
    let mut sent = 0;
    let piece = |number: i64| Term::from([Term::Int(number), Term::binary([7; 1000])]);
    loop {
        match world.send(0, &a, &b, piece(sent)) {
            Ok(()) => sent += 1,
            Err(CommandError::Busy) => break,
            Err(error) => panic!("{error}"),
        }
        world.settle();
    }
    // A mailbox, a queue to be sent, and the wire.
    assert!(sent < 40);
    assert!(world.nodes[1].processes[&1].bytes < 12_000);
    assert!(!world.nodes[1].can_receive(0));
    let at_most = sent;
    assert!(!world.asked[0].contains(&Action::Room));
    // Local processes have to wait as well, and the process itself is told so.
    assert_eq!(world.send(1, &near, &b, Term::NIL), Err(CommandError::Busy));
    assert_eq!(world.send(1, &b, &b, Term::NIL), Err(CommandError::OwnMailbox));
    let got = world.drain(1, &b);
    assert_eq!(
        got,
        (0..at_most)
            .map(|number| message(&a, piece(number)))
            .collect::<Vec<_>>()
    );
    assert!(world.asked[1].contains(&Action::Readable(0)) && world.asked[1].contains(&Action::Room));
    assert!(world.nodes[1].can_receive(0));
    world.send(0, &a, &b, Term::NIL).unwrap();
}

#[test]
fn a_blocked_connection_is_readable_once_the_process_that_blocked_it_ends() {
    let limits = NodeLimits {
        mailbox: 100,
        ..NodeLimits::default()
    };
    let mut world = World::new(2, Flags::DEFAULT, &limits);
    world.connect(0, 1);
    let (a, b) = (world.spawn(0), world.spawn(1));
    world.send(0, &a, &b, Term::binary([0; 200])).unwrap();
    world.settle();
    assert!(!world.nodes[1].can_receive(0));
    world.end(1, &b, "normal");
    assert!(world.nodes[1].can_receive(0) && world.asked[1].contains(&Action::Readable(0)));
}

#[test]
fn limits_are_kept_and_refusals_told() {
    let limits = NodeLimits {
        processes: 3,
        links: 1,
        monitors: 1,
        aliases: 1,
        max_message: 300,
        ..NodeLimits::default()
    };
    let mut world = World::new(2, Flags::DEFAULT, &limits);
    world.connect(0, 1);
    let (a, b, c) = (world.spawn(0), world.spawn(0), world.spawn(0));
    assert!(matches!(
        world.nodes[0].spawn(),
        Err(CommandError::Limit {
            what: "processes",
            limit: 3
        })
    ));
    let far = world.spawn(1);
    let too_large = world.send(0, &a, &far, Term::binary([0; 300]));
    assert!(
        matches!(too_large, Err(CommandError::TooLarge { limit: 300, .. })),
        "{too_large:?}"
    );
    world.nodes[0].alias(&a).unwrap();
    assert!(matches!(world.nodes[0].alias(&a), Err(CommandError::Limit { .. })));

    world.link(0, &a, &far);
    let second = world.with(0, |node, actions| node.link(&b, &far, actions));
    assert!(matches!(second, Err(CommandError::Limit { .. })));
    world.settle();
    let answers = world.inject(&Message::control(Control::Link {
        from: far.clone(),
        to: c.clone(),
    }));
    let refusal = Control::Exit {
        from: c.clone(),
        to: far.clone(),
        reason: None,
        token: None,
    };
    assert_eq!(answers, [Message::with_payload(refusal, term("system_limit"))]);

    world.monitor(1, &far, &a);
    world.settle();
    let second = world.with(1, |node, actions| node.monitor(&far, &Target::from(&b), actions));
    assert!(matches!(second, Err(CommandError::Limit { .. })));
    let reference = world.nodes[1].make_reference();
    let (from, to) = (far.clone(), b.clone().into());
    let answers = world.inject(&Message::control(Control::Monitor {
        from,
        to,
        reference: reference.clone(),
    }));
    let refusal = Control::MonitorExit {
        from: b.into(),
        to: far,
        reference,
        reason: None,
    };
    assert_eq!(answers, [Message::with_payload(refusal, term("system_limit"))]);
    assert_eq!(world.nodes[0].stats().refused, 2);
}
