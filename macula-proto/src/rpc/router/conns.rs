//! Connections: what is kept for each, and who waits for whom.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Router,
    outbox::Outbox,
    routes::RouteId,
    types::{Action, ConnKey},
};
use crate::{
    Code, Now,
    rpc::Fault,
    wire::{
        DecodeLimits, Encoding,
        rpc::{Decoder, Message, RawMessage},
    },
};

/// How much one of those who send to the same connection may send to it in a round, when it is busy.
const TURN: usize = 64 << 10;
/// Bytes of answers of the router's own that find room in an outbox that is full.
const ANSWERS: usize = 64 << 10;
/// How long a connection stays after its last call when the router is going away, so that the last messages arrive.
const LEAVE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) decoder: Decoder,
    pub(super) out: Outbox,
    /// What it spoke last.
    pub(super) encoding: Option<Encoding>,
    pub(super) node_id: Option<Bytes>,
    pub(super) name: Option<Bytes>,
    pub(super) registered: BTreeSet<Bytes>,
    /// Calls that it takes part in.
    pub(super) routes: BTreeSet<RouteId>,
    /// Those of them that it made.
    pub(super) made: usize,
    pub(super) malformed: u32,
    /// A message for a connection without room. Nothing is read before it has found some.
    pub(super) held: Option<Held>,
    /// Those whose message waits for room here, the longest first.
    waiting: VecDeque<ConnKey>,
    /// What each has sent here in this round, in bytes; `None` while nobody had to wait.
    round: Option<BTreeMap<ConnKey, usize>>,
    /// When bytes left last.
    moved: Instant,
    /// Somebody has waited in vain, and nothing has left since.
    stuck: bool,
    /// When it has to have said something.
    silent_until: Option<Instant>,
    /// When it is closed because the router is going away.
    leave_at: Option<Instant>,
    deadline: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Held {
    raw: RawMessage,
    /// Who has no room.
    to: ConnKey,
    since: Instant,
}

impl Conn {
    /// Whether this one has not sent its share of the round.
    fn has_turn(&self, from: ConnKey) -> bool {
        let sent = self.round.as_ref().and_then(|round| round.get(&from));
        sent.is_none_or(|sent| *sent < TURN)
    }

    /// The one that has waited longest of those who have not sent their share. When all have, there is a new round; when nobody
    /// waits and nothing is left to be sent, there is none.
    fn next_turn(&mut self) -> Option<ConnKey> {
        let first = self.waiting.iter().position(|source| self.has_turn(*source));
        if first.is_none() {
            match &mut self.round {
                Some(round) if !self.waiting.is_empty() => round.clear(),
                _ if self.out.queued() == 0 => self.round = None,
                _ => {}
            }
        }
        self.waiting.remove(first.unwrap_or(0))
    }
}

impl Router {
    // ----- the beginning and the end -------------------------------------------------------------------------------

    pub(super) fn connected(&mut self, now: Now, key: ConnKey, actions: &mut Vec<Action>) {
        if self.draining {
            return actions.push(Action::Close(key, Code::DRAINING, "draining"));
        }
        self.stats.connections += 1;
        let conn = Conn {
            decoder: Decoder::new(self.config.limits.message, DecodeLimits::default()),
            out: Outbox::default(),
            encoding: None,
            node_id: None,
            name: None,
            registered: BTreeSet::new(),
            routes: BTreeSet::new(),
            made: 0,
            malformed: 0,
            held: None,
            waiting: VecDeque::new(),
            round: None,
            moved: now.mono,
            stuck: false,
            silent_until: now.mono.checked_add(self.config.handshake_timeout),
            leave_at: None,
            deadline: None,
        };
        self.conns.entry(key).or_insert(conn);
        self.schedule_conn(key);
    }

    /// Closes a connection and forgets it.
    pub(super) fn close(&mut self, key: ConnKey, code: Code, words: &'static str, actions: &mut Vec<Action>) {
        if self.conns.contains_key(&key) {
            actions.push(Action::Close(key, code, words));
            self.drop_conn(key, actions);
        }
    }

    /// Forgets a connection: its registrations go, its calls end, and nobody waits for it any more.
    pub(super) fn drop_conn(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.remove(&key) else { return };
        self.conn_deadlines.update(key, conn.deadline, None);
        for procedure in &conn.registered {
            self.procedures.remove(procedure, key);
        }
        if let Some(held) = &conn.held
            && let Some(to) = self.conns.get_mut(&held.to)
        {
            to.waiting.retain(|source| *source != key);
        }
        for route in conn.routes {
            self.lose_route(route, key, actions);
        }
        self.ready.extend(conn.waiting);
    }

    /// When the router is going away, whoever has no call leaves.
    pub(super) fn leave_if_idle(&mut self, now: Now, key: ConnKey) {
        if !self.draining {
            return;
        }
        if let Some(conn) = self.conns.get_mut(&key)
            && conn.routes.is_empty()
        {
            conn.leave_at = now.mono.checked_add(LEAVE);
            self.schedule_conn(key);
        }
    }

    /// It has said something that can be understood, in this encoding.
    pub(super) fn heard(&mut self, key: ConnKey, encoding: Encoding) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.encoding = Some(encoding);
        if conn.silent_until.take().is_some() {
            self.schedule_conn(key);
        }
    }

    // ----- time ----------------------------------------------------------------------------------------------------

    fn schedule_conn(&mut self, key: ConnKey) {
        let stall = self.config.limits.stall;
        let Some(conn) = self.conns.get_mut(&key) else { return };
        let stalled = conn.held.as_ref().and_then(|held| held.since.checked_add(stall));
        let next = [conn.silent_until, conn.leave_at, stalled].into_iter().flatten().min();
        self.conn_deadlines.update(key, conn.deadline, next);
        conn.deadline = next;
    }

    pub(super) fn conn_due(&mut self, now: Now, key: ConnKey, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.deadline = None;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        if due(conn.silent_until) {
            self.stats.silent += 1;
            return self.close(key, Code::TIMEOUT, "no greeting", actions);
        }
        if due(conn.leave_at) {
            return self.close(key, Code::DRAINING, "draining", actions);
        }
        let stall = self.config.limits.stall;
        let stalled = conn.held.as_ref().and_then(|held| held.since.checked_add(stall));
        if due(stalled) {
            self.stalled(now, key, actions);
        }
        self.schedule_conn(key);
    }

    // ----- sending -------------------------------------------------------------------------------------------------

    /// Whether a message of `from` finds room with `to` now.
    pub(super) fn admits(&self, to: ConnKey, from: ConnKey) -> bool {
        let limit = self.config.limits.outbox;
        self.conns
            .get(&to)
            .is_none_or(|conn| conn.out.queued() < limit && conn.has_turn(from))
    }

    /// Whether the router can answer a node: it reads its answers.
    ///
    /// # Errors
    /// It is the node itself that has no room.
    pub(super) fn can_answer(&self, to: ConnKey) -> Result<(), ConnKey> {
        let full = self.config.limits.outbox.saturating_add(ANSWERS);
        match self.conns.get(&to) {
            Some(conn) if conn.out.queued() >= full => Err(to),
            _ => Ok(()),
        }
    }

    /// Queues a message of the router's own, whether there is room or not: those are few and short.
    pub(super) fn send(&mut self, to: ConnKey, message: &Message, actions: &mut Vec<Action>) {
        let max = self.config.limits.message;
        if let Some(conn) = self.conns.get_mut(&to) {
            let encoding = conn.encoding.unwrap_or(Encoding::MessagePack);
            if conn.out.push(message, encoding, max).is_ok() {
                self.tell(to, actions);
            }
        }
    }

    /// Passes a message on, as it came if `to` can read that.
    ///
    /// # Errors
    /// The message, in the encoding of `to`, would be too long or cannot be written. Nothing was sent.
    pub(super) fn pass(
        &mut self,
        (from, to): (ConnKey, ConnKey),
        raw: &RawMessage,
        mut message: Message,
        renamed: bool,
        actions: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let max = self.config.limits.message;
        let ours = self.conns.get(&from).and_then(|conn| conn.encoding);
        let Some(conn) = self.conns.get_mut(&to) else {
            return Ok(());
        };
        let theirs = conn.encoding.or(ours).unwrap_or(Encoding::MessagePack);
        let same = ours == Some(theirs);
        let length = if same && !renamed {
            conn.out.push_bytes(raw.as_bytes().clone())
        } else {
            if !same {
                self.stats.recoded += 1;
                super::calls::translate(&mut message, theirs);
            }
            let pushed = conn.out.push(&message, theirs, max);
            pushed.map_err(|error| Fault::new("bad_message", error.to_string()))?
        };
        if let Some(round) = &mut conn.round {
            *round.entry(from).or_default() += length;
        }
        self.stats.routed += 1;
        self.stats.routed_bytes += length as u64;
        self.tell(to, actions);
        Ok(())
    }

    /// Tells that there is something to write, once.
    fn tell(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        if let Some(conn) = self.conns.get_mut(&key)
            && !std::mem::replace(&mut conn.out.told, true)
        {
            actions.push(Action::Write(key));
        }
    }

    // ----- waiting -------------------------------------------------------------------------------------------------

    /// Keeps a message until `to` has room, or gives it up if that cannot be hoped for.
    pub(super) fn hold(&mut self, now: Now, from: ConnKey, to: ConnKey, raw: RawMessage, actions: &mut Vec<Action>) {
        let Some(target) = self.conns.get_mut(&to) else { return };
        if target.stuck {
            return self.give_up(now, from, &raw, actions);
        }
        target.waiting.push_back(from);
        target.round.get_or_insert_default();
        let since = now.mono;
        if let Some(conn) = self.conns.get_mut(&from) {
            conn.held = Some(Held { raw, to, since });
        }
        self.schedule_conn(from);
    }

    /// Bytes have left: those who wait have their turns.
    pub(super) fn made_room(&mut self, now: Now, to: ConnKey, actions: &mut Vec<Action>) {
        let limit = self.config.limits.outbox;
        if let Some(conn) = self.conns.get_mut(&to)
            && conn.out.wrote()
        {
            conn.moved = now.mono;
            conn.stuck = false;
        }
        while let Some(conn) = self.conns.get_mut(&to)
            && conn.out.queued() < limit
            && let Some(source) = conn.next_turn()
        {
            self.resume(now, source, actions);
        }
    }

    /// Goes on with the message that a connection was held up by, and with those behind it.
    pub(super) fn resume(&mut self, now: Now, key: ConnKey, actions: &mut Vec<Action>) {
        let Some(held) = self.conns.get_mut(&key).and_then(|conn| conn.held.take()) else {
            return;
        };
        self.schedule_conn(key);
        self.take(now, key, held.raw, actions);
        self.go_on(now, key, actions);
    }

    fn go_on(&mut self, now: Now, key: ConnKey, actions: &mut Vec<Action>) {
        self.pump(now, key, actions);
        if self.wants(key) {
            actions.push(Action::Read(key));
        }
    }

    /// A connection was held up for too long.
    fn stalled(&mut self, now: Now, key: ConnKey, actions: &mut Vec<Action>) {
        let stall = self.config.limits.stall;
        let Some(held) = self.conns.get_mut(&key).and_then(|conn| conn.held.take()) else {
            return;
        };
        if let Some(to) = self.conns.get_mut(&held.to) {
            to.waiting.retain(|source| *source != key);
            to.stuck = now.mono.saturating_duration_since(to.moved) >= stall;
        }
        self.give_up(now, key, &held.raw, actions);
        self.go_on(now, key, actions);
    }
}
