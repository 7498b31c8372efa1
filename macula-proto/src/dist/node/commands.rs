//! What the owner of a process has it do.

use super::{Action, CommandError, Node, Signal, Target, machine::NET_KERNEL};
use crate::wire::{
    dist::{Control, Flags, Message},
    etf::{Pid, Reference, Term},
};

impl<K: Copy + Ord> Node<K> {
    /// Sends a message. As everywhere in Erlang it is lost without a word when nobody is there to take it.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn send(
        &mut self,
        from: &Pid,
        to: &Target,
        term: Term,
        actions: &mut Vec<Action<K>>,
    ) -> Result<(), CommandError> {
        let from = self.local(from).ok_or(CommandError::Ended)?;
        self.route(from, to, term, false, actions)
    }

    /// As [`send`](Self::send), from the node itself.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn send_as_node(&mut self, to: &Target, term: Term, actions: &mut Vec<Action<K>>) -> Result<(), CommandError> {
        self.route(NET_KERNEL, to, term, false, actions)
    }

    /// Whether a message of `from`, or of the node itself, to `to` would be taken now.
    ///
    /// # Errors
    /// Why not: [`CommandError::Ended`], [`CommandError::NotConnected`], [`CommandError::OwnMailbox`], [`CommandError::Busy`], behind
    /// which [`Action::Room`] comes.
    pub fn ready(&mut self, from: Option<&Pid>, to: &Target) -> Result<(), CommandError> {
        let from = match from {
            Some(from) => self.local(from).ok_or(CommandError::Ended)?,
            None => NET_KERNEL,
        };
        if !self.is_own(to.node()) {
            return self.connection_with_room(to).map(|_| ());
        }
        self.find(to)
            .map_or(Ok(()), |number| self.mailbox_with_room(from, number))
    }

    /// `exit(to, reason)`: a process gets an exit as if a linked one had ended; `kill` ends it.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn exit(
        &mut self,
        from: &Pid,
        to: &Pid,
        reason: &Term,
        actions: &mut Vec<Action<K>>,
    ) -> Result<(), CommandError> {
        self.local(from).ok_or(CommandError::Ended)?;
        if self.is_own(&to.node) {
            if let Some(number) = self.local(to) {
                self.exit_local(number, from.clone(), reason.clone(), None, actions);
            }
            return Ok(());
        }
        let connection = self.connection_with_room(&Target::Pid(to.clone()))?;
        let control = |reason| Control::Exit2 {
            from: from.clone(),
            to: to.clone(),
            reason,
            token: None,
        };
        self.put_reason(connection, control, reason, actions);
        Ok(())
    }

    /// Another address of a process, which it can [take back](Self::unalias).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn alias(&mut self, process: &Pid) -> Result<Reference, CommandError> {
        let number = self.local(process).ok_or(CommandError::Ended)?;
        let alias = self.make_reference();
        let limit = self.config.limits.aliases;
        let state = self.processes.get_mut(&number).ok_or(CommandError::Ended)?;
        if state.aliases.len() >= limit {
            return Err(CommandError::Limit {
                what: "aliases of a process",
                limit,
            });
        }
        state.aliases.insert(alias.clone());
        self.aliases.insert(alias.clone(), number);
        Ok(alias)
    }

    /// Takes an alias back: what is sent to it from now on is dropped. Whether it was one of the process.
    pub fn unalias(&mut self, process: &Pid, alias: &Reference) -> bool {
        let number = self.local(process);
        if number.is_none() || self.aliases.get(alias).copied() != number {
            return false;
        }
        self.aliases.remove(alias);
        if let Some(state) = number.and_then(|number| self.processes.get_mut(&number)) {
            state.aliases.remove(alias);
        }
        true
    }

    /// `force`: whatever waits already.
    pub(super) fn route(
        &mut self,
        from: u64,
        to: &Target,
        term: Term,
        force: bool,
        actions: &mut Vec<Action<K>>,
    ) -> Result<(), CommandError> {
        let sender = self.pid(from);
        if self.is_own(to.node()) {
            return self.send_local(from, to, term, force, actions);
        }
        let connection = match self.connection_with_room(to) {
            Err(CommandError::Busy) if force => self.connection(to.node()),
            found => Some(found?),
        };
        let state = connection.and_then(|connection| Some((connection, self.connections.get(&connection)?)));
        let (connection, state) = state.ok_or_else(|| CommandError::NotConnected(to.node().clone()))?;
        let control = match to {
            Target::Pid(to) if state.common.contains(Flags::SEND_SENDER) => Control::SendSender {
                from: sender,
                to: to.clone(),
                token: None,
            },
            Target::Pid(to) => Control::Send {
                to: to.clone(),
                token: None,
            },
            Target::Name { name, .. } => Control::RegSend {
                from: sender,
                to: name.clone(),
                token: None,
            },
            Target::Alias(alias) if state.common.contains(Flags::ALIAS) => Control::AliasSend {
                from: sender,
                alias: alias.clone(),
                token: None,
            },
            Target::Alias(_) => return Err(CommandError::Alias),
        };
        self.put(connection, &Message::with_payload(control, term), actions)
    }

    fn send_local(
        &mut self,
        from: u64,
        to: &Target,
        term: Term,
        force: bool,
        actions: &mut Vec<Action<K>>,
    ) -> Result<(), CommandError> {
        let Some(number) = self.find(to) else {
            self.stats.dropped += 1;
            return Ok(());
        };
        if !force {
            self.mailbox_with_room(from, number)?;
        }
        let from = Some(self.pid(from));
        self.deliver(number, Signal::Message { from, term }, None, actions);
        Ok(())
    }

    fn mailbox_with_room(&mut self, from: u64, to: u64) -> Result<(), CommandError> {
        match self.processes.get_mut(&to) {
            Some(process) if process.bytes > self.config.limits.mailbox => {
                if to == from {
                    return Err(CommandError::OwnMailbox);
                }
                process.refused = true;
                Err(CommandError::Busy)
            }
            _ => Ok(()),
        }
    }

    /// The number of a process of this node.
    pub(super) fn find(&self, target: &Target) -> Option<u64> {
        match target {
            Target::Pid(pid) => self.local(pid),
            Target::Name { name, .. } => self.names.get(name).copied(),
            Target::Alias(alias) => self.aliases.get(alias).copied(),
        }
    }

    /// The connection with the node of `target`, if it takes more.
    pub(super) fn connection_with_room(&mut self, target: &Target) -> Result<K, CommandError> {
        let not_connected = || CommandError::NotConnected(target.node().clone());
        let connection = self.connection(target.node()).ok_or_else(not_connected)?;
        let state = self.connections.get_mut(&connection).ok_or_else(not_connected)?;
        if state.clogged {
            state.refused = true;
            return Err(CommandError::Busy);
        }
        Ok(connection)
    }
}
