//! Unary calls, and whom a call goes to.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Router,
    routes::{Body, Route, RouteId},
    types::{Action, ConnKey, Refusal},
};
use crate::{
    Now,
    rpc::{Fault, Outcome},
    wire::{
        DecodeLimits, Encoding, Value,
        rpc::{Call, Chunk, Message, RawMessage, Reply},
    },
};

/// Longest name of a unary call that is taken, in bytes.
const CALL_ID: usize = 256;

impl Router {
    /// Whom a call goes to: the next in turn of those who serve the procedure, and have room.
    pub(super) fn provider_for(
        &self,
        from: ConnKey,
        procedure: &Bytes,
        target: Option<&Bytes>,
    ) -> Result<ConnKey, Refusal> {
        let limits = &self.config.limits;
        let made = self.conns.get(&from).map_or(0, |conn| conn.made);
        if self.draining {
            return Err(Refusal::Draining);
        }
        if made >= limits.routes || self.routes.len() >= limits.all_routes {
            return Err(Refusal::Limit);
        }
        let fits = |key: &ConnKey| target.is_none_or(|target| self.is_called(*key, target));
        let mut first = None;
        for key in self.procedures.in_turn(procedure).filter(fits) {
            if self.admits(key, from) {
                return Ok(key);
            }
            first = first.or(Some(key));
        }
        first.ok_or(Refusal::NotFound)
    }

    /// Whether a node has this name, or this id as bytes or hexadecimal digits.
    fn is_called(&self, key: ConnKey, target: &Bytes) -> bool {
        let Some(conn) = self.conns.get(&key) else { return false };
        let by_id = |id: &Bytes| id == target || hex(id).eq(target.iter().map(u8::to_ascii_lowercase));
        conn.name.as_ref() == Some(target) || conn.node_id.as_ref().is_some_and(by_id)
    }

    pub(super) fn called(
        &mut self,
        now: Now,
        from: ConnKey,
        raw: &RawMessage,
        mut call: Call,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConnKey> {
        let procedure = call.procedure.clone();
        if call.call_id.is_empty() {
            // It wants no reply.
            return self.cast(from, raw, &procedure, Message::Call(call), actions);
        }
        let chosen = match call.call_id.len() > CALL_ID {
            true => Err(Refusal::Limit),
            false => self.provider_for(from, &procedure, call.target.as_ref()),
        };
        let provider = match chosen {
            Ok(provider) => provider,
            Err(why) => return self.refuse_call(from, call, why, actions),
        };
        if !self.admits(provider, from) {
            return Err(provider);
        }
        let timeout = call.timeout.map_or(self.config.call_timeout, Duration::from_millis);
        let due = now.mono.checked_add(timeout.min(self.config.max_call_timeout));
        // The name must not keep a receive buffer alive.
        let theirs = Bytes::copy_from_slice(&call.call_id);
        call.call_id = own_name(RouteId(self.next_route));
        let message = Message::Call(call);
        if self.pass((from, provider), raw, message, true, actions).is_err() {
            self.stats.count_refusal(Refusal::BadMessage);
            self.send_fault(from, theirs, Refusal::BadMessage.fault(), None, actions);
            return Ok(());
        }
        self.procedures.took(&procedure, provider);
        self.stats.calls += 1;
        self.add_route(from, provider, Body::Call(theirs), due);
        Ok(())
    }

    fn refuse_call(&mut self, to: ConnKey, call: Call, why: Refusal, actions: &mut Vec<Action>) -> Result<(), ConnKey> {
        self.can_answer(to)?;
        self.stats.count_refusal(why);
        self.send_fault(to, call.call_id, why.fault(), call.trace, actions);
        Ok(())
    }

    /// A call without a reply: whatever becomes of it, nobody is told.
    pub(super) fn cast(
        &mut self,
        from: ConnKey,
        raw: &RawMessage,
        procedure: &Bytes,
        message: Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConnKey> {
        let target = match &message {
            Message::Call(call) => call.target.clone(),
            _ => None,
        };
        let provider = match self.provider_for(from, procedure, target.as_ref()) {
            Ok(provider) => provider,
            Err(why) => {
                self.stats.count_refusal(why);
                return Ok(());
            }
        };
        if !self.admits(provider, from) {
            return Err(provider);
        }
        match self.pass((from, provider), raw, message, false, actions) {
            Ok(()) => {
                self.procedures.took(procedure, provider);
                self.stats.calls += 1;
            }
            Err(_) => self.stats.count_refusal(Refusal::BadMessage),
        }
        Ok(())
    }

    pub(super) fn replied(
        &mut self,
        now: Now,
        from: ConnKey,
        raw: &RawMessage,
        mut reply: Reply,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConnKey> {
        let Some((id, caller, theirs)) = self.asked(from, &reply.call_id) else {
            self.stats.stray += 1;
            return Ok(());
        };
        if !self.admits(caller, from) {
            return Err(caller);
        }
        reply.call_id = theirs;
        match self.pass((from, caller), raw, Message::Reply(reply), true, actions) {
            Ok(()) => _ = self.end_route(now, id),
            Err(fault) => {
                self.stats.count_refusal(Refusal::BadMessage);
                self.abort_route(now, id, &fault, actions);
            }
        }
        Ok(())
    }

    /// The call that this node was asked under this name.
    fn asked(&self, provider: ConnKey, name: &Bytes) -> Option<(RouteId, ConnKey, Bytes)> {
        let id = parse_name(name)?;
        match self.routes.get(&id)? {
            Route {
                provider: asked,
                caller,
                body: Body::Call(theirs),
                ..
            } if *asked == provider => Some((id, *caller, theirs.clone())),
            _ => None,
        }
    }

    pub(super) fn send_fault(
        &mut self,
        to: ConnKey,
        call_id: Bytes,
        fault: Fault,
        trace: Option<Value>,
        actions: &mut Vec<Action>,
    ) {
        let outcome = Outcome::Err(fault);
        let reply = Reply {
            call_id,
            outcome,
            trace,
        };
        self.send(to, &Message::Reply(reply), actions);
    }

    /// A message that finds no room will not be passed on: its call is over.
    pub(super) fn give_up(&mut self, now: Now, from: ConnKey, raw: &RawMessage, actions: &mut Vec<Action>) {
        self.stats.stalled += 1;
        let fault = Fault::from_static("limit", "the receiver takes nothing");
        let Ok((message, _)) = raw.decode(&DecodeLimits::default()) else {
            return;
        };
        match message {
            Message::StreamOpen(open) if self.can_answer(from).is_ok() => {
                let stream = open.stream;
                self.send(from, &Message::StreamError { stream, fault }, actions);
            }
            Message::Call(call) if !call.call_id.is_empty() && self.can_answer(from).is_ok() => {
                self.send_fault(from, call.call_id, fault, call.trace, actions);
            }
            Message::Reply(reply) => {
                if let Some((id, ..)) = self.asked(from, &reply.call_id) {
                    self.abort_route(now, id, &fault, actions);
                }
            }
            message => {
                let known = message.stream().and_then(|stream| self.ends.get(&(from, stream)));
                if let Some(&(id, _)) = known
                    && !matches!(message, Message::StreamOpen(_))
                {
                    self.abort_route(now, id, &fault, actions);
                }
            }
        }
    }
}

/// The router's name of a unary call: 16 characters, which is what deployed peers use.
fn own_name(id: RouteId) -> Bytes {
    Bytes::from(format!("{:016x}", id.0))
}

fn parse_name(name: &Bytes) -> Option<RouteId> {
    let digits = std::str::from_utf8(name).ok().filter(|name| name.len() == 16)?;
    let id = u64::from_str_radix(digits, 16).ok().map(RouteId)?;
    (own_name(id) == *name).then_some(id)
}

fn hex(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| match digit {
        0..=9 => b'0' + digit,
        _ => b'a' + (digit - 10),
    })
}

/// Makes the values of a message such as the other encoding can carry them: deployed peers of MessagePack know no text, and text
/// in CBOR is UTF-8.
pub(super) fn translate(message: &mut Message, to: Encoding) {
    match message {
        Message::Call(call) => {
            translate_value(&mut call.args, to);
            call.trace.iter_mut().for_each(|trace| translate_value(trace, to));
        }
        Message::Reply(reply) => {
            translate_outcome(&mut reply.outcome, to);
            reply.trace.iter_mut().for_each(|trace| translate_value(trace, to));
        }
        Message::Cast { args, .. } => translate_value(args, to),
        Message::StreamOpen(open) => translate_value(&mut open.args, to),
        Message::StreamReply { outcome, .. } => translate_outcome(outcome, to),
        Message::StreamData(data) => {
            if let Chunk::Term(value) = &mut data.chunk {
                translate_value(value, to);
            }
        }
        _ => {}
    }
}

fn translate_outcome(outcome: &mut Outcome, to: Encoding) {
    if let Outcome::Ok(value) = outcome {
        translate_value(value, to);
    }
}

/// As deep as values are decoded, and no deeper.
fn translate_value(value: &mut Value, to: Encoding) {
    match value {
        Value::Text(text) if to == Encoding::MessagePack || std::str::from_utf8(text).is_err() => {
            *value = Value::Bytes(std::mem::take(text));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| translate_value(item, to)),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            translate_value(key, to);
            translate_value(value, to);
        }),
        _ => {}
    }
}
