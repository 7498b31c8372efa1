//! Every state of a supervisor, every event.

use std::num::NonZeroUsize;

use macula_proto::{
    Code, Now, Rng,
    tunnel::client::supervisor::{Action, Attempt, Event, Supervisor, SupervisorConfig},
};

use crate::{ms, show, start};

const STATES: &[&str] = &["stopped", "waiting", "dialling", "identifying", "up"];

const EVENTS: &[&str] = &[
    "Start",
    "DialFailed",
    "DialFailed of another",
    "Connected",
    "Connected of another",
    "Identified",
    "Identified of another",
    "Lost",
    "Lost draining",
    "Lost of another",
    "Timeout early",
    "Timeout",
    "Timeout late",
    "Stop",
];

fn feed(supervisor: &mut Supervisor, now: Now, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    supervisor.handle(now, event, &mut actions);
    actions
}

fn in_state(state: &str, now: Now) -> Supervisor {
    let one = NonZeroUsize::MIN;
    let mut s = Supervisor::new(SupervisorConfig::default(), one, Rng::from_seed(1));
    let attempt = Attempt(0);
    if state != "stopped" {
        feed(&mut s, now, Event::Start);
    }
    match state {
        "stopped" | "dialling" => {}
        "waiting" => {
            feed(&mut s, now, Event::DialFailed { attempt });
        }
        "identifying" | "up" => {
            feed(&mut s, now, Event::Connected { attempt });
            if state == "up" {
                feed(&mut s, now, Event::Identified { attempt });
            }
        }
        other => panic!("{other}"),
    }
    s
}

fn event(name: &str) -> Event {
    let (attempt, other) = (Attempt(0), Attempt(77));
    match name {
        "Start" => Event::Start,
        "DialFailed" => Event::DialFailed { attempt },
        "DialFailed of another" => Event::DialFailed { attempt: other },
        "Connected" => Event::Connected { attempt },
        "Connected of another" => Event::Connected { attempt: other },
        "Identified" => Event::Identified { attempt },
        "Identified of another" => Event::Identified { attempt: other },
        "Lost" => Event::Lost { attempt, code: None },
        "Lost draining" => Event::Lost {
            attempt,
            code: Some(Code::DRAINING),
        },
        "Lost of another" => Event::Lost {
            attempt: other,
            code: None,
        },
        "Timeout early" | "Timeout" | "Timeout late" => Event::Timeout,
        "Stop" => Event::Stop,
        other => panic!("{other}"),
    }
}

#[test]
fn every_cell() {
    let mut cells = Vec::new();
    for state in STATES {
        for name in EVENTS {
            let now = start();
            let mut supervisor = in_state(state, now);
            let before = supervisor.stats();
            let due = supervisor
                .poll_timeout()
                .map_or(ms(0), |at| at.saturating_duration_since(now.mono));
            let at = match *name {
                "Timeout" => now.after(due),
                "Timeout late" => now.after(due + ms(2000)),
                _ => now,
            };
            let actions = feed(&mut supervisor, at, event(name));
            if let Some(deadline) = supervisor.poll_timeout() {
                assert!(deadline > at.mono, "{state} x {name}: the deadline is in the past");
            }
            let mut cell = show::supervisor(&actions);
            if supervisor.stats().stale_events > before.stale_events {
                cell += " (stale)";
            }
            cells.push(((*state).to_owned(), (*name).to_owned(), cell));
        }
    }
    show::check_table("supervisor", &cells, super::supervisor_cells::CELLS);
}
