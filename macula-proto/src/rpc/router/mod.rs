//! Routers: calls between nodes that are connected to the same relay.
//!
//! A node dials, says who it is (`connect`), and registers the procedures that it serves. A call for one of them, made by any node
//! of the router, goes to a node that registered it; messages of the call pass both ways until it is over. Nodes need not speak
//! the same encoding.
//!
//! ```text
//!   caller ── stream_open, call, cast ──▶ router ── round-robin among those who registered ──▶ provider
//!          ◀── stream_data, _end, _error, _reply; reply ── both ways, by stream id and call id ──▶
//! ```
//!
//! **Names of calls.** A stream id is the caller's and is passed as it is; only where the provider knows one of the same name (two
//! callers chose the same, or a node calls itself) does the router choose another one for it. Call ids are always the router's own
//! towards the provider. A caller that uses a stream id twice at once gets the error `duplicate`, which ends the call it had too:
//! it could not tell the two apart.
//!
//! **The end.** A streaming call is forgotten when either side ended both directions or sent an error, or when both ended their
//! data and the reply has passed. When the reply has passed and the call's mode says that no more data will come, ends may still
//! follow for [`RouterConfig::linger`]; when the data is over but no reply is there, it may come for
//! [`RouterConfig::await_reply`]. A node that goes away ends its calls: the other side gets the error `disconnected`. A unary call
//! ends with its reply, or with the error `timeout`.
//!
//! **Back-pressure.** Every connection has a bounded outbox. A message for a full one stays where it is, and the connection that it
//! came on is not read before there is room, so that the windows of QUIC slow its sender down. Connections that send to the same
//! busy one take turns of 64 KiB. As all calls of a connection share its stream, one that waits holds up the others; so after
//! [`RouterLimits::stall`] its call is ended with the error `limit`, and as long as the receiver takes nothing at all, so are further
//! ones at once.
//!
//! **What is not here.** Events of topics (publish, subscribe) are counted and passed over. A stream per call is not offered to
//! nodes. Nothing that a node says about itself is proved: whoever may connect may register any procedure.

mod calls;
mod conns;
mod inbound;
mod outbox;
mod procedures;
mod routes;
mod types;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use crate::{
    Code, Now, Rng,
    deadlines::{Deadlines, earliest},
    rpc::StreamId,
};
use conns::Conn;
use procedures::Procedures;
use routes::{Route, RouteId, Side};
pub use types::{
    Action, ConnKey, Event, NodeStatus, Refusal, RouterConfig, RouterLimits, RouterStats, RouterStatus, StreamEnded,
};

/// The router of a relay. See the [module](self).
///
/// Whoever runs it hands in what was read, pulls [`output`](Self::output), and closes connections when told so.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    rng: Rng,
    draining: bool,
    conns: BTreeMap<ConnKey, Conn>,
    procedures: Procedures,
    routes: HashMap<RouteId, Route>,
    /// The two ends of each streaming call, by the names that they have there.
    ends: HashMap<(ConnKey, StreamId), (RouteId, Side)>,
    next_route: u64,
    streams: usize,
    conn_deadlines: Deadlines<ConnKey>,
    route_deadlines: Deadlines<RouteId>,
    /// Connections whose held message need not wait any more.
    ready: VecDeque<ConnKey>,
    /// Connections that lost a call because the other node's connection went.
    left_behind: Vec<ConnKey>,
    stats: RouterStats,
}

impl Router {
    /// A router without connections.
    pub fn new(config: RouterConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            draining: false,
            conns: BTreeMap::new(),
            procedures: Procedures::default(),
            routes: HashMap::new(),
            ends: HashMap::new(),
            next_route: 0,
            streams: 0,
            conn_deadlines: Deadlines::default(),
            route_deadlines: Deadlines::default(),
            ready: VecDeque::new(),
            left_behind: Vec::new(),
            stats: RouterStats::default(),
        }
    }

    /// Takes an event, and appends what is to be done about it. Events of connections that are not known (any more) change nothing.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Connected(conn) => self.connected(now, conn, actions),
            Event::Received(conn, bytes) => self.received(now, conn, bytes, actions),
            Event::Ended(conn, _) => self.close(conn, Code::CLOSED, "bye", actions),
            Event::Lost(conn) => self.drop_conn(conn, actions),
            Event::Drain => self.drain(now),
            Event::Stop(code) => self.stop(code, actions),
            Event::Timeout => self.timeout(now, actions),
        }
        self.settle(now, actions);
    }

    /// Whether bytes of this connection can be taken now. [`Action::Read`] says when they can again.
    pub fn wants(&self, conn: ConnKey) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.held.is_none())
    }

    /// What waits to be sent to a node, in order. Cut off what was written, and call [`wrote`](Self::wrote).
    pub fn output(&mut self, conn: ConnKey) -> &mut [Bytes] {
        match self.conns.get_mut(&conn) {
            Some(conn) => conn.out.blocks(),
            None => &mut [],
        }
    }

    /// Some of the [`output`](Self::output) was written.
    pub fn wrote(&mut self, now: Now, conn: ConnKey, actions: &mut Vec<Action>) {
        self.made_room(now, conn, actions);
        self.settle(now, actions);
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.conn_deadlines.earliest(), self.route_deadlines.earliest())
    }

    /// Counters.
    pub fn stats(&self) -> RouterStats {
        self.stats
    }

    /// Connections that are there.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Calls that are not over, streaming and unary.
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    /// A snapshot. Takes time in proportion to connections and registrations.
    pub fn status(&self) -> RouterStatus {
        let nodes = self.conns.iter().map(|(key, conn)| NodeStatus {
            conn: *key,
            node_id: conn.node_id.clone(),
            name: conn.name.clone(),
            encoding: conn.encoding,
            procedures: conn.registered.len(),
            routes: conn.routes.len(),
            queued: conn.out.queued(),
            held: conn.held.is_some(),
        });
        RouterStatus {
            draining: self.draining,
            nodes: nodes.collect(),
            procedures: self.procedures.list(),
            streams: self.streams,
            calls: self.routes.len().saturating_sub(self.streams),
        }
    }

    // ----- time ----------------------------------------------------------------------------------------------------

    fn timeout(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(conn) = self.conn_deadlines.pop_due(now.mono) {
            self.conn_due(now, conn, actions);
        }
        while let Some(route) = self.route_deadlines.pop_due(now.mono) {
            self.route_due(now, route, actions);
        }
    }

    fn drain(&mut self, now: Now) {
        if self.draining {
            return;
        }
        self.draining = true;
        let conns: Vec<ConnKey> = self.conns.keys().copied().collect();
        for conn in conns {
            self.leave_if_idle(now, conn);
        }
    }

    fn stop(&mut self, code: Code, actions: &mut Vec<Action>) {
        self.draining = true;
        let words = if code == Code::DRAINING { "draining" } else { "shutdown" };
        while let Some((&conn, _)) = self.conns.first_key_value() {
            self.close(conn, code, words, actions);
        }
    }

    /// Follows up what the event made possible for others.
    fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(conn) = self.ready.pop_front() {
            self.resume(now, conn, actions);
        }
        while let Some(conn) = self.left_behind.pop() {
            self.leave_if_idle(now, conn);
        }
    }
}
