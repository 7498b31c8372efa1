//! Links.
//!
//! Each side has an entry for a link. Whoever takes it down keeps the entry, inactive, until the other side has confirmed it; until
//! then a LINK or EXIT that comes was sent before the other side knew, and is passed over. So both sides always come to agree, however
//! their signals cross.

use std::collections::BTreeMap;

use super::{Action, CommandError, Node, Signal, Target, process::Link};
use crate::wire::{
    dist::{Control, Flags},
    etf::{Atom, Pid, Term},
};

impl<K: Copy + Ord> Node<K> {
    /// Links a process with another one. If that is not there, or not within reach, the process gets an exit that says so.
    ///
    /// # Errors
    /// [`CommandError::Ended`], [`CommandError::Busy`], [`CommandError::Limit`].
    pub fn link(&mut self, process: &Pid, other: &Pid, actions: &mut Vec<Action<K>>) -> Result<(), CommandError> {
        let number = self.local(process).ok_or(CommandError::Ended)?;
        if process == other {
            return Ok(());
        }
        if self.is_own(&other.node) {
            match self.local(other) {
                Some(other_number) => {
                    self.insert_link(number, other);
                    self.insert_link(other_number, process);
                }
                None => self.deliver(number, exit(other, "noproc"), None, actions),
            }
            return Ok(());
        }
        if self.link_state(number, other) == Some(Link::Active) {
            return Ok(());
        }
        let connection = match self.connection_with_room(&Target::Pid(other.clone())) {
            Ok(connection) => connection,
            Err(CommandError::NotConnected(_)) => {
                self.deliver(number, exit(other, "noconnection"), None, actions);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let limit = self.config.limits.links;
        if self
            .connections
            .get(&connection)
            .is_some_and(|state| state.links >= limit)
        {
            return Err(CommandError::Limit {
                what: "links across one connection",
                limit,
            });
        }
        self.insert_link(number, other);
        let (from, to) = (process.clone(), other.clone());
        self.put_control(connection, Control::Link { from, to }, actions);
        Ok(())
    }

    /// Takes a link down. What has come over it before stays in the mailbox, and nothing comes any more.
    pub fn unlink(&mut self, process: &Pid, other: &Pid, actions: &mut Vec<Action<K>>) {
        let Some(number) = self.local(process) else {
            return;
        };
        if self.link_state(number, other) != Some(Link::Active) {
            return;
        }
        let (from, to) = (process.clone(), other.clone());
        let Some(connection) = self.connection(&other.node) else {
            self.remove_link(number, other);
            if let Some(other) = self.local(other) {
                self.remove_link(other, process);
            }
            return;
        };
        let common = self.connections.get(&connection).map(|state| state.common);
        if common.is_some_and(|common| common.contains(Flags::UNLINK_ID)) {
            let id = self.next_unlink;
            self.next_unlink += 1;
            if let Some(link) = self
                .processes
                .get_mut(&number)
                .and_then(|state| state.links.get_mut(other))
            {
                *link = Link::Unlinking(id);
            }
            self.put_control(connection, Control::UnlinkId { id, from, to }, actions);
        } else {
            self.remove_link(number, other);
            self.put_control(connection, Control::Unlink { from, to }, actions);
        }
    }

    pub(super) fn link_received(&mut self, connection: K, from: Pid, to: Pid, actions: &mut Vec<Action<K>>) {
        let limit = self.config.limits.links;
        let full = self
            .connections
            .get(&connection)
            .is_some_and(|state| state.links >= limit);
        let refusal = match self.local(&to) {
            None => "noproc",
            Some(number) if self.link_state(number, &from).is_some() => return,
            Some(_) if full => {
                self.stats.refused += 1;
                "system_limit"
            }
            Some(number) => return self.insert_link(number, &from),
        };
        let control = |reason| Control::Exit {
            from: to.clone(),
            to: from.clone(),
            reason,
            token: None,
        };
        self.put_reason(connection, control, &Atom::known(refusal).into(), actions);
    }

    /// `id`: of a request that wants an answer.
    pub(super) fn unlink_received(
        &mut self,
        connection: K,
        id: Option<u64>,
        from: Pid,
        to: Pid,
        actions: &mut Vec<Action<K>>,
    ) {
        if let Some(number) = self.local(&to)
            && self.link_state(number, &from) == Some(Link::Active)
        {
            self.remove_link(number, &from);
        }
        if let Some(id) = id {
            self.put_control(connection, Control::UnlinkIdAck { id, from: to, to: from }, actions);
        }
    }

    pub(super) fn unlink_confirmed(&mut self, id: u64, from: &Pid, to: &Pid) {
        match self.local(to) {
            Some(number) if self.link_state(number, from) == Some(Link::Unlinking(id)) => {
                self.remove_link(number, from);
            }
            _ => self.stats.stray += 1,
        }
    }

    pub(super) fn exit_received(
        &mut self,
        connection: K,
        from: Pid,
        to: &Pid,
        reason: Term,
        actions: &mut Vec<Action<K>>,
    ) {
        let number = self.local(to);
        let link = number.and_then(|number| Some((number, self.remove_link(number, &from)?)));
        match link {
            Some((number, Link::Active)) => {
                let linked = true;
                self.deliver(number, Signal::Exit { from, reason, linked }, Some(connection), actions);
            }
            _ => self.stats.stray += 1,
        }
    }

    /// The process `pid` has ended, and had these links.
    pub(super) fn end_links(
        &mut self,
        pid: &Pid,
        links: BTreeMap<Pid, Link>,
        reason: &Term,
        actions: &mut Vec<Action<K>>,
    ) {
        for (other, link) in links {
            if let Some(number) = self.local(&other) {
                self.remove_link(number, pid);
                let (from, reason, linked) = (pid.clone(), reason.clone(), true);
                self.deliver(number, Signal::Exit { from, reason, linked }, None, actions);
                continue;
            }
            let Some(connection) = self.connection(&other.node) else {
                continue;
            };
            if let Some(state) = self.connections.get_mut(&connection) {
                state.links = state.links.saturating_sub(1);
            }
            if link == Link::Active {
                let control = |reason| Control::Exit {
                    from: pid.clone(),
                    to: other.clone(),
                    reason,
                    token: None,
                };
                self.put_reason(connection, control, reason, actions);
            }
        }
    }

    /// The connection with a node is lost.
    pub(super) fn lose_links(&mut self, number: u64, peer: &Atom, actions: &mut Vec<Action<K>>) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let mut lost = Vec::new();
        process.links.retain(|other, link| {
            if other.node == *peer && *link == Link::Active {
                lost.push(other.clone());
            }
            other.node != *peer
        });
        for other in lost {
            self.deliver(number, exit(&other, "noconnection"), None, actions);
        }
    }

    fn link_state(&self, number: u64, other: &Pid) -> Option<Link> {
        self.processes.get(&number)?.links.get(other).copied()
    }

    fn insert_link(&mut self, number: u64, other: &Pid) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let is_new = process.links.insert(other.clone(), Link::Active).is_none();
        let connection = self.connection(&other.node);
        if let Some(state) = connection.and_then(|connection| self.connections.get_mut(&connection)) {
            state.links += usize::from(is_new);
        }
    }

    fn remove_link(&mut self, number: u64, other: &Pid) -> Option<Link> {
        let link = self.processes.get_mut(&number)?.links.remove(other)?;
        let connection = self.connection(&other.node);
        if let Some(state) = connection.and_then(|connection| self.connections.get_mut(&connection)) {
            state.links = state.links.saturating_sub(1);
        }
        Some(link)
    }
}

fn exit(from: &Pid, reason: &'static str) -> Signal {
    Signal::Exit {
        from: from.clone(),
        reason: Atom::known(reason).into(),
        linked: true,
    }
}
