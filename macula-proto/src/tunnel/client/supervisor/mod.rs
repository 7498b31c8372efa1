//! Which relay to dial, and when.
//!
//! ```text
//!          Start                 Connected                Identified
//!  Stopped ─────▶ Dialling ───────────────▶ Identifying ─────────────▶ Up
//!     ▲            │  ▲ 10 s                  │ 15 s                   │
//!     │ Stop       │  │                       │                        │ Lost
//!     │            ▼  │ due                   ▼                        ▼
//!   (any)         Waiting ◀────────────────────────────────────────────┘
//!                    ▲ │ due, but late
//!                    └─┘
//! ```
//!
//! Every state but *Stopped* has a deadline. *Up* has one only to notice that this process was starved: when a deadline is
//! noticed much too late, the machine (not the relay) was at fault, so nothing is counted against a relay, and before the
//! next dial there is a short time to settle.
//!
//! A relay that failed is dialled again after a random part of a time that doubles with each failure in a row; another one
//! that is well is dialled at once. A connection that lasted resets its relay's count. A relay that says it is draining is
//! left alone for a while if there is another one.

mod health;
mod types;

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

pub use types::{Action, Attempt, DownReason, Event, RelayIndex, Report};

use crate::{Code, Now, Rng};
use health::Relays;

/// How long a relay is left alone after it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The random part is below this after the first failure, below twice as much after the second, and so on. Default
    /// 500 ms.
    pub base: Duration,
    /// The random part is never above this. Default 30 s.
    pub cap: Duration,
    /// Added to the random part, so that dials of one relay never follow each other at once. Default 50 ms.
    pub floor: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            floor: Duration::from_millis(50),
        }
    }
}

/// Settings of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupervisorConfig {
    /// How long a relay is left alone after it failed.
    pub backoff: Backoff,
    /// Time for resolving, dialling and the handshake. Default 10 s.
    pub dial_timeout: Duration,
    /// Time for identifying after the handshake: somewhat more than the session's own, which says more. Default 15 s.
    pub identify_timeout: Duration,
    /// A connection that was identified for this long clears the failures of its relay. Default 10 s.
    pub stable_after: Duration,
    /// How long a relay that said it is draining is left alone if there is another one. Default 60 s.
    pub drain_avoid: Duration,
    /// A deadline noticed this much too late means that this process was starved. Default 2 s.
    pub late: Duration,
    /// How long to settle after that before the next dial. Default 1 s.
    pub settle: Duration,
    /// While a relay is up, how often to look whether deadlines are noticed in time. Default 5 s.
    pub check_interval: Duration,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            dial_timeout: Duration::from_secs(10),
            identify_timeout: Duration::from_secs(15),
            stable_after: Duration::from_secs(10),
            drain_avoid: Duration::from_secs(60),
            late: Duration::from_secs(2),
            settle: Duration::from_secs(1),
            check_interval: Duration::from_secs(5),
        }
    }
}

/// Settles in a row after which a dial is made even though this process is still starved.
const MAX_SETTLES: u32 = 10;

/// Counters of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SupervisorStats {
    /// Dials.
    pub dials: u64,
    /// Times that a relay came up.
    pub ups: u64,
    /// Attempts and connections that ended, but for [`Event::Stop`].
    pub downs: u64,
    /// Of those: not counted against the relay because this process was starved.
    pub downs_while_starved: u64,
    /// Dials to another relay than the one before.
    pub failovers: u64,
    /// Times that a deadline was noticed much too late.
    pub starved: u64,
    /// Events of attempts that were over, or at the wrong moment.
    pub stale_events: u64,
}

/// A snapshot of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupervisorStatus {
    /// Not started, or stopped.
    Stopped,
    /// Until the next dial.
    Waiting,
    /// A dial is under way.
    Dialling(RelayIndex),
    /// Connected, not identified.
    Identifying(RelayIndex),
    /// Reachable through this relay.
    Up(RelayIndex),
}

/// Which relay to dial, and when. See the [module](self) for how it behaves.
#[derive(Debug)]
pub struct Supervisor {
    config: SupervisorConfig,
    rng: Rng,
    relays: Relays,
    state: State,
    deadline: Option<Instant>,
    /// When this process was last found starved.
    starved_at: Option<Instant>,
    settles: u32,
    last_dialled: Option<RelayIndex>,
    next_attempt: u64,
    stats: SupervisorStats,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Stopped,
    Waiting,
    Dialling(Try),
    Identifying(Try),
    Up(Try, Instant),
}

#[derive(Debug, Clone, Copy)]
struct Try {
    relay: RelayIndex,
    attempt: Attempt,
}

impl Supervisor {
    /// A stopped supervisor of this many relays. Among relays that are equally well it prefers the earlier one.
    pub fn new(config: SupervisorConfig, relays: NonZeroUsize, rng: Rng) -> Self {
        Self {
            config,
            rng,
            relays: Relays::new(relays),
            state: State::Stopped,
            deadline: None,
            starved_at: None,
            settles: 0,
            last_dialled: None,
            next_attempt: 0,
            stats: SupervisorStats::default(),
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        self.look_at_the_clock(now.mono);
        match event {
            Event::Start => self.start(now.mono, actions),
            Event::DialFailed { attempt } => self.dial_failed(now.mono, attempt, actions),
            Event::Connected { attempt } => self.connected(now.mono, attempt),
            Event::Identified { attempt } => self.identified(now.mono, attempt, actions),
            Event::Lost { attempt, code } => self.lost(now.mono, attempt, code, actions),
            Event::Timeout => self.timeout(now.mono, actions),
            Event::Stop => self.stop(actions),
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Counters.
    pub fn stats(&self) -> SupervisorStats {
        self.stats
    }

    /// A snapshot.
    pub fn status(&self) -> SupervisorStatus {
        match self.state {
            State::Stopped => SupervisorStatus::Stopped,
            State::Waiting => SupervisorStatus::Waiting,
            State::Dialling(current) => SupervisorStatus::Dialling(current.relay),
            State::Identifying(current) => SupervisorStatus::Identifying(current.relay),
            State::Up(current, _) => SupervisorStatus::Up(current.relay),
        }
    }

    /// Failures in a row of a relay; 0 for one that is not there.
    pub fn failures(&self, relay: RelayIndex) -> u32 {
        self.relays.failures(relay)
    }

    fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Stopped) {
            self.next(now, actions);
        } else {
            self.stats.stale_events += 1;
        }
    }

    fn stop(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Stopped) {
            self.stats.stale_events += 1;
            return;
        }
        if let Some(current) = self.current() {
            actions.push(abandon(current));
        }
        self.state = State::Stopped;
        self.deadline = None;
        self.starved_at = None;
        self.settles = 0;
        actions.push(Action::Report(Report::Stopped));
    }

    fn dial_failed(&mut self, now: Instant, attempt: Attempt, actions: &mut Vec<Action>) {
        match self.state {
            State::Dialling(current) if current.attempt == attempt => {
                self.down(now, current, DownReason::DialFailed, actions);
            }
            _ => self.stats.stale_events += 1,
        }
    }

    fn connected(&mut self, now: Instant, attempt: Attempt) {
        match self.state {
            State::Dialling(current) if current.attempt == attempt => {
                self.state = State::Identifying(current);
                self.set_deadline(now, self.config.identify_timeout);
            }
            _ => self.stats.stale_events += 1,
        }
    }

    fn identified(&mut self, now: Instant, attempt: Attempt, actions: &mut Vec<Action>) {
        match self.state {
            // Identified implies connected.
            State::Dialling(current) | State::Identifying(current) if current.attempt == attempt => {
                self.state = State::Up(current, now);
                self.set_deadline(now, self.config.check_interval);
                self.stats.ups += 1;
                actions.push(Action::Report(Report::Up { relay: current.relay }));
            }
            _ => self.stats.stale_events += 1,
        }
    }

    fn lost(&mut self, now: Instant, attempt: Attempt, code: Option<Code>, actions: &mut Vec<Action>) {
        match self.current() {
            Some(current) if current.attempt == attempt => self.down(now, current, DownReason::Lost(code), actions),
            _ => self.stats.stale_events += 1,
        }
    }

    fn timeout(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.state {
            State::Stopped => self.deadline = None,
            State::Waiting => self.next(now, actions),
            State::Dialling(current) => {
                actions.push(abandon(current));
                self.down(now, current, DownReason::DialTimeout, actions);
            }
            State::Identifying(current) => {
                actions.push(abandon(current));
                self.down(now, current, DownReason::IdentifyTimeout, actions);
            }
            State::Up(..) => self.set_deadline(now, self.config.check_interval),
        }
    }

    /// An attempt, or the connection that came of it, is over.
    fn down(&mut self, now: Instant, current: Try, why: DownReason, actions: &mut Vec<Action>) {
        self.stats.downs += 1;
        if let State::Up(_, since) = self.state
            && now.saturating_duration_since(since) >= self.config.stable_after
        {
            self.relays.clear_failures(current.relay);
        }
        // What the relay said stands even if it was read late; a time-out may well be this side's own.
        let said = matches!(why, DownReason::Lost(Some(code)) if code != Code::TIMEOUT);
        if self.is_starved(now) && !said {
            self.stats.downs_while_starved += 1;
        } else {
            self.blame(now, current.relay, why);
        }
        actions.push(Action::Report(Report::Down {
            relay: current.relay,
            why,
            failures: self.relays.failures(current.relay),
        }));
        self.next(now, actions);
    }

    /// Counts a failure against a relay and says when it may be dialled again.
    fn blame(&mut self, now: Instant, relay: RelayIndex, why: DownReason) {
        let Backoff { base, cap, floor } = self.config.backoff;
        let failures = self.relays.fail(relay, now);
        let wait = match why {
            // Somebody else uses this node's name, or the relay does not want this node: soon again would help neither.
            DownReason::Lost(Some(Code::DISPLACED | Code::NOT_ALLOWED)) => cap / 2 + self.rng.duration_below(cap / 2),
            _ => {
                let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
                self.rng.duration_below(base.saturating_mul(doubled).min(cap))
            }
        };
        self.relays.retry_after(relay, now, wait.saturating_add(floor));
        if why == DownReason::Lost(Some(Code::DRAINING)) {
            self.relays.avoid(relay, now, self.config.drain_avoid);
        }
    }

    /// Dials the best relay, or waits until one may be dialled.
    fn next(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let (relay, ready_at) = self.relays.best(now);
        let starved = self.is_starved(now) && self.settles < MAX_SETTLES;
        let mut wait = ready_at.saturating_duration_since(now);
        if starved {
            self.settles += 1;
            wait = wait.max(self.config.settle);
        }
        if wait > Duration::ZERO {
            self.state = State::Waiting;
            self.set_deadline(now, wait);
            actions.push(Action::Report(Report::Waiting {
                relay,
                duration: wait,
                starved,
            }));
        } else {
            self.dial(now, relay, actions);
        }
    }

    fn dial(&mut self, now: Instant, relay: RelayIndex, actions: &mut Vec<Action>) {
        let attempt = Attempt(self.next_attempt);
        self.next_attempt = self.next_attempt.wrapping_add(1);
        self.stats.dials += 1;
        self.settles = 0;
        if self.last_dialled.replace(relay).is_some_and(|last| last != relay) {
            self.stats.failovers += 1;
        }
        self.state = State::Dialling(Try { relay, attempt });
        self.set_deadline(now, self.config.dial_timeout);
        actions.push(Action::Dial { relay, attempt });
        actions.push(Action::Report(Report::Dialling { relay }));
    }

    /// Every event shows how late this process is, not only the time-out that should have come.
    fn look_at_the_clock(&mut self, now: Instant) {
        if self
            .deadline
            .is_some_and(|deadline| now.saturating_duration_since(deadline) >= self.config.late)
        {
            self.starved_at = Some(now);
            self.stats.starved += 1;
        }
    }

    /// Whether this process was found starved within the time that it takes to settle.
    fn is_starved(&self, now: Instant) -> bool {
        self.starved_at
            .is_some_and(|at| now.saturating_duration_since(at) < self.config.settle)
    }

    fn current(&self) -> Option<Try> {
        match self.state {
            State::Dialling(current) | State::Identifying(current) | State::Up(current, _) => Some(current),
            State::Stopped | State::Waiting => None,
        }
    }

    /// At least a millisecond away, so that a configured zero cannot make a busy loop.
    fn set_deadline(&mut self, now: Instant, after: Duration) {
        self.deadline = now.checked_add(after.max(Duration::from_millis(1)));
    }
}

fn abandon(current: Try) -> Action {
    Action::AbandonDial {
        relay: current.relay,
        attempt: current.attempt,
    }
}
