//! Open tunnels.

use super::{
    Action, Rates, Relay, Report, SpliceEnd, TunnelBytes, TunnelCloseReason, TunnelKey, TunnelStatus,
    requests::RequestKey,
};
use crate::{
    Code,
    tunnel::{ConnKey, Name, StreamKey},
    wire::control::{Message, TunnelId},
};

/// The two ends of a tunnel, or of one that is being opened.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) requester: ConnKey,
    pub(super) target: ConnKey,
    pub(super) source_name: Name,
    pub(super) target_name: Name,
}

impl Route {
    /// Its names and their connections, each name once.
    pub(super) fn names(&self) -> impl Iterator<Item = (ConnKey, &Name)> {
        let other = (self.source_name != self.target_name).then_some((self.target, &self.target_name));
        std::iter::once((self.requester, &self.source_name)).chain(other)
    }
}

#[derive(Debug)]
pub(super) struct Tunnel {
    id: TunnelId,
    route: Route,
}

impl Tunnel {
    pub(super) fn status(&self, tunnel: TunnelKey) -> TunnelStatus {
        TunnelStatus {
            tunnel,
            id: self.id,
            source: self.route.source_name.clone(),
            target: self.route.target_name.clone(),
            conns: (self.route.requester, self.route.target),
        }
    }
}

impl Relay {
    pub(super) fn open_tunnel(
        &mut self,
        request: RequestKey,
        to_requester: StreamKey,
        to_target: StreamKey,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.detach_request(request) else {
            return;
        };
        let (route, reply) = (request.route, request.reply);
        let tunnel = TunnelKey(self.next_key());
        let id = self.unused_id();
        for key in [route.requester, route.target] {
            if let Some(conn) = self.conns.get_mut(&key) {
                conn.tunnels.insert(tunnel);
            }
        }
        self.stats.tunnels_opened += 1;
        actions.push(Action::Splice {
            tunnel,
            id,
            requester: (route.requester, to_requester),
            target: (route.target, to_target),
            rates: self.rates(&route),
        });
        actions.push(Action::Report(Report::TunnelOpened {
            tunnel,
            id,
            source: route.source_name.clone(),
            target: route.target_name.clone(),
        }));
        let notify = Message::TunnelNotify {
            tunnel: id,
            source: route.source_name.to_bytes().into(),
        };
        self.send(route.target, &notify, actions);
        let requester = route.requester;
        if let Some(conn) = self.conns.get_mut(&requester) {
            conn.replies.fill(reply, Message::TunnelOk { tunnel: id });
        }
        self.ids.insert(id, tunnel);
        self.tunnels.insert(tunnel, Tunnel { id, route });
        self.flush_replies(requester, actions);
    }

    fn unused_id(&mut self) -> TunnelId {
        loop {
            let id = TunnelId::from_random(self.rng.bytes());
            if !self.ids.contains_key(&id) {
                return id;
            }
        }
    }

    fn rates(&self, route: &Route) -> Rates {
        let rate = |name| {
            let limits = self.config.access.limits(name, self.config.node_limits);
            limits.bytes_per_second
        };
        Rates {
            requester: rate(&route.source_name),
            target: rate(&route.target_name),
        }
    }

    /// A node's `tunnel_close`.
    pub(super) fn tunnel_close(&mut self, key: ConnKey, id: TunnelId, actions: &mut Vec<Action>) {
        let found = self.ids.get(&id).and_then(|&key| Some((key, self.tunnels.get(&key)?)));
        let (tunnel, reason) = match found {
            Some((tunnel, Tunnel { route, .. })) if route.requester == key => {
                (tunnel, TunnelCloseReason::ClosedBySource)
            }
            Some((tunnel, Tunnel { route, .. })) if route.target == key => (tunnel, TunnelCloseReason::ClosedByTarget),
            _ => {
                self.stats.stray_closes += 1;
                return;
            }
        };
        self.end_tunnel(tunnel, Code::CLOSED, reason, actions);
    }

    pub(super) fn peer_gone(&mut self, tunnel: TunnelKey, actions: &mut Vec<Action>) {
        self.end_tunnel(tunnel, Code::PEER_GONE, TunnelCloseReason::PeerGone, actions);
    }

    pub(super) fn tunnel_ended(
        &mut self,
        key: TunnelKey,
        end: SpliceEnd,
        bytes: TunnelBytes,
        actions: &mut Vec<Action>,
    ) {
        let reason = match end {
            SpliceEnd::Finished => TunnelCloseReason::Finished,
            SpliceEnd::Reset(code) => TunnelCloseReason::Reset(code),
        };
        match self.remove_tunnel(key) {
            Some(tunnel) => actions.push(closed(key, tunnel, reason, Some(bytes))),
            None => self.stats.stale_events += 1,
        }
    }

    fn end_tunnel(&mut self, key: TunnelKey, code: Code, reason: TunnelCloseReason, actions: &mut Vec<Action>) {
        if let Some(tunnel) = self.remove_tunnel(key) {
            actions.push(Action::EndTunnel { tunnel: key, code });
            actions.push(closed(key, tunnel, reason, None));
        }
    }

    fn remove_tunnel(&mut self, key: TunnelKey) -> Option<Tunnel> {
        let tunnel = self.tunnels.remove(&key)?;
        self.stats.tunnels_closed += 1;
        self.ids.remove(&tunnel.id);
        for conn_key in [tunnel.route.requester, tunnel.route.target] {
            if let Some(conn) = self.conns.get_mut(&conn_key) {
                conn.tunnels.remove(&key);
                conn.carried = true;
                self.maybe_idle.insert(conn_key);
            }
        }
        self.uncount_tunnel(&tunnel.route);
        Some(tunnel)
    }

    pub(super) fn count_tunnel(&mut self, route: &Route) {
        for (conn, name) in route.names() {
            if let Some(holder) = self.names.get_mut(name).filter(|holder| holder.conn == conn) {
                holder.tunnels += 1;
            }
        }
    }

    pub(super) fn uncount_tunnel(&mut self, route: &Route) {
        for (conn, name) in route.names() {
            if let Some(holder) = self.names.get_mut(name).filter(|holder| holder.conn == conn) {
                holder.tunnels = holder.tunnels.saturating_sub(1);
            }
        }
    }
}

fn closed(key: TunnelKey, tunnel: Tunnel, reason: TunnelCloseReason, bytes: Option<TunnelBytes>) -> Action {
    Action::Report(Report::TunnelClosed {
        tunnel: key,
        id: tunnel.id,
        source: tunnel.route.source_name,
        target: tunnel.route.target_name,
        reason,
        bytes,
    })
}
