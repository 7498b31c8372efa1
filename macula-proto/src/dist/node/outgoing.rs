use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::{
    dist::{Control, FragmentedMessage, control},
    etf::Pid,
};

/// Messages that are on their way in fragments at once.
const MAX_LONG: usize = 64;

/// What waits to be sent on one connection.
///
/// Messages go in the order they came, but for long ones, which go in fragments: between two fragments the messages of other
/// processes pass. Those of the same process stay behind it, as Erlang promises their order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<Entry>,
    /// Those of which the first fragment is gone; the next fragment is of the first one.
    long: VecDeque<Long>,
    /// A fragment is next, not a message.
    fragment_next: bool,
    /// Bytes of all of them.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// Whose signal it is. `None`: it cannot be told, and it stays behind everybody's.
    sender: Option<Pid>,
    body: FragmentedMessage,
}

#[derive(Debug)]
struct Long {
    entry: Entry,
    /// Later ones of the same process.
    behind: VecDeque<Entry>,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.long.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, sender: Option<Pid>, body: FragmentedMessage) {
        self.bytes = self.bytes.saturating_add(body.len());
        self.waiting.push_back(Entry { sender, body });
    }

    /// The next message or fragment.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        loop {
            if self.fragment_next || self.waiting.is_empty() {
                self.fragment_next = false;
                if let Some(long) = self.long.pop_front() {
                    return self.pull(long);
                }
            }
            let entry = self.waiting.pop_front()?;
            let same = |long: &&mut Long| long.entry.sender == entry.sender;
            if let Some(long) = self.long.iter_mut().find(same) {
                long.behind.push_back(entry);
                continue;
            }
            self.fragment_next = true;
            if !self.long.is_empty() && (entry.sender.is_none() || self.long.len() >= MAX_LONG) {
                self.waiting.push_front(entry);
            } else {
                let behind = VecDeque::new();
                return self.pull(Long { entry, behind });
            }
        }
    }

    fn pull(&mut self, mut long: Long) -> Option<Bytes> {
        let before = long.entry.body.len();
        let piece = long.entry.body.next();
        let after = long.entry.body.len();
        self.bytes = self.bytes.saturating_sub(before.saturating_sub(after));
        if after > 0 {
            self.long.push_back(long);
        } else {
            long.behind
                .into_iter()
                .rev()
                .for_each(|entry| self.waiting.push_front(entry));
        }
        piece
    }
}

/// Whose signal it is.
pub(super) fn sender(control: &Control) -> Option<&Pid> {
    match control {
        Control::Link { from, .. }
        | Control::SendSender { from, .. }
        | Control::RegSend { from, .. }
        | Control::AliasSend { from, .. }
        | Control::Exit { from, .. }
        | Control::Exit2 { from, .. }
        | Control::Unlink { from, .. }
        | Control::UnlinkId { from, .. }
        | Control::UnlinkIdAck { from, .. }
        | Control::GroupLeader { from, .. }
        | Control::Monitor { from, .. }
        | Control::Demonitor { from, .. }
        | Control::MonitorExit {
            from: control::Process::Pid(from),
            ..
        } => Some(from),
        Control::SpawnRequest(spawn) => Some(&spawn.from),
        Control::MonitorExit { .. } | Control::Send { .. } | Control::NodeLink | Control::SpawnReply { .. } => None,
    }
}
