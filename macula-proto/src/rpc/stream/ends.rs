//! How a call ends, by whichever side, and the way to the peer.

use std::{collections::VecDeque, mem, time::Instant};

use super::{Action, Carrier, Loss, Output, Over, Owed, Stream, Wants};
use crate::rpc::{EndRole, Fault};

impl Stream {
    pub(super) fn close_send(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.flags.closed_send {
            return;
        }
        self.flags.closed_send = true;
        self.touch(now);
        match self.carrier {
            Carrier::Attached => actions.push(Action::Emit(Output::End(EndRole::Send))),
            Carrier::Awaited => self.owed.end = Some(EndRole::Send),
            Carrier::Lost => {}
        }
        self.wake_sender(actions);
    }

    pub(super) fn close(&mut self, actions: &mut Vec<Action>) {
        if self.is_over() {
            return;
        }
        match self.carrier {
            Carrier::Attached => actions.push(Action::Emit(Output::End(EndRole::Both))),
            Carrier::Awaited => self.owed.end = Some(EndRole::Both),
            Carrier::Lost => {}
        }
        self.end(Over::Closed, actions);
    }

    /// Gives the call up, if there is anything left of it.
    pub(super) fn abort(&mut self, fault: Fault, actions: &mut Vec<Action>) {
        if self.is_complete() {
            return;
        }
        match self.carrier {
            Carrier::Attached => actions.push(Action::Emit(Output::Error(fault.clone()))),
            Carrier::Awaited => self.owed.error = true,
            Carrier::Lost => {}
        }
        self.end(Over::Failed(Box::new(fault)), actions);
    }

    pub(super) fn owner_down(&mut self, actions: &mut Vec<Action>) {
        self.abort(Fault::owner_down(), actions);
        self.inbox = VecDeque::new();
        self.inbox_bytes = 0;
        self.waiters = Vec::new();
    }

    pub(super) fn peer_end(&mut self, now: Instant, role: EndRole, actions: &mut Vec<Action>) {
        if self.is_over() {
            self.stats_mut().late += 1;
            return;
        }
        match role {
            EndRole::Both => {
                self.owed = Owed::default();
                self.end(Over::PeerClosed, actions);
            }
            EndRole::Send if self.flags.peer_ended => self.stats_mut().late += 1,
            EndRole::Send => {
                self.flags.peer_ended = true;
                self.touch(now);
                self.close_recv(actions);
            }
        }
    }

    pub(super) fn peer_error(&mut self, fault: Fault, actions: &mut Vec<Action>) {
        if self.is_complete() {
            self.stats_mut().late += 1;
        } else {
            self.owed = Owed::default();
            self.end(Over::Failed(Box::new(fault)), actions);
        }
    }

    pub(super) fn carrier_lost(&mut self, loss: Loss, actions: &mut Vec<Action>) {
        self.carrier = Carrier::Lost;
        self.owed = Owed::default();
        if !self.is_complete() {
            let fault = match loss {
                Loss::PeerDown => None,
                Loss::Connection(fault) => Some(Box::new(fault)),
            };
            self.end(Over::Lost(fault), actions);
        }
    }

    /// The call is over.
    fn end(&mut self, over: Over, actions: &mut Vec<Action>) {
        self.over = over;
        self.flags.closed_send = true;
        self.close_recv(actions);
        if self.reply.is_none() {
            self.answer_reply_waiters(actions);
        }
        self.wake_sender(actions);
    }

    /// No more chunks come in.
    pub(super) fn close_recv(&mut self, actions: &mut Vec<Action>) {
        if mem::replace(&mut self.flags.closed_recv, true) {
            return;
        }
        let mut waited = false;
        while let Some(waiter) = self.next_waiter(Wants::Chunk) {
            let result = Err(self.end_of_data());
            actions.push(Action::Received { waiter, result });
            waited = true;
        }
        if !waited && self.inbox.is_empty() {
            actions.push(Action::Readable);
        }
        if self.flags.full {
            self.make_room(actions);
        }
    }

    /// Whether nothing but the inbox is left of the call.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.over, Over::Not)
    }

    /// Whether the call needs nothing more from either side.
    pub(super) fn is_complete(&self) -> bool {
        let sent = self.flags.closed_send || !self.role.may_send(self.mode);
        let received = self.flags.closed_recv || !self.role.other().may_send(self.mode);
        self.is_over() || (sent && received && self.reply.is_some())
    }

    /// What follows from the event.
    pub(super) fn settle_down(&mut self, actions: &mut Vec<Action>) {
        if self.flags.finished || !self.is_complete() {
            return;
        }
        // The mode closed it: whoever waits for an end shall see it.
        self.close_recv(actions);
        let owes = self.owed.reply || self.owed.end.is_some() || self.owed.error;
        if self.inbox.is_empty() && !owes {
            self.flags.finished = true;
            actions.push(Action::Finished);
        }
    }

    // ----- the way to the peer ---------------------------------------------------------------------------------------

    pub(super) fn attached(&mut self, actions: &mut Vec<Action>) {
        if self.carrier != Carrier::Awaited {
            return;
        }
        self.carrier = Carrier::Attached;
        let owed = mem::take(&mut self.owed);
        if let (true, Some(outcome)) = (owed.reply, self.reply.as_deref()) {
            actions.push(Action::Emit(Output::Reply(outcome.clone())));
        }
        if let Some(role) = owed.end {
            actions.push(Action::Emit(Output::End(role)));
        }
        if let (true, Over::Failed(fault)) = (owed.error, &self.over) {
            actions.push(Action::Emit(Output::Error((**fault).clone())));
        }
        if self.flags.writable {
            self.wake_sender(actions);
        }
    }

    pub(super) fn writable(&mut self, writable: bool, actions: &mut Vec<Action>) {
        self.flags.writable = writable;
        if writable && self.carrier == Carrier::Attached {
            self.wake_sender(actions);
        }
    }

    fn wake_sender(&mut self, actions: &mut Vec<Action>) {
        if mem::take(&mut self.flags.refused) {
            actions.push(Action::SendReady);
        }
    }

    pub(super) fn make_room(&mut self, actions: &mut Vec<Action>) {
        self.flags.full = false;
        actions.push(Action::InboxRoom);
    }
}
