//! Monitors.

use std::collections::BTreeMap;

use super::{Action, CommandError, Node, Signal, Target, process::Watcher};
use crate::wire::{
    dist::{Control, control},
    etf::{Atom, Pid, Reference, Term},
};

impl<K: Copy + Ord> Node<K> {
    /// Monitors a process: its end, or that it is not there, comes as [`Signal::Down`], once.
    ///
    /// # Errors
    /// [`CommandError::Ended`], [`CommandError::Busy`], [`CommandError::Limit`], [`CommandError::Alias`].
    pub fn monitor(
        &mut self,
        process: &Pid,
        target: &Target,
        actions: &mut Vec<Action<K>>,
    ) -> Result<Reference, CommandError> {
        let number = self.local(process).ok_or(CommandError::Ended)?;
        let named = named(target).ok_or(CommandError::Alias)?;
        let limit = self.config.limits.monitors;
        if self
            .processes
            .get(&number)
            .is_some_and(|state| state.monitors.len() >= limit)
        {
            return Err(CommandError::Limit {
                what: "monitors of one process",
                limit,
            });
        }
        let own = self.is_own(target.node());
        let connection = if own {
            None
        } else {
            Some(self.connection_with_room(target))
        };
        if let Some(Err(CommandError::Busy)) = connection {
            return Err(CommandError::Busy);
        }
        let reference = self.make_reference();
        let watched = self.find(target).filter(|_| own);
        match (connection, watched) {
            (Some(Ok(connection)), _) => {
                let control = Control::Monitor {
                    from: process.clone(),
                    to: named,
                    reference: reference.clone(),
                };
                self.put_control(connection, control, actions);
            }
            (Some(Err(_)), _) => {
                self.deliver(number, down(&reference, target, "noconnection"), None, actions);
                return Ok(reference);
            }
            (None, Some(watched)) => {
                let pid = process.clone();
                if let Some(state) = self.processes.get_mut(&watched) {
                    state.watchers.insert(reference.clone(), Watcher { pid, named });
                }
            }
            (None, None) => {
                self.deliver(number, down(&reference, target, "noproc"), None, actions);
                return Ok(reference);
            }
        }
        if let Some(state) = self.processes.get_mut(&number) {
            state.monitors.insert(reference.clone(), target.clone());
        }
        Ok(reference)
    }

    /// Takes a monitor back. A down that is in the mailbox already stays there. Whether there was such a monitor.
    pub fn demonitor(&mut self, process: &Pid, reference: &Reference, actions: &mut Vec<Action<K>>) -> bool {
        let state = self.local(process).and_then(|number| self.processes.get_mut(&number));
        match state.and_then(|state| state.monitors.remove(reference)) {
            Some(target) => {
                self.take_back_monitor(process, &target, reference, actions);
                true
            }
            None => false,
        }
    }

    /// `process` does not want to know of `target` any more.
    pub(super) fn take_back_monitor(
        &mut self,
        process: &Pid,
        target: &Target,
        reference: &Reference,
        actions: &mut Vec<Action<K>>,
    ) {
        if self.is_own(target.node()) {
            // The name may be another one's by now.
            for state in self.find_watched(target, reference) {
                state.watchers.remove(reference);
            }
        } else if let (Some(connection), Some(to)) = (self.connection(target.node()), named(target)) {
            let (from, reference) = (process.clone(), reference.clone());
            self.put_control(connection, Control::Demonitor { from, to, reference }, actions);
        }
    }

    fn find_watched(
        &mut self,
        target: &Target,
        reference: &Reference,
    ) -> impl Iterator<Item = &mut super::process::Process<K>> {
        let number = self.find(target).filter(|number| {
            self.processes
                .get(number)
                .is_some_and(|state| state.watchers.contains_key(reference))
        });
        let candidates = self
            .processes
            .iter_mut()
            .filter(move |(at, _)| number.is_none_or(|number| number == **at));
        candidates.map(|(_, state)| state)
    }

    pub(super) fn monitor_received(
        &mut self,
        connection: K,
        from: Pid,
        to: control::Process,
        reference: Reference,
        actions: &mut Vec<Action<K>>,
    ) {
        let number = match &to {
            control::Process::Pid(pid) => self.local(pid),
            control::Process::Name(name) => self.names.get(name).copied(),
        };
        let limit = self.config.limits.monitors;
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        let refusal = match number {
            Some(_) if state.watched.contains_key(&reference) => {
                self.stats.stray += 1;
                return;
            }
            Some(number) if state.watched.len() < limit => {
                state.watched.insert(reference.clone(), number);
                if let Some(process) = self.processes.get_mut(&number) {
                    process.watchers.insert(reference, Watcher { pid: from, named: to });
                }
                return;
            }
            Some(_) => {
                self.stats.refused += 1;
                "system_limit"
            }
            None => "noproc",
        };
        let control = |reason| Control::MonitorExit {
            from: to.clone(),
            to: from.clone(),
            reference: reference.clone(),
            reason,
        };
        self.put_reason(connection, control, &Atom::known(refusal).into(), actions);
    }

    pub(super) fn demonitor_received(&mut self, connection: K, reference: &Reference) {
        let state = self.connections.get_mut(&connection);
        let number = state.and_then(|state| state.watched.remove(reference));
        // The process may have ended meanwhile, and the peer not know it yet.
        if let Some(process) = number.and_then(|number| self.processes.get_mut(&number)) {
            process.watchers.remove(reference);
        }
    }

    pub(super) fn down_received(
        &mut self,
        connection: K,
        to: &Pid,
        reference: Reference,
        reason: Term,
        actions: &mut Vec<Action<K>>,
    ) {
        let peer = self.connections.get(&connection).map(|state| state.peer.clone());
        let number = self.local(to);
        let monitors = number
            .and_then(|number| self.processes.get_mut(&number))
            .map(|state| &mut state.monitors);
        let target = monitors.and_then(|monitors| {
            monitors
                .get(&reference)
                .filter(|target| Some(target.node()) == peer.as_ref())?;
            monitors.remove(&reference)
        });
        match (number, target) {
            (Some(number), Some(target)) => {
                let signal = Signal::Down {
                    reference,
                    target,
                    reason,
                };
                self.deliver(number, signal, Some(connection), actions);
            }
            _ => self.stats.stray += 1,
        }
    }

    /// The process `pid` has ended, and was watched by these.
    pub(super) fn end_watchers(
        &mut self,
        pid: &Pid,
        watchers: BTreeMap<Reference, Watcher>,
        reason: &Term,
        actions: &mut Vec<Action<K>>,
    ) {
        for (reference, watcher) in watchers {
            if self.is_own(&watcher.pid.node) {
                let number = self.local(&watcher.pid);
                let state = number.and_then(|number| self.processes.get_mut(&number));
                let target = state.and_then(|state| state.monitors.remove(&reference));
                if let (Some(number), Some(target)) = (number, target) {
                    let reason = reason.clone();
                    let signal = Signal::Down {
                        reference,
                        target,
                        reason,
                    };
                    self.deliver(number, signal, None, actions);
                }
                continue;
            }
            let Some(connection) = self.connection(&watcher.pid.node) else {
                continue;
            };
            if let Some(state) = self.connections.get_mut(&connection) {
                state.watched.remove(&reference);
            }
            let Watcher { pid: to, named } = watcher;
            debug_assert!(matches!(&named, control::Process::Name(_)) || named == control::Process::Pid(pid.clone()));
            let control = |reason| Control::MonitorExit {
                from: named.clone(),
                to: to.clone(),
                reference: reference.clone(),
                reason,
            };
            self.put_reason(connection, control, reason, actions);
        }
    }

    /// The connection with a node is lost.
    pub(super) fn lose_monitors(&mut self, number: u64, peer: &Atom, actions: &mut Vec<Action<K>>) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        process.watchers.retain(|_, watcher| watcher.pid.node != *peer);
        let mut lost = Vec::new();
        process.monitors.retain(|reference, target| {
            let is_lost = target.node() == peer;
            if is_lost {
                lost.push(down(reference, target, "noconnection"));
            }
            !is_lost
        });
        for signal in lost {
            self.deliver(number, signal, None, actions);
        }
    }
}

fn named(target: &Target) -> Option<control::Process> {
    match target {
        Target::Pid(pid) => Some(control::Process::Pid(pid.clone())),
        Target::Name { name, .. } => Some(control::Process::Name(name.clone())),
        Target::Alias(_) => None,
    }
}

fn down(reference: &Reference, target: &Target, reason: &'static str) -> Signal {
    Signal::Down {
        reference: reference.clone(),
        target: target.clone(),
        reason: Atom::known(reason).into(),
    }
}
