//! What controllers ask for, carried out.

use bytes::Bytes;

use super::{Cx, DistEvent, DistId, link::priority, role::DistRole};
use crate::{
    Now,
    dist::{
        controller::{Action, EndReason, Event},
        handshake::{Established, Standing},
        user,
    },
    quic::StreamId,
    wire::etf::Atom,
};

impl DistRole {
    /// Carries out actions, and what follows from them.
    pub(super) fn execute(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, actions: Vec<Action>) {
        for action in actions {
            self.execute_one(cx, now, id, action);
        }
        self.set_deadline(id);
        // One at a time: what is done about one may ask for more.
        while let Some((id, event)) = self.work.pop_front() {
            self.feed(cx, now, id, event);
        }
    }

    fn execute_one(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, action: Action) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match action {
            Action::Open(purpose) => {
                link.opening.push_back(purpose);
                self.open_streams(cx, now, id);
            }
            Action::Writable(_) => self.touch(id),
            Action::Finish(purpose) => {
                link.finish(purpose);
                self.touch(id);
            }
            Action::Read => {
                for stream in link.controller.peer_streams().into_iter().filter_map(StreamId::new) {
                    self.read(cx, now, id, stream, false);
                }
            }
            Action::Ping => {
                if let Ok(mut connection) = cx.quic.connection(link.conn) {
                    connection.ping();
                }
            }
            Action::AskStanding { peer } => self.called(id, peer),
            Action::AskWanted => {
                let wanted = match (&self.node, &link.peer) {
                    (Some(node), Some(peer)) => node.table.is_wanted(peer.as_str(), id),
                    _ => false,
                };
                self.work.push_back((id, Event::Wanted(wanted)));
            }
            Action::Up(established) => self.up(cx, now, id, &established),
            Action::PeerTick if link.known => cx.tell(id, DistEvent::Tick),
            Action::Congested if link.known => cx.tell(id, DistEvent::Congested),
            Action::SendReady if link.known => cx.tell(id, DistEvent::SendReady),
            Action::PeerTick | Action::Congested | Action::SendReady => {}
            Action::Messages => self.tell_messages(cx, id),
            Action::User(action) => self.user_action(cx, id, action),
            Action::Close { code, reason } => {
                if let Ok(mut connection) = cx.quic.connection(link.conn) {
                    connection.close(now, code, Bytes::from(reason));
                }
            }
            Action::Down(reason) => self.down(cx, id, reason),
        }
    }

    /// A node calls, and has not proved anything yet.
    fn called(&mut self, id: DistId, peer: Atom) {
        let Some(node) = &mut self.node else { return };
        let allowed = node.config.allowed.as_ref().is_none_or(|list| list.contains(&peer));
        if !allowed {
            return self.work.push_back((id, Event::Standing(Standing::Forbidden)));
        }
        let calling = node.table.call(&peer, id);
        if let Some(link) = self.links.get_mut(&id) {
            link.peer = Some(peer);
        }
        if let Some(other) = calling.abort {
            self.work.push_back((other, Event::Displaced));
        }
        self.work.push_back((id, Event::Standing(calling.standing)));
    }

    fn up(&mut self, cx: &mut Cx<'_>, now: Now, id: DistId, established: &Established) {
        self.no_more_handshake(id);
        let Some(node) = &mut self.node else { return };
        if !node.takes_name(established) {
            return self.work.push_back((id, Event::Displaced));
        }
        match node.table.up(established.peer.as_str(), id) {
            Ok(None) => {}
            // Its end is told before the beginning of the one that takes its place.
            Ok(Some(earlier)) => self.feed(cx, now, earlier, Event::Displaced),
            Err(_) => return self.work.push_back((id, Event::Displaced)),
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.known = true;
        let node = established.peer.clone();
        cx.tell(id, DistEvent::PreNodeUp { node: node.clone() });
        let event = DistEvent::Up {
            node,
            creation: established.peer_creation,
            flags: established.common,
            side: link.controller.side(),
            remote: link.remote,
        };
        cx.tell(id, event);
        self.fresh.push(id);
    }

    fn down(&mut self, cx: &mut Cx<'_>, id: DistId, reason: EndReason) {
        self.no_more_handshake(id);
        let Some(link) = self.links.get_mut(&id) else { return };
        if let (Some(node), Some(peer)) = (&mut self.node, &link.peer) {
            node.table.gone(peer.as_str(), id);
        }
        link.over = true;
        if link.known {
            if link.controller.has_messages() {
                cx.tell(id, DistEvent::Over(reason.clone()));
            }
            link.ended = Some(reason);
        } else {
            tracing::debug!(%reason, "a distribution connection that nobody knows of is over");
        }
        self.tell_down(cx, id);
    }

    fn no_more_handshake(&mut self, id: DistId) {
        if let Some(link) = self.links.get_mut(&id)
            && std::mem::take(&mut link.counted)
        {
            self.handshaking -= 1;
        }
    }

    pub(super) fn tell_messages(&mut self, cx: &mut Cx<'_>, id: DistId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.known && !std::mem::replace(&mut link.told_messages, true) {
            cx.tell(id, DistEvent::Readable);
        }
    }

    /// Tells the end, once all messages are fetched.
    pub(super) fn tell_down(&mut self, cx: &mut Cx<'_>, id: DistId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.over && (!link.known || !link.controller.has_messages()) {
            if let Some(reason) = link.ended.take()
                && link.known
            {
                let event = DistEvent::Down {
                    node: link.controller.node().cloned(),
                    reason,
                    supervisor: link.supervisor,
                };
                cx.tell(id, event);
            }
            self.reap(id);
        }
    }

    fn user_action(&mut self, cx: &mut Cx<'_>, id: DistId, action: user::Action) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let number = match action {
            user::Action::Finish(stream)
            | user::Action::Prioritise { stream, .. }
            | user::Action::Stop { stream, .. }
            | user::Action::Abandon { stream, .. }
            | user::Action::Abort { stream, .. }
            | user::Action::Tell { stream, .. } => stream,
        };
        let Some(stream) = StreamId::new(number) else { return };
        if let user::Action::Tell { owner, event, .. } = action {
            if link.known {
                cx.tell(id, DistEvent::Stream { stream, owner, event });
            }
            return;
        }
        let Ok(mut connection) = cx.quic.connection(link.conn) else {
            return;
        };
        let Ok(mut stream) = connection.stream(stream) else {
            return;
        };
        // A half that is over stays as it is.
        match action {
            user::Action::Prioritise { priority: urgency, .. } => _ = stream.set_priority(priority(urgency.get())),
            user::Action::Finish(_) => _ = stream.finish(),
            user::Action::Stop { code, .. } => _ = stream.stop(code),
            user::Action::Abandon { code, .. } => _ = stream.reset(code),
            user::Action::Abort { code, .. } => stream.abort(code),
            user::Action::Tell { .. } => {}
        }
    }
}
