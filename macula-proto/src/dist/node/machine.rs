use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Action, CommandError, Event, NodeConfig, NodeStats, RegisterError, Signal,
    outgoing::{Outgoing, sender},
    process::{Connection, Process},
};
use crate::wire::{
    dist::{Control, EncodeMessageError, Flags, Form, FragmentedMessage, Message, MessageDecoder},
    etf::{Atom, Pid, Reference, Term},
};

/// The process that answers pings.
pub(super) const NET_KERNEL: u64 = 0;

/// The processes of one node and what connects them with those of others. `K` names a connection. See the [module](super).
#[derive(Debug)]
pub struct Node<K> {
    pub(super) config: NodeConfig,
    pub(super) processes: BTreeMap<u64, Process<K>>,
    pub(super) names: BTreeMap<Atom, u64>,
    pub(super) aliases: BTreeMap<Reference, u64>,
    pub(super) connections: BTreeMap<K, Connection>,
    pub(super) peers: BTreeMap<Atom, K>,
    next_process: u64,
    next_reference: u64,
    pub(super) next_unlink: u64,
    pub(super) stats: NodeStats,
}

impl<K: Copy + Ord> Node<K> {
    /// A node without connections, and without processes but `net_kernel`.
    pub fn new(config: NodeConfig) -> Self {
        let mut net_kernel = Process::new();
        net_kernel.name = Some(Atom::known("net_kernel"));
        Self {
            config,
            processes: BTreeMap::from([(NET_KERNEL, net_kernel)]),
            names: BTreeMap::from([(Atom::known("net_kernel"), NET_KERNEL)]),
            aliases: BTreeMap::new(),
            connections: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_process: NET_KERNEL + 1,
            next_reference: 0,
            next_unlink: 1,
            stats: NodeStats::default(),
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, event: Event<K>, actions: &mut Vec<Action<K>>) {
        match event {
            Event::Up {
                connection,
                peer,
                common,
            } => self.up(connection, peer, common, actions),
            Event::Received { connection, message } => self.received(connection, &message, actions),
            Event::Down { connection } => self.down(connection, actions),
        }
    }

    /// The next message to be sent on a connection, without its length; `None` when there is nothing for now.
    pub fn poll_message(&mut self, connection: K, actions: &mut Vec<Action<K>>) -> Option<Bytes> {
        let limit = self.config.limits.outgoing;
        let state = self.connections.get_mut(&connection)?;
        let message = state.outgoing.pop()?;
        if state.outgoing.bytes() <= limit / 2 {
            if std::mem::take(&mut state.clogged) && state.blocked == 0 {
                actions.push(Action::Readable(connection));
            }
            if std::mem::take(&mut state.refused) {
                actions.push(Action::Room);
            }
        }
        Some(message)
    }

    /// Whether messages of a connection may be handed in. [`Action::Readable`] tells when they may again.
    pub fn can_receive(&self, connection: K) -> bool {
        let state = self.connections.get(&connection);
        state.is_some_and(|state| !state.clogged && state.blocked == 0)
    }

    /// Takes the next signal out of a mailbox.
    pub fn receive(&mut self, process: &Pid, actions: &mut Vec<Action<K>>) -> Option<Signal> {
        let number = self.local(process)?;
        let state = self.processes.get_mut(&number)?;
        let signal = state.pop()?;
        if state.bytes <= self.config.limits.mailbox / 2 {
            if std::mem::take(&mut state.refused) {
                actions.push(Action::Room);
            }
            let blocks = std::mem::take(&mut state.blocks);
            self.unblock(blocks, actions);
        }
        Some(signal)
    }

    /// A new process.
    ///
    /// # Errors
    /// [`CommandError::Limit`].
    pub fn spawn(&mut self) -> Result<Pid, CommandError> {
        let limit = self.config.limits.processes;
        if self.processes.len() > limit {
            return Err(CommandError::Limit {
                what: "processes",
                limit,
            });
        }
        let number = self.next_process;
        self.next_process += 1;
        self.processes.insert(number, Process::new());
        Ok(self.pid(number))
    }

    /// A process ends: what is linked to it and who monitors it gets `reason`. Without effect when it has ended already.
    pub fn end(&mut self, process: &Pid, reason: &Term, actions: &mut Vec<Action<K>>) {
        if let Some(number) = self.local(process).filter(|number| *number != NET_KERNEL) {
            self.terminate(number, reason, actions);
        }
    }

    /// Whether this is a process of this node, and alive.
    pub fn is_alive(&self, process: &Pid) -> bool {
        self.local(process).is_some()
    }

    /// Gives a process a name, by which others reach it.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register(&mut self, name: Atom, process: &Pid) -> Result<(), RegisterError> {
        if name == "undefined" {
            return Err(RegisterError::Reserved(name));
        }
        let number = self.local(process).ok_or(RegisterError::Ended)?;
        if self.names.contains_key(&name) {
            return Err(RegisterError::Taken(name));
        }
        let state = self.processes.get_mut(&number).ok_or(RegisterError::Ended)?;
        if let Some(name) = &state.name {
            return Err(RegisterError::Named(name.clone()));
        }
        state.name = Some(name.clone());
        self.names.insert(name, number);
        Ok(())
    }

    /// Takes a name away again. Whether a process had it.
    pub fn unregister(&mut self, name: &str) -> bool {
        if self.names.get(name).is_none_or(|number| *number == NET_KERNEL) {
            return false;
        }
        let number = self.names.remove(name);
        if let Some(state) = number.and_then(|number| self.processes.get_mut(&number)) {
            state.name = None;
        }
        true
    }

    /// The process with a name.
    pub fn whereis(&self, name: &str) -> Option<Pid> {
        self.names.get(name).map(|number| self.pid(*number))
    }

    /// This node's name.
    pub fn name(&self) -> &Atom {
        &self.config.name
    }

    /// Which run of the node this is.
    pub fn creation(&self) -> u32 {
        self.config.creation
    }

    /// A reference that no other one equals.
    pub fn make_reference(&mut self) -> Reference {
        let number = self.next_reference;
        self.next_reference += 1;
        // Nodes of before OTP 26 may take no more than 18 bits in the first word.
        let words = [(number & 0x3_FFFF) as u32, (number >> 18) as u32, (number >> 50) as u32];
        match Reference::new(self.config.name.clone(), self.config.creation, &words) {
            Ok(reference) => reference,
            Err(_) => unreachable!("three words are a reference"),
        }
    }

    /// The nodes that there is a connection with, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&Atom, K)> {
        self.peers.iter().map(|(peer, connection)| (peer, *connection))
    }

    /// The connection with a node.
    pub fn connection(&self, peer: &str) -> Option<K> {
        self.peers.get(peer).copied()
    }

    /// What was done.
    pub fn stats(&self) -> NodeStats {
        self.stats
    }

    fn up(&mut self, connection: K, peer: Atom, common: Flags, actions: &mut Vec<Action<K>>) {
        self.down(connection, actions);
        if let Some(earlier) = self.connection(&peer) {
            self.down(earlier, actions);
        }
        let limits = &self.config.limits;
        let state = Connection {
            peer: peer.clone(),
            common,
            form: Form::negotiated(common),
            decoder: MessageDecoder::new(limits.terms, limits.fragments, limits.max_message),
            outgoing: Outgoing::default(),
            sequence: common
                .contains(Flags::DIST_HDR_ATOM_CACHE | Flags::FRAGMENTS)
                .then_some(0),
            watched: BTreeMap::new(),
            links: 0,
            blocked: 0,
            clogged: false,
            refused: false,
        };
        self.connections.insert(connection, state);
        self.peers.insert(peer, connection);
    }

    pub(super) fn down(&mut self, connection: K, actions: &mut Vec<Action<K>>) {
        let Some(state) = self.connections.remove(&connection) else {
            return;
        };
        self.peers.remove(&state.peer);
        if state.refused {
            actions.push(Action::Room);
        }
        let numbers: Vec<u64> = self.processes.keys().copied().collect();
        for number in numbers {
            if let Some(process) = self.processes.get_mut(&number) {
                process.blocks.remove(&connection);
            }
            self.lose_links(number, &state.peer, actions);
            self.lose_monitors(number, &state.peer, actions);
        }
    }

    pub(super) fn terminate(&mut self, number: u64, reason: &Term, actions: &mut Vec<Action<K>>) {
        let pid = self.pid(number);
        let Some(process) = self.processes.remove(&number) else {
            return;
        };
        if let Some(name) = &process.name {
            self.names.remove(name);
        }
        for alias in &process.aliases {
            self.aliases.remove(alias);
        }
        if process.refused {
            actions.push(Action::Room);
        }
        self.end_links(&pid, process.links, reason, actions);
        self.end_watchers(&pid, process.watchers, reason, actions);
        for (reference, target) in process.monitors {
            self.take_back_monitor(&pid, &target, &reference, actions);
        }
        self.unblock(process.blocks, actions);
    }

    fn unblock(&mut self, blocks: impl IntoIterator<Item = K>, actions: &mut Vec<Action<K>>) {
        for connection in blocks {
            if let Some(state) = self.connections.get_mut(&connection) {
                state.blocked = state.blocked.saturating_sub(1);
                if state.blocked == 0 && !state.clogged {
                    actions.push(Action::Readable(connection));
                }
            }
        }
    }

    /// The number of a process of this node that is alive.
    pub(super) fn local(&self, pid: &Pid) -> Option<u64> {
        if pid.node != self.config.name || pid.creation != self.config.creation || pid.id > 0x7FFF {
            return None;
        }
        let number = u64::from(pid.serial) << 15 | u64::from(pid.id);
        self.processes.contains_key(&number).then_some(number)
    }

    pub(super) fn pid(&self, number: u64) -> Pid {
        Pid {
            node: self.config.name.clone(),
            // Older nodes take 15 bits here.
            id: (number & 0x7FFF) as u32,
            serial: (number >> 15) as u32,
            creation: self.config.creation,
        }
    }

    pub(super) fn is_own(&self, node: &Atom) -> bool {
        *node == self.config.name
    }

    /// Puts a signal into a mailbox. `origin` is the connection it came over.
    pub(super) fn deliver(&mut self, number: u64, signal: Signal, origin: Option<K>, actions: &mut Vec<Action<K>>) {
        if number == NET_KERNEL {
            return self.signal_net_kernel(signal, origin, actions);
        }
        let pid = self.pid(number);
        let Some(process) = self.processes.get_mut(&number) else {
            self.stats.dropped += 1;
            return;
        };
        self.stats.delivered += 1;
        if process.push(signal) {
            actions.push(Action::Signal(pid));
        }
        if let Some(connection) = origin
            && process.bytes > self.config.limits.mailbox
            && let Some(state) = self.connections.get_mut(&connection)
            && process.blocks.insert(connection)
        {
            state.blocked += 1;
        }
    }

    /// Puts a message out for a connection.
    ///
    /// # Errors
    /// It cannot be written, or is too long.
    pub(super) fn put(
        &mut self,
        connection: K,
        message: &Message,
        actions: &mut Vec<Action<K>>,
    ) -> Result<(), CommandError> {
        let limits = &self.config.limits;
        let Some(state) = self.connections.get_mut(&connection) else {
            return Ok(());
        };
        let out = match state.sequence {
            Some(sequence) => FragmentedMessage::encode(message, sequence),
            None => FragmentedMessage::whole(message, state.form),
        };
        let out = out.map_err(|error| match error {
            EncodeMessageError::Term(error) => CommandError::Term(error),
            EncodeMessageError::Payload => unreachable!("payloads go with their operations"),
        })?;
        if out.len() > limits.max_message as usize {
            return Err(CommandError::TooLarge {
                length: out.len(),
                limit: limits.max_message,
            });
        }
        self.stats.sent += 1;
        state.sequence = state.sequence.map(|sequence| sequence.wrapping_add(1));
        if state.outgoing.is_empty() {
            actions.push(Action::Writable(connection));
        }
        state.outgoing.push(sender(&message.control).cloned(), out);
        state.clogged |= state.outgoing.bytes() > limits.outgoing;
        Ok(())
    }

    /// Puts out a control without terms of users in it, which can always be written.
    pub(super) fn put_control(&mut self, connection: K, control: Control, actions: &mut Vec<Action<K>>) {
        // Only a limit below the length of any message could refuse it.
        let _ = self.put(connection, &Message::control(control), actions);
    }

    /// Puts out an exit or a down, the reason where the peer expects it. `control` gets the reason if it belongs there.
    pub(super) fn put_reason(
        &mut self,
        connection: K,
        control: impl Fn(Option<Term>) -> Control,
        reason: &Term,
        actions: &mut Vec<Action<K>>,
    ) {
        let common = self.connections.get(&connection).map(|state| state.common);
        let behind = common.is_some_and(|common| common.contains(Flags::EXIT_PAYLOAD));
        let message = |reason: &Term| {
            if behind {
                Message::with_payload(control(None), reason.clone())
            } else {
                Message::control(control(Some(reason.clone())))
            }
        };
        // A reason that cannot be sent must not keep the signal back.
        if self.put(connection, &message(reason), actions).is_err() {
            let _ = self.put(connection, &message(&Atom::known("badarg").into()), actions);
        }
    }
}
