//! What nodes say, message by message.

use bytes::Bytes;

use super::{
    Router,
    types::{Action, ConnKey, Refusal},
};
use crate::{
    Code, Now,
    rpc::Fault,
    wire::{
        DecodeLimits,
        rpc::{Bad, Connect, Kind, Message, RawMessage},
    },
};

/// Longest part kept of what a node says it is called, in bytes.
const NAME: usize = 255;

impl Router {
    pub(super) fn received(&mut self, now: Now, from: ConnKey, bytes: Bytes, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(&from) else { return };
        conn.decoder.push(bytes);
        self.pump(now, from, actions);
    }

    /// Takes messages until there is none, or one finds no room.
    pub(super) fn pump(&mut self, now: Now, from: ConnKey, actions: &mut Vec<Action>) {
        while let Some(conn) = self.conns.get_mut(&from)
            && conn.held.is_none()
            && let Some(next) = conn.decoder.next_raw()
        {
            match next {
                Ok(raw) => {
                    if let Ok(kind) = raw.kind() {
                        self.stats.count_message(kind);
                    }
                    self.take(now, from, raw, actions);
                }
                Err(_) => self.fail(from, "a message is too long", actions),
            }
        }
    }

    /// Takes one message, or keeps it until there is room for it.
    pub(super) fn take(&mut self, now: Now, from: ConnKey, raw: RawMessage, actions: &mut Vec<Action>) {
        match raw.decode(&DecodeLimits::default()) {
            Ok((message, encoding)) => {
                self.heard(from, encoding);
                if let Err(full) = self.dispatch(now, from, &raw, message, actions) {
                    self.hold(now, from, full, raw, actions);
                }
            }
            Err(bad) => self.bad(now, from, &bad, actions),
        }
    }

    /// Does what a message wants.
    ///
    /// # Errors
    /// Who has no room for it. Nothing was done then.
    fn dispatch(
        &mut self,
        now: Now,
        from: ConnKey,
        raw: &RawMessage,
        message: Message,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConnKey> {
        match message {
            Message::StreamOpen(open) => return self.stream_opened(now, from, raw, open, actions),
            Message::StreamData(_)
            | Message::StreamEnd { .. }
            | Message::StreamError { .. }
            | Message::StreamReply { .. } => return self.for_stream(now, from, raw, message, actions),
            Message::Call(call) => return self.called(now, from, raw, call, actions),
            Message::Reply(reply) => return self.replied(now, from, raw, reply, actions),
            Message::Cast { ref procedure, .. } => {
                let procedure = procedure.clone();
                return self.cast(from, raw, &procedure, message, actions);
            }
            Message::Ping { timestamp } => {
                self.can_answer(from)?;
                let server_time = Some(now.unix_ms);
                self.send(from, &Message::Pong { timestamp, server_time }, actions);
            }
            Message::Connect(connect) => self.introduced(from, &connect),
            Message::RegisterProcedure { procedure } => self.register(from, &procedure),
            Message::Disconnect { .. } => self.close(from, Code::CLOSED, "bye", actions),
            _ => self.stats.ignored += 1,
        }
        Ok(())
    }

    /// A node says who it is. It gets no answer: its ping does.
    fn introduced(&mut self, from: ConnKey, connect: &Connect) {
        let kept = |said: &Bytes| Bytes::copy_from_slice(said.get(..said.len().min(NAME)).unwrap_or_default());
        if let Some(conn) = self.conns.get_mut(&from) {
            conn.node_id = Some(kept(&connect.node_id)).filter(|id| !id.is_empty());
            conn.name = connect.node_name.as_ref().map(kept).filter(|name| !name.is_empty());
        }
    }

    fn register(&mut self, from: ConnKey, procedure: &Bytes) {
        let limits = self.config.limits;
        let Some(conn) = self.conns.get(&from) else { return };
        if conn.registered.contains(procedure) {
            return;
        }
        let length = procedure.len();
        let full = conn.registered.len() >= limits.registrations || self.procedures.count() >= limits.all_registrations;
        let refused = match () {
            () if self.draining => Some(Refusal::Draining),
            () if full || length == 0 || length > limits.procedure => Some(Refusal::Limit),
            () => None,
        };
        if let Some(why) = refused {
            return self.stats.count_refusal(why);
        }
        // The name must not keep a receive buffer alive.
        let procedure = Bytes::copy_from_slice(procedure);
        self.supersede(from, &procedure);
        if let Some(conn) = self.conns.get_mut(&from) {
            conn.registered.insert(procedure.clone());
            self.procedures.add(procedure, from);
            self.stats.registered += 1;
        }
    }

    /// A node that came back serves its procedures on its new connection: what lingers of the old one gets no new calls.
    fn supersede(&mut self, from: ConnKey, procedure: &Bytes) {
        let Some(id) = self.conns.get(&from).and_then(|conn| conn.node_id.clone()) else {
            return;
        };
        let same = |key: &ConnKey| {
            self.conns
                .get(key)
                .is_some_and(|conn| conn.node_id.as_ref() == Some(&id))
        };
        let old: Vec<ConnKey> = self.procedures.in_turn(procedure).filter(same).collect();
        for key in old {
            self.procedures.remove(procedure, key);
            if let Some(conn) = self.conns.get_mut(&key) {
                conn.registered.remove(procedure);
            }
        }
    }

    // ----- faults --------------------------------------------------------------------------------------------------

    /// A message that cannot be read costs its call, and too many of them the connection.
    fn bad(&mut self, now: Now, from: ConnKey, bad: &Bad, actions: &mut Vec<Action>) {
        self.stats.malformed += 1;
        let Some(conn) = self.conns.get_mut(&from) else { return };
        conn.malformed += 1;
        if bad.is_fatal() || conn.malformed > self.config.limits.malformed {
            return self.fail(from, "too many bad messages", actions);
        }
        let Some(stream) = bad.stream else { return };
        let fault = Fault::new("bad_message", bad.error.to_string());
        match self.ends.get(&(from, stream)) {
            Some(&(route, _)) => self.abort_route(now, route, &fault, actions),
            None if bad.kind == Some(Kind::StreamOpen) => {
                self.send(from, &Message::StreamError { stream, fault }, actions);
            }
            None => self.stats.stray += 1,
        }
    }

    fn fail(&mut self, from: ConnKey, words: &'static str, actions: &mut Vec<Action>) {
        self.stats.failed += 1;
        self.close(from, Code::PROTOCOL, words, actions);
    }
}
