//! One connection, and what it says on its control stream.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};

use bytes::BytesMut;

use super::{
    Action, ConnectionStatus, LEAVE, Relay, RequestKey, Ticket, Timer, TunnelKey, budget::Budget, types::Report,
};
use crate::{
    Code, Limits, Now,
    tunnel::{ConnKey, ControlEnd, Name},
    wire::{
        Encoding,
        control::{Decoder, Message},
    },
};

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) remote: SocketAddr,
    pub(super) pin: Option<[u8; 32]>,
    decoder: Decoder,
    /// Fixed by the first message.
    pub(super) encoding: Option<Encoding>,
    pub(super) names: BTreeSet<Name>,
    /// The name it identified with last.
    pub(super) source: Option<Name>,
    malformed: u32,
    extra_streams: u32,
    pub(super) budget: Budget,
    pub(super) tunnels: BTreeSet<TunnelKey>,
    /// Whether a tunnel of it has ended.
    pub(super) carried: bool,
    /// Requests that wait for streams, from it and to it.
    pub(super) requests: BTreeSet<RequestKey>,
    /// How many of them are its own.
    pub(super) pending: usize,
    pub(super) replies: Replies,
    /// Streams asked for and not answered yet.
    pub(super) asked: BTreeSet<Ticket>,
    /// Streams that were not available, in the order in which they were asked for.
    pub(super) waiting: BTreeSet<Ticket>,
    /// The one of those that is being asked for again.
    pub(super) retrying: Option<Ticket>,
    /// Streams became available while answers were outstanding: a refusal that comes now may be older than that.
    pub(super) retry_again: bool,
}

impl Conn {
    fn new(pin: Option<[u8; 32]>, remote: SocketAddr, limits: &Limits) -> Self {
        Self {
            remote,
            pin,
            // Names that are too long are refused by whoever reads the message, so that a request gets its answer.
            decoder: Decoder::new(limits.control_message).with_max_name(limits.control_message),
            encoding: None,
            names: BTreeSet::new(),
            source: None,
            malformed: 0,
            extra_streams: 0,
            budget: Budget::new(limits.control_burst, limits.control_rate),
            tunnels: BTreeSet::new(),
            carried: false,
            requests: BTreeSet::new(),
            pending: 0,
            replies: Replies::default(),
            asked: BTreeSet::new(),
            waiting: BTreeSet::new(),
            retrying: None,
            retry_again: false,
        }
    }

    /// Tunnels it takes part in, those still being opened included.
    pub(super) fn load(&self) -> usize {
        self.tunnels.len().saturating_add(self.requests.len())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.tunnels.is_empty() && self.requests.is_empty()
    }

    pub(super) fn status(&self, conn: ConnKey) -> ConnectionStatus {
        ConnectionStatus {
            conn,
            remote: self.remote,
            names: self.names.iter().cloned().collect(),
            encoding: self.encoding,
            tunnels: self.tunnels.len(),
            pending: self.pending,
        }
    }
}

/// The answers to tunnel requests of one connection, in the order of the requests.
#[derive(Debug, Default)]
pub(super) struct Replies {
    slots: VecDeque<Option<Message>>,
    /// Number of the first slot.
    first: u64,
}

impl Replies {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Keeps a place for an answer; returns its number.
    pub(super) fn reserve(&mut self) -> u64 {
        self.slots.push_back(None);
        self.first.wrapping_add(self.slots.len() as u64).wrapping_sub(1)
    }

    pub(super) fn fill(&mut self, number: u64, message: Message) {
        let index = usize::try_from(number.wrapping_sub(self.first)).ok();
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) {
            *slot = Some(message);
        }
    }

    /// The next answer, if it is its turn.
    fn next(&mut self) -> Option<Message> {
        let message = self.slots.front_mut()?.take()?;
        self.slots.pop_front();
        self.first = self.first.wrapping_add(1);
        Some(message)
    }
}

impl Relay {
    pub(super) fn connected(
        &mut self,
        now: Now,
        key: ConnKey,
        pin: Option<[u8; 32]>,
        remote: SocketAddr,
        actions: &mut Vec<Action>,
    ) {
        if self.conns.contains_key(&key) || self.closing.contains(&key) {
            self.stats.stale_events += 1;
            return;
        }
        self.stats.connections += 1;
        let limits = &self.config.limits;
        self.conns.insert(key, Conn::new(pin, remote, limits));
        self.timers.arm(now.mono, Timer::Identify(key), limits.identify_timeout);
        if self.draining {
            self.close(key, Code::DRAINING, "draining", actions);
        }
    }

    pub(super) fn control_bytes(&mut self, now: Now, key: ConnKey, bytes: &[u8], actions: &mut Vec<Action>) {
        match self.conns.get_mut(&key) {
            Some(conn) => conn.decoder.push(bytes),
            None => return self.stray(key),
        }
        // A message may close the connection: what follows it is not heard any more.
        while let Some(conn) = self.conns.get_mut(&key) {
            match conn.decoder.next() {
                None => break,
                Some(Ok((encoding, message))) => {
                    conn.encoding.get_or_insert(encoding);
                    self.message(now, key, message, actions);
                }
                Some(Err(error)) => {
                    self.stats.malformed += 1;
                    if error.is_fatal() {
                        self.close(key, Code::PROTOCOL, "control message too long", actions);
                    } else {
                        self.malformed(key, actions);
                    }
                }
            }
        }
    }

    fn message(&mut self, now: Now, key: ConnKey, message: Message, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        let in_budget = conn.budget.take(now.mono);
        match message {
            Message::TunnelRequest { target } => self.tunnel_request(now, key, &target, in_budget, actions),
            // Never held back: it makes the relay hold less.
            Message::TunnelClose { tunnel } => self.tunnel_close(key, tunnel, actions),
            _ if !in_budget => {
                self.stats.rate_limited += 1;
                self.close(key, Code::LIMIT, "too many control messages", actions);
            }
            Message::Identify { name } => self.identify(key, &name, actions),
            Message::Identified
            | Message::TunnelOk { .. }
            | Message::TunnelError { .. }
            | Message::TunnelNotify { .. } => {
                self.stats.unexpected += 1;
                self.malformed(key, actions);
            }
        }
    }

    /// Counts a message that could not be used against its sender.
    fn malformed(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.malformed = conn.malformed.saturating_add(1);
        if conn.malformed > self.config.limits.control_malformed {
            self.close(key, Code::PROTOCOL, "too many malformed control messages", actions);
        }
    }

    pub(super) fn control_ended(&mut self, key: ConnKey, end: ControlEnd, actions: &mut Vec<Action>) {
        match end {
            _ if !self.conns.contains_key(&key) => self.stray(key),
            ControlEnd::Finished => self.close(key, Code::CLOSED, "closed", actions),
            ControlEnd::Reset(_) => self.close(key, Code::PROTOCOL, "control stream reset", actions),
        }
    }

    pub(super) fn control_stalled(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        if self.conns.contains_key(&key) {
            self.close(key, Code::LIMIT, "control messages are not read", actions);
        } else {
            self.stray(key);
        }
    }

    pub(super) fn extra_stream(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(&key) else {
            return self.stray(key);
        };
        self.stats.extra_streams += 1;
        conn.extra_streams = conn.extra_streams.saturating_add(1);
        if conn.extra_streams > self.config.limits.extra_streams {
            self.close(key, Code::LIMIT, "too many streams", actions);
        }
    }

    pub(super) fn connection_lost(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        if !self.closing.remove(&key) && !self.forget(key, None, actions) {
            self.stats.stale_events += 1;
        }
    }

    pub(super) fn identify_timeout(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        self.stats.identify_timeouts += 1;
        self.close(key, Code::TIMEOUT, "not identified in time", actions);
    }

    pub(super) fn drain(&mut self, actions: &mut Vec<Action>) {
        if !self.draining {
            self.draining = true;
            self.maybe_idle.extend(self.conns.keys());
            actions.push(Action::Report(Report::Draining));
        }
    }

    /// While draining, closes the connections that the last event left without a tunnel: at once if they had none.
    pub(super) fn settle_drain(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !self.draining {
            return self.maybe_idle.clear();
        }
        while let Some(key) = self.maybe_idle.pop_first() {
            match self.conns.get(&key) {
                Some(conn) if conn.is_idle() && conn.carried => self.timers.arm(now.mono, Timer::Leave(key), LEAVE),
                _ => self.leave(key, actions),
            }
        }
        if self.conns.is_empty() && !self.drained {
            self.drained = true;
            actions.push(Action::Report(Report::Drained));
        }
    }

    /// Closes a connection that has no tunnel, because the relay drains.
    pub(super) fn leave(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        if self.conns.get(&key).is_some_and(Conn::is_idle) {
            self.close(key, Code::DRAINING, "draining", actions);
        }
    }

    /// Closes a connection, and forgets it and all that hangs on it at once.
    pub(super) fn close(&mut self, key: ConnKey, code: Code, reason: &'static str, actions: &mut Vec<Action>) {
        if self.forget(key, Some((code, reason)), actions) {
            self.stats.closed += 1;
            self.closing.insert(key);
        }
    }

    fn forget(&mut self, key: ConnKey, closed: Option<(Code, &'static str)>, actions: &mut Vec<Action>) -> bool {
        let Some(conn) = self.conns.remove(&key) else {
            return false;
        };
        if let Some((code, reason)) = closed {
            actions.push(Action::CloseConnection {
                conn: key,
                code,
                reason,
            });
        }
        self.timers.clear(Timer::Identify(key));
        self.timers.clear(Timer::Leave(key));
        for ticket in conn.asked.iter().chain(&conn.waiting) {
            self.asks.remove(ticket);
        }
        for &tunnel in &conn.tunnels {
            self.peer_gone(tunnel, actions);
        }
        for &request in &conn.requests {
            self.request_peer_gone(request, key, actions);
        }
        for name in &conn.names {
            self.names.remove(name);
        }
        self.maybe_idle.remove(&key);
        actions.push(Action::Report(Report::Disconnected {
            conn: key,
            names: conn.names.into_iter().collect(),
            closed,
        }));
        true
    }

    /// Sends the answers of a connection whose turn has come.
    pub(super) fn flush_replies(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        while let Some(message) = self.conns.get_mut(&key).and_then(|conn| conn.replies.next()) {
            self.send(key, &message, actions);
        }
    }

    pub(super) fn send(&self, key: ConnKey, message: &Message, actions: &mut Vec<Action>) {
        if let Some(conn) = self.conns.get(&key) {
            let mut bytes = BytesMut::new();
            message.encode(conn.encoding.unwrap_or(Encoding::MessagePack), &mut bytes);
            actions.push(Action::SendControl {
                conn: key,
                bytes: bytes.freeze(),
            });
        }
    }

    /// An event about a connection that is not there; expected while it is closing.
    pub(super) fn stray(&mut self, key: ConnKey) {
        if !self.closing.contains(&key) {
            self.stats.stale_events += 1;
        }
    }
}
