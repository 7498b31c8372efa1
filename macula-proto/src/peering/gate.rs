//! An acceptor's door.

use std::collections::{BTreeMap, BTreeSet};

use super::Refusal;
use crate::{Code, Limits, identity::NodeId};

/// A connection, named by whoever executes the actions. Never used for a second connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerConn(pub u64);

/// What happens when an identity that is connected comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Duplicates {
    /// The newer connection stays, the older one is closed at once: a node that lost its connection without this side noticing
    /// gets back in.
    #[default]
    ReplaceOlder,
    /// The older connection stays, the newer one is refused.
    KeepOlder,
    /// Both stay.
    KeepBoth,
}

/// Something that happened at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateEvent {
    /// A connection was accepted and is about to start its peering handshake.
    Arrived(PeerConn),
    /// Its CONNECT is good. Answered in the same call, with [`GateAction::Admit`] or [`GateAction::Refuse`].
    Identified(PeerConn, NodeId),
    /// It is over.
    Gone(PeerConn),
    /// Let in only these from now on; `None`: everybody. Who is in stays in.
    AllowOnly(Option<BTreeSet<NodeId>>),
    /// Another policy from now on.
    Duplicates(Duplicates),
    /// Let in nobody any more. Who is in stays in.
    ShutDown,
    /// Begin anew with these settings, all of them: let in peers again after [`GateEvent::ShutDown`], under other caps, another
    /// list, another policy. Who is in stays in, even if there are more than may be now.
    Open(GateConfig),
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateAction {
    /// The peer may stay. Told once per connection; it counts as connected from here on.
    Admit(PeerConn),
    /// The peer may not stay.
    Refuse(PeerConn, Refusal),
    /// Close the connection at once with this code: [`Code::DISPLACED`] for the older one of an identity,
    /// [`Code::LIMIT`] for one that has been in its handshake for longer than any other when there are too many.
    Close(PeerConn, Code),
}

/// Settings of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// What happens when an identity comes again.
    pub duplicates: Duplicates,
    /// Who may come in; `None` (default): everybody.
    pub allow_only: Option<BTreeSet<NodeId>>,
    /// Connections that may be in their peering handshake at once, at least 1.
    pub handshaking: usize,
    /// Peers that may be connected at once.
    pub connected: usize,
}

impl GateConfig {
    /// The defaults within these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            duplicates: Duplicates::default(),
            allow_only: None,
            handshaking: limits.peering_handshaking,
            connected: limits.peers,
        }
    }
}

/// Counters of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GateStats {
    /// Connections that came.
    pub arrived: u64,
    /// Peers that were let in.
    pub admitted: u64,
    /// Peers that were refused because they are not on the list.
    pub not_allowed: u64,
    /// Peers that were refused because they were connected already.
    pub duplicates_refused: u64,
    /// Older connections that were closed for a newer one of the same identity.
    pub displaced: u64,
    /// Peers that were refused because too many were connected.
    pub too_many_connected: u64,
    /// Connections that were closed in their handshake because too many were in theirs.
    pub too_many_handshaking: u64,
    /// Peers that were refused because the listener was going away.
    pub shut_down: u64,
    /// Events that name a connection which is not known, or come at the wrong moment.
    pub stale_events: u64,
}

/// An acceptor's door: caps on connections, a list, and what happens when an identity comes twice.
///
/// Connections in their handshake have a cap of their own. When it is reached, a further one is let in and the one that has been
/// in its handshake for longest is closed: half-open connections that never get anywhere make room for those that do, and keep
/// none out. The gate has no deadlines.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    shut: bool,
    arrivals: u64,
    /// Connections in their handshake, by the order in which they came, those included that are being refused.
    handshaking: BTreeMap<u64, PeerConn>,
    order: BTreeMap<PeerConn, Place>,
    connected: BTreeMap<PeerConn, NodeId>,
    by_peer: BTreeMap<NodeId, BTreeSet<PeerConn>>,
    stats: GateStats,
}

/// A connection in its handshake.
#[derive(Debug, Clone, Copy)]
struct Place {
    arrival: u64,
    /// It was told that it may not stay, and is not gone yet.
    refused: bool,
}

impl Gate {
    /// An open gate.
    pub fn new(config: GateConfig) -> Self {
        Self {
            config,
            shut: false,
            arrivals: 0,
            handshaking: BTreeMap::new(),
            order: BTreeMap::new(),
            connected: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            stats: GateStats::default(),
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, event: GateEvent, actions: &mut Vec<GateAction>) {
        match event {
            GateEvent::Arrived(conn) => self.arrived(conn, actions),
            GateEvent::Identified(conn, peer) => self.identified(conn, peer, actions),
            GateEvent::Gone(conn) => self.gone(conn),
            GateEvent::AllowOnly(list) => self.config.allow_only = list,
            GateEvent::Duplicates(policy) => self.config.duplicates = policy,
            GateEvent::ShutDown => self.shut = true,
            GateEvent::Open(config) => {
                self.config = config;
                self.shut = false;
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> GateStats {
        self.stats
    }

    /// Connections in their handshake, those included that were refused and are not gone yet.
    pub fn handshaking(&self) -> usize {
        self.handshaking.len()
    }

    /// Connections that were let in and are not gone.
    pub fn connected(&self) -> usize {
        self.connected.len()
    }

    /// The connections of a peer that was let in, in the order of their keys.
    pub fn connections_of(&self, peer: &NodeId) -> impl Iterator<Item = PeerConn> + '_ {
        self.by_peer.get(peer).into_iter().flatten().copied()
    }

    fn arrived(&mut self, conn: PeerConn, actions: &mut Vec<GateAction>) {
        if self.order.contains_key(&conn) || self.connected.contains_key(&conn) {
            self.stats.stale_events += 1;
            return;
        }
        self.stats.arrived += 1;
        // More than one when the cap was lowered meanwhile.
        while self.handshaking.len() >= self.config.handshaking.max(1)
            && let Some((_, oldest)) = self.handshaking.pop_first()
        {
            self.order.remove(&oldest);
            self.stats.too_many_handshaking += 1;
            actions.push(GateAction::Close(oldest, Code::LIMIT));
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.handshaking.insert(arrival, conn);
        let refused = false;
        self.order.insert(conn, Place { arrival, refused });
    }

    fn identified(&mut self, conn: PeerConn, peer: NodeId, actions: &mut Vec<GateAction>) {
        let arrival = match self.order.get(&conn) {
            Some(place) if !place.refused => place.arrival,
            _ => {
                self.stats.stale_events += 1;
                return;
            }
        };
        if let Some(why) = self.refusal(&peer) {
            let count = match why {
                Refusal::NotAllowed => &mut self.stats.not_allowed,
                Refusal::Duplicate => &mut self.stats.duplicates_refused,
                Refusal::Shutdown => &mut self.stats.shut_down,
                _ => &mut self.stats.too_many_connected,
            };
            *count += 1;
            // It keeps its place until it is gone: refusals cost as much as handshakes.
            self.order.entry(conn).and_modify(|place| place.refused = true);
            actions.push(GateAction::Refuse(conn, why));
            return;
        }
        self.order.remove(&conn);
        self.handshaking.remove(&arrival);
        if self.config.duplicates == Duplicates::ReplaceOlder {
            for older in self.by_peer.remove(&peer).unwrap_or_default() {
                self.connected.remove(&older);
                self.stats.displaced += 1;
                actions.push(GateAction::Close(older, Code::DISPLACED));
            }
        }
        self.connected.insert(conn, peer);
        self.by_peer.entry(peer).or_default().insert(conn);
        self.stats.admitted += 1;
        actions.push(GateAction::Admit(conn));
    }

    /// Why a peer may not come in.
    fn refusal(&self, peer: &NodeId) -> Option<Refusal> {
        if self.shut {
            return Some(Refusal::Shutdown);
        }
        if self.config.allow_only.as_ref().is_some_and(|list| !list.contains(peer)) {
            return Some(Refusal::NotAllowed);
        }
        let present = self.by_peer.contains_key(peer);
        if present && self.config.duplicates == Duplicates::KeepOlder {
            return Some(Refusal::Duplicate);
        }
        // One that takes the place of another needs none of its own.
        let replaces = present && self.config.duplicates == Duplicates::ReplaceOlder;
        (!replaces && self.connected.len() >= self.config.connected).then_some(Refusal::Limit)
    }

    /// Forgets a connection, and nothing of a newer one of the same identity.
    fn gone(&mut self, conn: PeerConn) {
        if let Some(place) = self.order.remove(&conn) {
            self.handshaking.remove(&place.arrival);
        }
        if let Some(peer) = self.connected.remove(&conn)
            && let Some(connections) = self.by_peer.get_mut(&peer)
        {
            connections.remove(&conn);
            if connections.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }
}
