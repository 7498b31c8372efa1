//! What comes from other nodes.

use bytes::Bytes;

use super::{Action, Call, Node, Signal, Target, machine::NET_KERNEL};
use crate::wire::{
    dist::{Control, Message},
    etf::{Atom, Pid, Term},
};

impl<K: Copy + Ord> Node<K> {
    pub(super) fn received(&mut self, connection: K, message: &Bytes, actions: &mut Vec<Action<K>>) {
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        match state.decoder.decode(message) {
            Ok(None) => {}
            Ok(Some(message)) => {
                self.stats.received += 1;
                self.message(connection, message, actions);
            }
            Err(error) => {
                self.stats.unreadable += 1;
                if error.is_fatal() {
                    self.down(connection, actions);
                    actions.push(Action::Close { connection, error });
                }
            }
        }
    }

    fn message(&mut self, connection: K, message: Message, actions: &mut Vec<Action<K>>) {
        let Message { control, payload } = message;
        // Links and monitors are kept by node: who they are from has to be on the node that sends them.
        if sender(&control).is_some_and(|sender| !self.is_of(connection, sender)) {
            self.stats.stray += 1;
            return;
        }
        let payload = payload.unwrap_or(Term::NIL);
        match control {
            Control::Send { to, .. } => self.take_message(connection, None, &Target::Pid(to), payload, actions),
            Control::SendSender { from, to, .. } => {
                self.take_message(connection, Some(from), &Target::Pid(to), payload, actions);
            }
            Control::RegSend { from, to: name, .. } => {
                let node = self.config.name.clone();
                self.take_message(connection, Some(from), &Target::Name { name, node }, payload, actions);
            }
            Control::AliasSend { from, alias, .. } => {
                self.take_message(connection, Some(from), &Target::Alias(alias), payload, actions);
            }
            Control::Link { from, to } => self.link_received(connection, from, to, actions),
            Control::UnlinkId { id, from, to } => self.unlink_received(connection, Some(id), from, to, actions),
            Control::Unlink { from, to } => self.unlink_received(connection, None, from, to, actions),
            Control::UnlinkIdAck { id, from, to } => self.unlink_confirmed(id, &from, &to),
            Control::Exit { from, to, reason, .. } => {
                self.exit_received(connection, from, &to, reason.unwrap_or(payload), actions);
            }
            Control::Exit2 { from, to, reason, .. } => match self.local(&to) {
                Some(number) => {
                    let reason = reason.unwrap_or(payload);
                    self.exit_local(number, from, reason, Some(connection), actions);
                }
                None => self.stats.dropped += 1,
            },
            Control::Monitor { from, to, reference } => {
                self.monitor_received(connection, from, to, reference, actions);
            }
            Control::Demonitor { reference, .. } => self.demonitor_received(connection, &reference),
            Control::MonitorExit {
                to, reference, reason, ..
            } => self.down_received(connection, &to, reference, reason.unwrap_or(payload), actions),
            Control::SpawnRequest(spawn) => {
                self.stats.spawns_refused += 1;
                let reply = Control::SpawnReply {
                    request: spawn.request,
                    to: spawn.from,
                    flags: 0,
                    result: Atom::known("notsup").into(),
                    token: None,
                };
                self.put_control(connection, reply, actions);
            }
            Control::NodeLink | Control::GroupLeader { .. } | Control::SpawnReply { .. } => self.stats.ignored += 1,
        }
    }

    fn take_message(
        &mut self,
        connection: K,
        from: Option<Pid>,
        to: &Target,
        term: Term,
        actions: &mut Vec<Action<K>>,
    ) {
        match self.find(to) {
            Some(number) => self.deliver(number, Signal::Message { from, term }, Some(connection), actions),
            None => self.stats.dropped += 1,
        }
    }

    /// Somebody calls `exit` for a process of this node.
    pub(super) fn exit_local(
        &mut self,
        number: u64,
        from: Pid,
        reason: Term,
        origin: Option<K>,
        actions: &mut Vec<Action<K>>,
    ) {
        if number != NET_KERNEL && reason.is_atom("kill") {
            let pid = self.pid(number);
            self.terminate(number, &Atom::known("killed").into(), actions);
            return actions.push(Action::Ended(pid));
        }
        let linked = false;
        self.deliver(number, Signal::Exit { from, reason, linked }, origin, actions);
    }

    /// `net_adm:ping` is a call with `{is_auth, Node}`, answered with `yes`.
    pub(super) fn signal_net_kernel(&mut self, signal: Signal, origin: Option<K>, actions: &mut Vec<Action<K>>) {
        let call = match signal {
            Signal::Message { term, .. } => Call::from_term(term).ok(),
            Signal::Exit { .. } | Signal::Down { .. } => None,
        };
        let asks = |call: &Call| matches!(call.request.as_tuple(), Some([what, _]) if what.is_atom("is_auth"));
        let Some(call) = call.filter(asks) else {
            self.stats.ignored += 1;
            return;
        };
        let (to, reply) = (call.reply_to(), call.reply(Atom::known("yes")));
        // To whoever asked the answer goes out whatever waits: while much does, no more is read from there.
        let back = origin.is_some() && self.connection(to.node()) == origin;
        if self.route(NET_KERNEL, &to, reply, back, actions).is_ok() {
            self.stats.pings += 1;
        }
    }

    fn is_of(&self, connection: K, pid: &Pid) -> bool {
        let state = self.connections.get(&connection);
        state.is_some_and(|state| state.peer == pid.node)
    }
}

/// Who has to be on the node that sends this.
fn sender(control: &Control) -> Option<&Pid> {
    match control {
        Control::Link { from, .. }
        | Control::Exit { from, .. }
        | Control::Exit2 { from, .. }
        | Control::Unlink { from, .. }
        | Control::UnlinkId { from, .. }
        | Control::UnlinkIdAck { from, .. }
        | Control::Monitor { from, .. }
        | Control::Demonitor { from, .. } => Some(from),
        Control::SpawnRequest(spawn) => Some(&spawn.from),
        _ => None,
    }
}
