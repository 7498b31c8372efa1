//! Calls between programs of one endpoint: no bytes, no link, the same behaviour.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use super::{IncomingCall, RpcEvent, RpcId};
use crate::{
    Now,
    deadlines::Deadlines,
    endpoint::Event as Out,
    rpc::{
        Chunk, Fault, Info, Kind, Outcome, RecvError, ReplyError, Role, SendError, StreamId,
        pair::Pair,
        session::{CallId, Incoming, OpenError, Request, Shared},
        stream::{Action, Config, Event, ReplyState, WaiterId},
    },
};

/// How long a unary call waits for its reply if it does not say.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls that may be under way at once.
const MAX_CALLS: usize = 65_536;
/// The owner polls.
const POLL: WaiterId = WaiterId(0);

/// All local calls.
#[derive(Debug, Default)]
pub(super) struct Local {
    sides: HashMap<CallId, (u64, Role)>,
    calls: BTreeMap<u64, LocalCall>,
    next: u64,
    deadlines: Deadlines<u64>,
}

#[derive(Debug)]
struct LocalCall {
    body: Body,
    client: Option<CallId>,
    server: Option<CallId>,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Body {
    Stream(Box<Pair>),
    Unary {
        reply: Option<Result<Outcome, ReplyError>>,
        until: Option<Instant>,
    },
}

#[derive(Default)]
struct Answers {
    refused: Option<(SendError, Chunk)>,
    received: Option<Result<Chunk, RecvError>>,
    replied: Option<Result<Outcome, ReplyError>>,
}

impl Local {
    pub(super) fn open(
        &mut self,
        now: Now,
        request: Request,
        shared: &mut Shared,
    ) -> Result<(CallId, IncomingCall), OpenError> {
        if self.calls.len() >= MAX_CALLS {
            return Err(OpenError::Busy);
        }
        let kind = match (request.kind, shared.registry.kind(&request.procedure)) {
            (Kind::Stream(_), Some(kind @ Kind::Stream(_))) => kind,
            (Kind::Unary, Some(Kind::Unary)) => Kind::Unary,
            _ => return Err(OpenError::NotFound),
        };
        let key = self.next;
        self.next += 1;
        let (client, server) = (shared.next_call(), shared.next_call());
        let after = |time: Duration| now.mono.checked_add(time);
        let body = match kind {
            Kind::Stream(mode) => {
                // Nobody else sees the id.
                let mut id = [0; 16];
                id[8..].copy_from_slice(&key.to_be_bytes());
                let config = Config {
                    deadline: request.deadline.and_then(after),
                    idle: request.idle,
                    ..Config::default()
                };
                let pair = Pair::new(StreamId(id), mode, config, Config::default(), now.mono);
                Body::Stream(Box::new(pair))
            }
            Kind::Unary => Body::Unary {
                reply: None,
                until: after(request.deadline.unwrap_or(CALL_TIMEOUT)),
            },
        };
        let call = LocalCall {
            body,
            client: Some(client),
            server: Some(server),
            deadline: None,
        };
        self.calls.insert(key, call);
        self.sides.insert(client, (key, Role::Client));
        self.sides.insert(server, (key, Role::Server));
        self.schedule(key);
        let incoming = Incoming {
            call: server,
            procedure: request.procedure,
            kind,
            args: request.args,
            term: None,
            timeout: request.deadline,
        };
        let link = RpcId::LOCAL;
        Ok((client, IncomingCall { link, incoming }))
    }

    pub(super) fn send(
        &mut self,
        now: Now,
        call: CallId,
        chunk: Chunk,
        out: &mut Vec<Out>,
    ) -> Result<(), (SendError, Chunk)> {
        if !matches!(self.body(call), Some(Body::Stream(_))) {
            return Err((SendError::SendClosed, chunk));
        }
        self.ask(now, call, Event::Send(chunk), out).refused.map_or(Ok(()), Err)
    }

    pub(super) fn recv(&mut self, now: Now, call: CallId, out: &mut Vec<Out>) -> Result<Chunk, RecvError> {
        let recv = Event::Recv {
            waiter: POLL,
            until: Some(now.mono),
        };
        self.ask(now, call, recv, out).received.unwrap_or(Err(RecvError::Eof))
    }

    pub(super) fn reply(&mut self, now: Now, call: CallId, out: &mut Vec<Out>) -> Option<Result<Outcome, ReplyError>> {
        match self.body(call) {
            None => return Some(Err(ReplyError::Closed)),
            Some(Body::Unary { reply, .. }) => return reply.clone(),
            Some(Body::Stream(_)) => {}
        }
        let ask = Event::AwaitReply {
            waiter: POLL,
            until: Some(now.mono),
        };
        match self.ask(now, call, ask, out).replied {
            Some(Err(ReplyError::WouldBlock)) => None,
            replied => replied,
        }
    }

    pub(super) fn finish(&mut self, now: Now, call: CallId, out: &mut Vec<Out>) {
        self.ask(now, call, Event::CloseSend, out);
    }

    pub(super) fn close(&mut self, now: Now, call: CallId, out: &mut Vec<Out>) {
        self.ask(now, call, Event::Close, out);
    }

    pub(super) fn abort(&mut self, now: Now, call: CallId, fault: Fault, out: &mut Vec<Out>) {
        self.ask(now, call, Event::Abort(fault.clone()), out);
        match self.sides.get(&call) {
            Some(&(key, Role::Client)) => self.settle(key, Err(ReplyError::Fault(fault)), out),
            Some(&(key, Role::Server)) => self.settle(key, Ok(Outcome::Err(fault)), out),
            None => false,
        };
    }

    pub(super) fn set_reply(&mut self, now: Now, call: CallId, outcome: Outcome, out: &mut Vec<Out>) -> bool {
        let Some(&(key, Role::Server)) = self.sides.get(&call) else {
            return false;
        };
        let open = match self.calls.get(&key).map(|call| &call.body) {
            Some(Body::Stream(pair)) => pair.side(Role::Server).info().reply == ReplyState::Unset,
            Some(Body::Unary { .. }) => return self.settle(key, Ok(outcome), out),
            None => false,
        };
        let event = match outcome {
            Outcome::Ok(value) => Event::SetReply(value),
            Outcome::Err(fault) => Event::SetError(fault),
        };
        self.ask(now, call, event, out);
        open
    }

    pub(super) fn forget(&mut self, now: Now, call: CallId, out: &mut Vec<Out>) {
        let Some(&(key, role)) = self.sides.get(&call) else {
            return;
        };
        let fault = match role {
            Role::Client => Fault::cancelled(),
            Role::Server => Fault::owner_down(),
        };
        if let Some(entry) = self.calls.get_mut(&key) {
            // It hears nothing of this any more.
            match role {
                Role::Client => entry.client = None,
                Role::Server => entry.server = None,
            }
        }
        self.abort(now, call, fault, out);
        self.sides.remove(&call);
        if let Some(entry) = self.calls.get(&key)
            && entry.client.is_none()
            && entry.server.is_none()
        {
            self.deadlines.update(key, entry.deadline, None);
            self.calls.remove(&key);
        }
    }

    pub(super) fn info(&self, call: CallId) -> Option<Info> {
        let (_, role) = self.sides.get(&call)?;
        match self.body(call)? {
            Body::Stream(pair) => Some(pair.side(*role).info()),
            Body::Unary { .. } => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.earliest()
    }

    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        while let Some(key) = self.deadlines.pop_due(now.mono) {
            let Some(entry) = self.calls.get_mut(&key) else {
                continue;
            };
            entry.deadline = None;
            match &mut entry.body {
                Body::Stream(pair) => {
                    let mut actions = Vec::new();
                    pair.handle_timeout(now.mono, &mut actions);
                    self.apply(key, actions, &mut Answers::default(), Role::Client, out);
                    self.schedule(key);
                }
                Body::Unary { .. } => _ = self.settle(key, Err(ReplyError::Timeout), out),
            }
        }
    }

    // ----- inside --------------------------------------------------------------------------------------------------

    fn body(&self, call: CallId) -> Option<&Body> {
        let (key, _) = self.sides.get(&call)?;
        Some(&self.calls.get(key)?.body)
    }

    fn ask(&mut self, now: Now, call: CallId, event: Event, out: &mut Vec<Out>) -> Answers {
        let mut answers = Answers::default();
        let Some(&(key, role)) = self.sides.get(&call) else {
            return answers;
        };
        let Some(LocalCall {
            body: Body::Stream(pair),
            ..
        }) = self.calls.get_mut(&key)
        else {
            return answers;
        };
        let mut actions = Vec::new();
        pair.handle(now.mono, role, event, &mut actions);
        self.apply(key, actions, &mut answers, role, out);
        self.schedule(key);
        answers
    }

    /// Tells both sides what happened; answers are for the one who asked.
    fn apply(
        &mut self,
        key: u64,
        actions: Vec<(Role, Action)>,
        answers: &mut Answers,
        asked: Role,
        out: &mut Vec<Out>,
    ) {
        let Some(entry) = self.calls.get(&key) else { return };
        for (role, action) in actions {
            let side = match role {
                Role::Client => entry.client,
                Role::Server => entry.server,
            };
            let event = match (action, side) {
                (Action::Received { result, .. }, _) if role == asked => {
                    answers.received = Some(result);
                    continue;
                }
                (Action::Replied { result, .. }, _) if role == asked => {
                    answers.replied = Some(result);
                    continue;
                }
                (Action::SendRefused { chunk, error }, _) if role == asked => {
                    answers.refused = Some((error, chunk));
                    continue;
                }
                (Action::Readable, Some(call)) => RpcEvent::Readable(call),
                (Action::ReplyReady, Some(call)) => RpcEvent::Replied(call),
                (Action::SendReady, Some(call)) => RpcEvent::SendReady(call),
                (Action::Finished, Some(call)) => RpcEvent::Finished(call),
                _ => continue,
            };
            out.push(Out::Rpc(event));
        }
    }

    /// Settles a unary call, once, and tells both sides.
    fn settle(&mut self, key: u64, outcome: Result<Outcome, ReplyError>, out: &mut Vec<Out>) -> bool {
        let Some(entry) = self.calls.get_mut(&key) else {
            return false;
        };
        let Body::Unary {
            reply: reply @ None, ..
        } = &mut entry.body
        else {
            return false;
        };
        *reply = Some(outcome);
        if let Some(call) = entry.client {
            out.push(Out::Rpc(RpcEvent::Replied(call)));
            out.push(Out::Rpc(RpcEvent::Finished(call)));
        }
        if let Some(call) = entry.server {
            out.push(Out::Rpc(RpcEvent::Finished(call)));
        }
        self.schedule(key);
        true
    }

    fn schedule(&mut self, key: u64) {
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let deadline = match &entry.body {
            Body::Stream(pair) => pair.poll_timeout(),
            Body::Unary { reply: None, until } => *until,
            Body::Unary { .. } => None,
        };
        self.deadlines.update(key, entry.deadline, deadline);
        entry.deadline = deadline;
    }
}
