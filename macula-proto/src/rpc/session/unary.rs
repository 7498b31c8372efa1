//! Unary calls: one request, one reply.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Phase, Session,
    calls::{Body, Call},
    types::{Action, CallId, Lane, Request, Shared},
};
use crate::{
    Code, Now,
    rpc::{Fault, Outcome, ReplyError},
    wire::{
        Value,
        rpc::{Call as CallMessage, Message, Reply},
    },
};

/// One side of a unary call.
#[derive(Debug)]
pub(super) struct Unary {
    /// As it is on the wire; empty for one that wants no reply.
    pub(super) id: Bytes,
    pub(super) caller: bool,
    pub(super) reply: Option<Result<Outcome, ReplyError>>,
    trace: Option<Value>,
    until: Option<Instant>,
}

impl Unary {
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.reply.is_none() { self.until } else { None }
    }
}

impl Session {
    pub(super) fn unary_call(&mut self, now: Now, request: Request) -> (Unary, Message) {
        let timeout = request.deadline.unwrap_or(self.config.call_timeout);
        let id = hex(self.rng.bytes());
        let unary = Unary {
            id: id.clone(),
            caller: true,
            reply: None,
            trace: None,
            until: now.mono.checked_add(timeout),
        };
        let message = CallMessage {
            call_id: id,
            procedure: request.procedure,
            args: request.args,
            target: request.target,
            timeout: u64::try_from(timeout.as_millis()).ok(),
            trace: None,
        };
        (unary, Message::Call(message))
    }

    /// A unary call that came in; it wants no reply if it has no id.
    pub(super) fn incoming_unary(
        &mut self,
        now: Now,
        lane: Lane,
        id: Bytes,
        trace: Option<Value>,
        timeout: Option<u64>,
        shared: &mut Shared,
    ) -> CallId {
        let call = shared.next_call();
        let until = timeout.and_then(|ms| now.mono.checked_add(Duration::from_millis(ms)));
        let unary = Unary {
            id: id.clone(),
            caller: false,
            reply: None,
            trace,
            until,
        };
        let mut entry = Call::new(Body::Unary(unary));
        entry.lane = Some(lane);
        self.calls.insert(call, entry);
        if lane != Lane::SHARED
            && let Some(state) = self.lanes.get_mut(&lane)
        {
            state.call = Some(call);
        }
        self.schedule(call);
        call
    }

    /// The reply of a call that was made here.
    pub(super) fn unary_reply(&mut self, reply: Reply, actions: &mut Vec<Action>) {
        let known = self.by_call.get(&reply.call_id).copied();
        let settled = known.is_some_and(|call| self.settle_unary(call, Ok(reply.outcome), actions));
        if !settled {
            self.stats.stray += 1;
        }
    }

    /// Answers a call that came in.
    pub(super) fn answer(&mut self, call: CallId, outcome: Outcome, actions: &mut Vec<Action>) -> bool {
        let Some(entry) = self.calls.get_mut(&call) else {
            return false;
        };
        let (Body::Unary(unary), Some(lane)) = (&mut entry.body, entry.lane) else {
            return false;
        };
        if unary.caller || unary.reply.is_some() {
            return false;
        }
        unary.reply = Some(Err(ReplyError::Closed));
        let (call_id, trace) = (unary.id.clone(), unary.trace.take());
        if !call_id.is_empty() {
            self.send_reply(lane, call_id, outcome, trace, actions);
        }
        self.over(call, actions);
        true
    }

    pub(super) fn send_reply(
        &mut self,
        lane: Lane,
        call_id: Bytes,
        outcome: Outcome,
        trace: Option<Value>,
        actions: &mut Vec<Action>,
    ) {
        let reply = Reply {
            call_id: call_id.clone(),
            outcome,
            trace,
        };
        if !self.write(lane, Message::Reply(reply), actions) {
            let fault = Fault::from_static("bad_reply", "the reply cannot be encoded");
            let reply = Reply {
                call_id,
                outcome: Outcome::Err(fault),
                trace: None,
            };
            self.write(lane, Message::Reply(reply), actions);
        }
    }

    /// The owner gives a call up. A call that came in is answered with the fault.
    pub(super) fn cancel_unary(&mut self, call: CallId, fault: Fault, actions: &mut Vec<Action>) {
        let Some(Body::Unary(unary)) = self.calls.get(&call).map(|call| &call.body) else {
            return;
        };
        if unary.reply.is_some() {
            return;
        }
        if unary.caller {
            self.settle_unary(call, Err(ReplyError::Fault(fault)), actions);
        } else {
            self.answer(call, Outcome::Err(fault), actions);
        }
    }

    pub(super) fn expire_unary(&mut self, now: Now, call: CallId, actions: &mut Vec<Action>) {
        let due = match self.calls.get(&call).map(|call| &call.body) {
            Some(Body::Unary(unary)) => unary.deadline().is_some_and(|until| until <= now.mono),
            _ => false,
        };
        if due {
            self.settle_unary(call, Err(ReplyError::Timeout), actions);
        }
    }

    /// Whether this is a unary call that came in.
    pub(super) fn is_asked(&self, call: CallId) -> bool {
        matches!(self.calls.get(&call).map(|call| &call.body), Some(Body::Unary(unary)) if !unary.caller)
    }

    pub(super) fn lose_unary(&mut self, call: CallId, fault: Fault, actions: &mut Vec<Action>) {
        let error = if fault.code == "timeout" {
            ReplyError::Timeout
        } else {
            ReplyError::Fault(fault)
        };
        self.settle_unary(call, Err(error), actions);
    }

    /// Settles a unary call without telling the peer; `false` if it was settled before.
    fn settle_unary(&mut self, call: CallId, reply: Result<Outcome, ReplyError>, actions: &mut Vec<Action>) -> bool {
        let Some(entry) = self.calls.get_mut(&call) else {
            return false;
        };
        let Body::Unary(unary) = &mut entry.body else {
            return false;
        };
        if unary.reply.is_some() {
            return false;
        }
        let given_up = reply.is_err();
        let late = reply == Err(ReplyError::Timeout);
        unary.reply = Some(reply);
        let lane = entry.lane;
        if unary.caller {
            actions.push(Action::Replied(call));
        }
        self.over(call, actions);
        // On a stream of its own the peer learns that nobody waits.
        if given_up
            && let Some(lane) = lane
            && lane != Lane::SHARED
            && self.lanes.remove(&lane).is_some()
        {
            // It may overtake what is said on the shared lane about the end of the link.
            let code = match self.phase {
                Phase::Over => Code::CLOSED,
                // The times of both sides run out together; whose first, is all the same.
                _ if late => Code::TIMEOUT,
                _ => Code::CANCELLED,
            };
            actions.push(Action::Abandon(lane, code));
        }
        true
    }

    fn over(&mut self, call: CallId, actions: &mut Vec<Action>) {
        self.schedule(call);
        self.release_lane(call, actions);
        actions.push(Action::Finished(call));
    }
}

/// 16 characters that nobody else has: deployed peers take text, signed frames 16 bytes.
fn hex(bytes: [u8; 8]) -> Bytes {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or(b'0'))
        .collect::<Vec<u8>>()
        .into()
}
