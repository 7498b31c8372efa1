//! What the supervisor does, case by case.

use std::{num::NonZeroUsize, time::Duration};

use macula_proto::{
    Code, Now, Rng,
    tunnel::client::supervisor::{
        Action, Attempt, Event, RelayIndex, Report, Supervisor, SupervisorConfig, SupervisorStatus,
    },
};

use crate::{ms, show, start};

struct Rig {
    supervisor: Supervisor,
    now: Now,
    /// The last dial.
    attempt: Attempt,
    relay: usize,
    waits: Vec<Duration>,
}

impl Rig {
    fn started(relays: usize, seed: u64) -> Self {
        let relays = NonZeroUsize::new(relays).expect("some relays");
        let mut rig = Self {
            supervisor: Supervisor::new(SupervisorConfig::default(), relays, Rng::from_seed(seed)),
            now: start(),
            attempt: Attempt(999),
            relay: 999,
            waits: Vec::new(),
        };
        rig.feed(Event::Start);
        rig
    }

    fn feed(&mut self, event: Event) -> String {
        let mut actions = Vec::new();
        self.supervisor.handle(self.now, event, &mut actions);
        for action in &actions {
            match action {
                Action::Dial { relay, attempt } => (self.relay, self.attempt) = (relay.0, *attempt),
                Action::Report(Report::Waiting { duration, .. }) => self.waits.push(*duration),
                _ => {}
            }
        }
        show::supervisor(&actions)
    }

    fn fail(&mut self) -> String {
        let attempt = self.attempt;
        self.feed(Event::DialFailed { attempt })
    }

    fn up(&mut self) {
        let attempt = self.attempt;
        self.feed(Event::Connected { attempt });
        self.feed(Event::Identified { attempt });
        let up = SupervisorStatus::Up(RelayIndex(self.relay));
        assert_eq!(self.supervisor.status(), up);
    }

    fn lose(&mut self, code: Option<Code>) -> String {
        let attempt = self.attempt;
        self.feed(Event::Lost { attempt, code })
    }

    /// Time passes; deadlines are noticed when they come.
    fn pass(&mut self, time: Duration) -> String {
        let end = self.now.mono + time;
        let mut shown = Vec::new();
        while let Some(at) = self.supervisor.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.after(at.saturating_duration_since(self.now.mono));
            shown.push(self.feed(Event::Timeout));
            assert!(self.supervisor.poll_timeout().is_none_or(|next| next > self.now.mono));
        }
        self.now = self.now.after(end.saturating_duration_since(self.now.mono));
        shown.join("; ")
    }

    /// To the next deadline.
    fn next(&mut self) -> String {
        let at = self.supervisor.poll_timeout().expect("a deadline");
        self.pass(at.saturating_duration_since(self.now.mono))
    }
}

#[test]
fn waits_grow_with_jitter_up_to_the_cap() {
    let mut longest = [ms(0); 12];
    let mut distinct = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut rig = Rig::started(1, seed);
        for (failures, longest) in longest.iter_mut().enumerate() {
            rig.fail();
            let wait = *rig.waits.last().expect("a wait");
            let bound = ms(500 << failures).min(ms(30_000)) + ms(50);
            assert!(wait >= ms(50) && wait < bound, "{failures} failures: {wait:?}");
            *longest = (*longest).max(wait);
            distinct.insert(wait);
            assert_eq!(rig.next(), "dial 0, [dialling]");
        }
        assert_eq!(rig.supervisor.failures(RelayIndex(0)), 12);
    }
    assert!(distinct.len() > 2_000, "waits differ: {}", distinct.len());
    for (failures, longest) in longest.into_iter().enumerate() {
        let bound = ms(500 << failures).min(ms(30_000));
        assert!(
            longest > bound * 9 / 10,
            "the whole range is used: {longest:?} of {bound:?}"
        );
    }
}

#[test]
fn another_relay_is_dialled_at_once() {
    let mut rig = Rig::started(3, 1);
    assert_eq!(rig.relay, 0);
    assert_eq!(rig.fail(), "[down DialFailed 1], dial 1, [dialling]");
    rig.up();
    rig.pass(ms(20_000));
    assert_eq!(rig.lose(None), "[down Lost(None) 1], dial 2, [dialling]");
    // None is well now; the first to be ready again is next.
    let shown = rig.fail();
    assert!(
        shown == "[down DialFailed 1], [wait 1]" || shown == "[down DialFailed 1], dial 0, [dialling]",
        "{shown}"
    );
    assert_eq!(rig.supervisor.stats().failovers, if rig.relay == 0 { 3 } else { 2 });
}

#[test]
fn dials_and_identifying_time_out_exactly() {
    let mut rig = Rig::started(1, 1);
    assert_eq!(rig.pass(ms(9_999)), "");
    assert_eq!(rig.pass(ms(1)), "abandon 0, [down DialTimeout 1], [wait 0]");
    rig.next();
    let attempt = rig.attempt;
    rig.feed(Event::Connected { attempt });
    assert_eq!(rig.pass(ms(14_999)), "");
    assert_eq!(rig.pass(ms(1)), "abandon 0, [down IdentifyTimeout 2], [wait 0]");
    assert_eq!(rig.lose(None), "-", "the end of what was abandoned");
    assert_eq!(rig.supervisor.stats().stale_events, 1);
}

#[test]
fn a_connection_that_lasted_clears_the_failures() {
    let mut rig = Rig::started(1, 1);
    for _ in 0..5 {
        rig.fail();
        rig.next();
    }
    rig.up();
    rig.pass(ms(9_999));
    assert_eq!(rig.lose(None), "[down Lost(None) 6], [wait 0]", "that was too short");
    rig.next();
    rig.up();
    rig.pass(ms(10_000));
    assert_eq!(rig.lose(None), "[down Lost(None) 1], [wait 0]");
}

#[test]
fn a_draining_relay_is_left_alone_for_a_while() {
    let mut rig = Rig::started(2, 1);
    rig.up();
    rig.pass(ms(60_000));
    rig.lose(Some(Code::DRAINING));
    assert_eq!(rig.relay, 1);
    // However often the other one fails.
    let drained_at = rig.now.mono;
    while rig.relay == 1 {
        rig.fail();
        if rig.supervisor.status() == SupervisorStatus::Waiting {
            rig.next();
        }
    }
    assert_eq!(rig.now.mono.duration_since(drained_at), ms(60_000));

    // With one relay only there is no choice.
    let mut rig = Rig::started(1, 1);
    rig.up();
    rig.lose(Some(Code::DRAINING));
    assert!(rig.waits[0] < ms(550), "{:?}", rig.waits);
}

#[test]
fn whoever_is_displaced_does_not_fight() {
    for code in [Code::DISPLACED, Code::NOT_ALLOWED] {
        let mut rig = Rig::started(1, 1);
        rig.up();
        rig.pass(ms(60_000));
        rig.lose(Some(code));
        assert!(
            rig.waits[0] >= ms(15_000) && rig.waits[0] <= ms(30_050),
            "{:?}",
            rig.waits
        );
    }
}

#[test]
fn starvation_is_not_blamed_on_relays() {
    // The process stands still for a minute; then everything is noticed at once, in either order.
    for timeout_first in [false, true] {
        let mut rig = Rig::started(2, 1);
        rig.up();
        rig.pass(ms(12_000));
        rig.now = rig.now.after(ms(60_000));
        if timeout_first {
            assert_eq!(rig.feed(Event::Timeout), "-");
        }
        assert_eq!(rig.lose(None), "[down Lost(None) 0], [wait 0 starved]");
        assert_eq!(rig.waits, [ms(1_000)]);
        assert_eq!(rig.next(), "dial 0, [dialling]");
        assert_eq!(rig.supervisor.stats().downs_while_starved, 1);
    }
    // A little late is not starved.
    let mut rig = Rig::started(1, 1);
    rig.now = rig.now.after(ms(11_999));
    assert_eq!(rig.feed(Event::Timeout), "abandon 0, [down DialTimeout 1], [wait 0]");
}

#[test]
fn what_the_relay_said_counts_even_if_read_late() {
    let mut rig = Rig::started(2, 1);
    rig.up();
    rig.now = rig.now.after(ms(60_000));
    let shown = rig.lose(Some(Code::DRAINING));
    assert_eq!(shown, "[down Lost(Some(Code(draining))) 1], [wait 1 starved]");
}

#[test]
fn a_process_that_is_always_starved_dials_at_last() {
    let mut rig = Rig::started(1, 1);
    rig.fail();
    let mut settles = 0;
    while rig.supervisor.status() == SupervisorStatus::Waiting {
        let late = rig.supervisor.poll_timeout().expect("a deadline") + ms(5_000);
        rig.now = rig.now.after(late.saturating_duration_since(rig.now.mono));
        rig.feed(Event::Timeout);
        settles += 1;
        assert!(settles < 20, "it waits for ever");
    }
    assert_eq!(settles, 11);
}

#[test]
fn stopping_and_starting_again() {
    let mut rig = Rig::started(1, 1);
    rig.up();
    assert_eq!(rig.feed(Event::Stop), "abandon 0, [stopped]");
    assert_eq!(rig.supervisor.poll_timeout(), None);
    assert_eq!(rig.lose(None), "-");
    assert_eq!(rig.feed(Event::Start), "dial 0, [dialling]");
    rig.up();
}
