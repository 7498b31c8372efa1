//! The relay's side of all its connections.
//!
//! One connection:
//!
//! ```text
//!          Connected           identify            identify with another name: holds both
//!   (new) ──────────▶ Unnamed ─────────▶ Named ◀──┐
//!                        │                 │──────┘
//!                        │ 10 s            │ takeover of a name, protocol error, limit, end of
//!                        ▼                 ▼ the control stream, drained
//!                     Closing ◀────────────┘           Closing: its names, requests and tunnels are
//!                        │                             gone already, and whatever it still says is
//!                        ▼ ConnectionLost              not heard
//!                      (gone)
//! ```
//!
//! One tunnel request:
//!
//! ```text
//!                       stream to the requester          stream to the target
//!   tunnel_request ────▶  Asked ──────────▶ Open ─────▶  Asked ──────────▶ Open ──▶ Splice,
//!     │ refused             │ unavailable    ▲             │ unavailable    ▲        tunnel_ok (in its turn),
//!     ▼                     ▼     available  │             ▼     available  │        tunnel_notify
//!   tunnel_error          Waiting ───────────┘           Waiting ───────────┘
//!   (in its turn)  ◀── 5 s in all: stream_limit; target lost: target_gone
//! ```
//!
//! The target's stream is asked for last, so that a requester that grants no streams cannot hold those that others grant.
//! Answers to tunnel requests leave in the order of the requests, per connection, because they carry no request number: an
//! answer that is ready waits for earlier ones. An open tunnel ends when its splice ends, when one of its two nodes sends
//! `tunnel_close`, or when one of the two connections goes.
//!
//! A connection is answered in the encoding of its first message. It may hold several names; its requests come from the
//! name it identified with last.

mod access;
mod budget;
mod conn;
mod names;
mod requests;
mod tunnels;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{Limits, Now, Rng, tunnel::timers::Timers, wire::control::TunnelId};

pub use access::{AccessRules, DefaultAccess, NameRule, NodeLimits};
pub use types::{
    Action, ConnectionStatus, Event, NameStatus, Rates, Refusal, RelayStats, RelayStatus, Report, SpliceEnd, Ticket,
    TunnelBytes, TunnelCloseReason, TunnelKey, TunnelStatus,
};

use super::{ConnKey, Name};
use conn::Conn;
use names::Holder;
use requests::{Ask, Request, RequestKey};
use tunnels::Tunnel;

/// Settings of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayConfig {
    /// What happens when a client asks for a name that another connection holds.
    pub takeover: Takeover,
    /// Who may take which name, and who may open tunnels to it.
    pub access: AccessRules,
    /// Limits of each node that has none of its own in the access rules.
    pub node_limits: NodeLimits,
    /// Caps.
    pub limits: Limits,
}

/// What happens when a client asks for a name that another connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Takeover {
    /// The older connection is closed at once, with [`Code::DISPLACED`](crate::Code::DISPLACED): a node that comes back is
    /// not kept out by the remains of its old connection. Deployed relays do this.
    #[default]
    Replace,
    /// The newer connection is closed, with [`Code::NOT_ALLOWED`](crate::Code::NOT_ALLOWED).
    Refuse,
}

/// The relay's side of all its connections. See the [module](self) for how it behaves.
#[derive(Debug)]
pub struct Relay {
    config: RelayConfig,
    rng: Rng,
    conns: BTreeMap<ConnKey, Conn>,
    /// Connections that the machine has closed and that are not reported lost yet.
    closing: BTreeSet<ConnKey>,
    names: BTreeMap<Name, Holder>,
    requests: BTreeMap<RequestKey, Request>,
    asks: BTreeMap<Ticket, Ask>,
    tunnels: BTreeMap<TunnelKey, Tunnel>,
    ids: BTreeMap<TunnelId, TunnelKey>,
    timers: Timers<Timer>,
    draining: bool,
    drained: bool,
    /// Connections that may have become idle, to be closed if the relay drains.
    maybe_idle: BTreeSet<ConnKey>,
    next_key: u64,
    stats: RelayStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Identify(ConnKey),
    Request(RequestKey),
    /// The relay drains, and the last tunnel of the connection is over.
    Leave(ConnKey),
}

/// How long a connection stays on a relay that drains after its last tunnel is over. What has arrived at a node may not have been
/// read by its program, and is lost with the connection.
const LEAVE: Duration = Duration::from_secs(1);

impl Relay {
    /// A relay without connections. `rng` makes the tunnel ids.
    pub fn new(config: RelayConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            conns: BTreeMap::new(),
            closing: BTreeSet::new(),
            names: BTreeMap::new(),
            requests: BTreeMap::new(),
            asks: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            ids: BTreeMap::new(),
            timers: Timers::new(),
            draining: false,
            drained: false,
            maybe_idle: BTreeSet::new(),
            next_key: 0,
            stats: RelayStats::default(),
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event<'_>, actions: &mut Vec<Action>) {
        match event {
            Event::Connected { conn, pin, remote } => self.connected(now, conn, pin, remote, actions),
            Event::ControlBytes { conn, bytes } => self.control_bytes(now, conn, bytes, actions),
            Event::ControlEnded { conn, end } => self.control_ended(conn, end, actions),
            Event::ControlStalled { conn } => self.control_stalled(conn, actions),
            Event::ExtraStream { conn } => self.extra_stream(conn, actions),
            Event::StreamOpened { ticket, stream } => self.stream_opened(ticket, stream, actions),
            Event::StreamUnavailable { ticket } => self.stream_unavailable(ticket, actions),
            Event::StreamsAvailable { conn } => self.streams_available(conn, actions),
            Event::TunnelEnded { tunnel, end, bytes } => self.tunnel_ended(tunnel, end, bytes, actions),
            Event::ConnectionLost { conn } => self.connection_lost(conn, actions),
            Event::Timeout => self.timeout(now, actions),
            Event::Drain => self.drain(actions),
        }
        self.settle_drain(now, actions);
    }

    /// Replaces the access rules. Clients that may not hold one of their names any more are closed with
    /// [`Code::NOT_ALLOWED`](crate::Code::NOT_ALLOWED); other tunnels that are open stay, also where they could not be
    /// opened any more.
    pub fn set_access(&mut self, now: Now, access: AccessRules, actions: &mut Vec<Action>) {
        self.config.access = access;
        self.enforce_access(actions);
        self.settle_drain(now, actions);
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Counters.
    pub fn stats(&self) -> RelayStats {
        self.stats
    }

    /// Whether the machine holds nothing at all: no connection, name, request, tunnel or deadline.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
            && self.closing.is_empty()
            && self.names.is_empty()
            && self.requests.is_empty()
            && self.asks.is_empty()
            && self.tunnels.is_empty()
            && self.ids.is_empty()
            && self.timers.is_empty()
            && self.maybe_idle.is_empty()
    }

    /// A snapshot. Takes time in proportion to what it holds.
    pub fn status(&self) -> RelayStatus {
        RelayStatus {
            draining: self.draining,
            names: self.names.iter().map(|(name, holder)| holder.status(name)).collect(),
            connections: self.conns.iter().map(|(&key, conn)| conn.status(key)).collect(),
            tunnels: self.tunnels.iter().map(|(&key, tunnel)| tunnel.status(key)).collect(),
        }
    }

    fn timeout(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Identify(conn) => self.identify_timeout(conn, actions),
                Timer::Request(request) => self.fail_request(request, Refusal::StreamLimit, actions),
                Timer::Leave(conn) => self.leave(conn, actions),
            }
        }
    }

    fn next_key(&mut self) -> u64 {
        let key = self.next_key;
        self.next_key = self.next_key.wrapping_add(1);
        key
    }
}
