//! Every state of a session, every event.

use macula_proto::{
    Now,
    tunnel::{
        ControlEnd, Name, StreamKey,
        client::session::{Action, Event, RequestId, Session, SessionConfig, TunnelEnd},
    },
    wire::control::{Message, Reason},
};

use crate::{absurd_length, garbage, identify, mp, ms, show, start, tunnel_id};

const STATES: &[&str] = &[
    "fresh",
    "identifying",
    "identifying again",
    "identified",
    "asked",
    "given up",
    "granted",
    "stream unread",
    "stream unannounced",
    "announced",
    "outbound open",
    "inbound open",
    "unwanted",
    "ended",
];

const EVENTS: &[&str] = &[
    "Connected",
    "id_ok",
    "tun_ok",
    "tun_err",
    "tun_notify",
    "node's message",
    "garbage",
    "absurd length",
    "half a message",
    "ControlEnded fin",
    "ControlEnded reset",
    "ControlStalled",
    "StreamArrived",
    "StreamArrived again",
    "Prefix",
    "tunnel's stream",
    "StreamLost",
    "Request",
    "Request again",
    "Request nobody",
    "Cancel",
    "TunnelDone",
    "TunnelDone abandoned",
    "AllowFrom",
    "Close",
    "ConnectionLost",
    "Timeout early",
    "Timeout",
];

const S1: StreamKey = StreamKey(1);
const S2: StreamKey = StreamKey(2);
const R1: RequestId = RequestId(1);

fn feed(session: &mut Session, now: Now, event: Event<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    session.handle(now, event, &mut actions);
    actions
}

fn say(session: &mut Session, now: Now, message: &Message) -> Vec<Action> {
    feed(session, now, Event::ControlBytes(&mp(message)))
}

fn ask(request: RequestId, target: &str) -> Event<'static> {
    Event::Request {
        request,
        target: Name::from(target),
    }
}

fn notify() -> Message {
    Message::TunnelNotify {
        tunnel: tunnel_id(1),
        source: b"bob".to_vec().into(),
    }
}

const OK: Message = Message::TunnelOk {
    tunnel: macula_proto::wire::control::TunnelId::from_bytes([1; 32]),
};
const PREFIX: Event<'static> = Event::Prefix {
    stream: S1,
    id: macula_proto::wire::control::TunnelId::from_bytes([1; 32]),
};

/// A session in this state; tunnel 1, stream 1 and request 1 are what it is about.
fn in_state(state: &str, now: Now) -> Session {
    let mut config = SessionConfig::new(Name::from("alice"));
    config.limits.control_malformed = 0;
    let mut s = Session::new(config).expect("a good name");
    if state == "fresh" {
        return s;
    }
    feed(&mut s, now, Event::Connected);
    if state == "identifying" {
        return s;
    }
    if state == "identifying again" {
        feed(&mut s, now.after(ms(1000)), Event::Timeout);
        return s;
    }
    say(&mut s, now, &Message::Identified);
    match state {
        "identified" => {}
        "asked" => {
            feed(&mut s, now, ask(R1, "bob"));
        }
        "given up" => {
            feed(&mut s, now, ask(R1, "bob"));
            feed(&mut s, now, Event::Cancel { request: R1 });
        }
        "granted" | "outbound open" => {
            feed(&mut s, now, ask(R1, "bob"));
            say(&mut s, now, &OK);
        }
        "stream unread" | "stream unannounced" => {}
        "announced" | "inbound open" => {
            say(&mut s, now, &notify());
        }
        "unwanted" => {
            feed(&mut s, now, Event::AllowFrom(Some([].into())));
            say(&mut s, now, &notify());
        }
        "ended" => {
            feed(&mut s, now, Event::Close);
        }
        other => panic!("{other}"),
    }
    if matches!(
        state,
        "stream unread" | "stream unannounced" | "outbound open" | "inbound open"
    ) {
        feed(&mut s, now, Event::StreamArrived { stream: S1 });
    }
    if matches!(state, "stream unannounced" | "outbound open" | "inbound open") {
        feed(&mut s, now, PREFIX);
    }
    s
}

fn event(s: &mut Session, event: &str, now: Now) -> Vec<Action> {
    match event {
        "Connected" => feed(s, now, Event::Connected),
        "id_ok" => say(s, now, &Message::Identified),
        "tun_ok" => say(s, now, &OK),
        "tun_err" => say(s, now, &Message::TunnelError { reason: Reason::Busy }),
        "tun_notify" => say(s, now, &notify()),
        "node's message" => say(s, now, &identify("x")),
        "garbage" => feed(s, now, Event::ControlBytes(&garbage())),
        "absurd length" => feed(s, now, Event::ControlBytes(&absurd_length())),
        "half a message" => feed(s, now, Event::ControlBytes(&mp(&OK)[..9])),
        "ControlEnded fin" => feed(s, now, Event::ControlEnded(ControlEnd::Finished)),
        "ControlEnded reset" => feed(
            s,
            now,
            Event::ControlEnded(ControlEnd::Reset(macula_proto::Code::CLOSED)),
        ),
        "ControlStalled" => feed(s, now, Event::ControlStalled),
        "StreamArrived" => feed(s, now, Event::StreamArrived { stream: S2 }),
        "StreamArrived again" => feed(s, now, Event::StreamArrived { stream: S1 }),
        "Prefix" => feed(s, now, PREFIX),
        "tunnel's stream" => {
            feed(s, now, Event::StreamArrived { stream: S2 });
            let id = tunnel_id(1);
            feed(s, now, Event::Prefix { stream: S2, id })
        }
        "StreamLost" => feed(s, now, Event::StreamLost { stream: S1 }),
        "Request" => feed(s, now, ask(RequestId(2), "carol")),
        "Request again" => feed(s, now, ask(R1, "carol")),
        "Request nobody" => feed(s, now, ask(RequestId(2), "")),
        "Cancel" => feed(s, now, Event::Cancel { request: R1 }),
        "TunnelDone" => done(s, now, TunnelEnd::Finished),
        "TunnelDone abandoned" => done(s, now, TunnelEnd::Abandoned),
        "AllowFrom" => feed(s, now, Event::AllowFrom(Some([].into()))),
        "Close" => feed(s, now, Event::Close),
        "ConnectionLost" => feed(s, now, Event::ConnectionLost),
        "Timeout early" => feed(s, now, Event::Timeout),
        "Timeout" => {
            let due = s.poll_timeout().unwrap_or(now.mono);
            feed(s, now.after(due.saturating_duration_since(now.mono)), Event::Timeout)
        }
        other => panic!("{other}"),
    }
}

fn done(s: &mut Session, now: Now, end: TunnelEnd) -> Vec<Action> {
    feed(s, now, Event::TunnelDone { stream: S1, end })
}

#[test]
fn every_cell() {
    let mut cells = Vec::new();
    for state in STATES {
        for name in EVENTS {
            let now = start();
            let mut session = in_state(state, now);
            let before = session.stats();
            let later = now.after(ms(500));
            let actions = event(&mut session, name, later);
            if let Some(deadline) = session.poll_timeout().filter(|_| name.starts_with("Timeout")) {
                assert!(deadline > later.mono, "{state} x {name}: the deadline is in the past");
            }
            let mut cell = show::session(&actions);
            if session.stats().stale_events > before.stale_events {
                cell += " (stale)";
            }
            cells.push(((*state).to_owned(), (*name).to_owned(), cell));
        }
    }
    show::check_table("session", &cells, super::session_cells::CELLS);
}
