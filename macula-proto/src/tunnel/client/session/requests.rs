//! Tunnels that this node asks for.

use std::time::Instant;

use super::{Action, Announced, RequestError, RequestId, Session, State, Timer};
use crate::{
    Code, Now,
    tunnel::Name,
    wire::control::{Message, Reason, TunnelId},
};

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Sent; waits in the slot with this serial number.
    Asked(u64),
    /// The relay has opened this tunnel; its stream is not there. Announced under this serial number.
    Granted(TunnelId, u64),
}

/// The place of a request among those that the relay has yet to answer.
#[derive(Debug)]
pub(super) struct Slot {
    request: RequestId,
    serial: u64,
    sent: Instant,
}

impl Session {
    pub(super) fn request(&mut self, now: Now, request: RequestId, target: &Name, actions: &mut Vec<Action>) {
        if self.requests.contains_key(&request) {
            self.stats.stale_events += 1;
            return;
        }
        self.stats.requests += 1;
        let limits = &self.config.limits;
        let length = target.as_bytes().len();
        let refused = if self.state != State::Identified {
            Some(RequestError::NotIdentified)
        } else if length == 0 || length > limits.name {
            Some(RequestError::BadTarget)
        } else if self.unanswered.len().max(self.requests.len()) >= limits.pending_requests {
            Some(RequestError::Busy)
        } else {
            None
        };
        if let Some(error) = refused {
            return self.fail(request, error, actions);
        }
        self.timers
            .arm(now.mono, Timer::Request(request), limits.request_timeout);
        let serial = self.serial();
        self.requests.insert(request, Progress::Asked(serial));
        self.unanswered.push_back(Slot {
            request,
            serial,
            sent: now.mono,
        });
        if self.unanswered.len() == 1 {
            self.watch_answers(now);
        }
        let target = target.to_bytes().into();
        self.send(&Message::TunnelRequest { target }, actions);
    }

    /// Ends a request from this side. An answer that is still to come keeps its place; a tunnel that came, or comes later,
    /// is closed.
    pub(super) fn give_up(&mut self, now: Now, request: RequestId, error: RequestError, actions: &mut Vec<Action>) {
        match self.requests.remove(&request) {
            None => return,
            Some(Progress::Asked(_)) => {}
            Some(Progress::Granted(tunnel, serial)) => {
                self.announced.remove(&(tunnel, serial));
                self.refuse_tunnel(now, tunnel, Code::CANCELLED, Reason::from("cancelled"), actions);
            }
        }
        self.fail(request, error, actions);
    }

    pub(super) fn tunnel_ok(&mut self, now: Now, tunnel: TunnelId, actions: &mut Vec<Action>) {
        match self.answered(now) {
            None => self.unexpected(actions),
            Some(None) => {
                self.stats.late_tunnels += 1;
                self.refuse_tunnel(now, tunnel, Code::CANCELLED, Reason::from("cancelled"), actions);
            }
            Some(Some(request)) => self.announce(now, tunnel, Announced::Granted(request), actions),
        }
    }

    pub(super) fn tunnel_error(&mut self, now: Now, reason: Reason, actions: &mut Vec<Action>) {
        match self.answered(now) {
            None => self.unexpected(actions),
            Some(None) => {}
            Some(Some(request)) => {
                self.requests.remove(&request);
                self.fail(request, RequestError::Refused(reason), actions);
            }
        }
    }

    /// The relay has answered its oldest request: which one it was, if it still waits; `None` if there was none at all.
    fn answered(&mut self, now: Now) -> Option<Option<RequestId>> {
        let slot = self.unanswered.pop_front()?;
        self.watch_answers(now);
        let waits = self.requests.get(&slot.request) == Some(&Progress::Asked(slot.serial));
        Some(waits.then_some(slot.request))
    }

    /// Arms the deadline for the answer to the oldest request: twice the time that a request has.
    fn watch_answers(&mut self, now: Now) {
        let Some(slot) = self.unanswered.front() else {
            return self.timers.clear(Timer::Answer);
        };
        let waited = now.mono.saturating_duration_since(slot.sent);
        let most = self.config.limits.request_timeout.saturating_mul(2);
        self.timers.arm(now.mono, Timer::Answer, most.saturating_sub(waited));
    }

    pub(super) fn fail(&mut self, request: RequestId, error: RequestError, actions: &mut Vec<Action>) {
        self.timers.clear(Timer::Request(request));
        self.stats.failed += 1;
        actions.push(Action::RequestFailed { request, error });
    }
}
