//! What has to hold at every moment, and when everything is closed.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code,
    quic::CloseReason,
    sim::{Fault, HostId},
};

use super::{Run, Start};

/// Longer than any time-out of what is closed.
const REST: Duration = Duration::from_secs(150);
/// A message or chunk that may go beyond a bound, and what is kept besides.
const SLACK: usize = 512 << 10;

impl Run {
    /// Ends of connections that no fault of the network explains.
    pub(super) fn judge_end(&mut self, start: Start, reason: &CloseReason) {
        let wrong = match reason {
            CloseReason::Transport { .. } => true,
            // 2: refused. 12: closed by the application before the handshake was complete (RFC 9000, section 10.2.3).
            CloseReason::PeerTransport { code, .. } => ![2, 12].contains(code),
            CloseReason::Local { code, .. } | CloseReason::Peer { code, .. } => {
                [Code::PROTOCOL, Code::INTERNAL].contains(code)
            }
            _ => false,
        };
        if wrong {
            self.fail(format!("{}: {reason} ({reason:?})", start.0));
        }
    }

    pub(super) fn check_bounds(&mut self) {
        let mut over = None;
        for (start, link) in self.calls.links() {
            let limits = self.rpc_config(start.0).limits;
            if let Some(info) = self
                .world
                .endpoint_of(start.0)
                .and_then(|endpoint| endpoint.rpc_info(link))
            {
                let lanes = if info.per_call { info.calls + 1 } else { 1 };
                let queued = info.queued > lanes * (limits.outbox + SLACK);
                if queued || info.waiting > limits.waiting + info.calls * SLACK {
                    over = Some(format!("{}: {info:?}", start.0));
                }
            }
        }
        for (start, peer) in self.frames.all() {
            if let Some(info) = self
                .world
                .endpoint_of(start.0)
                .and_then(|endpoint| endpoint.peer_info(peer))
                && info.queued > (2 << 20) + SLACK
            {
                over = Some(format!("{}: {info:?}", start.0));
            }
        }
        for (start, dist) in self.messages.all() {
            let stat = self.world.with(start.0, |endpoint, _| endpoint.dist_stat(dist));
            if let Ok(Some(stat)) = stat
                && stat.pending > (1 << 20) + SLACK
            {
                over = Some(format!("{}: {stat:?}", start.0));
            }
        }
        for relay in 0..self.plan.relays {
            let router = self.world.endpoint_of(HostId::new(relay));
            for node in router
                .and_then(|endpoint| endpoint.router_status())
                .into_iter()
                .flat_map(|status| status.nodes)
            {
                if node.queued > (1 << 20) + SLACK {
                    over = Some(format!("router {relay}: {node:?}"));
                }
            }
        }
        if let Some(over) = over {
            self.fail(format!("more waits than may: {over}"));
        }
    }

    /// Without faults everything succeeds that was not given up.
    pub(super) fn check_complete(&mut self) {
        if !self.plan.gentle {
            return;
        }
        let wanting = [
            self.streams.incomplete(self.drains.any()),
            self.calls.incomplete(),
            self.frames.incomplete(),
            self.messages.incomplete(),
            self.dist_streams.incomplete(),
        ];
        if let Some(what) = wanting.into_iter().flatten().next() {
            self.fail(what);
        }
    }

    /// Closes everything in good order, then the rest, and looks whether anything is left.
    pub(super) fn close_everything(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.closing = true;
        self.world.apply(Fault::HealAll);
        self.close_links();
        self.rest(Duration::from_secs(5));
        self.close_peers();
        self.close_dist();
        for index in 0..self.hosts.len() {
            if let Some(client) = self.hosts[index].client {
                let host = HostId::new(index as u32);
                let _ = self.world.with(host, |endpoint, now| endpoint.stop_client(now, client));
            }
        }
        self.rest(Duration::from_secs(30));
        for host in self.world.hosts() {
            let _ = self.world.with(host, |endpoint, now| {
                endpoint.quic().close_all(now, Code::CLOSED, &Bytes::new());
            });
        }
        self.rest(REST);
        self.check_empty();
    }

    fn rest(&mut self, time: Duration) {
        let until = self.world.elapsed() + time;
        self.run_until(until, |_| false);
    }

    fn check_empty(&mut self) {
        if self.failure.is_some() {
            return;
        }
        for host in self.world.hosts() {
            let left = self.world.with(host, |endpoint, now| {
                let mut left = Vec::new();
                let mut note = |what: &str, count: usize| {
                    if count > 0 {
                        left.push(format!("{count} {what}"));
                    }
                };
                note("connections", endpoint.quic().connections().count());
                note("connections that drain", usize::from(!endpoint.quic().is_idle()));
                note("handshakes", endpoint.quic().stats().handshaking as usize);
                if let Some(status) = endpoint.relay_status() {
                    note("names", status.names.len());
                    note("connections of the relay", status.connections.len());
                    note("tunnels", status.tunnels.len());
                }
                if let Some(status) = endpoint.router_status() {
                    note("connections of the router", status.nodes.len());
                    note("registered procedures", status.procedures.len());
                    note("calls through the router", status.streams + status.calls);
                }
                let peers = endpoint.peer_service_stats();
                note("peers", peers.silent + peers.handshaking + peers.connected);
                note("nodes", endpoint.dist_nodes().len());
                let due = endpoint.poll_timeout().map(|at| at.saturating_duration_since(now.mono));
                if let Some(due) = due {
                    left.push(format!("a deadline in {due:?}"));
                }
                left
            });
            match left {
                Ok(left) if left.is_empty() => {}
                Ok(left) => return self.fail(format!("{host}: left at the end: {}", left.join(", "))),
                Err(down) => return self.fail(down.to_string()),
            }
        }
        let open = self.open();
        let links = self.calls.links();
        if !open.is_empty() || !links.is_empty() {
            return self.fail(format!("without an end: {} {links:?}", open.join("; ")));
        }
        if let Some(relay) = self.drains.unfinished() {
            return self.fail(relay);
        }
        let unended = self.conns.iter().find(|(_, over)| !**over).map(|(conn, _)| *conn);
        if let Some(conn) = unended {
            self.fail(format!("a connection without its end: {conn:?}"));
        }
    }
}
