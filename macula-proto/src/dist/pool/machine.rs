use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    Action, Event, Fault, Ordering, PoolConfig, PoolStats, SendError,
    outgoing::{Outgoing, Pulled},
};
use crate::{
    dist::streams::{Side, Slot},
    wire::dist::{Frame, MessageFraming, message_length},
};

/// What a message in the inbox costs besides its bytes.
const MESSAGE_COST: usize = 64;

/// The data pool of one connection. See the [module](super).
#[derive(Debug)]
pub struct DataPool {
    config: PoolConfig,
    state: State,
    outgoing: [Outgoing; Slot::COUNT],
    incoming: [MessageFraming; Slot::COUNT],
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    /// No more was to be read.
    full: bool,
    /// The stream of the next message when they go round.
    next: usize,
    /// Messages taken since the last wake-up.
    taken: usize,
    /// The producer was refused and waits to be told.
    waiting: bool,
    congested: bool,
    /// More waits in the transport than is to be.
    transport_full: bool,
    /// Bytes on their way when it was told, and those pulled since.
    in_flight: u64,
    /// Something could not be pulled for that.
    held_back: bool,
    stats: PoolStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Connected,
    Up,
    Failed,
}

impl DataPool {
    /// A pool that waits for its connection.
    pub fn new(config: PoolConfig) -> Self {
        let incoming = Slot::ALL.map(|_| MessageFraming::new(config.max_message));
        Self {
            config,
            state: State::Fresh,
            outgoing: Default::default(),
            incoming,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            full: false,
            next: 0,
            taken: 0,
            waiting: false,
            congested: false,
            transport_full: false,
            in_flight: 0,
            held_back: false,
            stats: PoolStats::default(),
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        if self.state == State::Failed {
            return;
        }
        match event {
            Event::Connected => self.connected(actions),
            Event::Up => self.up(actions),
            Event::Opened(slot) => {
                if let Some(outgoing) = self.outgoing.get_mut(slot.index()) {
                    outgoing.open = true;
                    if outgoing.len() > 0 {
                        actions.push(Action::Writable(slot));
                    }
                }
            }
            Event::Wakeup => {
                self.taken = 0;
                self.tell_ready(actions);
            }
            Event::Transport {
                queued,
                window,
                in_flight,
            } => self.transport(queued, window, in_flight, actions),
            Event::Received { slot, bytes } => self.received(slot, bytes, actions),
            Event::Ended(slot) => self.fail(Fault::Ended(slot), actions),
        }
    }

    /// Takes a message from the producer. `key` matters for [`Ordering::Keyed`] only.
    ///
    /// # Errors
    /// [`SendError`]: it was not taken.
    pub fn send(&mut self, message: Bytes, key: u64, actions: &mut Vec<Action>) -> Result<(), SendError> {
        match self.state {
            State::Up => {}
            State::Failed => return Err(SendError::Failed),
            State::Fresh | State::Connected => return Err(SendError::NotUp),
        }
        if message.is_empty() {
            return Err(SendError::Empty);
        }
        let length = message_length(message.len(), self.config.max_message)?;
        if self.allowance() == 0 {
            self.waiting = true;
            self.stats.refused += 1;
            return Err(if self.congested {
                SendError::Congested
            } else {
                SendError::Later
            });
        }
        self.taken += 1;
        self.stats.messages_taken += 1;
        let slot = self.place(key);
        if let Some(outgoing) = self.outgoing.get_mut(slot.index()) {
            let was_empty = outgoing.len() == 0;
            outgoing.push(length, message);
            if was_empty && outgoing.open {
                actions.push(Action::Writable(slot));
            }
        }
        self.judge(actions);
        Ok(())
    }

    /// How many messages [`send`](Self::send) takes before the next wake-up.
    pub fn allowance(&self) -> usize {
        match self.state {
            State::Up if !self.congested => self.config.take.saturating_sub(self.taken),
            _ => 0,
        }
    }

    /// Up to `room` bytes to be written on a stream of this side, or `None` when there is nothing for now.
    pub fn poll_output(&mut self, slot: Slot, room: usize, actions: &mut Vec<Action>) -> Option<Bytes> {
        if self.state == State::Failed {
            return None;
        }
        let outgoing = self.outgoing.get_mut(slot.index()).filter(|outgoing| outgoing.open)?;
        let allowed = match self.config.in_flight {
            Some(limit) => usize::try_from(limit.saturating_sub(self.in_flight)).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        if allowed == 0 && outgoing.len() > 0 {
            self.held_back = true;
            return None;
        }
        let Pulled { bytes, complete } = outgoing.pull(room.min(allowed))?;
        self.in_flight += bytes.len() as u64;
        self.stats.bytes_sent += bytes.len() as u64;
        self.stats.messages_sent += complete;
        self.judge(actions);
        Some(bytes)
    }

    /// The next message of the peer, once the node is up. Those that came before the pool failed can be taken after it, too.
    pub fn poll_message(&mut self, actions: &mut Vec<Action>) -> Option<Bytes> {
        if matches!(self.state, State::Fresh | State::Connected) {
            return None;
        }
        let message = self.inbox.pop_front()?;
        self.inbox_bytes = self.inbox_bytes.saturating_sub(message.len() + MESSAGE_COST);
        self.stats.messages_delivered += 1;
        self.tell_readable(actions);
        Some(message)
    }

    /// How many more bytes are taken from the peer for now: read no more of its streams than that. When it is 0,
    /// [`Action::Readable`] tells when to go on.
    pub fn room(&self) -> usize {
        let limit = match self.state {
            State::Up => self.config.inbox,
            State::Fresh | State::Connected => self.config.early,
            State::Failed => 0,
        };
        limit.saturating_sub(self.inbox_bytes)
    }

    /// Whether too much waits to be sent.
    pub fn is_congested(&self) -> bool {
        self.congested
    }

    /// Whether everything that was taken was pulled.
    pub fn is_drained(&self) -> bool {
        self.pending() == 0
    }

    /// Bytes that were taken and not pulled yet, lengths included.
    pub fn pending(&self) -> usize {
        self.outgoing.iter().map(Outgoing::len).sum()
    }

    /// Messages of the peer that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Bytes held of messages of the peer: complete ones that were not taken, and incomplete ones.
    pub fn buffered(&self) -> usize {
        self.inbox_bytes + self.incoming.iter().map(MessageFraming::buffered).sum::<usize>()
    }

    /// What was done.
    pub fn stats(&self) -> PoolStats {
        self.stats
    }

    fn connected(&mut self, actions: &mut Vec<Action>) {
        if self.state == State::Fresh {
            self.state = State::Connected;
            if self.config.side == Side::Client {
                actions.extend(Slot::ALL.map(Action::OpenStream));
            }
        }
    }

    fn up(&mut self, actions: &mut Vec<Action>) {
        if self.state == State::Up {
            return;
        }
        self.connected(actions);
        self.state = State::Up;
        if self.config.side == Side::Server {
            actions.extend(Slot::ALL.map(Action::OpenStream));
        }
        if !self.inbox.is_empty() {
            actions.push(Action::Messages);
        }
        self.tell_readable(actions);
    }

    fn place(&mut self, key: u64) -> Slot {
        let index = match self.config.ordering {
            Ordering::Single => return Slot::SINGLE,
            Ordering::RoundRobin => {
                self.next = self.next.wrapping_add(1);
                self.next
            }
            Ordering::Keyed => mixed(key) as usize,
        };
        Slot::ALL.get(index % Slot::COUNT).copied().unwrap_or(Slot::SINGLE)
    }

    fn received(&mut self, slot: Slot, mut bytes: Bytes, actions: &mut Vec<Action>) {
        self.stats.bytes_received += bytes.len() as u64;
        let was_empty = self.inbox.is_empty();
        let Some(framing) = self.incoming.get_mut(slot.index()) else {
            return;
        };
        let mut failed = None;
        while let Some(frame) = framing.next(&mut bytes) {
            match frame {
                Ok(Frame::Tick) => self.stats.ticks_received += 1,
                Ok(Frame::Message(message)) => {
                    self.stats.messages_received += 1;
                    self.stats.messages_early += u64::from(self.state != State::Up);
                    self.inbox_bytes += message.len() + MESSAGE_COST;
                    self.inbox.push_back(message);
                }
                Err(error) => failed = Some(error),
            }
        }
        if was_empty && !self.inbox.is_empty() && self.state == State::Up {
            actions.push(Action::Messages);
        }
        self.full |= self.room() == 0;
        if let Some(error) = failed {
            self.fail(error.into(), actions);
        }
    }

    fn transport(&mut self, queued: u64, window: u64, in_flight: u64, actions: &mut Vec<Action>) {
        // Between the two thresholds it stays as it is, so that it does not flutter.
        let limit = window.saturating_mul(self.config.windows);
        self.transport_full = queued > if self.transport_full { limit / 2 } else { limit };
        self.in_flight = in_flight;
        if self.held_back && self.config.in_flight.is_none_or(|limit| in_flight < limit) {
            self.held_back = false;
            let waiting = |slot: &Slot| {
                let outgoing = self.outgoing.get(slot.index());
                outgoing.is_some_and(|outgoing| outgoing.open && outgoing.len() > 0)
            };
            actions.extend(Slot::ALL.into_iter().filter(waiting).map(Action::Writable));
        }
        self.judge(actions);
    }

    /// Finds out whether the pool is congested.
    fn judge(&mut self, actions: &mut Vec<Action>) {
        let limit = if self.congested {
            self.config.backlog / 2
        } else {
            self.config.backlog
        };
        let congested = self.transport_full || self.pending() > limit;
        match (self.congested, congested) {
            (false, true) => {
                self.congested = true;
                self.stats.congested += 1;
                actions.push(Action::Congested);
            }
            (true, false) => {
                self.congested = false;
                self.waiting = true;
                self.tell_ready(actions);
            }
            _ => {}
        }
    }

    fn tell_ready(&mut self, actions: &mut Vec<Action>) {
        if self.waiting && self.allowance() > 0 {
            self.waiting = false;
            actions.push(Action::SendReady);
        }
    }

    fn tell_readable(&mut self, actions: &mut Vec<Action>) {
        if self.full && self.inbox_bytes <= self.config.inbox / 2 {
            self.full = false;
            actions.push(Action::Readable);
        }
    }

    fn fail(&mut self, fault: Fault, actions: &mut Vec<Action>) {
        // Whoever was not let in has said nothing.
        if self.state != State::Up {
            self.inbox.clear();
            self.inbox_bytes = 0;
        }
        self.state = State::Failed;
        self.outgoing = Default::default();
        self.full = false;
        actions.push(Action::Failed(fault));
    }
}

/// Spreads keys, consecutive ones evenly: two bits that depend on all of them.
fn mixed(key: u64) -> u64 {
    (key ^ (key >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 62
}
