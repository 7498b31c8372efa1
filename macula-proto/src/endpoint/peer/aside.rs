//! Frames of calls, set aside for the link of a peering connection.

use std::collections::VecDeque;

use super::{PeerId, PeerItem, actions::frame_cost, role::PeerRole};
use crate::{
    Now,
    endpoint::{Event as Out, rpc::is_rpc},
    identity::NodeId,
    peering::{Received, Verdict},
    quic,
};

impl PeerRole {
    /// From now on frames of calls that the peer signed are set aside. Answers who this node is; `None` if the handshake is not
    /// complete or it is over.
    pub(in crate::endpoint) fn attach_rpc(&mut self, peer: PeerId) -> Option<NodeId> {
        let entry = self.peers.get_mut(&peer)?;
        entry.machine.peer()?;
        if entry.ended || entry.rpc.is_some() {
            return None;
        }
        let mut aside = VecDeque::new();
        let mut rest = VecDeque::new();
        for item in std::mem::take(&mut entry.inbox) {
            match item {
                PeerItem::Frame(frame) if of_link(&frame) => aside.push_back(frame),
                item => rest.push_back(item),
            }
        }
        entry.inbox = rest;
        entry.rpc = Some(aside);
        Some(entry.machine.node_id())
    }

    pub(in crate::endpoint) fn detach_rpc(&mut self, peer: PeerId) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && let Some(aside) = entry.rpc.take()
        {
            let bytes: usize = aside.iter().map(|frame| frame_cost(frame)).sum();
            entry.inbox_bytes = entry.inbox_bytes.saturating_sub(bytes);
        }
    }

    /// Whose link has something to do.
    pub(in crate::endpoint) fn next_rpc_news(&mut self) -> Option<PeerId> {
        self.rpc_news.pop_front()
    }

    pub(in crate::endpoint) fn is_connected(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|entry| !entry.ended)
    }

    /// The next frame that was set aside.
    pub(in crate::endpoint) fn take_rpc(
        &mut self,
        quic: &mut quic::Endpoint,
        now: Now,
        peer: PeerId,
        out: &mut Vec<Out>,
    ) -> Option<Box<Received>> {
        if self.peers.get(&peer)?.rpc.as_ref()?.is_empty() {
            self.read(quic, now, peer, false, out);
        }
        let entry = self.peers.get_mut(&peer)?;
        let frame = entry.rpc.as_mut()?.pop_front()?;
        entry.inbox_bytes = entry.inbox_bytes.saturating_sub(frame_cost(&frame));
        Some(frame)
    }
}

/// Whether a frame is for the link of its connection: one of a call, and the peer's own.
pub(super) fn of_link(frame: &Received) -> bool {
    frame.verdict == Verdict::Verified && is_rpc(&frame.decoded.frame.body)
}
