//! Tunnel requests, from the message to the two open streams.

use super::{Action, Refusal, Relay, Report, Ticket, Timer, tunnels::Route};
use crate::{
    Code, Now,
    tunnel::{ConnKey, Name, StreamKey},
    wire::control::Message,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestKey(pub(super) u64);

/// A request that waits for its streams.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) route: Route,
    /// Number of the place that is kept for its answer.
    pub(super) reply: u64,
    pub(super) to_requester: Side,
    pub(super) to_target: Side,
}

impl Request {
    fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::Requester => &mut self.to_requester,
            End::Target => &mut self.to_target,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    /// Not asked for yet.
    Later,
    Asked,
    Waiting(Ticket),
    Open(StreamKey),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Requester,
    Target,
}

/// What a ticket is for. The request may be over already: then the stream is to be dropped when it comes.
#[derive(Debug)]
pub(super) struct Ask {
    conn: ConnKey,
    request: RequestKey,
    end: End,
}

impl Relay {
    pub(super) fn tunnel_request(
        &mut self,
        now: Now,
        key: ConnKey,
        target: &[u8],
        in_budget: bool,
        actions: &mut Vec<Action>,
    ) {
        self.stats.requests += 1;
        let limits = &self.config.limits;
        let (max_name, wait) = (limits.name, limits.stream_wait);
        // Answers wait for earlier ones: a flood behind a request that waits must not pile up.
        let max_replies = limits.pending_requests.saturating_add(limits.control_burst as usize);
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if conn.replies.len() >= max_replies {
            self.stats.rate_limited += 1;
            return self.close(key, Code::LIMIT, "too many tunnel requests", actions);
        }
        let reply = conn.replies.reserve();
        let fits = target.len() <= max_name;
        let target = Name::new(target.get(..max_name).unwrap_or(target));
        let checked = if in_budget {
            self.check_request(key, &target, fits)
        } else {
            self.stats.rate_limited += 1;
            Err(Refusal::Busy)
        };
        match checked {
            Ok(route) => {
                let request = self.start_request(route, reply, actions);
                self.timers.arm(now.mono, Timer::Request(request), wait);
            }
            Err(why) => self.refuse(key, reply, target, why, actions),
        }
    }

    fn check_request(&self, key: ConnKey, target_name: &Name, fits: bool) -> Result<Route, Refusal> {
        let limits = &self.config.limits;
        let conn = self.conns.get(&key).ok_or(Refusal::NotIdentified)?;
        let source_name = conn.source.as_ref().ok_or(Refusal::NotIdentified)?;
        if !fits || target_name.as_bytes().is_empty() {
            return Err(Refusal::BadRequest);
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        // Before looking for the target: who may not reach it need not learn whether it is there.
        if !self.config.access.may_open(source_name, target_name) {
            return Err(Refusal::NotAllowed);
        }
        let target = self.names.get(target_name).map(|holder| holder.conn);
        let target = target.ok_or(Refusal::TargetNotConnected)?;
        let peer = self.conns.get(&target).ok_or(Refusal::TargetNotConnected)?;
        let route = Route {
            requester: key,
            target,
            source_name: source_name.clone(),
            target_name: target_name.clone(),
        };
        let full = conn.pending >= limits.pending_requests
            || conn.load() >= limits.tunnels_per_connection
            || peer.load() >= limits.tunnels_per_connection
            || route.names().any(|(_, name)| self.name_is_full(name));
        if full { Err(Refusal::Busy) } else { Ok(route) }
    }

    fn name_is_full(&self, name: &Name) -> bool {
        let most = self.config.access.limits(name, self.config.node_limits).tunnels;
        let tunnels = self.names.get(name).map_or(0, |holder| holder.tunnels);
        most.is_some_and(|most| tunnels >= most)
    }

    fn start_request(&mut self, route: Route, reply: u64, actions: &mut Vec<Action>) -> RequestKey {
        let key = RequestKey(self.next_key());
        let (requester, target) = (route.requester, route.target);
        self.count_tunnel(&route);
        if let Some(conn) = self.conns.get_mut(&requester) {
            conn.pending += 1;
            conn.requests.insert(key);
        }
        if let Some(conn) = self.conns.get_mut(&target) {
            conn.requests.insert(key);
        }
        // The target's stream comes last: who grants no streams must not hold those of others, unseen by them.
        let to_requester = self.ask(requester, key, End::Requester, actions);
        let request = Request {
            route,
            reply,
            to_requester,
            to_target: Side::Later,
        };
        self.requests.insert(key, request);
        key
    }

    /// Asks for a stream, or queues behind those who wait for one on the same connection.
    fn ask(&mut self, conn_key: ConnKey, request: RequestKey, end: End, actions: &mut Vec<Action>) -> Side {
        let ticket = Ticket(self.next_key());
        let ask = Ask {
            conn: conn_key,
            request,
            end,
        };
        self.asks.insert(ticket, ask);
        match self.conns.get_mut(&conn_key) {
            Some(conn) if !conn.waiting.is_empty() || conn.retrying.is_some() => {
                conn.waiting.insert(ticket);
                Side::Waiting(ticket)
            }
            Some(conn) => {
                conn.asked.insert(ticket);
                actions.push(Action::OpenStream { conn: conn_key, ticket });
                Side::Asked
            }
            None => Side::Asked,
        }
    }

    pub(super) fn stream_opened(&mut self, ticket: Ticket, stream: StreamKey, actions: &mut Vec<Action>) {
        let Some((ask, retried)) = self.answered(ticket) else {
            return;
        };
        match self.requests.get_mut(&ask.request) {
            Some(request) => {
                *request.side(ask.end) = Side::Open(stream);
                match (request.to_requester, request.to_target) {
                    (Side::Open(to_requester), Side::Open(to_target)) => {
                        self.open_tunnel(ask.request, to_requester, to_target, actions);
                    }
                    (Side::Open(_), Side::Later) => {
                        let target = request.route.target;
                        let side = self.ask(target, ask.request, End::Target, actions);
                        if let Some(request) = self.requests.get_mut(&ask.request) {
                            request.to_target = side;
                        }
                    }
                    _ => {}
                }
            }
            None => actions.push(Action::DropStream {
                conn: ask.conn,
                stream,
                code: Code::CANCELLED,
            }),
        }
        self.asks.remove(&ticket);
        if retried {
            self.retry(ask.conn, actions);
        }
    }

    pub(super) fn stream_unavailable(&mut self, ticket: Ticket, actions: &mut Vec<Action>) {
        let Some((ask, _)) = self.answered(ticket) else { return };
        let Some(conn) = self.conns.get_mut(&ask.conn) else {
            return;
        };
        match self.requests.get_mut(&ask.request) {
            Some(request) => {
                *request.side(ask.end) = Side::Waiting(ticket);
                conn.waiting.insert(ticket);
            }
            None => {
                self.asks.remove(&ticket);
            }
        }
        if std::mem::take(&mut conn.retry_again) {
            self.retry(ask.conn, actions);
        }
    }

    pub(super) fn streams_available(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(&key) else {
            return self.stray(key);
        };
        conn.retry_again = !conn.asked.is_empty();
        self.retry(key, actions);
    }

    /// An answer to `ticket` came: what it is for, and whether it was a retry. The ask itself stays in its table.
    fn answered(&mut self, ticket: Ticket) -> Option<(Ask, bool)> {
        let ask = self.asks.get(&ticket).map(|ask| Ask { ..*ask });
        let conn = ask.as_ref().and_then(|ask| self.conns.get_mut(&ask.conn));
        let (Some(ask), Some(conn)) = (ask, conn) else {
            self.stats.stale_events += 1;
            return None;
        };
        if !conn.asked.remove(&ticket) {
            self.stats.stale_events += 1;
            return None;
        }
        let retried = conn.retrying == Some(ticket);
        if retried {
            conn.retrying = None;
        }
        Some((ask, retried))
    }

    /// Asks again for the stream that has waited longest. One at a time: the answer tells whether to go on.
    fn retry(&mut self, key: ConnKey, actions: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if conn.retrying.is_some() {
            return;
        }
        let Some(ticket) = conn.waiting.pop_first() else { return };
        conn.retrying = Some(ticket);
        conn.asked.insert(ticket);
        if let Some(ask) = self.asks.get(&ticket)
            && let Some(request) = self.requests.get_mut(&ask.request)
        {
            *request.side(ask.end) = Side::Asked;
        }
        actions.push(Action::OpenStream { conn: key, ticket });
    }

    /// Answers a waiting request with an error.
    pub(super) fn fail_request(&mut self, key: RequestKey, why: Refusal, actions: &mut Vec<Action>) {
        if let Some(request) = self.end_request(key, Code::CANCELLED, actions) {
            let Route {
                requester, target_name, ..
            } = request.route;
            self.refuse(requester, request.reply, target_name, why, actions);
        }
    }

    /// `gone`, one of the two connections of a waiting request, is not there any more.
    pub(super) fn request_peer_gone(&mut self, key: RequestKey, gone: ConnKey, actions: &mut Vec<Action>) {
        let requester = self.requests.get(&key).map(|request| request.route.requester);
        if requester == Some(gone) {
            self.end_request(key, Code::PEER_GONE, actions);
        } else {
            self.fail_request(key, Refusal::TargetGone, actions);
        }
    }

    fn end_request(&mut self, key: RequestKey, code: Code, actions: &mut Vec<Action>) -> Option<Request> {
        let request = self.detach_request(key)?;
        let Route { requester, target, .. } = request.route;
        self.uncount_tunnel(&request.route);
        for (conn_key, side) in [(requester, request.to_requester), (target, request.to_target)] {
            let Some(conn) = self.conns.get_mut(&conn_key) else {
                continue;
            };
            match side {
                Side::Later => {}
                // The answer is still to come, and finds the request gone.
                Side::Asked => {}
                Side::Waiting(ticket) => {
                    conn.waiting.remove(&ticket);
                    self.asks.remove(&ticket);
                }
                Side::Open(stream) => actions.push(Action::DropStream {
                    conn: conn_key,
                    stream,
                    code,
                }),
            }
        }
        Some(request)
    }

    /// Takes a request out of all tables but those of streams and counts.
    pub(super) fn detach_request(&mut self, key: RequestKey) -> Option<Request> {
        let request = self.requests.remove(&key)?;
        self.timers.clear(Timer::Request(key));
        if let Some(conn) = self.conns.get_mut(&request.route.requester) {
            conn.pending = conn.pending.saturating_sub(1);
        }
        for conn_key in [request.route.requester, request.route.target] {
            if let Some(conn) = self.conns.get_mut(&conn_key) {
                conn.requests.remove(&key);
                self.maybe_idle.insert(conn_key);
            }
        }
        Some(request)
    }

    fn refuse(&mut self, key: ConnKey, reply: u64, target: Name, why: Refusal, actions: &mut Vec<Action>) {
        if let Some(count) = self.stats.refused.get_mut(why as usize) {
            *count += 1;
        }
        let Some(conn) = self.conns.get_mut(&key) else { return };
        let source = conn.source.clone();
        conn.replies.fill(reply, tunnel_error(why));
        actions.push(Action::Report(Report::RequestRefused {
            conn: key,
            source,
            target,
            why,
        }));
        self.flush_replies(key, actions);
    }
}

fn tunnel_error(why: Refusal) -> Message {
    Message::TunnelError { reason: why.into() }
}
