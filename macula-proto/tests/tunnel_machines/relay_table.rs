//! Every state of a connection at a relay, every event.

use macula_proto::{
    Code, Now, Rng,
    tunnel::{
        ConnKey, ControlEnd, StreamKey,
        relay::{Action, Event, Relay, RelayConfig, SpliceEnd, Ticket, TunnelBytes, TunnelKey},
    },
    wire::control::{Message, TunnelId},
};

use crate::{absurd_length, garbage, identify, mp, ms, request, show, start, tunnel_id};

/// States of connection A. B, "bob", is the node it deals with; C, "carol", has a tunnel to B where the relay drains.
const STATES: &[&str] = &[
    "absent",
    "unnamed",
    "named",
    "asking",
    "waiting",
    "half open",
    "tunnelled",
    "tunnelled, draining",
    "closing",
];

const EVENTS: &[&str] = &[
    "Connected",
    "identify",
    "identify again in CBOR",
    "identify other",
    "identify held",
    "identify empty",
    "identify too long",
    "tun_req",
    "tun_req self",
    "tun_req unknown",
    "tun_req empty",
    "tun_req too long",
    "tun_close",
    "tun_close unknown",
    "relay's message",
    "garbage",
    "absurd length",
    "half a message",
    "ControlEnded fin",
    "ControlEnded reset",
    "ControlStalled",
    "ExtraStream",
    "StreamOpened",
    "StreamUnavailable",
    "StreamOpened unknown",
    "StreamUnavailable unknown",
    "StreamsAvailable",
    "TunnelEnded",
    "TunnelEnded reset",
    "TunnelEnded unknown",
    "ConnectionLost",
    "Timeout early",
    "Timeout",
    "Drain",
    "B lost",
];

const A: ConnKey = ConnKey(0);
const B: ConnKey = ConnKey(1);

struct Rig {
    relay: Relay,
    /// The last ticket, answered or not.
    ticket: Ticket,
    tunnel: TunnelKey,
    id: TunnelId,
}

fn connected(conn: ConnKey) -> Event<'static> {
    Event::Connected {
        conn,
        pin: None,
        remote: ([127, 0, 0, 1], 4434).into(),
    }
}

impl Rig {
    fn feed(&mut self, now: Now, event: Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.relay.handle(now, event, &mut actions);
        for action in &actions {
            match action {
                Action::OpenStream { ticket, .. } => self.ticket = *ticket,
                Action::Splice { tunnel, id, .. } => (self.tunnel, self.id) = (*tunnel, *id),
                _ => {}
            }
        }
        actions
    }

    fn say(&mut self, now: Now, conn: ConnKey, message: &Message) -> Vec<Action> {
        let bytes = mp(message);
        self.feed(now, Event::ControlBytes { conn, bytes: &bytes })
    }

    fn in_state(state: &str, now: Now) -> Self {
        let mut config = RelayConfig::default();
        config.limits.control_malformed = 0;
        config.limits.extra_streams = 0;
        let mut rig = Self {
            relay: Relay::new(config, Rng::from_seed(1)),
            ticket: Ticket(999),
            tunnel: TunnelKey(999),
            id: tunnel_id(9),
        };
        rig.feed(now, connected(B));
        rig.say(now, B, &identify("bob"));
        if state == "absent" {
            return rig;
        }
        rig.feed(now, connected(A));
        if state == "unnamed" {
            return rig;
        }
        rig.say(now, A, &identify("alice"));
        if matches!(state, "named" | "closing") {
            if state == "closing" {
                rig.feed(now, Event::ControlStalled { conn: A });
            }
            return rig;
        }
        rig.say(now, A, &request("bob"));
        if state == "waiting" {
            rig.feed(now, Event::StreamUnavailable { ticket: rig.ticket });
        }
        // The relay asks for A's own stream first, and for B's behind it.
        let streams: &[StreamKey] = match state {
            "half open" => &[StreamKey(7)],
            "tunnelled" | "tunnelled, draining" => &[StreamKey(7), StreamKey(8)],
            _ => &[],
        };
        for &stream in streams {
            let ticket = rig.ticket;
            rig.feed(now, Event::StreamOpened { ticket, stream });
        }
        if state == "tunnelled, draining" {
            rig.feed(now, Event::Drain);
        }
        rig
    }

    fn event(&mut self, name: &str, now: Now) -> Vec<Action> {
        let (ticket, tunnel) = (self.ticket, self.tunnel);
        let bytes = TunnelBytes::default();
        match name {
            "Connected" => self.feed(now, connected(A)),
            "identify" => self.say(now, A, &identify("alice")),
            "identify again in CBOR" => {
                let bytes = crate::encode(&identify("alice"), macula_proto::wire::Encoding::Cbor);
                self.feed(now, Event::ControlBytes { conn: A, bytes: &bytes })
            }
            "identify other" => self.say(now, A, &identify("alias")),
            "identify held" => self.say(now, A, &identify("bob")),
            "identify empty" => self.say(now, A, &identify("")),
            "identify too long" => self.say(now, A, &identify(&"x".repeat(256))),
            "tun_req" => self.say(now, A, &request("bob")),
            "tun_req self" => self.say(now, A, &request("alice")),
            "tun_req unknown" => self.say(now, A, &request("nobody")),
            "tun_req empty" => self.say(now, A, &request("")),
            "tun_req too long" => self.say(now, A, &request(&"x".repeat(256))),
            "tun_close" => self.say(now, A, &Message::TunnelClose { tunnel: self.id }),
            "tun_close unknown" => self.say(now, A, &Message::TunnelClose { tunnel: tunnel_id(8) }),
            "relay's message" => self.say(now, A, &Message::Identified),
            "garbage" => self.feed(
                now,
                Event::ControlBytes {
                    conn: A,
                    bytes: &garbage(),
                },
            ),
            "absurd length" => self.feed(
                now,
                Event::ControlBytes {
                    conn: A,
                    bytes: &absurd_length(),
                },
            ),
            "half a message" => self.feed(
                now,
                Event::ControlBytes {
                    conn: A,
                    bytes: &mp(&identify("x"))[..5],
                },
            ),
            "ControlEnded fin" => self.feed(
                now,
                Event::ControlEnded {
                    conn: A,
                    end: ControlEnd::Finished,
                },
            ),
            "ControlEnded reset" => {
                let end = ControlEnd::Reset(Code::CLOSED);
                self.feed(now, Event::ControlEnded { conn: A, end })
            }
            "ControlStalled" => self.feed(now, Event::ControlStalled { conn: A }),
            "ExtraStream" => self.feed(now, Event::ExtraStream { conn: A }),
            "StreamOpened" => self.feed(
                now,
                Event::StreamOpened {
                    ticket,
                    stream: StreamKey(7),
                },
            ),
            "StreamUnavailable" => self.feed(now, Event::StreamUnavailable { ticket }),
            "StreamOpened unknown" => {
                let event = Event::StreamOpened {
                    ticket: Ticket(888),
                    stream: StreamKey(6),
                };
                self.feed(now, event)
            }
            "StreamUnavailable unknown" => self.feed(now, Event::StreamUnavailable { ticket: Ticket(888) }),
            "StreamsAvailable" => self.feed(now, Event::StreamsAvailable { conn: A }),
            "TunnelEnded" => self.feed(
                now,
                Event::TunnelEnded {
                    tunnel,
                    end: SpliceEnd::Finished,
                    bytes,
                },
            ),
            "TunnelEnded reset" => {
                let end = SpliceEnd::Reset(Code::TCP_RESET);
                self.feed(now, Event::TunnelEnded { tunnel, end, bytes })
            }
            "TunnelEnded unknown" => {
                let tunnel = TunnelKey(888);
                self.feed(
                    now,
                    Event::TunnelEnded {
                        tunnel,
                        end: SpliceEnd::Finished,
                        bytes,
                    },
                )
            }
            "ConnectionLost" => self.feed(now, Event::ConnectionLost { conn: A }),
            "Timeout early" => self.feed(now, Event::Timeout),
            "Timeout" => {
                let due = self.relay.poll_timeout().unwrap_or(now.mono);
                self.feed(now.after(due.saturating_duration_since(now.mono)), Event::Timeout)
            }
            "Drain" => self.feed(now, Event::Drain),
            "B lost" => self.feed(now, Event::ConnectionLost { conn: B }),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn every_cell() {
    let mut cells = Vec::new();
    for state in STATES {
        for name in EVENTS {
            let now = start();
            let mut rig = Rig::in_state(state, now);
            let before = rig.relay.stats();
            let later = now.after(ms(1));
            let actions = rig.event(name, later);
            if let Some(deadline) = rig.relay.poll_timeout().filter(|_| name.starts_with("Timeout")) {
                assert!(deadline > later.mono, "{state} x {name}: the deadline is in the past");
            }
            let mut cell = show::relay(&actions);
            let after = rig.relay.stats();
            if after.stale_events > before.stale_events {
                cell += " (stale)";
            }
            if after.stray_closes > before.stray_closes {
                cell += " (stray)";
            }
            cells.push(((*state).to_owned(), (*name).to_owned(), cell));

            // Whatever happened: when the connections are gone, nothing is left.
            for conn in [A, B] {
                rig.feed(later, Event::ConnectionLost { conn });
            }
            assert!(
                rig.relay.is_empty(),
                "{state} x {name} leaves something behind: {:?}",
                rig.relay
            );
        }
    }
    show::check_table("relay", &cells, super::relay_cells::CELLS);
}
