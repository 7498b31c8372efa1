//! The acceptor's door.

use macula_proto::{
    Limits,
    identity::NodeId,
    peering::{Duplicates, Gate, GateAction, GateConfig, GateEvent, PeerConn},
};

use crate::show;

fn peer(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

fn gate(change: impl FnOnce(&mut GateConfig)) -> Gate {
    let mut config = GateConfig::new(&Limits::default());
    change(&mut config);
    Gate::new(config)
}

fn feed(gate: &mut Gate, event: GateEvent) -> String {
    let mut actions: Vec<GateAction> = Vec::new();
    gate.handle(event, &mut actions);
    show::gate(&actions)
}

fn arrive(gate: &mut Gate, conn: u64) -> String {
    feed(gate, GateEvent::Arrived(PeerConn(conn)))
}

fn identify(gate: &mut Gate, conn: u64, id: u8) -> String {
    feed(gate, GateEvent::Identified(PeerConn(conn), peer(id)))
}

/// A connection that comes and says who it is at once.
fn come(gate: &mut Gate, conn: u64, id: u8) -> String {
    assert_eq!(arrive(gate, conn), "-");
    identify(gate, conn, id)
}

fn go(gate: &mut Gate, conn: u64) {
    assert_eq!(feed(gate, GateEvent::Gone(PeerConn(conn))), "-");
}

#[test]
fn every_cell() {
    let states = ["unknown", "handshaking", "connected", "displaced", "refused", "gone"];
    let expected = [
        ("Arrived", ["-", "- (stale)", "- (stale)", "-", "- (stale)", "-"]),
        (
            "Identified",
            [
                "- (stale)",
                "admit 1",
                "- (stale)",
                "- (stale)",
                "- (stale)",
                "- (stale)",
            ],
        ),
        ("Gone", ["-", "-", "-", "-", "-", "-"]),
    ];
    for (event, row) in expected {
        for (state, cell) in states.iter().zip(row) {
            let mut gate = gate(|_| ());
            if *state != "unknown" {
                arrive(&mut gate, 1);
            }
            if matches!(*state, "connected" | "displaced" | "gone") {
                identify(&mut gate, 1, 1);
            }
            match *state {
                "displaced" => assert_eq!(come(&mut gate, 2, 1), "close 1 displaced, admit 2"),
                "refused" => {
                    feed(&mut gate, GateEvent::AllowOnly(Some([].into())));
                    identify(&mut gate, 1, 1);
                    feed(&mut gate, GateEvent::AllowOnly(None));
                }
                "gone" => go(&mut gate, 1),
                _ => {}
            }
            let before = gate.stats().stale_events;
            let conn = PeerConn(1);
            let mut actual = match event {
                "Arrived" => feed(&mut gate, GateEvent::Arrived(conn)),
                "Identified" => feed(&mut gate, GateEvent::Identified(conn, peer(1))),
                _ => feed(&mut gate, GateEvent::Gone(conn)),
            };
            if gate.stats().stale_events > before {
                actual += " (stale)";
            }
            assert_eq!(actual, cell, "{state} x {event}");
        }
    }
}

#[test]
fn five_hundred_dials_of_one_identity_leave_one() {
    let mut gate = gate(|_| ());
    assert_eq!(come(&mut gate, 0, 7), "admit 0");
    for conn in 1..500 {
        let older = conn - 1;
        assert_eq!(
            come(&mut gate, conn, 7),
            format!("close {older} displaced, admit {conn}")
        );
    }
    assert_eq!((gate.connected(), gate.stats().displaced), (1, 499));
    // The end of an older connection takes nothing from the newer one.
    (0..499).for_each(|conn| go(&mut gate, conn));
    assert_eq!(gate.connections_of(&peer(7)).collect::<Vec<_>>(), [PeerConn(499)]);
    go(&mut gate, 499);
    assert_eq!((gate.connected(), gate.connections_of(&peer(7)).count()), (0, 0));
}

#[test]
fn dials_that_cross_in_their_handshakes() {
    let mut gate = gate(|_| ());
    arrive(&mut gate, 1);
    arrive(&mut gate, 2);
    assert_eq!(identify(&mut gate, 2, 7), "admit 2");
    assert_eq!(identify(&mut gate, 1, 7), "close 2 displaced, admit 1");
}

#[test]
fn the_older_one_can_stay() {
    let mut gate = gate(|config| config.duplicates = Duplicates::KeepOlder);
    assert_eq!(come(&mut gate, 1, 7), "admit 1");
    assert_eq!(come(&mut gate, 2, 7), "refuse 2 duplicate");
    assert_eq!(come(&mut gate, 3, 8), "admit 3");
    go(&mut gate, 2);
    assert_eq!(gate.connected(), 2);
    go(&mut gate, 1);
    assert_eq!(come(&mut gate, 4, 7), "admit 4");
    assert_eq!(gate.stats().duplicates_refused, 1);
}

#[test]
fn both_can_stay() {
    let mut gate = gate(|config| config.duplicates = Duplicates::KeepBoth);
    assert_eq!(come(&mut gate, 1, 7), "admit 1");
    assert_eq!(come(&mut gate, 2, 7), "admit 2");
    assert_eq!(gate.connections_of(&peer(7)).count(), 2);
    go(&mut gate, 1);
    assert_eq!(gate.connections_of(&peer(7)).collect::<Vec<_>>(), [PeerConn(2)]);
    feed(&mut gate, GateEvent::Duplicates(Duplicates::ReplaceOlder));
    assert_eq!(come(&mut gate, 3, 7), "close 2 displaced, admit 3");
}

#[test]
fn half_open_handshakes_keep_nobody_out() {
    let mut gate = gate(|config| config.handshaking = 100);
    (0..100).for_each(|conn| assert_eq!(arrive(&mut gate, conn), "-"));
    for conn in 100..1000 {
        assert_eq!(arrive(&mut gate, conn), format!("close {} limit", conn - 100));
        assert_eq!(gate.handshaking(), 100);
    }
    assert_eq!(arrive(&mut gate, 1000), "close 900 limit");
    assert_eq!(identify(&mut gate, 1000, 7), "admit 1000");
    assert_eq!(gate.stats().too_many_handshaking, 901);
    // Those that were let in do not count.
    assert_eq!((gate.handshaking(), gate.connected()), (99, 1));
    assert_eq!(arrive(&mut gate, 1001), "-");
}

#[test]
fn refused_connections_keep_their_place_until_they_are_gone() {
    let mut gate = gate(|config| {
        config.handshaking = 2;
        config.allow_only = Some([].into());
    });
    assert_eq!(come(&mut gate, 1, 1), "refuse 1 not_allowed");
    assert_eq!(come(&mut gate, 2, 2), "refuse 2 not_allowed");
    assert_eq!(gate.handshaking(), 2);
    assert_eq!(arrive(&mut gate, 3), "close 1 limit");
    go(&mut gate, 2);
    assert_eq!(arrive(&mut gate, 4), "-");
}

#[test]
fn connected_peers_have_a_cap_of_their_own() {
    let mut gate = gate(|config| config.connected = 2);
    assert_eq!(come(&mut gate, 1, 1), "admit 1");
    assert_eq!(come(&mut gate, 2, 2), "admit 2");
    assert_eq!(come(&mut gate, 3, 3), "refuse 3 limit");
    assert_eq!(
        come(&mut gate, 4, 2),
        "close 2 displaced, admit 4",
        "it takes its own place"
    );
    go(&mut gate, 1);
    assert_eq!(come(&mut gate, 5, 3), "admit 5");
    assert_eq!(gate.stats().too_many_connected, 1);
}

#[test]
fn a_list_says_who_may_come_in() {
    let mut gate = gate(|config| config.allow_only = Some([peer(1)].into()));
    assert_eq!(come(&mut gate, 1, 1), "admit 1");
    assert_eq!(come(&mut gate, 2, 2), "refuse 2 not_allowed");
    feed(&mut gate, GateEvent::AllowOnly(Some([peer(2)].into())));
    assert_eq!(gate.connected(), 1, "who is in stays in");
    assert_eq!(come(&mut gate, 3, 2), "admit 3");
    assert_eq!(come(&mut gate, 4, 1), "refuse 4 not_allowed");
    feed(&mut gate, GateEvent::AllowOnly(None));
    assert_eq!(come(&mut gate, 5, 9), "admit 5");
    assert_eq!(gate.stats().not_allowed, 2);
}

#[test]
fn a_gate_that_is_shut_lets_nobody_in() {
    let mut gate = gate(|_| ());
    assert_eq!(come(&mut gate, 1, 1), "admit 1");
    arrive(&mut gate, 2);
    feed(&mut gate, GateEvent::ShutDown);
    assert_eq!(identify(&mut gate, 2, 2), "refuse 2 shutdown");
    assert_eq!((gate.connected(), gate.stats().shut_down), (1, 1));
}

#[test]
fn a_gate_that_is_opened_again_has_the_new_settings_and_its_old_guests() {
    let mut gate = gate(|_| ());
    for conn in 1..=3 {
        assert_eq!(come(&mut gate, conn, conn as u8), format!("admit {conn}"));
    }
    for conn in 4..=6 {
        arrive(&mut gate, conn);
    }
    feed(&mut gate, GateEvent::ShutDown);
    let mut config = GateConfig::new(&Limits::default());
    (config.connected, config.handshaking, config.duplicates) = (4, 2, Duplicates::KeepBoth);
    feed(&mut gate, GateEvent::Open(config));
    assert_eq!(gate.connected(), 3, "who is in stays in");
    assert_eq!(arrive(&mut gate, 7), "close 4 limit, close 5 limit");
    assert_eq!(identify(&mut gate, 7, 1), "admit 7");
    assert_eq!(identify(&mut gate, 6, 2), "refuse 6 limit");
}
