//! Streaming calls under way: who is at their ends, and when they are over.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Router,
    types::{Action, ConnKey, Refusal, RouterConfig},
};
use crate::{
    Now,
    rpc::{EndRole, Fault, Mode, StreamId},
    wire::rpc::{Message, RawMessage, StreamOpen},
};

/// A call, streaming or unary; never used for a second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RouteId(pub(super) u64);

/// An end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Caller,
    Provider,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) caller: ConnKey,
    pub(super) provider: ConnKey,
    pub(super) body: Body,
    /// When it is over by itself, as things stand.
    pub(super) due: Option<Instant>,
    /// When that is looked at: then or, as activity moves it, before.
    pub(super) deadline: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Body {
    Stream(Stream),
    /// A unary call, by its name at the caller's.
    Call(Bytes),
}

/// What has gone on a streaming call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    /// Its names at either end.
    caller: StreamId,
    provider: StreamId,
    /// What the caller asked for.
    mode: Mode,
    caller_ended: bool,
    provider_ended: bool,
    replied: bool,
}

/// What can still come on a streaming call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Data.
    Open,
    /// The reply, and no data.
    Reply,
    /// By its mode, nothing that means anything.
    Linger,
    Over,
}

impl Stream {
    fn id(&self, side: Side) -> StreamId {
        match side {
            Side::Caller => self.caller,
            Side::Provider => self.provider,
        }
    }

    /// Whether this cannot come from this side (any more).
    fn is_late(&self, side: Side, message: &Message) -> bool {
        let ended = match side {
            Side::Caller => self.caller_ended,
            Side::Provider => self.provider_ended,
        };
        match message {
            Message::StreamData(_)
            | Message::StreamEnd {
                role: EndRole::Send, ..
            } => ended,
            Message::StreamReply { .. } => side == Side::Caller || self.replied,
            _ => false,
        }
    }

    /// Notes what was passed on.
    fn passed(&mut self, side: Side, what: Passed) -> Stage {
        match (what, side) {
            (Passed::End, Side::Caller) => self.caller_ended = true,
            (Passed::End, Side::Provider) => self.provider_ended = true,
            (Passed::Reply, _) => self.replied = true,
            (Passed::Data, _) => {}
            (Passed::Last, _) => return Stage::Over,
        }
        self.stage()
    }

    fn stage(&self) -> Stage {
        let caller_quiet = self.caller_ended || self.mode == Mode::ServerStream;
        let provider_quiet = self.provider_ended || self.mode == Mode::ClientStream;
        match (self.caller_ended && self.provider_ended, self.replied) {
            (true, true) => Stage::Over,
            (true, false) => Stage::Reply,
            (false, true) if caller_quiet && provider_quiet => Stage::Linger,
            (false, _) => Stage::Open,
        }
    }
}

/// What a message means for its call.
#[derive(Debug, Clone, Copy)]
enum Passed {
    Data,
    End,
    Reply,
    Last,
}

impl Passed {
    fn of(message: &Message) -> Self {
        match message {
            Message::StreamEnd {
                role: EndRole::Send, ..
            } => Self::End,
            Message::StreamReply { .. } => Self::Reply,
            Message::StreamData(_) => Self::Data,
            _ => Self::Last,
        }
    }
}

fn patience(stage: Stage, config: &RouterConfig) -> Duration {
    match stage {
        Stage::Open => config.idle,
        Stage::Reply => config.await_reply,
        Stage::Linger | Stage::Over => config.linger,
    }
}

impl Router {
    pub(super) fn stream_opened(
        &mut self,
        now: Now,
        from: ConnKey,
        raw: &RawMessage,
        open: StreamOpen,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConnKey> {
        let (stream, mode, procedure) = (open.stream, open.mode, open.procedure.clone());
        if let Some(&(route, _)) = self.ends.get(&(from, stream)) {
            self.stats.count_refusal(Refusal::Duplicate);
            // It could not tell the answer from one to the call that it has, so both are over.
            self.abort_route(now, route, &Refusal::Duplicate.fault(), actions);
            return Ok(());
        }
        let provider = match self.provider_for(from, &procedure, None) {
            Ok(provider) => provider,
            Err(why) => return self.refuse_stream(from, stream, why, actions),
        };
        if !self.admits(provider, from) {
            return Err(provider);
        }
        // Where the name is taken, the call gets another one.
        let taken = provider == from || self.ends.contains_key(&(provider, stream));
        let theirs = if taken { StreamId(self.rng.bytes()) } else { stream };
        let message = renamed(Message::StreamOpen(open), theirs);
        if self.pass((from, provider), raw, message, taken, actions).is_err() {
            return self.refuse_stream(from, stream, Refusal::BadMessage, actions);
        }
        self.procedures.took(&procedure, provider);
        self.stats.streams += 1;
        self.streams += 1;
        let body = Body::Stream(Stream {
            caller: stream,
            provider: theirs,
            mode,
            caller_ended: false,
            provider_ended: false,
            replied: false,
        });
        let due = now.mono.checked_add(self.config.idle);
        let route = self.add_route(from, provider, body, due);
        self.ends.insert((from, stream), (route, Side::Caller));
        self.ends.insert((provider, theirs), (route, Side::Provider));
        Ok(())
    }

    fn refuse_stream(
        &mut self,
        to: ConnKey,
        stream: StreamId,
        why: Refusal,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConnKey> {
        self.can_answer(to)?;
        self.stats.count_refusal(why);
        let fault = why.fault();
        self.send(to, &Message::StreamError { stream, fault }, actions);
        Ok(())
    }

    /// A message of a call that should be known.
    pub(super) fn for_stream(
        &mut self,
        now: Now,
        from: ConnKey,
        raw: &RawMessage,
        message: Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConnKey> {
        let found = message.stream().and_then(|stream| self.ends.get(&(from, stream)));
        let Some(&(id, side)) = found else {
            self.stats.stray += 1;
            return Ok(());
        };
        let Some(Route {
            caller,
            provider,
            body: Body::Stream(stream),
            ..
        }) = self.routes.get(&id)
        else {
            return Ok(());
        };
        if stream.is_late(side, &message) {
            self.stats.stray += 1;
            return Ok(());
        }
        let (to, name) = match side {
            Side::Caller => (*provider, stream.id(Side::Provider)),
            Side::Provider => (*caller, stream.id(Side::Caller)),
        };
        if !self.admits(to, from) {
            return Err(to);
        }
        let what = Passed::of(&message);
        let differs = stream.id(Side::Caller) != stream.id(Side::Provider);
        match self.pass((from, to), raw, renamed(message, name), differs, actions) {
            Ok(()) => self.advance(now, id, side, what),
            Err(fault) => {
                self.stats.count_refusal(Refusal::BadMessage);
                self.abort_route(now, id, &fault, actions);
            }
        }
        Ok(())
    }

    fn advance(&mut self, now: Now, id: RouteId, side: Side, what: Passed) {
        let Some(Route {
            body: Body::Stream(stream),
            ..
        }) = self.routes.get_mut(&id)
        else {
            return;
        };
        match stream.passed(side, what) {
            Stage::Over => _ = self.end_route(now, id),
            stage => {
                let due = now.mono.checked_add(patience(stage, &self.config));
                self.schedule_route(id, due);
            }
        }
    }

    // ----- the table -----------------------------------------------------------------------------------------------

    pub(super) fn add_route(
        &mut self,
        caller: ConnKey,
        provider: ConnKey,
        body: Body,
        due: Option<Instant>,
    ) -> RouteId {
        let id = RouteId(self.next_route);
        self.next_route += 1;
        let route = Route {
            caller,
            provider,
            body,
            due: None,
            deadline: None,
        };
        self.routes.insert(id, route);
        for key in [caller, provider] {
            if let Some(conn) = self.conns.get_mut(&key) {
                conn.routes.insert(id);
            }
        }
        if let Some(conn) = self.conns.get_mut(&caller) {
            conn.made += 1;
        }
        self.schedule_route(id, due);
        id
    }

    /// Activity only moves the time at which a call is over; the index is looked at when the old time has come.
    fn schedule_route(&mut self, id: RouteId, due: Option<Instant>) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.due = due;
        let sooner = match (due, route.deadline) {
            (Some(due), Some(deadline)) => due < deadline,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        };
        if sooner {
            self.route_deadlines.update(id, route.deadline, due);
            route.deadline = due;
        }
    }

    /// Forgets a call.
    pub(super) fn end_route(&mut self, now: Now, id: RouteId) -> Option<Route> {
        let route = self.unlink(id)?;
        for key in [route.caller, route.provider] {
            self.leave_if_idle(now, key);
        }
        Some(route)
    }

    fn unlink(&mut self, id: RouteId) -> Option<Route> {
        let route = self.routes.remove(&id)?;
        self.route_deadlines.update(id, route.deadline, None);
        for key in [route.caller, route.provider] {
            if let Some(conn) = self.conns.get_mut(&key) {
                conn.routes.remove(&id);
            }
        }
        if let Some(conn) = self.conns.get_mut(&route.caller) {
            conn.made = conn.made.saturating_sub(1);
        }
        if let Body::Stream(stream) = &route.body {
            self.streams = self.streams.saturating_sub(1);
            self.ends.remove(&(route.caller, stream.caller));
            self.ends.remove(&(route.provider, stream.provider));
        }
        Some(route)
    }

    // ----- ends that no side asked for -------------------------------------------------------------------------------

    /// Ends a call with an error that both sides see; a unary one, that its caller sees.
    pub(super) fn abort_route(&mut self, now: Now, id: RouteId, fault: &Fault, actions: &mut Vec<Action>) {
        let Some(route) = self.end_route(now, id) else { return };
        for side in [Side::Caller, Side::Provider] {
            self.tell_end(&route, side, fault, actions);
        }
    }

    /// The connection `gone` was forgotten, and this call of it ends.
    pub(super) fn lose_route(&mut self, id: RouteId, gone: ConnKey, actions: &mut Vec<Action>) {
        let Some(route) = self.unlink(id) else { return };
        self.stats.disconnected += 1;
        let (side, left) = match route.caller == gone {
            true => (Side::Provider, route.provider),
            false => (Side::Caller, route.caller),
        };
        self.tell_end(&route, side, &Fault::disconnected(), actions);
        self.left_behind.push(left);
    }

    fn tell_end(&mut self, route: &Route, side: Side, fault: &Fault, actions: &mut Vec<Action>) {
        let fault = fault.clone();
        match (&route.body, side) {
            (Body::Stream(stream), _) => {
                let to = match side {
                    Side::Caller => route.caller,
                    Side::Provider => route.provider,
                };
                let stream = stream.id(side);
                self.send(to, &Message::StreamError { stream, fault }, actions);
            }
            (Body::Call(call), Side::Caller) => self.send_fault(route.caller, call.clone(), fault, None, actions),
            // There is no message that would take a unary call back.
            (Body::Call(_), Side::Provider) => {}
        }
    }

    pub(super) fn route_due(&mut self, now: Now, id: RouteId, actions: &mut Vec<Action>) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.deadline = None;
        let due = route.due;
        if due.is_some_and(|due| due > now.mono) {
            return self.schedule_route(id, due);
        }
        let fault = match &route.body {
            Body::Stream(stream) if stream.stage() == Stage::Linger => {
                self.end_route(now, id);
                return;
            }
            Body::Stream(_) => {
                self.stats.idle += 1;
                Fault::from_static("timeout", "nothing went on the call for too long")
            }
            Body::Call(_) => {
                self.stats.timeouts += 1;
                Fault::from_static("timeout", "the call was not answered in time")
            }
        };
        self.abort_route(now, id, &fault, actions);
    }
}

/// The same message about the same call by another name.
fn renamed(mut message: Message, name: StreamId) -> Message {
    match &mut message {
        Message::StreamOpen(open) => open.stream = name,
        Message::StreamData(data) => data.stream = name,
        Message::StreamEnd { stream, .. }
        | Message::StreamError { stream, .. }
        | Message::StreamReply { stream, .. } => *stream = name,
        _ => {}
    }
    message
}
