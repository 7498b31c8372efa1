//! What programs do with calls: each goes to the session of its link, or stays in the process.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Cx, IncomingCall, RpcId, role::RpcRole};
use crate::{
    Now,
    rpc::{
        Chunk, Fault, Info, Outcome, RecvError, ReplyError, SendError,
        session::{Action, CallId, OpenError, Request, Room, Session, Shared},
    },
};

impl RpcRole {
    pub(super) fn open(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        link: RpcId,
        request: Request,
    ) -> Result<CallId, OpenError> {
        if link == RpcId::LOCAL {
            let (call, incoming) = self.local.open(now, request, &mut self.shared)?;
            self.arrives(cx, incoming);
            return Ok(call);
        }
        let open = |session: &mut Session, shared: &mut Shared, actions: &mut Vec<Action>| {
            session.open(now, request, shared, actions)
        };
        let call = self.on_link(cx, now, link, open).unwrap_or(Err(OpenError::NotUp))?;
        self.calls.insert(call, link);
        Ok(call)
    }

    pub(super) fn next_incoming(&mut self) -> Option<IncomingCall> {
        let next = self.incoming.pop_front();
        self.told_incoming &= next.is_some();
        next
    }

    pub(super) fn send(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        call: CallId,
        chunk: Chunk,
    ) -> Result<(), (SendError, Chunk)> {
        let Some(&link) = self.calls.get(&call) else {
            return self.local.send(now, call, chunk, &mut cx.out);
        };
        let mut chunk = Some(chunk);
        let sent = self.on_link(cx, now, link, |session, _, actions| {
            chunk.take().map(|chunk| session.send(now, call, chunk, actions))
        });
        match (sent, chunk) {
            (Some(Some(sent)), _) => sent,
            (_, chunk) => Err((SendError::SendClosed, chunk.unwrap_or(Chunk::Raw(Bytes::new())))),
        }
    }

    pub(super) fn send_all(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        call: CallId,
        chunks: &mut VecDeque<Chunk>,
    ) -> Result<(), SendError> {
        if let Some(&link) = self.calls.get(&call) {
            return self
                .on_link(cx, now, link, |session, _, actions| {
                    session.send_all(now, call, chunks, actions)
                })
                .unwrap_or(Err(SendError::SendClosed));
        }
        while let Some(chunk) = chunks.pop_front() {
            if let Err((error, chunk)) = self.local.send(now, call, chunk, &mut cx.out) {
                chunks.push_front(chunk);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn recv_many(
        &mut self,
        cx: &mut Cx<'_>,
        now: Now,
        call: CallId,
        room: Room,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), RecvError> {
        if let Some(&link) = self.calls.get(&call) {
            return self
                .on_link(cx, now, link, |session, shared, actions| {
                    session.recv_many(now, call, room, out, shared, actions)
                })
                .unwrap_or(Err(RecvError::Eof));
        }
        let (mut chunks, mut bytes) = (0, 0);
        while chunks < room.chunks && bytes < room.bytes {
            match self.local.recv(now, call, &mut cx.out) {
                Ok(chunk) => {
                    chunks += 1;
                    bytes += chunk.cost();
                    out.push_back(chunk);
                }
                // It is told again when it is asked for again.
                Err(_) if chunks > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn recv(&mut self, cx: &mut Cx<'_>, now: Now, call: CallId) -> Result<Chunk, RecvError> {
        let Some(&link) = self.calls.get(&call) else {
            return self.local.recv(now, call, &mut cx.out);
        };
        self.on_link(cx, now, link, |session, shared, actions| {
            session.recv(now, call, shared, actions)
        })
        .unwrap_or(Err(RecvError::Eof))
    }

    pub(super) fn finish(&mut self, cx: &mut Cx<'_>, now: Now, call: CallId) {
        match self.calls.get(&call) {
            Some(&link) => _ = self.on_link(cx, now, link, |session, _, actions| session.finish(now, call, actions)),
            None => self.local.finish(now, call, &mut cx.out),
        }
    }

    pub(super) fn reply(&mut self, cx: &mut Cx<'_>, now: Now, call: CallId) -> Option<Result<Outcome, ReplyError>> {
        let Some(&link) = self.calls.get(&call) else {
            return self.local.reply(now, call, &mut cx.out);
        };
        self.on_link(cx, now, link, |session, _, actions| session.reply(now, call, actions))
            .unwrap_or(Some(Err(ReplyError::Closed)))
    }

    pub(super) fn set_reply(&mut self, cx: &mut Cx<'_>, now: Now, call: CallId, outcome: Outcome) -> bool {
        let Some(&link) = self.calls.get(&call) else {
            return self.local.set_reply(now, call, outcome, &mut cx.out);
        };
        self.on_link(cx, now, link, |session, _, actions| {
            session.set_reply(now, call, outcome, actions)
        })
        .unwrap_or(false)
    }

    pub(super) fn close_call(&mut self, cx: &mut Cx<'_>, now: Now, call: CallId) {
        match self.calls.get(&call) {
            Some(&link) => _ = self.on_link(cx, now, link, |session, _, actions| session.close(now, call, actions)),
            None => self.local.close(now, call, &mut cx.out),
        }
    }

    pub(super) fn abort(&mut self, cx: &mut Cx<'_>, now: Now, call: CallId, fault: Fault) {
        match self.calls.get(&call) {
            Some(&link) => {
                self.on_link(cx, now, link, |session, _, actions| {
                    session.abort(now, call, fault, actions)
                });
            }
            None => self.local.abort(now, call, fault, &mut cx.out),
        }
    }

    pub(super) fn forget(&mut self, cx: &mut Cx<'_>, now: Now, call: CallId) {
        let Some(link) = self.calls.remove(&call) else {
            return self.local.forget(now, call, &mut cx.out);
        };
        self.on_link(cx, now, link, |session, shared, actions| {
            session.forget(now, call, shared, actions)
        });
        self.reap(link);
    }

    pub(super) fn call_info(&self, call: CallId) -> Option<Info> {
        match self.calls.get(&call) {
            Some(link) => self.links.get(link)?.session.call_info(call),
            None => self.local.info(call),
        }
    }
}
