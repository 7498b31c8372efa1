//! Which relay a node dials, and when.

use std::num::NonZeroUsize;

use arbitrary::{Arbitrary, Unstructured};
use macula_proto::{
    Code, Rng,
    tunnel::client::supervisor::{
        Action, Attempt, DownReason, Event, Report, Supervisor, SupervisorConfig, SupervisorStatus,
    },
};

use crate::script::{at, ms, operations, start};

#[derive(Debug, Arbitrary)]
enum Op {
    Start,
    Stop,
    /// Of the attempt so many before the last one.
    Failed(u8),
    Connected(u8),
    Identified(u8),
    Lost(u8, Option<u8>),
    Sleep(u16),
    Due,
    /// The deadline passed long ago: this process was not running.
    Starved(u8),
}

/// Whatever becomes of its dials: there is one attempt at a time, each with one end; every state but the stopped one has a
/// deadline; and no relay is dialled more often than its back-off lets it.
pub fn supervisor(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(relays) = data.arbitrary::<u8>() else { return };
    let relays = NonZeroUsize::new(usize::from(relays % 4) + 1).expect("at least one");
    let config = SupervisorConfig::default();
    let mut supervisor = Supervisor::new(config, relays, Rng::from_seed(1));
    let (mut now, mut live, mut next, mut up) = (start(), None::<Attempt>, 0, false);
    for op in operations::<Op>(data, 400) {
        let attempt = |back: u8| Attempt(u64::saturating_sub(next, u64::from(back) + 1));
        let event = match op {
            Op::Start => Event::Start,
            Op::Stop => Event::Stop,
            Op::Failed(back) => Event::DialFailed { attempt: attempt(back) },
            Op::Connected(back) => Event::Connected { attempt: attempt(back) },
            Op::Identified(back) => Event::Identified { attempt: attempt(back) },
            Op::Lost(back, code) => Event::Lost {
                attempt: attempt(back),
                code: code.and_then(|code| Code::new(0x100 + u64::from(code % 16))),
            },
            Op::Sleep(time) => {
                now = now.after(ms(time.into()));
                Event::Timeout
            }
            Op::Due => {
                now = at(now, supervisor.poll_timeout());
                Event::Timeout
            }
            Op::Starved(seconds) => {
                now = at(now, supervisor.poll_timeout()).after(ms(u64::from(seconds) * 1000));
                Event::Timeout
            }
        };
        let mut actions = Vec::new();
        supervisor.handle(now, event, &mut actions);
        for action in actions {
            match action {
                Action::Dial { relay, attempt } => {
                    assert!(relay.0 < relays.get(), "no such relay");
                    assert_eq!(live, None, "two attempts at a time");
                    assert_eq!(attempt.0, next, "an attempt is counted twice, or not");
                    live = Some(attempt);
                    next += 1;
                }
                Action::AbandonDial { attempt, .. } => {
                    assert_eq!(live.take(), Some(attempt), "given up without being there");
                    up = false;
                }
                Action::Report(Report::Up { .. }) => {
                    assert!(live.is_some() && !up, "up without an attempt, or twice");
                    up = true;
                }
                Action::Report(Report::Down { why, .. }) => {
                    if !matches!(why, DownReason::DialTimeout | DownReason::IdentifyTimeout) {
                        assert!(live.take().is_some(), "down without having been dialled");
                    }
                    up = false;
                }
                Action::Report(_) => {}
            }
        }
        let status = supervisor.status();
        assert_eq!(matches!(status, SupervisorStatus::Up(_)), up);
        let trying = matches!(
            status,
            SupervisorStatus::Dialling(_) | SupervisorStatus::Identifying(_) | SupervisorStatus::Up(_)
        );
        assert_eq!(trying, live.is_some(), "{status:?}");
        let stopped = status == SupervisorStatus::Stopped;
        assert_eq!(
            supervisor.poll_timeout().is_none(),
            stopped,
            "a state without a way out: {status:?}"
        );
        if event == Event::Timeout {
            assert!(
                supervisor.poll_timeout().is_none_or(|due| due > now.mono),
                "a deadline that is over"
            );
        }
    }
    supervisor.handle(now, Event::Stop, &mut Vec::new());
    assert_eq!(
        (supervisor.status(), supervisor.poll_timeout()),
        (SupervisorStatus::Stopped, None)
    );
}
